//! What network flows are read from at present. A source may come later and go again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::story::Sentence;

/// Their names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<Mutex<BTreeSet<String>>>);

impl Sources {
    /// Flows are read from `source` now.
    pub(super) fn came(&self, source: String) {
        Sentence::Note(format!("network flows are read from {source}")).tell();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source);
    }

    /// There is no `source` any more.
    pub(super) fn went(&self, source: &str) {
        Sentence::Note(format!("no network flows come from {source} any more: it is gone")).tell();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(source);
    }

    /// Those that there are.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
