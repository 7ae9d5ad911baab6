//! Conversations that wait for what their other end saw.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use kestrel_proto::{cloud::v1, node::v1::Flow};
use tokio::time::Instant;

use super::{conversation::Seen, resolve::Conversation};

/// Nodes tell their flows every ten seconds: by then the other end has told too.
const SETTLES: Duration = Duration::from_secs(12);

/// With more conversations the oldest do not wait. Each takes about 500 bytes.
const MOST: usize = 50_000;

/// The conversations that were not told yet.
#[derive(Default)]
pub(super) struct Table {
    open: HashMap<Arc<Conversation>, Seen>,
    /// In the order in which they were heard of.
    heard: VecDeque<(Instant, Arc<Conversation>)>,
}

impl Table {
    /// A node has seen something of a conversation. How many of its policies there was no room for.
    pub(super) fn add(&mut self, conversation: Conversation, flow: &Flow, now: Instant) -> usize {
        if let Some(seen) = self.open.get_mut(&conversation) {
            return seen.add(flow);
        }
        let mut seen = Seen::nothing();
        let left_out = seen.add(flow);
        let conversation = Arc::new(conversation);
        self.heard.push_back((now, Arc::clone(&conversation)));
        self.open.insert(conversation, seen);
        left_out
    }

    /// What there is no room for.
    pub(super) fn surplus(&mut self) -> Vec<v1::Flow> {
        self.tell(|table, _| table.heard.len() > MOST)
    }

    /// What was heard of long enough ago.
    pub(super) fn settled(&mut self, now: Instant) -> Vec<v1::Flow> {
        self.tell(|_, heard| now.duration_since(heard) >= SETTLES)
    }

    /// Everything.
    pub(super) fn all(&mut self) -> Vec<v1::Flow> {
        self.tell(|_, _| true)
    }

    /// The oldest, one after another, as long as they are `due`.
    fn tell(&mut self, due: impl Fn(&Self, Instant) -> bool) -> Vec<v1::Flow> {
        let mut told = Vec::new();
        while let Some((heard, _)) = self.heard.front()
            && due(self, *heard)
            && let Some((_, conversation)) = self.heard.pop_front()
        {
            if let Some(seen) = self.open.remove(&conversation) {
                told.extend(seen.told(&conversation));
            }
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

    fn ports(flows: &[v1::Flow]) -> Vec<(u32, i64)> {
        flows.iter().map(|flow| (flow.port, flow.count)).collect()
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
