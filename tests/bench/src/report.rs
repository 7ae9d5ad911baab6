//! Figures as a table, and whether they are good enough.

use std::io::{self, Write as _};

/// The middle and both ends of some figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of the figures of all rounds.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(part).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, least: at(0), most: at(last) }
    }

    /// Of the figures at the given part of them, such as 0.99.
    pub(crate) fn percentile(figures: &[f64], part: f64) -> f64 {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() as f64 * part).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// Rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 4]>,
    missed: Vec<String>,
}

impl Report {
    /// A figure that is only told.
    pub(crate) fn tell(&mut self, what: &str, ours: String, beside: String) {
        self.rows.push([what.to_owned(), ours, beside, String::new()]);
        self.say_last();
    }

    /// A figure with its gate, in words, and whether it is met.
    pub(crate) fn gate(&mut self, what: &str, ours: String, beside: String, gate: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "MISSED" };
        self.rows.push([what.to_owned(), ours, beside, format!("{gate}: {verdict}")]);
        if !is_met {
            self.missed.push(format!("{what}: {gate}"));
        }
        self.say_last();
    }

    /// A figure and what we want it to be.
    pub(crate) fn goal(&mut self, what: &str, ours: String, goal: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "not met" };
        self.rows.push([what.to_owned(), ours, String::new(), format!("goal {goal}: {verdict}")]);
        self.say_last();
    }

    /// Progress, for the person who waits.
    fn say_last(&self) {
        if let Some(row) = self.rows.last() {
            let _nobody_reads = writeln!(io::stderr(), "{}", row.join("; "));
        }
    }

    /// Writes the table below what it was measured on; returns what was missed.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub(crate) fn print(self, machine: &str) -> io::Result<Vec<String>> {
        let mut out = io::stdout().lock();
        writeln!(out, "{machine}\n\n| what | Kestrel | beside it | gate |\n|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(out, "| {} |", row.join(" | "))?;
        }
        Ok(self.missed)
    }
}
