//! The process's own warnings and errors, sent as logs of its pod.
//!
//! They never feed themselves: what is heard here is put into a queue and
//! nothing is said about that; the queue is emptied at a bounded rate, and what
//! it had no room for is one line of the next batch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{LogEntry, LogErrorInfo, PodLogs};
use kestrel_runtime::telemetry::{Listener, Said};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::inventory::convert::timestamp;

/// Lines that wait; beyond it the oldest is left out.
const WAITING: usize = 256;
/// Lines of a batch.
const BATCH: usize = 100;
/// Between batches. So 20 lines a second are the most that is ever sent.
const PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a line; the rest is cut off.
const LINE: usize = 4096;
/// The container's name in the contract, whatever it is in the pod.
const CONTAINER: &str = "kestrel-operator";

/// What the process said and nobody has sent yet. Clones share it.
#[derive(Clone, Default)]
pub struct OwnLogs(Arc<Mutex<Queue>>);

/// Whose logs they are.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The pod's name.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// The node it runs on.
    pub node: String,
}

impl OwnLogs {
    /// The ear that takes lines in.
    pub fn listener(&self) -> Listener {
        let own = self.clone();
        Box::new(move |said| own.queue().add(said, Timestamp::now()))
    }

    /// Hands batches to `send` until the drain, and then what is left.
    pub async fn pass_on(
        self,
        identity: Identity,
        send: impl Fn(PodLogs) + Send,
        drain: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let over = drain.run_until_cancelled(sleep(PAUSE)).await.is_none();
            while let Some(batch) = self.queue().batch(&identity, Timestamp::now()) {
                send(batch);
                if !over {
                    break;
                }
            }
            if over {
                return Ok(());
            }
        }
    }

    /// Every change of the queue is whole, so a panic elsewhere has not harmed it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<LogEntry>,
    left_out: u64,
    /// Lines of all batches.
    sent: i64,
}

impl Queue {
    fn add(&mut self, said: Said<'_>, now: Timestamp) {
        let message = said.sentence[..said.sentence.floor_char_boundary(LINE)].to_owned();
        let error_info = said.is_error.then(|| LogErrorInfo {
            error_type: said.module.to_owned(),
            error_message: message.clone(),
            ..LogErrorInfo::default()
        });
        let level = if said.is_error { "ERROR" } else { "WARN" };
        self.lines.push_back(LogEntry { error_info, ..line(level, message, now) });
        if self.lines.len() > WAITING {
            self.lines.pop_front();
            self.left_out += 1;
        }
    }

    /// The oldest lines, behind one that says how many there is no room for.
    fn batch(&mut self, identity: &Identity, now: Timestamp) -> Option<PodLogs> {
        let left_out = std::mem::take(&mut self.left_out);
        let gap = (left_out > 0).then(|| {
            line("WARN", format!("{left_out} earlier warnings and errors of this process are left out"), now)
        });
        let taken = self.lines.len().min(BATCH);
        let mut log_entries: Vec<_> = gap.into_iter().chain(self.lines.drain(..taken)).collect();
        if log_entries.is_empty() {
            return None;
        }
        for entry in &mut log_entries {
            self.sent += 1;
            entry.line_number = self.sent;
        }
        Some(PodLogs {
            pod_name: identity.pod.clone(),
            namespace: identity.namespace.clone(),
            container_name: CONTAINER.to_owned(),
            node_name: identity.node.clone(),
            total_lines: log_entries.len() as i64,
            stream_offset: self.sent,
            collection_timestamp: Some(timestamp(now)),
            log_entries,
            ..PodLogs::default()
        })
    }
}

fn line(level: &str, message: String, now: Timestamp) -> LogEntry {
    LogEntry { timestamp: Some(timestamp(now)), message, level: level.to_owned(), ..LogEntry::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn say(queue: &mut Queue, sentence: &str) {
        queue.add(Said { is_error: sentence.starts_with('!'), module: "kestrel_test", sentence }, NOW);
    }

    fn texts(logs: &PodLogs) -> Vec<&str> {
        logs.log_entries.iter().map(|entry| entry.message.as_str()).collect()
    }

    #[test]
    fn lines_are_numbered_over_batches_and_errors_say_where_they_are_from() {
        let identity = Identity { pod: "p".to_owned(), namespace: "n".to_owned(), node: "k".to_owned() };
        let mut queue = Queue::default();
        assert!(queue.batch(&identity, NOW).is_none());
        say(&mut queue, "a");
        say(&mut queue, "!b");
        let first = queue.batch(&identity, NOW).unwrap();
        assert_eq!((&*first.container_name, &*first.pod_uid, first.total_lines), ("kestrel-operator", "", 2));
        assert_eq!(texts(&first), ["a", "!b"]);
        assert_eq!(first.log_entries[0].error_info, None);
        assert_eq!(first.log_entries[1].level, "ERROR");
        assert_eq!(first.log_entries[1].error_info.as_ref().unwrap().error_type, "kestrel_test");
        say(&mut queue, "c");
        let second = queue.batch(&identity, NOW).unwrap();
        assert_eq!((second.log_entries[0].line_number, second.stream_offset), (3, 3));
    }

    #[test]
    fn a_storm_keeps_the_newest_and_says_what_is_missing() {
        let mut queue = Queue::default();
        for number in 0..WAITING + 7 {
            say(&mut queue, &number.to_string());
        }
        say(&mut queue, &"ü".repeat(LINE));
        let batches: Vec<_> = std::iter::from_fn(|| queue.batch(&Identity::default(), NOW)).collect();
        let lines: Vec<_> = batches.iter().flat_map(texts).collect();
        assert_eq!(lines[..2], ["8 earlier warnings and errors of this process are left out", "8"]);
        assert_eq!(lines.len(), WAITING + 1);
        assert_eq!(lines.last().unwrap().len(), LINE);
        assert!(batches.iter().all(|batch| batch.log_entries.len() <= BATCH + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_is_passed_on_and_the_rest_at_the_end() {
        let (own, drain) = (OwnLogs::default(), CancellationToken::new());
        let (to, mut batches) = tokio::sync::mpsc::unbounded_channel();
        let send = move |batch| to.send(batch).unwrap();
        let task = tokio::spawn(own.clone().pass_on(Identity::default(), send, drain.clone()));
        let said = own.listener();
        said(Said { is_error: false, module: "m", sentence: "first" });
        assert_eq!(texts(&batches.recv().await.unwrap()), ["first"]);
        said(Said { is_error: false, module: "m", sentence: "last" });
        drain.cancel();
        task.await.unwrap().unwrap();
        assert_eq!(texts(&batches.recv().await.unwrap()), ["last"]);
    }
}
