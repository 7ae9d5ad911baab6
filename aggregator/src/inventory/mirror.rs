//! What the cloud has to know of the cluster, in the form of the wire, and
//! what of it the present connection has not been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher as _,
    net::IpAddr,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, InventoryCommit, StreamDataRequest, stream_data_request::Request};
use prometheus_client::metrics::counter::Counter;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    Kind,
    index::{Index, Relation, Resident},
    key::{Key, Uid},
};

/// Deletions that are kept until they have arrived for sure, at most.
const MAX_DELETIONS: usize = 50_000;
/// From one time to the next that policies are due because their workloads changed.
const REST: Duration = Duration::from_secs(5);

/// The mirror of the cluster. Clones share it. The watches write to it and one
/// connection at a time reads from it.
#[derive(Clone, Default)]
pub struct Mirror(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    forgotten: Counter,
}

/// Which deletion a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deletion(NonZeroU64);

/// Who runs pods for whom is known when these are listed; before, a policy
/// would select fewer workloads than it does.
const OWNERSHIP: [Kind; 3] = [Kind::Pod, Kind::ReplicaSet, Kind::Job];

impl Mirror {
    /// A connection begins: everything is due again as CREATE, then a commit.
    pub fn restart(&self) {
        self.change(State::restart);
    }

    /// The next `StreamDataRequest` to send, and the deletion that it tells, if
    /// it tells one; `None`: nothing is due.
    ///
    /// The commit comes once per connection, when it is known what it tells,
    /// every kind has been listed (or can't be) and all that was due until then has been returned.
    pub fn next(&self) -> Option<(Bytes, Option<Deletion>)> {
        self.state().next()
    }

    /// A deletion has left the resend window. Until then every connection is
    /// told of it anew.
    pub fn left(&self, deletion: Deletion) {
        self.state().forget(deletion);
    }

    /// Every deletion before this time has left the resend window.
    pub fn told_until(&self) -> Timestamp {
        // The clock is read with the state locked: no deletion comes in between.
        let state = self.state();
        state.deletions.first_key_value().map_or_else(Timestamp::now, |(_, (at, _))| *at)
    }

    /// Another leader told all deletions that came at `since` or later, but
    /// before `before`.
    pub fn forget_told(&self, since: Timestamp, before: Timestamp) {
        self.state().forget_told(since, before);
    }

    /// Deletions for which there was no more room before they had arrived.
    pub fn forgotten(&self) -> Counter {
        self.0.forgotten.clone()
    }

    /// Resolves when [`Mirror::next`] may return something. For one waiter.
    pub async fn due(&self) {
        loop {
            let rests_until = {
                let mut state = self.state();
                state.follow(Instant::now());
                if !state.due.is_empty() {
                    return;
                }
                state.rests_until()
            };
            let changed = self.0.changed.notified();
            match rests_until {
                Some(end) => drop(timeout_at(end, changed).await),
                None => changed.await,
            }
        }
    }

    /// A list of `kind` begins: what it does not mention is gone when it ends.
    pub fn begin(&self, kind: Kind) {
        self.change(|state| state.begin(kind));
    }

    /// The object is as `message` says. `message` has no action.
    pub fn apply(&self, kind: Kind, uid: &str, message: &impl Message) {
        self.apply_related(kind, uid, message, Relation::None);
    }

    /// The same for an object that other records depend on, or whose record
    /// depends on others: a policy's workloads are added here. Returns what is
    /// kept of `message`.
    pub fn apply_related(
        &self,
        kind: Kind,
        uid: &str,
        message: &impl Message,
        relation: Relation<'_>,
    ) -> Arc<[u8]> {
        let content = message.encode_to_vec().into();
        self.change(|state| state.apply(kind, uid, content, relation))
    }

    /// Who had this address for itself at that time.
    pub fn resident(&self, address: IpAddr, time: Timestamp) -> Option<Resident> {
        self.state().index.resident(address, time)
    }

    /// The object is gone.
    pub fn remove(&self, kind: Kind, uid: &str) {
        self.change(|state| state.remove(&Key(kind, Uid::from(uid)), Timestamp::now()));
    }

    /// The list of `kind` is complete.
    pub fn finish(&self, kind: Kind) {
        self.change(|state| state.finish(kind, Timestamp::now()));
    }

    /// The next commit tells this.
    pub fn tell_with_commit(&self, commit: InventoryCommit) {
        self.change(|state| {
            state.commit = Some(commit);
            state.commit_if_complete();
        });
    }

    /// How many objects of `kind` there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.state().counts.get(&kind).copied().unwrap_or_default()
    }

    /// `kind` can't be listed at present; the commit does not wait for it.
    pub(crate) fn skip(&self, kind: Kind) {
        self.change(|state| state.skip(kind));
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        while state.deletions.len() > MAX_DELETIONS
            && let Some((oldest, _)) = state.deletions.first_key_value()
        {
            let oldest = *oldest;
            state.forget(oldest);
            self.0.forgotten.inc();
        }
        state.follow(Instant::now());
        if !state.due.is_empty() || state.rests_until().is_some() {
            self.0.changed.notify_one();
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One record.
struct Entry {
    /// the encoded message, without its action and the workloads it selects
    content: Arc<[u8]>,
    /// number of the list of its kind in which it was last seen
    list: u32,
    /// its place in `State::due`
    due: Option<NonZeroU64>,
    /// hash of what the present connection's receiver holds of it
    receiver: Option<NonZeroU64>,
    /// The object is gone; the record is kept until nobody has to be told of it
    /// any more.
    gone: Option<Deletion>,
}

/// What [`State::next`] returns.
enum Due {
    Record(Key),
    Commit,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    /// What of a record depends on other objects.
    index: Index,
    /// When policies were due last because their workloads changed.
    followed: Option<Instant>,
    /// Objects that are there.
    counts: BTreeMap<Kind, usize>,
    /// What to send, in this order. At most one element a record, and one commit.
    due: BTreeMap<NonZeroU64, Due>,
    /// Elements that were ever in `due`.
    places: Count,
    /// Those that may not have arrived yet, oldest first.
    deletions: BTreeMap<Deletion, (Timestamp, Key)>,
    /// How many there ever were.
    deleted: Count,
    lists: BTreeMap<Kind, u32>,
    /// What the next commit tells.
    commit: Option<InventoryCommit>,
    /// Kinds for which the commit does not wait.
    listed: BTreeSet<Kind>,
    /// Those of them that can't be listed and never were. When their list begins
    /// after all, the commit waits for it.
    skipped: BTreeSet<Kind>,
    /// A connection has begun, so that changes are due.
    connected: bool,
    /// The commit of this connection is due or sent.
    committed: bool,
}

/// Numbers that are given once.
struct Count(NonZeroU64);

impl Default for Count {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl Count {
    fn next(&mut self) -> NonZeroU64 {
        let number = self.0;
        // 64 bits do not run out.
        self.0 = number.saturating_add(1);
        number
    }
}

impl State {
    fn restart(&mut self) {
        self.connected = true;
        self.committed = false;
        self.due.clear();
        let ready = self.ownership_listed();
        for (key, entry) in &mut self.entries {
            entry.receiver = None;
            entry.due = None;
            if ready || key.0.targets_field().is_none() {
                let place = self.places.next();
                entry.due = Some(place);
                self.due.insert(place, Due::Record(key.clone()));
            }
        }
        self.commit_if_complete();
    }

    fn next(&mut self) -> Option<(Bytes, Option<Deletion>)> {
        loop {
            let key = match self.due.pop_first()?.1 {
                Due::Commit => return Some((self.encoded_commit(), None)),
                Due::Record(key) => key,
            };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.due = None;
            let targets = targets(&key, &self.index);
            let action = if entry.gone.is_some() {
                entry.receiver = None;
                Action::Delete
            } else {
                let hash = foldhash::quality::FixedState::default().hash_one((&entry.content, &targets));
                match entry.receiver.replace(NonZeroU64::MIN | hash) {
                    Some(before) if before == NonZeroU64::MIN | hash => continue,
                    Some(_) => Action::Update,
                    None => Action::Create,
                }
            };
            return Some((framed(key.0, &[&entry.content, &targets], action), entry.gone));
        }
    }

    fn begin(&mut self, kind: Kind) {
        if self.skipped.remove(&kind) {
            self.listed.remove(&kind);
        }
        *self.lists.entry(kind).or_default() += 1;
    }

    fn apply(&mut self, kind: Kind, uid: &str, content: Arc<[u8]>, relation: Relation<'_>) -> Arc<[u8]> {
        let key = Key(kind, Uid::from(uid));
        self.index.apply(&key, relation);
        let list = self.lists.get(&kind).copied().unwrap_or_default();
        let mut is_new = false;
        let entry = self.entries.entry(key.clone()).or_insert_with(|| {
            is_new = true;
            Entry { content: Arc::default(), list, due: None, receiver: None, gone: None }
        });
        entry.list = list;
        is_new |= entry.gone.is_some();
        let changed = entry.content != content || is_new || entry.receiver.is_none();
        if changed {
            entry.content = content;
            if let Some(deletion) = entry.gone.take() {
                self.deletions.remove(&deletion);
            }
        }
        let kept = Arc::clone(&entry.content);
        if is_new {
            *self.counts.entry(kind).or_default() += 1;
        }
        if changed {
            self.make_due(key);
        }
        kept
    }

    /// Policies whose workloads may have changed are due, all at once, and then none for
    /// a while: those that select much are large, and of many pods some always come or go.
    fn follow(&mut self, now: Instant) {
        if self.index.has_changed() && self.followed.is_none_or(|last| now >= last + REST) {
            self.followed = Some(now);
            for policy in self.index.changed() {
                self.make_due(policy);
            }
        }
    }

    /// When policies are due next, if any waits for it.
    fn rests_until(&self) -> Option<Instant> {
        self.followed.filter(|_| self.index.has_changed()).map(|last| last + REST)
    }

    fn remove(&mut self, key: &Key, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.gone.is_none()) else { return };
        let deletion = Deletion(self.deleted.next());
        entry.gone = Some(deletion);
        if let Some(count) = self.counts.get_mut(&key.0) {
            *count -= 1;
        }
        self.deletions.insert(deletion, (at, key.clone()));
        self.index.remove(key);
        self.make_due(key.clone());
    }

    fn finish(&mut self, kind: Kind, at: Timestamp) {
        let list = self.lists.get(&kind).copied().unwrap_or_default();
        let vanished: Vec<Key> =
            self.of_kind(kind).filter(|(_, entry)| entry.list != list).map(|(key, _)| key.clone()).collect();
        for key in vanished {
            self.remove(&key, at);
        }
        self.skipped.remove(&kind);
        self.listed(kind);
    }

    fn skip(&mut self, kind: Kind) {
        if !self.listed.contains(&kind) {
            self.skipped.insert(kind);
        }
        self.listed(kind);
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(Key(kind, Uid::FIRST)..).take_while(move |(key, _)| key.0 == kind)
    }

    fn encoded_commit(&self) -> Bytes {
        let commit = Request::InventoryCommit(self.commit.unwrap_or_default());
        StreamDataRequest { request: Some(commit) }.encode_to_vec().into()
    }

    fn listed(&mut self, kind: Kind) {
        if self.listed.insert(kind) && OWNERSHIP.contains(&kind) && self.ownership_listed() {
            let policies = self.entries.keys().filter(|key| key.0.targets_field().is_some());
            for policy in policies.cloned().collect::<Vec<_>>() {
                self.make_due(policy);
            }
        }
        self.commit_if_complete();
    }

    fn ownership_listed(&self) -> bool {
        OWNERSHIP.iter().all(|kind| self.listed.contains(kind))
    }

    fn commit_if_complete(&mut self) {
        let is_complete = self.commit.is_some() && self.listed.len() == Kind::ALL.len();
        if self.connected && !self.committed && is_complete {
            self.committed = true;
            self.due.insert(self.places.next(), Due::Commit);
        }
    }

    fn make_due(&mut self, key: Key) {
        if !self.connected || key.0.targets_field().is_some() && !self.ownership_listed() {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.due.is_none()
        {
            let place = self.places.next();
            entry.due = Some(place);
            self.due.insert(place, Due::Record(key));
        }
    }

    /// Nobody has to be told of this deletion any more. If the object came back,
    /// it is none.
    fn forget(&mut self, deletion: Deletion) {
        if let Some((_, key)) = self.deletions.remove(&deletion)
            && let Some(Entry { due: Some(place), .. }) = self.entries.remove(&key)
        {
            self.due.remove(&place);
        }
    }

    fn forget_told(&mut self, since: Timestamp, before: Timestamp) {
        let until = self.deletions.iter().take_while(|(_, (at, _))| *at < before);
        let told: Vec<_> = until.filter(|(_, (at, _))| *at >= since).map(|(number, _)| *number).collect();
        told.into_iter().for_each(|deletion| self.forget(deletion));
    }
}

/// The encoded field with the workloads that a policy selects; nothing for
/// other kinds.
fn targets(key: &Key, index: &Index) -> Vec<u8> {
    let mut field = Vec::new();
    if let Some(number) = key.0.targets_field() {
        for workload in index.workloads(key) {
            encode_key(number, WireType::LengthDelimited, &mut field);
            encode_varint(workload.len() as u64, &mut field);
            field.put_slice(workload.as_bytes());
        }
    }
    field
}

/// A `StreamDataRequest` around the parts of an encoded record, with the action
/// appended: the order of fields is free, and nothing is encoded again.
fn framed(kind: Kind, record: &[&[u8]], action: Action) -> Bytes {
    let action = action as u64;
    let content: usize = record.iter().map(|part| part.len()).sum();
    let length = (content + key_len(kind.action_field()) + encoded_len_varint(action)) as u64;
    let head = key_len(kind.envelope_field()) + encoded_len_varint(length);
    let mut frame = BytesMut::with_capacity(head + length as usize);
    encode_key(kind.envelope_field(), WireType::LengthDelimited, &mut frame);
    encode_varint(length, &mut frame);
    record.iter().for_each(|part| frame.put_slice(part));
    encode_key(kind.action_field(), WireType::Varint, &mut frame);
    encode_varint(action, &mut frame);
    frame.freeze()
}

#[cfg(test)]
mod tests;
