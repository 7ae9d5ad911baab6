use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::signals::{
    note::{Note, Voice},
    register::Register,
    told::Told,
};

/// Any time, as seconds since 1970.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn node(uid: &str, conditions: &Value, spec: Value) -> core::Node {
    let meta = json!({"name": "n", "uid": uid, "creationTimestamp": at(-3600).to_string()});
    let object = json!({"metadata": meta, "spec": spec, "status": {"conditions": conditions}});
    serde_json::from_value(object).unwrap()
}

/// Type, status and reason of each.
fn conditions(all: &[(&str, &str, &str)]) -> Value {
    let condition = |(kind, status, reason): &(&str, &str, &str)| {
        json!({"type": kind, "status": status, "reason": reason, "message": "m",
               "lastHeartbeatTime": at(0).to_string(), "lastTransitionTime": at(-5).to_string()})
    };
    all.iter().map(condition).collect()
}

fn host(all: &[(&str, &str)]) -> Vec<NodeCondition> {
    let condition = |(kind, status): &(&str, &str)| NodeCondition {
        r#type: (*kind).to_owned(),
        status: (*status).to_owned(),
        ..Default::default()
    };
    all.iter().map(condition).collect()
}

const READY: (&str, &str, &str) = ("Ready", "True", "KubeletReady");

/// What one node goes through, and what is told of it.
struct Story {
    far: Told,
    register: Register<Node>,
    now: i64,
}

impl Story {
    fn new() -> Self {
        let far = Told::new();
        let register = Register::new(Thresholds::default(), far.lane());
        register.tick(at(0));
        Self { far, register, now: 0 }
    }

    fn sees(&mut self, all: &[(&str, &str, &str)], spec: Value) -> Vec<String> {
        self.now += 1;
        let node = Node::seen(&node("u", &conditions(all), spec), at(self.now));
        self.register.seen("n", node, at(self.now));
        self.told()
    }

    fn hears(&mut self, all: &[(&str, &str)]) -> Vec<String> {
        self.now += 1;
        self.register.reported("n", Node::reported(host(all), at(self.now)), at(self.now));
        self.told()
    }

    fn waits(&mut self, seconds: i64) -> Vec<String> {
        self.now += seconds;
        self.register.tick(at(self.now));
        self.told()
    }

    /// Action, UID, and every condition with its status.
    fn told(&self) -> Vec<String> {
        let short = |request| {
            let Request::NodeConditionChange(change) = request else { panic!("{request:?}") };
            let conditions = change.conditions.iter();
            let conditions =
                conditions.map(|condition| format!(" {}={}", condition.r#type, condition.status));
            let action = change.action().as_str_name().trim_start_matches("ACTION_").to_owned();
            format!("{action} {}{}", change.uid, conditions.collect::<String>())
        };
        self.far.next().into_iter().map(short).collect()
    }
}

const NOTHING: Vec<String> = Vec::new();

#[test]
fn what_the_api_server_shows() {
    let mut story = Story::new();
    let lost = "NodeStatusUnknown";
    for (seen, expected, why) in [
        (&[READY][..], None, "healthy at first"),
        (&[READY, ("MemoryPressure", "False", "Enough")], None, "a new condition that is healthy"),
        (&[READY, ("MemoryPressure", "True", "Low")], Some("CREATE"), "pressure"),
        (&[READY, ("MemoryPressure", "True", "Low")], None, "a heartbeat"),
        (&[("Ready", "False", "NotReady"), ("MemoryPressure", "True", "Low")], Some("UPDATE"), "worse"),
        (&[("Ready", "Unknown", lost), ("MemoryPressure", "Unknown", lost)], Some("UPDATE"), "lost"),
        (&[READY, ("NetworkUnavailable", "True", "NoRoute")], Some("UPDATE"), "another problem"),
        (&[READY, ("NetworkUnavailable", "False", "Route")], Some("UPDATE"), "recovered"),
        (&[READY, ("PIDPressure", "Unknown", lost)], None, "unknown pressure is no incident"),
        (&[READY, ("KernelDeadlock", "True", "DockerHung")], Some("CREATE"), "node-problem-detector's"),
        (&[READY, ("KernelDeadlock", "False", "NoDeadlock")], Some("UPDATE"), "and over"),
        (&[READY, ("StorageReady", "True", ""), ("EtcdIsVoter", "True", "")], None, "well if True"),
        (&[READY, ("StorageReady", "False", "")], Some("CREATE"), "ill if not"),
    ] {
        let told = story.sees(seen, json!({}));
        let actions: Vec<_> = told.iter().map(|signal| signal.split(' ').next().unwrap()).collect();
        assert_eq!(actions, expected.into_iter().collect::<Vec<_>>(), "{why}");
    }
}

#[test]
fn what_its_host_shows_beside_it() {
    let mut story = Story::new();
    let [well, ill, unclear] =
        ["True", "False", "Unknown"].map(|status| [("kestrel.ai/RuntimeReady", status)]);
    assert_eq!(story.hears(&well), NOTHING, "nobody knows the node");
    assert_eq!(story.register.count(Node::exists), 0);
    assert_eq!(
        story.sees(&[READY], json!({})),
        ["UPDATE u Ready=True kestrel.ai/RuntimeReady=True"],
        "the first report, once the node is known"
    );
    assert_eq!(story.register.count(Node::exists), 1);
    assert_eq!(story.hears(&well), NOTHING, "the same again");
    assert_eq!(
        story.hears(&[ill[0], ("Ready", "False")]),
        ["CREATE u Ready=True kestrel.ai/RuntimeReady=False"],
        "only what is the host's to say"
    );
    assert_eq!(story.sees(&[READY], json!({})), NOTHING, "a heartbeat");
    assert_eq!(story.hears(&unclear), ["UPDATE u Ready=True kestrel.ai/RuntimeReady=Unknown"]);
    assert_eq!(story.hears(&well), NOTHING, "what could not be seen for a moment");
    assert_eq!(
        story.hears(&[("kestrel.ai/DiskPressure", "True")]),
        ["CREATE u Ready=True kestrel.ai/DiskPressure=True"]
    );
}

#[test]
fn a_first_report_is_told_once_and_also_of_a_known_node() {
    let mut story = Story::new();
    assert_eq!(story.sees(&[READY], json!({})), NOTHING);
    assert_eq!(
        story.hears(&[("kestrel.ai/DiskPressure", "False")]),
        ["UPDATE u Ready=True kestrel.ai/DiskPressure=False"]
    );
    assert_eq!(story.hears(&[("kestrel.ai/DiskPressure", "False")]), NOTHING);
}

#[test]
fn what_an_agent_said_before_it_fell_silent_does_not_last() {
    const ENOUGH: (&str, &str, &str) = ("MemoryPressure", "False", "Enough");
    let mut story = Story::new();
    let (low, well) = ([("kestrel.ai/DiskPressure", "True")], [("kestrel.ai/DiskPressure", "False")]);
    assert_eq!(story.sees(&[ENOUGH], json!({})), NOTHING);
    let opened = ["CREATE u MemoryPressure=False kestrel.ai/DiskPressure=True"];
    assert_eq!(story.hears(&low), opened);
    // Heartbeats of the kubelet in between, as the node is well but for its agent.
    let silence = |story: &mut Story, seconds: i64| {
        let told = story.waits(seconds);
        [told, story.sees(&[ENOUGH], json!({}))].concat()
    };
    assert_eq!(silence(&mut story, 600), NOTHING);
    assert_eq!(story.hears(&low), NOTHING, "it reports again");
    assert_eq!(silence(&mut story, 600), NOTHING);
    assert_eq!(silence(&mut story, 357), NOTHING);
    assert_eq!(story.waits(1), ["UPDATE u MemoryPressure=False kestrel.ai/DiskPressure=Unknown"]);
    assert_eq!(story.waits(3), NOTHING);
    let back = ["UPDATE u MemoryPressure=False kestrel.ai/DiskPressure=False"];
    assert_eq!(story.hears(&well), back, "its first report after that is told");
    assert_eq!(story.hears(&low), opened);
}

#[test]
fn cordon_and_taints() {
    let mut story = Story::new();
    let cordoned = json!({"unschedulable": true, "taints": [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule", "timeAdded": at(-60).to_string()},
    ]});
    assert_eq!(story.sees(&[READY], cordoned), ["CREATE u Ready=True kestrel.ai/Cordoned=True"]);
    assert_eq!(story.sees(&[READY], json!({})), ["UPDATE u Ready=True kestrel.ai/Cordoned=False"]);

    let taints = |keys: &[&str]| {
        let taint = |key: &&str| json!({"key": key, "value": "v", "effect": "NoExecute"});
        json!({"taints": keys.iter().map(taint).collect::<Vec<_>>()})
    };
    let repeated = ["node.kubernetes.io/not-ready", "node-role.kubernetes.io/etcd", "CriticalAddonsOnly"];
    assert_eq!(story.sees(&[READY], taints(&repeated)), NOTHING, "conditions and roles");
    assert_eq!(story.waits(600), NOTHING);
    assert_eq!(story.sees(&[READY], taints(&["node.cilium.io/agent-not-ready"])), NOTHING, "it may pass");
    assert_eq!(story.waits(60), NOTHING);
    assert_eq!(story.sees(&[READY], taints(&["node.cilium.io/agent-not-ready"])), NOTHING);
    assert_eq!(story.waits(58), NOTHING);
    assert_eq!(story.waits(1), ["CREATE u Ready=True kestrel.ai/Tainted=True"], "but did not");
    let both = taints(&["node.cilium.io/agent-not-ready", "node.kubernetes.io/out-of-service"]);
    assert_eq!(
        story.sees(&[READY], both),
        ["UPDATE u Ready=True kestrel.ai/Tainted=True"],
        "one more, at once"
    );
    assert_eq!(story.sees(&[READY], json!({})), ["UPDATE u Ready=True kestrel.ai/Tainted=False"]);
    let soft = json!({"taints": [{"key": "gpu", "effect": "NoSchedule"}]});
    assert_eq!(story.sees(&[READY], soft), NOTHING, "what a node is for");
}

#[test]
fn a_new_node_may_take_its_time_to_join() {
    let new = |ready: &str, network: &str, second: i64| {
        let all = [("Ready", ready, "R"), ("NetworkUnavailable", network, "N")];
        let mut object = node("u", &conditions(&all), json!({}));
        object.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        Node::seen(&object, at(second))
    };
    let story = Story::new();
    let shows = |ready: &str, network: &str, second: i64| {
        story.register.seen("n", new(ready, network, second), at(second));
        story.register.tick(at(second));
        story.told()
    };
    assert_eq!(shows("False", "True", 1), NOTHING, "its network is being made");
    assert_eq!(shows("True", "True", 50), NOTHING);
    assert_eq!(shows("False", "True", 60), ["CREATE u NetworkUnavailable=True Ready=False"], "it was ready");
    assert_eq!(shows("True", "True", 119), ["UPDATE u NetworkUnavailable=True Ready=True"]);
    assert_eq!(shows("True", "True", 120), ["CREATE u NetworkUnavailable=True Ready=True"], "still none");
    assert_eq!(shows("True", "False", 121), ["UPDATE u NetworkUnavailable=False Ready=True"]);
    assert_eq!(shows("True", "True", 122), ["CREATE u NetworkUnavailable=True Ready=True"], "at once");
}

#[test]
fn a_kubelet_that_is_silent() {
    let mut story = Story::new();
    assert_eq!(story.sees(&[READY], json!({})), NOTHING);
    assert_eq!(story.waits(15 * 60 - 2), NOTHING);
    assert_eq!(story.waits(1), ["CREATE u Ready=True kestrel.ai/HeartbeatMissing=True"]);
    assert_eq!(
        story.sees(&[("Ready", "Unknown", "NodeStatusUnknown")], json!({})),
        ["UPDATE u Ready=Unknown kestrel.ai/HeartbeatMissing=False"],
        "Kubernetes has noticed as well"
    );
}

#[test]
fn a_node_that_is_gone_or_another_one() {
    let mut story = Story::new();
    story.sees(&[("Ready", "False", "NotReady")], json!({}));
    story.hears(&[("kestrel.ai/DiskPressure", "False")]);
    story.told();
    let another = Node::seen(&node("v", &conditions(&[READY]), json!({})), at(9));
    story.register.seen("n", another, at(9));
    assert_eq!(story.told(), ["DELETE u Ready=False kestrel.ai/DiskPressure=False"]);
    assert_eq!(
        story.hears(&[("kestrel.ai/DiskPressure", "False")]),
        ["UPDATE v Ready=True kestrel.ai/DiskPressure=False"],
        "another host"
    );
    story.register.gone("n", at(10));
    assert_eq!(story.told(), NOTHING, "nothing was wrong with it");
}

#[test]
fn the_message_names_what_is_wrong_since_when() {
    let problem = condition::problem(
        &NodeCondition {
            r#type: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: "KubeletNotReady".to_owned(),
            message: "container runtime network not ready".to_owned(),
            last_transition_time: Some(convert::timestamp(at(-5))),
            ..Default::default()
        },
        at(0),
    );
    let expected = Finding {
        kind: "Ready".into(),
        reason: "KubeletNotReady".to_owned(),
        message: "Ready is False: container runtime network not ready".to_owned(),
        since: at(-5),
        count: 0,
    };
    assert_eq!(problem, Some(expected));
}

#[test]
fn a_time_that_has_not_come_yet_is_the_first_sight() {
    let story = Story::new();
    let shows = |second: i64| {
        let mut object = node("u", &conditions(&[("Ready", "False", "R")]), json!({}));
        object.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(300)));
        story.register.seen("n", Node::seen(&object, at(second)), at(second));
        story.register.tick(at(second));
        story.told()
    };
    assert_eq!(shows(1), NOTHING);
    assert_eq!(shows(120), NOTHING);
    assert_eq!(shows(121), ["CREATE u Ready=False"]);
}

#[test]
fn a_taint_that_came_with_its_node_says_what_the_node_is_for() {
    let dedicated = |added: Option<i64>| {
        let added = added.map(|second| at(second).to_string());
        json!({"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoExecute", "timeAdded": added}]})
    };
    // The node was created an hour ago.
    for (added, is_told) in [
        (None, false),
        (Some(-3600), false),
        (Some(-3500), false),
        (Some(-3400), true),
        (Some(-1), true),
        (Some(7200), true),
    ] {
        let mut story = Story::new();
        let mut told = story.sees(&[READY], dedicated(added));
        told.extend(story.waits(100));
        told.extend(story.sees(&[READY], dedicated(added)));
        told.extend(story.waits(100));
        assert_eq!(told.len(), usize::from(is_told), "{added:?}: {told:?}");
    }
    let mut story = Story::new();
    assert_eq!(story.sees(&[READY], json!({})), NOTHING);
    assert_eq!(story.sees(&[READY], dedicated(None)), NOTHING);
    assert_eq!(story.waits(120), ["CREATE u Ready=True kestrel.ai/Tainted=True"], "somebody drains it");
    assert_eq!(story.sees(&[READY], json!({})), ["UPDATE u Ready=True kestrel.ai/Tainted=False"]);
    assert_eq!(story.sees(&[READY], dedicated(None)), NOTHING);
    assert_eq!(story.waits(120), ["CREATE u Ready=True kestrel.ai/Tainted=True"], "again");
}

#[test]
fn a_node_that_recovered_while_nobody_watched_is_told_by_its_host_or_by_us() {
    for has_agent in [true, false] {
        let mut story = Story::new();
        let note = Note::default();
        note.left("n", at(0));
        let voice = Voice { lane: story.far.lane(), note };
        story.register = Register::new(Thresholds::default(), voice);
        assert_eq!(story.sees(&[READY], json!({})), NOTHING);
        if has_agent {
            story.hears(&[]);
        }
        let expected = if has_agent { NOTHING } else { vec!["UPDATE u Ready=True".to_owned()] };
        assert_eq!(story.waits(100), expected);
        assert_eq!(story.waits(100), NOTHING);
        assert_eq!(story.waits(900), ["CREATE u Ready=True kestrel.ai/HeartbeatMissing=True"]);
    }
}

proptest! {
    /// Whatever the two show: one CREATE, any UPDATEs, an end; no signal without a
    /// change; a heartbeat is none.
    #[test]
    fn opens_and_ends_match(
        steps in prop::collection::vec((any::<bool>(), 0..3_usize, 0..3_usize, any::<bool>()), 1..30)
    ) {
        let statuses = ["True", "False", "Unknown"];
        let mut story = Story::new();
        let mut is_open = false;
        story.sees(&[READY], json!({}));
        story.hears(&[]);
        for (is_host, first, second, is_cordoned) in steps {
            let (first, second) = (statuses[first], statuses[second]);
            let step = |story: &mut Story| if is_host {
                story.hears(&[("kestrel.ai/RuntimeReady", first), ("kestrel.ai/DiskPressure", second)])
            } else {
                story.sees(&[("Ready", first, ""), ("KernelDeadlock", second, "")], json!({"unschedulable": is_cordoned}))
            };
            for signal in step(&mut story) {
                prop_assert_eq!(signal.starts_with("CREATE"), !is_open, "{}", &signal);
                let is_wrong = ["Deadlock=True", "Pressure=True", "Cordoned=True", "Ready=False", " Ready=Unknown"];
                is_open = is_wrong.iter().any(|wrong| signal.contains(wrong));
            }
            prop_assert_eq!(step(&mut story), NOTHING);
        }
        story.sees(&[READY], json!({}));
        story.hears(&[]);
        story.register.gone("n", at(story.now));
        let last = story.told();
        prop_assert!(last.is_empty(), "{:?}", last);
    }
}
