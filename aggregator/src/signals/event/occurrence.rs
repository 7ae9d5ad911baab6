//! From an Event of the API server to what is told of it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1 as core, events::v1::Event};
use kestrel_proto::cloud::v1::{EventSource, KubernetesEvent, ObjectReference};

use crate::inventory::convert;

/// One Event object as it is now: something that happened, perhaps more than once.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    /// UID of the Event object.
    pub(super) uid: Arc<str>,
    /// What it is about, why, and who says so: the same for all that are told as one.
    pub(super) key: Arc<str>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// How often it happened.
    pub(super) count: u32,
    /// What is told of it, without action, times and count.
    pub(super) told: KubernetesEvent,
}

impl Occurrence {
    /// `None` if it is no warning. `now` stands for times that are missing.
    ///
    /// Reporters of the older API (the kubelet) count in `deprecatedCount` and
    /// have times in seconds; those of the newer one (the scheduler) have `eventTime`
    /// and, from the second time on, a `series` (KEP-383).
    pub(super) fn of(event: &Event, now: Timestamp) -> Option<Self> {
        if event.type_.as_deref() != Some("Warning") {
            return None;
        }
        let uid = event.metadata.uid.clone()?;
        let event_time = event.event_time.as_ref().map(|time| time.0);
        let [deprecated_first, deprecated_last, created] = [
            &event.deprecated_first_timestamp,
            &event.deprecated_last_timestamp,
            &event.metadata.creation_timestamp,
        ]
        .map(|time| time.as_ref().map(|time| time.0));
        let series = event.series.as_ref();
        let first = deprecated_first.or(event_time).or(created).unwrap_or(now);
        let last = [series.map(|series| series.last_observed_time.0), deprecated_last, event_time];
        let last = last.into_iter().flatten().fold(first, Timestamp::max);
        let count = event.deprecated_count.max(series.map(|series| series.count)).unwrap_or_default().max(1);

        let source = event.deprecated_source.clone().unwrap_or_default();
        let reporter = source.component.filter(|component| !component.is_empty());
        let told = KubernetesEvent {
            name: text(&event.metadata.name),
            namespace: text(&event.metadata.namespace),
            uid: uid.clone(),
            event_type: "Warning".to_owned(),
            reason: text(&event.reason),
            message: text(&event.note),
            source: Some(EventSource {
                component: reporter.unwrap_or_else(|| text(&event.reporting_controller)),
                host: text(&source.host),
            }),
            involved_object: Some(reference(event.regarding.as_ref())),
            ..KubernetesEvent::default()
        };
        Some(Self { uid: uid.into(), key: key(&told), first, last, count: count.unsigned_abs(), told })
    }
}

/// The same for all Events about one object (a container of a pod is one of its own)
/// for one reason by one reporter.
fn key(event: &KubernetesEvent) -> Arc<str> {
    let about = event.involved_object.clone().unwrap_or_default();
    let reporter = event.source.as_ref().map(|source| source.component.as_str()).unwrap_or_default();
    let parts = [&about.kind, &about.namespace, &about.name, &about.uid, &about.field_path, &event.reason];
    // Who may write Events that fall together by their line ends may write equal ones too.
    let mut key = parts.map(String::as_str).join("\n");
    key.push('\n');
    key.push_str(reporter);
    key.into()
}

fn reference(object: Option<&core::ObjectReference>) -> ObjectReference {
    let Some(object) = object else { return ObjectReference::default() };
    ObjectReference {
        kind: text(&object.kind),
        namespace: text(&object.namespace),
        name: text(&object.name),
        uid: text(&object.uid),
        api_version: text(&object.api_version),
        resource_version: text(&object.resource_version),
        field_path: text(&object.field_path),
    }
}

fn text(field: &Option<String>) -> String {
    field.clone().unwrap_or_default()
}

/// The Event as it is told for the `count`th time.
pub(super) fn timed(
    mut told: KubernetesEvent,
    first: Timestamp,
    last: Timestamp,
    count: u32,
) -> KubernetesEvent {
    told.first_timestamp = Some(convert::timestamp(first));
    told.last_timestamp = Some(convert::timestamp(last));
    told.count = count.try_into().unwrap_or(i32::MAX);
    told
}
