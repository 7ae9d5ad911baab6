//! What both ends saw of one conversation, and what is told of it.

use kestrel_proto::{
    cloud::v1,
    node::v1::{Flow, FlowDirection, FlowSource, FlowVerdict},
};
use prost_types::Timestamp;

use super::{
    edge,
    resolve::{Conversation, End},
};

/// How often, as one end saw it.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    passed: u64,
    stopped: u64,
}

/// How often, as one source saw it.
#[derive(Clone, Copy, Debug, Default)]
struct Views {
    /// At the source of the conversation.
    egress: View,
    /// At the destination.
    ingress: View,
    /// By something that does not say where.
    somewhere: View,
}

/// What one counts in packets, another counts in connections: their counts are not added. Of what passed, and
/// of what did not, the first of these that saw any is told.
const SOURCES: [FlowSource; 5] = [
    FlowSource::Hubble,
    FlowSource::HubbleRelay,
    FlowSource::AwsPolicyAgent,
    FlowSource::Ztunnel,
    FlowSource::Unspecified,
];

/// Of one direction, as far as told apart. More are left out and counted.
const MOST_POLICIES: usize = 64;

/// The counts of a conversation, by who saw it.
#[derive(Debug)]
pub(super) struct Seen {
    conversation: Conversation,
    /// In the order of [`SOURCES`].
    views: [Views; SOURCES.len()],
    first: u64,
    last: u64,
    ingress_allowed_by: Vec<v1::Policy>,
    egress_allowed_by: Vec<v1::Policy>,
    /// What stopped it, in a few words each.
    stopped_by: Vec<String>,
}

impl Seen {
    pub(super) fn nothing(conversation: Conversation) -> Self {
        Self {
            conversation,
            views: Default::default(),
            first: u64::MAX,
            last: 0,
            ingress_allowed_by: Vec::new(),
            egress_allowed_by: Vec::new(),
            stopped_by: Vec::new(),
        }
    }

    /// What stopped it, as far as anybody who saw it says so.
    pub(super) fn stopped_by(&self) -> impl Iterator<Item = &str> {
        self.stopped_by.iter().map(String::as_str)
    }

    /// Another node, or the same one again, has seen it. How many policies there was no room for.
    pub(super) fn add(&mut self, conversation: Conversation, flow: &Flow) -> usize {
        self.conversation.learn(conversation);
        let mut left_out = 0;
        let seen_by = flow.seen_by();
        let source = SOURCES.iter().position(|source| *source == seen_by).unwrap_or(SOURCES.len() - 1);
        let Views { egress, ingress, somewhere } = &mut self.views[source];
        let view = match flow.direction() {
            FlowDirection::Egress => egress,
            FlowDirection::Ingress => ingress,
            FlowDirection::Unspecified => somewhere,
        };
        let counter = match flow.verdict() {
            FlowVerdict::Forwarded => &mut view.passed,
            FlowVerdict::Unspecified | FlowVerdict::Dropped | FlowVerdict::Error => &mut view.stopped,
        };
        *counter = counter.saturating_add(flow.count);
        if flow.verdict() != FlowVerdict::Forwarded {
            edge::add_why(&mut self.stopped_by, flow);
        }
        self.first = self.first.min(flow.first_seen);
        self.last = self.last.max(flow.last_seen);
        for (known, policies) in [
            (&mut self.ingress_allowed_by, &flow.ingress_allowed_by),
            (&mut self.egress_allowed_by, &flow.egress_allowed_by),
        ] {
            for policy in policies {
                match known.contains(policy) {
                    true => {}
                    false if known.len() < MOST_POLICIES => known.push(policy.clone()),
                    false => left_out += 1,
                }
            }
        }
        left_out
    }

    /// What is told: what passed and what did not, each once, whoever saw it.
    pub(super) fn told(&self) -> Vec<v1::Flow> {
        let told = [true, false].into_iter().flat_map(|is_allowed| {
            let rows =
                self.views.iter().map(|views| views.rows().filter(|row| row.1 == is_allowed).collect());
            rows.into_iter().find(|rows: &Vec<_>| !rows.is_empty()).unwrap_or_default()
        });
        told.map(|(direction, allowed, count)| self.flow(direction, allowed, count)).collect()
    }

    fn flow(&self, direction: &str, allowed: bool, count: u64) -> v1::Flow {
        let Conversation { source, destination, port, protocol, .. } = &self.conversation;
        let address = |end: &End| end.address.map(|address| address.to_string()).unwrap_or_default();
        v1::Flow {
            src_ip: address(source),
            dst_ip: address(destination),
            src: Some(source.endpoint.clone().into()),
            dst: Some(destination.endpoint.clone().into()),
            direction: direction.to_owned(),
            port: *port,
            protocol: protocol_name(*protocol).to_owned(),
            allowed,
            count: count.try_into().unwrap_or(i64::MAX),
            first_seen: Some(time(self.first)),
            last_seen: Some(time(self.last)),
            // A policy that lets pass says nothing of what did not.
            ingress_allowed_by: if allowed { self.ingress_allowed_by.clone() } else { Vec::new() },
            egress_allowed_by: if allowed { self.egress_allowed_by.clone() } else { Vec::new() },
        }
    }
}

impl Views {
    /// Where it was seen, whether it passed, and how often, if at all.
    ///
    /// What the destination stops, the source saw pass. What the source stops, the destination never sees.
    fn rows(&self) -> impl Iterator<Item = (&'static str, bool, u64)> {
        let Self { egress, ingress, somewhere } = self;
        let passed_source = egress.passed.saturating_sub(ingress.stopped);
        let (seen_at, passed) = if ingress.passed > passed_source {
            ("INGRESS", ingress.passed)
        } else {
            ("EGRESS", passed_source)
        };
        let rows = [
            (seen_at, true, passed),
            ("EGRESS", false, egress.stopped),
            ("INGRESS", false, ingress.stopped),
            (UNKNOWN, true, somewhere.passed),
            (UNKNOWN, false, somewhere.stopped),
        ];
        rows.into_iter().filter(|(.., count)| *count > 0)
    }
}

const UNKNOWN: &str = "TRAFFIC_DIRECTION_UNKNOWN";

fn protocol_name(number: u32) -> &'static str {
    match number {
        1 => "ICMPv4",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        132 => "SCTP",
        _ => "",
    }
}

pub(super) fn time(nanoseconds: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    // Both are small enough.
    Timestamp { seconds: (nanoseconds / SECOND) as i64, nanos: (nanoseconds % SECOND) as i32 }
}

#[cfg(test)]
mod tests {
    use super::{super::resolve::resolve, *};

    type View = (FlowDirection, FlowVerdict, u64);

    fn told(views: &[View]) -> Vec<(String, bool, i64)> {
        of_sources(views.iter().map(|view| (FlowSource::Hubble, *view)))
    }

    fn of_sources(views: impl Iterator<Item = (FlowSource, View)>) -> Vec<(String, bool, i64)> {
        let flow = Flow { port: 80, protocol: 6, first_seen: 1_500_000_000, last_seen: 2, ..Flow::default() };
        let conversation = || resolve(&flow, |_, _| None);
        let mut seen = Seen::nothing(conversation());
        for (source, (direction, verdict, count)) in views {
            let (direction, verdict, seen_by) = (direction.into(), verdict.into(), source.into());
            seen.add(conversation(), &Flow { direction, verdict, count, seen_by, ..flow.clone() });
        }
        let told = seen.told();
        assert!(told.iter().all(|flow| flow.port == 80 && flow.protocol == "TCP"));
        let first = Timestamp { seconds: 1, nanos: 500_000_000 };
        assert!(told.iter().all(|flow| flow.first_seen == Some(first)));
        told.into_iter().map(|flow| (flow.direction, flow.allowed, flow.count)).collect()
    }

    #[test]
    fn both_ends_views_are_one_flow_and_nothing_that_was_stopped_counts_as_passed() {
        use FlowDirection::{Egress, Ingress, Unspecified};
        use FlowVerdict::{Dropped, Error, Forwarded};
        let row = |direction: &str, allowed, count| (direction.to_owned(), allowed, count);
        for (views, expected) in [
            (&[(Egress, Forwarded, 5)][..], vec![row("EGRESS", true, 5)]),
            (&[(Ingress, Forwarded, 5)], vec![row("INGRESS", true, 5)]),
            (&[(Egress, Forwarded, 5), (Ingress, Forwarded, 5)], vec![row("EGRESS", true, 5)]),
            (&[(Egress, Forwarded, 5), (Ingress, Forwarded, 7)], vec![row("INGRESS", true, 7)]),
            (&[(Egress, Forwarded, 5), (Ingress, Dropped, 5)], vec![row("INGRESS", false, 5)]),
            (
                &[(Egress, Forwarded, 5), (Ingress, Dropped, 2), (Ingress, Forwarded, 3)],
                vec![row("EGRESS", true, 3), row("INGRESS", false, 2)],
            ),
            (&[(Egress, Dropped, 4)], vec![row("EGRESS", false, 4)]),
            (
                &[(Egress, Error, 1), (Egress, Forwarded, 2)],
                vec![row("EGRESS", true, 2), row("EGRESS", false, 1)],
            ),
            (&[(Unspecified, Dropped, 4)], vec![row("TRAFFIC_DIRECTION_UNKNOWN", false, 4)]),
        ] {
            assert_eq!(told(views), expected, "{views:?}");
        }
    }

    #[test]
    fn counts_of_two_sources_are_not_added() {
        use FlowSource::{AwsPolicyAgent, Hubble, Ztunnel};
        let views = [
            (Ztunnel, (FlowDirection::Egress, FlowVerdict::Forwarded, 2)),
            (Hubble, (FlowDirection::Egress, FlowVerdict::Forwarded, 9)),
            (Hubble, (FlowDirection::Ingress, FlowVerdict::Forwarded, 9)),
            (Ztunnel, (FlowDirection::Ingress, FlowVerdict::Dropped, 3)),
        ];
        let row = |direction: &str, allowed, count| (direction.to_owned(), allowed, count);
        let expected = [row("EGRESS", true, 9), row("INGRESS", false, 3)];
        assert_eq!(
            of_sources(views.into_iter()),
            expected,
            "a tunnel may stop what a packet's policy lets pass"
        );
        let views = [(Ztunnel, views[0].1), (AwsPolicyAgent, views[1].1)];
        assert_eq!(of_sources(views.into_iter()), [row("EGRESS", true, 9)]);
    }

    #[test]
    fn policies_are_told_once_and_of_what_passed_alone() {
        let policy = |number: usize| v1::Policy { name: number.to_string(), ..v1::Policy::default() };
        let flow = Flow {
            count: 1,
            verdict: FlowVerdict::Forwarded.into(),
            direction: FlowDirection::Egress.into(),
            egress_allowed_by: (0..MOST_POLICIES + 2).map(policy).collect(),
            ..Flow::default()
        };
        let conversation = || resolve(&flow, |_, _| None);
        let mut seen = Seen::nothing(conversation());
        assert_eq!((seen.add(conversation(), &flow), seen.add(conversation(), &flow)), (2, 2));
        seen.add(conversation(), &Flow { verdict: FlowVerdict::Dropped.into(), ..flow.clone() });
        let told = seen.told();
        let policies: Vec<_> = told.iter().map(|flow| (flow.allowed, flow.egress_allowed_by.len())).collect();
        assert_eq!(policies, [(true, MOST_POLICIES), (false, 0)]);
    }
}
