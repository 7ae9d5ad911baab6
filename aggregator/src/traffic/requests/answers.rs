//! What came of the requests of an edge, for the signals.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use kestrel_als::{Counts, Key, Side, entry::Protocol, flags::Flags};

use super::{ends::text, tell::method};
use crate::signals::edges::{
    Evidence,
    requests::{Answers, Failing, Failure, Share},
};

/// Different failures of one way that are looked at for what they were, the most frequent ones.
const MOST_EVIDENCE: usize = 8;

/// An edge's requests in a window, as the proxies of either end saw them. Some failures only one of them sees.
#[derive(Default)]
pub(super) struct Seen<'w>([View<'w>; 2]);

#[derive(Default)]
struct View<'w> {
    all: u64,
    /// Nanoseconds since 1970.
    last: u64,
    failed: BTreeMap<Failing, Vec<(Key<'w>, &'w Counts)>>,
    /// Of routes of which something failed: how many requests of each there were.
    of_route: HashMap<Route<'w>, u64>,
}

/// Method and path template.
type Route<'w> = (u8, &'w [u8]);

fn route<'w>(key: &Key<'w>) -> Route<'w> {
    (key.method, key.template)
}

impl<'w> Seen<'w> {
    /// Adds a row.
    pub(super) fn add(&mut self, key: &Key<'w>, counts: &'w Counts) {
        let outcome = Outcome::of(key);
        if outcome == Outcome::Unknown {
            return;
        }
        let view = self.view(key.side);
        view.all = view.all.saturating_add(counts.count);
        view.last = view.last.max(counts.last);
        if let Outcome::Failed(failing) = outcome {
            view.of_route.entry(route(key)).or_default();
            view.failed.entry(failing).or_default().push((*key, counts));
        }
    }

    /// Adds a row once more, when all have been added: to the others of its route.
    pub(super) fn add_to_route(&mut self, key: &Key<'w>, counts: &Counts) {
        let view = self.view(key.side);
        if view.of_route.is_empty() || Outcome::of(key) == Outcome::Unknown {
            return;
        }
        if let Some(all) = view.of_route.get_mut(&route(key)) {
            *all = all.saturating_add(counts.count);
        }
    }

    fn view(&mut self, side: Side) -> &mut View<'w> {
        let [client, server] = &mut self.0;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    /// What is to be told of it: of each way the view of that end that saw more of it.
    pub(super) fn answers(&self) -> Answers {
        let [client, server] = &self.0;
        let failures = Failing::ALL.into_iter().filter_map(|failing| {
            let [one, other] = [client, server].map(|view| view.failure(failing));
            one.into_iter()
                .chain(other)
                .reduce(|one, other| if other.share.some > one.share.some { other } else { one })
        });
        Answers {
            failures: failures.collect(),
            all: client.all.max(server.all),
            last: time(client.last.max(server.last)),
        }
    }
}

impl View<'_> {
    fn failure(&self, failing: Failing) -> Option<Failure> {
        let mut rows: Vec<_> = self.failed.get(&failing)?.clone();
        let (mut share, mut last) = (Share { some: 0, all: self.all }, 0);
        let mut routes: HashMap<Route<'_>, u64> = HashMap::new();
        for (key, counts) in &rows {
            share.some = share.some.saturating_add(counts.count);
            last = last.max(counts.last);
            let failed = routes.entry(route(key)).or_default();
            *failed = failed.saturating_add(counts.count);
        }
        let worst = routes.into_iter().max_by_key(|(_, failed)| *failed);
        let worst = worst
            .map(|(route, some)| Share { some, all: self.of_route.get(&route).copied().unwrap_or(some) });
        rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.count));
        let mut evidence = Evidence::default();
        for (key, counts) in rows.iter().take(MOST_EVIDENCE) {
            evidence.take(&of(key, counts));
        }
        Some(Failure { failing, share, route: worst.unwrap_or_default(), at: time(last), evidence })
    }
}

/// Status and flags, what the proxy says of the cause, and the request.
fn of(key: &Key<'_>, counts: &Counts) -> Evidence {
    let status = match (key.grpc_status, key.code) {
        (Some(status), _) if status > 0 => format!("gRPC status {status}"),
        (_, 0) if key.protocol == Protocol::Tcp => String::new(),
        (_, 0) => "no status".to_owned(),
        (_, code) => code.to_string(),
    };
    let flags = key.flags.codes().collect::<Vec<_>>().join(",");
    let what = [status, flags].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let what = if what.is_empty() { "TCP".to_owned() } else { what };
    let why = counts.why.as_deref().map(text);
    let request =
        (!key.template.is_empty()).then(|| format!("{} {}", method(key.method), text(key.template)));
    Evidence::new(&what, why.as_deref(), request.as_deref())
}

/// What came of the requests of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(Failing),
    /// The client did not wait for the answer, or there is too little left of the row.
    Unknown,
}

impl Outcome {
    fn of(key: &Key<'_>) -> Self {
        const GATEWAY_TIMEOUT: u16 = 504;
        const REQUEST_TIMEOUT: u16 = 408;
        const CLIENT_CLOSED: u16 = 499;
        const DEADLINE_EXCEEDED: u8 = 4;
        let Key { flags, code, grpc_status, .. } = *key;
        let cannot_connect = Flags::UPSTREAM_FAILURE
            .or(Flags::NO_HEALTHY_UPSTREAM)
            .or(Flags::NO_CLUSTER)
            .or(Flags::DNS_FAILURE);
        if flags.any(Flags::DENIED) {
            return Self::Failed(Failing::Denial);
        }
        if key.protocol == Protocol::Tcp {
            return if flags.any(Flags::TLS) {
                Self::Failed(Failing::Tls)
            } else if flags.any(cannot_connect) {
                Self::Failed(Failing::Connection)
            } else {
                Self::Passed
            };
        }
        let has_no_answer = code == 0;
        if code == CLIENT_CLOSED || has_no_answer && flags.any(Flags::CLIENT_GONE) {
            return Self::Unknown;
        }
        let is_error = code >= 500 || grpc_status.is_some_and(is_servers_error);
        let is_late = flags.any(Flags::UPSTREAM_TIMEOUT)
            || [GATEWAY_TIMEOUT, REQUEST_TIMEOUT].contains(&code)
            || grpc_status == Some(DEADLINE_EXCEEDED);
        // If it was answered well, TLS failed at an attempt before.
        if flags.any(Flags::TLS) && (has_no_answer || is_error) {
            Self::Failed(Failing::Tls)
        } else if flags.any(cannot_connect.or(Flags::UPSTREAM_TERMINATION)) {
            Self::Failed(Failing::Connection)
        } else if is_late {
            Self::Failed(Failing::Timeout)
        } else if is_error && flags.any(Flags::RETRIES_EXHAUSTED) {
            Self::Failed(Failing::Retries)
        } else if is_error {
            Self::Failed(Failing::Error)
        } else if has_no_answer {
            Self::Unknown
        } else {
            Self::Passed
        }
    }
}

/// Those for which a server is to be blamed, by OpenTelemetry's conventions for spans of RPCs: UNKNOWN, DEADLINE_EXCEEDED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
fn is_servers_error(status: u8) -> bool {
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

fn time(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(side: Side, protocol: Protocol, code: u16, flags: Flags, template: &'static str) -> Key<'static> {
        Key {
            reporter: 0,
            side,
            protocol,
            method: 1,
            grpc_status: None,
            code,
            port: 80,
            flags,
            peer: b"",
            cluster: b"",
            authority: b"",
            principal: b"",
            template: template.as_bytes(),
        }
    }

    #[test]
    fn a_request_fails_in_the_way_that_says_most_of_the_cause() {
        use Failing::{Connection, Denial, Error, Retries, Timeout, Tls};
        let refused = Flags::UPSTREAM_FAILURE;
        let (urx, ut) = (Flags::RETRIES_EXHAUSTED, Flags::UPSTREAM_TIMEOUT);
        for (protocol, code, grpc, flags, expected) in [
            (Protocol::Http, 503, None, refused.or(Flags::TLS).or(urx), Some(Tls)),
            (Protocol::Http, 200, None, Flags::TLS, None),
            (Protocol::Http, 403, None, Flags::DENIED, Some(Denial)),
            (Protocol::Http, 403, None, Flags::UNAUTHORIZED, None),
            (Protocol::Http, 503, None, refused.or(urx), Some(Connection)),
            (Protocol::Http, 503, None, Flags::NO_HEALTHY_UPSTREAM, Some(Connection)),
            (Protocol::Http, 200, None, Flags::UPSTREAM_TERMINATION, Some(Connection)),
            (Protocol::Http, 504, None, ut.or(urx), Some(Timeout)),
            (Protocol::Grpc, 200, Some(4), Flags::default(), Some(Timeout)),
            (Protocol::Http, 503, None, urx, Some(Retries)),
            (Protocol::Http, 500, None, Flags::default(), Some(Error)),
            (Protocol::Grpc, 200, Some(14), Flags::default(), Some(Error)),
            (Protocol::Grpc, 200, Some(5), Flags::default(), None),
            (Protocol::Http, 404, None, Flags::NO_ROUTE, None),
            (Protocol::Tcp, 0, None, refused, Some(Connection)),
            (Protocol::Tcp, 0, None, refused.or(Flags::TLS), Some(Tls)),
            (Protocol::Tcp, 0, None, Flags::default(), None),
        ] {
            let key = Key { grpc_status: grpc, ..key(Side::Client, protocol, code, flags, "/a") };
            let expected = expected.map_or(Outcome::Passed, Outcome::Failed);
            assert_eq!(
                Outcome::of(&key),
                expected,
                "{code} {grpc:?} {:?}",
                flags.codes().collect::<Vec<_>>()
            );
        }
        for (code, flags) in [(0, Flags::CLIENT_GONE), (499, Flags::default()), (0, Flags::default())] {
            assert_eq!(Outcome::of(&key(Side::Client, Protocol::Http, code, flags, "/a")), Outcome::Unknown);
        }
    }

    #[test]
    fn of_each_way_the_end_that_saw_more_is_told_with_what_was_most_frequent() {
        let counts = |count, last, why: Option<&str>| Counts {
            count,
            last,
            why: why.map(|why| why.as_bytes().into()),
            ..Counts::default()
        };
        let none = Flags::default();
        let http = Protocol::Http;
        let rows = [
            (key(Side::Client, http, 200, none, "/a"), counts(90, 5_000_000_000, None)),
            // The client's proxy does not know why it is refused.
            (key(Side::Client, http, 403, none, "/b"), counts(10, 6_000_000_000, None)),
            (key(Side::Client, http, 503, none, "/a"), counts(3, 4_000_000_000, Some("via_upstream"))),
            (key(Side::Client, http, 500, none, "/c"), counts(7, 7_000_000_000, None)),
            (key(Side::Client, http, 200, none, "/c"), counts(1, 1_000_000_000, None)),
            (
                key(Side::Server, http, 403, Flags::DENIED, "/b"),
                counts(10, 6_000_000_000, Some("rbac_access_denied")),
            ),
            (key(Side::Server, http, 200, none, "/a"), counts(90, 5_000_000_000, None)),
        ];
        let mut seen = Seen::default();
        rows.iter().for_each(|(key, counts)| seen.add(key, counts));
        rows.iter().for_each(|(key, counts)| seen.add_to_route(key, counts));
        let Answers { failures, all, last } = seen.answers();
        assert_eq!((all, last), (111, time(7_000_000_000)));
        let told: Vec<_> = failures.iter().map(|of| (of.failing, of.share, of.route, of.at)).collect();
        let share = |some, all| Share { some, all };
        assert_eq!(
            told,
            [
                (Failing::Denial, share(10, 100), share(10, 10), time(6_000_000_000)),
                (Failing::Error, share(10, 111), share(7, 8), time(7_000_000_000)),
            ]
        );
        let mut expected = Evidence::new("500", None, Some("GET /c"));
        expected.take(&Evidence::new("503", Some("via_upstream"), Some("GET /a")));
        assert_eq!(failures[1].evidence, expected);
        assert_eq!(failures[0].evidence, Evidence::new("403", Some("rbac_access_denied"), Some("GET /b")));
    }
}
