//! Says that flows are missing: of each source and reason at once, then rarely, with how many there were.

use std::time::{Duration, Instant};

use kestrel_flows::{
    counts::{Counts, LeftOut},
    flow::Source,
};

use crate::story::Sentence;

/// The same is told this often at most.
const WAVE: Duration = Duration::from_secs(300);

/// What is told. Flows of before the look-back are not missing.
const ALL: [(Source, &str); 3] = [
    (Source::Hubble, "Hubble"),
    (Source::AwsPolicyAgent, "the log of the AWS network policy agent"),
    (Source::Ztunnel, "the log of ztunnel"),
];

const REASONS: [(LeftOut, &str); 2] = [
    (
        LeftOut::TooMany,
        "there were too many different ones in ten seconds: something on this node speaks with thousands of addresses or ports, such as a scanner, or the aggregator does not take them fast enough",
    ),
    (
        LeftOut::Unreadable,
        "their form is not known: the source may be newer than this agent; a newer Kestrel may know it, else please report a line",
    ),
];

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Missing {
    left_out: [[Told; REASONS.len()]; ALL.len()],
    /// Bytes of logs.
    gone: Told,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    count: u64,
    at: Option<Instant>,
}

impl Told {
    /// How many there are more than were told, if that is to be told now.
    fn more(&mut self, count: u64, now: Instant) -> Option<u64> {
        let is_told = self.at.is_some_and(|at| now.saturating_duration_since(at) < WAVE);
        let more = count.saturating_sub(self.count);
        if more == 0 || is_told {
            return None;
        }
        *self = Self { count, at: Some(now) };
        Some(more)
    }
}

impl Missing {
    /// Says what is new since it was said last.
    pub(super) fn tell(&mut self, counts: &Counts, now: Instant) {
        self.news(counts, now).iter().for_each(Sentence::tell);
    }

    fn news(&mut self, counts: &Counts, now: Instant) -> Vec<Sentence> {
        let mut news = Vec::new();
        for ((source, name), told) in ALL.iter().zip(&mut self.left_out) {
            for ((reason, why), told) in REASONS.iter().zip(told) {
                if let Some(more) = told.more(counts.count_left_out(*source, *reason), now) {
                    news.push(format!("{more} network flows of {name} are not told, as {why}"));
                }
            }
        }
        if let Some(bytes) = self.gone.more(counts.count_gone(), now) {
            news.push(format!("network flows are not told, as {bytes} bytes of logs with them were gone before they were read"));
        }
        news.into_iter().map(Sentence::Warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_at_once_and_then_rarely() {
        let (counts, mut missing, start) = (Counts::default(), Missing::default(), Instant::now());
        let mut tell = |left_out: &[(Source, LeftOut)], second| {
            left_out.iter().for_each(|(source, reason)| counts.left_out(*source, *reason));
            let beginning = |sentence: Sentence| match sentence {
                Sentence::Warning(text) => text.split(", as ").next().unwrap_or_default().to_owned(),
                Sentence::Note(text) => panic!("{text}"),
            };
            let news = missing.news(&counts, start + Duration::from_secs(second));
            news.into_iter().map(beginning).collect::<Vec<_>>()
        };
        let (many, form) = ((Source::Hubble, LeftOut::TooMany), (Source::Ztunnel, LeftOut::Unreadable));
        assert_eq!(tell(&[(Source::Ztunnel, LeftOut::Old)], 0), [""; 0]);
        assert_eq!(tell(&[many, many], 1), ["2 network flows of Hubble are not told"]);
        assert_eq!(tell(&[many, form], 2), ["1 network flows of the log of ztunnel are not told"]);
        assert_eq!(tell(&[], 300), [""; 0]);
        assert_eq!(tell(&[many], 301), ["2 network flows of Hubble are not told"]);
        assert_eq!(tell(&[], 900), [""; 0]);
        counts.gone(70);
        assert_eq!(tell(&[], 901), ["network flows are not told"]);
        counts.gone(70);
        assert_eq!(tell(&[], 2000), [""; 0]);
    }
}
