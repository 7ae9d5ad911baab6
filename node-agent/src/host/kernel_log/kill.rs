//! Processes that the kernel killed for want of memory.

use std::time::Duration;

use super::entry::Entry;
use crate::host::pressure::pod_of;

/// What the kernel says of a kill, in two lines or three.
#[derive(Debug, Default)]
pub(super) struct Kill {
    pub(super) time: Duration,
    /// The control group of the process.
    group: String,
    /// The one whose limit was reached; none: the node's memory was at its end.
    limit: Option<String>,
    /// Name and number of the process.
    process: String,
    pid: String,
    /// Its own memory, in KiB.
    memory: Option<u64>,
}

/// The kills that these lines tell of. Since 5.0 (`mm/oom_kill.c`):
///
/// ```text
/// oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=…,mems_allowed=0,oom_memcg=PATH,task_memcg=PATH,task=NAME,pid=1,uid=0
/// Memory cgroup out of memory: Killed process 1 (NAME) total-vm:1kB, anon-rss:1kB, file-rss:0kB, …
/// ```
///
/// and before:
///
/// ```text
/// Task in PATH killed as a result of limit of PATH
/// Memory cgroup out of memory: Kill process 1 (NAME) score 1 or sacrifice child
/// Killed process 1 (NAME) total-vm:1kB, anon-rss:1kB, file-rss:0kB, …
/// ```
pub(super) fn all(entries: &[Entry<'_>]) -> Vec<Kill> {
    let mut kills: Vec<Kill> = Vec::new();
    for Entry { time, text } in entries {
        if let Some(fields) = text.strip_prefix("oom-kill:") {
            kills.extend(since_5_0(fields).map(|kill| Kill { time: *time, ..kill }));
        } else if let Some((group, limit)) =
            text.strip_prefix("Task in ").and_then(|rest| rest.split_once(" killed as a result of limit of "))
        {
            let (group, limit) = (group.to_owned(), Some(limit.to_owned()));
            kills.push(Kill { time: *time, group, limit, ..Kill::default() });
        } else if let Some((pid, rest)) =
            text.split_once("Killed process ").and_then(|(_, rest)| rest.split_once([' ', ',']))
        {
            let Some(kill) = kills.last_mut().filter(|kill| kill.pid.is_empty() || kill.pid == pid) else {
                continue;
            };
            if let Some((process, _)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
                (kill.process, kill.pid) = (process.to_owned(), pid.to_owned());
            }
            let memory = rest.split_once("anon-rss:").and_then(|(_, rest)| rest.split_once("kB"));
            kill.memory = memory.and_then(|(memory, _)| memory.parse().ok());
        }
    }
    kills
}

/// Names of processes may have commas and whatever else, those of control groups have neither.
fn since_5_0(fields: &str) -> Option<Kill> {
    let (before, rest) = fields.split_once(",task_memcg=")?;
    let (group, rest) = rest.split_once(",task=")?;
    let (process, rest) = rest.rsplit_once(",pid=")?;
    let pid = rest.split(',').next()?;
    let limit = before.split_once("oom_memcg=").map(|(_, group)| group.to_owned());
    let (group, process, pid) = (group.to_owned(), process.to_owned(), pid.to_owned());
    Some(Kill { group, limit, process, pid, ..Kill::default() })
}

impl Kill {
    /// The UID of the pod, and the id of the container if it was one's.
    pub(super) fn pod(&self) -> Option<(String, Option<String>)> {
        let mut groups = self.group.split('/');
        let uid = groups.find_map(pod_of)?;
        // `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, or the id alone.
        let container = groups.next().map(|group| group.trim_end_matches(".scope"));
        let container = container.map(|group| group.rsplit_once('-').map_or(group, |(_, id)| id));
        Some((uid, container.map(str::to_owned)))
    }

    /// The kill of a process of `pod`.
    pub(super) fn told(&self, pod: &str, container: Option<&str>) -> String {
        let Self { group, limit, process, pid, memory, .. } = self;
        let memory = memory.map_or(String::new(), |kib| format!(", {} MiB of its own memory", kib >> 10));
        let of = match container {
            Some(id) => format!("container {} of pod {pod}", id.get(..12).unwrap_or(id)),
            None => format!("pod {pod}"),
        };
        let why = match limit {
            None => "the node had no memory left".to_owned(),
            Some(limit) if limit == group => "the limit of the container's memory was reached".to_owned(),
            Some(limit) if limit.split('/').next_back().and_then(pod_of).is_some() => {
                "the limit of the pod's memory was reached".to_owned()
            }
            Some(limit) => format!("the limit of the control group {limit} was reached"),
        };
        format!("the kernel killed {process} (pid {pid}{memory}) in {of}: {why}; its control group: {group}")
    }
}
