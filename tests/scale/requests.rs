//! What the aggregator asked the API server for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// What is listed and watched in a cluster without add-ons.
pub(crate) const WATCHED: [&str; 12] = [
    "cronjobs",
    "daemonsets",
    "deployments",
    "events",
    "jobs",
    "namespaces",
    "networkpolicies",
    "nodes",
    "pods",
    "replicasets",
    "services",
    "statefulsets",
];

/// Lists and streaming lists by resource; the pages of one list are one, and what is asked of a
/// resource that is not there is none. `kubeconfig` lies beside the log of requests, in which nobody
/// else lists.
pub(crate) fn lists(kubeconfig: &Path) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(kubeconfig.with_file_name("requests")).unwrap();
    let mut lists: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in log.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let uri = request["requestURI"].as_str().unwrap();
        let is_list = request["verb"] == "list" && !uri.contains("continue=");
        let is_ours = request["user"]["username"] == "kubernetes-admin";
        let is_there = request["responseStatus"]["code"] != 404;
        if is_ours && is_there && (is_list || uri.contains("sendInitialEvents=true")) {
            let resource = request["objectRef"]["resource"].as_str().unwrap().to_owned();
            lists.entry(resource).or_default().insert(request["auditID"].as_str().unwrap().to_owned());
        }
    }
    lists.into_iter().map(|(resource, requests)| (resource, requests.len())).collect()
}
