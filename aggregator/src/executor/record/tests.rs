use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { entries: 5, bytes: 100, age: Duration::from_secs(600) };

fn key(id: u8) -> Key {
    Key { kind: 4, id: id.to_string(), policy: None }
}

#[test]
fn a_repeat_is_not_run_and_is_answered_where_it_came_last() {
    let (mut record, now) = (Record::new(LIMITS), Instant::now());
    assert_eq!(record.came(&key(1), Over::Control, false, now), Verdict::Run);
    assert_eq!(record.came(&key(1), Over::Data, false, now), Verdict::Runs);
    assert_eq!(record.asker(&key(1)), Some(Over::Data));
    assert_eq!(record.answered(key(1), "yes", 3, now), Some(Over::Data));
    assert_eq!(record.asker(&key(1)), None);
    let almost = now + LIMITS.age - Duration::from_secs(1);
    assert_eq!(record.came(&key(1), Over::Control, false, almost), Verdict::Answered("yes"));
    assert_eq!(record.came(&key(1), Over::Control, false, now + LIMITS.age), Verdict::Run);
    assert_eq!(record.abandoned(&key(1)), Some(Over::Control));
    assert_eq!(record.came(&key(1), Over::Control, false, now + LIMITS.age), Verdict::Run);
}

#[test]
fn what_lost_its_answer_runs_again_only_if_it_changes_nothing() {
    let (mut record, now) = (Record::new(LIMITS), Instant::now());
    for id in [1, 2, 3] {
        record.came(&key(id), Over::Control, false, now);
        record.answered(key(id), id, 50, now);
    }
    assert_eq!(record.came(&key(1), Over::Control, false, now), Verdict::Forgotten);
    assert_eq!(record.came(&key(1), Over::Control, true, now), Verdict::Run);
    assert_eq!(record.came(&key(2), Over::Control, false, now), Verdict::Answered(2));
    record.answered(key(1), 1, 101, now);
    assert_eq!(record.came(&key(1), Over::Control, false, now), Verdict::Forgotten, "larger than all");
}

#[test]
fn what_is_outdated_is_run_again_and_takes_no_room() {
    let (mut record, now) = (Record::new(LIMITS), Instant::now());
    for id in [1, 2] {
        record.came(&key(id), Over::Control, true, now);
        record.answered(key(id), id, 50, now);
    }
    record.outdated(&key(1));
    assert_eq!(record.came(&key(1), Over::Control, true, now), Verdict::Run);
    record.outdated(&key(1));
    assert_eq!(record.came(&key(1), Over::Control, true, now), Verdict::Runs, "what runs is not outdated");
    record.answered(key(1), 1, 50, now);
    assert_eq!(record.came(&key(2), Over::Control, true, now), Verdict::Answered(2), "there was room for it");
}

#[test]
fn a_request_without_a_usable_id_is_never_merged() {
    let request = |request_id| {
        let request = kestrel_proto::cloud::v1::YamlApplyRequest { request_id, ..Default::default() };
        Key::of(&Request::YamlApply(request))
    };
    assert_eq!(request(String::new()), None);
    assert_eq!(request("x".repeat(ID_BYTES + 1)), None);
    assert_eq!(request("x".to_owned()), Some(Key { kind: 4, id: "x".to_owned(), policy: None }));
}

#[derive(Clone, Debug)]
enum Step {
    Came(u8, bool),
    Done(usize),
    Abandoned(usize),
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..12, any::<bool>()).prop_map(|(id, is_read)| Step::Came(id, is_read)),
        3 => (0_usize..120).prop_map(Step::Done),
        1 => (0_usize..4).prop_map(Step::Abandoned),
        1 => (0_u64..400).prop_map(Step::Later),
    ]
}

proptest! {
    /// Whatever comes: nothing runs twice at once, nothing that changes
    /// something runs twice while it is known, and the bounds hold.
    #[test]
    fn nothing_runs_twice_and_the_bounds_hold(steps in prop::collection::vec(step(), 0..200)) {
        let (mut record, mut now) = (Record::new(LIMITS), Instant::now());
        let mut running: VecDeque<u8> = VecDeque::new();
        // When each was answered last, as the how-manieth, and whether it is free to run.
        let mut last: BTreeMap<u8, (Instant, usize, bool)> = BTreeMap::new();
        let mut sequence = 0_usize;
        for step in steps {
            match step {
                Step::Came(id, is_read) => match record.came(&key(id), Over::Data, is_read, now) {
                    Verdict::Run => {
                        prop_assert!(!running.contains(&id));
                        if let Some((then, order, free)) = last.get(&id) {
                            let newer = last.values().filter(|(_, other, _)| other > order).count();
                            prop_assert!(
                                is_read || *free || now - *then >= LIMITS.age || newer >= LIMITS.entries,
                                "{id} ran again"
                            );
                        }
                        running.push_back(id);
                    }
                    Verdict::Runs => prop_assert!(running.contains(&id)),
                    Verdict::Answered((of, order)) => {
                        prop_assert_eq!((of, order), (id, last[&id].1));
                    }
                    Verdict::Forgotten => prop_assert!(!is_read && last.contains_key(&id)),
                },
                Step::Done(bytes) => if let Some(id) = running.pop_front() {
                    sequence += 1;
                    last.insert(id, (now, sequence, false));
                    record.answered(key(id), (id, sequence), bytes, now);
                },
                Step::Abandoned(place) => if let Some(id) = running.remove(place) {
                    last.entry(id).and_modify(|(_, _, free)| *free = true);
                    record.abandoned(&key(id));
                },
                Step::Later(seconds) => now += Duration::from_secs(seconds),
            }
            let kept: usize = record.requests.values().map(|state| match state {
                State::Answered(_, bytes) => *bytes,
                _ => 0,
            }).sum();
            prop_assert_eq!(kept, record.bytes);
            prop_assert!(kept <= LIMITS.bytes);
            prop_assert!(record.answered.len() <= LIMITS.entries);
            prop_assert_eq!(record.requests.len(), record.answered.len() + running.len());
        }
    }
}
