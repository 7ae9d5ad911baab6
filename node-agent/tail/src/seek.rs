//! Finding a time in a container's log.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use memchr::memchr;

use crate::time::{Clock, Timestamp};

/// In so many bytes a line of any runtime begins, and says when it was written.
const PROBE: usize = 32 * 1024;

/// Where in the first `end` bytes of a plain file the first line begins that was written at `time` or
/// later; `end` if there is none. Exact where times ascend; at most some of the lines of a clock that was
/// set back are missed.
///
/// # Errors
/// The file cannot be read.
pub fn offset_at(file: &File, end: u64, time: Timestamp) -> io::Result<u64> {
    let mut probe = vec![0; PROBE];
    let mut found = end;
    // Lines that begin before `low` are older.
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match line_from(file, middle, &mut probe)? {
            Some((begin, written)) if begin < end && written < time => low = begin + 1,
            line => {
                found = line.map_or(found, |(begin, _)| begin.min(found));
                high = middle;
            }
        }
    }
    Ok(found)
}

/// Where the first line with a time begins at `from` or later, and that time, if that is not far.
fn line_from(file: &File, from: u64, probe: &mut [u8]) -> io::Result<Option<(u64, Timestamp)>> {
    let before = from.saturating_sub(1);
    let length = file.read_at(probe, before)?;
    let bytes = &probe[..length];
    let mut at = 0;
    loop {
        // Of the first byte alone nobody knows whether a line begins there.
        let begins = at > 0 || from == 0;
        if let Some((written, _)) =
            bytes.get(at..).filter(|_| begins).and_then(|text| Clock::default().read(text))
        {
            return Ok(Some((before + at as u64, written)));
        }
        match memchr(b'\n', &bytes[at..]) {
            Some(length) => at += length + 1,
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds: 1_795_269_000 + seconds, nanos: 0 }
    }

    fn file(text: &str) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, text).unwrap();
        (directory, File::open(path).unwrap())
    }

    #[test]
    fn a_file_without_times_or_lines_has_none() {
        for text in ["", "no time\n", "no end"] {
            let (_directory, file) = file(text);
            assert_eq!(offset_at(&file, text.len() as u64, at(0)).unwrap(), text.len() as u64);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn it_is_where_a_search_from_the_beginning_finds_it(
            lines in prop::collection::vec((0_i64..5, prop_oneof![9 => 0_usize..80, 1 => Just(16 * 1024)], any::<bool>()), 1..60),
            time in 0_i64..200, cut in any::<prop::sample::Index>(),
        ) {
            let (mut text, mut second, mut begins) = (String::new(), 0, Vec::new());
            for (later, length, is_malformed) in lines {
                second += later;
                if is_malformed {
                    text += "not of this form\n";
                }
                begins.push((text.len() as u64, second));
                let clock = format!("2026-11-21T13:{:02}:{:02}Z", 50 + second / 60, second % 60);
                text += &format!("{clock} stdout F {}\n", "x".repeat(length));
            }
            let end = begins[cut.index(begins.len())].0;
            let expected = begins.iter().find(|(begin, second)| *begin < end && *second >= time);
            let (_directory, file) = file(&text);
            prop_assert_eq!(offset_at(&file, end, at(time)).unwrap(), expected.map_or(end, |(begin, _)| *begin));
        }
    }
}
