//! Namespaces whose logs, events and flows stay in the cluster.

use std::{collections::BTreeSet, sync::Arc};

/// The names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Excluded(Arc<BTreeSet<String>>);

impl Excluded {
    /// From names that are separated by commas.
    pub fn parse(names: &str) -> Self {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self(Arc::new(names.map(str::to_owned).collect()))
    }

    /// Whether the namespace is one of them.
    pub fn has(&self, namespace: &str) -> bool {
        self.0.contains(namespace)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_blanks_are_none() {
        let excluded = Excluded::parse("shop, vault,,");
        assert!(excluded.has("shop") && excluded.has("vault"));
        assert!(!excluded.has("sho") && !excluded.has("") && !excluded.has(" vault"));
        assert!(Excluded::parse("").is_empty() && !excluded.is_empty());
    }
}
