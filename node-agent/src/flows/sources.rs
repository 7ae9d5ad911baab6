//! What network flows are read from at present. A source may come later and go again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::story::Sentence;

/// Their names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeSet<String>,
    /// How many of those who look for sources have not looked yet, and what the others did not find.
    looking: usize,
    absent: Vec<String>,
}

impl Sources {
    /// None so far; so many look for some.
    pub(super) fn looked_for_by(looking: usize) -> Self {
        Self(Arc::new(Mutex::new(State { looking, ..State::default() })))
    }

    /// Somebody has looked for the first time, and did not find this. It is told once, of all.
    pub(super) fn looked(&self, absent: Option<String>) {
        let mut state = self.state();
        state.looking = state.looking.saturating_sub(1);
        state.absent.extend(absent);
        if state.looking == 0 && !state.absent.is_empty() {
            let absent = std::mem::take(&mut state.absent).join(", no ");
            Sentence::Note(format!("network flows: on this node there is no {absent}; what comes is read"))
                .tell();
        }
    }

    /// Flows are read from `source`.
    pub(super) fn came(&self, source: &str) {
        if self.state().names.insert(source.to_owned()) {
            Sentence::Note(format!("network flows are read from {source}")).tell();
        }
    }

    /// There is no `source` any more.
    pub(super) fn went(&self, source: &str) {
        self.state().names.remove(source);
        Sentence::Note(format!("no network flows come from {source} any more: it is gone")).tell();
    }

    /// `source` is there, and cannot be read.
    pub(super) fn fails(&self, source: &str, problem: &str) {
        self.state().names.remove(source);
        Sentence::Warning(format!("no network flows come from {source} for now: {problem}")).tell();
    }

    /// Those that there are.
    pub fn names(&self) -> Vec<String> {
        self.state().names.iter().cloned().collect()
    }

    /// Whole after every use.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
