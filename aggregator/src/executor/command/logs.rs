//! `kubectl logs`.

use serde_json::Value;

use super::{
    Output, is_full,
    kubectl::Kubectl,
    list,
    session::{Log, Session, Trouble, named, with_query},
    text,
};
use crate::executor::{cluster::READ_BYTES, query::LOG_LINES};

/// Containers whose logs one command reads.
const MOST: usize = 50;

/// A container's log.
struct Source {
    pod: String,
    container: String,
}

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let namespace = command.namespace();
    let selector = command.arguments.value("selector");
    let pods = match (command.words.first(), selector) {
        (Some(_), Some(_)) => return Err(Trouble::said("only a selector (-l) or a POD name is allowed")),
        (Some(word), None) => {
            let (kind, name) = word.split_once('/').unwrap_or(("pod", word));
            let resource = session.resource(kind).await?;
            let object = session.object(&named(&resource.path(Some(namespace)), name)).await?;
            if text(&object, &["kind"]) == "Pod" {
                vec![object]
            } else {
                let mut pods = of_workload(session, namespace, &object, &mut output).await?;
                if !command.arguments.has("all-pods") {
                    if pods.len() > 1 {
                        let chosen = text(&pods[0], &["metadata", "name"]);
                        output.stderr.push_str(&format!("Found {} pods, using pod/{chosen}\n", pods.len()));
                    }
                    pods.truncate(1);
                }
                pods
            }
        }
        (None, selector) => {
            let uri = with_query(&pods_path(namespace), &[("labelSelector", selector.unwrap_or_default())]);
            let pods = session.list(&uri).await?.told("the list of pods", &mut output);
            if pods.is_empty() {
                output.stderr.push_str(&format!("No resources found in {namespace} namespace.\n"));
            }
            pods
        }
    };
    let sources = sources(command, &pods, &mut output)?;
    if sources.len() > MOST {
        return Err(Trouble::said(format!(
            "{} logs are too many for one command: at most {MOST}",
            sources.len()
        )));
    }
    let prefix = command.arguments.has("prefix") || command.arguments.has("all-pods");
    let (mut logs, mut bytes) = (Vec::new(), 0);
    for Source { pod, container } in &sources {
        let uri = uri(command, namespace, pod, container)?;
        let Log { text: log, is_cut } = match session.log(&uri).await {
            Ok(log) => log,
            Err(trouble) if sources.len() > 1 && command.arguments.has("ignore-errors") => {
                output.stderr.push_str(&format!("{}\n", trouble.line()));
                continue;
            }
            Err(trouble) => {
                output.fails(&trouble);
                break;
            }
        };
        if is_cut {
            output.warn(&format!(
                "the log of {pod}/{container} was cut at 8 MiB: its last lines are missing, ask for less with --tail or --since"
            ));
        }
        // Whoever names no end gets one, which is told where it was reached.
        let is_bounded = !["tailLines=", "sinceSeconds=", "sinceTime="].iter().any(|key| uri.contains(key));
        if is_bounded && log.lines().count() >= LOG_LINES as usize {
            output.warn(&format!(
                "these are the last {LOG_LINES} lines of {pod}/{container}: ask for others with --tail or --since"
            ));
        }
        bytes += log.len();
        if bytes > READ_BYTES {
            output.warn("cut, for want of room: ask for less with --tail or --since");
            break;
        }
        logs.push((if prefix { format!("[pod/{pod}/{container}] ") } else { String::new() }, log));
    }
    output.stdout = session.apart(move |_| joined(logs)).await?;
    Ok(output)
}

/// Logs one behind the other, with what stands before each of their lines.
fn joined(logs: Vec<(String, String)>) -> String {
    let mut shown = String::new();
    for (before, log) in logs {
        if before.is_empty() {
            shown.push_str(&log);
        } else {
            for line in log.lines() {
                // Empty lines become many times longer; what is beyond is cut, and said, by who asked for it.
                if is_full(&shown) {
                    break;
                }
                shown.extend([&before[..], line, "\n"]);
            }
        }
    }
    shown
}

fn pods_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// Which containers' logs are meant.
fn sources(command: &Kubectl, pods: &[Value], output: &mut Output) -> Result<Vec<Source>, Trouble> {
    let wanted = command.arguments.value("container").or(command.words.get(1).map(String::as_str));
    let mut sources = Vec::new();
    for object in pods {
        let pod = text(object, &["metadata", "name"]).to_owned();
        let names = |field: &str| -> Vec<String> {
            list(object, &["spec", field])
                .iter()
                .map(|container| text(container, &["name"]).to_owned())
                .collect()
        };
        let containers = names("containers");
        let all = [names("initContainers"), containers.clone(), names("ephemeralContainers")].concat();
        let source = |container: &String| Source { pod: pod.clone(), container: container.clone() };
        if command.arguments.has("all-containers") {
            sources.extend(all.iter().map(source));
        } else if let Some(wanted) = wanted {
            match all.iter().find(|name| *name == wanted) {
                Some(container) => sources.push(source(container)),
                None => return Err(Trouble::said(format!("container {wanted} is not valid for pod {pod}"))),
            }
        } else {
            let by_annotation =
                text(&object["metadata"]["annotations"], &["kubectl.kubernetes.io/default-container"]);
            let chosen = containers.iter().find(|name| *name == by_annotation);
            let Some(container) = chosen.or(containers.first()) else { continue };
            if all.len() > 1 && chosen.is_none() && !command.arguments.has("all-pods") {
                let told: Vec<String> = [
                    (names("containers"), ""),
                    (names("initContainers"), " (init)"),
                    (names("ephemeralContainers"), " (ephem)"),
                ]
                .into_iter()
                .flat_map(|(names, kind)| names.into_iter().map(move |name| format!("{name}{kind}")))
                .collect();
                output
                    .stderr
                    .push_str(&format!("Defaulted container {container:?} out of: {}\n", told.join(", ")));
            }
            sources.push(source(container));
        }
    }
    Ok(sources)
}

fn uri(command: &Kubectl, namespace: &str, pod: &str, container: &str) -> Result<String, Trouble> {
    let value = |name: &str| command.arguments.value(name);
    let flag = |name: &str| if command.arguments.has(name) { "true" } else { "" };
    let number = |name: &str, text: &str| {
        text.parse::<i64>().map_err(|_| {
            Trouble::said(format!("invalid argument \"{text}\" for \"--{name}\" flag: it is a number"))
        })
    };
    let tail = match value("tail") {
        // What a selector finds may be many logs.
        None => value("selector").map(|_| 10),
        Some(text) => Some(number("tail", text)?).filter(|lines| *lines >= 0),
    };
    let tail = tail.map(|lines| lines.to_string()).unwrap_or_default();
    let since = match value("since") {
        None => String::new(),
        Some(text) => match seconds(text) {
            Some(seconds) if seconds > 0 => seconds.to_string(),
            _ => {
                return Err(Trouble::said(format!(
                    "invalid argument \"{text}\" for \"--since\" flag: it is such as 5s, 2m or 3h"
                )));
            }
        },
    };
    if tail == "0" {
        return Err(Trouble::said("--tail=0 asks for nothing"));
    }
    let limit = match value("limit-bytes") {
        None => String::new(),
        Some(text) => number("limit-bytes", text)?.max(1).to_string(),
    };
    Ok(with_query(
        &format!("{}/log", named(&pods_path(namespace), pod)),
        &[
            ("container", container),
            ("previous", flag("previous")),
            ("timestamps", flag("timestamps")),
            ("tailLines", &tail),
            ("sinceSeconds", &since),
            ("sinceTime", value("since-time").unwrap_or_default()),
            ("limitBytes", &limit),
        ],
    ))
}

/// A duration as Go writes it, such as `1h30m`, in whole seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|char: char| char.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (total > 0.0 && total < 1e9).then_some(total.ceil() as u64)
}

/// The pods of a workload, those that are ready first.
async fn of_workload(
    session: &Session<'_>,
    namespace: &str,
    object: &Value,
    output: &mut Output,
) -> Result<Vec<Value>, Trouble> {
    let selector = selector(&object["spec"]["selector"]);
    if selector.is_empty() {
        return Err(Trouble::said(format!(
            "cannot get the logs from *{}: it selects no pods",
            text(object, &["kind"])
        )));
    }
    let found = session.list(&with_query(&pods_path(namespace), &[("labelSelector", &selector)])).await?;
    let mut pods = found.told("the list of pods", output);
    if pods.is_empty() {
        return Err(Trouble::said("timed out waiting for the condition: the workload has no pods"));
    }
    let is_ready = |pod: &Value| {
        list(pod, &["status", "conditions"]).iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
    };
    pods.sort_by_key(|pod| (!is_ready(pod), text(pod, &["metadata", "creationTimestamp"]).to_owned()));
    Ok(pods)
}

/// A selector of an object, as a query and kubectl write it, by its keys; that of a Service is its labels alone.
pub(super) fn selector(selector: &Value) -> String {
    let labels = match &selector["matchLabels"] {
        Value::Null if selector["matchExpressions"].is_null() => selector,
        labels => labels,
    };
    let mut parts: Vec<(&str, String)> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), format!("{name}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in list(selector, &["matchExpressions"]) {
        let (key, operator) = (text(expression, &["key"]), text(expression, &["operator"]));
        let mut values: Vec<&str> = list(expression, &["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let part = match operator {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key, part));
    }
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_before_each_line_does_not_multiply_a_log() {
        let logs = |before: &str| vec![(before.to_owned(), "\n".repeat(1 << 20)); 2];
        assert_eq!(joined(logs("")).len(), 2 << 20);
        let shown = joined(logs("[pod/a/b] "));
        assert!((READ_BYTES..READ_BYTES + 64).contains(&shown.len()), "{}", shown.len());
    }

    #[test]
    fn durations_and_selectors_are_read() {
        assert_eq!(
            [seconds("5s"), seconds("1h30m"), seconds("1.5m"), seconds("100ms")],
            [Some(5), Some(5400), Some(90), Some(1)]
        );
        for text in ["", "5", "h", "-5s", "5d", "1h2", "s5"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        let of = json!({"matchLabels": {"g": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["e", "d"]}, {"key": "f", "operator": "Exists"}]});
        assert_eq!(selector(&of), "c in (d,e),f,g=b");
        assert_eq!(selector(&json!({"app": "x"})), "app=x");
    }
}
