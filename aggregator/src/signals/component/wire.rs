//! The trouble of a component in the form of the wire: a warning about its workload.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, EventSource, KubernetesEvent, ObjectReference};

use super::{
    table::Home,
    trouble::{Trouble, View},
};
use crate::{
    inventory::convert,
    signals::{
        incident::Finding,
        uid::{hash, uuid},
    },
};

/// How the reason of an end ends.
const RECOVERED: &str = "Recovered";

/// Parts and nodes that are named.
const NAMED: usize = 10;

/// The signal that says it.
pub(super) fn signal(view: &View<'_>, action: Action, now: Timestamp) -> KubernetesEvent {
    let Home { component, kind, namespace, name } = view.home;
    let state = if view.troubles.is_empty() { RECOVERED } else { "Degraded" };
    let id = id(view.home);
    KubernetesEvent {
        // As client-go names them.
        name: format!("{name}.{:016x}", id as u64),
        namespace: if namespace.is_empty() { "default".to_owned() } else { namespace.clone() },
        uid: uuid(id),
        event_type: "Warning".to_owned(),
        reason: format!("{}{state}", component.area.name()),
        message: message(view, now),
        involved_object: Some(ObjectReference {
            kind: (*kind).to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: view.uid.to_owned(),
            api_version: if *kind == "Node" { "v1" } else { "apps/v1" }.to_owned(),
            ..ObjectReference::default()
        }),
        source: Some(EventSource { component: "kestrel-operator".to_owned(), ..EventSource::default() }),
        first_timestamp: Some(convert::timestamp(view.start)),
        last_timestamp: Some(convert::timestamp(now)),
        count: view.count.try_into().unwrap_or(i32::MAX),
        action: action.into(),
    }
}

/// Whether the signal ends what was told before.
pub(super) fn is_end(signal: &KubernetesEvent) -> bool {
    signal.action() == Action::Delete || signal.reason.ends_with(RECOVERED)
}

fn message(view: &View<'_>, now: Timestamp) -> String {
    let Home { component, kind, namespace, name } = view.home;
    let place =
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
    let who = format!("{} ({place})", component.name);
    if view.troubles.is_empty() {
        let lasted = Duration::try_from(now.duration_since(view.start)).unwrap_or_default();
        let after = if lasted.is_zero() { String::new() } else { format!(" after {}", words(lasted)) };
        return format!("{who} is well again{after}.");
    }
    let pods = view.troubles.iter().filter(|trouble| trouble.part.is_pod).count();
    let extent = match (pods, view.pods) {
        (0, _) => "is in trouble".to_owned(),
        (pods, Some(all)) => format!("is in trouble with {pods} of {all} pods"),
        (pods, None) => format!("is in trouble with {}", many(pods, "pod")),
    };
    let nodes: BTreeSet<_> =
        view.troubles.iter().filter_map(|trouble| trouble.part.node.as_deref()).collect();
    let nodes: Vec<_> = nodes.into_iter().map(str::to_owned).collect();
    // What a Deployment does, it does for all nodes.
    let on = if *kind != "Deployment" && !nodes.is_empty() {
        format!(" on {}", list(&nodes))
    } else {
        String::new()
    };
    let parts = view.troubles.iter().take(NAMED).map(|trouble| part(trouble));
    let mut sentences = vec![format!("{who} {extent}: {}{on}.", component.meaning)];
    sentences.extend(parts);
    if view.troubles.len() > NAMED {
        sentences.push(format!("And {} more.", view.troubles.len() - NAMED));
    }
    let mut message = String::new();
    for sentence in &sentences {
        let is_within = !message.is_empty() && !message.ends_with('\n');
        message.push_str(if is_within { " " } else { "" });
        message.push_str(sentence);
    }
    message.truncate(message.trim_end().len());
    message
}

/// What is wrong with a part, in sentences.
fn part(trouble: &Trouble) -> String {
    let on = trouble.part.node.as_ref().filter(|_| trouble.part.is_pod);
    let on = on.map(|node| format!(" on {node}")).unwrap_or_default();
    let mut text = format!("{}{on}: ", trouble.part.name);
    let mut findings = trouble.findings.iter().peekable();
    while let Some(Finding { message, .. }) = findings.next() {
        // Log lines stay as they are.
        let has_lines = message.contains('\n');
        text.push_str(if has_lines { message } else { message.trim_end_matches('.') });
        text.push_str(match findings.peek() {
            _ if has_lines => "\n",
            Some(_) => "; ",
            None => ".",
        });
    }
    text
}

/// The first few of them.
fn list(names: &[String]) -> String {
    let named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn many(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A time in words.
pub(in crate::signals) fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// The same whoever tells of it, as the UID of an object would be: of what it is about.
fn id(home: &Home) -> u128 {
    let Home { kind, namespace, name, .. } = home;
    hash(&format!("{kind}/{namespace}/{name}"))
}

/// The UID of the signals about it.
pub(super) fn uid(home: &Home) -> String {
    uuid(id(home))
}
