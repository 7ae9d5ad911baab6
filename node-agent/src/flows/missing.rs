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
pub(super) struct Missing([[Told; REASONS.len()]; ALL.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    count: u64,
    at: Option<Instant>,
}

impl Missing {
    /// Says what is new since it was said last.
    pub(super) fn tell(&mut self, counts: &Counts, now: Instant) {
        self.news(counts, now).iter().for_each(Sentence::tell);
    }

    fn news(&mut self, counts: &Counts, now: Instant) -> Vec<Sentence> {
        let mut news = Vec::new();
        for ((source, name), told) in ALL.iter().zip(&mut self.0) {
            for ((reason, why), told) in REASONS.iter().zip(told) {
                let count = counts.count_left_out(*source, *reason);
                let is_told = told.at.is_some_and(|at| now.saturating_duration_since(at) < WAVE);
                if count > told.count && !is_told {
                    let more = count - told.count;
                    news.push(Sentence::Warning(format!(
                        "{more} network flows of {name} are not told, as {why}"
                    )));
                    *told = Told { count, at: Some(now) };
                }
            }
        }
        news
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
    }
}
