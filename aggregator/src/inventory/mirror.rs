//! What the cloud has to know of the cluster, in the form of the wire, and
//! what of it the present connection has not been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, InventoryCommit, StreamDataRequest, stream_data_request::Request};
use prometheus_client::metrics::counter::Counter;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tokio::sync::Notify;

use super::Kind;

/// Deletions that are kept until they have arrived for sure, at most.
const MAX_DELETIONS: usize = 50_000;

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
pub struct Deletion(u64);

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
        while self.state().due.is_empty() {
            self.0.changed.notified().await;
        }
    }

    /// A list of `kind` begins: what it does not mention is gone when it ends.
    pub fn begin(&self, kind: Kind) {
        self.change(|state| state.begin(kind));
    }

    /// The object is as `message` says. `message` has no action.
    pub fn apply(&self, kind: Kind, uid: &str, message: &impl Message) {
        let content = message.encode_to_vec().into_boxed_slice();
        self.change(|state| state.apply(kind, uid, content));
    }

    /// The object is gone.
    pub fn remove(&self, kind: Kind, uid: &str) {
        self.change(|state| state.remove(&Key(kind, uid.into()), Timestamp::now()));
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
        let state = self.state();
        state.of_kind(kind).filter(|(_, entry)| entry.gone.is_none()).count()
    }

    /// `kind` can't be listed at present; the commit does not wait for it.
    pub(crate) fn skip(&self, kind: Kind) {
        self.change(|state| state.listed(kind));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        while state.deletions.len() > MAX_DELETIONS
            && let Some((oldest, _)) = state.deletions.first_key_value()
        {
            let oldest = *oldest;
            state.forget(oldest);
            self.0.forgotten.inc();
        }
        if !state.due.is_empty() {
            self.0.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// UID within a kind: an ownerless pod is two records with one UID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key(Kind, Arc<str>);

/// One record.
struct Entry {
    /// the encoded message, without its action
    content: Box<[u8]>,
    /// number of the list of its kind in which it was last seen
    list: u32,
    /// its place in `State::due`
    due: Option<u64>,
    /// hash of what the present connection's receiver holds of it
    receiver: Option<u64>,
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
    /// What to send, in this order. At most one element a record, and one commit.
    due: BTreeMap<u64, Due>,
    /// Elements that were ever in `due`.
    places: u64,
    /// Those that may not have arrived yet, oldest first.
    deletions: BTreeMap<Deletion, (Timestamp, Key)>,
    /// How many there ever were.
    deleted: u64,
    lists: BTreeMap<Kind, u32>,
    /// What the next commit tells.
    commit: Option<InventoryCommit>,
    /// Kinds for which the commit does not wait.
    listed: BTreeSet<Kind>,
    /// A connection has begun, so that changes are due.
    connected: bool,
    /// The commit of this connection is due or sent.
    committed: bool,
}

impl State {
    fn restart(&mut self) {
        self.connected = true;
        self.committed = false;
        self.due.clear();
        for (key, entry) in &mut self.entries {
            entry.receiver = None;
            entry.due = Some(self.places);
            self.due.insert(self.places, Due::Record(key.clone()));
            self.places += 1;
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
            let action = if entry.gone.is_some() {
                entry.receiver = None;
                Action::Delete
            } else {
                let hash = foldhash::quality::FixedState::default().hash_one(&entry.content);
                match entry.receiver.replace(hash) {
                    Some(before) if before == hash => continue,
                    Some(_) => Action::Update,
                    None => Action::Create,
                }
            };
            return Some((framed(key.0, &entry.content, action), entry.gone));
        }
    }

    fn begin(&mut self, kind: Kind) {
        *self.lists.entry(kind).or_default() += 1;
    }

    fn apply(&mut self, kind: Kind, uid: &str, content: Box<[u8]>) {
        let key = Key(kind, uid.into());
        let list = self.lists.get(&kind).copied().unwrap_or_default();
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
            content: Box::default(),
            list,
            due: None,
            receiver: None,
            gone: None,
        });
        entry.list = list;
        if entry.content != content || entry.gone.is_some() || entry.receiver.is_none() {
            entry.content = content;
            if let Some(deletion) = entry.gone.take() {
                self.deletions.remove(&deletion);
            }
            self.make_due(key);
        }
    }

    fn remove(&mut self, key: &Key, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.gone.is_none()) else { return };
        let deletion = Deletion(self.deleted);
        self.deleted += 1;
        entry.gone = Some(deletion);
        self.deletions.insert(deletion, (at, key.clone()));
        self.make_due(key.clone());
    }

    fn finish(&mut self, kind: Kind, at: Timestamp) {
        let list = self.lists.get(&kind).copied().unwrap_or_default();
        let vanished: Vec<Key> =
            self.of_kind(kind).filter(|(_, entry)| entry.list != list).map(|(key, _)| key.clone()).collect();
        for key in vanished {
            self.remove(&key, at);
        }
        self.listed(kind);
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(Key(kind, "".into())..).take_while(move |(key, _)| key.0 == kind)
    }

    fn encoded_commit(&self) -> Bytes {
        let commit = Request::InventoryCommit(self.commit.unwrap_or_default());
        StreamDataRequest { request: Some(commit) }.encode_to_vec().into()
    }

    fn listed(&mut self, kind: Kind) {
        self.listed.insert(kind);
        self.commit_if_complete();
    }

    fn commit_if_complete(&mut self) {
        let is_complete = self.commit.is_some() && self.listed.len() == Kind::ALL.len();
        if self.connected && !self.committed && is_complete {
            self.committed = true;
            self.due.insert(self.places, Due::Commit);
            self.places += 1;
        }
    }

    fn make_due(&mut self, key: Key) {
        if !self.connected {
            return;
        }
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.due.is_none()
        {
            entry.due = Some(self.places);
            self.due.insert(self.places, Due::Record(key));
            self.places += 1;
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

/// A `StreamDataRequest` around an encoded record, with the action appended to
/// the record: the order of fields is free, and nothing is encoded again.
fn framed(kind: Kind, content: &[u8], action: Action) -> Bytes {
    let action = action as u64;
    let length = (content.len() + key_len(kind.action_field()) + encoded_len_varint(action)) as u64;
    let head = key_len(kind.envelope_field()) + encoded_len_varint(length);
    let mut frame = BytesMut::with_capacity(head + length as usize);
    encode_key(kind.envelope_field(), WireType::LengthDelimited, &mut frame);
    encode_varint(length, &mut frame);
    frame.put_slice(content);
    encode_key(kind.action_field(), WireType::Varint, &mut frame);
    encode_varint(action, &mut frame);
    frame.freeze()
}

#[cfg(test)]
mod tests;
