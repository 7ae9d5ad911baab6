//! Where reading begins in files that were there before the engine.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use memchr::memchr;

use super::{Engine, Policy, file::Tracked};
use crate::{
    read::{READ, Reader},
    seek::offset_at,
    split::Format,
    time::{Clock, Timestamp},
};

/// In files that are there when the engine starts, and of which it knows no
/// position, lines from before are passed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    /// Before what; times are those of the lines.
    since: Timestamp,
    /// Also in files of which all is wanted.
    in_all: bool,
}

impl Engine {
    /// The same engine, but in containers' files that its first scan finds and
    /// that have no position, it begins `look_back` before `now`, or where the
    /// engine that kept the positions ended: what was written since then is new.
    /// Files of which all is wanted are read from their beginning, unless `in_all`.
    #[must_use]
    pub fn looking_back(mut self, look_back: Duration, in_all: bool, now: SystemTime) -> Self {
        let since = now.checked_sub(look_back).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = self.store.saved().map_or(since, |saved| saved.min(since));
        self.beginning = Some(Beginning { since: since.into(), in_all });
        self
    }

    /// Passes over what lies before the beginning, in files of which is known what is wanted.
    pub(super) fn begin(&mut self) {
        let Some(Beginning { since, in_all }) = self.beginning else { return };
        for series in self.series.values_mut().filter(|series| series.is_wanted()) {
            let passes = series.format == Format::Cri && (in_all || series.policy == Some(Policy::Errors));
            for file in &mut series.files {
                if !std::mem::take(&mut file.is_from_before) || file.id.is_none() || !passes {
                    continue;
                }
                // Where it cannot be found out, all is read.
                let begin = first_since(file, since, &mut self.reader).unwrap_or(0);
                self.stats.bytes_passed += begin;
                file.begin_at(begin);
            }
        }
    }
}

/// Where the first line begins that was written at `since` or later.
fn first_since(file: &Tracked, since: Timestamp, reader: &mut Reader) -> io::Result<u64> {
    // No line is younger than the last change of its file; for a packed one this spares unpacking it.
    if modified(&file.file)? < since {
        return Ok(file.size());
    }
    if !file.packed {
        return offset_at(&file.file, file.size(), since);
    }
    let (mut begin, mut is_new_line, mut clock) = (0, true, Clock::default());
    loop {
        let window = reader.packed(&file.file, begin, READ)?;
        let mut at = 0;
        while at < window.bytes.len() {
            if is_new_line && clock.read(&window.bytes[at..]).is_some_and(|(time, _)| time >= since) {
                return Ok(begin + at as u64);
            }
            let end = memchr(b'\n', &window.bytes[at..]);
            is_new_line = end.is_some();
            at = end.map_or(window.bytes.len(), |length| at + length + 1);
        }
        begin += window.bytes.len() as u64;
        if window.at_end {
            return Ok(begin);
        }
    }
}

fn modified(file: &File) -> io::Result<Timestamp> {
    let metadata = file.metadata()?;
    Ok(Timestamp {
        seconds: metadata.mtime(),
        nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
    })
}
