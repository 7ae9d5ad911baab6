//! What the cloud has to know of the cluster, in the form of the wire, and
//! what of it the present connection has not been told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use kestrel_proto::cloud::v1::{Action, InventoryCommit, StreamDataRequest, stream_data_request::Request};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tokio::{sync::Notify, time::Instant};

use super::Kind;

/// The mirror of the cluster. Clones share it. The watches write to it and one
/// connection at a time reads from it.
#[derive(Clone)]
pub struct Mirror(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// The kinds that have a watch; that of pods makes two kinds of records.
fn watched() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::OwnerlessPod)
}

impl Mirror {
    /// An empty mirror. A deletion counts as lost, and is told again to the
    /// next connection, until `resend_window` has passed since it was sent.
    pub fn new(resend_window: Duration) -> Self {
        let state = Mutex::new(State::new(resend_window));
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// A connection begins: everything is due again as CREATE, then a commit.
    pub fn restart(&self) {
        self.change(|state, now| state.restart(now));
    }

    /// The next `StreamDataRequest` to send; `None`: nothing is due.
    ///
    /// The commit comes once per connection, when every kind has been listed
    /// (or can't be) and all that was due until then has been returned.
    pub fn next(&self) -> Option<Bytes> {
        self.state().next(Instant::now())
    }

    /// Resolves when [`Mirror::next`] may return something. For one waiter.
    pub async fn due(&self) {
        while self.state().due.is_empty() {
            self.0.changed.notified().await;
        }
    }

    /// Watches whose list is complete, and all of them.
    pub fn watches(&self) -> (usize, usize) {
        let all = watched().count();
        (all - self.missing().len(), all)
    }

    /// The kinds whose list is not complete.
    pub fn missing(&self) -> Vec<Kind> {
        let state = self.state();
        watched().filter(|kind| !state.complete.contains(kind)).collect()
    }

    /// A list of `kind` begins: what it does not mention is gone when it ends.
    pub fn begin(&self, kind: Kind) {
        self.change(|state, _| state.begin(kind));
    }

    /// The object is as `message` says. `message` has no action.
    pub fn apply(&self, kind: Kind, uid: &str, message: &impl Message) {
        let content = message.encode_to_vec().into_boxed_slice();
        self.change(|state, _| state.apply(kind, uid, content));
    }

    /// The object is gone.
    pub fn remove(&self, kind: Kind, uid: &str) {
        self.change(|state, now| state.remove(&Key(kind, uid.into()), now));
    }

    /// The list of `kind` is complete.
    pub fn finish(&self, kind: Kind) {
        self.change(|state, now| state.finish(kind, now));
    }

    /// `kind` can't be listed at present; the commit does not wait for it.
    pub(crate) fn skip(&self, kind: Kind) {
        self.change(|state, _| {
            state.complete.remove(&kind);
            state.listed(kind);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        let mut state = self.state();
        change(&mut state, Instant::now());
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
    /// this process has sent it, on any connection
    told: bool,
    gone: Gone,
}

/// Whether the object is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    No,
    /// and the receiver has yet to be told
    Untold,
    /// and the record can be forgotten at this moment, because the deletion
    /// can't be lost any more or nobody was told of the object by this process
    Until(Instant),
}

/// What [`State::next`] returns.
enum Due {
    Record(Key),
    Commit,
}

struct State {
    entries: BTreeMap<Key, Entry>,
    /// What to send, in this order. At most one element a record, and one commit.
    due: BTreeMap<u64, Due>,
    /// Elements that were ever in `due`.
    places: u64,
    /// [`Gone::Until`] of records, in the order of time; some are outdated.
    forget: VecDeque<(Instant, Key)>,
    lists: BTreeMap<Kind, u32>,
    /// Kinds for which the commit does not wait.
    listed: BTreeSet<Kind>,
    /// Kinds whose list is complete.
    complete: BTreeSet<Kind>,
    /// A connection has begun, so that changes are due.
    connected: bool,
    /// The commit of this connection is due or sent.
    committed: bool,
    resend_window: Duration,
}

impl State {
    fn new(resend_window: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BTreeMap::new(),
            places: 0,
            forget: VecDeque::new(),
            lists: BTreeMap::new(),
            listed: BTreeSet::new(),
            complete: BTreeSet::new(),
            connected: false,
            committed: false,
            resend_window,
        }
    }

    fn restart(&mut self, now: Instant) {
        self.forget_expired(now);
        self.connected = true;
        self.committed = false;
        self.due.clear();
        for (key, entry) in &mut self.entries {
            entry.receiver = None;
            if entry.told && entry.gone != Gone::No {
                entry.gone = Gone::Untold;
            }
            entry.due = Some(self.places);
            self.due.insert(self.places, Due::Record(key.clone()));
            self.places += 1;
        }
        self.commit_if_listed();
    }

    fn next(&mut self, now: Instant) -> Option<Bytes> {
        loop {
            let key = match self.due.pop_first()?.1 {
                Due::Commit => return Some(commit()),
                Due::Record(key) => key,
            };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.due = None;
            let action = if entry.gone != Gone::No {
                let until = now + self.resend_window;
                entry.gone = Gone::Until(until);
                entry.receiver = None;
                self.forget.push_back((until, key.clone()));
                Action::Delete
            } else {
                let hash = foldhash::quality::FixedState::default().hash_one(&entry.content);
                match entry.receiver.replace(hash) {
                    Some(before) if before == hash => continue,
                    Some(_) => Action::Update,
                    None => Action::Create,
                }
            };
            entry.told = true;
            return Some(framed(key.0, &entry.content, action));
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
            told: false,
            gone: Gone::No,
        });
        entry.list = list;
        if entry.content != content || entry.gone != Gone::No || entry.receiver.is_none() {
            entry.content = content;
            entry.gone = Gone::No;
            self.make_due(key);
        }
    }

    fn remove(&mut self, key: &Key, now: Instant) {
        self.forget_expired(now);
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.gone == Gone::No) else { return };
        if entry.told {
            entry.gone = Gone::Untold;
        } else {
            let until = now + self.resend_window;
            entry.gone = Gone::Until(until);
            self.forget.push_back((until, key.clone()));
        }
        self.make_due(key.clone());
    }

    fn finish(&mut self, kind: Kind, now: Instant) {
        let list = self.lists.get(&kind).copied().unwrap_or_default();
        let vanished: Vec<Key> = self
            .entries
            .range(Key(kind, "".into())..)
            .take_while(|(key, _)| key.0 == kind)
            .filter(|(_, entry)| entry.list != list)
            .map(|(key, _)| key.clone())
            .collect();
        for key in vanished {
            self.remove(&key, now);
        }
        self.complete.insert(kind);
        self.listed(kind);
    }

    fn listed(&mut self, kind: Kind) {
        self.listed.insert(kind);
        self.commit_if_listed();
    }

    fn commit_if_listed(&mut self) {
        if self.connected && !self.committed && self.listed.len() == Kind::ALL.len() {
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

    fn forget_expired(&mut self, now: Instant) {
        while let Some((until, key)) = self.forget.pop_front_if(|(until, _)| *until <= now) {
            if self.entries.get(&key).is_some_and(|entry| entry.gone == Gone::Until(until))
                && let Some(Entry { due: Some(place), .. }) = self.entries.remove(&key)
            {
                self.due.remove(&place);
            }
        }
    }
}

fn commit() -> Bytes {
    let commit = Request::InventoryCommit(InventoryCommit::default());
    StreamDataRequest { request: Some(commit) }.encode_to_vec().into()
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
