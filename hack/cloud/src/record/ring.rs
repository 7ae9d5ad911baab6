//! The newest arrivals within a byte budget.

use std::{collections::VecDeque, sync::Arc};

use super::Arrival;

/// A queue that forgets its oldest arrivals to stay within its budget.
#[derive(Debug)]
pub struct Ring {
    kept: VecDeque<Arc<Arrival>>,
    bytes: usize,
    budget: usize,
    total: u64,
}

/// What an arrival costs beside its message.
const OVERHEAD: usize = 256;

impl Ring {
    /// A ring of at most `budget` bytes, or one arrival if that alone is larger.
    pub fn new(budget: usize) -> Self {
        Self { kept: VecDeque::new(), bytes: 0, budget, total: 0 }
    }

    /// Adds the newest.
    pub fn push(&mut self, arrival: Arc<Arrival>) {
        self.total += 1;
        self.bytes += OVERHEAD + arrival.message.encoded_len();
        self.kept.push_back(arrival);
        while self.bytes > self.budget && self.kept.len() > 1 {
            let oldest = self.kept.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| OVERHEAD + oldest.message.encoded_len());
        }
    }

    /// What is kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Arrival>> {
        self.kept.iter()
    }

    /// How many were ever added.
    pub fn total(&self) -> u64 {
        self.total
    }
}
