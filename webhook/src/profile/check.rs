//! What a profile may not say. The schema refuses most of it already, but
//! files do not pass an API server.

use super::{Resources, Selector, Spec, selector::Operator};
use crate::quantity::Quantity;

/// Variables by which a collector is known and finds its way.
pub const RESERVED: [&str; 11] = [
    "KESTREL_ALS_PORT",
    "KESTREL_LINK_CA",
    "KESTREL_LINK_ENDPOINT",
    "KESTREL_LINK_TOKEN_FILE",
    "KESTREL_LOG_SOURCES",
    "KESTREL_STATE_DIR",
    "NODE_NAME",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_UID",
];
/// With a lower limit of memory the collector would be killed, and its pod not be ready.
pub(crate) const LEAST_MEMORY: &str = "16Mi";
/// The schema's bounds.
const MOST_VARIABLES: usize = 64;
const MOST_PATHS: usize = 64;
const LONGEST_TEXT: usize = 4096;

impl Spec {
    /// Whether a collector can be made of it.
    ///
    /// # Errors
    /// What is wrong, and in which field.
    pub(super) fn check(&self) -> Result<(), String> {
        for (field, selector) in
            [("namespaceSelector", &self.namespace_selector), ("podSelector", &self.pod_selector)]
        {
            check_selector(selector).map_err(|problem| format!("spec.{field}: {problem}"))?;
        }
        if let Some(image) = &self.image
            && (image.is_empty() || image.len() > 512 || image.contains(|c: char| !c.is_ascii_graphic()))
        {
            return Err(format!("spec.image: {} is no image", excerpt(image)));
        }
        check_resources(&self.resources).map_err(|problem| format!("spec.resources.{problem}"))?;
        if self.env.len() > MOST_VARIABLES {
            return Err(format!("spec.env: more than {MOST_VARIABLES} variables"));
        }
        for variable in &self.env {
            let name = &variable.name;
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            if name.is_empty()
                || name.len() > 256
                || !name.chars().all(is_name)
                || name.as_bytes()[0].is_ascii_digit()
            {
                return Err(format!("spec.env: {} is no name of a variable", excerpt(name)));
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(format!("spec.env: {name} is set by the operator"));
            }
            if variable.value.len() > LONGEST_TEXT || variable.value.contains('\0') {
                return Err(format!(
                    "spec.env: the value of {name} is longer than {LONGEST_TEXT} bytes or no text"
                ));
            }
        }
        if let Some(secret) = &self.secret_ref
            && !is_object_name(&secret.name)
        {
            return Err(format!("spec.secretRef.name: {} is no name of a Secret", excerpt(&secret.name)));
        }
        if let Some(endpoint) = &self.endpoint
            && !is_endpoint(endpoint)
        {
            return Err(format!("spec.endpoint: {} is not https://host:port", excerpt(endpoint)));
        }
        if self.rollout.percent > 100 {
            return Err(format!("spec.rollout.percent: {} is more than 100", self.rollout.percent));
        }
        let paths = &self.collect.log_paths;
        if paths.len() > MOST_PATHS {
            return Err(format!("spec.collect.logPaths: more than {MOST_PATHS} paths"));
        }
        let is_path =
            |path: &&String| path.starts_with('/') && path.len() <= LONGEST_TEXT && !path.contains(',');
        match paths.iter().find(|path| !is_path(path)) {
            Some(path) => Err(format!("spec.collect.logPaths: {} is not one absolute path", excerpt(path))),
            None => Ok(()),
        }
    }
}

fn check_selector(selector: &Selector) -> Result<(), String> {
    for requirement in &selector.match_expressions {
        let wants_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
        if wants_values == requirement.values.is_empty() {
            return Err(format!(
                "{} of {} {} values",
                match requirement.operator {
                    Operator::In => "In",
                    Operator::NotIn => "NotIn",
                    Operator::Exists => "Exists",
                    Operator::DoesNotExist => "DoesNotExist",
                },
                excerpt(&requirement.key),
                if wants_values { "needs" } else { "takes no" },
            ));
        }
    }
    Ok(())
}

/// Whether the collector works within this limit of memory.
pub(crate) fn is_enough_memory(limit: &Quantity) -> bool {
    limit.amount() >= Quantity::known(LEAST_MEMORY).amount()
}

fn check_resources(resources: &Resources) -> Result<(), String> {
    let Resources { requests, limits } = resources;
    for (name, request, limit) in
        [("cpu", &requests.cpu, &limits.cpu), ("memory", &requests.memory, &limits.memory)]
    {
        let read = |part: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| {
                    Quantity::positive(text)
                        .ok_or_else(|| format!("{part}.{name}: {} is no quantity above 0", excerpt(text)))
                })
                .transpose()
        };
        let (request, limit) = (read("requests", request)?, read("limits", limit)?);
        if let (Some(request), Some(limit)) = (&request, &limit)
            && request.amount() > limit.amount()
        {
            return Err(format!("requests.{name}: {request} is more than the limit, {limit}"));
        }
        if name == "memory"
            && let Some(limit) = limit.filter(|limit| !is_enough_memory(limit))
        {
            return Err(format!("limits.memory: {limit}, and the collector needs {LEAST_MEMORY}"));
        }
    }
    Ok(())
}

/// Whether it is a name of an object: a DNS subdomain.
fn is_object_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_endpoint(endpoint: &str) -> bool {
    let Some((host, port)) = endpoint.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')) else {
        return false;
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    !host.is_empty()
        && host.len() <= 253
        && host.chars().all(is_host)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// The start of a text, in quotes.
fn excerpt(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::profile::Profile;

    #[test]
    fn what_makes_no_collector_is_refused_by_its_field() {
        for (spec, expected) in [
            (json!({"image": ""}), "spec.image: \"\" is no image"),
            (json!({"image": "a b"}), "spec.image: \"a b\" is no image"),
            (json!({"enabled": "yes"}), "spec: invalid type: string \"yes\", expected a boolean"),
            (json!([]), "spec: missing, or no object"),
            (
                json!({"resources": {"limits": {"cpu": "much"}}}),
                "spec.resources.limits.cpu: \"much\" is no quantity",
            ),
            (
                json!({"resources": {"limits": {"memory": "0"}}}),
                "spec.resources.limits.memory: \"0\" is no quantity",
            ),
            (
                json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "999m"}}}),
                "spec.resources.requests.cpu: 1 is more than the limit, 999m",
            ),
            (
                json!({"resources": {"limits": {"memory": "8Mi"}}}),
                "spec.resources.limits.memory: 8Mi, and the collector needs 16Mi",
            ),
            (json!({"env": [{"name": "POD_UID"}]}), "spec.env: POD_UID is set by the operator"),
            (json!({"env": [{"name": "1A"}]}), "spec.env: \"1A\" is no name of a variable"),
            (json!({"env": [{"name": "A=B"}]}), "spec.env: \"A=B\" is no name of a variable"),
            (
                json!({"env": [{"name": "A", "value": "\0"}]}),
                "spec.env: the value of A is longer than 4096 bytes or no text",
            ),
            (json!({"secretRef": {"name": "No"}}), "spec.secretRef.name: \"No\" is no name of a Secret"),
            (json!({"endpoint": "http://x:1"}), "spec.endpoint: \"http://x:1\" is not https://host:port"),
            (json!({"endpoint": "https://x:0"}), "spec.endpoint: \"https://x:0\" is not https://host:port"),
            (
                json!({"endpoint": "https://$(A):1"}),
                "spec.endpoint: \"https://$(A):1\" is not https://host:port",
            ),
            (
                json!({"collect": {"logPaths": ["x"]}}),
                "spec.collect.logPaths: \"x\" is not one absolute path",
            ),
            (
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                "spec.podSelector: In of \"a\" needs values",
            ),
            (
                json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}}),
                "spec.namespaceSelector: Exists of \"a\" takes no values",
            ),
        ] {
            let problem = Profile::read("p".to_owned(), 1, &spec).unwrap_err();
            assert!(problem.starts_with(expected), "{problem} instead of {expected}");
        }
    }
}
