//! What is counted of entries.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::sources::Tally;

/// Counters of entries; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    received: Family<OutcomeLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    reason: Refused,
}

/// What became of an entry. What was received is the sum of them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Outcome {
    /// It was counted with those that have all in common with it.
    Aggregated,
    /// It was counted, without its path or more.
    Folded,
    /// It was not counted.
    Refused,
}

/// Why an entry was not counted.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Refused {
    /// Its bytes are no entry.
    Malformed,
    /// It is of something that goes on, whose last entry says all.
    Unfinished,
    /// Another logger of its proxy logs the same.
    Twin,
    /// Its sender sent too much.
    Rate,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Entries of Envoy's access logs that came: counted (Aggregated), counted without their path or more, as there \
                    were too many different ones (Folded), or not counted (Refused)";
        registry.register("received", help, self.received.clone());
        let help = "Entries that were not counted: malformed, of something that goes on (Unfinished), of what another logger of \
                    the same proxy logs too (Twin), or of a connection that sends too much (Rate)";
        registry.register("refused", help, self.refused.clone());
    }

    pub(crate) fn count(&self, tally: Tally) {
        for (outcome, entries) in [
            (Outcome::Aggregated, tally.aggregated),
            (Outcome::Folded, tally.folded),
            (Outcome::Refused, tally.refused()),
        ] {
            if entries > 0 {
                self.received.get_or_create(&OutcomeLabel { outcome }).inc_by(entries);
            }
        }
        for (reason, entries) in [
            (Refused::Malformed, tally.malformed),
            (Refused::Unfinished, tally.unfinished),
            (Refused::Twin, tally.twins),
            (Refused::Rate, tally.over_rate),
        ] {
            if entries > 0 {
                self.refused.get_or_create(&RefusedLabel { reason }).inc_by(entries);
            }
        }
    }
}
