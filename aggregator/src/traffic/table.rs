//! Conversations that wait for what their other end saw.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use kestrel_proto::node::v1::Flow;
use tokio::time::Instant;

use super::{
    conversation::Seen,
    resolve::{Conversation, Key},
};

/// Nodes tell their flows every ten seconds, all at once by their clocks: by then the other end has told too,
/// and both what they read late.
const SETTLES: Duration = Duration::from_secs(12);

/// With more conversations the oldest do not wait. Each takes about 900 bytes.
const MOST: usize = 50_000;

/// The conversations that were not told yet.
#[derive(Default)]
pub(super) struct Table {
    open: HashMap<Arc<Key>, Seen>,
    /// In the order in which they were heard of.
    heard: VecDeque<(Instant, Arc<Key>)>,
}

impl Table {
    /// A node has seen something of a conversation. How many of its policies there was no room for.
    pub(super) fn add(&mut self, conversation: Conversation, flow: &Flow, now: Instant) -> usize {
        let key = conversation.key();
        if let Some(seen) = self.open.get_mut(&key) {
            return seen.add(conversation, flow);
        }
        let key = Arc::new(key);
        self.heard.push_back((now, Arc::clone(&key)));
        self.open.entry(key).or_insert_with(|| Seen::nothing(conversation.clone())).add(conversation, flow)
    }

    /// What there is no room for.
    pub(super) fn surplus(&mut self) -> Vec<Seen> {
        self.tell(|table, _| table.heard.len() > MOST)
    }

    /// What was heard of long enough ago.
    pub(super) fn settled(&mut self, now: Instant) -> Vec<Seen> {
        self.tell(|_, heard| now.duration_since(heard) >= SETTLES)
    }

    /// Everything.
    pub(super) fn all(&mut self) -> Vec<Seen> {
        self.tell(|_, _| true)
    }

    /// The oldest, one after another, as long as they are `due`.
    fn tell(&mut self, due: impl Fn(&Self, Instant) -> bool) -> Vec<Seen> {
        let mut told = Vec::new();
        while let Some((heard, _)) = self.heard.front()
            && due(self, *heard)
            && let Some((_, key)) = self.heard.pop_front()
        {
            told.extend(self.open.remove(&key));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::{super::resolve::resolve, *};

    fn add(table: &mut Table, port: u32, now: Instant) {
        let flow = Flow { port, count: 1, verdict: 1, direction: 2, ..Flow::default() };
        table.add(resolve(&flow, |_, _| None), &flow, now);
    }

    fn ports(settled: &[Seen]) -> Vec<(u32, i64)> {
        settled.iter().flat_map(Seen::told).map(|flow| (flow.port, flow.count)).collect()
    }

    #[test]
    fn a_conversation_is_told_when_it_has_settled_and_sooner_when_there_are_too_many() {
        let (mut table, start) = (Table::default(), Instant::now());
        add(&mut table, 1, start);
        add(&mut table, 2, start + SETTLES / 2);
        add(&mut table, 1, start + SETTLES / 2);
        assert!(table.settled(start + SETTLES / 2).is_empty());
        assert_eq!(ports(&table.settled(start + SETTLES)), [(1, 2)]);
        assert_eq!(ports(&table.all()), [(2, 1)]);
        for port in 0..MOST as u32 + 3 {
            add(&mut table, port, start);
        }
        assert_eq!(ports(&table.surplus()), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!((table.open.len(), table.heard.len()), (MOST, MOST));
    }
}
