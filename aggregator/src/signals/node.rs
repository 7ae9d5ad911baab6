//! One node: what the API server says of it and what its host shows.

mod condition;
mod taint;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kestrel_proto::cloud::v1::{Action, NodeCondition, NodeConditionChange, stream_events_request::Request};
use prost::Message as _;

use super::{
    incident::{Finding, Judgement, PREFIX, Subject, after},
    thresholds::Thresholds,
};
use crate::inventory::convert;
use taint::Taint;

/// Nobody may schedule pods on it.
const CORDONED: &str = "Cordoned";
/// It says that it is ready, but has not said so for too long.
const HEARTBEAT_MISSING: &str = "HeartbeatMissing";
/// A taint drives pods away from it.
const TAINTED: &str = "Tainted";

/// Agents report every five minutes at least. Of a host that was not heard of for three reports nothing is
/// known.
const HOST_SILENT: Duration = Duration::from_mins(16);

/// A node. It is kept also when nothing is wrong with it, because its host
/// reports only changes and knows nothing else of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// As the API server shows it; `None` before it does.
    view: Option<View>,
    /// As its host shows it; `None` before it reports.
    host: Option<Host>,
    /// The first report of the host has not been told.
    owes_report: bool,
}

/// What one of the two shows: conditions, and which of them are problems.
#[derive(Clone, Debug)]
struct Half {
    /// An encoded `NodeConditionChange`: a fifth of the memory. The host's has
    /// only conditions.
    encoded: Box<[u8]>,
    problems: Vec<Finding>,
}

#[derive(Clone, Debug)]
struct Host {
    half: Half,
    /// When it reported.
    heard: Timestamp,
}

#[derive(Clone, Debug)]
struct View {
    uid: String,
    /// When the API server showed it so.
    seen: Timestamp,
    half: Half,
    created: Timestamp,
    /// Which of [`condition::JOINING`] it has shown as they should be.
    joined: Vec<&'static str>,
    heartbeat: Option<Heartbeat>,
    cordoned: Option<Timestamp>,
    taints: Vec<Taint>,
}

/// A node says that it is ready.
#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    /// When, by the node's clock.
    said: Timestamp,
    /// When that was heard: then by our clock, if it was not the first.
    heard: Timestamp,
}

impl Node {
    /// The API server shows the node so.
    pub(super) fn seen(object: &core::Node, now: Timestamp) -> Self {
        let message = convert::node_condition_change(object);
        let spec = object.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let is_cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
        let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().find(|it| it.type_ == "Ready" && it.status == "True");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let half = Half::new(&message, now);
        let view = View {
            uid: message.uid.clone(),
            seen: now,
            created: object.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0.min(now)),
            joined: condition::joined(&message.conditions, &half.problems),
            half,
            heartbeat: heartbeat.map(|said| Heartbeat { said, heard: said.min(now) }),
            cordoned: is_cordoned.then(|| taint::of_cordon(taints).unwrap_or(now).min(now)),
            taints: taint::of_trouble(taints, now),
        };
        Self { view: Some(view), ..Self::default() }
    }

    /// Its host shows these conditions and no others.
    ///
    /// The first report is told even if nothing is wrong. It is the state from
    /// which changes are told, and it closes what an earlier leader opened and
    /// nobody saw end.
    pub(super) fn reported(mut conditions: Vec<NodeCondition>, now: Timestamp) -> Self {
        // The rest is for the API server to say.
        conditions.retain(|condition| condition.r#type.starts_with(PREFIX));
        let message = NodeConditionChange { conditions, ..Default::default() };
        let host = Host { half: Half::new(&message, now), heard: now };
        Self { view: None, host: Some(host), owes_report: true }
    }

    /// The API server shows it.
    pub(super) fn exists(&self) -> bool {
        self.view.is_some()
    }
}

impl Half {
    fn new(message: &NodeConditionChange, now: Timestamp) -> Self {
        let problems = message.conditions.iter().filter_map(|it| condition::problem(it, now)).collect();
        Self { encoded: message.encode_to_vec().into(), problems }
    }
}

impl Host {
    /// From when on what it said is too old, if it says nothing more.
    fn silent_from(&self) -> Timestamp {
        after(self.heard, HOST_SILENT)
    }
}

/// Nobody sees it since the host was `heard` last.
fn lose_sight(condition: &mut NodeCondition, heard: Timestamp) {
    condition.status = "Unknown".to_owned();
    condition.reason = "AgentSilent".to_owned();
    condition.message = format!("the node agent last reported at {heard}; it said: {}", condition.message);
    condition.last_transition_time = Some(convert::timestamp(after(heard, HOST_SILENT)));
}

impl Subject for Node {
    fn follows(&mut self, earlier: &Self) {
        match (&mut self.view, &earlier.view) {
            (Some(view), Some(earlier)) => {
                view.created = view.created.min(earlier.created);
                view.joined.extend(&earlier.joined);
                view.joined.sort_unstable();
                view.joined.dedup();
                if let (Some(heartbeat), Some(earlier)) = (&mut view.heartbeat, earlier.heartbeat) {
                    let is_news = heartbeat.said != earlier.said;
                    heartbeat.heard = if is_news { view.seen } else { earlier.heard };
                }
                view.cordoned = view.cordoned.map(|now| earlier.cordoned.unwrap_or(now).min(now));
                taint::follow(&mut view.taints, &earlier.taints);
            }
            (view, earlier) => *view = view.take().or_else(|| earlier.clone()),
        }
        match (&self.host, &earlier.host) {
            (None, before) => {
                self.host.clone_from(before);
                self.owes_report = earlier.owes_report;
            }
            // After a silence its report is the first again.
            (Some(host), Some(before)) if host.heard < before.silent_from() => {
                self.owes_report = earlier.owes_report;
            }
            _ => {}
        }
    }

    fn replaces(&self, earlier: &Self) -> bool {
        matches!((&self.view, &earlier.view), (Some(view), Some(earlier)) if view.uid != earlier.uid)
    }

    fn judge(&self, now: Timestamp, thresholds: &Thresholds) -> Judgement {
        let Some(view) = &self.view else { return Judgement::default() };
        let mut judgement = Judgement::default();
        if let Some(host) = self.host.as_ref().filter(|host| now < host.silent_from()) {
            judgement.findings.clone_from(&host.half.problems);
            judgement.reconsider(host.silent_from());
        }
        for problem in &view.half.problems {
            if condition::JOINING.iter().any(|kind| *kind == problem.kind && !view.joined.contains(kind)) {
                let joins = after(view.created, thresholds.creating);
                judgement.add_from(joins, now, || problem.clone());
            } else {
                judgement.findings.push(problem.clone());
            }
        }
        if let Some(since) = view.cordoned {
            judgement.findings.push(Finding {
                kind: CORDONED.into(),
                reason: "Unschedulable".to_owned(),
                message: "The node is cordoned: no new pods are scheduled on it until it is uncordoned"
                    .to_owned(),
                since,
                count: 0,
            });
        }
        taint::judge(&view.taints, view.created, now, thresholds, &mut judgement);
        if let Some(heartbeat) = view.heartbeat {
            let Heartbeat { said, heard } = heartbeat;
            judgement.add_from(after(heard, thresholds.heartbeat), now, || Finding {
                kind: HEARTBEAT_MISSING.into(),
                reason: "KubeletSilent".to_owned(),
                message: format!(
                    "The node is said to be Ready, but its kubelet last reported at {said}: the kubelet \
                     or its way to the API server may be broken"
                ),
                since: heard,
                count: 0,
            });
        }
        judgement.in_order()
    }

    fn is_kept(&self) -> bool {
        true
    }

    /// The host's first report says that it is, where there is one. A heartbeat is always due.
    fn is_well(&self, judgement: &Judgement) -> bool {
        self.view.is_some() && self.host.is_none() && judgement.findings.is_empty()
    }

    fn owes_a_signal(&mut self) -> bool {
        self.view.is_some() && std::mem::take(&mut self.owes_report)
    }

    fn request(&self, action: Action, open: &[Finding], ended: &[Finding], now: Timestamp) -> Request {
        let decoded = |half: &Half| NodeConditionChange::decode(&*half.encoded).unwrap_or_default();
        let mut message = self.view.as_ref().map(|view| decoded(&view.half)).unwrap_or_default();
        if let Some(host) = &self.host {
            let mut conditions = decoded(&host.half).conditions;
            if now >= host.silent_from() {
                conditions.iter_mut().for_each(|condition| lose_sight(condition, host.heard));
            }
            message.conditions.extend(conditions);
        }
        // The others are conditions of the node, and are there already.
        let is_own = |finding: &&Finding| matches!(&*finding.kind, CORDONED | HEARTBEAT_MISSING | TAINTED);
        let condition = |finding: &Finding, status: &str, since| NodeCondition {
            r#type: format!("{PREFIX}{}", finding.kind),
            status: status.to_owned(),
            last_heartbeat_time: Some(convert::timestamp(now)),
            last_transition_time: Some(convert::timestamp(since)),
            reason: finding.reason.clone(),
            message: finding.message.clone(),
        };
        let is = open.iter().filter(is_own).map(|finding| condition(finding, "True", finding.since));
        let was = ended.iter().filter(is_own).map(|finding| condition(finding, "False", now));
        message.conditions.extend(is.chain(was));
        message.condition_timestamp = Some(convert::timestamp(now));
        message.set_action(action);
        Request::NodeConditionChange(message)
    }
}

#[cfg(test)]
mod tests;
