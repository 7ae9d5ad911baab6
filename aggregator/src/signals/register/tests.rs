use std::collections::BTreeMap;

use kestrel_proto::cloud::v1::{KubernetesEvent, stream_events_request::Request};
use proptest::prelude::*;

use super::*;
use crate::signals::{note::Note, told::Told};

/// An object of which a few things can be wrong, each after a time.
#[derive(Clone, Debug)]
struct Thing {
    uid: String,
    /// kind, since when (s) and after how many seconds it counts
    wrong: BTreeMap<&'static str, (i64, i64)>,
    is_kept: bool,
    owes: bool,
    /// tells it from others of the same name
    number: u32,
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl Subject for Thing {
    fn judge(&self, now: Timestamp, _thresholds: &Thresholds) -> Judgement {
        let mut judgement = Judgement::default();
        for (kind, (since, after)) in &self.wrong {
            let from = second(since + after);
            // At once, whatever the time is.
            if *after == 0 || now >= from {
                judgement.findings.push(Finding {
                    kind: (*kind).into(),
                    reason: String::new(),
                    message: String::new(),
                    since: second(*since),
                    count: 0,
                });
            } else {
                judgement.due = judgement.due.into_iter().chain([from]).min();
            }
        }
        judgement
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }

    fn replaces(&self, earlier: &Self) -> bool {
        self.number != earlier.number
    }

    fn owes_a_signal(&mut self) -> bool {
        std::mem::take(&mut self.owes)
    }

    /// `reason`: what is open; `message`: what ended.
    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], _now: Timestamp) -> Request {
        let kinds = |findings: &[Finding]| {
            findings.iter().map(|finding| finding.kind.clone()).collect::<Vec<_>>().join(",")
        };
        Request::KubernetesEvent(KubernetesEvent {
            uid: self.uid.clone(),
            reason: kinds(open),
            message: kinds(ended),
            action: action.into(),
            ..Default::default()
        })
    }
}

fn thing(uid: &str, wrong: &[(&'static str, i64, i64)]) -> Thing {
    let wrong = wrong.iter().map(|(kind, since, after)| (*kind, (*since, *after))).collect();
    Thing { uid: uid.to_owned(), wrong, is_kept: false, owes: false, number: 0 }
}

/// UID, action, what is open, what ended.
fn told(told: &Told) -> Vec<(String, Action, String, String)> {
    let events = told.next().into_iter().map(|request| {
        let Request::KubernetesEvent(event) = request else { panic!("{request:?}") };
        (event.uid.clone(), event.action(), event.reason, event.message)
    });
    events.collect()
}

fn signal(uid: &str, action: Action, open: &str, ended: &str) -> (String, Action, String, String) {
    (uid.to_owned(), action, open.to_owned(), ended.to_owned())
}

#[test]
fn an_incident_opens_changes_and_ends() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    register.seen("a", thing("a", &[]), second(1));
    assert_eq!(told(&far), [], "healthy");
    register.seen("a", thing("a", &[("x", 2, 0)]), second(2));
    register.seen("a", thing("a", &[("x", 2, 0)]), second(3));
    assert_eq!(told(&far), [signal("a", Action::Create, "x", "")]);
    register.seen("a", thing("a", &[("x", 2, 0), ("y", 4, 0)]), second(4));
    register.seen("a", thing("a", &[("y", 4, 0)]), second(5));
    register.seen("a", thing("a", &[]), second(6));
    register.seen("a", thing("a", &[]), second(7));
    assert_eq!(
        told(&far),
        [
            signal("a", Action::Update, "x,y", ""),
            signal("a", Action::Update, "y", "x"),
            signal("a", Action::Update, "", "y"),
        ]
    );
    assert!(register.state().entries.is_empty() && register.state().timers.is_empty());
}

#[test]
fn time_alone_opens_an_incident_and_none_that_ended_before() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    register.seen("a", thing("a", &[("x", 0, 10)]), second(0));
    register.seen("b", thing("b", &[("x", 0, 10)]), second(0));
    register.seen("b", thing("b", &[]), second(5));
    register.tick(second(9));
    assert_eq!(told(&far), []);
    register.tick(second(10));
    register.tick(second(11));
    assert_eq!(told(&far), [signal("a", Action::Create, "x", "")]);
}

#[test]
fn nothing_is_judged_by_time_while_the_watch_is_away() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    register.seen("late", thing("late", &[("x", 0, 60)]), second(0));
    register.seen("mended", thing("mended", &[("x", 0, 60)]), second(0));
    register.tick(second(59));
    register.hears(false, second(59));
    register.tick(second(300));
    assert_eq!(told(&far), [], "who knows");
    register.hears(true, second(300));
    register.tick(second(301));
    register.seen("mended", thing("mended", &[]), second(302));
    register.tick(second(304));
    assert_eq!(told(&far), [], "what was missed may still come");
    register.tick(second(305));
    assert_eq!(told(&far), [signal("late", Action::Create, "x", "")]);
    register.begin();
    register.seen("late", thing("late", &[("x", 0, 60), ("y", 290, 100)]), second(400));
    register.tick(second(400));
    assert_eq!(told(&far), [], "in the middle of a list");
    register.finish(second(400));
    register.tick(second(400));
    assert_eq!(told(&far), [signal("late", Action::Update, "x,y", "")]);
}

#[test]
fn what_passed_before_it_was_seen_is_no_incident() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    register.tick(second(0));
    register.seen("a", thing("a", &[("x", 10, 60), ("y", 90, 0)]), second(100));
    assert_eq!(told(&far), [signal("a", Action::Create, "y", "")], "at once, and nothing by time");
    register.seen("a", thing("a", &[]), second(100));
    register.tick(second(101));
    assert_eq!(told(&far), [signal("a", Action::Update, "", "y")]);
}

#[test]
fn what_a_list_does_not_mention_is_gone() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    for uid in ["a", "b"] {
        register.seen(uid, thing(uid, &[("x", 0, 0)]), second(0));
    }
    register.seen("c", Thing { is_kept: true, ..thing("c", &[]) }, second(0));
    told(&far);
    register.begin();
    register.seen("b", thing("b", &[("x", 0, 0)]), second(1));
    register.finish(second(1));
    register.gone("c", second(1));
    assert_eq!(told(&far), [signal("a", Action::Delete, "x", "")]);
}

#[test]
fn what_others_report_is_no_proof_that_it_is_there() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    let wrong = |uid| thing(uid, &[("x", 0, 0)]);
    register.begin();
    register.reported("early", wrong("early"), second(0));
    register.finish(second(0));
    assert_eq!(told(&far), [signal("early", Action::Create, "x", "")], "it may come yet");
    register.begin();
    register.reported("early", wrong("early"), second(1));
    register.finish(second(1));
    assert_eq!(told(&far), [signal("early", Action::Delete, "x", "")], "it did not");
}

#[test]
fn what_is_owed_is_told_once_and_another_object_of_the_name_is_another_incident() {
    let far = Told::new();
    let register = Register::new(Thresholds::default(), far.lane());
    let owing = |wrong: &[_]| Thing { is_kept: true, owes: true, ..thing("a", wrong) };
    register.seen("a", owing(&[]), second(0));
    register.tick(second(1));
    assert_eq!(told(&far), [signal("a", Action::Update, "", "")]);
    register.seen("a", owing(&[("x", 2, 0)]), second(2));
    register.seen("a", owing(&[("x", 2, 0)]), second(3));
    assert_eq!(
        told(&far),
        [signal("a", Action::Create, "x", ""), signal("a", Action::Update, "x", "")],
        "news, and the same again"
    );
    register.seen("a", Thing { number: 1, ..thing("a", &[("x", 4, 0)]) }, second(4));
    assert_eq!(told(&far), [signal("a", Action::Delete, "x", ""), signal("a", Action::Create, "x", "")]);
}

/// A register that starts at 0 after somebody else has noted these as open.
fn after_a_start(left: &str) -> (Told, Note, Register<Thing>) {
    let (far, note) = (Told::new(), Note::default());
    note.left(left, second(0));
    let voice = Voice { lane: far.lane(), note: note.clone() };
    let register = Register::new(Thresholds::default(), voice);
    (far, note, register)
}

#[test]
fn what_ended_while_nobody_watched_is_told_as_over_once() {
    let (far, note, register) = after_a_start("a b c");
    register.begin();
    for uid in ["a", "b", "d"] {
        register.seen(uid, thing(uid, &[]), second(1));
    }
    register.seen("c", thing("c", &[("x", 0, 0)]), second(1));
    register.finish(second(2));
    assert!(register.knows("a") && !register.knows("d"));
    register.tick(second(59));
    assert_eq!(told(&far), [signal("c", Action::Create, "x", "")], "who knows what will be said of a and b");
    register.seen("b", thing("b", &[("x", 0, 0)]), second(59));
    register.seen("b", thing("b", &[]), second(59));
    register.tick(second(60));
    register.tick(second(61));
    assert_eq!(
        told(&far),
        [
            signal("b", Action::Create, "x", ""),
            signal("b", Action::Update, "", "x"),
            signal("a", Action::Update, "", ""),
        ]
    );
    assert_eq!(note.names(Timestamp::MAX), "c");
    register.gone("c", second(62));
    assert_eq!(note.names(Timestamp::MAX), "");
}

#[test]
fn what_seems_ill_is_not_over_before_that_is_known() {
    let (far, _, register) = after_a_start("a b");
    register.seen("a", thing("a", &[("x", 0, 100)]), second(0));
    register.seen("b", thing("b", &[("x", 0, 100)]), second(0));
    register.tick(second(80));
    assert_eq!(told(&far), []);
    register.seen("b", thing("b", &[]), second(90));
    assert_eq!(told(&far), [signal("b", Action::Update, "", "")]);
    register.tick(second(100));
    assert_eq!(told(&far), [signal("a", Action::Create, "x", "")]);
}

#[derive(Clone, Debug)]
enum Step {
    Seen(usize, Vec<(&'static str, i64, i64)>),
    Gone(usize),
    Tick,
    List(Vec<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wrong =
        prop::collection::vec((prop::sample::select(vec!["x", "y", "z"]), 0..20_i64, 0..10_i64), 0..3);
    let step = prop_oneof![
        4 => (0..3_usize, wrong).prop_map(|(object, wrong)| Step::Seen(object, wrong)),
        1 => (0..3_usize).prop_map(Step::Gone),
        3 => Just(Step::Tick),
        1 => prop::collection::vec(0..3_usize, 0..3).prop_map(Step::List),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// Per object: CREATE, any UPDATEs, then the UPDATE that leaves nothing open or
    /// DELETE; never two opens of one incident; and in the end what is open is what
    /// is wrong.
    #[test]
    fn opens_and_ends_match(steps in steps()) {
        let far = Told::new();
        let register = Register::new(Thresholds::default(), far.lane());
        let (mut objects, mut now) = (BTreeMap::<String, Thing>::new(), 0);
        let names = ["a", "b", "c"];
        for step in steps {
            now += 1;
            match step {
                Step::Seen(object, wrong) => {
                    let thing = thing(names[object], &wrong);
                    objects.insert(thing.uid.clone(), thing.clone());
                    register.seen(names[object], thing, second(now));
                }
                Step::Gone(object) => {
                    objects.remove(names[object]);
                    register.gone(names[object], second(now));
                }
                Step::Tick => {
                    now += 4;
                    register.tick(second(now));
                }
                Step::List(kept) => {
                    objects.retain(|uid, _| kept.iter().any(|object| names[*object] == uid));
                    register.begin();
                    for thing in objects.values() {
                        register.seen(&thing.uid, thing.clone(), second(now));
                    }
                    register.finish(second(now));
                }
            }
        }
        register.tick(second(now));
        let mut open = BTreeMap::new();
        for (uid, action, now_open, ended) in told(&far) {
            let before: Option<String> = open.remove(&uid);
            let known = |ended: &str| before.as_ref().is_some_and(|before| before.contains(ended));
            prop_assert!(ended.split(',').all(|ended| ended.is_empty() || known(ended)));
            match action {
                Action::Create => prop_assert!(before.is_none() && !now_open.is_empty()),
                _ => prop_assert!(before.is_some()),
            }
            if action != Action::Delete && !now_open.is_empty() {
                open.insert(uid, now_open);
            }
        }
        let wrong: BTreeMap<_, _> = objects
            .into_iter()
            .map(|(uid, thing)| (uid, thing.judge(second(now), &Thresholds::default()).findings))
            .filter(|(_, findings)| !findings.is_empty())
            .map(|(uid, findings)| {
                (uid, findings.iter().map(|finding| finding.kind.clone()).collect::<Vec<_>>().join(","))
            })
            .collect();
        prop_assert_eq!(open, wrong);
        let state = register.state();
        prop_assert!(state.timers.len() <= state.entries.len());
    }
}
