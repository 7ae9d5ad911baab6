//! The trouble of an edge in the form of the wire: a warning about its first end.

use std::time::Duration;

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{Action, EventSource, KubernetesEvent, ObjectReference};

use super::{Matter, end::End, requests::Failing, trouble::Trouble};
use crate::{
    inventory::convert,
    signals::{
        component::words,
        uid::{hash, uuid},
    },
};

/// Between what, and what goes on there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Edge {
    pub(super) matter: Matter,
    pub(super) from: End,
    /// None: `from` is a name server, and what it asks is of no concern.
    pub(super) to: Option<End>,
}

/// What separates the ends in a name; it stands in no key of one.
const BETWEEN: char = '/';

impl Edge {
    /// The same whoever tells of it, and what it is noted by: `traffic/FROM/TO`.
    pub(super) fn name(&self) -> String {
        let matter = match self.matter {
            Matter::Traffic => "traffic",
            Matter::Names => "names",
            Matter::Requests(failing) => failing.words()[1],
        };
        let (from, to) = (self.from.key(), self.to.as_ref().map(End::key).unwrap_or_default());
        format!("{matter}{BETWEEN}{from}{BETWEEN}{to}")
    }

    /// The edge of this name; `None`: it is something else's.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, BETWEEN);
        let matter = match parts.next()? {
            "traffic" => Matter::Traffic,
            "names" => Matter::Names,
            word => Matter::Requests(Failing::ALL.into_iter().find(|failing| failing.words()[1] == word)?),
        };
        let from = End::of_key(parts.next()?)?;
        Some(Self { matter, from, to: End::of_key(parts.next()?) })
    }

    /// The signal that says it.
    pub(super) fn signal(
        &self,
        trouble: &Trouble,
        action: Action,
        is_over: bool,
        now: Timestamp,
    ) -> KubernetesEvent {
        let id = hash(&self.name());
        let reason = match (self.matter, is_over) {
            (Matter::Traffic, false) => "TrafficStopped",
            (Matter::Traffic, true) => "TrafficRecovered",
            (Matter::Names, false) => "NamesUnresolved",
            (Matter::Names, true) => "NamesRecovered",
            (Matter::Requests(failing), false) => failing.words()[0],
            (Matter::Requests(_), true) => "RequestsRecovered",
        };
        let message = if is_over { self.over(trouble, now) } else { self.message(trouble) };
        let api_version = self.from.api_version().to_owned();
        let End { namespace, kind, name } = self.from.clone();
        KubernetesEvent {
            // As client-go names them.
            name: format!("{name}.{:016x}", id as u64),
            namespace: if namespace.is_empty() { "default".to_owned() } else { namespace.clone() },
            uid: uuid(id),
            event_type: "Warning".to_owned(),
            reason: reason.to_owned(),
            message,
            involved_object: Some(ObjectReference {
                kind,
                namespace,
                name,
                api_version,
                ..ObjectReference::default()
            }),
            source: Some(EventSource { component: "kestrel-operator".to_owned(), ..EventSource::default() }),
            first_timestamp: Some(convert::timestamp(trouble.since)),
            last_timestamp: Some(convert::timestamp(if is_over { now } else { trouble.last })),
            count: trouble.failed.try_into().unwrap_or(i32::MAX),
            action: action.into(),
        }
    }

    fn message(&self, trouble: &Trouble) -> String {
        let Trouble { failed, worked, evidence, .. } = trouble;
        let (from, to) = self.told();
        let lasted = Duration::try_from(trouble.last.duration_since(trouble.since)).unwrap_or_default();
        let (times, what) = (many(*failed), evidence.what.join(", "));
        let within = format!("{times} in {}", words(lasted));
        let because = list("because of ", &evidence.by);
        let such_as = list("such as ", &evidence.such_as);
        match (self.matter, to) {
            (Matter::Traffic, to) => {
                let by = if evidence.by.is_empty() {
                    "; what saw it does not say by what".to_owned()
                } else {
                    format!(" by {}", evidence.by.join(", "))
                };
                let passed = match worked {
                    0 => "nothing passed there meanwhile".to_owned(),
                    worked => format!("{worked} passed there meanwhile"),
                };
                format!(
                    "{from} does not get through to {}: stopped {within} ({what}){by}; {passed}.",
                    to.unwrap_or_default()
                )
            }
            (Matter::Requests(failing), to) => format!(
                "{}: {failed} of {} requests failed so in {} ({what}){because}{such_as}.",
                failing.between(&from, &to.unwrap_or_default()),
                failed.saturating_add(*worked),
                words(lasted)
            ),
            (Matter::Names, Some(server)) => {
                format!("{from} gets no answers for names: {server} failed {within} ({what}){such_as}.")
            }
            (Matter::Names, None) => {
                format!("{from} cannot resolve names: it failed {within}{such_as} ({what}).")
            }
        }
    }

    fn over(&self, trouble: &Trouble, now: Timestamp) -> String {
        let (from, to) = self.told();
        let lasted = Duration::try_from(now.duration_since(trouble.since)).unwrap_or_default();
        let after = if lasted.is_zero() { String::new() } else { format!(" after {}", words(lasted)) };
        match (self.matter, to) {
            (Matter::Traffic, to) if trouble.works() => {
                format!("{from} gets through to {} again{after}.", to.unwrap_or_default())
            }
            (Matter::Traffic, to) => format!(
                "Nothing that {from} sends to {} is stopped any more{after}; nothing was seen to pass either.",
                to.unwrap_or_default()
            ),
            (Matter::Requests(failing), to) => {
                let (noun, to) = (failing.noun(), to.unwrap_or_default());
                let since = if trouble.works() { "" } else { "; no request was seen since either" };
                format!("The {noun} of requests of {from} to {to} are over{after}{since}.")
            }
            (Matter::Names, Some(server)) => {
                format!("{server} has not failed to answer {from} for a while{after}.")
            }
            (Matter::Names, None) => format!("{from} has not failed to resolve a name for a while{after}."),
        }
    }

    fn told(&self) -> (String, Option<String>) {
        (self.from.told(), self.to.as_ref().map(End::told))
    }
}

fn many(times: u64) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

fn list(beginning: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", {beginning}{}", names.join(", ")) }
}
