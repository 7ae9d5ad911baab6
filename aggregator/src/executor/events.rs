//! Events on the operator's own Deployment, for who looks there and not into the log: how often Kestrel Cloud was answered and
//! refused, at most two a minute, whatever it asks.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use tokio::time::timeout;

use super::{audit::Decision, read::cut};

/// From one look at what there is to tell to the next.
pub(super) const PERIOD: Duration = Duration::from_secs(60);
/// An Event that takes longer is given up: it is in the log.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the Events are about.
const DEPLOYMENT: &str = "kestrel-aggregator";
/// Of the last thing that was refused, a note shows so much.
const SHOWN_BYTES: usize = 200;

/// What no Event has told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// By the kind of request.
    answered: BTreeMap<&'static str, u64>,
    /// By the reason.
    refused: BTreeMap<&'static str, u64>,
    last_refused: String,
    /// The first and the last line of the audit.
    lines: Option<(u64, u64)>,
}

/// An Event, but for what it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Telling {
    action: &'static str,
    reason: &'static str,
    note: String,
}

impl Untold {
    /// A line of the audit; `what` is printable.
    pub(super) fn add(&mut self, line: u64, kind: &'static str, what: &str, decision: Decision) {
        let first = self.lines.map_or(line, |(first, _)| first);
        self.lines = Some((first, line));
        match decision {
            Decision::Allowed => *self.answered.entry(kind).or_default() += 1,
            Decision::Refused(reason) => {
                *self.refused.entry(reason.as_str()).or_default() += 1;
                let mut what = what.to_owned();
                cut(&mut what, SHOWN_BYTES);
                self.last_refused = format!("{kind} {what:?}");
            }
        }
    }

    /// What there is to tell, at most two Events.
    pub(super) fn take(&mut self) -> Vec<Telling> {
        let Self { answered, refused, last_refused, lines } = std::mem::take(self);
        let Some((first, last)) = lines else { return Vec::new() };
        let see = format!("lines {first} to {last} of the audit in the leading aggregator's log");
        let mut tellings = Vec::new();
        if !answered.is_empty() {
            let note = format!("Kestrel Cloud was answered: {} ({see})", counts(&answered));
            tellings.push(Telling { action: "Answer", reason: "CloudAnswered", note });
        }
        if !refused.is_empty() {
            let note = format!(
                "Kestrel Cloud was refused: {}; the last was {last_refused} ({see})",
                counts(&refused)
            );
            tellings.push(Telling { action: "Refuse", reason: "CloudRefused", note });
        }
        tellings
    }
}

fn counts(of: &BTreeMap<&'static str, u64>) -> String {
    of.iter().fold(String::new(), |mut text, (word, count)| {
        let comma = if text.is_empty() { "" } else { ", " };
        let _writing_to_a_string_works = write!(text, "{comma}{count} {word}");
        text
    })
}

/// Where Events are written.
pub struct Place {
    /// The operator's own account.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
    /// The name of the pod.
    pub pod: String,
}

impl Place {
    /// # Errors
    /// The API server does not take it, or not in time.
    pub(super) async fn write(&self, telling: Telling) -> anyhow::Result<()> {
        timeout(PATIENCE, async {
            let deployments = Api::<Deployment>::namespaced(self.client.clone(), &self.namespace);
            let uid = deployments.get(DEPLOYMENT).await?.uid();
            let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
            events.create(&PostParams::default(), &self.event(telling, uid)).await?;
            Ok(())
        })
        .await?
    }

    fn event(&self, Telling { action, reason, note }: Telling, uid: Option<String>) -> Event {
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{DEPLOYMENT}-")),
                namespace: Some(self.namespace.clone()),
                ..Default::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(note),
            // A Warning would be told to the cloud that asked.
            type_: Some("Normal".to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: Some("Deployment".to_owned()),
                namespace: Some(self.namespace.clone()),
                name: Some(DEPLOYMENT.to_owned()),
                uid,
                ..Default::default()
            }),
            reporting_controller: Some("kestrel.ai/aggregator".to_owned()),
            reporting_instance: Some(self.pod.clone()),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::reason::Reason;

    #[test]
    fn whatever_is_asked_it_is_two_events_that_fit() {
        let mut untold = Untold::default();
        assert_eq!(untold.take(), []);
        for line in 1..=1000 {
            untold.add(line, "kubernetes_api", "api/v1/pods", Decision::Allowed);
        }
        for (line, reason) in (1001..).zip(Reason::ALL.into_iter().cycle().take(1000)) {
            untold.add(line, "shell_command", &"\"ä".repeat(500), Decision::Refused(reason));
        }
        let [answered, refused] = &untold.take()[..] else { panic!() };
        assert_eq!(
            answered.note,
            "Kestrel Cloud was answered: 1000 kubernetes_api (lines 1 to 2000 of the audit in the leading aggregator's log)"
        );
        assert!(
            refused.note.contains("67 malformed") && refused.note.contains("the last was shell_command"),
            "{refused:?}"
        );
        assert!(refused.note.len() <= 1024, "the API server takes no longer one: {}", refused.note.len());
        assert_eq!(untold.take(), []);
    }
}
