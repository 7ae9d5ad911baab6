//! From samples to node conditions. A condition that is on is only taken back
//! when its cause is clearly over, so that a value on the edge does not flap.

use std::time::SystemTime;

use kestrel_proto::cloud::v1::NodeCondition;

use super::sample::Sample;

/// Available memory below this is pressure: the kubelet's own default for
/// evicting pods (`memory.available<100Mi`).
const MEMORY_LOW: u64 = 100 << 20;

/// Shares of a disk's bytes, of its inodes and of the tasks that must be free,
/// in percent: the kubelet's defaults (`nodefs.available<10%`,
/// `nodefs.inodesFree<5%`), and a tenth of the tasks, for which it has none.
const DISK_LOW: u64 = 10;
const INODES_LOW: u64 = 5;
const TASKS_LOW: u64 = 10;

/// A condition that is on goes off when this much more is free, in percent of
/// the threshold.
const RECOVERY: u64 = 125;

/// The runtime is not ready after this many unanswered questions in a row.
const RUNTIME_FAILURES: u32 = 3;

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
    /// Its type, `kestrel.ai/…`.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, with the numbers seen.
    pub message: String,
    /// Since when it has this status.
    pub since: SystemTime,
}

impl Condition {
    /// What makes a change of it worth telling; numbers alone do not.
    pub fn state(&self) -> (Status, &'static str) {
        (self.status, self.reason)
    }

    /// Whether all is well with it.
    pub fn is_good(&self) -> bool {
        self.status == if self.kind == RUNTIME_READY { Status::True } else { Status::False }
    }

    /// Its form on the wire.
    pub fn to_wire(&self, now: SystemTime) -> NodeCondition {
        NodeCondition {
            r#type: self.kind.to_owned(),
            status: self.status.as_str().to_owned(),
            last_heartbeat_time: Some(now.into()),
            last_transition_time: Some(self.since.into()),
            reason: self.reason.to_owned(),
            message: self.message.clone(),
        }
    }
}

const MEMORY_PRESSURE: &str = "kestrel.ai/MemoryPressure";
const DISK_PRESSURE: &str = "kestrel.ai/DiskPressure";
const PID_PRESSURE: &str = "kestrel.ai/PIDPressure";
const RUNTIME_READY: &str = "kestrel.ai/RuntimeReady";

/// All conditions of this node.
#[derive(Debug, Default)]
pub struct Conditions {
    current: Vec<Condition>,
    runtime_failures: u32,
}

/// What one sample says of one condition.
struct Finding {
    kind: &'static str,
    status: Status,
    reason: &'static str,
    message: String,
}

impl Conditions {
    /// Takes a sample; true if a condition changed its status or reason.
    pub fn update(&mut self, sample: &Sample, now: SystemTime) -> bool {
        let mut findings = vec![self.memory(sample), self.disk(sample), self.tasks(sample)];
        if let Some(answer) = &sample.runtime {
            findings.push(self.runtime(answer));
        }
        let mut changed = false;
        let next = findings
            .into_iter()
            .map(|Finding { kind, status, reason, message }| {
                let before = self.current.iter().find(|condition| condition.kind == kind);
                changed |= before.is_none_or(|before| before.state() != (status, reason));
                let since =
                    before.filter(|before| before.status == status).map_or(now, |before| before.since);
                Condition { kind, status, reason, message, since }
            })
            .collect();
        self.current = next;
        changed
    }

    /// As the last sample left them.
    pub fn current(&self) -> &[Condition] {
        &self.current
    }

    fn is_on(&self, kind: &str) -> bool {
        self.current.iter().any(|condition| condition.kind == kind && condition.status == Status::True)
    }

    /// Whether `value` is too low: less than `least`, or not yet clearly more.
    fn is_low(&self, kind: &str, value: u64, least: u64) -> bool {
        value < if self.is_on(kind) { least.saturating_mul(RECOVERY) / 100 } else { least }
    }

    fn memory(&self, sample: &Sample) -> Finding {
        let kind = MEMORY_PRESSURE;
        let Some(available) = sample.memory_available else {
            return unseen(kind, "/proc/meminfo cannot be read");
        };
        let low = self.is_low(kind, available, MEMORY_LOW);
        pressure(
            kind,
            low.then_some("HostMemoryLow"),
            "HostMemorySufficient",
            format!(
                "{} of memory can be had, pressure begins below {}",
                mebibytes(available),
                mebibytes(MEMORY_LOW)
            ),
        )
    }

    fn disk(&self, sample: &Sample) -> Finding {
        let kind = DISK_PRESSURE;
        let Some(disk) = sample.disk else {
            return unseen(kind, "the file system of the container logs cannot be read");
        };
        let bytes = permille(disk.available, disk.size);
        let inodes = permille(disk.inodes_free, disk.inodes);
        let reason = if self.is_low(kind, bytes, DISK_LOW * 10) {
            Some("LogDiskSpaceLow")
        } else if self.is_low(kind, inodes, INODES_LOW * 10) {
            Some("LogDiskInodesLow")
        } else {
            None
        };
        let message = format!(
            "{} ({}) of the disk of the container logs and {} of its inodes are free, pressure begins below {DISK_LOW} % and {INODES_LOW} %",
            mebibytes(disk.available),
            percent(bytes),
            percent(inodes),
        );
        pressure(kind, reason, "LogDiskSufficient", message)
    }

    fn tasks(&self, sample: &Sample) -> Finding {
        let kind = PID_PRESSURE;
        let Some(tasks) = sample.tasks else {
            return unseen(kind, "/proc/loadavg or the limits in /proc/sys/kernel cannot be read");
        };
        let free = permille(tasks.limit.saturating_sub(tasks.running), tasks.limit);
        let low = self.is_low(kind, free, TASKS_LOW * 10);
        let message = format!(
            "{} of {} tasks exist, pressure begins when less than {TASKS_LOW} % are left",
            tasks.running, tasks.limit
        );
        pressure(kind, low.then_some("HostTasksLow"), "HostTasksSufficient", message)
    }

    fn runtime(&mut self, answer: &Result<String, String>) -> Finding {
        let kind = RUNTIME_READY;
        match answer {
            Ok(version) => {
                self.runtime_failures = 0;
                let message = format!("{version} answers");
                Finding { kind, status: Status::True, reason: "RuntimeAnswers", message }
            }
            Err(problem) => {
                self.runtime_failures = self.runtime_failures.saturating_add(1);
                let times = self.runtime_failures;
                let message =
                    format!("the container runtime did not answer (unanswered in a row: {times}): {problem}");
                let before = self.current.iter().find(|condition| condition.kind == kind);
                let (status, reason) = match before {
                    Some(before) if times < RUNTIME_FAILURES => before.state(),
                    None if times < RUNTIME_FAILURES => (Status::Unknown, "RuntimeNotSeenYet"),
                    _ => (Status::False, "RuntimeSilent"),
                };
                Finding { kind, status, reason, message }
            }
        }
    }
}

fn pressure(kind: &'static str, low: Option<&'static str>, enough: &'static str, message: String) -> Finding {
    let status = if low.is_some() { Status::True } else { Status::False };
    Finding { kind, status, reason: low.unwrap_or(enough), message }
}

fn unseen(kind: &'static str, message: &str) -> Finding {
    Finding { kind, status: Status::Unknown, reason: "NotReadable", message: message.to_owned() }
}

/// The share in thousandths; all of nothing is enough.
fn permille(part: u64, whole: u64) -> u64 {
    if whole == 0 { 1000 } else { u64::try_from(u128::from(part) * 1000 / u128::from(whole)).unwrap_or(1000) }
}

fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::sample::{Disk, Tasks};

    fn healthy() -> Sample {
        Sample {
            memory_available: Some(1 << 30),
            disk: Some(Disk { available: 50, size: 100, inodes_free: 50, inodes: 100 }),
            tasks: Some(Tasks { running: 100, limit: 1000 }),
            runtime: None,
        }
    }

    fn status(conditions: &Conditions, kind: &str) -> Status {
        conditions.current().iter().find(|condition| condition.kind == kind).unwrap().status
    }

    #[test]
    fn a_value_on_the_edge_does_not_flap() {
        let mut conditions = Conditions::default();
        let start = SystemTime::now();
        assert!(conditions.update(&healthy(), start));
        let mut changes = Vec::new();
        for (second, available) in [99, 101, 99, 124, 126, 101, 99].into_iter().enumerate() {
            let sample = Sample { memory_available: Some(available << 20), ..healthy() };
            if conditions.update(&sample, start + Duration::from_secs(second as u64)) {
                changes.push((available, status(&conditions, MEMORY_PRESSURE)));
            }
        }
        assert_eq!(changes, [(99, Status::True), (126, Status::False), (99, Status::True)]);
        let memory = &conditions.current()[0];
        assert_eq!(memory.since, start + Duration::from_secs(6));
        assert_eq!(memory.message, "99 MiB of memory can be had, pressure begins below 100 MiB");
        assert!(!memory.is_good());
    }

    #[test]
    fn disks_inodes_and_tasks_run_out() {
        let mut conditions = Conditions::default();
        let now = SystemTime::now();
        let with_disk = |disk: Disk| Sample { disk: Some(disk), ..healthy() };
        conditions.update(&with_disk(Disk { available: 9, size: 100, inodes_free: 9, inodes: 9 }), now);
        assert_eq!(conditions.current()[1].state(), (Status::True, "LogDiskSpaceLow"));
        conditions.update(&with_disk(Disk { available: 90, size: 100, inodes_free: 4, inodes: 100 }), now);
        assert_eq!(conditions.current()[1].state(), (Status::True, "LogDiskInodesLow"));
        // A file system without a fixed number of inodes.
        conditions.update(&with_disk(Disk { available: 90, size: 100, inodes_free: 0, inodes: 0 }), now);
        assert_eq!(status(&conditions, DISK_PRESSURE), Status::False);
        conditions.update(&Sample { tasks: Some(Tasks { running: 950, limit: 1000 }), ..healthy() }, now);
        assert_eq!(status(&conditions, PID_PRESSURE), Status::True);
        conditions.update(&Sample::default(), now);
        assert!(conditions.current().iter().all(|c| c.status == Status::Unknown && !c.is_good()));
    }

    #[test]
    fn one_unanswered_question_is_no_failure_of_the_runtime() {
        let mut conditions = Conditions::default();
        let mut ask = |answer: Result<&str, &str>| {
            let runtime = Some(answer.map(str::to_owned).map_err(str::to_owned));
            conditions.update(&Sample { runtime, ..healthy() }, SystemTime::now());
            status(&conditions, RUNTIME_READY)
        };
        assert_eq!(ask(Err("no")), Status::Unknown);
        assert_eq!(ask(Ok("containerd 2.1")), Status::True);
        assert_eq!(ask(Err("no")), Status::True);
        assert_eq!(ask(Err("no")), Status::True);
        assert_eq!(ask(Err("no")), Status::False);
        assert_eq!(ask(Ok("containerd 2.1")), Status::True);
        assert!(
            !conditions.update(
                &Sample { runtime: Some(Ok("containerd 2.1".into())), ..healthy() },
                SystemTime::now()
            )
        );
    }
}
