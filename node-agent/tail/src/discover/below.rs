//! Directories as keys.

use std::{
    cmp::Ordering,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The path of a directory below a source. The order is that of paths, in which what is below a
/// directory comes right after it, but compared byte by byte: by parts it takes many times as long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Below(Arc<Path>);

impl From<PathBuf> for Below {
    fn from(path: PathBuf) -> Self {
        Self(path.into())
    }
}

impl Deref for Below {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Ord for Below {
    fn cmp(&self, other: &Self) -> Ordering {
        let [one, two] = [self, other].map(|path| path.as_os_str().as_encoded_bytes());
        // No name holds a zero: as one, a slash comes before all other bytes.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        match one.iter().zip(two).find(|(one, two)| one != two) {
            Some((one, two)) => rank(*one).cmp(&rank(*two)),
            None => one.len().cmp(&two.len()),
        }
    }
}

impl PartialOrd for Below {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_paths(
            one in "([ab!-]{1,2}(/[ab!-]{1,2}){0,2})?", two in "([ab!-]{1,2}(/[ab!-]{1,2}){0,2})?",
        ) {
            let (one, two) = (PathBuf::from(one), PathBuf::from(two));
            let expected = one.cmp(&two);
            prop_assert_eq!(Below::from(one).cmp(&Below::from(two)), expected);
        }
    }
}
