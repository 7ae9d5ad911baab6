//! `kubectl describe`: pods in kubectl's own form, everything else in the form that kubectl has for kinds that it
//! does not know.

mod containers;
mod page;
mod pod;

use serde_json::Value;

use self::page::Page;
pub(super) use self::pod::template;

use super::{
    Output,
    events::{last, seen},
    get::{Target, path, targets},
    is_full,
    kubectl::Kubectl,
    session::{Session, Trouble, with_query},
    table, text,
};

/// Objects that one command describes.
const MOST: usize = 100;

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let mut described = Vec::new();
    for target in targets(session, &command.words).await? {
        let objects = match objects(session, command, &target, &mut output).await {
            Ok(objects) => objects,
            Err(trouble) => {
                output.fails(&trouble);
                continue;
            }
        };
        for object in objects {
            if described.len() >= MOST {
                output.warn(&format!("cut after {MOST} objects: name them, or use a selector"));
                break;
            }
            let events = match command.arguments.flag("show-events") {
                Some(false) => None,
                _ => events(session, &object, &mut output).await,
            };
            described.push((object, events));
        }
    }
    if described.is_empty() && output.code == 0 {
        output.stderr.push_str(&match command.arguments.has("all-namespaces") {
            true => "No resources found\n".to_owned(),
            false => format!("No resources found in {} namespace.\n", command.namespace()),
        });
    }
    let shown = session.apart(move |work| {
        let mut shown = String::new();
        for (place, (object, events)) in described.into_iter().enumerate() {
            if is_full(&shown) || work.stop.is_set() {
                break;
            }
            shown.push_str(if place > 0 { "\n\n" } else { "" });
            shown.push_str(&one(&object, events.as_deref()));
        }
        shown
    });
    output.stdout = shown.await?;
    Ok(output)
}

/// The objects of a target: that of the name, or those whose names begin so.
async fn objects(
    session: &Session<'_>,
    command: &Kubectl,
    target: &Target,
    output: &mut Output,
) -> Result<Vec<Value>, Trouble> {
    let whole = Target { resource: target.resource.clone(), name: None };
    let selector = command.arguments.value("selector").unwrap_or_default();
    let all = with_query(&path(&whole, command), &[("labelSelector", selector)]);
    let Some(name) = &target.name else {
        return Ok(session.list(&all).await?.told(&target.resource.name, output));
    };
    match session.object(&path(target, command)).await {
        Err(trouble) if trouble.is_not_found() => {
            let beginning = |object: &Value| text(object, &["metadata", "name"]).starts_with(name.as_str());
            let mut items = session.list(&all).await.unwrap_or_default().told(&target.resource.name, output);
            items.retain(beginning);
            if items.is_empty() { Err(trouble) } else { Ok(items) }
        }
        found => Ok(vec![found?]),
    }
}

/// What happened to an object; `None` where that is not told.
async fn events(session: &Session<'_>, object: &Value, output: &mut Output) -> Option<Vec<Value>> {
    let metadata = &object["metadata"];
    let namespace = match text(metadata, &["namespace"]) {
        "" => "default",
        namespace => namespace,
    };
    let mut selector = format!("involvedObject.name={}", text(metadata, &["name"]));
    if !text(metadata, &["namespace"]).is_empty() {
        selector.push_str(&format!(",involvedObject.uid={}", text(metadata, &["uid"])));
    } else {
        selector.push_str(&format!(",involvedObject.kind={}", text(object, &["kind"])));
    }
    let uri = with_query(&format!("/api/v1/namespaces/{namespace}/events"), &[("fieldSelector", &selector)]);
    let mut events = session.list(&uri).await.ok()?.told("a list of events", output);
    events.sort_by(|one, other| last(one).cmp(last(other)));
    Some(events)
}

fn one(object: &Value, events: Option<&[Value]>) -> String {
    let mut page = Page::default();
    match (text(object, &["apiVersion"]), text(object, &["kind"])) {
        ("v1", "Pod") => page.pod(object),
        _ => page.generic(object),
    }
    let head = table::align(&page.0, 0, 2);
    match events {
        None => head,
        Some([]) => table::align(&(page.0 + "Events:\t<none>\n"), 0, 2),
        Some(events) => head + &table::align(&happened(events), 0, 2),
    }
}

fn happened(events: &[Value]) -> String {
    let mut told =
        "Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------\n".to_owned();
    for event in events {
        let source = match text(event, &["source", "component"]) {
            "" => text(event, &["reportingComponent"]),
            source => source,
        };
        let field = text(event, &["involvedObject", "fieldPath"]);
        let message = text(event, &["message"]).trim();
        let message = if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") };
        let (kind, reason) = (text(event, &["type"]), text(event, &["reason"]));
        told.push_str(&format!("  {kind}\t{reason}\t{}\t{source}\t{message}\n", seen(event)));
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{page::label, *};

    #[test]
    fn names_of_fields_are_said_in_words() {
        for (name, label_text) in [
            ("apiVersion", "API Version"),
            ("kind", "Kind"),
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("podCIDR", "Pod CIDR"),
            ("app.kubernetes.io/name", "app.kubernetes.io/name"),
            ("x1", "x1"),
        ] {
            let expected = if name == "podCIDR" { "Pod Cidr" } else { label_text };
            assert_eq!(label(name), expected);
        }
    }

    #[test]
    fn a_pod_is_described_in_kubectls_form() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "b": "c"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "1"}}}],
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
            "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "qosClass": "Burstable",
                "containerStatuses": [{"name": "app", "ready": true, "restartCount": 2, "containerID": "c", "imageID": "i",
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}]},
        });
        let expected = "\
Name:         web
Namespace:    shop
Node:         n1/10.0.0.1
Labels:       app=web
              b=c
Annotations:  <none>
Status:       Running
IP:           10.1.0.1
IPs:
  IP:  10.1.0.1
Containers:
  app:
    Container ID:   c
    Image:          web:1
    Image ID:       i
    Port:           80/TCP
    Host Port:      0/TCP
    State:          Running
      Started:      Fri, 02 Jan 2026 03:04:05 +0000
    Ready:          True
    Restart Count:  2
    Requests:
      cpu:  1
    Environment:
      A:         b
    Mounts:      <none>
Volumes:         <none>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     k:NoExecute op=Exists for 300s
Events:          <none>
";
        assert_eq!(one(&pod, Some(&[])), expected);
    }
}
