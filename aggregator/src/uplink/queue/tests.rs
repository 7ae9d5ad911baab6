use std::time::Duration;

use kestrel_proto::cloud::v1::PodLogs;
use proptest::prelude::*;

use super::*;
use crate::uplink::{
    receipt::{Outcome, Source},
    spool::Spool,
};

/// A message of `bytes` bytes; two of them are its head.
fn message(bytes: usize) -> Message {
    let message = PodLogs { pod_name: "x".repeat(bytes - 2), ..Default::default() };
    Message::of_logs(message).remove(0)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn what_was_sent_goes_before_what_was_not() {
    let mut queue = Queue::new(10, None);
    for _ in 0..2 {
        queue.push(message(5), at(0));
    }
    assert_eq!(queue.drops(), Drops::new());
    let (first, _) = queue.take().unwrap();
    for reason in [DropReason::NotKept, DropReason::LaneFull] {
        queue.push(message(5), at(0));
        assert_eq!(queue.drops(), Drops::from([(reason, 1)]));
    }
    queue.again(first);
    assert_eq!(queue.take().unwrap().0, 2);
}

#[test]
fn of_a_message_with_a_receipt_only_that_is_kept() {
    let (source, mut outcomes) = Source::new();
    let mut queue = Queue::new(10, None);
    for id in 0..2 {
        queue.push_with(message(5), source.receipt(id, 0), at(0));
    }
    assert!(!queue.has_room(1));
    let taken = [queue.take().unwrap().0, queue.take().unwrap().0];
    assert_eq!((queue.bytes(), queue.has_room(10)), (0, true));
    queue.left(taken[1]);
    assert_eq!(outcomes.try_recv().unwrap(), (1, Outcome::Left));
    queue.again(taken[0]);
    assert!(matches!(outcomes.try_recv().unwrap(), (0, Outcome::Lost(_))));
    assert_eq!(queue.take(), None);
}

#[test]
fn what_a_sidecar_that_is_gone_sent_last_is_counted_and_the_rest_of_it_is_sent() {
    let (source, outcomes) = Source::of_a_sidecar();
    let mut queue = Queue::new(10, None);
    for id in 0..2 {
        queue.push_with(message(5), source.receipt(id, 0), at(0));
    }
    let (sent, _) = queue.take().unwrap();
    drop(outcomes);
    queue.again(sent);
    assert_eq!(queue.drops(), Drops::from([(DropReason::SenderGone, 1)]));
    assert!(queue.take().is_some(), "nobody would send it again");
}

#[test]
fn the_oldest_counts_until_it_left_and_the_told_are_forgotten() {
    let mut queue = Queue::new(100, None);
    for second in 1..=4 {
        queue.push(message(5), at(second));
    }
    let (first, _) = queue.take().unwrap();
    assert_eq!((queue.oldest(), queue.depth().oldest), (Some(at(1)), Some(at(2))));
    queue.left(first);
    queue.forget(Timestamp::MIN, at(4));
    assert_eq!(queue.oldest(), Some(at(4)));
    assert_eq!(queue.depth(), Depth { messages: 1, bytes: 5, oldest: Some(at(4)) });
    queue.replace(message(7), at(5));
    assert_eq!((queue.depth().bytes, queue.bytes()), (7, 7));
}

#[test]
fn what_a_held_queue_could_not_keep_is_lost_when_nobody_else_told_it() {
    for (told, lost) in [(at(1), 2), (at(2), 2), (at(3), 0)] {
        let mut queue = Queue::new(10, None).held();
        for second in 1..=4 {
            queue.push(message(5), at(second));
        }
        queue.forget(Timestamp::MIN, told);
        assert_eq!((queue.take(), queue.drops()), (None, Drops::new()));
        queue.release();
        assert_eq!(queue.drops().values().sum::<u64>(), lost);
        assert_eq!(queue.take().unwrap().0, 2);
    }
}

/// A queue with a disk, on which are messages of the first ten seconds, one each.
fn on_disk(folder: &tempfile::TempDir) -> Queue {
    let spool = Spool { folder: folder.path().to_owned(), bytes: 1 << 20, age: Duration::MAX };
    let mut queue = Queue::new(10, Some(spool.open("lane", &spool.room()).unwrap()));
    for second in 0..10 {
        queue.spool(&message(5), at(second)).unwrap();
    }
    queue
}

#[test]
fn a_lost_load_goes_in_steps_and_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (mut queue, (source, mut outcomes)) = (on_disk(&folder), Source::new());
    for id in 0..100 {
        queue.spool(&message(5), at(0)).unwrap();
        queue.attach(source.receipt(id, 0));
    }
    for _ in 0..10 {
        queue.take().unwrap();
    }
    source.receipt(100, 0).lost("gone");
    // Reading would find out.
    let file = std::fs::read_dir(folder.path().join("lane")).unwrap().next().unwrap().unwrap().path();
    let content = std::fs::read(&file).unwrap();
    std::fs::write(
        file,
        content.iter().map(|byte| if *byte == b'x' { b'y' } else { *byte }).collect::<Vec<_>>(),
    )
    .unwrap();
    assert_eq!((queue.take(), queue.is_due(), queue.depth().messages), (None, true, 100 - MOST_TRIES as u64));
    assert_eq!((queue.take(), queue.is_due(), queue.depth().messages), (None, false, 0));
    assert_eq!((queue.receipts(), queue.drops()), (0, Drops::new()));
    assert_eq!(std::iter::from_fn(|| outcomes.try_recv().ok()).count(), 101);
}

#[test]
fn what_agents_hold_or_was_sent_is_not_dropped_with_its_file() {
    type Drop = fn(&mut Queue);
    let evict: Drop = |queue| assert!(queue.evict());
    let expire: Drop = |queue| queue.expire(at(100));
    for (drop, why, reason) in [
        (evict, "more urgent messages took its place on disk", DropReason::SpoolFull),
        (expire, "it waited on disk for too long", DropReason::TooOld),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, (source, mut outcomes)) = (on_disk(&folder), Source::new());
        for id in 0..4 {
            queue.spool(&message(5), at(10)).unwrap();
            queue.attach(source.receipt(id, 0));
        }
        // Of the ten without a receipt, two were sent; of those with one, two.
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).take(12).map(|(number, _)| number).collect();
        taken[2..11].iter().for_each(|number| queue.again(*number));
        drop(&mut queue);
        assert_eq!(queue.drops(), Drops::from([(DropReason::NotKept, 2), (reason, 8)]));
        queue.left(taken[11]);
        let outcomes: BTreeMap<_, _> = std::iter::from_fn(|| outcomes.try_recv().ok()).collect();
        let lost = Outcome::Lost(why);
        assert_eq!(outcomes, BTreeMap::from([(0, lost), (1, Outcome::Left), (2, lost), (3, lost)]));
        assert_eq!((queue.take(), queue.bytes()), (None, 0));
    }
}

#[test]
fn what_is_due_again_from_the_disk_is_older_than_what_is_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = on_disk(&folder);
    assert!(!queue.oldest_is_in_memory());
    let taken: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(number, _)| number).collect();
    queue.push(message(5), at(10));
    assert!(queue.oldest_is_in_memory());
    queue.again(taken[9]);
    assert!(!queue.oldest_is_in_memory());
}

#[test]
fn what_came_before_another_watched_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = on_disk(&folder);
    let taken = [queue.take().unwrap().0, queue.take().unwrap().0];
    taken.iter().for_each(|number| queue.again(*number));
    queue.push(message(5), at(10));
    queue.push(message(5), at(11));
    queue.forget(at(1), at(2));
    queue.forget(at(4), at(11));
    let times: Vec<_> = std::iter::from_fn(|| {
        let oldest = queue.depth().oldest;
        queue.take().and(oldest)
    })
    .collect();
    assert_eq!(times, [0, 2, 3, 11].map(at));
}

#[test]
fn what_could_not_be_kept_before_another_watched_is_lost() {
    for (since, lost) in [(1, 0), (2, 2)] {
        let mut queue = Queue::new(10, None).held();
        for second in 1..=4 {
            queue.push(message(5), at(second));
        }
        queue.forget(at(since), at(3));
        queue.release();
        assert_eq!(queue.drops().values().sum::<u64>(), lost);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Take,
    Left(usize),
    Again(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every message is due, taken, left or counted as evicted; the order of
    /// arrival is kept, and no budget is ever exceeded; with a disk and without.
    #[test]
    fn nothing_is_lost_without_being_counted(has_disk: bool, steps in prop::collection::vec(
        prop_oneof![
            (3_usize..40).prop_map(Step::Push),
            Just(Step::Take),
            any::<usize>().prop_map(Step::Left),
            any::<usize>().prop_map(Step::Again),
        ],
        0..200,
    )) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool { folder: folder.path().to_owned(), bytes: 1000, age: Duration::MAX };
        let disk = has_disk.then(|| spool.open("lane", &spool.room()).unwrap());
        let mut queue = Queue::new(100, disk);
        let (mut pushed, mut left, mut dropped) = (0_u64, 0_u64, 0_u64);
        let mut out: Vec<Number> = Vec::new();
        for step in steps {
            match step {
                Step::Push(bytes) => {
                    let message = message(bytes);
                    let is_there = !queue.has_room(bytes) && loop {
                        match queue.spool(&message, at(0)) {
                            Ok(()) => break true,
                            Err(Refused::Full) if !queue.oldest_is_in_memory() && queue.evict() => {}
                            Err(_) => break false,
                        }
                    };
                    if !is_there {
                        queue.push(message, at(0));
                    }
                    pushed += 1;
                    dropped += queue.drops().values().sum::<u64>();
                }
                Step::Take => {
                    if let Some((number, _)) = queue.take() {
                        prop_assert!(queue.due.first().is_none_or(|(later, _)| later > number));
                        out.push(number);
                    }
                }
                Step::Left(which) if !out.is_empty() => {
                    let number = out.swap_remove(which % out.len());
                    let before = queue.taken.len();
                    queue.left(number);
                    left += (before - queue.taken.len()) as u64;
                }
                Step::Again(which) if !out.is_empty() => {
                    queue.again(out.swap_remove(which % out.len()));
                }
                Step::Left(_) | Step::Again(_) => {}
            }
            prop_assert!(queue.due.is_whole() && queue.taken.is_whole());
            prop_assert!(queue.bytes() <= 100);
            prop_assert!(queue.disk().map_or(0, Log::bytes) <= 1000);
            let here = queue.depth().messages + queue.taken.len() as u64;
            prop_assert_eq!(pushed, here + left + dropped);
        }
    }
}
