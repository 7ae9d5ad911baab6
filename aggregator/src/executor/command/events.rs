//! `kubectl events`.

use serde_json::Value;

use super::{
    Output, age,
    get::shown,
    kubectl::{Format, Kubectl},
    number,
    session::{Session, Trouble, with_query},
    table, text,
    work::Work,
};

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let all = command.arguments.has("all-namespaces");
    let namespace = command.namespace();
    let types: Vec<String> = command
        .arguments
        .values("types")
        .flat_map(|types| types.split(','))
        .map(str::to_ascii_lowercase)
        .collect();
    if types.iter().any(|kind| !matches!(kind.as_str(), "normal" | "warning")) {
        return Err(Trouble::said("valid --types are Normal or Warning"));
    }
    let selector = match command.arguments.value("for") {
        None => String::new(),
        Some(of) => {
            let Some((kind, name)) = of.split_once('/').filter(|(_, name)| !name.is_empty()) else {
                return Err(Trouble::said("--for must be in resource/name form"));
            };
            let resource = session.resource(kind).await?;
            let version = resource.group_version();
            format!(
                "involvedObject.apiVersion={version},involvedObject.kind={},involvedObject.name={name}",
                resource.kind
            )
        }
    };
    let path =
        if all { "/api/v1/events".to_owned() } else { format!("/api/v1/namespaces/{namespace}/events") };
    let found = session.list(&with_query(&path, &[("fieldSelector", &selector)])).await?;
    let mut output = Output::default();
    let mut events = found.told("the list of events", &mut output);
    events.retain(|event| types.is_empty() || types.contains(&text(event, &["type"]).to_ascii_lowercase()));
    if events.is_empty() {
        output.stderr.push_str(&match all {
            true => "No events found.\n".to_owned(),
            false => format!("No events found in {namespace} namespace.\n"),
        });
        return Ok(output);
    }
    let asked = command.clone();
    let told = session.apart(move |work| told(&asked, events, all, work));
    output.stdout = told.await?.map_err(Trouble::Said)?;
    Ok(output)
}

fn told(command: &Kubectl, mut events: Vec<Value>, all: bool, work: &Work) -> Result<String, String> {
    events.sort_by(|one, other| last(one).cmp(last(other)));
    if command.format != (Format::Table { wide: false }) {
        return shown(&command.format, events, false, false, work);
    }
    let mut rows = Vec::new();
    let row = |namespace: &str, cells: [String; 5]| -> Vec<String> {
        all.then(|| namespace.to_owned()).into_iter().chain(cells).collect()
    };
    if !command.arguments.has("no-headers") {
        rows.push(row("NAMESPACE", ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned)));
    }
    for event in &events {
        let object = format!(
            "{}/{}",
            text(event, &["involvedObject", "kind"]),
            text(event, &["involvedObject", "name"])
        );
        let [kind, reason, message] =
            ["type", "reason", "message"].map(|field| text(event, &[field]).trim().to_owned());
        rows.push(row(text(event, &["metadata", "namespace"]), [seen(event), kind, reason, object, message]));
    }
    Ok(table::columns(&rows))
}

/// When it happened last.
pub(super) fn last(event: &Value) -> &str {
    [&["series", "lastObservedTime"][..], &["lastTimestamp"], &["eventTime"], &["firstTimestamp"]]
        .iter()
        .map(|path| text(event, path))
        .find(|moment| !moment.is_empty())
        .unwrap_or_default()
}

/// When it happened last, and how often since when.
pub(super) fn seen(event: &Value) -> String {
    let at = |path: &[&str]| age(Some(text(event, path)));
    let first =
        if text(event, &["eventTime"]).is_empty() { at(&["firstTimestamp"]) } else { at(&["eventTime"]) };
    let count = number(event, &["count"]);
    if !event["series"].is_null() {
        return format!(
            "{} (x{} over {first})",
            at(&["series", "lastObservedTime"]),
            number(event, &["series", "count"])
        );
    }
    if count > 1 { format!("{} (x{count} over {first})", at(&["lastTimestamp"])) } else { first }
}
