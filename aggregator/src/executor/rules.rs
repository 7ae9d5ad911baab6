//! What the owner of the cluster allows, apart from what no owner can.

use std::collections::BTreeMap;

/// As the ConfigMap of the switch has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Anything at all is answered.
    pub enabled: bool,
    /// Secrets are read, with hashes in the place of their values.
    pub secret_hashes: bool,
    /// Manifests are tried.
    pub dry_run: bool,
}

impl Default for Rules {
    /// Those of the chart.
    fn default() -> Self {
        Self { enabled: true, secret_hashes: false, dry_run: false }
    }
}

impl Rules {
    /// Whether whatever these allow is allowed by `other` too.
    pub(super) fn are_within(self, other: Self) -> bool {
        [
            (self.enabled, other.enabled),
            (self.secret_hashes, other.secret_hashes),
            (self.dry_run, other.dry_run),
        ]
        .iter()
        .all(|(this, other)| *this <= *other)
    }

    /// From the data of the ConfigMap. What it does not say is not allowed; what it says
    /// in other words than `true` is not either.
    pub fn of(data: &BTreeMap<String, String>) -> Self {
        let says = |key: &str| data.get(key).is_some_and(|value| value.trim() == "true");
        Self { enabled: says("enabled"), secret_hashes: says("secretHashes"), dry_run: says("dryRun") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_allows() {
        let of = |pairs: &[(&str, &str)]| {
            Rules::of(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let nothing = Rules { enabled: false, ..Rules::default() };
        for data in [&[][..], &[("enabled", "yes")], &[("enabled", "False")], &[("Enabled", "true")]] {
            assert_eq!(of(data), nothing, "{data:?}");
        }
        assert_eq!(of(&[("enabled", "true\n")]), Rules::default());
        assert!(of(&[("enabled", "true"), ("secretHashes", "true")]).secret_hashes);
        assert!(of(&[("enabled", "true"), ("dryRun", "true")]).dry_run);
    }

    #[test]
    fn fewer_rules_are_within_more() {
        let [few, many] = [false, true].map(|secret_hashes| Rules { secret_hashes, ..Rules::default() });
        assert!(few.are_within(many) && few.are_within(few) && !many.are_within(few));
        assert!(!few.are_within(Rules { enabled: false, ..many }));
    }
}
