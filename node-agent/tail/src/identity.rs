//! What makes a file the same file after it was renamed.

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _, str::FromStr};

use memchr::memchr;

/// The most bytes of a file's beginning that count for its identity.
pub const HEAD: usize = 256;

/// A file's identity over renames and restarts: its first line and its inode.
/// Inode numbers come back soon after a file is removed, first lines of
/// different files may be equal; both together do not repeat. A container log's
/// first line holds a time in nanoseconds, so there the head alone is unique,
/// and the same in a compressed copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Hash of the first line, of at most [`HEAD`] bytes of it.
    pub head: u64,
    /// Inode number at the time the file was first seen.
    pub inode: u64,
    /// How often the file was emptied and begun again with the same first line.
    pub generation: u32,
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{}", self.head, self.inode, self.generation)
    }
}

impl FromStr for FileId {
    type Err = InvalidFileId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut hex =
            || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok()).ok_or(InvalidFileId);
        let (head, inode) = (hex()?, hex()?);
        let generation = parts.next().and_then(|part| part.parse().ok()).ok_or(InvalidFileId)?;
        Ok(Self { head, inode, generation })
    }
}

/// Not the text form of a [`FileId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file identity")]
pub struct InvalidFileId;

/// The hash of a file's beginning; `None` until its first line is complete.
/// `over` says that nothing will be added to `beginning`.
pub fn head(beginning: &[u8], over: bool) -> Option<u64> {
    let beginning = &beginning[..beginning.len().min(HEAD)];
    match memchr(b'\n', beginning) {
        Some(end) => Some(hash(&beginning[..=end])),
        None if beginning.len() == HEAD || (over && !beginning.is_empty()) => Some(hash(beginning)),
        None => None,
    }
}

/// [`head`] of an open file.
pub fn head_of(file: &File, over: bool) -> io::Result<Option<u64>> {
    let mut beginning = [0; HEAD];
    let length = file.read_at(&mut beginning, 0)?;
    Ok(head(&beginning[..length], over))
}

/// FNV-1a, 64 bits: the same in every version of this program, as it is stored.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_the_first_line_and_stays_as_the_file_grows() {
        assert_eq!(head(b"", false), None);
        assert_eq!(head(b"no end yet", false), None);
        let first = head(b"first\n", false);
        assert!(first.is_some());
        assert_eq!(head(b"first\nsecond\n", false), first);
        assert_ne!(head(b"first", true), None);
        let long = [b'x'; HEAD + 1];
        assert_eq!(head(&long[..HEAD], false), head(&long, false));
    }

    #[test]
    fn names_are_read_back() {
        let id = FileId { head: 7, inode: 0x00AB_CDEF, generation: 1 };
        assert_eq!(id.to_string(), "0000000000000007-abcdef-1");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("7-x-1".parse::<FileId>().is_err());
    }
}
