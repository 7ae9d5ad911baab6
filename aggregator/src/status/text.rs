//! State in, lines out.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;

use super::Moment;
use crate::{
    leader::standing::Role,
    traffic::requests::{Tally, losses::Loss},
    uplink::{
        lanes::Depth,
        state::{Phase, State, StreamState},
    },
};

impl Moment<'_> {
    pub(super) fn text(&self) -> String {
        let mut lines = vec![("pod", self.pod()), ("server", self.server())];
        if self.role.leads() {
            lines.push(("streams", self.streams()));
        }
        lines.push(("waiting", self.waiting()));
        if let Some((bytes, limit)) = self.spool {
            lines.push(("spool", format!("{} of {} on disk", size(bytes), size(limit))));
        }
        lines.push(("dropped", self.dropped()));
        lines.push(("token", self.end(self.ends.token)));
        lines.push(("certificate", self.end(self.ends.certificate)));
        lines.push(("inventory", self.inventory()));
        match (&self.requests, &self.istio) {
            // In one line, which is all that most clusters have to say.
            (Some(requests), Some(istio)) if requests.is_empty() => {
                lines.push(("access logs", format!("{}; Istio: {istio}", access_logs(requests))));
            }
            (requests, istio) => {
                lines.extend(requests.as_ref().map(|requests| ("access logs", access_logs(requests))));
                lines.extend(istio.clone().map(|istio| ("istio", istio)));
            }
        }
        if !self.losses.is_empty() {
            lines.push(("proxies", proxies(&self.losses)));
        }
        lines.push(("problem", self.problem()));
        lines.iter().fold(String::new(), |mut text, (name, line)| {
            // A String takes everything.
            let _never_fails = writeln!(text, "{name:<12}{line}");
            text
        })
    }

    fn pod(&self) -> String {
        let role = match &self.role {
            Role::Undecided => "has not seen the Lease yet".to_owned(),
            Role::Leads(since) => format!("leads {}", self.since(*since)),
            Role::StandsBy(sentence) => sentence.clone(),
        };
        format!("{}: {role}", self.pod)
    }

    fn server(&self) -> String {
        let State { server, connection, connections, .. } = &self.uplink;
        match connection {
            Some(connection) => {
                let leaving = if connection.leaving { ", being replaced by a new one" } else { "" };
                format!(
                    "connected to {server} {} (connection {connections} of this process){leaving}",
                    self.since(connection.since)
                )
            }
            None if !self.role.leads() => format!("not connected to {server}: only the leader connects"),
            None => {
                format!("NOT connected to {server} (connections of this process until now: {connections})")
            }
        }
    }

    fn streams(&self) -> String {
        if self.uplink.connection.is_none() {
            return "closed".to_owned();
        }
        let streams =
            self.uplink.streams.iter().map(|StreamState { name, phase, problem, .. }| match phase {
                Phase::Open(_) => format!("{name} open"),
                Phase::Opening => format!("{name} opening"),
                Phase::Fallback => format!("{name} not offered (the data stream carries it)"),
                Phase::Closed => match problem {
                    Some(problem) => format!("{name} CLOSED ({problem})"),
                    None => format!("{name} closed"),
                },
            });
        streams.collect::<Vec<_>>().join(", ")
    }

    fn waiting(&self) -> String {
        let mut lanes = self.waiting.iter().filter(|(_, depth)| depth.messages > 0).map(|(lane, depth)| {
            let Depth { messages, bytes, oldest } = *depth;
            let age = oldest.map_or(String::new(), |oldest| format!(", {} old", age(self.now, oldest)));
            format!("{} {messages} ({}{age})", lane.name(), size(bytes))
        });
        let Some(first) = lanes.next() else { return "nothing".to_owned() };
        let list = lanes.fold(first, |list, lane| format!("{list}, {lane}"));
        let why = match (&self.role, &self.uplink.connection) {
            (Role::Leads(_), Some(_)) => "for the server to take it",
            (Role::Leads(_), None) => "for a connection",
            _ => "for the case that this replica leads",
        };
        format!("{list}: {why}")
    }

    fn dropped(&self) -> String {
        let drops: Vec<_> = self
            .dropped
            .iter()
            .map(|(lane, reason, count)| format!("{} {count} ({})", lane.name(), reason.words()))
            .collect();
        if drops.is_empty() { "nothing since the start".to_owned() } else { drops.join(", ") }
    }

    fn inventory(&self) -> String {
        let complete =
            format!("{} of {} watches are complete", self.watches - self.missing.len(), self.watches);
        let words = |(resource, remedy): &(String, Option<String>)| match remedy {
            Some(remedy) => format!("{resource} ({remedy})"),
            None => resource.clone(),
        };
        let missing: Vec<_> = self.missing.iter().map(words).collect();
        if missing.is_empty() { complete } else { format!("{complete}; missing: {}", missing.join(", ")) }
    }

    /// What keeps it from working, then what may do so soon.
    fn problem(&self) -> String {
        let narrow = self.uplink.connection.as_ref().and_then(|connection| connection.narrow.as_ref());
        let all: Vec<_> = self.uplink.problem.iter().chain(narrow).chain(&self.cautions).cloned().collect();
        if all.is_empty() { "none".to_owned() } else { all.join("; also: ") }
    }

    fn end(&self, end: Option<Timestamp>) -> String {
        match end {
            None => "not known yet".to_owned(),
            Some(end) if end <= self.now => format!("EXPIRED at {end:.0}"),
            Some(end) => format!("good until {end:.0} ({})", age(end, self.now)),
        }
    }

    fn since(&self, moment: Timestamp) -> String {
        format!("since {moment:.0} ({})", age(self.now, moment))
    }
}

/// Workloads whose entries are least complete that are named.
const MOST_INCOMPLETE: usize = 3;

/// What became of all entries, and of which workloads not all could be told in full.
fn access_logs(tallies: &BTreeMap<String, Tally>) -> String {
    let mut all = Tally::default();
    tallies.values().for_each(|tally| all.add(*tally));
    if all.received() == 0 {
        return "nothing received since the start".to_owned();
    }
    let (Tally { aggregated, folded, .. }, refused) = (all, all.refused());
    let sum = format!(
        "{} received of {} workloads: {aggregated} aggregated, {folded} folded, {refused} refused",
        all.received(),
        tallies.len(),
    );
    let whole = |tally: &Tally| tally.received().saturating_sub(tally.told_by_others());
    let share = |tally: &Tally| tally.aggregated as f64 / whole(tally).max(1) as f64;
    let mut incomplete: Vec<_> =
        tallies.iter().filter(|(_, tally)| tally.aggregated < whole(tally)).collect();
    incomplete.sort_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)));
    let named = incomplete.iter().take(MOST_INCOMPLETE).map(|(name, tally)| {
        // Never 100 where something is missing.
        format!("{name} {:.1} %", (share(tally) * 1000.0).floor() / 10.0)
    });
    let named: Vec<_> = named.collect();
    match incomplete.len() {
        0 => format!("{sum}; complete"),
        count => format!("{sum}; complete but for {count} workloads: {}", named.join(", ")),
    }
}

/// What proxies count of their own access logs, against what came of them.
fn proxies(losses: &BTreeMap<String, (Loss, u64)>) -> String {
    let sum = |of: fn(&(Loss, u64)) -> u64| losses.values().map(of).fold(0, u64::saturating_add);
    let all = format!(
        "those of {} workloads say that they logged {} entries: {} dropped by them, {} did not come in all",
        losses.len(),
        sum(|(loss, _)| loss.logged),
        sum(|(loss, _)| loss.dropped),
        sum(|(_, missing)| *missing),
    );
    let share = |(loss, missing): &(Loss, u64)| {
        let missing = (*missing).max(loss.dropped).min(loss.logged);
        (loss.logged - missing) as f64 / loss.logged.max(1) as f64
    };
    let mut incomplete: Vec<_> = losses.iter().filter(|(_, of)| of.1 > 0 || of.0.dropped > 0).collect();
    incomplete.sort_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)));
    let named = incomplete.iter().take(MOST_INCOMPLETE);
    // Never 100 where something is missing.
    let named = named.map(|(name, of)| format!("{name} {:.1} %", (share(of) * 1000.0).floor() / 10.0));
    let named: Vec<_> = named.collect();
    if named.is_empty() { all } else { format!("{all}; least complete: {}", named.join(", ")) }
}

/// The time from `earlier` to `later`, in two units at most.
fn age(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = later.duration_since(earlier).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes in a unit that fits.
fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..1_048_576 => format!("{} KiB", bytes / KIB),
        _ => format!("{:.1} MiB", bytes as f64 / (KIB * KIB) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::{
        credentials::Ends,
        lanes::Lane,
        metrics::DropReason,
        state::{ConnectionState, Traffic},
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn stream(name: &'static str, phase: Phase) -> StreamState {
        let problem = Some("Unavailable".to_owned());
        let none = Traffic::default();
        StreamState { name, phase, problem, opened: 1, sent: none, received: none, unsettled: 0 }
    }

    fn moment(role: Role) -> Moment<'static> {
        let connection =
            role.leads().then(|| ConnectionState { since: at(-7200), leaving: false, narrow: None });
        Moment {
            now: at(0),
            pod: "kestrel-aggregator-a",
            role,
            uplink: State {
                server: "cloud:443".to_owned(),
                connection,
                connections: 2,
                problem: None,
                streams: [
                    stream("data", Phase::Open(at(-7200))),
                    stream("control", Phase::Opening),
                    stream("flows", Phase::Fallback),
                    stream("events", Phase::Closed),
                    stream("logs", Phase::Open(at(-7200))),
                ],
            },
            ends: Ends { token: Some(at(3600 * 15)), certificate: Some(at(-1)) },
            waiting: Lane::ALL.map(|lane| {
                let messages = if lane == Lane::Logs { 12 } else { 0 };
                (lane, Depth { messages, bytes: messages * 1024, oldest: (messages > 0).then(|| at(-90)) })
            }),
            spool: Some((3 << 19, 256 << 20)),
            cautions: vec![],
            dropped: vec![],
            watches: 9,
            missing: vec![],
            requests: None,
            losses: BTreeMap::new(),
            istio: None,
        }
    }

    #[test]
    fn a_leader_says_what_is_connected_what_waits_and_why() {
        let expected = "\
pod         kestrel-aggregator-a: leads since 2027-01-15T06:00:00Z (2 h 0 min)
server      connected to cloud:443 since 2027-01-15T06:00:00Z (2 h 0 min) (connection 2 of this process)
streams     data open, control opening, flows not offered (the data stream carries it), events CLOSED (Unavailable), logs open
waiting     logs 12 (12 KiB, 1 min old): for the server to take it
spool       1.5 MiB of 256.0 MiB on disk
dropped     nothing since the start
token       good until 2027-01-15T23:00:00Z (15 h 0 min)
certificate EXPIRED at 2027-01-15T07:59:59Z
inventory   9 of 9 watches are complete
problem     none
";
        assert_eq!(moment(Role::Leads(at(-7200))).text(), expected);
    }

    #[test]
    fn a_leader_without_a_connection_says_so_loudly_and_names_the_problem() {
        let mut moment = moment(Role::Leads(at(-7200)));
        moment.uplink.connection = None;
        moment.uplink.problem = Some("cloud:443 can't be reached".to_owned());
        moment.dropped = vec![(Lane::Flows, DropReason::LaneFull, 7)];
        let text = moment.text();
        for line in [
            "server      NOT connected to cloud:443 (connections of this process until now: 2)\n",
            "streams     closed\n",
            "(12 KiB, 1 min old): for a connection\n",
            "dropped     flows 7 (",
            "problem     cloud:443 can't be reached\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn all_that_is_not_right_is_in_ten_lines() {
        let mut moment = moment(Role::Leads(at(-7200)));
        moment.missing = vec![("jobs".to_owned(), None), ("cronjobs".to_owned(), Some("do it".to_owned()))];
        moment.cautions = vec!["the token can't be renewed".to_owned()];
        assert!(moment.text().ends_with("\nproblem     the token can't be renewed\n"), "{}", moment.text());
        moment.uplink.problem = Some("the data stream ended".to_owned());
        moment.uplink.connection.as_mut().unwrap().narrow = Some("the windows are narrow".to_owned());
        let text = moment.text();
        for line in [
            "inventory   7 of 9 watches are complete; missing: jobs, cronjobs (do it)\n",
            "problem     the data stream ended; also: the windows are narrow; also: the token can't be renewed\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert_eq!(text.lines().count(), 10, "{text}");
    }

    #[test]
    fn what_became_of_access_logs_is_said_and_whose_are_not_complete() {
        let mut moment = moment(Role::Leads(at(-7200)));
        (moment.requests, moment.istio) = (Some(BTreeMap::new()), Some("found".to_owned()));
        let text = moment.text();
        assert!(text.contains("\naccess logs nothing received since the start; Istio: found\n"), "{text}");
        let some = BTreeMap::from([("shop/web".to_owned(), Tally { aggregated: 1, ..Tally::default() })]);
        moment.requests = Some(some);
        let text = moment.text();
        assert!(
            text.contains("\naccess logs 1 received of 1 workloads")
                && text.contains("\nistio       found\n"),
            "{text}"
        );
        let tally =
            |aggregated, folded, malformed| Tally { aggregated, folded, malformed, ..Tally::default() };
        let whole = BTreeMap::from([("shop/web".to_owned(), tally(100, 0, 0))]);
        assert_eq!(
            access_logs(&whole),
            "100 received of 1 workloads: 100 aggregated, 0 folded, 0 refused; complete"
        );
        let unfinished = Tally { unfinished: 20, twins: 30, ..tally(100, 0, 0) };
        assert_eq!(
            access_logs(&BTreeMap::from([("shop/web".to_owned(), unfinished)])),
            "150 received of 1 workloads: 100 aggregated, 0 folded, 50 refused; complete"
        );
        let some =
            [("a", tally(50, 50, 0)), ("b", tally(9999, 0, 1)), ("c", tally(1, 0, 3)), ("d", tally(9, 1, 0))];
        let some: BTreeMap<_, _> = some.map(|(name, tally)| (name.to_owned(), tally)).into();
        assert_eq!(
            access_logs(&some),
            "10114 received of 4 workloads: 10059 aggregated, 51 folded, 4 refused; complete but for 4 workloads: \
             c 25.0 %, a 50.0 %, d 90.0 %"
        );
    }

    #[test]
    fn what_proxies_say_of_their_own_logs_is_said_and_whose_are_not_complete() {
        let loss = |logged, dropped| Loss { logged, dropped, ..Loss::default() };
        let of = |all: &[(&str, Loss, u64)]| {
            all.iter().map(|(name, loss, missing)| ((*name).to_owned(), (*loss, *missing))).collect()
        };
        assert_eq!(
            proxies(&of(&[("shop/web", loss(1000, 0), 0)])),
            "those of 1 workloads say that they logged 1000 entries: 0 dropped by them, 0 did not come in all"
        );
        let some = of(&[
            ("shop/web", loss(1000, 5), 12),
            ("shop/api", loss(0, 0), 0),
            ("shop/db", loss(10_000, 1), 0),
        ]);
        let text = "those of 3 workloads say that they logged 11000 entries: 6 dropped by them, 12 did not come in all; least complete: \
                    shop/web 98.8 %, shop/db 99.9 %";
        assert_eq!(proxies(&some), text);
    }

    #[test]
    fn a_standby_says_who_leads_and_has_no_streams() {
        let text = moment(Role::StandsBy("standing by: kestrel-aggregator-b leads".to_owned())).text();
        assert!(
            text.starts_with("pod         kestrel-aggregator-a: standing by: kestrel-aggregator-b leads\n")
        );
        assert!(text.contains("not connected to cloud:443: only the leader connects\n"), "{text}");
        assert!(text.contains("(12 KiB, 1 min old): for the case that this replica leads"), "{text}");
        assert!(!text.contains("streams"), "{text}");
        assert!(moment(Role::Undecided).text().contains("has not seen the Lease yet"));
    }

    #[test]
    fn times_and_sizes_are_short() {
        let ages = [5, 125, 3725, 90_000].map(|seconds| age(at(seconds), at(0)));
        assert_eq!(ages, ["5 s", "2 min", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(age(at(0), at(9)), "0 s", "a clock that was set back");
        assert_eq!([512, 2048, 5 << 20].map(size), ["512 B", "2 KiB", "5.0 MiB"]);
    }
}
