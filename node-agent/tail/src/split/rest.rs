//! Lines that a rotation split.
//!
//! A runtime that is told to write to another file ends the old one in the middle of a line, wherever its buffer ended: with a
//! piece that more is said to follow. The new file begins with what follows.

use super::{
    Format, Unfinished,
    line::{Line, Lines},
};

/// How many bytes of `next`, the beginning of the file that comes next, end the lines that have begun in `last`, the end of a
/// container's log; 0 if nothing of it does. `None` if more of it has to be seen.
pub fn rest(last: &[u8], next: &[u8]) -> Option<usize> {
    let mut missing = [false; 2];
    let mut pass = |line: &Line<'_>| {
        missing[line.stream as usize] = !line.last;
        missing != [false; 2]
    };
    let mut is_open = false;
    let mut lines = Lines::new(Format::Cri, last, Unfinished::Wait);
    let mut at = 0;
    while let Some(line) = lines.at(at) {
        is_open = pass(&line);
        at = line.next;
    }
    let mut lines = Lines::new(Format::Cri, next, Unfinished::Wait);
    at = 0;
    while is_open {
        let line = lines.at(at)?;
        if line.malformed {
            return Some(0);
        }
        is_open = pass(&line);
        at = line.next;
    }
    Some(at)
}
