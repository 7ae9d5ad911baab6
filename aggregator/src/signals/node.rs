//! One node: what the API server says of it and what its host shows, and when
//! that is worth a signal.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, NodeCondition, NodeConditionChange};

use crate::inventory::convert;

/// Types of the conditions that a host may show begin with this.
pub const HOST_PREFIX: &str = "kestrel.ai/";

/// The signals of one node: open = CREATE, change and recovery = UPDATE.
#[derive(Default)]
pub(super) struct Node {
    /// As the API server shows it; `None` before it does.
    view: Option<NodeConditionChange>,
    /// As its host shows it.
    host: Vec<NodeCondition>,
    /// The first report of the host has not been told.
    host_untold: bool,
    deviations: BTreeSet<Deviation>,
    /// An incident is open.
    open: bool,
}

/// A condition that is not as a healthy node has it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Deviation {
    kind: String,
    status: String,
    is_problem: bool,
}

impl Node {
    /// UID of the node that the API server shows.
    pub(super) fn uid(&self) -> Option<&str> {
        self.view.as_ref().map(|view| view.uid.as_str())
    }

    /// The API server shows the node so. Returns the signal to send.
    pub(super) fn seen(&mut self, view: NodeConditionChange) -> Option<Action> {
        self.view = Some(view);
        self.judge()
    }

    /// The host shows these conditions and no others. Returns the signal to send.
    pub(super) fn reported(&mut self, conditions: Vec<NodeCondition>, is_first: bool) -> Option<Action> {
        self.host = conditions;
        self.host_untold |= is_first;
        self.judge()
    }

    /// The node as both show it; `None` while the API server does not.
    pub(super) fn message(&self, action: Action, now: Timestamp) -> Option<NodeConditionChange> {
        let mut message = self.view.clone()?;
        message.conditions.extend(self.host.iter().cloned());
        message.condition_timestamp = Some(convert::timestamp(now));
        message.set_action(action);
        Some(message)
    }

    fn judge(&mut self) -> Option<Action> {
        let view = self.view.as_ref()?;
        let deviations: BTreeSet<_> =
            view.conditions.iter().chain(&self.host).filter_map(deviation).collect();
        let was_open = std::mem::replace(&mut self.open, deviations.iter().any(|it| it.is_problem));
        let changed = std::mem::replace(&mut self.deviations, deviations) != self.deviations;
        let host_untold = std::mem::take(&mut self.host_untold);
        match (was_open, self.open) {
            (false, true) => Some(Action::Create),
            (true, _) if changed => Some(Action::Update),
            _ => host_untold.then_some(Action::Update),
        }
    }
}

fn deviation(condition: &NodeCondition) -> Option<Deviation> {
    let NodeCondition { r#type: kind, status, .. } = condition;
    let (healthy, is_problem) = match kind.as_str() {
        "Ready" | "kestrel.ai/RuntimeReady" => ("True", true),
        "MemoryPressure" | "DiskPressure" | "PIDPressure" | "NetworkUnavailable" => {
            ("False", status == "True")
        }
        kind if kind.starts_with(HOST_PREFIX) => ("False", status == "True"),
        _ => return None,
    };
    let deviation = || Deviation { kind: kind.clone(), status: status.clone(), is_problem };
    (status != healthy).then(deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: (&str, &str) = ("Ready", "True");

    fn conditions(all: &[(&str, &str)]) -> Vec<NodeCondition> {
        let condition = |(kind, status): &(&str, &str)| NodeCondition {
            r#type: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..Default::default()
        };
        all.iter().map(condition).collect()
    }

    fn view(all: &[(&str, &str)]) -> NodeConditionChange {
        NodeConditionChange { name: "n".to_owned(), conditions: conditions(all), ..Default::default() }
    }

    #[test]
    fn the_api_servers_view_alone() {
        let pressure = |status| [READY, ("MemoryPressure", status)];
        let mut node = Node::default();
        for (seen, expected, why) in [
            (&[READY][..], None, "healthy at first"),
            (&pressure("False"), None, "a new condition that is healthy"),
            (&pressure("True"), Some(Action::Create), "pressure"),
            (&pressure("True"), None, "a heartbeat"),
            (&[("Ready", "False"), ("MemoryPressure", "True")], Some(Action::Update), "worse"),
            (&[("Ready", "Unknown"), ("MemoryPressure", "Unknown")], Some(Action::Update), "lost"),
            (&[READY, ("NetworkUnavailable", "True")], Some(Action::Update), "another problem"),
            (&[READY, ("NetworkUnavailable", "False")], Some(Action::Update), "recovered"),
            (&[READY, ("PIDPressure", "Unknown")], None, "unknown pressure is no incident"),
            (&[READY, ("Custom", "True")], None, "a condition that we do not judge"),
            (&[("Ready", "False")], Some(Action::Create), "a second incident"),
        ] {
            assert_eq!(node.seen(view(seen)), expected, "{why}");
        }
        assert_eq!(
            Node::default().seen(view(&[("Ready", "False")])),
            Some(Action::Create),
            "unready at first"
        );
    }

    #[test]
    fn the_hosts_view_beside_it() {
        let mut node = Node::default();
        let runtime =
            |status| conditions(&[("kestrel.ai/RuntimeReady", status), ("kestrel.ai/DiskPressure", "False")]);
        assert_eq!(node.reported(runtime("True"), true), None, "nobody knows the node");
        assert_eq!(
            node.seen(view(&[READY])),
            Some(Action::Update),
            "the first report, once the node is known"
        );
        assert_eq!(node.reported(runtime("True"), false), None, "the same again");
        assert_eq!(
            node.reported(runtime("False"), false),
            Some(Action::Create),
            "Ready, but its runtime is dead"
        );
        assert_eq!(node.reported(runtime("Unknown"), false), Some(Action::Update), "changed");
        assert_eq!(node.reported(runtime("Unknown"), true), Some(Action::Update), "an agent's first report");
        assert_eq!(node.reported(runtime("True"), false), Some(Action::Update), "recovered");
        let full = conditions(&[("kestrel.ai/DiskPressure", "True")]);
        assert_eq!(node.reported(full, false), Some(Action::Create), "any condition of the host");
    }

    #[test]
    fn a_message_holds_both_views() {
        let mut node = Node::default();
        assert_eq!(node.message(Action::Create, Timestamp::UNIX_EPOCH), None);
        node.reported(conditions(&[("kestrel.ai/MemoryPressure", "False")]), true);
        node.seen(view(&[READY]));
        let message = node.message(Action::Update, Timestamp::UNIX_EPOCH).unwrap();
        let kinds: Vec<_> = message.conditions.iter().map(|condition| condition.r#type.as_str()).collect();
        assert_eq!(kinds, ["Ready", "kestrel.ai/MemoryPressure"]);
        assert_eq!(message.condition_timestamp.unwrap().seconds, 0);
        assert_eq!(message.action(), Action::Update);
    }
}
