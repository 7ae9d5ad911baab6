//! Says what was dropped: in the log, and so to the cloud, which has no other
//! field for it than the operator's own warnings.

use std::{collections::HashMap, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    lanes::Lane,
    metrics::{DropReason, Metrics},
};

/// From one look at the numbers to the next.
const EVERY: Duration = Duration::from_secs(30);

/// Says every new drop until the drain, one sentence for each lane and reason.
pub async fn tell(metrics: Metrics, drain: CancellationToken) -> anyhow::Result<()> {
    let mut told = Told::default();
    while drain.run_until_cancelled(sleep(EVERY)).await.is_some() {
        for sentence in told.news(metrics.drops()) {
            warn!("{sentence}");
        }
    }
    Ok(())
}

/// Numbers that were said.
#[derive(Default)]
struct Told(HashMap<(Lane, DropReason), u64>);

impl Told {
    fn news(&mut self, drops: Vec<(Lane, DropReason, u64)>) -> Vec<String> {
        // A warning that some warnings were dropped would be one more of them.
        let drops = drops.into_iter().filter(|(lane, ..)| *lane != Lane::OwnLogs);
        let news = drops.filter_map(|(lane, reason, count)| {
            let before = self.0.insert((lane, reason), count).unwrap_or_default();
            let new = count.checked_sub(before).filter(|new| *new > 0)?;
            Some(format!("{new} messages were dropped ({}): {}", lane.name(), reason.words()))
        });
        news.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_is_said_once_and_those_of_warnings_never() {
        let mut told = Told::default();
        let drops = |logs, flows| {
            vec![
                (Lane::OwnLogs, DropReason::LaneFull, logs),
                (Lane::Logs, DropReason::LaneFull, logs),
                (Lane::Flows, DropReason::LaneFull, flows),
            ]
        };
        assert_eq!(told.news(drops(0, 0)), Vec::<String>::new());
        let first = told.news(drops(3, 0));
        assert!(
            matches!(&first[..], [logs] if logs.starts_with("3 messages were dropped (logs): ")),
            "{first:?}"
        );
        assert_eq!(told.news(drops(3, 0)), Vec::<String>::new());
        let both: Vec<_> = told.news(drops(4, 9)).iter().map(|news| news[..1].to_owned()).collect();
        assert_eq!(both, ["1", "9"]);
    }
}
