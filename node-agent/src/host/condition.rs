//! From samples to node conditions. A condition that is on is only taken back
//! when its cause is clearly over, so that a value on the edge does not flap.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use kestrel_proto::cloud::v1::NodeCondition;
use prost_types::Timestamp;

use super::{
    clock::{Clock, Moment},
    conntrack::Conntrack,
    event::Event,
    file_systems::FileSystems,
    kernel_log::KernelLog,
    kubelet::Kubelet,
    memory::Memory,
    pressure::{Limits, Stalls},
    runtime::{self, Runtime},
    sample::Sample,
    tasks::Left,
};

/// Bytes of a reason and of a message that are sent. A report of all conditions and events must not be
/// larger than the aggregator takes.
const MOST_BYTES: usize = 1024;

/// The reason of a condition that does not hold as far as can be seen, of which a part can't be.
pub const PARTLY: &str = "PartlyReadable";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be seen.
    Unknown,
}

impl Status {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What was found last.
    pub finding: Finding,
    /// Since when it has this status.
    pub since: SystemTime,
}

/// What one sample says of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type, `kestrel.ai/…`.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why, in one word; where it holds for more than one thing, with their names.
    pub reason: Cow<'static, str>,
    /// Why, with the numbers seen.
    pub message: String,
}

impl Finding {
    /// A condition that holds for a `reason`, or does not, which is `well`.
    pub(super) fn trouble(
        kind: &'static str,
        reason: Option<impl Into<Cow<'static, str>>>,
        well: &'static str,
        message: String,
    ) -> Self {
        let status = if reason.is_some() { Status::True } else { Status::False };
        Self { kind, status, reason: reason.map_or(well.into(), Into::into), message }
    }

    /// A condition that cannot be seen.
    pub(super) fn unseen(kind: &'static str, why: &str) -> Self {
        Self { kind, status: Status::Unknown, reason: "NotReadable".into(), message: why.to_owned() }
    }

    /// What makes a change of it worth telling; numbers alone do not.
    pub fn state(&self) -> (Status, &str) {
        (self.status, &self.reason)
    }

    /// Whether it cannot be seen, well or not.
    pub fn is_unseen(&self) -> bool {
        self.status == Status::Unknown
    }

    /// Whether something is wrong.
    pub fn is_bad(&self) -> bool {
        !self.is_good() && !self.is_unseen()
    }

    /// Whether all is well with it.
    pub fn is_good(&self) -> bool {
        self.status == if self.kind == runtime::KIND { Status::True } else { Status::False }
    }
}

impl Condition {
    /// Since when it is so, to the second, for people.
    pub fn since(&self) -> impl fmt::Display {
        Timestamp { nanos: 0, ..self.since.into() }
    }

    /// Its form on the wire.
    pub fn to_wire(&self, now: SystemTime) -> NodeCondition {
        let Finding { kind, status, reason, message } = self.finding.clone();
        let (reason, message) = (cut(reason.into_owned(), MOST_BYTES), cut(message, MOST_BYTES));
        NodeCondition {
            r#type: kind.to_owned(),
            status: status.as_str().to_owned(),
            last_heartbeat_time: Some(now.into()),
            last_transition_time: Some(self.since.into()),
            reason,
            message,
        }
    }
}

/// Whether a value has passed a limit, and is not yet clearly back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edge {
    is_past: bool,
}

impl Edge {
    /// As it was found last.
    pub(super) fn is_past(self) -> bool {
        self.is_past
    }

    /// Below `least`, until it is a quarter above it.
    pub(super) fn is_under(&mut self, value: u64, least: u64) -> bool {
        self.is_past = value < if self.is_past { least.saturating_mul(125) / 100 } else { least };
        self.is_past
    }

    /// At `most` or above, until it is a fifth below it.
    pub(super) fn is_over(&mut self, value: u64, most: u64) -> bool {
        self.is_past = value >= if self.is_past { most.saturating_mul(80) / 100 } else { most };
        self.is_past
    }
}

/// All conditions of this node, and what is needed to judge the next sample.
#[derive(Debug)]
pub struct Conditions {
    current: Vec<Condition>,
    memory: Memory,
    file_systems: FileSystems,
    tasks: Left,
    stalls: Stalls,
    conntrack: Conntrack,
    clock: Clock,
    kernel_log: KernelLog,
    runtime: Runtime,
    kubelet: Kubelet,
}

impl Conditions {
    /// Nothing was seen so far.
    pub fn new(limits: Limits, kubelet: Kubelet) -> Self {
        Self {
            current: Vec::new(),
            memory: Memory::default(),
            file_systems: FileSystems::default(),
            tasks: Left::default(),
            stalls: Stalls::new(limits),
            conntrack: Conntrack::default(),
            clock: Clock::default(),
            kernel_log: KernelLog::default(),
            runtime: Runtime::default(),
            kubelet,
        }
    }

    /// Takes a sample: whether a condition changed its status or reason, and what happened.
    pub fn update(&mut self, sample: &Sample) -> (bool, Vec<Event>) {
        let mut events: Vec<_> = self.clock.step(sample.wall, sample.steady).into_iter().collect();
        let mut findings = vec![
            self.memory.judge(&sample.memory),
            self.file_systems.judge(&sample.file_systems),
            self.tasks.judge(&sample.tasks),
        ];
        findings.extend(self.clock.judge());
        findings.extend(self.stalls.judge(&sample.pressure, &sample.pods));
        findings.extend(sample.conntrack.as_ref().map(|table| self.conntrack.judge(table)));
        if let Some(log) = &sample.kernel_log {
            let (of_kernel, happened) = self.kernel_log.judge(log, &sample.pods, sample.wall);
            findings.extend(of_kernel);
            events.extend(happened);
        }
        findings.extend(sample.runtime.as_ref().map(|answer| self.runtime.judge(answer, sample.steady)));
        findings.extend(sample.kubelet.and_then(|silence| self.kubelet.judge(silence)));
        (self.take(findings, sample.wall), events)
    }

    fn take(&mut self, findings: Vec<Finding>, now: SystemTime) -> bool {
        let mut changed = false;
        let next = findings.into_iter().map(|finding| {
            let before = self.current.iter().find(|before| before.finding.kind == finding.kind);
            changed |= before.is_none_or(|before| before.finding.state() != finding.state());
            let same = before.filter(|before| before.finding.status == finding.status);
            Condition { finding, since: same.map_or(now, |before| before.since) }
        });
        self.current = next.collect();
        changed
    }

    /// The aggregator's clock showed `theirs` within a `round_trip` that ended when this node's showed `ours`: whether that
    /// changes what is known since the last sample.
    pub fn compare_clocks(
        &mut self,
        theirs: SystemTime,
        ours: SystemTime,
        round_trip: Duration,
        now: Moment,
    ) -> bool {
        self.clock.compare(theirs, ours, round_trip, now);
        let judged = self.clock.judge().filter(|_| !self.current.is_empty());
        let Some(finding) = judged else { return false };
        let others = self.current.iter().map(|condition| condition.finding.clone());
        let others = others.filter(|other| other.kind != finding.kind).collect::<Vec<_>>();
        self.take(others.into_iter().chain([finding]).collect(), now.0)
    }

    /// What was passed over because there was too much of it or it was nobody's, by what it was.
    pub fn left_out(&self) -> [(&'static str, u64); 3] {
        let Self { stalls, kernel_log, .. } = self;
        let devices = ("devices", kernel_log.left_out());
        [("control_groups", stalls.left_out()), devices, ("kills", kernel_log.strangers())]
    }

    /// As the last sample left them.
    pub fn current(&self) -> &[Condition] {
        &self.current
    }
}

/// The share in thousandths; all of nothing is enough.
pub(super) fn permille(part: u64, whole: u64) -> u64 {
    if whole == 0 { 1000 } else { u64::try_from(u128::from(part) * 1000 / u128::from(whole)).unwrap_or(1000) }
}

/// The beginning of a text.
pub(super) fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

pub(super) fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

pub(super) fn bytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::host::sample::tests::healthy;

    #[test]
    fn a_value_on_the_edge_does_not_flap() {
        let mut conditions = Conditions::new(Limits::default(), Kubelet::default());
        let start = SystemTime::now();
        assert!(conditions.update(&healthy()).0);
        let mut changes = Vec::new();
        for (second, available) in [99, 101, 99, 124, 126, 101, 99].into_iter().enumerate() {
            let wall = start + Duration::from_secs(second as u64);
            let (changed, _) = conditions.update(&Sample { memory: Ok(available << 20), wall, ..healthy() });
            if changed {
                changes.push((available, conditions.current()[0].finding.status));
            }
        }
        assert_eq!(changes, [(99, Status::True), (126, Status::False), (99, Status::True)]);
        let Condition { finding, since } = &conditions.current()[0];
        assert_eq!(*since, start + Duration::from_secs(6));
        assert_eq!(finding.message, "99 MiB of memory can be had, pressure begins below 100 MiB");
        assert!(!finding.is_good());
    }

    #[test]
    fn a_clock_is_judged_when_it_is_compared() {
        let mut conditions = Conditions::new(Limits::default(), Kubelet::default());
        let now = SystemTime::now();
        let at = (now, Instant::now());
        let right = |conditions: &mut Conditions| conditions.compare_clocks(now, now, Duration::ZERO, at);
        assert!(!right(&mut conditions), "nothing is said before the first sample");
        conditions.update(&healthy());
        let before = conditions.current().len();
        let off = now + Duration::from_secs(5);
        assert!(conditions.compare_clocks(now, off, Duration::ZERO, at));
        let is_skewed = |condition: &Condition| {
            condition.finding.kind == "kestrel.ai/ClockSkewed" && !condition.finding.is_good()
        };
        assert!(conditions.current().iter().any(is_skewed));
        assert!(right(&mut conditions));
        assert!(!right(&mut conditions), "no change");
        assert!(!conditions.current().iter().any(is_skewed));
        assert_eq!(conditions.current().len(), before);
    }

    #[test]
    fn what_cannot_be_seen_is_unknown_with_the_reason() {
        let mut conditions = Conditions::new(Limits::default(), Kubelet::default());
        conditions.update(&Sample { memory: Err("/proc/meminfo: no".to_owned()), ..healthy() });
        let Condition { finding, .. } = &conditions.current()[0];
        assert_eq!(
            (finding.state(), &*finding.message),
            ((Status::Unknown, "NotReadable"), "/proc/meminfo: no")
        );
    }
}
