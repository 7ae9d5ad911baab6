//! The latest state of every object, by kind and UID.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use super::Arrival;

/// Bytes of encoded objects that are kept.
const BUDGET: usize = 256 << 20;
/// Commits that are kept.
const MAX_COMMITS: usize = 100;

/// An `InventoryCommit`: the end of an initial inventory.
#[derive(Clone, Debug, Serialize)]
pub struct Commit {
    /// When it came.
    pub at: Timestamp,
    /// The cluster that it completes.
    pub cluster: String,
    /// The opened stream that brought it.
    pub stream_id: u64,
    /// Objects known of the cluster then.
    pub objects: usize,
    /// Objects that only an earlier stream had named, forgotten then.
    pub forgotten: usize,
}

/// All objects.
#[derive(Debug)]
pub struct Inventory {
    prunes: bool,
    objects: BTreeMap<(String, String), Arc<Arrival>>,
    bytes: usize,
    refused: u64,
    commits: VecDeque<Commit>,
}

impl Inventory {
    /// An empty one. `prunes`: a commit ends what its stream did not name.
    pub(crate) fn new(prunes: bool) -> Self {
        Self { prunes, objects: BTreeMap::new(), bytes: 0, refused: 0, commits: VecDeque::new() }
    }

    /// Takes the state of one object in, or its end.
    pub fn apply(&mut self, arrival: Arc<Arrival>) {
        let key = (arrival.message.kind().to_owned(), arrival.facts.uid.clone());
        if let Some(old) = self.objects.remove(&key) {
            self.bytes -= old.message.encoded_len();
        }
        if arrival.facts.action.as_deref() == Some("DELETE") {
            return;
        }
        if self.bytes + arrival.message.encoded_len() > BUDGET {
            self.refused += 1;
            return;
        }
        self.bytes += arrival.message.encoded_len();
        self.objects.insert(key, arrival);
    }

    /// The initial inventory of a stream is complete: what it did not name is
    /// gone, if this cloud prunes.
    pub fn commit(&mut self, arrival: &Arrival) {
        let before = self.objects.len();
        let stays = |object: &Arrival| {
            !self.prunes || object.cluster != arrival.cluster || object.stream_id == arrival.stream_id
        };
        self.objects.retain(|_, object| {
            let stays = stays(object);
            self.bytes -= if stays { 0 } else { object.message.encoded_len() };
            stays
        });
        if self.commits.len() >= MAX_COMMITS {
            self.commits.pop_front();
        }
        self.commits.push_back(Commit {
            at: arrival.at,
            cluster: arrival.cluster.to_string(),
            stream_id: arrival.stream_id,
            objects: self.objects.values().filter(|object| object.cluster == arrival.cluster).count(),
            forgotten: before - self.objects.len(),
        });
    }

    /// The objects of a kind, such as `pod`.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Arc<Arrival>> {
        let from = (kind.to_owned(), String::new());
        self.objects.range(from..).take_while(move |((of, _), _)| of == kind).map(|(_, object)| object)
    }

    /// Objects by kind.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.objects.keys() {
            *counts.entry(kind.as_str()).or_default() += 1;
        }
        counts
    }

    /// The newest commits, oldest first.
    pub fn commits(&self) -> &VecDeque<Commit> {
        &self.commits
    }

    /// Objects for which there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
