//! Says of collectors that are not heard of: an Event for who can mend it, a gap for who reads the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kestrel_proto::node::v1::{LogGap, LogGapReason, LogPolicy};
use kube::{Api, Client, api::PostParams};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Config, Shared, gap, lines::pod_logs, publish::LINK, silence::Silent};
use crate::{
    inventory::pods::{CONTAINER, Known},
    uplink::receipt::Source,
};

/// How often all collectors are looked at.
const LOOK: Duration = Duration::from_secs(15);
/// Events that are written at once. An outage concerns all collectors, and one of them is enough to
/// understand it.
const MOST_EVENTS: usize = 20;
/// An Event or a gap that takes longer is given up: it is in this log.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks again and again, for ever.
pub(super) async fn keep_looking(client: Client, config: &Config, port: u16, shared: Arc<Shared>) {
    loop {
        let pods = shared.pods.collected();
        let found = shared.silence().look(&pods, MOST_EVENTS, Instant::now());
        for silent in found {
            match silent {
                Silent::Unattached { uid, time } => {
                    if let Some(known) = shared.pods.get(&uid) {
                        tell(&client, config, port, &known, time).await;
                    }
                }
                Silent::Ended { uid } => {
                    if let Some(known) = shared.pods.get(&uid) {
                        let _full_lane = timeout(PATIENCE, shared.ended_unheard(&known)).await;
                    }
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// The Event of a collector that does not attach.
async fn tell(client: &Client, config: &Config, port: u16, known: &Known, time: Duration) {
    let event = event(config, port, known, time);
    let (namespace, name) = (&known.info.namespace, &known.info.name);
    warn!("the collector of {namespace}/{name} {}", event.note.as_deref().unwrap_or_default());
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    match timeout(PATIENCE, events.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let why = anyhow::Error::new(error);
            warn!("no Event can be written on the pod {namespace}/{name}: {}", why.root_cause());
        }
        Err(_) => warn!("no Event can be written on the pod {namespace}/{name}: no answer in 5 s"),
    }
}

fn event(config: &Config, port: u16, known: &Known, time: Duration) -> Event {
    let (namespace, name) = (&known.info.namespace, &known.info.name);
    let note = format!(
        "has not been attached to the agent link for {} minutes, so its log files are not sent: it must reach TCP port \
         {port} of {LINK}.{}.svc, and if NetworkPolicies limit what leaves namespace {namespace}, one has to allow this \
         and DNS. What it says itself: kubectl logs -n {namespace} {name} -c {CONTAINER}",
        time.as_secs() / 60,
        config.namespace,
    );
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{CONTAINER}-")),
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        action: Some("Attach".to_owned()),
        reason: Some("CollectorNotAttached".to_owned()),
        note: Some(note),
        type_: Some("Warning".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(known.api_uid.to_string()),
            field_path: Some(format!("spec.initContainers{{{CONTAINER}}}")),
            ..Default::default()
        }),
        reporting_controller: Some("kestrel.ai/aggregator".to_owned()),
        reporting_instance: Some(config.pod_name.clone().unwrap_or_else(|| "aggregator".to_owned())),
        ..Default::default()
    }
}

impl Shared {
    /// A pod has ended without its collector's farewell: how much is missing nobody knows.
    pub(super) async fn ended_unheard(&self, known: &Known) {
        let info = &known.info;
        if self.pods.keeps(&info.namespace) || info.log_policy() == LogPolicy::Off {
            return;
        }
        self.metrics.ended_unheard.inc();
        let gap = LogGap {
            pod_namespace: info.namespace.clone(),
            pod_name: info.name.clone(),
            pod_uid: info.uid.clone(),
            container_name: CONTAINER.to_owned(),
            reason: LogGapReason::Ended.into(),
            ..LogGap::default()
        };
        let ((chunk, text), now) = (gap::told(gap), Timestamp::now());
        let lines = [gap::line(&text, now)];
        let (source, _nobody_asks) = Source::of_a_sidecar();
        let receipt = source.receipt(1, 0);
        for message in pod_logs(&chunk, &lines, Some(known), &known.node, &mut 0, now) {
            self.logs.send(message, receipt.clone()).await;
        }
        receipt.left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kestrel_proto::node::v1::PodInfo;

    #[test]
    fn the_event_names_the_port_what_may_close_it_and_where_to_look() {
        let config = Config { namespace: "kestrel-ai".to_owned(), ..super::super::tests::config() };
        let info = PodInfo { namespace: "n".repeat(63), name: "p".repeat(253), ..PodInfo::default() };
        let known = Known { info, owners: [].into(), api_uid: "u1".into(), node: "n1".into() };
        let event = event(&config, 8443, &known, Duration::from_mins(11));
        let note = event.note.unwrap();
        for part in [
            "11 minutes",
            "port 8443 of kestrel-agent-link.kestrel-ai.svc",
            "NetworkPolicies",
            "kubectl logs",
        ] {
            assert!(note.contains(part), "{note}");
        }
        assert!(note.len() <= 1024, "the API server takes no longer one: {}", note.len());
    }
}
