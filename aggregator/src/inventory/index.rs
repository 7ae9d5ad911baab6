//! Which workload a pod belongs to, which workloads a policy selects, and
//! which workload has an IP address.
//!
//! A policy's workloads follow the pods. Pods of one owner with equal labels
//! are a group, and a policy is only asked again when a group comes or goes:
//! another pod of a known group costs a few look-ups, however many policies
//! there are.

mod former;
mod texts;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{
    Kind,
    key::{Key, Uid},
    selector::Selector,
};
use former::Former;
use texts::Texts;

/// What the index has to know of an object beside its record.
#[derive(Clone, Debug)]
pub enum Relation<'a> {
    /// Nothing.
    None,
    /// It is this pod.
    Pod(&'a core::Pod),
    /// It is a ReplicaSet or a Job: it runs pods, maybe for another workload.
    Controller(&'a ObjectMeta),
    /// It is a policy that is for these pods.
    Policy(Selection),
    /// It has addresses: a Service.
    Service(&'a core::Service),
    /// The same: a node.
    Node(&'a core::Node),
}

/// The pods that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Their namespace; `None`: every namespace.
    pub namespace: Option<String>,
    /// Their labels.
    pub selector: Selector,
}

/// Sorted by key.
type Labels = Arc<[(Arc<str>, Arc<str>)]>;

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// `namespace.Kind.name`: the workload that its pod is of, a Service, or a node, which has no namespace.
    pub workload: Arc<str>,
    /// Of the pod.
    pub labels: Labels,
    /// Where it runs; empty: it does not run.
    pub node: Arc<str>,
}

#[derive(Default)]
pub(super) struct Index {
    pods: HashMap<Uid, Pod>,
    namespaces: HashMap<Arc<str>, Namespace>,
    /// Namespaces of the ReplicaSets and Jobs.
    controllers: HashMap<Uid, Arc<str>>,
    /// Of the policies, `None`: every namespace.
    selections: HashMap<Key, Option<Arc<str>>>,
    /// Policies that are for every namespace.
    everywhere: Policies,
    addresses: HashMap<IpAddr, Uid>,
    former: Former,
    /// Services and nodes, and their addresses.
    places: HashMap<Key, (Resident, Vec<IpAddr>)>,
    place_at: HashMap<IpAddr, Key>,
    /// Policies whose workloads may have changed.
    changed: BTreeSet<Key>,
    texts: Texts,
}

struct Pod {
    namespace: Arc<str>,
    owner: Uid,
    labels: Labels,
    addresses: Addresses,
    node: Arc<str>,
    /// Nothing was its own before.
    created: Timestamp,
}

/// One of each family at most.
type Addresses = [Option<IpAddr>; 2];

#[derive(Default)]
struct Namespace {
    owners: HashMap<Uid, Owner>,
    policies: Policies,
}

/// What pods belong to: their controller, or a pod itself that has none.
struct Owner {
    /// `namespace.Kind.name` of the workload for which it runs the pods: its
    /// own controller, as far as known, or itself.
    workload: Arc<str>,
    /// It is a ReplicaSet or a Job that has been seen.
    seen: bool,
    /// How many of its pods have these labels.
    groups: HashMap<Labels, usize>,
}

type Policies = BTreeMap<Key, Policy>;

struct Policy {
    selector: Selector,
    /// How many groups of each workload it selects.
    workloads: BTreeMap<Arc<str>, usize>,
}

impl Index {
    /// The object is so.
    pub(super) fn apply(&mut self, key: &Key, relation: Relation<'_>) {
        match relation {
            Relation::None => {}
            Relation::Pod(pod) => self.pod(&key.1, pod),
            Relation::Controller(meta) => self.controller(key, meta),
            Relation::Policy(selection) => self.policy(key, selection),
            Relation::Service(service) => {
                let (meta, addresses) = (&service.metadata, of_service(service));
                self.place(key, meta, "Service", "", addresses);
            }
            Relation::Node(node) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                self.place(key, &node.metadata, "Node", name, of_node(node));
            }
        }
    }

    /// The object is gone.
    pub(super) fn remove(&mut self, key: &Key) {
        match key.0 {
            Kind::Pod => {
                if let Some(pod) = self.pods.remove(&key.1) {
                    self.release(&key.1, &pod);
                    self.leave(&pod);
                }
            }
            Kind::ReplicaSet | Kind::Job => self.remove_controller(&key.1),
            Kind::NetworkPolicy | Kind::AuthorizationPolicy => self.remove_policy(key),
            Kind::Service | Kind::Node => self.remove_place(key),
            _ => {}
        }
    }

    /// Whether there are any.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Policies whose workloads may have changed since the last call.
    pub(super) fn changed(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.changed)
    }

    /// The workloads of a policy, sorted.
    pub(super) fn workloads(&self, policy: &Key) -> impl Iterator<Item = &str> {
        let policies = self.selections.get(policy).and_then(|namespace| match namespace {
            Some(namespace) => self.namespaces.get(namespace).map(|namespace| &namespace.policies),
            None => Some(&self.everywhere),
        });
        policies
            .and_then(|policies| policies.get(policy))
            .into_iter()
            .flat_map(|policy| policy.workloads.keys().map(|workload| &**workload))
    }

    /// Who had this address for itself at that time. Pods in the network of their node share its
    /// address, which is the node's.
    pub(super) fn resident(&self, address: IpAddr, time: Timestamp) -> Option<Resident> {
        let pod = || {
            let pod = self.pods.get(self.addresses.get(&address)?)?;
            (pod.created <= time).then(|| self.of_pod(pod)).flatten()
        };
        let place = || Some(self.places.get(self.place_at.get(&address)?)?.0.clone());
        self.former.at(address, time).cloned().or_else(pod).or_else(place)
    }

    fn of_pod(&self, pod: &Pod) -> Option<Resident> {
        let owner = self.namespaces.get(&pod.namespace)?.owners.get(&pod.owner)?;
        let (labels, node) = (Arc::clone(&pod.labels), Arc::clone(&pod.node));
        Some(Resident { workload: Arc::clone(&owner.workload), labels, node })
    }

    fn place(&mut self, key: &Key, meta: &ObjectMeta, kind: &str, node: &str, addresses: Vec<IpAddr>) {
        self.remove_place(key);
        if addresses.is_empty() {
            return;
        }
        let [namespace, name] = [&meta.namespace, &meta.name].map(|name| name.as_deref().unwrap_or_default());
        let workload = self.texts.intern(&target(namespace, kind, name));
        let resident = Resident { workload, labels: [].into(), node: self.texts.intern(node) };
        self.place_at.extend(addresses.iter().map(|address| (*address, key.clone())));
        self.places.insert(key.clone(), (resident, addresses));
    }

    fn remove_place(&mut self, key: &Key) {
        for address in self.places.remove(key).map(|(_, addresses)| addresses).unwrap_or_default() {
            if self.place_at.get(&address) == Some(key) {
                self.place_at.remove(&address);
            }
        }
    }

    fn pod(&mut self, uid: &Uid, object: &core::Pod) {
        let meta = &object.metadata;
        let (owner, kind, name) = match controller(meta) {
            // A Node is no workload: a static pod stands for itself.
            Some(owner) if owner.kind != "Node" => {
                (Uid::from(owner.uid.as_str()), &*owner.kind, &*owner.name)
            }
            _ => (uid.clone(), "Pod", meta.name.as_deref().unwrap_or_default()),
        };
        let addresses = addresses(object);
        if let Some(known) = self.pods.get(uid)
            && known.owner == owner
            && same(&known.labels, meta)
        {
            self.hold(uid, addresses);
            return;
        }
        let namespace = self.texts.intern(meta.namespace.as_deref().unwrap_or_default());
        let labels = meta.labels.iter().flatten();
        let labels = labels.map(|(key, value)| (self.texts.intern(key), self.texts.intern(value))).collect();
        let place = self.namespaces.entry(Arc::clone(&namespace)).or_default();
        let workload = || self.texts.intern(&target(&namespace, kind, name));
        let labels = place.enter(&mut self.everywhere, &owner, workload, labels, &mut self.changed);
        if let Some(before) = self.pods.remove(uid) {
            self.release(uid, &before);
            self.leave(&before);
        }
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let node = self.texts.intern(node);
        let created = meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0);
        let pod = Pod { namespace, owner, labels, addresses: [None; 2], node, created };
        self.pods.insert(uid.clone(), pod);
        self.hold(uid, addresses);
    }

    /// The last of two pods to be seen with an address has it.
    fn hold(&mut self, uid: &Uid, addresses: Addresses) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let before = std::mem::replace(&mut pod.addresses, addresses);
        let is_new = |address: &IpAddr| !before.contains(&Some(*address));
        let gone = before.into_iter().flatten().filter(|address| !addresses.contains(&Some(*address)));
        gone.for_each(|address| self.vacate(address, uid));
        for address in addresses.into_iter().flatten().filter(is_new) {
            if let Some(other) = self.addresses.insert(address, uid.clone())
                && other != *uid
                && let Some(resident) = self.pods.get(&other).and_then(|pod| self.of_pod(pod))
            {
                self.former.leave(address, resident, Timestamp::now());
            }
        }
    }

    /// The pod, which is known, has this address no more.
    fn vacate(&mut self, address: IpAddr, uid: &Uid) {
        if let Some(resident) = self.pods.get(uid).and_then(|pod| self.of_pod(pod)) {
            self.give_back(address, uid, resident);
        }
    }

    fn give_back(&mut self, address: IpAddr, uid: &Uid, resident: Resident) {
        if let hash_map::Entry::Occupied(held) = self.addresses.entry(address)
            && held.get() == uid
        {
            held.remove();
            self.former.leave(address, resident, Timestamp::now());
        }
    }

    /// The pod that was this one has no address any more.
    fn release(&mut self, uid: &Uid, pod: &Pod) {
        if let Some(resident) = self.of_pod(pod) {
            pod.addresses
                .iter()
                .flatten()
                .for_each(|address| self.give_back(*address, uid, resident.clone()));
        }
    }

    fn leave(&mut self, pod: &Pod) {
        if let Some(namespace) = self.namespaces.get_mut(&pod.namespace) {
            namespace.leave(&mut self.everywhere, &pod.owner, &pod.labels, &mut self.changed);
            self.forget_if_empty(&pod.namespace);
        }
    }

    fn controller(&mut self, Key(kind, uid): &Key, meta: &ObjectMeta) {
        let namespace = self.texts.intern(meta.namespace.as_deref().unwrap_or_default());
        let (kind, name) = match controller(meta) {
            Some(owner) => (owner.kind.clone(), &*owner.name),
            None => (format!("{kind:?}"), meta.name.as_deref().unwrap_or_default()),
        };
        let workload = self.texts.intern(&target(&namespace, &kind, name));
        let place = self.namespaces.entry(Arc::clone(&namespace)).or_default();
        place.resolve(&mut self.everywhere, uid, workload, &mut self.changed);
        self.controllers.insert(uid.clone(), namespace);
    }

    /// Its last pods still belong to the workload that it told.
    fn remove_controller(&mut self, uid: &Uid) {
        if let Some(name) = self.controllers.remove(uid)
            && let Some(namespace) = self.namespaces.get_mut(&name)
        {
            if let Some(owner) = namespace.owners.get_mut(uid) {
                owner.seen = false;
            }
            namespace.forget_if_unused(uid);
            self.forget_if_empty(&name);
        }
    }

    fn policy(&mut self, key: &Key, Selection { namespace, selector }: Selection) {
        let namespace = namespace.map(|name| self.texts.intern(&name));
        if self.selections.get(key) == Some(&namespace) {
            let policies = match &namespace {
                Some(name) => self.namespaces.get(name).map(|namespace| &namespace.policies),
                None => Some(&self.everywhere),
            };
            if policies.and_then(|policies| policies.get(key)).is_some_and(|known| known.selector == selector)
            {
                return;
            }
        }
        self.remove_policy(key);
        let mut policy = Policy { selector, workloads: BTreeMap::new() };
        match &namespace {
            Some(name) => {
                let namespace = self.namespaces.entry(Arc::clone(name)).or_default();
                policy.select_all(namespace);
                namespace.policies.insert(key.clone(), policy);
            }
            None => {
                self.namespaces.values().for_each(|namespace| policy.select_all(namespace));
                self.everywhere.insert(key.clone(), policy);
            }
        }
        self.selections.insert(key.clone(), namespace);
        self.changed.insert(key.clone());
    }

    fn remove_policy(&mut self, key: &Key) {
        self.changed.remove(key);
        match self.selections.remove(key) {
            Some(Some(name)) => {
                if let Some(namespace) = self.namespaces.get_mut(&name) {
                    namespace.policies.remove(key);
                }
                self.forget_if_empty(&name);
            }
            Some(None) => drop(self.everywhere.remove(key)),
            None => {}
        }
    }

    fn forget_if_empty(&mut self, name: &Arc<str>) {
        let empty = |namespace: &Namespace| namespace.owners.is_empty() && namespace.policies.is_empty();
        if self.namespaces.get(name).is_some_and(empty) {
            self.namespaces.remove(name);
        }
    }
}

impl Namespace {
    /// A pod is of this group now. Returns the labels that the group keeps.
    fn enter(
        &mut self,
        everywhere: &mut Policies,
        uid: &Uid,
        workload: impl FnOnce() -> Arc<str>,
        labels: Labels,
        changed: &mut BTreeSet<Key>,
    ) -> Labels {
        let fresh = || Owner { workload: workload(), seen: false, groups: HashMap::new() };
        let owner = self.owners.entry(uid.clone()).or_insert_with(fresh);
        match owner.groups.entry(labels) {
            hash_map::Entry::Occupied(mut group) => {
                *group.get_mut() += 1;
                Arc::clone(group.key())
            }
            hash_map::Entry::Vacant(group) => {
                let labels = Arc::clone(group.key());
                group.insert(1);
                let policies = self.policies.iter_mut().chain(everywhere);
                policies.for_each(|(key, policy)| policy.add(key, &owner.workload, &labels, changed));
                labels
            }
        }
    }

    /// A pod is of this group no more.
    fn leave(&mut self, everywhere: &mut Policies, uid: &Uid, labels: &Labels, changed: &mut BTreeSet<Key>) {
        let Some(owner) = self.owners.get_mut(uid) else { return };
        let Some(pods) = owner.groups.get_mut(labels) else { return };
        *pods -= 1;
        if *pods == 0 {
            owner.groups.remove(labels);
            let policies = self.policies.iter_mut().chain(everywhere);
            policies.for_each(|(key, policy)| policy.subtract(key, &owner.workload, labels, changed));
            self.forget_if_unused(uid);
        }
    }

    /// A ReplicaSet or a Job runs its pods for this workload.
    fn resolve(
        &mut self,
        everywhere: &mut Policies,
        uid: &Uid,
        workload: Arc<str>,
        changed: &mut BTreeSet<Key>,
    ) {
        let fresh = || Owner { workload: Arc::clone(&workload), seen: true, groups: HashMap::new() };
        let owner = self.owners.entry(uid.clone()).or_insert_with(fresh);
        owner.seen = true;
        let before = std::mem::replace(&mut owner.workload, workload);
        if before != owner.workload {
            for (key, policy) in self.policies.iter_mut().chain(everywhere) {
                for labels in owner.groups.keys() {
                    policy.add(key, &owner.workload, labels, changed);
                    policy.subtract(key, &before, labels, changed);
                }
            }
        }
    }

    fn forget_if_unused(&mut self, uid: &Uid) {
        if self.owners.get(uid).is_some_and(|owner| !owner.seen && owner.groups.is_empty()) {
            self.owners.remove(uid);
        }
    }
}

impl Policy {
    fn selects(&self, labels: &Labels) -> bool {
        self.selector.selects(|key| {
            let place = labels.binary_search_by(|(of, _)| (**of).cmp(key)).ok()?;
            labels.get(place).map(|(_, value)| &**value)
        })
    }

    fn select_all(&mut self, namespace: &Namespace) {
        for owner in namespace.owners.values() {
            let groups = owner.groups.keys().filter(|labels| self.selects(labels)).count();
            if groups > 0 {
                *self.workloads.entry(Arc::clone(&owner.workload)).or_default() += groups;
            }
        }
    }

    /// A group has come.
    fn add(&mut self, key: &Key, workload: &Arc<str>, labels: &Labels, changed: &mut BTreeSet<Key>) {
        if self.selects(labels) {
            let groups = self.workloads.entry(Arc::clone(workload)).or_default();
            *groups += 1;
            if *groups == 1 {
                changed.insert(key.clone());
            }
        }
    }

    /// A group has gone.
    fn subtract(&mut self, key: &Key, workload: &Arc<str>, labels: &Labels, changed: &mut BTreeSet<Key>) {
        if self.selects(labels)
            && let Some(groups) = self.workloads.get_mut(workload)
        {
            *groups -= 1;
            if *groups == 0 {
                self.workloads.remove(workload);
                changed.insert(key.clone());
            }
        }
    }
}

/// The one owner that manages the object. There is no guess by a name.
fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The form of `target_workloads`.
fn target(namespace: &str, kind: &str, name: &str) -> String {
    format!("{namespace}.{kind}.{name}")
}

fn same(labels: &Labels, meta: &ObjectMeta) -> bool {
    let known = labels.iter().map(|(key, value)| (&**key, &**value));
    known.eq(meta.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())))
}

/// The addresses that are the pod's own: one in the network of its node has
/// none, and one that ended has given them back, whatever its status says.
fn addresses(pod: &core::Pod) -> Addresses {
    let of_node = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let Some(status) = pod.status.as_ref().filter(|_| !of_node) else { return [None; 2] };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return [None; 2];
    }
    let mut addresses = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok());
    [addresses.next(), addresses.next()]
}

/// Where a Service is reached.
fn of_service(service: &core::Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let of_cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let texts = of_cluster.chain(spec.external_ips.iter().flatten());
    texts.chain(ingress.filter_map(|ingress| ingress.ip.as_ref())).filter_map(|ip| ip.parse().ok()).collect()
}

fn of_node(node: &core::Node) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    addresses.into_iter().flatten().filter_map(|address| address.address.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
