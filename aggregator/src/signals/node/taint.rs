//! Which taints of a node are trouble.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::TAINTED;
use crate::signals::{
    incident::{Finding, Judgement, after},
    thresholds::Thresholds,
};

/// A cordon's taint, which Kubernetes sets.
const CORDON: &str = "node.kubernetes.io/unschedulable";

/// Taints of Kubernetes that say by themselves that something is wrong. Its other
/// ones repeat a condition or a cordon.
const TROUBLE: [&str; 2] = ["node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown"];

/// Taints under these are repetitions, or roles: they say what a node is for.
const ORDINARY: [&str; 3] = ["node.kubernetes.io/", "node-role.kubernetes.io/", "CriticalAddonsOnly"];

/// A taint that is trouble, at once or if it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    /// key, value and effect
    text: String,
    since: Timestamp,
    /// It says by itself that something is wrong.
    is_trouble: bool,
    /// The node had it when it was first seen, and nobody says since when.
    is_first: bool,
}

/// When the node was cordoned.
pub(super) fn of_cordon(taints: &[core::Taint]) -> Option<Timestamp> {
    let taint = taints.iter().find(|taint| taint.key == CORDON)?;
    taint.time_added.as_ref().map(|time| time.0)
}

/// The taints that are trouble: those that say so, and all others that drive
/// pods away, if they stay.
pub(super) fn of_trouble(taints: &[core::Taint], now: Timestamp) -> Vec<Taint> {
    let trouble = |taint: &core::Taint| {
        let is_trouble = TROUBLE.contains(&&*taint.key);
        let is_ordinary = ORDINARY.iter().any(|start| taint.key.starts_with(start));
        let drives_away = taint.effect == "NoExecute" && !is_ordinary;
        (is_trouble || drives_away).then(|| {
            let value = taint.value.as_deref().filter(|value| !value.is_empty());
            let value = value.map(|value| format!("={value}")).unwrap_or_default();
            Taint {
                text: format!("{}{value}:{}", taint.key, taint.effect),
                since: taint.time_added.as_ref().map_or(now, |time| time.0.min(now)),
                is_trouble,
                is_first: taint.time_added.is_none(),
            }
        })
    };
    let mut taints: Vec<_> = taints.iter().filter_map(trouble).collect();
    taints.sort_by(|a, b| a.text.cmp(&b.text));
    taints
}

/// Taints without a time are as old as they were.
pub(super) fn follow(taints: &mut [Taint], earlier: &[Taint]) {
    for taint in taints {
        let before = earlier.iter().find(|earlier| earlier.text == taint.text);
        taint.since = before.map_or(taint.since, |before| before.since.min(taint.since));
        taint.is_first = before.is_some_and(|before| before.is_first);
    }
}

/// All taints that are trouble `now` are one finding. What came with the node, `created` then,
/// or while it joined, says what it is for.
pub(super) fn judge(
    taints: &[Taint],
    created: Timestamp,
    now: Timestamp,
    thresholds: &Thresholds,
    judgement: &mut Judgement,
) {
    let joined = after(created, thresholds.creating);
    let mut known = Vec::new();
    for taint in taints.iter().filter(|taint| taint.is_trouble || !taint.is_first && taint.since > joined) {
        let from = after(taint.since, thresholds.creating);
        if taint.is_trouble || now >= from {
            known.push(taint);
        } else {
            judgement.reconsider(from);
        }
    }
    let Some(since) = known.iter().map(|taint| taint.since).min() else { return };
    let reason = known.iter().map(|taint| &*taint.text).collect::<Vec<_>>().join(",");
    judgement.findings.push(Finding {
        kind: TAINTED.into(),
        message: format!("Pods that don't tolerate it are driven away from the node by {reason}"),
        reason,
        since,
        count: 0,
    });
}
