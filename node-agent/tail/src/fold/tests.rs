use proptest::prelude::*;

use super::*;

const FILE: FileId = FileId { head: 1, inode: 2, generation: 0 };

fn error(pattern: u64, number: u64) -> Occurrence {
    let timestamp = Some(Timestamp { seconds: number as i64, nanos: 0 });
    Occurrence { pattern, file: FILE, place: (number * 10, number * 10 + 10), timestamp }
}

/// What a caller makes of a decision: true if the error is sent.
fn is_sent(folds: &mut Folds, error: Occurrence, now: Instant) -> bool {
    match folds.take(error, now) {
        Fate::Sent => true,
        Fate::Counted => false,
        Fate::Begins(folded) => {
            *folded = Some(Box::new(Folded {
                pattern: error.pattern,
                first: (error.file, error.place.0),
                origin: Origin::default(),
                file: error.file,
                previous_instance: false,
                last: error.place,
                level: Level::Error,
                count: 1,
                times: error.timestamp.map(|time| (time, time)),
                sample: format!("ERROR {}", error.pattern),
            }));
            false
        }
    }
}

#[test]
fn of_a_million_equal_errors_one_record_says_how_many() {
    let (mut folds, now) = (Folds::default(), Instant::now());
    let sent = (0..1_000_000).filter(|number| is_sent(&mut folds, error(7, *number), now)).count();
    assert_eq!(sent, FIRST as usize);
    assert!(!folds.tell(1, now, false));
    assert!(folds.tell(1, now + INTERVAL, false));
    let folded = folds.told().unwrap();
    assert_eq!((folded.count, folded.last), (999_995, (9_999_990, 10_000_000)));
    assert_eq!(folded.text(), "999995 more like this within 999994.0 s: ERROR 7");
    assert!(!folds.tell(1, now + INTERVAL, true));
    // The next interval begins with samples again.
    assert!(is_sent(&mut folds, error(7, 1_000_000), now + INTERVAL));
}

#[test]
fn a_count_is_told_until_it_arrives_and_no_error_counts_twice() {
    let (mut folds, now) = (Folds::default(), Instant::now());
    let sent = |folds: &mut Folds, numbers: std::ops::Range<u64>| {
        numbers.filter(|number| is_sent(folds, error(7, *number), now)).count()
    };
    assert_eq!(sent(&mut folds, 0..20), FIRST as usize);
    assert!(folds.tell(3, now, true));
    assert_eq!(folds.in_flight(), 1);
    folds.ack(2);
    folds.rewind();
    assert_eq!(folds.in_flight(), 0);
    assert!(folds.tell(4, now, false));
    assert_eq!(folds.told().unwrap().count, 15);
    folds.ack(4);
    assert!(folds.in_flight() == 0 && !folds.tell(5, now, true));

    // A refusal has all of them read again: samples are sent again, the others were counted.
    sent(&mut folds, 20..40);
    folds.rewind();
    assert_eq!(sent(&mut folds, 20..40), FIRST as usize);
    assert!(folds.tell(5, now, true));
    assert_eq!(folds.told().unwrap().count, 15);
}

#[test]
fn a_count_that_was_told_and_refused_does_not_count_again_what_is_read_again() {
    let (mut folds, now) = (Folds::default(), Instant::now());
    let sent = |folds: &mut Folds, numbers: std::ops::Range<u64>| {
        numbers.filter(|number| is_sent(folds, error(7, *number), now)).count()
    };
    sent(&mut folds, 0..20);
    assert!(folds.tell(3, now, true));
    sent(&mut folds, 20..40);
    folds.rewind();
    // Samples of both are sent again.
    assert_eq!(sent(&mut folds, 0..40), 2 * FIRST as usize);
    let mut counts = Vec::new();
    while folds.tell(4, now, true) {
        counts.extend(folds.told().map(|folded| folded.count));
    }
    assert_eq!(counts, [15, 15]);
}

proptest! {
    /// Every error is sent or counted, whatever their order, and memory is bounded.
    #[test]
    fn nothing_goes_missing(errors in prop::collection::vec((0..2000_u64, 0..20_u64), 0..1000)) {
        let (mut folds, mut now) = (Folds::default(), Instant::now());
        let (mut sent, mut told, mut batch) = (0, 0, 0);
        for (number, (pattern, seconds)) in errors.iter().enumerate() {
            now += Duration::from_secs(seconds / 19);
            // Most are of a few patterns.
            let pattern = if seconds % 2 == 0 { pattern % 7 } else { *pattern };
            sent += u64::from(is_sent(&mut folds, error(pattern, number as u64), now));
            while folds.tell(batch, now, false) {
                told += folds.told().map_or(0, |folded| folded.count);
                batch += 1;
            }
            folds.ack(batch);
            prop_assert!(folds.slots.len() <= PATTERNS);
        }
        while folds.tell(batch, now, true) {
            told += folds.told().map_or(0, |folded| folded.count);
        }
        prop_assert_eq!(sent + told, errors.len() as u64);
    }
}
