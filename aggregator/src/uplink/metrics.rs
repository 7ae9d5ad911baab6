//! What the uplink counts. What it is at a moment is measured when somebody looks
//! ([`Status`](crate::status::Status)).

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::lanes::Lane;

/// Counters and gauges of the uplink; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Messages handed to the connection.
    pub sent: Family<KindLabel, Counter>,
    /// Messages that will never arrive, or may not have.
    pub dropped: Family<DropLabel, Counter>,
    /// Bytes that a lane keeps in memory.
    pub lane_bytes: Family<LaneLabel, Gauge>,
    /// Bytes that a lane keeps on disk.
    pub spool_bytes: Family<LaneLabel, Gauge>,
    /// Messages that an earlier process had left on disk.
    pub spool_recovered: Family<LaneLabel, Counter>,
}

/// A lane.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LaneLabel {
    /// The lane.
    pub lane: Lane,
}

/// One of the five streams.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StreamLabel {
    /// Its name.
    pub stream: &'static str,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabel {
    /// The kind.
    pub kind: Kind,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Answer,
    Signal,
    Inventory,
    Logs,
    Stats,
    Flows,
}

/// A drop and its reason.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DropLabel {
    /// The lane that dropped it.
    pub lane: Lane,
    /// Why.
    pub reason: DropReason,
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelValue)]
pub enum DropReason {
    /// Its lane was full, and it was the oldest.
    LaneFull,
    /// It was sent, but its lane was too full to keep it for sending it again.
    NotKept,
    /// The spool was full, and it was the oldest of the least urgent.
    SpoolFull,
    /// It waited for longer than the spool keeps anything.
    TooOld,
    /// It was damaged on disk.
    Corrupt,
    /// It is larger than the wire allows, and a part of it says nothing.
    TooLarge,
    /// It was sent shortly before the connection ended, and the pod whose sidecar
    /// sent it is gone.
    SenderGone,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::LaneFull,
        Self::NotKept,
        Self::SpoolFull,
        Self::TooOld,
        Self::Corrupt,
        Self::TooLarge,
        Self::SenderGone,
    ];

    /// The reason, and what can be done, for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::LaneFull => "no more room in memory, the oldest went",
            Self::NotKept => "sent, but there was no room to keep them for a second time",
            Self::SpoolFull => {
                "no more room on disk, the oldest of the least urgent went (Helm: aggregator.stateSizeLimit)"
            }
            Self::TooOld => "they waited on disk for too long (Helm: aggregator.spoolHours)",
            Self::Corrupt => "they were damaged on disk",
            Self::TooLarge => {
                "they are larger than the 10 MiB of the wire and have nothing that could be cut"
            }
            Self::SenderGone => {
                "sent shortly before the connection ended, by sidecars whose pods are gone by now"
            }
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        // So that the first drop is an increase.
        for (lane, reason) in every_drop() {
            self.dropped.get_or_create(&DropLabel { lane, reason }).inc_by(0);
        }
        registry.register("messages_sent", "Messages handed to the connection", self.sent.clone());
        registry.register(
            "messages_dropped",
            "Messages that will never arrive, or may not have",
            self.dropped.clone(),
        );
        registry.register("lane_bytes", "Bytes that a lane keeps in memory", self.lane_bytes.clone());
        registry.register("spool_bytes", "Bytes that a lane keeps on disk", self.spool_bytes.clone());
        registry.register(
            "spool_recovered",
            "Messages that an earlier process had left on disk",
            self.spool_recovered.clone(),
        );
    }

    /// Counts `count` drops.
    pub(crate) fn drop(&self, lane: Lane, reason: DropReason, count: u64) {
        self.dropped.get_or_create(&DropLabel { lane, reason }).inc_by(count);
    }
    /// Everything that was dropped so far.
    pub(crate) fn drops(&self) -> Vec<(Lane, DropReason, u64)> {
        let count =
            |lane, reason| self.dropped.get(&DropLabel { lane, reason }).map_or(0, |count| count.get());
        let drops = every_drop().map(|(lane, reason)| (lane, reason, count(lane, reason)));
        drops.filter(|(_, _, count)| *count > 0).collect()
    }

    /// Bytes on disk.
    pub(crate) fn spooled(&self) -> u64 {
        let of = |lane| self.spool_bytes.get(&LaneLabel { lane }).map_or(0, |bytes| bytes.get());
        u64::try_from(Lane::ALL.into_iter().map(of).sum::<i64>()).unwrap_or_default()
    }
}

fn every_drop() -> impl Iterator<Item = (Lane, DropReason)> {
    Lane::ALL.into_iter().flat_map(|lane| DropReason::ALL.map(|reason| (lane, reason)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_for_people_explains_every_reason_and_no_other() {
        let page = include_str!("../../../docs/troubleshooting.md");
        let (_, section) = page.split_once("By `reason`:").unwrap();
        let (section, _) = section.split_once("\n### ").unwrap();
        let words = section.split('`').skip(1).step_by(2);
        let explained: BTreeSet<_> =
            words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned).collect();
        assert_eq!(explained, DropReason::ALL.iter().map(|reason| format!("{reason:?}")).collect());
    }
}
