//! What the proxies of both ends saw of an edge, and which of it is told, once.
//!
//! As a rule, ten seconds are judged by themselves. Around a change of the leader what the two ends saw does not come together: what
//! streams brought the former leader has told, and agents and collectors bring what they keep to the next one, as they find it. So it
//! takes up what was seen and told of each edge, and goes on from there for a minute.

use std::{collections::HashMap, fmt::Write as _};

use kestrel_als::Side;

/// The server's proxies are believed if they saw more than the client's by over one in so many.
const NEAR: u64 = 100;

/// Edges that are remembered; more are judged by each ten seconds alone.
const MOST_EDGES: usize = 50_000;

/// Bytes of a note of edges: half of what all annotations of an object may have.
const MOST_NOTED: usize = 128 * 1024;

/// How many requests either end's proxies saw, and how many of these were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    client: u64,
    server: u64,
    told: u64,
}

impl Seen {
    /// Adds what the client's and the server's proxies saw, in requests as the server sees them; what of it is told.
    ///
    /// That is the view of the end that saw more. The client's proxy alone knows what came of a request in the end, and requests that
    /// end at one end just before the border of ten seconds and at the other just after it are a few more at either: so the server's
    /// has to have seen more by a hundredth.
    pub(super) fn add(&mut self, client: u64, server: u64) -> Part {
        self.client = self.client.saturating_add(client);
        self.server = self.server.saturating_add(server);
        let (side, all, of) = if self.server > self.client.saturating_add(self.client / NEAR) {
            (Side::Server, self.server, server)
        } else {
            (Side::Client, self.client, client)
        };
        let more = all.saturating_sub(self.told).min(of);
        self.told = self.told.saturating_add(more);
        Part { side, more, of, passed: 0, given: 0 }
    }
}

/// What is told of one end's view: so many of so many requests, evenly of all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) side: Side,
    more: u64,
    of: u64,
    passed: u64,
    given: u64,
}

impl Part {
    /// How many are told of the next row, which is of `count`.
    pub(super) fn next(&mut self, count: u64) -> u64 {
        self.passed = self.passed.saturating_add(count);
        let given = u128::from(self.passed) * u128::from(self.more) / u128::from(self.of.max(1));
        let before = std::mem::replace(&mut self.given, u64::try_from(given).unwrap_or(u64::MAX));
        self.given.saturating_sub(before)
    }
}

/// What was seen and told of edges, of which more may come.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// By a number that every release makes of their names.
    edges: HashMap<u64, Seen>,
    /// From this span on, each is judged by itself.
    until: u64,
}

impl Open {
    /// Who counts begins to lead, after one that has left this note: what ended before the span `until` is judged together with that.
    pub(super) fn begin(&mut self, note: &str, until: u64) {
        let edge = |text: &str| {
            let mut numbers = text.split(' ').map(|number| u64::from_str_radix(number, 16).ok());
            let mut next = || numbers.next().flatten();
            Some((next()?, Seen { client: next()?, server: next()?, told: next()? }))
        };
        self.edges = note.split(',').filter_map(edge).take(MOST_EDGES).collect();
        self.until = until;
    }

    /// It ends, in this span: what it tells from now on is told before all has come.
    pub(super) fn end(&mut self, span: u64) {
        self.forget(span);
        self.until = u64::MAX;
    }

    fn forget(&mut self, span: u64) {
        if span >= self.until {
            self.edges = HashMap::new();
        }
    }

    /// What is told of an edge in this span.
    pub(super) fn add(&mut self, span: u64, edge: impl FnOnce() -> u64, [client, server]: [u64; 2]) -> Part {
        self.forget(span);
        if span < self.until {
            let edge = edge();
            if self.edges.len() < MOST_EDGES || self.edges.contains_key(&edge) {
                return self.edges.entry(edge).or_default().add(client, server);
            }
        }
        Seen::default().add(client, server)
    }

    /// For the next leader; of the edges with the most requests, if there is no room for all.
    pub(super) fn note(&self) -> String {
        let mut edges: Vec<_> = self.edges.iter().collect();
        edges.sort_by_key(|(edge, seen)| (std::cmp::Reverse(seen.told), **edge));
        let mut note = String::new();
        for (edge, Seen { client, server, told }) in edges {
            let length = note.len();
            // To a String, this can't fail.
            let _written = write!(note, "{edge:x} {client:x} {server:x} {told:x},");
            if note.len() > MOST_NOTED {
                note.truncate(length);
                break;
            }
        }
        note
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seen: &mut Seen, client: u64, server: u64) -> (Side, u64) {
        let part = seen.add(client, server);
        (part.side, part.more)
    }

    #[test]
    fn the_end_that_saw_more_is_told_and_the_clients_if_it_is_near() {
        for (client, server, expected) in [
            (3, 3, (Side::Client, 3)),
            (3, 4, (Side::Server, 4)),
            (4, 3, (Side::Client, 4)),
            (1000, 1010, (Side::Client, 1000)),
            (1000, 1011, (Side::Server, 1011)),
            (0, 1, (Side::Server, 1)),
        ] {
            assert_eq!(told(&mut Seen::default(), client, server), expected, "{client} {server}");
        }
    }

    #[test]
    fn what_comes_later_is_told_as_far_as_the_other_end_has_not_told_it() {
        let mut seen = Seen::default();
        assert_eq!(told(&mut seen, 3, 0), (Side::Client, 3));
        assert_eq!(told(&mut seen, 0, 5), (Side::Server, 2));
        assert_eq!(told(&mut seen, 4, 3), (Side::Server, 3), "eight of the one end, seven of the other");
        assert_eq!(told(&mut seen, 9, 8), (Side::Client, 8));
        assert_eq!(seen.told, seen.client.max(seen.server));
    }

    #[test]
    fn a_part_is_of_all_rows_evenly_and_exact() {
        let mut seen = Seen::default();
        seen.add(700, 0);
        let mut part = seen.add(0, 1000);
        let rows = [1, 9, 490, 0, 500].map(|count| part.next(count));
        assert_eq!((rows, rows.iter().sum::<u64>()), ([0, 3, 147, 0, 150], 300));
        let mut whole = Seen::default().add(1100, 0);
        assert_eq!([1000, 100].map(|count| whole.next(count)), [1000, 100]);
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_bounded() {
        let mut open = Open::default();
        open.end(1);
        for edge in 0..10_000 {
            open.add(1, || edge, [edge + 1, u64::MAX]);
        }
        let note = open.note();
        assert!((MOST_NOTED - 100..=MOST_NOTED).contains(&note.len()), "{}", note.len());
        let mut next = Open::default();
        next.begin(&note, 7);
        assert!(next.edges.len() > 2000 && next.edges.iter().all(|(edge, seen)| open.edges[edge] == *seen));
        next.begin("7 3 0 3,ff,x y z w,,8 1 1 1 1 1", 7);
        assert_eq!(next.add(6, || 7, [0, 5]).more, 2);
        assert_eq!(next.edges.len(), 2);
        assert_eq!(
            (next.add(7, || 7, [0, 5]).more, next.edges.len()),
            (5, 0),
            "it is no new leader any more"
        );
    }
}
