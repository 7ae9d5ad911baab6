//! The entries of streams, counted by the ten seconds in which they ended, and who sent them.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kestrel_proto::node::v1::RequestReport;
use tracing::warn;

use crate::{
    Fold, Reporter, Room, Window,
    entry::{self, Entry, Found},
    headers::Headers,
    identity::Identity,
    metrics::Metrics,
    report::{self, Identify, Parts},
    sources::{Sources, Tally},
    spans::{Span, Spans},
    template,
};

/// From one warning that paths are folded to the next.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Entries of a message that are counted together.
const TOGETHER: usize = 32;

/// How much is counted apart, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that the rows of ten seconds may take.
    pub bytes: usize,
    /// Those of one proxy, as soon as half of all are taken.
    pub each: usize,
    /// Proxies that are told apart. Each takes about 1 KiB.
    pub proxies: usize,
    /// This long after its end, ten seconds are over: who sends what ended in them has sent it.
    pub settles: Duration,
}

impl Limits {
    /// At the aggregator: about 100,000 rows. A proxy sends within a second or two what it logged, and what nodes' agents and
    /// collectors counted is here another two later; by then both ends' proxies have told.
    pub const CLUSTER: Self =
        Self { bytes: 48 * MIB, each: 6 * MIB, proxies: 20_000, settles: Duration::from_secs(5) };
    /// Beside the link of a node: about 10,000 rows. A proxy sends within a second or two what it logged.
    pub const NODE: Self =
        Self { bytes: 4 * MIB, each: MIB / 2, proxies: 1000, settles: Duration::from_secs(2) };
    /// Beside the link of a pod, whose proxy is one: about 600 rows.
    pub const POD: Self = Self { bytes: MIB / 4, each: MIB / 4, proxies: 8, ..Self::NODE };

    /// Beside what is taken already.
    fn room(self, taken: usize) -> Room {
        Room { bytes: self.bytes.saturating_sub(taken), each: self.each }
    }
}

const MIB: usize = 1024 * 1024;

/// What a proxy's entries are counted as: its workload, or itself.
pub type Name = Box<dyn Fn(&Identity) -> String + Send + Sync>;

/// The entries that came and were not told. Clones share them.
#[derive(Clone)]
pub struct Counter(Arc<Shared>);

struct Shared {
    limits: Limits,
    name: Name,
    headers: Headers,
    metrics: Metrics,
    state: Mutex<State>,
    warned: Mutex<Option<Instant>>,
}

struct State {
    spans: Spans,
    sources: Sources,
}

/// A stream of a proxy. Its end is told by dropping it.
pub struct Stream {
    counter: Counter,
    reporter: Reporter,
    name: String,
    /// Address of the connection.
    peer: IpAddr,
    /// Whether it has said who it is.
    is_introduced: bool,
}

impl Counter {
    /// Counts nothing yet. Of one request of each row `headers` are kept.
    pub fn new(limits: Limits, name: Name, headers: Headers, metrics: Metrics) -> Self {
        let state = State { spans: Spans::new(limits.settles), sources: Sources::new(limits.proxies) };
        let (state, warned) = (Mutex::new(state), Mutex::default());
        Self(Arc::new(Shared { limits, name, headers, metrics, state, warned }))
    }

    /// Likewise, where nobody knows more of a proxy than it says itself.
    pub fn of_proxies(limits: Limits, metrics: Metrics) -> Self {
        let name = |identity: &Identity| match &*identity.pod {
            "" => identity.id.clone(),
            pod => format!("{}/{pod}", identity.namespace),
        };
        Self::new(limits, Box::new(name), Headers::default(), metrics)
    }

    /// A stream begins, over a connection from `peer`.
    pub fn stream(&self, peer: IpAddr) -> Stream {
        let reporter = self.state().sources.open(Identity::default());
        let (name, peer) = ("unknown".to_owned(), peer.to_canonical());
        Stream { counter: self.clone(), reporter, name, peer, is_introduced: false }
    }

    /// What became of entries, by what their proxies are counted as.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.state().sources.tallies()
    }

    /// The oldest span for which nothing more is to be expected, with its number, and who reported.
    pub fn settled(&self) -> Option<(u64, Span, HashMap<u32, Arc<Identity>>)> {
        self.take(|spans| spans.settled(now()))
    }

    /// The oldest span, likewise.
    pub fn next(&self) -> Option<(u64, Span, HashMap<u32, Arc<Identity>>)> {
        self.take(Spans::next)
    }

    fn take(
        &self,
        take: impl FnOnce(&mut Spans) -> Option<(u64, Span)>,
    ) -> Option<(u64, Span, HashMap<u32, Arc<Identity>>)> {
        let mut state = self.state();
        let (number, span) = take(&mut state.spans)?;
        let identities = state.sources.identities();
        state.sources.forget();
        Some((number, span, identities))
    }

    /// Adds to `backlog` what has settled, or all.
    pub(crate) fn settle_into(&self, backlog: &mut Window, all: bool) {
        let mut state = self.state();
        while let Some((_, span)) = if all { state.spans.next() } else { state.spans.settled(now()) } {
            if backlog.is_empty() {
                *backlog = span.own;
                continue;
            }
            for (key, counts) in span.own.rows() {
                let was_told_apart = key.template != template::OTHER.as_bytes();
                let fold = backlog.merge(&key, counts, self.0.limits.room(0));
                if fold != Fold::Nothing && was_told_apart {
                    state.sources.folded(key.reporter, counts.count);
                }
            }
        }
    }

    /// The parts in which `backlog` is told, with what became of all entries since the last one.
    pub(crate) fn parts(&self, backlog: Window) -> Parts {
        let mut counted = HashMap::new();
        for (key, counts) in backlog.rows() {
            *counted.entry(key.reporter).or_default() += counts.count;
        }
        let mut state = self.state();
        let tallies = state.sources.take_tallies(&counted);
        // As long as something is open whose proxies have to be named, only what is told makes time pass.
        if !backlog.is_empty() || state.spans.newest().is_none() {
            state.sources.forget();
        }
        Parts::new(backlog, tallies)
    }

    /// Number of the newest span; what was counted until now has been taken when that was.
    pub fn newest(&self) -> Option<u64> {
        self.state().spans.newest()
    }

    /// Counts what was counted elsewhere, of those proxies that `identify` knows: the newest span then, and how many
    /// entries of others there were.
    pub fn merge(&self, report: &RequestReport, identify: Identify<'_>) -> (Option<u64>, u64) {
        let (now, mut foreign) = (now(), 0_u64);
        let mut state = self.state();
        let State { spans, sources } = &mut *state;
        let mut last = vec![None; report.proxies.len()];
        for row in &report.rows {
            if let Some(last) = last.get_mut(row.proxy as usize) {
                *last = (*last).max(Some(row.last));
            }
        }
        let mut tallies: Vec<_> = report
            .proxies
            .iter()
            .zip(last)
            .map(|(proxy, last)| {
                let identity = identify(proxy, last)?;
                let name = (self.0.name)(&identity);
                let reporter = sources.open(identity);
                // Known until what it sent is told.
                sources.close(&reporter);
                Some((reporter, name, Tally::of(proxy)))
            })
            .collect();
        for row in &report.rows {
            let Some(Some((reporter, _, tally))) = tallies.get_mut(row.proxy as usize) else {
                foreign = foreign.saturating_add(row.count);
                continue;
            };
            let Some((key, counts)) = report::read(row, reporter.number) else {
                tally.malformed = tally.malformed.saturating_add(row.count);
                continue;
            };
            let span = spans.of(counts.last, now);
            let room = self.0.limits.room(span.own.bytes());
            let was_told_apart = key.template != template::OTHER.as_bytes();
            let fold = span.sent.merge(&key, &counts, room);
            if fold != Fold::Nothing && was_told_apart {
                tally.folded = tally.folded.saturating_add(counts.count);
            }
            tally.aggregated = tally.aggregated.saturating_add(counts.count);
        }
        for (reporter, name, tally) in tallies.into_iter().flatten() {
            let folded = tally.folded.min(tally.aggregated);
            let tally = Tally { aggregated: tally.aggregated - folded, folded, ..tally };
            sources.count(reporter.number, &name, tally);
            self.0.metrics.count(tally);
        }
        (spans.newest(), foreign)
    }

    /// Says it in the log.
    fn warn_of_folding(&self, name: &str) {
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            warn!(
                "the proxy of {name} logs more different requests in ten seconds than are told apart: those of more \
                 are told with the path {}, all in one (kestrel_requests_received_total says how many)",
                template::OTHER
            );
        }
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Counts the entries of a message. They are read before anybody else has to wait, and counted a few at a time, so that no message
    /// keeps all other streams waiting.
    pub fn take(&mut self, message: &[u8]) {
        let now = now();
        let (mut tally, mut all, mut entries) =
            (Tally::default(), Tally::default(), Vec::with_capacity(TOGETHER));
        entry::read(message, |found| match found {
            // It says it once.
            Found::Identifier(_) if self.is_introduced => {}
            Found::Identifier(identifier) => {
                all.add(self.count(&mut entries, now, mem::take(&mut tally)));
                self.introduce(identifier);
            }
            Found::Entry(entry) if entry.is_twin() => tally.twins += 1,
            Found::Entry(entry) if entry.is_intermediate => tally.unfinished += 1,
            Found::Entry(entry) => {
                entries.push(*entry);
                if entries.len() == TOGETHER {
                    all.add(self.count(&mut entries, now, mem::take(&mut tally)));
                }
            }
            Found::Malformed => tally.malformed += 1,
        });
        all.add(self.count(&mut entries, now, tally));
        self.counter.0.metrics.count(all);
        if all.folded > 0 {
            self.counter.warn_of_folding(&self.name);
        }
    }

    /// Counts entries, of which there are none then, and what became of others; what became of all.
    fn count(&self, entries: &mut Vec<Entry<'_>>, now: u64, mut tally: Tally) -> Tally {
        if entries.is_empty() && tally == Tally::default() {
            return tally;
        }
        let Shared { limits, headers, .. } = &*self.counter.0;
        let mut state = self.counter.state();
        let State { spans, sources } = &mut *state;
        let mut rest = &**entries;
        while let Some(first) = rest.first() {
            let number = spans.number(first.end(), now);
            let same = rest.iter().take_while(|entry| spans.number(entry.end(), now) == number).count();
            let (together, after) = rest.split_at(same);
            let Span { own, sent } = spans.of(first.end(), now);
            let room = limits.room(sent.bytes());
            let folded = own.add_all(&self.reporter, together, room, headers);
            tally.folded += folded;
            tally.aggregated += together.len() as u64 - folded;
            rest = after;
        }
        entries.clear();
        sources.count(self.reporter.number, &self.name, tally);
        tally
    }

    /// Counts how many entries a message has, of a stream that sends more than it may.
    pub fn pass_over(&mut self, message: &[u8]) {
        // It says it once.
        if let Some(identifier) = entry::identifier(message).filter(|_| !self.is_introduced) {
            self.introduce(identifier);
        }
        let tally = Tally { over_rate: entry::count(message), ..Tally::default() };
        self.counter.state().sources.count(self.reporter.number, &self.name, tally);
        self.counter.0.metrics.count(tally);
    }

    /// It says who it is.
    fn introduce(&mut self, identifier: &[u8]) {
        let identity = Identity::read(identifier).over(self.peer);
        self.name = (self.counter.0.name)(&identity);
        let mut state = self.counter.state();
        state.sources.close(&self.reporter);
        self.reporter = state.sources.open(identity);
        self.is_introduced = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.counter.state().sources.close(&self.reporter);
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr, thread};

    use kestrel_proto::envoy::{
        config::core::v3::Node,
        data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties},
        service::accesslog::v3::{
            StreamAccessLogsMessage,
            stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
        },
    };
    use prost::{
        Message as _,
        encoding::{WireType, encode_key, encode_varint},
    };

    use super::*;

    fn message(paths: impl Iterator<Item = u64>) -> Vec<u8> {
        let entry = |mut number: u64| {
            let mut path = String::from("/");
            // Names that no template folds.
            for _ in 0..8 {
                path.push((b'g' + (number % 20) as u8).into());
                number /= 20;
            }
            HttpAccessLogEntry {
                common_properties: Some(AccessLogCommon {
                    upstream_cluster: "outbound|80||db.shop.svc.cluster.local".to_owned(),
                    ..AccessLogCommon::default()
                }),
                request: Some(HttpRequestProperties { path, ..Default::default() }),
                ..HttpAccessLogEntry::default()
            }
        };
        let entries = HttpAccessLogEntries { log_entry: paths.map(entry).collect() };
        StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::HttpLogs(entries)) }
            .encode_to_vec()
    }

    /// Scenario: no aggregator takes anything for an hour, and the path of every request is another one.
    /// Guarantee: what waits stays within its bytes, every entry is counted, and it is known how many were told apart.
    #[test]
    fn an_hour_of_paths_that_are_all_different_stays_within_its_bytes() {
        let counter = Counter::of_proxies(Limits::POD, Metrics::default());
        let mut proxy = counter.stream(Ipv4Addr::LOCALHOST.into());
        let mut backlog = Window::default();
        const TENS_OF_SECONDS: u64 = 360;
        for number in 0..TENS_OF_SECONDS {
            proxy.take(&message((0..500).map(|at| number * 500 + at)));
            counter.settle_into(&mut backlog, true);
            assert!(backlog.bytes() < Limits::POD.bytes + 1000, "{} bytes", backlog.bytes());
        }
        drop(proxy);
        let told_apart = backlog.len() as u64 - 1;
        let (mut entries, mut folded, mut reports) = (0, 0, 0);
        for (proxies, rows) in counter.parts(backlog) {
            entries += rows.iter().map(|row| row.count).sum::<u64>();
            folded += proxies.iter().map(|proxy| proxy.folded).sum::<u64>();
            reports += 1;
        }
        assert_eq!((entries, folded), (TENS_OF_SECONDS * 500, TENS_OF_SECONDS * 500 - told_apart));
        assert!(reports <= 2, "{reports} reports");
    }

    /// Scenario: a message of a million entries of two bytes, and who asks meanwhile what became of entries.
    /// Guarantee: nobody waits for the whole message.
    #[test]
    fn a_message_keeps_nobody_waiting_to_its_end() {
        const ENTRIES: u64 = 1_000_000;
        let counter = Counter::of_proxies(Limits::POD, Metrics::default());
        let mut proxy = counter.stream(Ipv4Addr::LOCALHOST.into());
        let mut message = Vec::new();
        encode_key(3, WireType::LengthDelimited, &mut message);
        encode_varint(2 * ENTRIES, &mut message);
        message.extend([0x0a, 0].repeat(ENTRIES as usize));
        let received = || counter.tallies().values().map(|tally| tally.received()).sum::<u64>();
        let seen = thread::scope(|threads| {
            threads.spawn(|| proxy.take(&message));
            let mut seen = BTreeSet::new();
            while !seen.contains(&ENTRIES) {
                seen.insert(received());
            }
            seen
        });
        assert!(seen.iter().any(|count| (1..ENTRIES).contains(count)), "{seen:?}");
    }

    /// Scenario: a stream says in each message, and often in one, that somebody else sends it.
    /// Guarantee: it is of who it said first, and nobody else becomes known.
    #[test]
    fn who_sends_a_stream_is_said_once() {
        let identifier = |number: u32| {
            let node = Node { id: format!("envoy-{number}"), ..Node::default() };
            let identifier = Some(Identifier { node: Some(node), log_name: String::new() });
            StreamAccessLogsMessage { identifier, log_entries: None }.encode_to_vec()
        };
        let counter = Counter::of_proxies(Limits::POD, Metrics::default());
        let mut proxy = counter.stream(Ipv4Addr::LOCALHOST.into());
        let often: Vec<u8> = (0..50).flat_map(identifier).chain(message([1].into_iter())).collect();
        proxy.take(&often);
        proxy.take(&[identifier(50), message([2].into_iter())].concat());
        assert_eq!(
            counter.tallies().into_iter().map(|(name, tally)| (name, tally.received())).collect::<Vec<_>>(),
            [("envoy-0".to_owned(), 2)]
        );
        assert_eq!(counter.state().sources.identities().len(), 2, "it, and who says nothing");
    }

    #[test]
    fn who_sends_too_much_is_known_all_the_same() {
        let node = Node { id: "envoy".to_owned(), ..Node::default() };
        let identifier = Some(Identifier { node: Some(node), log_name: String::new() });
        let introduction = StreamAccessLogsMessage { identifier, log_entries: None }.encode_to_vec();
        let counter = Counter::of_proxies(Limits::POD, Metrics::default());
        let mut proxy = counter.stream(Ipv4Addr::LOCALHOST.into());
        proxy.pass_over(&[message([1].into_iter()), introduction].concat());
        proxy.take(&message([2].into_iter()));
        let tally = Tally { aggregated: 1, over_rate: 1, ..Tally::default() };
        assert_eq!(counter.tallies(), BTreeMap::from([("envoy".to_owned(), tally)]));
    }

    /// What a receiver says of a window is what another one reads.
    #[test]
    fn rows_are_read_as_they_were_written() {
        let counter = Counter::of_proxies(Limits::NODE, Metrics::default());
        counter.stream(Ipv4Addr::LOCALHOST.into()).take(&message([1, 2, 2, 3, 3, 3].into_iter()));
        let mut backlog = Window::default();
        counter.settle_into(&mut backlog, true);
        let expected: Vec<_> =
            backlog.rows().map(|(key, counts)| (key.template.to_vec(), counts.clone())).collect();
        let parts = counter.parts(backlog);
        let (proxies, rows) = { parts }.next().unwrap();
        let mut found: Vec<_> = rows
            .iter()
            .map(|row| {
                let (key, counts) = report::read(row, 7).unwrap();
                assert_eq!((key.reporter, key.cluster), (7, &b"outbound|80||db.shop.svc.cluster.local"[..]));
                (key.template.to_vec(), counts)
            })
            .collect();
        let mut expected = expected;
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        found.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!((found, proxies.len()), (expected, 1));

        let other = Counter::of_proxies(Limits::NODE, Metrics::default());
        let report = RequestReport { run: 1, number: 1, proxies, rows };
        let (span, foreign) = other.merge(&report, &|proxy, _| Some(Identity::of(proxy)));
        assert!(span.is_some() && foreign == 0);
        let all = Tally { aggregated: 6, ..Tally::default() };
        assert_eq!(other.tallies().values().copied().collect::<Vec<_>>(), [all]);
        assert_eq!(other.merge(&report, &|_, _| None).1, 6);
    }
}
