use kestrel_proto::cloud::v1;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn key(kind: Kind, uid: &str) -> Key {
    Key(kind, uid.into())
}

/// A pod in the namespace `a`.
fn pod(name: &str, owner: Value, labels: Value, more: Value) -> core::Pod {
    let owners = if owner.is_null() { vec![] } else { vec![owner] };
    let meta = json!({"name": name, "namespace": "a", "labels": labels, "ownerReferences": owners});
    let mut value = json!({"metadata": meta, "spec": {"containers": []}});
    for (key, part) in more.as_object().into_iter().flatten() {
        value[key] = part.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

fn meta(name: &str, owner: Value) -> ObjectMeta {
    let owners = if owner.is_null() { vec![] } else { vec![owner] };
    serde_json::from_value(json!({"name": name, "namespace": "a", "ownerReferences": owners})).unwrap()
}

fn policy(index: &mut Index, uid: &str, namespace: Option<&str>, selector: &v1::LabelSelector) -> Key {
    let key = key(Kind::NetworkPolicy, uid);
    let selection = Selection { namespace: namespace.map(str::to_owned), selector: Selector::new(selector) };
    index.apply(&key, Relation::Policy(selection));
    key
}

/// The workloads of everything in the namespace `a`.
fn all(index: &mut Index) -> Vec<String> {
    let all = policy(index, "all", Some("a"), &v1::LabelSelector::default());
    index.workloads(&all).map(str::to_owned).collect()
}

#[test]
fn a_workload_is_found_by_references_and_never_by_a_name() {
    let mut index = Index::default();
    let rows = [
        ("1", owner("ReplicaSet", "web-5d9f", "rs-of-deployment")),
        ("2", owner("ReplicaSet", "canary-5d9f", "rs-of-rollout")),
        ("3", owner("ReplicaSet", "bare-5d9f", "bare-rs")),
        ("4", owner("Job", "nightly-28", "job-of-cron-job")),
        ("5", owner("Job", "nightly-report", "bare-job")),
        ("6", owner("StatefulSet", "db-0", "sts")),
        ("7", owner("DaemonSet", "agent", "ds")),
        ("8", Value::Null),
        ("9", owner("Node", "n1", "node")),
        ("10", json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "cm"})),
        ("11", owner("ReplicaSet", "not-yet-seen", "unseen-rs")),
    ];
    for (uid, owner) in &rows {
        let object = pod(&format!("pod-{uid}"), owner.clone(), json!({}), json!({}));
        index.apply(&key(Kind::Pod, uid), Relation::Pod(&object));
    }
    for (kind, uid, name, owner) in [
        (Kind::ReplicaSet, "rs-of-deployment", "web-5d9f", owner("Deployment", "web", "d")),
        (Kind::ReplicaSet, "rs-of-rollout", "canary-5d9f", owner("Rollout", "canary", "r")),
        (Kind::ReplicaSet, "bare-rs", "bare-5d9f", Value::Null),
        (Kind::Job, "job-of-cron-job", "nightly-28", owner("CronJob", "nightly", "c")),
        (Kind::Job, "bare-job", "nightly-report", Value::Null),
    ] {
        index.apply(&key(kind, uid), Relation::Controller(&meta(name, owner)));
    }
    let expected = [
        "a.CronJob.nightly",
        "a.DaemonSet.agent",
        "a.Deployment.web",
        "a.Job.nightly-report",
        "a.Pod.pod-10",
        "a.Pod.pod-8",
        "a.Pod.pod-9",
        "a.ReplicaSet.bare-5d9f",
        "a.ReplicaSet.not-yet-seen",
        "a.Rollout.canary",
        "a.StatefulSet.db-0",
    ];
    assert_eq!(all(&mut index), expected);
}

#[test]
fn an_address_is_of_the_pod_that_has_it_for_itself() {
    let mut index = Index::default();
    let status = |phase: &str, ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"status": {"phase": phase, "podIP": ips.first().map(|ip| &ip["ip"]), "podIPs": ips}})
    };
    let seen = |index: &mut Index, uid: &str, more: Value| {
        let object = pod(uid, owner("DaemonSet", uid, uid), json!({}), more);
        index.apply(&key(Kind::Pod, uid), Relation::Pod(&object));
    };
    let then = |index: &Index, ip: &str, time| {
        index.resident(ip.parse().unwrap(), time).map(|resident| resident.workload.to_string())
    };
    let at = |index: &Index, ip: &str| then(index, ip, Timestamp::now());
    seen(&mut index, "x", status("Running", &["10.0.0.1", "fd00::1"]));
    assert_eq!(at(&index, "10.0.0.1").as_deref(), Some("a.DaemonSet.x"));
    assert_eq!(at(&index, "fd00:0::1").as_deref(), Some("a.DaemonSet.x"));
    seen(&mut index, "x", status("Succeeded", &["10.0.0.1", "fd00::1"]));
    assert_eq!(at(&index, "10.0.0.1"), None, "it has ended");
    seen(&mut index, "x", status("Running", &["10.0.0.1"]));
    let before = Timestamp::now();
    seen(&mut index, "y", status("Running", &["10.0.0.1"]));
    index.remove(&key(Kind::Pod, "x"));
    assert_eq!(at(&index, "10.0.0.1").as_deref(), Some("a.DaemonSet.y"), "it was given on");
    assert_eq!(
        then(&index, "10.0.0.1", before).as_deref(),
        Some("a.DaemonSet.x"),
        "it was another one's then"
    );
    assert_eq!(then(&index, "fd00::1", before), None);
    let mut of_node = status("Running", &["192.0.2.1"]);
    of_node["spec"] = json!({"containers": [], "hostNetwork": true});
    seen(&mut index, "z", of_node);
    assert_eq!(at(&index, "192.0.2.1"), None, "the node has it");
    let before = Timestamp::now();
    index.remove(&key(Kind::Pod, "y"));
    assert!(index.addresses.is_empty());
    assert_eq!(then(&index, "10.0.0.1", before).as_deref(), Some("a.DaemonSet.y"), "until it was removed");
    let mut young = status("Running", &["10.0.0.9"]);
    young["metadata"] = json!({"namespace": "a", "creationTimestamp": "2026-11-22T07:00:00Z"});
    let object = pod("young", Value::Null, json!({}), young);
    index.apply(&key(Kind::Pod, "young"), Relation::Pod(&object));
    let time = |text: &str| text.parse().unwrap();
    assert_eq!(then(&index, "10.0.0.9", time("2026-11-22T06:59:59Z")), None, "it was not there yet");
    assert!(then(&index, "10.0.0.9", time("2026-11-22T07:00:00Z")).is_some());
}

#[test]
fn services_and_nodes_have_addresses_too() {
    let mut index = Index::default();
    let at = |index: &Index, ip: &str| {
        let resident = index.resident(ip.parse().unwrap(), Timestamp::now())?;
        Some(format!("{} {}", resident.workload, resident.node))
    };
    let service = json!({
        "metadata": {"name": "db", "namespace": "a"},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::2"], "externalIPs": ["192.0.2.7"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}, {"hostname": "db.example.com"}]}},
    });
    let service = serde_json::from_value(service).unwrap();
    index.apply(&key(Kind::Service, "s"), Relation::Service(&service));
    let addresses =
        json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}]);
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
    index.apply(&key(Kind::Node, "n"), Relation::Node(&serde_json::from_value(node).unwrap()));
    for ip in ["10.96.0.1", "fd00::2", "192.0.2.7", "192.0.2.8"] {
        assert_eq!(at(&index, ip).as_deref(), Some("a.Service.db "), "{ip}");
    }
    assert_eq!(at(&index, "192.0.2.1").as_deref(), Some(".Node.n1 n1"));
    let headless = json!({"metadata": {"name": "db", "namespace": "a"}, "spec": {"clusterIP": "None"}});
    let headless = serde_json::from_value(headless).unwrap();
    index.apply(&key(Kind::Service, "s"), Relation::Service(&headless));
    assert_eq!(at(&index, "10.96.0.1"), None);
    index.remove(&key(Kind::Node, "n"));
    assert!(index.places.is_empty() && index.place_at.is_empty());
}

#[test]
fn another_pod_of_a_known_group_asks_no_policy() {
    let mut index = Index::default();
    policy(&mut index, "p", Some("a"), &v1::LabelSelector::default());
    index.changed();
    for (uid, changes) in [("1", true), ("2", false), ("1", false)] {
        let object = pod(uid, owner("DaemonSet", "x", "x"), json!({"app": "x"}), json!({}));
        index.apply(&key(Kind::Pod, uid), Relation::Pod(&object));
        assert_eq!(!index.changed().is_empty(), changes);
    }
    index.remove(&key(Kind::Pod, "1"));
    assert!(index.changed().is_empty());
    index.remove(&key(Kind::Pod, "2"));
    assert!(!index.changed().is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Pod { uid: u8, owner: Option<u8>, label: u8 },
    RemovePod(u8),
    Controller { uid: u8, of: Option<u8> },
    RemoveController(u8),
    Policy { uid: u8, everywhere: bool, label: Option<u8> },
    RemovePolicy(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let few = || 0..4_u8;
    prop_oneof![
        6 => (0..8_u8, prop::option::of(few()), 0..3_u8).prop_map(|(uid, owner, label)| Op::Pod { uid, owner, label }),
        4 => (0..8_u8).prop_map(Op::RemovePod),
        3 => (few(), prop::option::of(0..2_u8)).prop_map(|(uid, of)| Op::Controller { uid, of }),
        2 => few().prop_map(Op::RemoveController),
        3 => (few(), any::<bool>(), prop::option::of(0..3_u8)).prop_map(|(uid, everywhere, label)| Op::Policy { uid, everywhere, label }),
        2 => few().prop_map(Op::RemovePolicy),
    ]
}

/// The same without any index: asks every pod for every policy.
#[derive(Default)]
struct Model {
    /// owner and label
    pods: BTreeMap<u8, (Option<u8>, u8)>,
    /// workload and whether the controller exists
    controllers: BTreeMap<u8, (String, bool)>,
    policies: BTreeMap<u8, Option<u8>>,
}

impl Model {
    fn workloads(&self, policy: u8) -> BTreeSet<String> {
        let Some(label) = self.policies.get(&policy) else { return BTreeSet::new() };
        let selected = self.pods.iter().filter(|(_, (_, of))| label.is_none_or(|label| label == *of));
        let workload = |(uid, (owner, _)): (&u8, &(Option<u8>, u8))| match owner {
            None => format!("a.Pod.p{uid}"),
            Some(owner) => self.controllers[owner].0.clone(),
        };
        selected.map(workload).collect()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Pod { uid, owner, label } => {
                self.pods.insert(uid, (owner, label));
                if let Some(owner) = owner {
                    self.controllers
                        .entry(owner)
                        .or_insert_with(|| (format!("a.ReplicaSet.r{owner}"), false));
                }
            }
            Op::RemovePod(uid) => drop(self.pods.remove(&uid)),
            Op::Controller { uid, of } => {
                let workload =
                    of.map_or_else(|| format!("a.ReplicaSet.r{uid}"), |of| format!("a.Deployment.d{of}"));
                self.controllers.insert(uid, (workload, true));
            }
            Op::RemoveController(uid) => {
                if let Some((_, seen)) = self.controllers.get_mut(&uid) {
                    *seen = false;
                }
            }
            Op::Policy { uid, label, .. } => drop(self.policies.insert(uid, label)),
            Op::RemovePolicy(uid) => drop(self.policies.remove(&uid)),
        }
        let pods = &self.pods;
        self.controllers
            .retain(|uid, (_, seen)| *seen || pods.values().any(|(owner, _)| *owner == Some(*uid)));
    }
}

fn apply(index: &mut Index, op: &Op) {
    let replica_set = |uid: u8| key(Kind::ReplicaSet, &format!("r{uid}"));
    match *op {
        Op::Pod { uid, owner: of, label } => {
            let of = of.map_or(Value::Null, |of| owner("ReplicaSet", &format!("r{of}"), &format!("r{of}")));
            let object = pod(&format!("p{uid}"), of, json!({"l": label.to_string(), "same": ""}), json!({}));
            index.apply(&key(Kind::Pod, &uid.to_string()), Relation::Pod(&object));
        }
        Op::RemovePod(uid) => index.remove(&key(Kind::Pod, &uid.to_string())),
        Op::Controller { uid, of } => {
            let of = of.map_or(Value::Null, |of| owner("Deployment", &format!("d{of}"), "d"));
            index.apply(&replica_set(uid), Relation::Controller(&meta(&format!("r{uid}"), of)));
        }
        Op::RemoveController(uid) => index.remove(&replica_set(uid)),
        Op::Policy { uid, everywhere, label } => {
            let match_labels = label.map(|label| ("l".to_owned(), label.to_string())).into_iter().collect();
            let selector = v1::LabelSelector { match_labels, ..Default::default() };
            policy(index, &uid.to_string(), (!everywhere).then_some("a"), &selector);
        }
        Op::RemovePolicy(uid) => index.remove(&key(Kind::NetworkPolicy, &uid.to_string())),
    }
}

proptest! {
    #[test]
    fn the_workloads_of_policies_follow_pods_and_owners(ops in prop::collection::vec(op(), 0..80)) {
        let (mut index, mut model) = (Index::default(), Model::default());
        for op in &ops {
            let before: Vec<_> = (0..4).map(|policy| model.workloads(policy)).collect();
            apply(&mut index, op);
            model.apply(op);
            let changed = index.changed();
            for (uid, before) in before.into_iter().enumerate() {
                let (policy, now) = (key(Kind::NetworkPolicy, &uid.to_string()), model.workloads(uid as u8));
                prop_assert!(index.workloads(&policy).eq(now.iter().map(String::as_str)));
                let told = changed.contains(&policy) || !model.policies.contains_key(&(uid as u8));
                prop_assert!(told || before == now);
            }
        }
        for uid in 0..8 {
            apply(&mut index, &Op::RemovePod(uid));
            apply(&mut index, &Op::RemoveController(uid));
            apply(&mut index, &Op::RemovePolicy(uid));
        }
        prop_assert!(index.namespaces.is_empty() && index.pods.is_empty() && index.controllers.is_empty());
        prop_assert!(index.selections.is_empty() && index.everywhere.is_empty() && index.changed().is_empty());
    }
}
