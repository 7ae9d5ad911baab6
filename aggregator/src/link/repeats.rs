//! Which lines of which files were taken already, so that an agent that reads
//! a file again (it restarted, or its stream broke) repeats nothing that the
//! cloud has or will have.
//!
//! Lines are known by where they end in their file, one by one: what a policy
//! left out at first may be sent later from between lines that were.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use kestrel_proto::node::v1::LogChunk;

use super::columns::Line;
use crate::uplink::receipt::{Fate, Receipt};

/// What is remembered, in lines: 4 bytes each.
const MOST_LINES: usize = 1 << 20;
/// What else a chunk costs, in lines.
const CHUNK_LINES: usize = 48;

/// The files of all peers.
pub(super) struct Repeats {
    files: HashMap<Arc<str>, VecDeque<Chunk>>,
    /// Files in the order in which their chunks came: the oldest is forgotten
    /// first, at the cost of a repeat.
    order: VecDeque<Arc<str>>,
    lines: usize,
    most: usize,
}

/// Lines that were taken together.
struct Chunk {
    start: u64,
    /// Where its lines end, after `start`; ascending.
    ends: Box<[u32]>,
    fate: Fate,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.ends.last().copied().map_or(0, u64::from)
    }

    fn holds(&self, end: u64) -> bool {
        end.checked_sub(self.start)
            .and_then(|end| u32::try_from(end).ok())
            .is_some_and(|end| self.ends.binary_search(&end).is_ok())
    }

    fn cost(&self) -> usize {
        self.ends.len() + CHUNK_LINES
    }
}

impl Default for Repeats {
    fn default() -> Self {
        Self::new(MOST_LINES)
    }
}

impl Repeats {
    fn new(most: usize) -> Self {
        Self { files: HashMap::new(), order: VecDeque::new(), lines: 0, most }
    }

    /// Takes out of the `lines` of `chunk`, which `peer` sent, those that were
    /// taken before and are not lost; `receipt` is then settled when those are.
    /// Returns how many, and the receipt of the rest, if there is any.
    pub(super) fn sift(
        &mut self,
        peer: &str,
        chunk: &LogChunk,
        lines: &mut Vec<Line<'_>>,
        receipt: &Receipt,
    ) -> (u64, Option<Receipt>) {
        let count = lines.len();
        if chunk.end_steps.is_empty() {
            // Of a peer that does not say where its lines end.
            return (0, (count > 0).then(|| receipt.part()));
        }
        let file: Arc<str> = format!("{peer} {} {}", chunk.pod_uid, chunk.file_id).into();
        let start = chunk.start_offset;
        let end = |line: &Line<'_>| start.saturating_add(u64::from(line.end));
        let last = lines.iter().map(end).max().unwrap_or(start);
        let mut held = vec![false; count];
        for before in self.files.get(&file).into_iter().flatten() {
            if before.end() <= start || before.start >= last {
                continue;
            }
            let common: Vec<_> =
                (0..count).filter(|&at| !held[at] && before.holds(end(&lines[at]))).collect();
            if !common.is_empty() && before.fate.share(receipt) {
                common.into_iter().for_each(|at| held[at] = true);
            }
        }
        let mut kept = held.iter().map(|held| !held);
        lines.retain(|_| kept.next().unwrap_or(true));
        let repeats = (count - lines.len()) as u64;
        if lines.is_empty() {
            return (repeats, None);
        }
        let mut ends: Box<[_]> = lines.iter().map(|line| line.end).collect();
        ends.sort_unstable();
        let rest = receipt.part();
        self.remember(file, Chunk { start, ends, fate: rest.fate() });
        (repeats, Some(rest))
    }

    fn remember(&mut self, file: Arc<str>, chunk: Chunk) {
        self.lines += chunk.cost();
        let chunks = self.files.entry(Arc::clone(&file)).or_default();
        chunks.push_back(chunk);
        self.order.push_back(file);
        while self.lines > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            let Some(chunks) = self.files.get_mut(&oldest) else { continue };
            if let Some(chunk) = chunks.pop_front() {
                self.lines -= chunk.cost();
            }
            if chunks.is_empty() {
                self.files.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::LogLevel;
    use proptest::prelude::*;
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::uplink::receipt::{Outcome, Source};

    impl Repeats {
        /// Sifts lines of a file that end there; also returns the ends of those
        /// that are left.
        fn sent(
            &mut self,
            peer: &str,
            start: u64,
            ends: &[u64],
            receipt: &Receipt,
        ) -> (u64, Vec<u64>, Option<Receipt>) {
            let line = |end: &u64| Line {
                nanoseconds: 0,
                text: "",
                class: "",
                end: (end - start) as u32,
                level: LogLevel::Info,
            };
            let mut lines: Vec<_> = ends.iter().map(line).collect();
            let columns = super::super::columns::write(&lines);
            let chunk = LogChunk { file_id: "file".to_owned(), start_offset: start, ..columns };
            let (count, rest) = self.sift(peer, &chunk, &mut lines, receipt);
            (count, lines.iter().map(|line| start + u64::from(line.end)).collect(), rest)
        }
    }

    fn batch(id: u64) -> (Receipt, UnboundedReceiver<(u64, Outcome)>) {
        let (source, outcomes) = Source::new();
        (source.receipt(id, 0), outcomes)
    }

    #[test]
    fn what_is_under_way_is_not_taken_again_and_is_acknowledged_with_the_first() {
        let mut repeats = Repeats::default();
        let (first, mut firsts) = batch(1);
        let (count, left, rest) = repeats.sent("node n1", 0, &[10, 20, 30], &first);
        assert_eq!((count, left), (0, vec![10, 20, 30]));
        let under_way = rest.unwrap();
        first.left();

        let (second, mut seconds) = batch(2);
        let (count, left, rest) = repeats.sent("node n1", 10, &[20, 30, 40, 25], &second);
        assert_eq!((count, left), (2, vec![40, 25]));
        rest.unwrap().left();
        second.left();
        assert!(seconds.try_recv().is_err(), "what it repeats has not left");
        under_way.left();
        assert_eq!(firsts.try_recv().unwrap(), (1, Outcome::Left));
        assert_eq!(seconds.try_recv().unwrap(), (2, Outcome::Left));

        let (third, mut thirds) = batch(3);
        let (count, left, rest) = repeats.sent("node n1", 0, &[10, 20, 30, 40, 25], &third);
        assert!(count == 5 && rest.is_none() && left.is_empty());
        third.left();
        assert_eq!(thirds.try_recv().unwrap(), (3, Outcome::Left));
    }

    #[test]
    fn what_was_lost_is_taken_again_and_others_files_are_other_files() {
        let mut repeats = Repeats::default();
        let (first, _firsts) = batch(1);
        repeats.sent("node n1", 0, &[10], &first).2.unwrap().lost("gone");
        for peer in ["node n1", "node n2"] {
            let (count, _, rest) = repeats.sent(peer, 0, &[10], &first);
            assert_eq!(count, 0);
            rest.unwrap().left();
        }
        assert_eq!(repeats.sent("node n1", 0, &[10], &first).0, 1);
        assert_eq!(repeats.sent("node n1", 10, &[10], &first).0, 0, "it does not say where its line ends");
    }

    proptest! {
        /// A file that is read again from anywhere, with other borders and in part
        /// lost, arrives whole and, as long as it is remembered, once; memory is bounded.
        #[test]
        fn a_file_arrives_once(steps in prop::collection::vec((0_u64..40, 1_u64..12, any::<bool>()), 1..60), most in 60_usize..600) {
            let mut repeats = Repeats::new(most);
            let mut arrived = HashMap::<u64, u32>::new();
            for (from, count, is_lost) in steps {
                let (receipt, mut outcomes) = batch(1);
                let ends: Vec<_> = (from + 1..=from + count).collect();
                let (repeated, part, rest) = repeats.sent("p", from, &ends, &receipt);
                prop_assert_eq!(repeated as usize + part.len(), ends.len());
                if let Some(rest) = rest {
                    if is_lost { rest.lost("lost") } else { rest.left() }
                }
                receipt.left();
                let lost = matches!(outcomes.try_recv().unwrap().1, Outcome::Lost(_));
                prop_assert_eq!(lost, is_lost && !part.is_empty());
                if !lost {
                    for end in part {
                        *arrived.entry(end).or_default() += 1;
                    }
                    prop_assert!(ends.iter().all(|end| arrived.contains_key(end)));
                }
                prop_assert!(repeats.lines <= most.max(12 + CHUNK_LINES));
                let cost: usize = repeats.files.values().flatten().map(Chunk::cost).sum();
                prop_assert_eq!(repeats.lines, cost);
                if most > 60 * (12 + CHUNK_LINES) {
                    prop_assert!(arrived.values().all(|times| *times == 1));
                }
            }
        }
    }
}
