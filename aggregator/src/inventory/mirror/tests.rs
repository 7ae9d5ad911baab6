//! A receiver that applies what it is sent must hold the truth.

use kestrel_proto::cloud::v1;
use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(30);
const KINDS: [Kind; 4] = [Kind::Namespace, Kind::OwnerlessPod, Kind::Node, Kind::Pod];

/// A record as a receiver reads it: kind, UID, content, action.
fn read(frame: &[u8]) -> Option<(Kind, String, String, Action)> {
    let (kind, uid, name, action) = match StreamDataRequest::decode(frame).unwrap().request.unwrap() {
        Request::Namespace(it) => (Kind::Namespace, it.uid, it.name, it.action),
        Request::Node(it) => (Kind::Node, it.uid, it.name, it.action),
        Request::Workload(it) => (Kind::OwnerlessPod, it.uid, it.name, it.action),
        Request::Pod(it) => (Kind::Pod, it.uid, it.name, it.action),
        Request::InventoryCommit(_) => return None,
        other => panic!("{other:?}"),
    };
    Some((kind, uid, name, Action::try_from(action).unwrap()))
}

fn record(kind: Kind, uid: &str, name: &str) -> Box<[u8]> {
    let (uid, name) = (uid.to_owned(), name.to_owned());
    match kind {
        Kind::Namespace => v1::Namespace { uid, name, ..Default::default() }.encode_to_vec(),
        Kind::Node => v1::Node { uid, name, ..Default::default() }.encode_to_vec(),
        Kind::Pod => v1::Pod { uid, name, ..Default::default() }.encode_to_vec(),
        _workload => v1::Workload { uid, name, ..Default::default() }.encode_to_vec(),
    }
    .into_boxed_slice()
}

fn listed(state: &mut State) {
    for kind in Kind::ALL {
        state.listed(kind);
    }
}

fn drain(state: &mut State, now: Instant) -> Vec<Option<(String, Action)>> {
    let next = || state.next(now);
    std::iter::from_fn(next).map(|frame| read(&frame).map(|(_, uid, _, action)| (uid, action))).collect()
}

fn sent(uid: &str, action: Action) -> Option<(String, Action)> {
    Some((uid.to_owned(), action))
}

#[test]
fn kinds_come_in_order_and_the_commit_after_all_that_was_due() {
    let (mut state, now) = (State::new(WINDOW), Instant::now());
    for kind in [Kind::Pod, Kind::OwnerlessPod, Kind::Node, Kind::Namespace] {
        state.apply(kind, &format!("{kind:?}"), record(kind, &format!("{kind:?}"), "a"));
    }
    state.restart(now);
    let inventory = ["Namespace", "Node", "OwnerlessPod", "Pod"].map(|uid| sent(uid, Action::Create));
    assert_eq!(drain(&mut state, now), inventory, "no commit before the lists are complete");
    listed(&mut state);
    assert_eq!(drain(&mut state, now), [None]);
    state.restart(now);
    state.apply(Kind::Node, "new", record(Kind::Node, "new", "a"));
    assert_eq!(drain(&mut state, now), [&inventory[..], &[None, sent("new", Action::Create)]].concat());
}

#[test]
fn what_did_not_change_on_the_wire_is_not_sent() {
    let (mut state, now) = (State::new(WINDOW), Instant::now());
    listed(&mut state);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"));
    state.restart(now);
    assert_eq!(drain(&mut state, now), [sent("1", Action::Create), None]);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"));
    assert_eq!(drain(&mut state, now), []);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "b"));
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"));
    assert_eq!(drain(&mut state, now), [], "changed and changed back");
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "b"));
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "c"));
    assert_eq!(drain(&mut state, now), [sent("1", Action::Update)], "coalesced");
}

#[test]
fn a_deletion_is_told_again_until_it_has_left_the_resend_window() {
    let (mut state, start) = (State::new(WINDOW), Instant::now());
    listed(&mut state);
    state.apply(Kind::Pod, "1", record(Kind::Pod, "1", "a"));
    state.restart(start);
    drain(&mut state, start);
    state.remove(&Key(Kind::Pod, "1".into()), start);
    state.restart(start + 10 * WINDOW);
    let deletion = [sent("1", Action::Delete), None];
    assert_eq!(drain(&mut state, start + 10 * WINDOW), deletion, "untold, however old");
    state.restart(start + 11 * WINDOW - Duration::from_secs(1));
    assert_eq!(drain(&mut state, start + 11 * WINDOW), deletion, "sent inside the window");
    state.restart(start + 12 * WINDOW);
    assert_eq!(drain(&mut state, start + 12 * WINDOW), [None], "out of the window");
    assert!(state.entries.is_empty());
}

#[test]
fn a_standby_forgets_what_it_never_told() {
    let (mut state, start) = (State::new(WINDOW), Instant::now());
    for (uid, at) in [("1", start), ("2", start + WINDOW)] {
        state.apply(Kind::Pod, uid, record(Kind::Pod, uid, "a"));
        state.remove(&Key(Kind::Pod, uid.into()), at);
    }
    assert_eq!(state.entries.keys().map(|key| &*key.1).collect::<Vec<_>>(), ["2"]);
}

#[derive(Clone, Debug)]
enum Op {
    Apply(usize, u8, u8),
    Remove(usize, u8),
    /// a list of a kind that holds these and nothing else
    List(usize, Vec<(u8, u8)>),
    Next,
    Wait(u8),
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
        2 => (0..40_u8).prop_map(Op::Wait),
        1 => (0..20_usize).prop_map(Op::Restart),
    ]
}

/// The cloud: what it holds, what this connection sent, what is on the way.
#[derive(Default)]
struct Receiver {
    holds: BTreeMap<(Kind, String), String>,
    connection: BTreeMap<(Kind, String), String>,
    under_way: Vec<(Instant, Vec<u8>)>,
    commits: usize,
}

impl Receiver {
    fn send(&mut self, frame: &[u8], now: Instant) {
        self.under_way.push((now, frame.to_vec()));
        let Some((kind, uid, content, action)) = read(frame) else {
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

    fn restart(&mut self, lose: usize, now: Instant) {
        let window = self.under_way.partition_point(|(at, _)| *at + WINDOW <= now);
        self.under_way.truncate(self.under_way.len().saturating_sub(lose).max(window));
        for (_, frame) in std::mem::take(&mut self.under_way) {
            match read(&frame) {
                Some((kind, uid, _, Action::Delete)) => drop(self.holds.remove(&(kind, uid))),
                Some((kind, uid, content, _)) => drop(self.holds.insert((kind, uid), content)),
                None => {}
            }
        }
        self.connection.clear();
        self.commits = 0;
    }
}

proptest! {
    #[test]
    fn what_the_receiver_holds_becomes_the_truth(ops in prop::collection::vec(op(), 0..200)) {
        let mut state = State::new(WINDOW);
        listed(&mut state);
        let (mut truth, mut receiver, mut now) = (BTreeMap::new(), Receiver::default(), Instant::now());
        let (uid, content) = (|uid: u8| format!("u{uid}"), |content: u8| format!("c{content}"));
        for op in ops {
            match op {
                Op::Apply(kind, u, c) => {
                    state.apply(KINDS[kind], &uid(u), record(KINDS[kind], &uid(u), &content(c)));
                    truth.insert((KINDS[kind], uid(u)), content(c));
                }
                Op::Remove(kind, u) => {
                    state.remove(&Key(KINDS[kind], uid(u).into()), now);
                    truth.remove(&(KINDS[kind], uid(u)));
                }
                Op::List(kind, all) => {
                    state.begin(KINDS[kind]);
                    truth.retain(|(of, _), _| *of != KINDS[kind]);
                    for (u, c) in all {
                        state.apply(KINDS[kind], &uid(u), record(KINDS[kind], &uid(u), &content(c)));
                        truth.insert((KINDS[kind], uid(u)), content(c));
                    }
                    state.finish(KINDS[kind], now);
                }
                Op::Next => {
                    if let Some(frame) = state.next(now) {
                        receiver.send(&frame, now);
                    }
                }
                Op::Wait(seconds) => now += Duration::from_secs(seconds.into()),
                Op::Restart(lose) => {
                    receiver.restart(lose, now);
                    state.restart(now);
                }
            }
            prop_assert!(state.due.len() <= state.entries.len() + 1);
        }
        receiver.restart(usize::MAX, now);
        state.restart(now);
        while let Some(frame) = state.next(now) {
            receiver.send(&frame, now);
        }
        prop_assert_eq!(receiver.commits, 1);
        prop_assert_eq!(&receiver.connection, &truth);
        receiver.restart(0, now);
        prop_assert_eq!(receiver.holds, truth);
    }
}

#[test]
fn a_kind_that_cannot_be_listed_is_not_complete() {
    let mirror = Mirror::new(WINDOW);
    let of = Kind::ALL.len() - 1;
    assert_eq!(mirror.watches(), (0, of));
    for kind in [Kind::Pod, Kind::OwnerlessPod, Kind::Node] {
        mirror.begin(kind);
        mirror.finish(kind);
    }
    assert_eq!(mirror.watches(), (2, of), "both kinds of pods are one watch");
    mirror.skip(Kind::Node);
    mirror.skip(Kind::Job);
    assert_eq!(mirror.watches(), (1, of));
    let missing = mirror.missing();
    assert!(missing.contains(&Kind::Node) && !missing.contains(&Kind::Pod) && missing.len() == of - 1);
}
