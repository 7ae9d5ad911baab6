use kestrel_proto::cloud::v1::Action::{self, Create, Delete, Update};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::signals::{
    incident::{Judgement, Subject},
    note::Note,
    register::Register,
    thresholds::Thresholds,
    told::Told,
};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn cilium() -> Home {
    let meta = json!({"namespace": "kube-system", "name": "cilium", "labels": {"k8s-app": "cilium"}});
    Home::of_workload("DaemonSet", &serde_json::from_value(meta).unwrap()).unwrap()
}

fn coredns() -> Home {
    let meta = json!({"namespace": "kube-system", "name": "coredns", "labels": {"k8s-app": "kube-dns"}});
    Home::of_workload("Deployment", &serde_json::from_value(meta).unwrap()).unwrap()
}

fn pod(home: Home, number: usize) -> Part {
    Part { home, name: format!("Pod p{number}"), is_pod: true, node: Some(format!("n{number}")) }
}

fn finding(kind: &'static str, since: i64, count: u32) -> Finding {
    Finding {
        kind: kind.into(),
        reason: kind.to_owned(),
        message: format!("its container agent exits with code 1 ({kind})."),
        since: second(since),
        count,
    }
}

fn told(told: &Told) -> Vec<KubernetesEvent> {
    let events = told.next().into_iter().map(|request| {
        let Request::KubernetesEvent(event) = request else { panic!("{request:?}") };
        event
    });
    events.collect()
}

/// Action, reason and count.
fn short(events: &[KubernetesEvent]) -> Vec<(Action, &str, i32)> {
    events.iter().map(|event| (event.action(), event.reason.as_str(), event.count)).collect()
}

#[test]
fn the_trouble_of_pods_is_one_signal_about_their_workload() {
    let far = Told::new();
    let components = Components::new(far.lane());
    components.workload(&cilium(), "uid-of-cilium", 5);
    components.found("1", &pod(cilium(), 1), &[finding("CrashLoop", 100, 3)], second(110));
    components.found("1", &pod(cilium(), 1), &[finding("CrashLoop", 100, 3)], second(111));
    components.found("2", &pod(cilium(), 2), &[finding("ImagePull", 105, 0)], second(112));
    components.found("1", &pod(cilium(), 1), &[], second(400));
    components.found("2", &pod(cilium(), 2), &[], second(401));
    components.found("2", &pod(cilium(), 2), &[], second(402));
    let events = told(&far);
    assert_eq!(
        short(&events),
        [
            (Create, "CNIDegraded", 3),
            (Update, "CNIDegraded", 4),
            (Update, "CNIDegraded", 4),
            (Update, "CNIRecovered", 4),
        ]
    );
    assert_eq!(
        events[1].message,
        "Cilium (DaemonSet kube-system/cilium) is in trouble with 2 of 5 pods: new pods may get no network on \
         n1, n2. Pod p1 on n1: its container agent exits with code 1 (CrashLoop). Pod p2 on n2: its container \
         agent exits with code 1 (ImagePull)."
    );
    assert_eq!(events[3].message, "Cilium (DaemonSet kube-system/cilium) is well again after 5 min.");
    let about = events[0].involved_object.as_ref().unwrap();
    assert_eq!(
        (about.kind.as_str(), about.namespace.as_str(), about.name.as_str(), about.uid.as_str()),
        ("DaemonSet", "kube-system", "cilium", "uid-of-cilium")
    );
    assert_eq!((about.api_version.as_str(), events[0].event_type.as_str()), ("apps/v1", "Warning"));
    assert_eq!(events[0].source.as_ref().unwrap().component, "kestrel-operator");
    assert_eq!(events[3].first_timestamp.unwrap().seconds, 100);
    assert_eq!(events[3].last_timestamp.unwrap().seconds, 401);
    assert!(events.iter().all(|event| event.uid == events[0].uid && event.name == events[0].name));
}

#[test]
fn a_component_has_one_uid_whoever_tells_of_it() {
    let uid = |since| {
        let far = Told::new();
        let components = Components::new(far.lane());
        components.found("1", &pod(cilium(), 1), &[finding("CrashLoop", since, 1)], second(since + 5));
        told(&far).pop().unwrap().uid
    };
    assert_eq!(uid(100), uid(101), "replicas need not agree when it began");
    let parts: Vec<_> = uid(100).split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
    assert_eq!((&uid(100)[14..15], "89ab".contains(&uid(100)[19..20])), ("8", true), "RFC 9562");
}

#[test]
fn what_recovered_while_nobody_watched_is_told_as_over_once() {
    let before = Note::default();
    let voice = |far: &Told, note: &Note| Voice { lane: far.lane(), note: note.clone() };
    let components = Components::new(voice(&Told::new(), &before));
    for (number, home) in [cilium(), coredns()].into_iter().enumerate() {
        let name = number.to_string();
        components.found(&name, &pod(home, number), &[finding("CrashLoop", 100, 1)], second(100));
    }
    let (far, note) = (Told::new(), Note::default());
    note.left(&before.names(Timestamp::MAX), second(1000));
    let components = Components::new(voice(&far, &note));
    for home in [cilium(), coredns()] {
        components.workload(&home, "u", 1);
    }
    components.found("1", &pod(coredns(), 1), &[finding("CrashLoop", 100, 1)], second(1001));
    components.tick(second(1179));
    assert_eq!(short(&told(&far)), [(Create, "DNSDegraded", 1)], "what its pods show may count only later");
    components.tick(second(1180));
    components.tick(second(1181));
    let events = told(&far);
    assert_eq!(short(&events), [(Update, "CNIRecovered", 0)]);
    assert_eq!(events[0].message, "Cilium (DaemonSet kube-system/cilium) is well again.");
    components.found("1", &pod(coredns(), 1), &[], second(1200));
    assert_eq!(note.names(Timestamp::MAX), "");
}

#[test]
fn changes_are_told_now_and_then_and_the_end_at_once() {
    let far = Told::new();
    let components = Components::new(far.lane());
    for number in 0..100 {
        let at = second(1000 + number as i64);
        components.found(&number.to_string(), &pod(cilium(), number), &[finding("CrashLoop", 999, 1)], at);
        components.tick(at);
    }
    let events = told(&far);
    assert_eq!(events.len(), 8, "five, and one every 30 seconds");
    assert!(events[7].message.contains("on n0, n1, n10, n11, n12, n13, n14, n15, n16, n17 and "));
    assert!(events[7].message.ends_with(" more."));
    components.tick(second(1130));
    assert_eq!(short(&told(&far)), [(Update, "CNIDegraded", 100)], "the newest state is told late");
    components.tick(second(1500));
    for number in 0..100 {
        components.found(&number.to_string(), &pod(cilium(), number), &[], second(1500));
    }
    assert_eq!(short(&told(&far)).last(), Some(&(Update, "CNIRecovered", 100)));
}

#[test]
fn the_end_of_a_pod_is_not_the_end_of_the_trouble() {
    let far = Told::new();
    let components = Components::new(far.lane());
    components.found("1", &pod(coredns(), 1), &[finding("CrashLoop", 100, 1)], second(100));
    components.gone("1", &pod(coredns(), 1), second(110));
    components.tick(second(229));
    components.found("2", &pod(coredns(), 2), &[finding("CrashLoop", 150, 1)], second(229));
    components.tick(second(231));
    assert_eq!(
        short(&told(&far)),
        [(Create, "DNSDegraded", 1), (Update, "DNSDegraded", 2), (Update, "DNSDegraded", 2)]
    );
    components.gone("2", &pod(coredns(), 2), second(300));
    components.tick(second(420));
    assert_eq!(short(&told(&far)), [(Update, "DNSRecovered", 2)]);
}

#[test]
fn a_workload_that_is_gone_is_told_gone() {
    let far = Told::new();
    let components = Components::new(far.lane());
    for home in [cilium(), coredns()] {
        components.workload(&home, "u", 2);
        components.found(home.kind, &pod(home.clone(), 1), &[finding("CrashLoop", 100, 1)], second(100));
    }
    told(&far);
    components.begin("DaemonSet");
    components.finish("DaemonSet", second(200));
    assert_eq!(short(&told(&far)), [(Delete, "CNIDegraded", 1)]);
    components.workload_gone(&coredns(), second(201));
    components.workload_gone(&coredns(), second(201));
    assert_eq!(short(&told(&far)), [(Delete, "DNSDegraded", 1)]);
    components.gone(coredns().kind, &pod(coredns(), 1), second(202));
    components.begin("Deployment");
    components.workload(&coredns(), "u2", 2);
    components.finish("Deployment", second(202));
    components.tick(second(203));
    assert_eq!(told(&far), [], "its pods went with it");
}

#[test]
fn what_is_still_wrong_when_a_workload_comes_back_is_told_anew() {
    let far = Told::new();
    let components = Components::new(far.lane());
    components.workload(&cilium(), "u1", 3);
    for number in 1..=3 {
        let part = pod(cilium(), number);
        components.found(&number.to_string(), &part, &[finding("CrashLoop", 100, 2)], second(110));
    }
    components.gone("3", &pod(cilium(), 3), second(190));
    told(&far);
    components.workload_gone(&cilium(), second(200));
    components.found("2", &pod(cilium(), 2), &[finding("CrashLoop", 100, 3)], second(201));
    components.gone("1", &pod(cilium(), 1), second(202));
    components.tick(second(203));
    assert_eq!(short(&told(&far)), [(Delete, "CNIDegraded", 6)], "nobody asks for what is left");
    components.workload(&cilium(), "u2", 3);
    components.tick(second(210));
    let events = told(&far);
    assert_eq!(short(&events), [(Create, "CNIDegraded", 3)]);
    assert_eq!(events[0].involved_object.as_ref().unwrap().uid, "u2");
    assert!(events[0].message.contains("with 1 of 3 pods"), "{}", events[0].message);
    components.found("2", &pod(cilium(), 2), &[], second(300));
    assert_eq!(short(&told(&far)), [(Update, "CNIRecovered", 3)]);
}

#[test]
fn the_last_lines_of_a_part_stand_on_lines_of_their_own() {
    let far = Told::new();
    let components = Components::new(far.lane());
    let with = |message: &str| Finding { message: message.to_owned(), ..finding("CrashLoop", 100, 1) };
    components.found("1", &pod(cilium(), 1), &[with("it crashes\nlast lines:\nno route.")], second(100));
    components.found("2", &pod(cilium(), 2), &[with("it crashes.")], second(101));
    let message = told(&far).pop().unwrap().message;
    let parts = "Pod p1 on n1: it crashes\nlast lines:\nno route.\nPod p2 on n2: it crashes.";
    assert!(message.ends_with(parts), "{message}");
}

/// A pod of a component, or of none.
struct Pod(Option<Part>, Vec<Finding>);

impl Subject for Pod {
    fn judge(&self, _now: Timestamp, _thresholds: &Thresholds) -> Judgement {
        Judgement { findings: self.1.clone(), due: None }
    }

    fn part(&self) -> Option<&Part> {
        self.0.as_ref()
    }

    fn request(&self, action: Action, _open: &[Finding], _ended: &[Finding], _now: Timestamp) -> Request {
        let event =
            KubernetesEvent { reason: "its own".to_owned(), action: action.into(), ..Default::default() };
        Request::KubernetesEvent(event)
    }
}

#[test]
fn a_register_hands_what_is_wrong_with_parts_to_their_component() {
    let far = Told::new();
    let components = Components::new(far.lane());
    let register = Register::with_components(Thresholds::default(), far.lane(), components.clone());
    let crash = || vec![finding("CrashLoop", 100, 1)];
    register.seen("1", Pod(Some(pod(coredns(), 1)), crash()), second(100));
    register.seen("2", Pod(None, crash()), second(100));
    register.seen("1", Pod(Some(pod(coredns(), 1)), vec![]), second(110));
    register.seen("2", Pod(None, vec![]), second(110));
    register.seen("3", Pod(Some(pod(coredns(), 3)), crash()), second(120));
    register.gone("3", second(130));
    components.tick(second(131));
    let events = told(&far);
    assert_eq!(
        short(&events),
        [
            (Create, "DNSDegraded", 1),
            (Create, "its own", 0),
            (Update, "DNSRecovered", 1),
            (Update, "its own", 0),
            (Create, "DNSDegraded", 1),
        ]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Found(usize, usize, Vec<(&'static str, u32)>),
    Gone(usize, usize),
    Workload(usize),
    WorkloadGone(usize),
    List(usize, bool),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let findings = prop::sample::subsequence(vec!["CrashLoop", "ImagePull"], 0..=2);
    let findings =
        (findings, 0..4_u32).prop_map(|(kinds, count)| kinds.into_iter().map(|kind| (kind, count)).collect());
    let step = prop_oneof![
        6 => (0..2_usize, 0..4_usize, findings).prop_map(|(home, pod, what)| Step::Found(home, pod, what)),
        2 => (0..2_usize, 0..4_usize).prop_map(|(home, pod)| Step::Gone(home, pod)),
        1 => (0..2_usize).prop_map(Step::Workload),
        1 => (0..2_usize).prop_map(Step::WorkloadGone),
        1 => (0..2_usize, any::<bool>()).prop_map(|(home, is_there)| Step::List(home, is_there)),
        3 => (-50..200_i64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Of every component: CREATE, any UPDATEs, then the recovery or DELETE, all with one
    /// UID and counts that never fall.
    #[test]
    fn opens_and_ends_match(steps in steps()) {
        let far = Told::new();
        let components = Components::new(far.lane());
        let (homes, mut now) = ([cilium(), coredns()], 1000);
        for step in steps {
            match step {
                Step::Found(home, number, what) => {
                    let findings: Vec<_> = what.iter().map(|(kind, count)| finding(kind, now, *count)).collect();
                    let (uid, part) = (number.to_string(), pod(homes[home].clone(), number));
                    components.found(&uid, &part, &findings, second(now));
                }
                Step::Gone(home, number) => {
                    components.gone(&number.to_string(), &pod(homes[home].clone(), number), second(now));
                }
                Step::Workload(home) => components.workload(&homes[home], "u", 4),
                Step::WorkloadGone(home) => components.workload_gone(&homes[home], second(now)),
                Step::List(home, is_there) => {
                    components.begin(homes[home].kind);
                    if is_there {
                        components.workload(&homes[home], "u", 4);
                    }
                    components.finish(homes[home].kind, second(now));
                }
                Step::Pass(seconds) => {
                    now += seconds;
                    components.tick(second(now));
                }
            }
        }
        now += 10_000;
        components.tick(second(now));
        let mut open = std::collections::BTreeMap::new();
        for event in told(&far) {
            let about = event.involved_object.clone().unwrap().name;
            let before: Option<KubernetesEvent> = open.remove(&about);
            prop_assert_eq!(before.is_none(), event.action() == Create);
            if let Some(before) = before {
                prop_assert_eq!(&before.uid, &event.uid);
                prop_assert!(before.count <= event.count);
            }
            if event.action() != Delete && event.reason.ends_with("Degraded") {
                open.insert(about, event);
            }
        }
        prop_assert_eq!(components.state().open(), open.into_keys().collect());
    }
}
