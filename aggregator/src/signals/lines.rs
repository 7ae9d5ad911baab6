//! The last log lines of containers, for the signals that tell how they ended.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

/// Bytes of lines that are kept in all.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of lines that are kept of a container.
const MOST_OF_A_CONTAINER: usize = 2 * 1024;
/// Lines that a signal shows, and their bytes.
pub const MOST_SHOWN: usize = 10;
const MOST_SHOWN_BYTES: usize = 1024;
/// What a line and a container cost beside their text.
const OVERHEAD: usize = 64;

/// Log lines that were sent, and no others. Clones share them.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Kept>>);

/// Pod UID and container.
type Name = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Kept {
    tails: HashMap<Name, Tail>,
    /// the containers in the order in which they last wrote
    order: BTreeMap<u64, Name>,
    next: u64,
    bytes: usize,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<Line>,
    bytes: usize,
    /// its place in `Kept::order`
    place: u64,
}

struct Line {
    at: Option<Timestamp>,
    text: Box<str>,
}

impl Line {
    fn bytes(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

impl Lines {
    /// The container has written these lines, at most [`MOST_SHOWN`], at these
    /// times. The container that has written nothing for longest is forgotten if
    /// there is no room.
    pub fn keep<'a>(
        &self,
        pod_uid: &str,
        container: &str,
        lines: impl IntoIterator<Item = (Option<Timestamp>, &'a str)>,
    ) {
        let name = (Arc::from(pod_uid), Arc::from(container));
        let mut kept = self.kept();
        let kept = &mut *kept;
        let tail = kept.tails.entry(name.clone()).or_default();
        kept.order.remove(&tail.place);
        kept.next += 1;
        tail.place = kept.next;
        kept.order.insert(kept.next, name);
        kept.bytes -= tail.bytes;
        lines.into_iter().for_each(|(at, text)| tail.add(at, text));
        kept.bytes += tail.bytes;
        while kept.bytes > MOST_BYTES
            && let Some((_, oldest)) = kept.order.pop_first()
        {
            kept.bytes -= kept.tails.remove(&oldest).map_or(0, |tail| tail.bytes);
        }
    }

    /// The container's last lines until `end`, if that is known.
    pub fn last(&self, pod_uid: &str, container: &str, end: Option<Timestamp>) -> Vec<String> {
        // Ends are told in whole seconds.
        let end = end.and_then(|end| end.checked_add(Duration::from_secs(1)).ok());
        let is_before = |line: &&Line| line.at.zip(end).is_none_or(|(at, end)| at < end);
        let kept = self.kept();
        let Some(tail) = kept.tails.get(&(Arc::from(pod_uid), Arc::from(container))) else {
            return Vec::new();
        };
        let mut room = MOST_SHOWN_BYTES;
        let mut lines: Vec<_> = tail
            .lines
            .iter()
            .rev()
            .filter(is_before)
            .take(MOST_SHOWN)
            .map_while(|line| {
                room = room.checked_sub(line.text.len())?;
                Some(line.text.to_string())
            })
            .collect();
        lines.reverse();
        lines
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn add(&mut self, at: Option<Timestamp>, text: &str) {
        let line = Line { at, text: beginning(text).into() };
        self.bytes += line.bytes();
        // What was left out at first comes after what it was written before.
        let later = self.lines.iter().rev().take_while(|other| other.at > line.at).count();
        self.lines.insert(self.lines.len() - later, line);
        while self.bytes > MOST_OF_A_CONTAINER
            && let Some(line) = self.lines.pop_front()
        {
            self.bytes -= line.bytes();
        }
    }
}

/// So much of a line that it does not take the place of all others.
fn beginning(line: &str) -> &str {
    const MOST: usize = 256;
    &line[..line.floor_char_boundary(MOST)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(second: i64, text: &str) -> (Option<Timestamp>, &str) {
        (Some(Timestamp::from_second(second).unwrap()), text)
    }

    #[test]
    fn the_last_lines_before_an_end_are_shown() {
        let lines = Lines::default();
        let written: Vec<_> = (10..20).map(|second| format!("line {second}")).collect();
        lines.keep("pod", "app", (10..).zip(&written).map(|(second, text)| line(second, text)));
        lines.keep("pod", "app", [line(20, "a new run")]);
        lines.keep("pod", "other", [line(20, "other")]);
        assert_eq!(lines.last("pod", "other", None), ["other"]);
        assert_eq!(lines.last("pod", "nobody", None), Vec::<String>::new());
        let shown = lines.last("pod", "app", Some(Timestamp::from_second(18).unwrap()));
        assert_eq!((shown[0].as_str(), shown[shown.len() - 1].as_str()), ("line 10", "line 18"));
        let shown = lines.last("pod", "app", None);
        assert_eq!((shown.len(), shown[9].as_str()), (10, "a new run"));
    }

    #[test]
    fn what_comes_late_is_shown_where_it_belongs() {
        let lines = Lines::default();
        lines.keep("pod", "app", [line(1, "one"), line(5, "five")]);
        lines.keep("pod", "app", [line(2, "two"), line(3, "three"), line(5, "five again")]);
        assert_eq!(lines.last("pod", "app", None), ["one", "two", "three", "five", "five again"]);
    }

    #[test]
    fn what_is_shown_is_small_whatever_the_lines_are() {
        let lines = Lines::default();
        let long = "ü".repeat(10_000);
        lines.keep("pod", "app", [line(1, &long); 10]);
        let shown = lines.last("pod", "app", None);
        assert_eq!(shown.len(), 4);
        assert!(shown.iter().all(|line| line.len() == 256));
    }

    #[test]
    fn who_wrote_least_recently_is_forgotten_first() {
        let lines = Lines::default();
        let text = "x".repeat(200);
        lines.keep("pod", "first", [line(0, &text)]);
        lines.keep("pod", "second", [line(0, &text)]);
        for number in 0..20_000 {
            lines.keep("pod", "first", [line(0, &text)]);
            lines.keep("pod", &number.to_string(), [line(0, &text)]);
        }
        assert!(lines.last("pod", "second", None).is_empty());
        assert!(!lines.last("pod", "first", None).is_empty());
    }

    proptest! {
        #[test]
        fn the_books_are_right(writes in prop::collection::vec((0..6_u8, 0..4_u8, 1..30_usize, 0..400_usize), 1..200)) {
            let lines = Lines::default();
            for (pod, container, count, length) in writes {
                let text = "x".repeat(length);
                lines.keep(&pod.to_string(), &container.to_string(), vec![line(0, &text); count]);
                let kept = lines.kept();
                let tails = kept.tails.values();
                prop_assert_eq!(kept.bytes, tails.clone().map(|tail| tail.bytes).sum::<usize>());
                let is_right = |tail: &Tail| {
                    tail.bytes == tail.lines.iter().map(Line::bytes).sum::<usize>()
                        && tail.bytes <= MOST_OF_A_CONTAINER
                };
                prop_assert!(tails.clone().all(is_right));
                prop_assert_eq!(kept.order.len(), kept.tails.len());
                prop_assert!(kept.bytes <= MOST_BYTES);
            }
        }
    }
}
