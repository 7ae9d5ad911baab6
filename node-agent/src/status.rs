//! What the agent is doing now, in some lines for a person (`kestrel-node-agent status`): the daemon makes them
//! when its admin port is asked for them.

use std::{cmp::Reverse, collections::BTreeSet, fmt::Write as _, time::Duration};

use http::Uri;
use kestrel_link::ship::Shipper;
use kestrel_tail::{
    budget::Limits,
    discover::Origin,
    engine::{Policy, Reason},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    host::condition::{Condition, Finding},
    story::count,
};

/// Containers and problems that are named; of more only the number is told.
const NAMED: usize = 10;

/// Somebody asks; the agent answers.
pub type Question = oneshot::Sender<String>;

/// The answer of the agent that takes these questions.
pub async fn ask(agent: mpsc::Sender<Question>) -> String {
    let (question, answer) = oneshot::channel();
    let asked = agent.send(question).await;
    let answer = if asked.is_ok() { answer.await.ok() } else { None };
    answer.unwrap_or_else(|| "the agent is ending\n".to_owned())
}

/// All of it at one moment.
pub(crate) struct Moment<'a> {
    pub(crate) node: &'a str,
    /// How long the agent has run.
    pub(crate) age: Duration,
    pub(crate) endpoint: &'a Uri,
    pub(crate) shipper: &'a Shipper,
    pub(crate) limits: Limits,
    /// What flows are read from, and what was counted of them.
    pub(crate) flows: (Vec<String>, Vec<String>),
    pub(crate) conditions: &'a [Condition],
}

impl Moment<'_> {
    pub(crate) fn text(&self) -> String {
        let lines = [
            ("node", format!("{}, whose agent has run for {}", self.node, age(self.age))),
            ("link", self.link()),
            ("pods", self.pods()),
            ("behind", self.behind()),
            ("lost", self.lost()),
            ("budgets", self.budgets()),
            ("flows", self.flows()),
            ("host", self.host()),
            ("problems", self.problems()),
        ];
        lines.iter().fold(String::new(), |mut text, (name, line)| {
            // A String takes everything.
            let _never_fails = writeln!(text, "{name:<12}{line}");
            text
        })
    }

    /// What of the summary somebody has to hear of. Pods come and go, and are told when they do.
    pub(crate) fn state(&self) -> String {
        let lost = self.shipper.engine.stats().bytes_lost;
        let lost = Reason::ALL.map(|reason| (lost.of(reason) > 0).then(|| reason.as_str()));
        let wrong: Vec<_> = self.wrong().map(|finding| finding.kind).collect();
        let problems: Vec<_> = self.shipper.engine.problems().keys().collect();
        let (is_connected, is_saved) = (self.shipper.is_connected(), self.shipper.save_error().is_none());
        format!("{is_connected} {is_saved} {lost:?} {:?} {wrong:?} {problems:?}", self.flows.0)
    }

    /// The same in one sentence, without the numbers that never stand still.
    pub(crate) fn summary(&self) -> String {
        let link = if self.shipper.is_connected() { "connected" } else { "NOT connected" };
        let wrong = self.wrong().map(|finding| finding.kind.to_owned());
        format!(
            "as it stands: {link} to the aggregator; {}; lost: {}; flows are read from {}; wrong on the host: {}; problems: {}",
            self.pods(),
            self.lost(),
            some(self.flows.0.iter().cloned(), "nothing"),
            some(wrong, "nothing"),
            self.problems()
        )
    }

    fn link(&self) -> String {
        let (endpoint, shipper) = (self.endpoint, self.shipper);
        if !shipper.is_connected() {
            return format!("NOT connected to {endpoint}: the log files are the buffer");
        }
        let (waiting, ranges) = (kib(shipper.under_way()), shipper.engine.in_flight());
        format!(
            "connected to {endpoint}; {waiting} and {} of files wait for its answer",
            count(ranges, "range")
        )
    }

    fn pods(&self) -> String {
        let followed = self.shipper.engine.origins().filter(|(_, policy)| *policy != Some(Policy::Off));
        let (mut pods, mut containers, mut undecided) = (BTreeSet::new(), 0, 0);
        for (origin, policy) in followed {
            pods.insert((&*origin.namespace, &*origin.pod));
            containers += 1;
            undecided += usize::from(policy.is_none());
        }
        let (containers, pods) = (count(containers, "container"), count(pods.len(), "pod"));
        let following = format!("following {containers} of {pods}");
        match undecided {
            0 => following,
            undecided => format!("{following}; of {undecided} the aggregator has to decide"),
        }
    }

    fn behind(&self) -> String {
        let unread = self.shipper.engine.unread();
        let mut unread: Vec<_> = unread.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        unread.sort_unstable_by_key(|(_, bytes)| Reverse(*bytes));
        let name = |(origin, bytes): &(&Origin, u64)| {
            format!("{}/{} {} ({})", origin.namespace, origin.pod, origin.container, kib(*bytes))
        };
        some(unread.iter().map(name), "nothing")
    }

    fn lost(&self) -> String {
        let lost = self.shipper.engine.stats().bytes_lost;
        let lost = Reason::ALL.map(|reason| (reason.as_str(), lost.of(reason)));
        let lost = lost.iter().filter(|(_, bytes)| *bytes > 0);
        some(lost.map(|(reason, bytes)| format!("{bytes} bytes of files that were {reason}")), "nothing")
    }

    fn budgets(&self) -> String {
        let Limits { pod, namespace, node } = self.limits;
        let limits = [("pod", pod), ("namespace", namespace), ("node", node)];
        let limits = limits.iter().filter(|(_, limit)| *limit > 0);
        let limits = some(limits.map(|(of, limit)| format!("{} a second of a {of}", kib(*limit))), "none");
        let (held, left_out) = (self.shipper.engine.held_back(), self.shipper.engine.stats().over_budget);
        format!("{limits}; {} held back, {left_out} lines left out", count(held, "container"))
    }

    fn flows(&self) -> String {
        let (sources, counts) = &self.flows;
        format!(
            "read from {}; since the start: {}",
            some(sources.iter().cloned(), "nothing"),
            some(counts.iter().cloned(), "none")
        )
    }

    fn host(&self) -> String {
        let wrong = self.conditions.iter().filter(|condition| condition.finding.is_bad()).map(|condition| {
            let Finding { kind, status, message, .. } = &condition.finding;
            format!("{kind} is {} since {}: {message}", status.as_str(), condition.since())
        });
        let unseen = || self.conditions.iter().filter(|condition| condition.finding.is_unseen());
        let seen = self.conditions.len() - unseen().count();
        let told = some(wrong, &format!("all of {} are well", count(seen, "condition")));
        match unseen().map(|condition| condition.finding.kind).collect::<Vec<_>>() {
            kinds if kinds.is_empty() => told,
            kinds => format!("{told}; cannot be seen: {}", kinds.join(", ")),
        }
    }

    fn wrong(&self) -> impl Iterator<Item = &Finding> {
        self.conditions.iter().map(|condition| &condition.finding).filter(|finding| finding.is_bad())
    }

    fn problems(&self) -> String {
        let problems = self.shipper.engine.problems().iter();
        let problems = problems.map(|(path, problem)| format!("{}: {problem}", path.display()));
        let positions = self.shipper.save_error().map(|error| format!("positions cannot be kept: {error}"));
        some(problems.chain(positions), "none")
    }
}

/// What there is of something, or that there is `none`.
fn some(all: impl Iterator<Item = String>, none: &str) -> String {
    let all: Vec<_> = all.collect();
    let named = all[..all.len().min(NAMED)].join(", ");
    match all.len() {
        0 => none.to_owned(),
        few if few <= NAMED => named,
        many => format!("{named} and {} more", many - NAMED),
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn age(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    format!("{} h {} min", minutes / 60, minutes % 60)
}
