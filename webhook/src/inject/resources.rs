//! What the collector may use of CPU and memory.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{Skip, pod::Pod, qos};
use crate::{profile, quantity::Quantity};

/// Annotations of a pod that go before its profile: request and limit of each.
pub(super) const CPU: [&str; 2] = ["kestrel.ai/collector-cpu-request", "kestrel.ai/collector-cpu-limit"];
pub(super) const MEMORY: [&str; 2] =
    ["kestrel.ai/collector-memory-request", "kestrel.ai/collector-memory-limit"];

/// Requests and limits of the collector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resources {
    /// Its own.
    Own { cpu: Need, memory: Need },
    /// Of what the pod as a whole has: requests of its own might not fit into
    /// the pod's, and the pod would be refused.
    Shared,
}

/// What is needed of one resource; the request is not more than the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) request: Quantity,
    pub(super) limit: Quantity,
}

impl Resources {
    /// From the defaults, the profile and the pod's annotations.
    ///
    /// # Errors
    /// An annotation says what cannot be.
    pub(super) fn of(pod: &Pod, wanted: &profile::Resources) -> Result<Self, Skip> {
        let profile::Resources { requests, limits } = wanted;
        let mut cpu = Need::new("5m", "100m");
        cpu.prefer(quantity(&requests.cpu), quantity(&limits.cpu));
        cpu.annotated(pod, CPU)?;
        let mut memory = Need::new("16Mi", "64Mi");
        memory.prefer(quantity(&requests.memory), quantity(&limits.memory));
        memory.annotated(pod, MEMORY)?;
        if !profile::is_enough_memory(&memory.limit) {
            let problem = format!("{}, and the collector needs {}", memory.limit, profile::LEAST_MEMORY);
            return Err(Skip::BadAnnotation(MEMORY[1], problem));
        }
        if pod.spec.shares_resources() {
            return Ok(Self::Shared);
        }
        if qos::is_guaranteed(&pod.spec) {
            for need in [&mut cpu, &mut memory] {
                need.request = need.limit.clone();
            }
        }
        Ok(Self::Own { cpu, memory })
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Amounts<'a> {
            cpu: &'a str,
            memory: &'a str,
        }
        let mut written = serializer.serialize_map(None)?;
        if let Self::Own { cpu, memory } = self {
            let amounts =
                |of: fn(&Need) -> &Quantity| Amounts { cpu: of(cpu).text(), memory: of(memory).text() };
            written.serialize_entry("requests", &amounts(|need| &need.request))?;
            written.serialize_entry("limits", &amounts(|need| &need.limit))?;
        }
        written.end()
    }
}

impl Need {
    fn new(request: &'static str, limit: &'static str) -> Self {
        Self { request: Quantity::known(request), limit: Quantity::known(limit) }
    }

    /// Takes what is said; what is not said gives way to it.
    fn prefer(&mut self, request: Option<Quantity>, limit: Option<Quantity>) {
        let is_request_said = request.is_some();
        if let Some(request) = request {
            self.request = request;
        }
        if let Some(limit) = limit {
            self.limit = limit;
        } else if is_request_said && self.request.amount() > self.limit.amount() {
            self.limit = self.request.clone();
        }
        if self.request.amount() > self.limit.amount() {
            self.request = self.limit.clone();
        }
    }

    fn annotated(&mut self, pod: &Pod, [request, limit]: [&'static str; 2]) -> Result<(), Skip> {
        let read = |key: &'static str| match pod.annotation(key) {
            None => Ok(None),
            Some(text) => Quantity::positive(text).map(Some).ok_or_else(|| {
                let text: String = text.chars().take(32).collect();
                Skip::BadAnnotation(key, format!("{text:?} is no quantity above 0"))
            }),
        };
        let (asked, most) = (read(request)?, read(limit)?);
        if let (Some(asked), Some(most)) = (&asked, &most)
            && asked.amount() > most.amount()
        {
            return Err(Skip::BadAnnotation(request, format!("{asked} is more than the limit, {most}")));
        }
        self.prefer(asked, most);
        Ok(())
    }
}

/// A quantity of a profile, which was checked when it was read.
fn quantity(text: &Option<String>) -> Option<Quantity> {
    Quantity::positive(text.as_deref()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GUARANTEED: &str = r#"{"limits": {"cpu": "1", "memory": "1Gi"}}"#;

    /// Request and limit of CPU, then of memory.
    fn resources(annotations: &[(&str, &str)], profile: &Value, app: &str) -> Result<Value, Skip> {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let app: Value = serde_json::from_str(app).unwrap();
        let spec = json!({"containers": [{"name": "app", "resources": app}]});
        let pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let wanted = serde_json::from_value(profile.clone()).unwrap();
        let found = serde_json::to_value(Resources::of(&pod, &wanted)?).unwrap();
        let [requests, limits] = [&found["requests"], &found["limits"]];
        Ok(json!([requests["cpu"], limits["cpu"], requests["memory"], limits["memory"]]))
    }

    #[test]
    fn annotations_go_before_the_profile_and_that_before_the_defaults() {
        let profile = json!({"requests": {"cpu": "20m"}, "limits": {"memory": "128Mi"}});
        let low = json!({"limits": {"cpu": "2m"}});
        let (cpu, memory) =
            (("kestrel.ai/collector-cpu-request", "1"), ("kestrel.ai/collector-memory-limit", "32Mi"));
        for (annotations, profile, app, expected) in [
            (&[][..], &json!({}), "{}", json!(["5m", "100m", "16Mi", "64Mi"])),
            (&[], &profile, "{}", json!(["20m", "100m", "16Mi", "128Mi"])),
            (&[cpu, memory], &profile, "{}", json!(["1", "1", "16Mi", "32Mi"])),
            (&[], &low, "{}", json!(["2m", "2m", "16Mi", "64Mi"])),
            (&[], &json!({}), GUARANTEED, json!(["100m", "100m", "64Mi", "64Mi"])),
            (&[cpu], &profile, GUARANTEED, json!(["1", "1", "128Mi", "128Mi"])),
        ] {
            assert_eq!(resources(annotations, profile, app), Ok(expected), "{annotations:?} {profile}");
        }
    }

    #[test]
    fn annotations_that_cannot_be_are_refused_by_name() {
        let [request, limit] = CPU;
        for (annotations, expected) in [
            (&[(request, "much")][..], "kestrel.ai/collector-cpu-request: \"much\" is no quantity above 0"),
            (&[(limit, "-1")], "kestrel.ai/collector-cpu-limit: \"-1\" is no quantity above 0"),
            (&[(limit, "0")], "kestrel.ai/collector-cpu-limit: \"0\" is no quantity above 0"),
            (
                &[(request, "2"), (limit, "1")],
                "kestrel.ai/collector-cpu-request: 2 is more than the limit, 1",
            ),
            (&[(MEMORY[1], "8Mi")], "kestrel.ai/collector-memory-limit: 8Mi, and the collector needs 16Mi"),
        ] {
            let skip = resources(annotations, &json!({}), "{}").unwrap_err();
            assert_eq!(skip.to_string(), expected);
        }
    }

    #[test]
    fn resources_of_the_pod_as_a_whole_are_shared() {
        let pod = |resources: Value, annotations: Value| -> Pod {
            let spec = json!({"resources": resources, "containers": [{"name": "app"}]});
            serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
        };
        let of = |pod: &Pod| Resources::of(pod, &profile::Resources::default());
        for (resources, is_shared) in [
            (json!({"limits": {"cpu": "1"}}), true),
            (json!({"requests": {"memory": "1Gi"}}), true),
            (json!({"limits": {"hugepages-2Mi": "4Mi"}}), false),
            (json!({"requests": {}, "limits": {}}), false),
            (json!({}), false),
            (json!(null), false),
        ] {
            let found = of(&pod(resources.clone(), json!({}))).unwrap();
            assert_eq!(found == Resources::Shared, is_shared, "{resources}");
        }
        let wrong = pod(json!({"limits": {"cpu": "1"}}), json!({MEMORY[1]: "much"}));
        assert_eq!(of(&wrong).unwrap_err().label(), "bad-annotation");
    }
}
