//! A policy's record names the workloads that it selects, which depend on pods.

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;
use crate::inventory::{Selection, convert, selector::Selector};

/// A pod that nothing owns, in the namespace `a`.
fn pod(state: &mut State, uid: &str, label: &str) {
    let meta = json!({"name": uid, "namespace": "a", "uid": uid, "labels": {"l": label}});
    let pod = serde_json::from_value(json!({"metadata": meta, "status": {"phase": label}})).unwrap();
    state.apply(Kind::Pod, uid, convert::pod(&pod).encode_to_vec().into(), Relation::Pod(&pod));
}

fn policy(state: &mut State, uid: &str, label: &str) {
    let metadata = v1::ObjectMeta { uid: uid.to_owned(), ..Default::default() };
    let pod_selector =
        v1::LabelSelector { match_labels: [("l".to_owned(), label.to_owned())].into(), ..Default::default() };
    let selection = Selection { namespace: Some("a".to_owned()), selector: Selector::new(&pod_selector) };
    let record = v1::NetworkPolicy {
        metadata: Some(metadata),
        spec: Some(v1::NetworkPolicySpec { pod_selector: Some(pod_selector), ..Default::default() }),
        ..Default::default()
    };
    state.apply(Kind::NetworkPolicy, uid, record.encode_to_vec().into(), Relation::Policy(selection));
}

/// What is sent of policies: UID, content and action; `None` is the commit.
fn told(state: &mut State) -> Vec<Option<(String, String, Action)>> {
    let sent = std::iter::from_fn(|| state.next()).map(|(frame, _)| read(&frame));
    sent.filter_map(|message| match message {
        None => Some(None),
        Some((Kind::NetworkPolicy, uid, content, action)) => Some(Some((uid, content, action))),
        Some(_) => None,
    })
    .collect()
}

/// The same when nothing was told for a while.
fn told_later(state: &mut State) -> Vec<Option<(String, String, Action)>> {
    rest(state);
    told(state)
}

/// Time passes.
fn rest(state: &mut State) {
    state.followed = None;
    state.follow(Instant::now());
}

fn says(targets: &str, action: Action) -> Vec<Option<(String, String, Action)>> {
    vec![Some(("p".to_owned(), format!("1: {targets}"), action))]
}

#[test]
fn policies_wait_until_it_is_known_who_runs_pods_and_follow_them_then() {
    let mut state = State { commit: Some(InventoryCommit::default()), ..State::default() };
    state.restart();
    policy(&mut state, "p", "1");
    pod(&mut state, "x", "1");
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::ReplicaSet) {
        state.finish(kind, at(0));
    }
    assert_eq!(told_later(&mut state), []);
    state.restart();
    assert_eq!(told_later(&mut state), []);
    state.listed(Kind::ReplicaSet);
    assert_eq!(told_later(&mut state), [says("a.Pod.x", Action::Create), vec![None]].concat());
    pod(&mut state, "y", "1");
    assert_eq!(told_later(&mut state), says("a.Pod.x a.Pod.y", Action::Update));
    pod(&mut state, "z", "2");
    assert_eq!(told_later(&mut state), []);
    pod(&mut state, "x", "2");
    pod(&mut state, "x", "1");
    assert_eq!(told_later(&mut state), [], "changed and changed back");
    state.remove(&Key(Kind::Pod, "x".into()), at(0));
    assert_eq!(told_later(&mut state), says("a.Pod.y", Action::Update));
    state.begin(Kind::Pod);
    state.finish(Kind::Pod, at(0));
    assert_eq!(told_later(&mut state), says("", Action::Update));
}

/// A pod and a policy through the mirror's own ends, as watches bring them.
#[tokio::test(start_paused = true)]
async fn a_policy_is_told_again_for_its_workloads_alone_seldom_and_in_the_end() {
    let mirror = Mirror::default();
    listed(&mut mirror.state());
    mirror.restart();
    mirror.change(|state| policy(state, "p", "1"));
    let told = || told(&mut mirror.state());
    assert_eq!(told(), [vec![None], says("", Action::Create)].concat());
    let mut updates = Vec::new();
    for number in 0..100 {
        mirror.change(|state| pod(state, &format!("{number:02}"), "1"));
        updates.extend(told());
        sleep(REST / 10).await;
    }
    assert!((1..=10).contains(&updates.len()), "{} updates", updates.len());
    let mut name = None;
    while let Ok(()) = timeout(REST * 2, mirror.due()).await {
        name = told().pop().flatten().map(|(_, content, _)| content).or(name);
    }
    let names: Vec<_> = (0..100).map(|number| format!("a.Pod.{number:02}")).collect();
    assert_eq!(name.unwrap(), format!("1: {}", names.join(" ")));
}

#[derive(Clone, Debug)]
enum Op {
    Pod(u8, u8),
    RemovePod(u8),
    List(Vec<(u8, u8)>),
    Policy(u8, u8),
    RemovePolicy(u8),
    Next,
    Rest,
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..5_u8, 0..3_u8).prop_map(|(uid, label)| Op::Pod(uid, label)),
        3 => (0..5_u8).prop_map(Op::RemovePod),
        1 => prop::collection::vec((0..5_u8, 0..3_u8), 0..5).prop_map(Op::List),
        3 => (0..3_u8, 0..3_u8).prop_map(|(uid, label)| Op::Policy(uid, label)),
        2 => (0..3_u8).prop_map(Op::RemovePolicy),
        8 => Just(Op::Next),
        1 => Just(Op::Rest),
        1 => (0..10_usize).prop_map(Op::Restart),
    ]
}

proptest! {
    #[test]
    fn the_receiver_holds_the_workloads_that_each_policy_selects(ops in prop::collection::vec(op(), 0..150)) {
        let (mut state, mut receiver) = (State::default(), Receiver::default());
        let (mut pods, mut policies) = (BTreeMap::new(), BTreeMap::new());
        listed(&mut state);
        state.restart();
        let (now, uid) = (Instant::now(), |uid: u8| uid.to_string());
        for op in ops {
            match op {
                Op::Pod(u, label) => {
                    pod(&mut state, &uid(u), &uid(label));
                    pods.insert(u, label);
                }
                Op::RemovePod(u) => {
                    state.remove(&Key(Kind::Pod, uid(u).as_str().into()), at(0));
                    pods.remove(&u);
                }
                Op::List(all) => {
                    state.begin(Kind::Pod);
                    all.iter().for_each(|(u, label)| pod(&mut state, &uid(*u), &uid(*label)));
                    state.finish(Kind::Pod, at(0));
                    pods = all.into_iter().collect();
                }
                Op::Policy(u, label) => {
                    policy(&mut state, &uid(u), &uid(label));
                    policies.insert(u, label);
                }
                Op::RemovePolicy(u) => {
                    state.remove(&Key(Kind::NetworkPolicy, uid(u).as_str().into()), at(0));
                    policies.remove(&u);
                }
                Op::Next => state.next().into_iter().for_each(|(frame, deletion)| receiver.send(frame, deletion)),
                Op::Rest => state.followed = None,
                Op::Restart(lose) => {
                    receiver.restart(lose);
                    state.restart();
                }
            }
            state.follow(now);
        }
        rest(&mut state);
        while let Some((frame, deletion)) = state.next() {
            receiver.send(frame, deletion);
        }
        receiver.connection.retain(|(kind, _), _| *kind == Kind::NetworkPolicy);
        let selected = |label: &u8| {
            let names = pods.iter().filter(|(_, of)| *of == label).map(|(uid, _)| format!("a.Pod.{uid}"));
            format!("{label}: {}", names.collect::<Vec<_>>().join(" "))
        };
        let truth: BTreeMap<_, _> =
            policies.iter().map(|(u, label)| ((Kind::NetworkPolicy, uid(*u)), selected(label))).collect();
        prop_assert_eq!(receiver.connection, truth);
    }
}
