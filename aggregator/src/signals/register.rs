//! Which objects of a kind have something wrong with them, and what of it has
//! been told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::Action;

use super::{
    component::{Components, Part},
    incident::{Finding, Judgement, Subject, after},
    note::Voice,
    thresholds::Thresholds,
};
/// After a watch has come back, what was missed comes at once: it is through by then.
const SETTLES: Duration = Duration::from_secs(5);

/// The objects of a kind. Clones share them.
///
/// What is wrong at once is told at once. What time alone makes wrong, or ends, waits for
/// a tick, and ticks come only while the watch is live: what happened while nobody could
/// see it is known by then, and a state that passed long ago opens nothing.
///
/// It alone decides what is told: CREATE when something begins to be wrong with
/// an object, UPDATE when that changes or ends, DELETE when the object is gone
/// before that. So an incident can't be opened twice, or end without having begun.
/// An object with which nothing is wrong costs nothing.
pub struct Register<S>(Arc<Shared<S>>);

impl<S> Clone for Register<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<S> {
    state: Mutex<State<S>>,
    thresholds: Thresholds,
    voice: Voice,
    components: Option<Components>,
}

struct State<S> {
    /// by UID, or whatever names an object of this kind
    entries: HashMap<Arc<str>, Entry<S>>,
    /// when which entry has to be judged again
    timers: BTreeSet<(Timestamp, Arc<str>)>,
    /// number of the current list
    list: u32,
    /// Until when time is taken into account: the last tick.
    clock: Timestamp,
    /// From when on it ticks; `None` while the objects are not seen.
    live: Option<Timestamp>,
}

struct Entry<S> {
    subject: S,
    /// what has been told to be wrong
    told: Vec<Finding>,
    /// its place in `State::timers`
    due: Option<Timestamp>,
    /// number of the list in which it was last seen
    list: u32,
}

impl<S: Subject> Register<S> {
    /// No objects yet; signals go to `voice`.
    pub fn new(thresholds: Thresholds, voice: impl Into<Voice>) -> Self {
        Self::build(thresholds, voice.into(), None)
    }

    /// No objects yet; what is wrong with parts of a component goes to `components`,
    /// and signals of all others to `voice`.
    pub fn with_components(thresholds: Thresholds, voice: impl Into<Voice>, components: Components) -> Self {
        Self::build(thresholds, voice.into(), Some(components))
    }

    fn build(thresholds: Thresholds, voice: Voice, components: Option<Components>) -> Self {
        let state = State {
            entries: HashMap::new(),
            timers: BTreeSet::new(),
            list: 0,
            clock: Timestamp::MIN,
            live: Some(Timestamp::MIN),
        };
        Self(Arc::new(Shared { state: Mutex::new(state), thresholds, voice, components }))
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub fn begin(&self) {
        let mut state = self.state();
        state.list += 1;
        state.live = None;
    }

    /// Whether what changes is seen from `now` on.
    pub fn hears(&self, does: bool, now: Timestamp) {
        self.state().live = does.then(|| after(now, SETTLES));
    }

    /// The object is so.
    pub fn seen(&self, uid: &str, subject: S, now: Timestamp) {
        let mut state = self.state();
        if state.entries.get(uid).is_some_and(|entry| subject.replaces(&entry.subject)) {
            self.remove(&mut state, uid, now);
        }
        let list = state.list;
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.list = list;
        }
        self.take(&mut state, uid, subject, now);
    }

    /// Somebody else than its list says this of the object, which may not have
    /// been listed yet or no longer be there.
    pub fn reported(&self, uid: &str, subject: S, now: Timestamp) {
        self.take(&mut self.state(), uid, subject, now);
    }

    fn take(&self, state: &mut State<S>, uid: &str, mut subject: S, now: Timestamp) {
        if let Some(entry) = state.entries.get_mut(uid) {
            subject.follows(&entry.subject);
            entry.subject = subject;
            return self.judge(state, uid, now);
        }
        let judgement = subject.judge(now, &self.0.thresholds);
        let is_owed = self.0.voice.note.owes(uid).is_some();
        if judgement == Judgement::default() && !subject.is_kept() && !is_owed {
            return;
        }
        let list = state.list;
        if list > 0 && state.live.is_some_and(|live| live <= now) {
            subject.begins(now);
        }
        state.entries.insert(uid.into(), Entry { subject, told: Vec::new(), due: None, list });
        self.judge(state, uid, now);
    }

    /// How many of the objects that it holds `are` so.
    pub fn count(&self, are: impl Fn(&S) -> bool) -> usize {
        self.state().entries.values().filter(|entry| are(&entry.subject)).count()
    }

    /// Whether the object has to be shown even if nothing seems to be wrong with
    /// it: something was, or may become so.
    pub fn knows(&self, uid: &str) -> bool {
        self.state().entries.contains_key(uid) || self.0.voice.note.owes(uid).is_some()
    }

    /// Changes what is known of an object, and judges it again.
    pub fn change(&self, uid: &str, change: impl FnOnce(&mut S), now: Timestamp) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(uid) {
            change(&mut entry.subject);
            self.judge(&mut state, uid, now);
        }
    }

    /// The object is gone.
    pub fn gone(&self, uid: &str, now: Timestamp) {
        self.remove(&mut self.state(), uid, now);
    }

    /// The list is complete.
    pub fn finish(&self, now: Timestamp) {
        let mut state = self.state();
        let list = state.list;
        let is_gone = |(_, entry): &(&Arc<str>, &Entry<S>)| entry.list != list;
        let gone: Vec<_> = state.entries.iter().filter(is_gone).map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in gone {
            self.remove(&mut state, &uid, now);
        }
        state.live = Some(now);
    }

    /// Judges anew what time alone may have changed.
    pub fn tick(&self, now: Timestamp) {
        let mut state = self.state();
        if state.live.is_none_or(|live| now < live) {
            return;
        }
        state.clock = now;
        while let Some((_, uid)) = state.timers.first().filter(|(due, _)| *due <= now).cloned() {
            self.judge(&mut state, &uid, now);
        }
    }

    /// By the time of the last tick and by that of now, which agree in what time does not
    /// change: what begins has to hold at both, and what goes on at one of them.
    fn judge(&self, state: &mut State<S>, uid: &str, now: Timestamp) {
        let Some(entry) = state.entries.get(uid) else { return };
        let mut judgement = entry.subject.judge(state.clock, &self.0.thresholds);
        let is_among = |all: &[Finding], it: &Finding| all.iter().any(|other| other.kind == it.kind);
        if state.clock != now {
            let mut others = entry.subject.judge(now, &self.0.thresholds).findings;
            judgement.findings.retain(|it| is_among(&others, it) || is_among(&entry.told, it));
            others.retain(|it| is_among(&entry.told, it));
            judgement.findings.append(&mut others);
            judgement = judgement.in_order();
        }
        let held = |it: &Finding| entry.subject.held_until(it).filter(|_| !is_among(&entry.told, it));
        judgement.hold_back(held, state.clock);
        self.tell(state, uid, judgement, now);
    }

    /// Called with the lock held, so that an object's signals are in order.
    fn tell(&self, state: &mut State<S>, uid: &str, mut judgement: Judgement, now: Timestamp) {
        let Some((key, _)) = state.entries.get_key_value(uid) else { return };
        let key = Arc::clone(key);
        let Some(entry) = state.entries.get_mut(uid) else { return };
        // Somebody may believe that an incident of it is open, and it is well.
        let owed = self.0.voice.note.owes(uid).filter(|_| entry.subject.is_well(&judgement));
        let is_owed = owed.is_some_and(|from| from <= state.clock);
        judgement.due = judgement.due.into_iter().chain(owed.filter(|_| !is_owed)).min();
        if judgement.is_news_after(&entry.told) | entry.subject.owes_a_signal() | is_owed {
            let open = judgement.findings;
            let opens = entry.told.is_empty() && !open.is_empty();
            let action = if opens { Action::Create } else { Action::Update };
            let has_ended = |told: &Finding| open.iter().all(|finding| finding.kind != told.kind);
            let ended: Vec<_> = entry.told.drain(..).filter(has_ended).collect();
            match self.component_of(&entry.subject) {
                Some((components, part)) => {
                    components.found(uid, part, &entry.subject.in_full(uid, &open), now);
                }
                None => {
                    self.0.voice.lane.send(entry.subject.request(action, &open, &ended, now));
                    self.0.voice.note.turned(uid, !open.is_empty());
                }
            }
            if action == Action::Create || open.is_empty() {
                entry.subject.turned(!open.is_empty());
            }
            entry.told = open;
        }
        if let Some(before) = entry.due.take() {
            state.timers.remove(&(before, Arc::clone(&key)));
        }
        // What is due is due later than the tick, which so comes to its end.
        let due = judgement.due.filter(|due| *due > state.clock);
        if due.is_none() && entry.told.is_empty() && !entry.subject.is_kept() {
            state.entries.remove(uid);
        } else if let Some(due) = due {
            entry.due = Some(due);
            state.timers.insert((due, key));
        }
    }

    fn remove(&self, state: &mut State<S>, uid: &str, now: Timestamp) {
        let Some((key, entry)) = state.entries.remove_entry(uid) else { return };
        if let Some(due) = entry.due {
            state.timers.remove(&(due, key));
        }
        if entry.told.is_empty() {
            return;
        }
        entry.subject.turned(false);
        match self.component_of(&entry.subject) {
            Some((components, part)) => components.gone(uid, part, now),
            None => {
                self.0.voice.lane.send(entry.subject.request(Action::Delete, &entry.told, &[], now));
                self.0.voice.note.turned(uid, false);
            }
        }
    }

    /// Whoever tells of an object that has no signals of its own.
    fn component_of<'a>(&'a self, subject: &'a S) -> Option<(&'a Components, &'a Part)> {
        self.0.components.as_ref().zip(subject.part())
    }

    /// The state is whole after each of its operations.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
