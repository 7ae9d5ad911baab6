//! Which errors of a file are counted instead of sent.

use std::time::Instant;

use crate::{
    class::class,
    discover::Origin,
    fingerprint::fingerprint,
    fold::{Fate, Folded, Folds, Occurrence},
    identity::FileId,
    redact::Redactor,
    severity::Level,
    split::Raw,
    text::{clean, whole_characters},
};

/// Bytes of an error that are kept as a sample.
const SAMPLE: usize = 2048;

/// What is the same for all errors of a turn.
pub(super) struct Folding<'a> {
    pub(super) folds: &'a mut Folds,
    pub(super) origin: &'a Origin,
    pub(super) series: u64,
    pub(super) file: FileId,
    pub(super) previous_instance: bool,
    pub(super) now: Instant,
}

impl Folding<'_> {
    /// Whether an error is one of too many like it; if so, it was counted. `from`: where the
    /// window begins in the file.
    pub(super) fn takes(&mut self, raw: &Raw<'_>, level: Level, from: u64, redactor: &mut Redactor) -> bool {
        let error = Occurrence {
            pattern: pattern(raw) ^ self.series.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            file: self.file,
            place: (from + raw.begin as u64, from + raw.end as u64),
            timestamp: raw.timestamp,
        };
        match self.folds.take(error, self.now) {
            Fate::Sent => false,
            Fate::Counted => true,
            Fate::Begins(folded) => {
                let text = clean(raw.content);
                let text = redactor.redact(&text).unwrap_or(&text);
                let sample = whole_characters(text.as_bytes(), SAMPLE);
                *folded = Some(Box::new(Folded {
                    pattern: error.pattern,
                    first: (error.file, error.place.0),
                    origin: self.origin.clone(),
                    file: self.file,
                    previous_instance: self.previous_instance,
                    last: error.place,
                    level,
                    count: 1,
                    times: raw.timestamp.map(|time| (time, time)),
                    sample: String::from_utf8_lossy(sample).into_owned(),
                }));
                true
            }
        }
    }
}

/// The pattern of the first line; of a stack trace also that of the next, and its exception.
fn pattern(raw: &Raw<'_>) -> u64 {
    if raw.lines == 1 {
        return fingerprint(raw.content);
    }
    let mut lines = raw.content.split(|byte| *byte == b'\n').map(fingerprint);
    let (first, second) = (lines.next().unwrap_or(0), lines.next().unwrap_or(0));
    let text = clean(raw.content);
    let class = class(&text).map_or(0, |class| fingerprint(class.as_bytes()));
    first ^ second.rotate_left(21) ^ class.rotate_left(42)
}
