//! A receiver that applies what it is sent must hold the truth.

mod policies;

use std::collections::VecDeque;

use kestrel_proto::cloud::v1;
use proptest::prelude::*;

use super::*;

const KINDS: [Kind; 4] = [Kind::Namespace, Kind::OwnerlessPod, Kind::Node, Kind::Pod];

/// A record as a receiver reads it: kind, UID, content, action.
fn read(frame: &[u8]) -> Option<(Kind, String, String, Action)> {
    let (kind, uid, name, action) = match StreamDataRequest::decode(frame).unwrap().request.unwrap() {
        Request::Namespace(it) => (Kind::Namespace, it.uid, it.name, it.action),
        Request::Node(it) => (Kind::Node, it.uid, it.name, it.action),
        Request::Workload(it) => (Kind::OwnerlessPod, it.uid, it.name, it.action),
        Request::Pod(it) => (Kind::Pod, it.uid, it.name + &it.phase, it.action),
        Request::NetworkPolicy(it) => {
            let selector = it.spec.and_then(|spec| spec.pod_selector).unwrap_or_default();
            let label = selector.match_labels.into_values().next().unwrap_or_default();
            let content = format!("{label}: {}", it.target_workloads.join(" "));
            (Kind::NetworkPolicy, it.metadata.unwrap_or_default().uid, content, it.action)
        }
        Request::InventoryCommit(_) => return None,
        other => panic!("{other:?}"),
    };
    Some((kind, uid, name, Action::try_from(action).unwrap()))
}

fn record(kind: Kind, uid: &str, name: &str) -> Arc<[u8]> {
    let (uid, name) = (uid.to_owned(), name.to_owned());
    match kind {
        Kind::Namespace => v1::Namespace { uid, name, ..Default::default() }.encode_to_vec(),
        Kind::Node => v1::Node { uid, name, ..Default::default() }.encode_to_vec(),
        Kind::Pod => v1::Pod { uid, name, ..Default::default() }.encode_to_vec(),
        _workload => v1::Workload { uid, name, ..Default::default() }.encode_to_vec(),
    }
    .into()
}

fn listed(state: &mut State) {
    state.commit = Some(InventoryCommit::default());
    for kind in Kind::ALL {
        state.listed(kind);
    }
}

fn drain(state: &mut State) -> Vec<Option<(String, Action)>> {
    let next = || state.next();
    std::iter::from_fn(next).map(|(frame, _)| read(&frame).map(|(_, uid, _, action)| (uid, action))).collect()
}

/// What is sent, of which the last deletion leaves the window.
fn arrived(state: &mut State) -> Option<Deletion> {
    let last = std::iter::from_fn(|| state.next()).filter_map(|(_, deletion)| deletion).last();
    last.inspect(|deletion| state.forget(*deletion))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn sent(uid: &str, action: Action) -> Option<(String, Action)> {
    Some((uid.to_owned(), action))
}

#[test]
fn kinds_come_in_order_and_the_commit_after_all_that_was_due() {
    let mut state = State::default();
    for kind in [Kind::Pod, Kind::OwnerlessPod, Kind::Node, Kind::Namespace] {
        state.apply(kind, &format!("{kind:?}"), record(kind, &format!("{kind:?}"), "a"), Relation::None);
    }
    state.restart();
    let inventory = ["Namespace", "Node", "OwnerlessPod", "Pod"].map(|uid| sent(uid, Action::Create));
    assert_eq!(drain(&mut state), inventory, "no commit before the lists are complete");
    listed(&mut state);
    assert_eq!(drain(&mut state), [None]);
    state.restart();
    state.apply(Kind::Node, "new", record(Kind::Node, "new", "a"), Relation::None);
    assert_eq!(drain(&mut state), [&inventory[..], &[None, sent("new", Action::Create)]].concat());
}

#[test]
fn what_did_not_change_on_the_wire_is_not_sent() {
    let mut state = State::default();
    listed(&mut state);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    state.restart();
    assert_eq!(drain(&mut state), [sent("1", Action::Create), None]);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    assert_eq!(drain(&mut state), []);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "b"), Relation::None);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    assert_eq!(drain(&mut state), [], "changed and changed back");
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "b"), Relation::None);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "c"), Relation::None);
    assert_eq!(drain(&mut state), [sent("1", Action::Update)], "coalesced");
}

#[test]
fn a_deletion_is_told_to_every_connection_until_it_has_left_the_resend_window() {
    let (mut state, pod) = (State::default(), Key(Kind::Pod, "1".into()));
    listed(&mut state);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    state.restart();
    drain(&mut state);
    state.remove(&pod, at(0));
    for _ in 0..3 {
        state.restart();
        assert_eq!(drain(&mut state), [sent("1", Action::Delete), None]);
    }
    state.restart();
    let deletion = arrived(&mut state).unwrap();
    state.restart();
    assert_eq!(drain(&mut state), [None]);
    assert!(state.entries.is_empty());
    // It came back and went again: another deletion.
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    state.remove(&pod, at(1));
    state.forget(deletion);
    state.restart();
    let before = state.next().unwrap().1.unwrap();
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"), Relation::None);
    state.forget(before);
    assert_eq!(drain(&mut state), [None, sent("1", Action::Create)], "what came back is no deletion");
    state.remove(&pod, at(2));
    state.forget(before);
    assert_eq!(drain(&mut state), [sent("1", Action::Delete)]);
    assert!(arrived(&mut state).is_none() && state.deletions.len() == 1);
}

#[test]
fn a_standby_keeps_deletions_until_the_leader_has_told_them() {
    let mirror = Mirror::default();
    let before = Timestamp::now();
    assert!(mirror.told_until() >= before);
    {
        let mut state = mirror.state();
        for (uid, second) in [("1", 1), ("2", 2), ("3", 3)] {
            state.apply(Kind::Pod, uid, record(Kind::Pod, uid, "a"), Relation::None);
            state.remove(&Key(Kind::Pod, uid.into()), at(second));
        }
    }
    assert_eq!(mirror.told_until(), at(1));
    mirror.forget_told(at(2), at(3));
    assert_eq!(mirror.told_until(), at(1), "before the leader began to watch");
    mirror.forget_told(at(0), at(2));
    assert_eq!(mirror.told_until(), at(3));
    mirror.restart();
    let (told, deletion) = mirror.next().unwrap();
    assert_eq!(read(&told).map(|(_, uid, _, action)| (uid, action)), sent("3", Action::Delete));
    mirror.left(deletion.unwrap());
    assert!(mirror.told_until() >= before);
}

#[test]
fn deletions_are_bounded_and_counted() {
    let mirror = Mirror::default();
    let count = MAX_DELETIONS + 3;
    for number in 0..count {
        mirror.apply(Kind::Pod, &number.to_string(), &v1::Pod::default());
        mirror.remove(Kind::Pod, &number.to_string());
    }
    assert_eq!(mirror.forgotten().get(), 3);
    let state = mirror.state();
    assert_eq!((state.entries.len(), state.deletions.len()), (MAX_DELETIONS, MAX_DELETIONS));
    assert!(!state.entries.contains_key(&Key(Kind::Pod, "2".into())), "the oldest go");
}

#[derive(Clone, Debug)]
enum Op {
    Apply(usize, u8, u8),
    Remove(usize, u8),
    /// a list of a kind that holds these and nothing else
    List(usize, Vec<(u8, u8)>),
    Next,
    /// so many of the oldest messages leave the window
    Leave(usize),
    /// the connection dies: of the last messages that are inside the window,
    /// so many are lost; then a new one begins
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let kind = 0..KINDS.len();
    prop_oneof![
        6 => (kind.clone(), 0..6_u8, 0..3_u8).prop_map(|(kind, uid, content)| Op::Apply(kind, uid, content)),
        4 => (kind.clone(), 0..6_u8).prop_map(|(kind, uid)| Op::Remove(kind, uid)),
        1 => (kind, prop::collection::vec((0..6_u8, 0..3_u8), 0..6)).prop_map(|(kind, all)| Op::List(kind, all)),
        12 => Just(Op::Next),
        3 => (0..10_usize).prop_map(Op::Leave),
        1 => (0..20_usize).prop_map(Op::Restart),
    ]
}

/// The cloud, which prunes nothing at a commit: what it holds, what this
/// connection sent, what is in the window.
#[derive(Default)]
struct Receiver {
    holds: BTreeMap<(Kind, String), String>,
    connection: BTreeMap<(Kind, String), String>,
    window: VecDeque<(Bytes, Option<Deletion>)>,
    commits: usize,
}

impl Receiver {
    fn send(&mut self, frame: Bytes, deletion: Option<Deletion>) {
        let message = read(&frame);
        self.window.push_back((frame, deletion));
        let Some((kind, uid, content, action)) = message else {
            self.commits += 1;
            assert_eq!(self.commits, 1, "one commit a connection");
            return;
        };
        let before = match action {
            Action::Delete => self.connection.remove(&(kind, uid)),
            _ => self.connection.insert((kind, uid), content.clone()),
        };
        match (action, before) {
            (Action::Create, None) | (Action::Delete, _) => {}
            (Action::Update, Some(before)) => assert_ne!(before, content, "sent without a change"),
            wrong => panic!("{wrong:?}"),
        }
    }

    /// The oldest message in the window has arrived.
    fn arrive(&mut self) -> Option<Deletion> {
        let (frame, deletion) = self.window.pop_front()?;
        match read(&frame) {
            Some((kind, uid, _, Action::Delete)) => drop(self.holds.remove(&(kind, uid))),
            Some((kind, uid, content, _)) => drop(self.holds.insert((kind, uid), content)),
            None => {}
        }
        deletion
    }

    fn restart(&mut self, lose: usize) {
        self.window.truncate(self.window.len().saturating_sub(lose));
        while !self.window.is_empty() {
            self.arrive();
        }
        self.connection.clear();
        self.commits = 0;
    }
}

proptest! {
    #[test]
    fn what_the_receiver_holds_becomes_the_truth(ops in prop::collection::vec(op(), 0..200)) {
        let mut state = State::default();
        listed(&mut state);
        let (mut truth, mut receiver) = (BTreeMap::new(), Receiver::default());
        let (uid, content) = (|uid: u8| format!("u{uid}"), |content: u8| format!("c{content}"));
        for op in ops {
            match op {
                Op::Apply(kind, u, c) => {
                    state.apply(KINDS[kind], &uid(u), record(KINDS[kind], &uid(u), &content(c)), Relation::None);
                    truth.insert((KINDS[kind], uid(u)), content(c));
                }
                Op::Remove(kind, u) => {
                    state.remove(&Key(KINDS[kind], uid(u).as_str().into()), at(0));
                    truth.remove(&(KINDS[kind], uid(u)));
                }
                Op::List(kind, all) => {
                    state.begin(KINDS[kind]);
                    truth.retain(|(of, _), _| *of != KINDS[kind]);
                    for (u, c) in all {
                        state.apply(KINDS[kind], &uid(u), record(KINDS[kind], &uid(u), &content(c)), Relation::None);
                        truth.insert((KINDS[kind], uid(u)), content(c));
                    }
                    state.finish(KINDS[kind], at(0));
                }
                Op::Next => {
                    if let Some((frame, deletion)) = state.next() {
                        receiver.send(frame, deletion);
                    }
                }
                Op::Leave(count) => {
                    for _ in 0..count.min(receiver.window.len()) {
                        receiver.arrive().into_iter().for_each(|deletion| state.forget(deletion));
                    }
                }
                Op::Restart(lose) => {
                    receiver.restart(lose);
                    state.restart();
                }
            }
            prop_assert!(state.due.len() <= state.entries.len() + 1);
            prop_assert_eq!(state.counts.values().sum::<usize>(), truth.len());
        }
        if state.connected {
            while let Some((frame, deletion)) = state.next() {
                receiver.send(frame, deletion);
            }
            prop_assert_eq!(&receiver.connection, &truth, "without a restart");
        }
        receiver.restart(usize::MAX);
        state.restart();
        while let Some((frame, deletion)) = state.next() {
            receiver.send(frame, deletion);
        }
        prop_assert_eq!(receiver.commits, 1);
        prop_assert_eq!(&receiver.connection, &truth);
        receiver.restart(0);
        prop_assert_eq!(receiver.holds, truth);
    }
}

#[test]
fn the_commit_waits_for_all_that_can_be_listed_and_for_what_it_tells() {
    let mirror = Mirror::default();
    mirror.restart();
    for kind in Kind::ALL {
        assert!(mirror.next().is_none());
        mirror.begin(kind);
        if kind == Kind::Job { mirror.skip(kind) } else { mirror.finish(kind) }
    }
    assert!(mirror.next().is_none());
    let commit = InventoryCommit { has_flux: true, ..Default::default() };
    mirror.tell_with_commit(commit);
    let (frame, _) = mirror.next().unwrap();
    let told = StreamDataRequest::decode(frame).unwrap().request.unwrap();
    assert_eq!(told, Request::InventoryCommit(commit));
    mirror.tell_with_commit(InventoryCommit::default());
    assert!(mirror.next().is_none(), "once per connection");
}

#[test]
fn the_commit_waits_again_for_a_kind_that_can_be_listed_after_all() {
    let mirror = Mirror::default();
    mirror.tell_with_commit(InventoryCommit::default());
    for kind in Kind::ALL {
        mirror.begin(kind);
        if kind == Kind::Pod { mirror.skip(kind) } else { mirror.finish(kind) }
    }
    let commits = || {
        let frames = std::iter::from_fn(|| mirror.next());
        frames.filter(|(frame, _)| read(frame).is_none()).count()
    };
    mirror.restart();
    assert_eq!(commits(), 1, "nobody waits for what can't be listed");
    mirror.begin(Kind::Pod);
    mirror.restart();
    assert_eq!(commits(), 0);
    mirror.skip(Kind::Pod);
    assert_eq!(commits(), 1, "it was tried in vain");
    mirror.begin(Kind::Pod);
    mirror.apply(Kind::Pod, "1", &v1::Pod::default());
    mirror.restart();
    assert_eq!(commits(), 0);
    mirror.finish(Kind::Pod);
    assert_eq!(commits(), 1);
    mirror.begin(Kind::Pod);
    mirror.restart();
    assert_eq!(commits(), 1, "what was listed is known while it is listed again");
    mirror.skip(Kind::Pod);
    mirror.begin(Kind::Pod);
    mirror.restart();
    assert_eq!(commits(), 1, "and when that fails");
}
