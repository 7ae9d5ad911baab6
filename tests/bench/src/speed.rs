//! Bytes per second of processor time.

use std::time::Duration;

use crate::{
    Bench,
    report::{Report, Spread},
    rsyslog::Rsyslog,
    set::{Set, Shape},
};

/// No run takes that long unless something is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Files of the sets with many.
pub(crate) const FILES: [u64; 2] = [110, 2000];

/// Runs of ours that take a part of a second each, of which the one in the middle counts: what else the machine does shows
/// less than in a single one.
const SHORT: usize = 5;

/// What reading a set has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) cpu: Duration,
    /// Most memory that was resident, KiB.
    pub(crate) peak: u64,
}

/// The runs of one subject over one set: one a round.
struct Series<'a> {
    set: &'a Set,
    runs: Vec<Run>,
}

impl<'a> Series<'a> {
    fn new(set: &'a Set) -> Self {
        Self { set, runs: Vec::new() }
    }

    /// 10^6 bytes for each second of processor time.
    fn rates(&self) -> impl Iterator<Item = f64> {
        self.runs.iter().map(|run| self.set.bytes as f64 / 1e6 / run.cpu.as_secs_f64())
    }

    /// By how much this one is faster, round by round.
    fn over(&self, other: &Self) -> Spread {
        Spread::of(self.rates().zip(other.rates()).map(|(ours, theirs)| ours / theirs))
    }

    fn text(&self) -> String {
        let rate = Spread::of(self.rates()).median;
        let lines = rate * self.set.lines as f64 / self.set.bytes as f64;
        let peak = self.runs.iter().map(|run| run.peak).max().unwrap_or_default() as f64 / 1024.0;
        format!("{rate:.1} MB, {lines:.3} M lines per CPU s; peak {peak:.1} MiB")
    }
}

fn ratio(name: &str, spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    format!("{median:.2} x {name} ({least:.2} to {most:.2})")
}

/// All rows about speed.
///
/// # Errors
/// A run that is not complete.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let generate =
        |name: &str, files, shape| Set::generate(bench.folder.join(name), bench.size.bytes, files, shape);
    let one = generate("one", 1, Shape::Ordinary)?;
    let many = [generate("110", FILES[0], Shape::Ordinary)?, generate("2000", FILES[1], Shape::Ordinary)?];
    discarded(bench, report, &one, &many)?;
    shipped(bench, report, &one, &many)?;
    for (what, shape) in [("5 % in pieces", Shape::Pieces), ("lines of 16 KiB", Shape::Long)] {
        let set = generate("other", 1, shape)?;
        let (mut ours, mut theirs) = (Series::new(&set), Series::new(&set));
        for _ in 0..bench.size.rounds {
            ours.runs.push(bench.agent.discard(&set, "all")?);
            theirs.runs.push(Rsyslog::discard(&set, &bench.folder)?);
        }
        let beside = format!("rsyslog {}; {}", theirs.text(), ratio("rsyslog", ours.over(&theirs)));
        report.tell(&format!("discarded, 1 file, {what}"), ours.text(), beside);
        std::fs::remove_dir_all(&set.root)?;
    }
    Ok(())
}

fn discarded(bench: &Bench, report: &mut Report, one: &Set, many: &[Set; 2]) -> anyhow::Result<()> {
    let [mut ours, mut errors, mut theirs] = [one, one, one].map(Series::new);
    let mut ours_many = many.each_ref().map(Series::new);
    let mut theirs_many = many.each_ref().map(Series::new);
    for _ in 0..bench.size.rounds {
        let [first, second] = &mut ours_many;
        let all = [(&mut ours, "all"), (&mut errors, "errors"), (first, "all"), (second, "all")];
        let mut short = all.map(|(series, policy)| (series, policy, Vec::new()));
        for _ in 0..SHORT {
            for (series, policy, runs) in &mut short {
                runs.push(bench.agent.discard(series.set, policy)?);
            }
        }
        for (series, _, mut runs) in short {
            runs.sort_by_key(|run| run.cpu);
            series.runs.push(runs[SHORT / 2]);
        }
        theirs.runs.push(Rsyslog::discard(one, &bench.folder)?);
        for theirs in &mut theirs_many {
            theirs.runs.push(Rsyslog::discard(theirs.set, &bench.folder)?);
        }
    }
    let factor = ours.over(&theirs);
    let beside = format!("rsyslog {}; {}", theirs.text(), ratio("rsyslog", factor));
    report.gate("discarded, 1 file", ours.text(), beside, "at least 10 x rsyslog", factor.median >= 10.0);
    for ((ours_many, theirs), files) in ours_many.iter().zip(&theirs_many).zip(FILES) {
        let (kept, factor) = (ours_many.over(&ours), ours_many.over(theirs));
        let beside =
            format!("{}; rsyslog {}; {}", ratio("1 file", kept), theirs.text(), ratio("rsyslog", factor));
        let what = format!("discarded, {files} files");
        report.gate(&what, ours_many.text(), beside, "at least 0.8 x 1 file", kept.median >= 0.8);
    }
    report.tell("discarded, 1 file, policy errors", errors.text(), ratio("policy all", errors.over(&ours)));
    Ok(())
}

fn shipped(bench: &Bench, report: &mut Report, one: &Set, many: &[Set; 2]) -> anyhow::Result<()> {
    let [mut ours, mut theirs] = [one, one].map(Series::new);
    let mut ours_many = many.each_ref().map(Series::new);
    let mut sent = 0.0;
    for _ in 0..bench.size.rounds {
        let before = bench.sink.payload_bytes();
        ours.runs.push(bench.agent.ship(one, &bench.sink)?);
        sent += (bench.sink.payload_bytes() - before) as f64 / f64::from(bench.size.rounds);
        theirs.runs.push(bench.collector.ship(one, &bench.folder)?);
        for series in &mut ours_many {
            series.runs.push(bench.agent.ship(series.set, &bench.sink)?);
        }
    }
    let factor = ours.over(&theirs);
    let beside = format!("collector {}; {}", theirs.text(), ratio("collector", factor));
    let ours_text = format!("{}; {:.1} MB sent", ours.text(), sent / 1e6);
    report.gate("shipped, 1 file", ours_text, beside, "at least 5 x the collector", factor.median >= 5.0);
    for (ours_many, files) in ours_many.iter().zip(FILES) {
        let kept = ours_many.over(&ours);
        let what = format!("shipped, {files} files");
        let beside = ratio("1 file", kept);
        report.gate(&what, ours_many.text(), beside, "at least 0.8 x 1 file", kept.median >= 0.8);
    }
    Ok(())
}
