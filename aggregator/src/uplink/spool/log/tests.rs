use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::Ordering,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{record::HEAD_BYTES, *};

/// More than a test writes, in files of 1 MiB.
const NO_LIMIT: u64 = 1 << 28;

fn room(budget: u64) -> Arc<Room> {
    Arc::new(Room { used: Default::default(), budget })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn open(folder: &TempDir, budget: u64) -> Log {
    Log::open(folder.path().join("lane"), room(budget)).unwrap()
}

fn append(log: &mut Log, number: Number, payload: &[u8]) {
    log.append(number, at(number as i64), [&payload[..1], &payload[1..]]).unwrap();
}

/// Number and payload of all that was not read.
fn rest(log: &mut Log) -> Vec<(Number, Vec<u8>)> {
    std::iter::from_fn(|| log.next()).map(|record| (record.number, record.payload.to_vec())).collect()
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder.path().join("lane")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_not_removed_is_there_after_a_restart_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    for number in 1..=4 {
        append(&mut log, number, b"payload");
    }
    let (first, second) = (log.next().unwrap(), log.next().unwrap());
    assert_eq!((first.number, first.time, &first.payload[..]), (1, at(1), &b"payload"[..]));
    log.remove(second.place);
    assert_eq!((log.peek(), log.unread()), (Some((3, at(3))), (2, 14)));
    drop(log);
    let mut log = open(&folder, NO_LIMIT);
    assert_eq!((log.last(), log.unread()), (Some(4), (3, 21)));
    append(&mut log, 5, b"later");
    let numbers: Vec<_> = rest(&mut log).into_iter().map(|(number, _)| number).collect();
    assert_eq!((numbers, log.corrupt()), (vec![1, 3, 4, 5], 0));
}

#[test]
fn the_last_removal_gives_the_space_back_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    let large = vec![7; 600 * 1024];
    for number in 0..4 {
        append(&mut log, number, &large);
    }
    assert_eq!(files(&folder).len(), 2);
    let places: Vec<_> = std::iter::from_fn(|| log.next()).map(|record| record.place).collect();
    for place in &places[1..3] {
        log.remove(*place);
    }
    assert_eq!(files(&folder).len(), 2);
    assert_eq!(log.read(places[0]).unwrap(), large);
    log.remove(places[0]);
    assert_eq!(files(&folder).len(), 1);
    log.remove(places[3]);
    assert_eq!((files(&folder).len(), log.bytes(), log.room.used.load(Ordering::Acquire)), (0, 0, 0));
    append(&mut log, 4, b"next");
    assert_eq!(rest(&mut log), [(4, b"next".to_vec())]);
}

#[test]
fn only_its_owner_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    append(&mut log, 0, b"private");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.path().join("lane")), mode(&files(&folder)[0])), (0o700, 0o600));
}

#[test]
fn a_full_spool_refuses_and_an_eviction_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, 3 * (HEAD_BYTES as u64 + 100));
    for number in 0..3 {
        append(&mut log, number, &[1; 100]);
    }
    assert!(matches!(log.append(3, at(3), [b"", b"x"]), Err(Refused::Full)));
    let read = log.next().unwrap();
    let evicted = log.evict().unwrap();
    assert_eq!((evicted.records, evicted.last, evicted.had(read.place)), (3, 2, true));
    assert_eq!((log.read(read.place), log.peek()), (None, None));
    append(&mut log, 3, b"y");
    assert_eq!(log.expire(at(3)), None, "it is young enough");
    assert_eq!(log.expire(at(4)).unwrap().records, 1);
}

#[test]
fn what_another_told_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    for number in 0..4 {
        append(&mut log, number, b"signal");
    }
    let taken = log.next().unwrap();
    log.forget(Timestamp::MIN, at(3));
    assert_eq!(rest(&mut log).len(), 1);
    log.remove(taken.place);
    drop(log);
    assert_eq!(rest(&mut open(&folder, NO_LIMIT)), [(3, b"signal".to_vec())]);
}

#[test]
fn what_came_before_another_watched_is_kept_and_comes_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    for number in 0..6 {
        append(&mut log, number, b"signal");
    }
    log.forget(at(2), at(4));
    append(&mut log, 6, b"signal");
    assert_eq!(log.unread(), (5, 30));
    drop(log);
    let mut log = open(&folder, NO_LIMIT);
    assert_eq!(rest(&mut log).into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1, 4, 5, 6]);
    log.forget(Timestamp::MIN, at(9));
    assert_eq!((log.live(), log.corrupt()), (5, 0), "they were taken");
}

#[test]
fn a_file_that_can_not_be_read_for_a_moment_is_there_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    for number in 0..3 {
        append(&mut log, number, b"signal");
    }
    drop(log);
    let (file, aside) = (files(&folder).remove(0), folder.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let mut log = open(&folder, NO_LIMIT);
    assert_eq!((log.live(), log.corrupt()), (0, 0));
    let next = log.last().unwrap() + 1;
    append(&mut log, next, b"later");
    drop(log);
    fs::rename(&aside, &file).unwrap();
    let numbers: Vec<_> = rest(&mut open(&folder, NO_LIMIT)).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 1, 2, next]);
}

#[test]
fn a_damaged_record_costs_itself_and_a_damaged_head_the_rest_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    for number in 0..4 {
        append(&mut log, number, b"payload");
    }
    let record = HEAD_BYTES as u64 + 7;
    let damage = |offset| {
        let file = OpenOptions::new().write(true).open(&files(&folder)[0]).unwrap();
        file.write_all_at(b"?", offset).unwrap();
    };
    damage(record + HEAD_BYTES as u64 + 1);
    // Found by whoever reads it, or by the next process.
    assert_eq!(rest(&mut log).len(), 3);
    assert_eq!(log.corrupt(), 1);
    damage(2 * record + HEAD_BYTES as u64 + 1);
    damage(3 * record + 3);
    let mut log = open(&folder, NO_LIMIT);
    assert_eq!(rest(&mut log), [(0, b"payload".to_vec())]);
    assert_eq!(log.corrupt(), 2);
}

#[test]
fn a_disk_that_fails_is_left_alone_for_a_while_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder, NO_LIMIT);
    let lane = folder.path().join("lane");
    fs::remove_dir(&lane).unwrap();
    assert!(matches!(log.append(0, at(0), [b"", b"x"]), Err(Refused::Failed(_))));
    assert!(matches!(log.append(0, at(10), [b"", b"x"]), Err(Refused::Paused)), "it is said once");
    fs::create_dir(&lane).unwrap();
    assert!(matches!(log.append(0, at(19), [b"", b"x"]), Err(Refused::Paused)));
    log.append(0, at(20), [b"", b"x"]).unwrap();
    assert_eq!(rest(&mut log).len(), 1);
    assert_eq!(log.room.used.load(Ordering::Acquire), log.bytes());
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Read,
    Remove(usize),
    Evict,
    Forget(usize, usize),
    Reopen,
    /// The process dies, and this much of the newest file's last record is there.
    Kill(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![9 => 1_usize..200, 1 => 300_000_usize..700_000].prop_map(Step::Append),
        4 => Just(Step::Read),
        4 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Evict),
        1 => (0_usize..60, 0_usize..60).prop_map(|(since, before)| Step::Forget(since, before)),
        1 => Just(Step::Reopen),
        2 => any::<usize>().prop_map(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens, and at whatever byte the process dies: what was appended
    /// is read in its order until it is removed, evicted or was cut, and the bytes
    /// that count are those of the files.
    #[test]
    fn it_is_like_a_list(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(&folder, NO_LIMIT);
        let mut next = 0;
        // What is there, and what of it was read.
        let (mut there, mut read) = (BTreeMap::<Number, usize>::new(), BTreeMap::<Number, Place>::new());
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    append(&mut log, next, &vec![next as u8; bytes]);
                    there.insert(next, bytes);
                    next += 1;
                }
                Step::Read => {
                    let expected = there.keys().find(|number| !read.contains_key(number)).copied();
                    prop_assert_eq!(log.peek().map(|(number, _)| number), expected);
                    if let Some(record) = log.next() {
                        prop_assert_eq!(Some(record.number), expected);
                        prop_assert!(record.payload == vec![record.number as u8; there[&record.number]]);
                        read.insert(record.number, record.place);
                    }
                }
                Step::Remove(which) if !read.is_empty() => {
                    let number = *read.keys().nth(which % read.len()).unwrap();
                    let place = read.remove(&number).unwrap();
                    prop_assert!(log.read(place).is_some());
                    log.remove(place);
                    there.remove(&number);
                }
                Step::Remove(_) => {}
                Step::Evict => {
                    let before = there.len() as u64;
                    if let Some(evicted) = log.evict() {
                        there.retain(|number, _| *number > evicted.last);
                        read.retain(|_, place| !evicted.had(*place));
                        prop_assert_eq!(before, there.len() as u64 + evicted.records);
                    } else {
                        prop_assert!(there.is_empty());
                    }
                }
                Step::Forget(since, before) => {
                    log.forget(at(since as i64), at(before as i64));
                    let told = since as Number..before as Number;
                    there.retain(|number, _| read.contains_key(number) || !told.contains(number));
                }
                Step::Reopen => {
                    drop(log);
                    log = open(&folder, NO_LIMIT);
                    read.clear();
                }
                Step::Kill(cut) => {
                    // As if the last write had not come to its end.
                    drop(log);
                    let last = there.last_key_value().map(|(number, bytes)| (*number, *bytes));
                    if let (Some(file), Some((number, bytes))) = (files(&folder).last(), last) {
                        let file = OpenOptions::new().write(true).open(file).unwrap();
                        let length = file.metadata().unwrap().len();
                        let record = (HEAD_BYTES + bytes) as u64;
                        // The newest file may end with records that were removed.
                        let cut = 1 + cut as u64 % record;
                        file.set_len(length - cut).unwrap();
                        let gone: BTreeSet<_> = lost(&folder, &there);
                        prop_assert!(gone.iter().all(|gone| *gone == number), "more than the last");
                        gone.iter().for_each(|number| { there.remove(number); });
                    }
                    log = open(&folder, NO_LIMIT);
                    read.clear();
                }
            }
            let (records, bytes) = log.unread();
            let unread = there.iter().filter(|(number, _)| !read.contains_key(number));
            let expected = unread.fold((0, 0), |(records, bytes), (_, more)| (records + 1, bytes + *more as u64));
            prop_assert_eq!((records, bytes), expected);
            let on_disk: u64 = files(&folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            prop_assert_eq!((log.bytes(), log.room.used.load(Ordering::Acquire)), (on_disk, on_disk));
            prop_assert_eq!(log.corrupt(), 0);
        }
    }
}

/// What is not in the files any more, by reading them from the start.
fn lost(folder: &TempDir, there: &BTreeMap<Number, usize>) -> BTreeSet<Number> {
    let mut gone: BTreeSet<_> = there.keys().copied().collect();
    for path in files(folder) {
        let content = fs::read(path).unwrap();
        let mut offset = 0;
        while let Some(head) = content.get(offset..).and_then(record::head) {
            offset += head.record_bytes() as usize;
            if offset <= content.len() {
                gone.remove(&head.number);
            }
        }
    }
    gone
}
