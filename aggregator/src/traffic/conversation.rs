//! What both ends saw of one conversation, and what is told of it.

use kestrel_proto::{
    cloud::v1,
    node::v1::{Flow, FlowDirection, FlowVerdict},
};
use prost_types::Timestamp;

use super::resolve::{Conversation, End};

/// How often, as one end saw it.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    passed: u64,
    stopped: u64,
}

/// Of one direction, as far as told apart. More are left out and counted.
const MOST_POLICIES: usize = 64;

/// The counts of a conversation, by who saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// At the source.
    egress: View,
    /// At the destination.
    ingress: View,
    /// By something that does not say where.
    somewhere: View,
    first: u64,
    last: u64,
    ingress_allowed_by: Vec<v1::Policy>,
    egress_allowed_by: Vec<v1::Policy>,
}

impl Seen {
    pub(super) fn nothing() -> Self {
        let none = View::default();
        Self {
            egress: none,
            ingress: none,
            somewhere: none,
            first: u64::MAX,
            last: 0,
            ingress_allowed_by: Vec::new(),
            egress_allowed_by: Vec::new(),
        }
    }

    /// Another node, or the same one again, has seen it. How many policies there was no room for.
    pub(super) fn add(&mut self, flow: &Flow) -> usize {
        let mut left_out = 0;
        let view = match flow.direction() {
            FlowDirection::Egress => &mut self.egress,
            FlowDirection::Ingress => &mut self.ingress,
            FlowDirection::Unspecified => &mut self.somewhere,
        };
        let counter = match flow.verdict() {
            FlowVerdict::Forwarded => &mut view.passed,
            FlowVerdict::Unspecified | FlowVerdict::Dropped | FlowVerdict::Error => &mut view.stopped,
        };
        *counter = counter.saturating_add(flow.count);
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
    ///
    /// What the destination stops, the source saw pass. What the source stops, the destination never sees.
    pub(super) fn told(&self, conversation: &Conversation) -> Vec<v1::Flow> {
        let Self { egress, ingress, somewhere, .. } = *self;
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
        let told = rows.into_iter().filter(|(.., count)| *count > 0);
        told.map(|(direction, allowed, count)| self.flow(conversation, direction, allowed, count)).collect()
    }

    fn flow(&self, conversation: &Conversation, direction: &str, allowed: bool, count: u64) -> v1::Flow {
        let Conversation { source, destination, port, protocol } = conversation;
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

fn time(nanoseconds: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    // Both are small enough.
    Timestamp { seconds: (nanoseconds / SECOND) as i64, nanos: (nanoseconds % SECOND) as i32 }
}

#[cfg(test)]
mod tests {
    use super::{super::resolve::resolve, *};

    fn told(views: &[(FlowDirection, FlowVerdict, u64)]) -> Vec<(String, bool, i64)> {
        let flow = Flow { port: 80, protocol: 6, first_seen: 1_500_000_000, last_seen: 2, ..Flow::default() };
        let mut seen = Seen::nothing();
        for (direction, verdict, count) in views {
            let (direction, verdict) = ((*direction).into(), (*verdict).into());
            seen.add(&Flow { direction, verdict, count: *count, ..flow.clone() });
        }
        let told = seen.told(&resolve(&flow, |_, _| None));
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
    fn policies_are_told_once_and_of_what_passed_alone() {
        let policy = |number: usize| v1::Policy { name: number.to_string(), ..v1::Policy::default() };
        let flow = Flow {
            count: 1,
            verdict: FlowVerdict::Forwarded.into(),
            direction: FlowDirection::Egress.into(),
            egress_allowed_by: (0..MOST_POLICIES + 2).map(policy).collect(),
            ..Flow::default()
        };
        let mut seen = Seen::nothing();
        assert_eq!((seen.add(&flow), seen.add(&flow)), (2, 2));
        seen.add(&Flow { verdict: FlowVerdict::Dropped.into(), ..flow.clone() });
        let told = seen.told(&resolve(&flow, |_, _| None));
        let policies: Vec<_> = told.iter().map(|flow| (flow.allowed, flow.egress_allowed_by.len())).collect();
        assert_eq!(policies, [(true, MOST_POLICIES), (false, 0)]);
    }
}
