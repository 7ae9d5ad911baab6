//! Which requests came and how they were answered, so that one that comes
//! twice (its answer may have been on its way when a connection died) is
//! answered once, from here.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::BuildHasher as _,
    time::Duration,
};

use tokio::time::Instant;

use crate::uplink::{Request, lanes::Over};

/// A longer `request_id` or `policy_id` is not one; such requests are never merged.
const ID_BYTES: usize = 1024;

/// What tells one request from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    kind: u8,
    id: String,
    /// Hash of a proposed policy: its id is the policy's, which may have been mended
    /// since it came before.
    policy: Option<u64>,
}

impl Key {
    /// `None` for a request that can't be recognised when it comes again.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let (kind, id) = match request {
            Request::KubernetesApi(request) => (1, &request.request_id),
            Request::ShellCommand(request) => (2, &request.request_id),
            Request::YamlDryRun(request) => (3, &request.request_id),
            Request::YamlApply(request) => (4, &request.request_id),
            Request::CertificateRenewal(request) => (5, &request.request_id),
            Request::OperatorRestart(request) => (6, &request.request_id),
            Request::MetricsQuery(request) => (7, &request.request_id),
            Request::DatadogQuery(request) => (8, &request.request_id),
            Request::NetworkPolicy(request) => (9, &request.policy_id),
        };
        let policy = match request {
            Request::NetworkPolicy(request) => {
                Some(foldhash::quality::FixedState::default().hash_one(&request.network_policy))
            }
            _ => None,
        };
        (1..=ID_BYTES).contains(&id.len()).then(|| Self { kind, id: id.clone(), policy })
    }
}

/// Whether a request changes nothing, so that it may be run again.
pub(super) fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::KubernetesApi(_)
            // No command changes anything.
            | Request::ShellCommand(_)
            | Request::MetricsQuery(_)
            | Request::DatadogQuery(_)
            | Request::YamlDryRun(_)
            // It is tried, and never applied.
            | Request::NetworkPolicy(_)
    )
}

/// What is kept at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Answered requests.
    pub entries: usize,
    /// Bytes of answers, all together.
    pub bytes: usize,
    /// Time since an answer.
    pub age: Duration,
}

/// What to do with a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<A> {
    /// Run it.
    Run,
    /// It runs already; its answer will go where it came last.
    Runs,
    /// Answer it with this.
    Answered(A),
    /// It was answered, with what is not kept any more, and must not run twice.
    Forgotten,
}

/// The requests of the last minutes. `A` is an answer, which is cheap to clone.
pub(super) struct Record<A> {
    limits: Limits,
    requests: BTreeMap<Key, State<A>>,
    /// Answered requests, the oldest answer first …
    answered: VecDeque<(Instant, Key)>,
    /// … of which the first so many have lost their bytes.
    forgotten: usize,
    /// Bytes of the other answers.
    bytes: usize,
}

enum State<A> {
    Runs(Over),
    Answered(A, usize),
    Forgotten,
}

impl<A> State<A> {
    fn asker(self) -> Option<Over> {
        match self {
            Self::Runs(over) => Some(over),
            _ => None,
        }
    }
}

impl<A: Clone> Record<A> {
    pub(super) fn new(limits: Limits) -> Self {
        let requests = BTreeMap::new();
        Self { limits, requests, answered: VecDeque::new(), forgotten: 0, bytes: 0 }
    }

    /// A request came `over` a stream. [`Verdict::Run`] must be followed by
    /// [`Self::answered`] or [`Self::abandoned`].
    pub(super) fn came(&mut self, key: &Key, over: Over, is_read: bool, now: Instant) -> Verdict<A> {
        self.age(now);
        match self.requests.get_mut(key) {
            Some(State::Runs(asker)) => {
                *asker = over;
                return Verdict::Runs;
            }
            Some(State::Answered(answer, _)) => return Verdict::Answered(answer.clone()),
            Some(State::Forgotten) if !is_read => return Verdict::Forgotten,
            Some(State::Forgotten) => {
                if let Some(place) = self.answered.iter().position(|(_, known)| known == key) {
                    self.answered.remove(place);
                    self.forgotten -= 1;
                }
            }
            None => {}
        }
        self.requests.insert(key.clone(), State::Runs(over));
        Verdict::Run
    }

    /// Where a request that runs came last.
    pub(super) fn asker(&self, key: &Key) -> Option<Over> {
        match self.requests.get(key)? {
            State::Runs(over) => Some(*over),
            _ => None,
        }
    }

    /// A request that ran has its answer, of so many `bytes`. Returns where it
    /// came last.
    pub(super) fn answered(&mut self, key: Key, answer: A, bytes: usize, now: Instant) -> Option<Over> {
        let before = self.requests.insert(key.clone(), State::Answered(answer, bytes));
        self.answered.push_back((now, key));
        self.bytes += bytes;
        while self.bytes > self.limits.bytes {
            self.forget();
        }
        while self.answered.len() > self.limits.entries {
            self.remove_oldest();
        }
        before.and_then(State::asker)
    }

    /// A request was not run; it may come again. Returns where it came last.
    pub(super) fn abandoned(&mut self, key: &Key) -> Option<Over> {
        self.requests.remove(key).and_then(State::asker)
    }

    /// What was answered may not be handed out any more: when it is asked for again, it is run.
    pub(super) fn outdated(&mut self, key: &Key) {
        if matches!(self.requests.get(key), Some(State::Answered(..)))
            && let Some(place) = self.answered.iter().position(|(_, known)| known == key)
            && let Some(State::Answered(_, bytes)) = self.requests.remove(key)
        {
            self.answered.remove(place);
            self.bytes -= bytes;
        }
    }

    fn age(&mut self, now: Instant) {
        while self.answered.front().is_some_and(|(then, _)| now.duration_since(*then) >= self.limits.age) {
            self.remove_oldest();
        }
    }

    /// Drops the bytes of the oldest answer that has any.
    fn forget(&mut self) {
        let Some((_, key)) = self.answered.get(self.forgotten) else { return };
        if let Some(State::Answered(_, bytes)) = self.requests.insert(key.clone(), State::Forgotten) {
            self.bytes -= bytes;
        }
        self.forgotten += 1;
    }

    fn remove_oldest(&mut self) {
        if self.forgotten == 0 {
            self.forget();
        }
        if let Some((_, key)) = self.answered.pop_front() {
            self.requests.remove(&key);
            self.forgotten -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
