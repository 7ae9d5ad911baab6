//! A cluster that is known by heart: what the mirror is told, and so what the
//! cloud must have.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kestrel_aggregator::inventory::{Kind, Mirror};
use kestrel_dev_cloud::Record;
use kestrel_proto::cloud::v1::{Action, InventoryCommit, Namespace, Pod};

const PODS: u64 = 200;
const NAMESPACES: u64 = 10;

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

struct State {
    mirror: Mirror,
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<String, Pod>,
    changes: u64,
}

impl Cluster {
    /// A cluster of which the mirror knows everything.
    pub(crate) fn new(mirror: Mirror) -> Self {
        let (namespaces, pods) = (BTreeMap::new(), BTreeMap::new());
        let mut state = State { mirror, namespaces, pods, changes: 0 };
        for kind in Kind::ALL {
            state.mirror.begin(kind);
            match kind {
                Kind::Namespace => (0..NAMESPACES).for_each(|number| state.add_namespace(number)),
                Kind::Pod => (0..PODS).for_each(|number| state.set_pod(number, 0)),
                _ => {}
            }
            state.mirror.finish(kind);
        }
        state.mirror.tell_with_commit(InventoryCommit::default());
        Self(Arc::new(Mutex::new(state)))
    }

    /// Something happens: mostly a pod changes, some go and others come.
    pub(crate) fn change(&self) {
        let mut state = self.0.lock().unwrap();
        state.changes += 1;
        let number = fastrand::u64(0..PODS + 20);
        let uid = uid(number);
        if fastrand::u8(0..4) == 0 && state.pods.remove(&uid).is_some() {
            state.mirror.remove(Kind::Pod, &uid);
        } else {
            let version = state.changes;
            state.set_pod(number, version);
        }
    }

    /// What differs between the cloud's record and the cluster; `None`: nothing.
    pub(crate) fn difference(&self, record: &Record) -> Option<String> {
        let state = self.0.lock().unwrap();
        if record.inventory.commits().is_empty() {
            return Some("no inventory was completed yet".to_owned());
        }
        let pods: BTreeMap<String, Pod> = record
            .inventory
            .of_kind("pod")
            .map(|pod| pod.message.decode::<Pod>().unwrap())
            .map(|pod| (pod.uid.clone(), Pod { action: Action::Unspecified.into(), ..pod }))
            .collect();
        let namespaces: BTreeMap<String, Namespace> = record
            .inventory
            .of_kind("namespace")
            .map(|namespace| namespace.message.decode::<Namespace>().unwrap())
            .map(|namespace| {
                let action = Action::Unspecified.into();
                (namespace.uid.clone(), Namespace { action, ..namespace })
            })
            .collect();
        let others = record.inventory.counts().len();
        let pod = differing(&state.pods, &pods);
        let namespace = differing(&state.namespaces, &namespaces);
        (pod.is_some() || namespace.is_some() || others != 2)
            .then(|| format!("pod {pod:?}, namespace {namespace:?}, {others} kinds"))
    }
}

/// The first thing that is not the same in both.
fn differing<T: PartialEq + Clone>(
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> Option<(String, Option<T>, Option<T>)> {
    let mut uids = expected.keys().chain(found.keys());
    let uid = uids.find(|uid| expected.get(*uid) != found.get(*uid))?;
    Some((uid.clone(), expected.get(uid).cloned(), found.get(uid).cloned()))
}

fn uid(number: u64) -> String {
    format!("uid-{number}")
}

impl State {
    fn add_namespace(&mut self, number: u64) {
        let namespace =
            Namespace { name: format!("shop-{number}"), uid: uid(number), ..Namespace::default() };
        self.mirror.apply(Kind::Namespace, &namespace.uid, &namespace);
        self.namespaces.insert(namespace.uid.clone(), namespace);
    }

    fn set_pod(&mut self, number: u64, version: u64) {
        let pod = Pod {
            name: format!("web-{number}"),
            namespace: format!("shop-{}", number % NAMESPACES),
            uid: uid(number),
            phase: "Running".to_owned(),
            labels: [("version".to_owned(), version.to_string())].into(),
            ..Pod::default()
        };
        self.mirror.apply(Kind::Pod, &pod.uid, &pod);
        self.pods.insert(pod.uid.clone(), pod);
    }
}
