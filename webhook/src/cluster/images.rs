//! Images that collectors run with: where one cannot be pulled, a native
//! sidecar keeps its pod from starting.

use std::collections::{BTreeMap, BTreeSet};

use crate::inject::pod::Secret;

/// Images that are remembered.
const MOST_IMAGES: usize = 256;
/// Of each, sets of Secrets that opened its registry; and Secrets of one pod. A name has at most 253 bytes.
const MOST_SETS: usize = 8;
const MOST_SECRETS: usize = 8;

/// Images, as pods name them, each with the sets of Secrets with which pods had it. A set that is
/// empty says that it takes none. No set is part of another one of its image.
#[derive(Debug, Default)]
pub(crate) struct Images(BTreeMap<String, Vec<BTreeSet<String>>>);

impl Images {
    /// The operator's own image, which lies on every node or can be pulled with any of these Secrets.
    pub(super) fn with(own: String, pull_secrets: &[String]) -> Self {
        let mut sets: Vec<_> = pull_secrets.iter().map(|name| BTreeSet::from([name.clone()])).collect();
        if sets.is_empty() {
            sets.push(BTreeSet::new());
        }
        Self(BTreeMap::from([(own, sets)]))
    }

    /// A collector has run with an image in a pod that names these Secrets. Which of them opened its
    /// registry is not known, so that other pods need them all, unless some are known to suffice.
    /// Where there is no room left, images stay of which `is_kept` holds.
    pub(super) fn ran(&mut self, image: String, secrets: BTreeSet<String>, is_kept: impl Fn(&str) -> bool) {
        if secrets.len() > MOST_SECRETS {
            return;
        }
        if !self.0.contains_key(&image) && self.0.len() >= MOST_IMAGES {
            // Anybody may run images.
            self.0.retain(|image, _| is_kept(image));
            if self.0.len() >= MOST_IMAGES {
                return;
            }
        }
        let sets = self.0.entry(image).or_default();
        if sets.iter().any(|known| known.is_subset(&secrets)) {
            return;
        }
        sets.retain(|known| !secrets.is_subset(known));
        if sets.len() < MOST_SETS {
            sets.push(secrets);
        }
    }

    /// Whether a collector has run with an image, or it is the operator's own.
    pub(crate) fn run(&self, image: &str) -> bool {
        self.0.contains_key(image)
    }

    /// Whether a pod that names these Secrets can have an image wherever it runs, as far as is known.
    pub(crate) fn are_opened_by(&self, secrets: &[Secret], image: &str) -> bool {
        let is_named = |name: &String| secrets.iter().any(|secret| secret.name == *name);
        self.0.get(image).is_some_and(|sets| sets.iter().any(|set| set.iter().all(is_named)))
    }

    /// What [`Self::are_opened_by`] wants, for people: `a or b and c`.
    pub(crate) fn needed_for(&self, image: &str) -> String {
        let all = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
        self.0.get(image).into_iter().flatten().map(all).collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn opens(images: &Images, image: &str, names: &[&str]) -> bool {
        let secrets: Vec<_> = names.iter().map(|name| Secret { name: (*name).to_owned() }).collect();
        images.are_opened_by(&secrets, image)
    }

    #[test]
    fn a_pod_needs_the_secrets_with_which_another_had_the_image() {
        let mut images = Images::with("own".to_owned(), &["one".to_owned(), "two".to_owned()]);
        assert!(opens(&images, "own", &["x", "two"]) && !opens(&images, "own", &["x"]));
        assert_eq!(images.needed_for("own"), "one or two");
        images.ran("own".to_owned(), set(&["one", "x"]), |_| true);
        assert!(!opens(&images, "own", &["x"]), "that one may have opened nothing");

        assert!(!images.run("private") && !opens(&images, "private", &["a"]));
        images.ran("private".to_owned(), set(&["a", "b"]), |_| true);
        assert!(images.run("private"));
        for (names, expected) in [(&[][..], false), (&["a"], false), (&["b", "c", "a"], true)] {
            assert_eq!(opens(&images, "private", names), expected, "{names:?}");
        }
        images.ran("private".to_owned(), set(&["c"]), |_| true);
        assert_eq!(images.needed_for("private"), "a and b or c");
        images.ran("private".to_owned(), set(&["b"]), |_| true);
        assert_eq!(images.needed_for("private"), "c or b");
        images.ran("private".to_owned(), set(&[]), |_| true);
        assert!(opens(&images, "private", &[]), "it takes none");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut images = Images::with("own".to_owned(), &[]);
        for number in 0..2 * MOST_SETS {
            images.ran("a".to_owned(), set(&[&number.to_string()]), |_| true);
        }
        let many: Vec<_> = (0..=MOST_SECRETS).map(|number| number.to_string()).collect();
        images.ran("b".to_owned(), many.into_iter().collect(), |_| true);
        assert_eq!((images.0["a"].len(), images.run("b")), (MOST_SETS, false));
        for number in 0..2 * MOST_IMAGES {
            images.ran(number.to_string(), set(&[]), |image| image == "own");
        }
        assert!(images.run("own") && !images.run("a") && images.0.len() <= MOST_IMAGES);
        for number in 0..2 * MOST_IMAGES {
            images.ran(format!("kept-{number}"), set(&[]), |_| true);
        }
        assert_eq!(images.0.len(), MOST_IMAGES);
    }
}
