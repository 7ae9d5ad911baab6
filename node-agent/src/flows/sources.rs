//! What network flows are read from at present. A source may come later and go again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::story::Sentence;

/// Their names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<Mutex<BTreeSet<String>>>);

impl Sources {
    /// Flows are read from `source`.
    pub(super) fn came(&self, source: &str) {
        if self.names_mut().insert(source.to_owned()) {
            Sentence::Note(format!("network flows are read from {source}")).tell();
        }
    }

    /// There is no `source` any more.
    pub(super) fn went(&self, source: &str) {
        self.names_mut().remove(source);
        Sentence::Note(format!("no network flows come from {source} any more: it is gone")).tell();
    }

    /// `source` is there, and cannot be read.
    pub(super) fn fails(&self, source: &str, problem: &str) {
        self.names_mut().remove(source);
        Sentence::Warning(format!("no network flows come from {source} for now: {problem}")).tell();
    }

    /// Those that there are.
    pub fn names(&self) -> Vec<String> {
        self.names_mut().iter().cloned().collect()
    }

    /// Whole after every use.
    fn names_mut(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
