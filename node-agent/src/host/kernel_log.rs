//! What the kernel says of itself: kills for want of memory, and what does not work any more.

mod entry;
mod kill;
mod trouble;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use rmesg::{
    error::RMesgError,
    klogctl::{KLogType, safely_wrapped_klogctl},
};

use super::{
    condition::Finding,
    event::{Event, KEPT},
    sample::Seen,
};
use entry::Entry;
use kill::Kill;
use trouble::{TROUBLES, Trouble, Turn};

/// The end of the log that is read: some thousand lines.
const END: usize = 256 * 1024;
/// Devices that are in trouble are told apart up to this number.
const MOST_DEVICES: usize = 16;

/// The end of the kernel's log by syslog(2), which takes nothing from other readers.
///
/// # Errors
/// What is missing.
pub(super) fn read() -> Seen<String> {
    let mut buffer = vec![0; END];
    match safely_wrapped_klogctl(KLogType::SyslogActionReadAll, &mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(String::from_utf8_lossy(&buffer).into_owned())
        }
        Err(RMesgError::OperationNotPermitted(_)) => {
            Err("the kernel's log: not permitted; the agent needs CAP_SYSLOG (nodeAgent.kernelLog)"
                .to_owned())
        }
        Err(error) => Err(format!("the kernel's log: {error}")),
    }
}

/// How far the log was read, and what was found in it.
#[derive(Debug, Default)]
pub(super) struct KernelLog {
    /// Time and text of the last entry.
    last: Option<(Duration, String)>,
    is_begun: bool,
    /// Of each of [`TROUBLES`]: by device, when the kernel named it last, and how.
    open: [BTreeMap<String, (Duration, String)>; TROUBLES.len()],
    left_out: u64,
    strangers: u64,
}

impl KernelLog {
    /// What is wrong, and which of `pods`, this node's own, had a process killed.
    pub(super) fn judge(
        &mut self,
        log: &Seen<(String, Duration)>,
        pods: &BTreeMap<String, String>,
        wall: SystemTime,
    ) -> (Vec<Finding>, Vec<Event>) {
        let unseen = |why: &str| {
            let findings = TROUBLES.iter().map(|trouble| Finding::unseen(trouble.kind, why));
            (findings.collect(), Vec::new())
        };
        let (text, uptime) = match log {
            Ok((text, uptime)) => (text, *uptime),
            Err(why) => return unseen(why),
        };
        let entries: Vec<_> = text.lines().filter_map(Entry::parse).collect();
        if entries.is_empty() && !text.is_empty() {
            return unseen("the kernel's log has no times (/sys/module/printk/parameters/time)");
        }
        let fresh = self.fresh(&entries);
        for entry in fresh {
            if let Some((number, turn)) = trouble::of(entry.text) {
                self.turn(number, turn, entry);
            }
        }
        let earliest = if self.is_begun { Duration::ZERO } else { uptime.saturating_sub(KEPT) };
        let kills = kill::all(fresh).into_iter().filter(|kill| kill.time >= earliest);
        let mut events = Vec::new();
        for kill in kills {
            match event(&kill, pods, uptime, wall) {
                Some(event) => events.push(event),
                None => self.strangers += u64::from(kill.pod().is_some()),
            }
        }
        self.is_begun = true;
        (self.findings(uptime), events)
    }

    /// Lines about devices that were passed over because too many are in trouble.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Kills in pods that have no logs on this node: they are another's that shares the kernel, or just gone.
    pub(super) fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The entries that were not there before. Times do not say so: those of two processors may be out of
    /// order.
    fn fresh<'a, 'b>(&mut self, entries: &'b [Entry<'a>]) -> &'b [Entry<'a>] {
        let is_last = |entry: &Entry<'_>| {
            self.last.as_ref().is_some_and(|(time, text)| entry.time == *time && entry.text == text)
        };
        let read = entries.iter().rposition(is_last).map_or(0, |at| at + 1);
        if let Some(last) = entries.last() {
            self.last = Some((last.time, last.text.to_owned()));
        }
        &entries[read..]
    }

    fn turn(&mut self, number: usize, turn: Turn<'_>, entry: &Entry<'_>) {
        let open = &mut self.open[number];
        match turn {
            Turn::Is(device) if open.contains_key(device) || open.len() < MOST_DEVICES => {
                open.insert(device.to_owned(), (entry.time, entry.text.to_owned()));
            }
            Turn::Is(_) => self.left_out += 1,
            Turn::Over(device) => drop(open.remove(device)),
        }
    }

    fn findings(&mut self, uptime: Duration) -> Vec<Finding> {
        let judge = |(trouble, open): (&Trouble, &mut BTreeMap<String, (Duration, String)>)| {
            open.retain(|_, (time, _)| uptime.saturating_sub(*time) < trouble.quiet);
            let devices: Vec<_> = open.keys().filter(|device| !device.is_empty()).cloned().collect();
            let reason = (!open.is_empty()).then(|| match &*devices {
                [] => trouble.word.to_owned(),
                devices => format!("{}: {}", trouble.word, devices.join(", ")),
            });
            let said = open.values().max_by_key(|(time, _)| *time).map(|(_, text)| text);
            let message = said.map_or_else(
                || format!("the kernel's log says nothing of {}", trouble.name),
                |said| format!("{}; the kernel's log: {said}", trouble.advice),
            );
            Finding::trouble(trouble.kind, reason, "KernelLogClean", message)
        };
        TROUBLES.iter().zip(&mut self.open).map(judge).collect()
    }
}

/// What is told of a kill. Those of other nodes that share the kernel are not this node's, and neither are
/// those of processes outside of pods.
fn event(kill: &Kill, pods: &BTreeMap<String, String>, uptime: Duration, wall: SystemTime) -> Option<Event> {
    let (uid, container) = kill.pod()?;
    let name = pods.get(&uid)?;
    Some(Event {
        kind: "OOMKilled",
        id: kill.time.as_micros().to_string(),
        time: wall.checked_sub(uptime.saturating_sub(kill.time)).unwrap_or(wall),
        message: kill.told(name, container.as_deref()),
        pod: Some(uid),
    })
}

#[cfg(test)]
mod tests;
