//! Which numbers of a numbered series arrived: what proves that no line of
//! "line 1 … line 20000" is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::source::{Selector, Source};

/// Series that are followed: one per prefix and source.
const MAX_SEQUENCES: usize = 4_096;
/// Prefixes that are followed.
const MAX_PREFIXES: usize = 16;

/// The most separate runs that one sequence keeps. A real series arrives as a
/// few runs; a text with a random number after the prefix does not.
const MAX_RUNS: usize = 65_536;

/// The numbered series in the texts of many sources.
#[derive(Debug)]
pub struct Sequences {
    prefixes: BTreeSet<String>,
    sequences: BTreeMap<(String, Source), Sequence>,
    untracked: u64,
}

impl Sequences {
    /// Follows the series behind `prefix` from the start.
    pub fn new(prefix: &str) -> Self {
        Self { prefixes: BTreeSet::from([prefix.to_owned()]), sequences: BTreeMap::new(), untracked: 0 }
    }

    /// Follows the series whose numbers stand behind `prefix`, from now on.
    ///
    /// # Errors
    /// Too many are followed already.
    pub fn track(&mut self, prefix: &str) -> Result<(), String> {
        if self.prefixes.len() >= MAX_PREFIXES && !self.prefixes.contains(prefix) {
            return Err(format!("{MAX_PREFIXES} prefixes are followed already: {:?}", self.prefixes));
        }
        self.prefixes.insert(prefix.to_owned());
        Ok(())
    }

    /// Takes a text of `source` in.
    pub fn insert(&mut self, source: &Source, text: &str) {
        for prefix in &self.prefixes {
            let Some(number) = number_after(prefix, text) else { continue };
            let key = (prefix.clone(), source.clone());
            if self.sequences.len() < MAX_SEQUENCES || self.sequences.contains_key(&key) {
                self.sequences.entry(key).or_default().insert(number);
            } else {
                self.untracked += 1;
            }
        }
    }

    /// What arrived of the series behind `prefix` of all selected sources
    /// together, over everything ever received.
    ///
    /// # Errors
    /// The prefix is not followed, or not everywhere.
    pub fn report(&self, prefix: &str, selector: &Selector, limit: usize) -> Result<Report, String> {
        if !self.prefixes.contains(prefix) {
            return Err(format!(
                "no series {prefix:?} is followed, only {:?}: POST {{\"prefix\": {prefix:?}}} to this path \
                 before the first of it is sent",
                self.prefixes
            ));
        }
        if self.untracked > 0 {
            return Err(format!("more than {MAX_SEQUENCES} sources sent numbered texts; start anew"));
        }
        let mut union = Sequence::default();
        for ((_, _), sequence) in
            self.sequences.iter().filter(|((of, source), _)| of == prefix && selector.matches(source))
        {
            union.merge(sequence);
        }
        Ok(union.report(limit))
    }
}

/// The numbers seen, as runs of consecutive ones.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// First to last number of each run; runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
    total: u64,
    late: u64,
    unkept: u64,
}

impl Sequence {
    /// Notes one arrival of `number`.
    pub fn insert(&mut self, number: u64) {
        self.total += 1;
        let greatest = self.runs.values().next_back().copied();
        let before = self.runs.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= number) {
            return;
        }
        self.late += u64::from(greatest > Some(number));
        let joins_before = before.filter(|(_, last)| last + 1 == number);
        let joins_after =
            number.checked_add(1).and_then(|next| self.runs.get(&next).map(|&last| (next, last)));
        if joins_before.is_none() && joins_after.is_none() && self.runs.len() >= MAX_RUNS {
            self.unkept += 1;
            return;
        }
        let first = joins_before.map_or(number, |(first, _)| first);
        let last = joins_after.map_or(number, |(next, last)| {
            self.runs.remove(&next);
            last
        });
        self.runs.insert(first, last);
    }

    /// Adds what `other` saw.
    pub fn merge(&mut self, other: &Self) {
        let mut runs: Vec<(u64, u64)> = self.runs.iter().chain(&other.runs).map(|(&a, &b)| (a, b)).collect();
        runs.sort_unstable();
        self.runs.clear();
        let mut open: Option<(u64, u64)> = None;
        for (first, last) in runs {
            open = match open {
                Some((start, end)) if first <= end.saturating_add(1) => Some((start, end.max(last))),
                closed => {
                    self.runs.extend(closed);
                    Some((first, last))
                }
            };
        }
        self.runs.extend(open);
        self.total += other.total;
        self.late += other.late;
        self.unkept += other.unkept;
    }

    /// The result, with at most `limit` missing numbers listed.
    pub fn report(&self, limit: usize) -> Report {
        let distinct = self.runs.iter().map(|(first, last)| last - first + 1).sum();
        let gaps = self.runs.iter().zip(self.runs.keys().skip(1)).map(|((_, last), next)| last + 1..*next);
        Report {
            min: self.runs.keys().next().copied(),
            max: self.runs.values().next_back().copied(),
            distinct,
            total: self.total,
            duplicates: self.total - self.unkept - distinct,
            missing_count: gaps.clone().map(|gap| gap.end - gap.start).sum(),
            missing: gaps.flatten().take(limit).collect(),
            late: self.late,
            unkept: self.unkept,
        }
    }
}

/// What a [`Sequence`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Smallest number seen.
    pub min: Option<u64>,
    /// Largest number seen.
    pub max: Option<u64>,
    /// Different numbers seen.
    pub distinct: u64,
    /// Numbered lines seen.
    pub total: u64,
    /// Lines whose number had been seen before.
    pub duplicates: u64,
    /// Numbers between `min` and `max` that were not seen.
    pub missing_count: u64,
    /// The first of them.
    pub missing: Vec<u64>,
    /// Numbers that were first seen after a larger one of their source.
    pub late: u64,
    /// Lines whose number had no room: if not 0, the text is no series and the report is not exact.
    pub unkept: u64,
}

/// The number right after `prefix` in `message`: at the first place where
/// digits follow the prefix.
pub fn number_after(prefix: &str, message: &str) -> Option<u64> {
    message.match_indices(prefix).find_map(|(at, _)| {
        let rest = message.get(at + prefix.len()..)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(numbers: &[u64]) -> Sequence {
        let mut sequence = Sequence::default();
        numbers.iter().for_each(|&number| sequence.insert(number));
        sequence
    }

    fn expected(numbers: &[u64]) -> Report {
        let mut seen = BTreeSet::new();
        let late = numbers
            .iter()
            .filter(|&&number| {
                let after_a_larger_one = seen.last().is_some_and(|&last| last > number);
                seen.insert(number) && after_a_larger_one
            })
            .count() as u64;
        let (min, max) = (seen.first().copied(), seen.last().copied());
        let missing: Vec<u64> =
            min.zip(max).map_or(Vec::new(), |(min, max)| (min..max).filter(|n| !seen.contains(n)).collect());
        Report {
            min,
            max,
            distinct: seen.len() as u64,
            total: numbers.len() as u64,
            duplicates: (numbers.len() - seen.len()) as u64,
            missing_count: missing.len() as u64,
            missing,
            late,
            unkept: 0,
        }
    }

    proptest! {
        #[test]
        fn reports_what_a_set_of_all_numbers_would(numbers in prop::collection::vec(0..200_u64, 0..300)) {
            prop_assert_eq!(sequence(&numbers).report(usize::MAX), expected(&numbers));
        }

        #[test]
        fn merging_is_seeing_both(
            one in prop::collection::vec(0..200_u64, 0..150),
            two in prop::collection::vec(0..200_u64, 0..150),
        ) {
            let mut merged = sequence(&one);
            merged.merge(&sequence(&two));
            let both: Vec<u64> = one.iter().chain(&two).copied().collect();
            // Order is a matter of one source.
            let late = expected(&one).late + expected(&two).late;
            prop_assert_eq!(merged.report(usize::MAX), Report { late, ..expected(&both) });
        }
    }

    #[test]
    fn a_prefix_is_followed_from_when_it_was_asked_for() {
        let mut sequences = Sequences::new("line ");
        let source = Source::default();
        sequences.insert(&source, "no. 6");
        assert!(sequences.report("no. ", &Selector::default(), 1).unwrap_err().contains("POST"));
        sequences.track("no. ").unwrap();
        sequences.insert(&source, "no. 7");
        assert_eq!(sequences.report("no. ", &Selector::default(), 1).unwrap().min, Some(7));
        (0..MAX_PREFIXES - 2).for_each(|n| sequences.track(&n.to_string()).unwrap());
        assert!(sequences.track("one more").is_err());
    }

    #[test]
    fn the_ends_of_the_range_are_numbers_too() {
        let report = sequence(&[u64::MAX, u64::MAX - 1, u64::MAX]).report(5);
        assert_eq!((report.distinct, report.duplicates, report.missing_count), (2, 1, 0));
    }

    #[test]
    fn random_numbers_do_not_fill_the_memory() {
        let numbers: Vec<u64> = (0..MAX_RUNS as u64 + 10).map(|n| n * 2).collect();
        let report = sequence(&numbers).report(1);
        assert_eq!((report.unkept, report.duplicates), (10, 0));
    }

    #[test]
    fn the_number_follows_the_prefix() {
        assert_eq!(number_after("line ", "INFO line 42 of 50"), Some(42));
        assert_eq!(number_after("line ", "line x, line 7"), Some(7));
        assert_eq!(number_after("line ", "lines 7"), None);
        assert_eq!(number_after("line ", "line 99999999999999999999"), None);
        assert_eq!(number_after("é", "é9"), Some(9));
    }
}
