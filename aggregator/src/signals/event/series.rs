//! Which warnings have been told, and how often they have happened since.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, KubernetesEvent};
use prometheus_client::metrics::counter::Counter;

use super::{
    budget::Budget,
    heard::Heard,
    occurrence::{Occurrence, timed},
};
use crate::signals::incident::after;

/// Event objects that are remembered. A cluster keeps its own for an hour.
const MOST: usize = 10_000;
/// What a list shows waits for so long: what comes later in it may be older, and the
/// oldest gives the name. Shorter than what a new leader looks back, as the
/// [`Budget`]'s period is.
const LISTING: Duration = Duration::from_secs(5);

/// What the first list shows that ended before this is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nobody is known to have told it, and nobody shall hear of it now.
    Start(Timestamp),
    /// An earlier leader has told it.
    Told(Timestamp),
}

/// The warnings of a cluster.
///
/// All Events about one object for one reason by one reporter are told as one:
/// CREATE at first sight, with the name and the UID of the Event that came first (of
/// what a list shows, the oldest: so all replicas name it alike), then UPDATE with the
/// text of the newest and the counts of all. So it does not matter whether the reporter
/// counts in one object, in a series, or makes a new object for every wording. What
/// was forgotten for want of room goes on with an UPDATE.
pub(super) struct Series {
    /// What the first list shows is not told if it ended before.
    mark: Timestamp,
    /// What a list shows and nobody remembers is not told if it ended before: it was.
    forgotten_until: Timestamp,
    /// What a list shows and began before was told by an earlier leader.
    told: Option<Timestamp>,
    entries: HashMap<Arc<str>, Entry>,
    /// by UID of the Event
    objects: HashMap<Arc<str>, Object>,
    /// The objects from the oldest to the newest.
    ages: BTreeSet<(Timestamp, Arc<str>)>,
    /// The entries of which something waits for their budgets.
    waiting: BTreeSet<(Timestamp, Arc<str>)>,
    /// number of the current list
    list: u32,
    /// It is not complete.
    is_listing: bool,
    /// The time of the last tick.
    now: Timestamp,
    most: usize,
    forgotten: Counter,
    heard: Heard,
}

/// What is told as one.
struct Entry {
    namespace: String,
    name: String,
    uid: String,
    first: Timestamp,
    last: Timestamp,
    count: u32,
    is_told: bool,
    /// It was told from here, so it keeps its name.
    is_named: bool,
    /// An object of it was forgotten while the API server had it.
    is_cut: bool,
    /// How many objects it has.
    objects: usize,
    budget: Budget,
    /// The newest text, and when it may be told.
    waits: Option<(Timestamp, Box<KubernetesEvent>)>,
}

/// One Event of the API server.
struct Object {
    key: Arc<str>,
    count: u32,
    /// its place in `Series::ages`
    age: Timestamp,
    /// number of the list in which it was last seen
    list: u32,
}

impl Series {
    /// Nothing is known, and what ended before `now` is not told.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            mark: now,
            forgotten_until: Timestamp::MIN,
            told: None,
            entries: HashMap::new(),
            objects: HashMap::new(),
            ages: BTreeSet::new(),
            waiting: BTreeSet::new(),
            list: 0,
            is_listing: false,
            now,
            most: MOST,
            forgotten: Counter::default(),
            heard: Heard::default(),
        }
    }

    /// What is told of the first list.
    pub(super) fn set_mark(&mut self, mark: Mark) {
        (self.mark, self.told) = match mark {
            Mark::Start(mark) => (mark, None),
            Mark::Told(mark) => (mark, Some(mark)),
        };
    }

    /// Objects that were forgotten while the API server had them.
    pub(super) fn forgotten(&self) -> Counter {
        self.forgotten.clone()
    }

    /// A list begins: what it does not mention is gone when it ends.
    pub(super) fn begin(&mut self) {
        self.list += 1;
        self.is_listing = true;
    }

    /// An Event is so. If it has news, `is_covered` says whether another signal
    /// tells them. Returns what is to be told.
    pub(super) fn seen(
        &mut self,
        occurrence: Occurrence,
        is_covered: impl FnOnce(&Occurrence) -> bool,
        now: Timestamp,
    ) -> Vec<KubernetesEvent> {
        // A clock that goes ahead makes nothing young for ever.
        let age = occurrence.last.min(now);
        let known = self.objects.get(&occurrence.uid).map(|object| object.count);
        let is_old = known.is_none() && self.is_listing && age <= self.mark.max(self.forgotten_until);
        let is_news = known.is_none_or(|known| known < occurrence.count);
        let is_told = is_news && !is_old && !is_covered(&occurrence);
        let Occurrence { uid, key, first, last, count, told } = occurrence;
        let (key, news, is_new) = match self.objects.get_mut(&uid) {
            Some(object) => {
                object.list = self.list;
                let news = count.saturating_sub(object.count);
                if news == 0 {
                    return Vec::new();
                }
                object.count = count;
                self.ages.remove(&(object.age, Arc::clone(&uid)));
                object.age = object.age.max(age);
                self.ages.insert((object.age, Arc::clone(&uid)));
                (Arc::clone(&object.key), news, false)
            }
            None => {
                let key = self.entries.get_key_value(&key).map_or(key, |(key, _)| Arc::clone(key));
                let object = Object { key: Arc::clone(&key), count, age, list: self.list };
                self.ages.insert((age, Arc::clone(&uid)));
                self.objects.insert(Arc::clone(&uid), object);
                (key, count, true)
            }
        };
        let entry = self.entries.entry(Arc::clone(&key)).or_insert_with(|| Entry {
            namespace: told.namespace.clone(),
            name: told.name.clone(),
            uid: told.uid.clone(),
            first,
            last,
            count: 0,
            is_told: self.heard.contains(&told.uid),
            is_named: false,
            is_cut: false,
            objects: 0,
            budget: Budget::default(),
            waits: None,
        });
        entry.objects += usize::from(is_new);
        if !entry.is_named && (first, &told.name) < (entry.first, &entry.name) {
            entry.namespace.clone_from(&told.namespace);
            entry.name.clone_from(&told.name);
            entry.uid.clone_from(&told.uid);
            entry.is_told = self.heard.contains(&told.uid);
        }
        let is_newest = last >= entry.last;
        entry.first = entry.first.min(first);
        entry.last = entry.last.max(last);
        entry.count = entry.count.saturating_add(news);
        entry.is_told |= self.is_listing && self.told.is_some_and(|told| first <= told);
        let mut due = Vec::new();
        if is_told {
            let mut state = told;
            if let Some((when, waiting)) = entry.waits.take() {
                self.waiting.remove(&(when, Arc::clone(&key)));
                if !is_newest {
                    state = *waiting;
                }
            }
            let turn = match entry.budget.take(now) {
                Ok(()) if self.is_listing && !entry.is_named => Err(after(now, LISTING)),
                turn => turn,
            };
            match turn {
                Ok(()) => due.push(entry.tell(state)),
                Err(when) => {
                    entry.waits = Some((when, Box::new(state)));
                    self.waiting.insert((when, key));
                }
            }
        }
        while self.objects.len() > self.most
            && let Some((age, oldest)) = self.ages.first().cloned()
        {
            self.forgotten_until = self.forgotten_until.max(age);
            self.forgotten.inc();
            if let Some(object) = self.objects.get(&oldest)
                && let Some(entry) = self.entries.get_mut(&object.key)
            {
                entry.is_cut = true;
            }
            due.extend(self.gone(&oldest));
        }
        due
    }

    /// An Event is gone. Returns what waited, if it was the last of its kind.
    pub(super) fn gone(&mut self, uid: &str) -> Option<KubernetesEvent> {
        let (uid, object) = self.objects.remove_entry(uid)?;
        self.ages.remove(&(object.age, uid));
        let entry = self.entries.get_mut(&object.key)?;
        entry.objects -= 1;
        if entry.objects > 0 {
            return None;
        }
        let mut entry = self.entries.remove(&object.key)?;
        let rest = entry.waits.take().map(|(when, state)| {
            self.waiting.remove(&(when, object.key));
            entry.tell(*state)
        });
        if entry.is_cut && entry.is_told {
            self.heard.add(&entry.uid);
        }
        rest
    }

    /// The list is complete. Returns what waited of what is gone.
    pub(super) fn finish(&mut self) -> Vec<KubernetesEvent> {
        self.is_listing = false;
        // What a later list shows and this one did not is new, whatever clock it goes by.
        self.mark = Timestamp::MIN;
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, object)| object.list != self.list)
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
        gone.iter().filter_map(|uid| self.gone(uid)).collect()
    }

    /// Returns what has waited for long enough.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<KubernetesEvent> {
        // By a clock that was set back they would wait for too long.
        let was_set_back = std::mem::replace(&mut self.now, now) > now;
        let mut due = Vec::new();
        while let Some((when, _)) = self.waiting.first()
            && (was_set_back || *when <= now)
            && let Some((_, key)) = self.waiting.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&key)
                && let Some((_, state)) = entry.waits.take()
            {
                // It was told that there is one by now; if the clock was set back, there is.
                let _taken = entry.budget.take(now);
                due.push(entry.tell(*state));
            }
        }
        due
    }
}

impl Entry {
    fn tell(&mut self, newest: KubernetesEvent) -> KubernetesEvent {
        let was_told = std::mem::replace(&mut self.is_told, true);
        self.is_named = true;
        let named = KubernetesEvent {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            ..newest
        };
        let mut state = timed(named, self.first, self.last, self.count);
        state.set_action(if was_told { Action::Update } else { Action::Create });
        state
    }
}

#[cfg(test)]
mod tests;
