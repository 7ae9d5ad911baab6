//! Lines that a rotation split.
//!
//! A runtime that is told to write to another file ends the old one in the middle of a line, wherever its buffer ended: with a
//! piece that more is said to follow. The new file begins with what follows.

use super::{Format, Unfinished, line::Lines};

/// What ends the lines that have begun in the file before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// So many bytes of the next file hold it, as far as it was found.
    pub bytes: usize,
    /// More of that file may hold more of it.
    pub is_awaited: bool,
}

/// What `next`, the beginning of the file that comes next, has of the lines that have begun in `last`, the end of a
/// container's log.
pub fn rest(last: &[u8], next: &[u8]) -> Rest {
    if !last.ends_with(b"\n") {
        // Not even its last piece is whole, and never will be.
        return Rest::default();
    }
    let mut missing = [false; 2];
    let (mut lines, mut at) = (Lines::new(Format::Cri, last, Unfinished::Wait), 0);
    while let Some(line) = lines.at(at) {
        // It ends the lines of both.
        missing = if line.malformed { [false; 2] } else { missing };
        missing[line.stream as usize] = !line.last;
        at = line.next;
    }
    let (mut lines, mut at, mut bytes) = (Lines::new(Format::Cri, next, Unfinished::Wait), 0, 0);
    while missing != [false; 2] {
        let Some(line) = lines.at(at) else { return Rest { bytes, is_awaited: true } };
        if line.malformed {
            break;
        }
        at = line.next;
        let was_missing = std::mem::replace(&mut missing[line.stream as usize], !line.last);
        if was_missing && line.last {
            bytes = at;
        }
    }
    Rest { bytes, is_awaited: false }
}
