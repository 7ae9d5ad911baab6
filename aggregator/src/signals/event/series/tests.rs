use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The Event `uid` about the object `about`.
fn event(uid: &str, about: &str, first: i64, last: i64, count: u32) -> Occurrence {
    let told = KubernetesEvent { uid: uid.to_owned(), message: uid.to_owned(), ..Default::default() };
    Occurrence { uid: uid.into(), key: about.into(), first: second(first), last: second(last), count, told }
}

/// Not told by another signal.
fn no(_: &Occurrence) -> bool {
    false
}

/// Action, UID, text and count.
fn short(events: &[KubernetesEvent]) -> Vec<(Action, &str, &str, i32)> {
    events.iter().map(|it| (it.action(), it.uid.as_str(), it.message.as_str(), it.count)).collect()
}

#[test]
fn events_about_one_thing_are_told_as_one() {
    let mut series = Series::new(second(0));
    let mut told = Vec::new();
    for (at, event) in [
        (10, event("a", "pod", 10, 10, 1)),
        (11, event("a", "pod", 10, 11, 2)),
        (11, event("a", "pod", 10, 11, 2)),
        (12, event("b", "pod", 9, 12, 5)),
        (12, event("a", "pod", 10, 10, 1)),
        (13, event("c", "node", 13, 13, 1)),
    ] {
        told.extend(series.seen(event, no, second(at)));
    }
    assert_eq!(
        short(&told),
        [
            (Action::Create, "a", "a", 1),
            (Action::Update, "a", "a", 2),
            (Action::Update, "a", "b", 7),
            (Action::Create, "c", "c", 1),
        ]
    );
    assert_eq!((told[2].first_timestamp.unwrap().seconds, told[2].last_timestamp.unwrap().seconds), (9, 12));
    assert_eq!((series.gone("a"), series.gone("x")), (None, None));
    assert_eq!(
        short(&series.seen(event("d", "pod", 14, 14, 1), no, second(14))),
        [(Action::Update, "a", "d", 8)]
    );
    series.gone("b");
    series.gone("d");
    assert_eq!(
        short(&series.seen(event("e", "pod", 9000, 9000, 1), no, second(9000))),
        [(Action::Create, "e", "e", 1)]
    );
}

#[test]
fn what_goes_on_and_on_is_told_now_and_then_and_nothing_of_it_is_lost() {
    let mut series = Series::new(second(0));
    let mut told = Vec::new();
    for count in 1..100 {
        let at = 100 + i64::from(count);
        told.extend(series.seen(event("a", "pod", 101, at, count), no, second(at)));
        told.extend(series.tick(second(at)));
    }
    let counts: Vec<_> = told.iter().map(|event| event.count).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5, 31, 61, 91]);
    assert_eq!(series.tick(second(220)), []);
    assert_eq!(short(&series.tick(second(221))), [(Action::Update, "a", "a", 99)]);
    assert_eq!(series.tick(second(500)), []);
}

#[test]
fn what_waits_is_told_when_its_event_goes_or_the_clock_is_set_back() {
    let mut series = Series::new(second(0));
    for uid in ["a", "b"] {
        for count in 1..=7 {
            series.seen(event(uid, uid, 1000, 1000, count), no, second(1000));
        }
    }
    assert_eq!(short(&series.gone("a").into_iter().collect::<Vec<_>>()), [(Action::Update, "a", "a", 7)]);
    series.tick(second(1001));
    assert_eq!(short(&series.tick(second(5))), [(Action::Update, "b", "b", 7)]);
    assert!(series.waiting.is_empty());
}

#[test]
fn what_ended_before_the_mark_is_not_told() {
    for (mark, next) in [(Mark::Start(second(50)), Action::Create), (Mark::Told(second(50)), Action::Update)]
    {
        let mut series = Series::new(second(60));
        series.set_mark(mark);
        series.begin();
        assert_eq!(series.seen(event("old", "old", 40, 50, 3), no, second(61)), []);
        let mut going = series.seen(event("going", "going", 40, 55, 3), no, second(61));
        assert_eq!(series.finish(), []);
        going.extend(series.tick(second(75)));
        assert_eq!(short(&going), [(next, "going", "going", 3)], "it began before");
        // The clock of its reporter is late.
        let late = series.seen(event("late", "late", 45, 45, 1), no, second(62));
        assert_eq!(short(&late), [(Action::Create, "late", "late", 1)], "nobody was told");
        let again = series.seen(event("old", "old", 40, 63, 4), no, second(63));
        assert_eq!(short(&again), [(next, "old", "old", 4)]);
    }
}

#[test]
fn what_another_signal_tells_is_counted_in_silence() {
    let mut series = Series::new(second(0));
    assert_eq!(series.seen(event("a", "a", 1, 1, 1), |_| true, second(1)), []);
    let mut asked = false;
    series.seen(event("a", "a", 1, 1, 1), |_| std::mem::replace(&mut asked, true), second(2));
    assert!(!asked, "there are no news");
    assert_eq!(short(&series.seen(event("a", "a", 1, 3, 2), no, second(3))), [(Action::Create, "a", "a", 2)]);
}

#[test]
fn the_oldest_are_forgotten_and_counted_and_a_list_does_not_repeat_them() {
    let mut series = Series { most: 3, ..Series::new(second(0)) };
    let all: Vec<_> = (1..=5).map(|at| event(&at.to_string(), &at.to_string(), at, at, 1)).collect();
    for event in all.clone() {
        assert_eq!(series.seen(event, no, second(6)).len(), 1);
    }
    assert_eq!((series.objects.len(), series.entries.len(), series.ages.len()), (3, 3, 3));
    assert_eq!(series.forgotten().get(), 2);
    series.begin();
    for event in all {
        assert_eq!(series.seen(event, no, second(7)), []);
    }
    assert_eq!(series.finish(), []);
    assert_eq!(series.objects.len(), 3);
}

#[test]
fn what_is_forgotten_for_want_of_room_is_not_created_again() {
    let mut series = Series { most: 3, ..Series::new(second(0)) };
    for (round, action) in (1..).zip([Action::Create, Action::Update, Action::Update]) {
        for number in 0..5 {
            let (uid, at) = (number.to_string(), i64::from(round) * 100 + number);
            let told = series.seen(event(&uid, &uid, number, at, round as u32), no, second(at));
            assert_eq!(short(&told), [(action, uid.as_str(), uid.as_str(), round)]);
        }
    }
    series.seen(event("covered", "covered", 400, 400, 1), |_| true, second(400));
    for number in 0..5 {
        series.seen(event(&number.to_string(), "many", 500, 500, 9), no, second(500));
    }
    let told = series.seen(event("covered", "covered", 400, 600, 2), no, second(600));
    assert_eq!(short(&told), [(Action::Create, "covered", "covered", 2)], "nobody has heard of it");
}

#[test]
fn replicas_name_alike_what_a_list_shows() {
    let named = |name: &str| {
        let (first, last) = if name == "c" { (11, 40) } else { (10, 30) };
        let mut event = event(&format!("uid of {name}"), "pod", first, last, 1);
        event.told.name = name.to_owned();
        event
    };
    for order in [["a", "b", "c"], ["b", "c", "a"], ["c", "b", "a"]] {
        let mut series = Series::new(second(0));
        let mut told = list(&mut series, order.map(named).to_vec(), 50);
        told.extend(series.tick(second(100)));
        assert_eq!(
            short(&told),
            [(Action::Create, "uid of a", "uid of c", 3)],
            "the oldest's name and the newest's text"
        );
        assert_eq!((told[0].name.as_str(), told[0].first_timestamp.unwrap().seconds), ("a", 10));
        // What has been named keeps its name.
        series.begin();
        let mut older = event("older", "pod", 5, 105, 1);
        older.told.name = "0".to_owned();
        let mut told = series.seen(older, no, second(105));
        told.extend(series.tick(second(200)));
        assert_eq!(short(&told), [(Action::Update, "uid of a", "older", 4)]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// An Event happens some times; the watch shows it, or loses it.
    Happens(usize, u32, bool),
    /// The watch shows an earlier state.
    Repeats(usize, u32),
    Goes(usize),
    /// All Events, in some order.
    Lists(bool),
    Passes(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..9_usize, 1..4_u32, prop::bool::weighted(0.8)).prop_map(|(it, times, seen)| Step::Happens(it, times, seen)),
        2 => (0..9_usize, 0..3_u32).prop_map(|(it, back)| Step::Repeats(it, back)),
        1 => (0..9_usize).prop_map(Step::Goes),
        1 => any::<bool>().prop_map(Step::Lists),
        4 => prop_oneof![9 => 0..40_i64, 1 => -5000..5000_i64].prop_map(Step::Passes),
    ];
    prop::collection::vec(step, 0..120)
}

/// The Events that an API server has: what they are about, first, last, count.
#[derive(Default)]
struct Server {
    events: BTreeMap<String, (usize, i64, i64, u32)>,
    made: usize,
    /// The present Event of each of nine reporters.
    names: BTreeMap<usize, String>,
}

impl Server {
    fn happens(&mut self, reporter: usize, times: u32, now: i64) -> Occurrence {
        let made = &mut self.made;
        let name = self.names.entry(reporter).or_insert_with(|| {
            *made += 1;
            format!("e{made}")
        });
        let event = self.events.entry(name.clone()).or_insert((reporter % 3, now, now, 0));
        (event.2, event.3) = (now, event.3 + times);
        self.show(reporter, 0).unwrap()
    }

    fn show(&self, reporter: usize, back: u32) -> Option<Occurrence> {
        let name = self.names.get(&reporter)?;
        let (about, first, last, count) = self.events.get(name)?;
        Some(event(name, &format!("about{about}"), *first, *last, count.saturating_sub(back).max(1)))
    }

    fn list(&self, is_backward: bool) -> Vec<Occurrence> {
        let mut all: Vec<_> = (0..9).filter_map(|reporter| self.show(reporter, 0)).collect();
        if is_backward {
            all.reverse();
        }
        all
    }
}

fn list(series: &mut Series, events: Vec<Occurrence>, now: i64) -> Vec<KubernetesEvent> {
    series.begin();
    let mut told: Vec<_> = events.into_iter().flat_map(|event| series.seen(event, no, second(now))).collect();
    told.extend(series.finish());
    told
}

proptest! {
    /// Whatever is repeated, lost, listed again or out of order, and whatever the clock does:
    /// everything is told once as CREATE, its counts only grow, nothing from before
    /// the mark is told, and in the end everything that happened has been told.
    #[test]
    fn nothing_is_told_twice_and_nothing_is_lost(
        before in prop::collection::vec((0..9_usize, 1..4_u32), 0..10),
        steps in steps(),
        most in prop_oneof![Just(MOST), 1..6_usize],
    ) {
        let (mut server, mut now) = (Server::default(), 100_000);
        for (reporter, times) in before {
            server.happens(reporter, times, now - 10_000);
        }
        let old: BTreeSet<_> = server.events.keys().cloned().collect();
        let mut series = Series { most, ..Series::new(second(now)) };
        prop_assert_eq!(list(&mut series, server.list(false), now), []);
        let (mut told, mut happened, mut goes) = (Vec::new(), BTreeSet::new(), false);
        for step in steps {
            match step {
                Step::Happens(reporter, times, is_seen) => {
                    let event = server.happens(reporter, times, now);
                    happened.insert(event.key.to_string());
                    if is_seen {
                        told.extend(series.seen(event, no, second(now)));
                    }
                }
                Step::Repeats(reporter, back) => {
                    let event = server.show(reporter, back);
                    // Of what it has forgotten or never saw, an earlier state would be news.
                    let event = event.filter(|event| series.objects.contains_key(&event.uid));
                    told.extend(event.into_iter().flat_map(|event| series.seen(event, no, second(now))));
                }
                Step::Goes(reporter) => {
                    if let Some(name) = server.names.remove(&reporter) {
                        goes = true;
                        server.events.remove(&name);
                        told.extend(series.gone(&name));
                    }
                }
                Step::Lists(is_backward) => told.extend(list(&mut series, server.list(is_backward), now)),
                Step::Passes(seconds) => {
                    now += seconds;
                    told.extend(series.tick(second(now)));
                }
            }
            prop_assert!(series.objects.len() <= most && series.ages.len() == series.objects.len());
            prop_assert!(series.entries.len() <= series.objects.len());
            prop_assert!(series.waiting.len() <= series.entries.len());
        }
        if most < MOST {
            let mut known = BTreeSet::new();
            for event in &told {
                prop_assert_eq!(known.insert(event.uid.as_str()), event.action() == Action::Create);
            }
            return Ok(());
        }
        told.extend(list(&mut series, server.list(false), now));
        told.extend(series.tick(second(now + 100_000)));
        prop_assert!(series.waiting.is_empty());

        let mut counts = BTreeMap::new();
        for event in &told {
            let before = counts.insert(event.uid.clone(), event.count);
            prop_assert_eq!(before.is_none(), event.action() == Action::Create);
            prop_assert!(before.unwrap_or_default() < event.count);
        }
        let all_old = |about: &str| !happened.contains(about);
        for name in old {
            let quiet = server.events.get(&name).is_some_and(|event| all_old(&format!("about{}", event.0)));
            prop_assert!(!(quiet && counts.contains_key(&name)), "before the mark");
        }
        if !goes && !told.is_empty() {
            let sum = |about: &usize| server.events.values().filter(|it| it.0 == *about).map(|it| it.3).sum::<u32>();
            let known: Vec<_> = (0..3).filter(|about| happened.contains(&format!("about{about}"))).collect();
            let expected: i64 = known.iter().map(|about| i64::from(sum(about))).sum();
            prop_assert_eq!(counts.values().map(|count| i64::from(*count)).sum::<i64>(), expected);
        }
    }
}
