//! What a replica knows of its own role, for the people who look at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// The role of this replica; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Role>>);

/// A replica's role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The Lease has not been looked at yet.
    #[default]
    Undecided,
    /// This replica leads since then.
    Leads(Timestamp),
    /// It does not; a sentence that says who does, or what is in the way.
    StandsBy(String),
}

impl Role {
    /// Whether it is the leader's.
    pub fn leads(&self) -> bool {
        matches!(self, Self::Leads(_))
    }
}

impl Standing {
    /// That of the only replica.
    pub fn alone() -> Self {
        let standing = Self::default();
        standing.leads();
        standing
    }

    /// The role at this moment.
    pub fn now(&self) -> Role {
        self.role().clone()
    }

    pub(super) fn leads(&self) {
        *self.role() = Role::Leads(Timestamp::now());
    }

    pub(super) fn stands_by(&self, sentence: &str) {
        *self.role() = Role::StandsBy(sentence.to_owned());
    }

    fn role(&self) -> MutexGuard<'_, Role> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
