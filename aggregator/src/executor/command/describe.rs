//! `kubectl describe`: what incident work asks for most in kubectl's own form for each kind, everything else in the
//! form that kubectl has for kinds that it does not know.

mod autoscaler;
mod claim;
mod containers;
mod job;
mod node;
mod page;
mod pod;
mod service;
mod settings;
mod volumes;
mod workload;

use serde_json::Value;

pub(super) use self::pod::template;
use self::{page::Page, service::Backends};

use super::{
    Output,
    events::{last, seen},
    get::{Target, path, targets},
    is_full,
    kubectl::Kubectl,
    logs::selector,
    session::{Session, Trouble, named, with_query},
    table, text,
};

/// Objects that one command describes.
const MOST: usize = 100;

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let (mut described, mut by_beginning) = (Vec::new(), false);
    for target in targets(session, &command.words).await? {
        let objects = match objects(session, command, &target, &mut output).await {
            Ok(objects) => objects,
            Err(trouble) => {
                output.fails(&trouble);
                continue;
            }
        };
        for object in objects {
            let name = text(&object, &["metadata", "name"]);
            by_beginning |= target.name.as_deref().is_some_and(|wanted| wanted != name);
            if described.len() >= MOST {
                output.warn(&format!("cut after {MOST} objects: name them, or use a selector"));
                break;
            }
            let page = match page(session, &object, &mut output).await {
                Ok(page) => page,
                Err(trouble) => {
                    output.fails(&trouble);
                    continue;
                }
            };
            // Of namespaces kubectl shows none.
            let is_namespace = object["apiVersion"] == "v1" && object["kind"] == "Namespace";
            let events = match command.arguments.flag("show-events") {
                Some(false) => None,
                _ if is_namespace => None,
                _ => events(session, &object, &mut output).await,
            };
            described.push((object, page, events));
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
        for (place, (object, page, events)) in described.into_iter().enumerate() {
            if is_full(&shown) || work.stop.is_set() {
                break;
            }
            let page = page.unwrap_or_else(|| Page::generic(&object));
            shown.push_str(if place > 0 && !by_beginning { "\n\n" } else { "" });
            shown.push_str(&page.with(events.as_deref()));
            shown.push_str(if by_beginning { "\n" } else { "" });
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

/// What an object says, and what kubectl shows beside it of others; `None` of a kind that kubectl does not know.
async fn page(session: &Session<'_>, object: &Value, output: &mut Output) -> Result<Option<Page>, Trouble> {
    let mut page = Page::default();
    let [namespace, name] = ["namespace", "name"].map(|field| text(&object["metadata"], &[field]));
    let mut beside = Beside { session, namespace, output };
    match (text(object, &["apiVersion"]), text(object, &["kind"])) {
        ("v1", "Pod") => page.pod(object),
        ("v1", "Node") => {
            let running = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
            let pods = match beside.list("/api/v1/pods", "fieldSelector", &running).await {
                Err(Trouble::Failed(failure)) if failure.status == 403 => None,
                pods => Some(pods?),
            };
            let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
            let lease = session.object(&named(leases, name)).await.map_err(|trouble| trouble.message());
            page.node(object, pods.as_deref(), lease.as_ref().map_err(String::as_str));
        }
        ("v1", "Service") => page.service(object, &beside.slices(name).await.unwrap_or_default()),
        ("networking.k8s.io/v1", "Ingress") => page.ingress(object, &beside.backends(object).await),
        ("apps/v1", "Deployment") => {
            let selector = selector(&object["spec"]["selector"]);
            let sets = beside.of("apis/apps/v1", "replicasets", &selector).await;
            page.deployment(object, sets.unwrap_or_default());
        }
        ("apps/v1", "ReplicaSet") => page.replica_set(object, &beside.pods(object).await),
        ("apps/v1", "StatefulSet") => page.stateful_set(object, &beside.pods(object).await),
        ("apps/v1", "DaemonSet") => page.daemon_set(object, &beside.pods(object).await),
        ("batch/v1", "Job") => page.job(object),
        ("batch/v1", "CronJob") => page.cron_job(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => page.autoscaler(object),
        ("v1", "PersistentVolumeClaim") => page.claim(object, &beside.of("api/v1", "pods", "").await?),
        ("v1", "ConfigMap") => page.config_map(object),
        ("v1", "ServiceAccount") => page.service_account(object),
        ("v1", "Namespace") => {
            beside.namespace = name;
            let quotas = beside.of("api/v1", "resourcequotas", "").await?;
            page.namespace(object, quotas, &beside.of("api/v1", "limitranges", "").await?);
        }
        _ => return Ok(None),
    }
    Ok(Some(page))
}

/// The way to objects that are shown with another.
struct Beside<'a> {
    session: &'a Session<'a>,
    namespace: &'a str,
    output: &'a mut Output,
}

impl Beside<'_> {
    async fn list(&mut self, path: &str, key: &str, selector: &str) -> Result<Vec<Value>, Trouble> {
        let found = self.session.list(&with_query(path, &[(key, selector)])).await?;
        Ok(found.told(path.rsplit('/').next().unwrap_or_default(), self.output))
    }

    /// Those in the namespace that a selector of labels names.
    async fn of(&mut self, api: &str, resource: &str, selector: &str) -> Result<Vec<Value>, Trouble> {
        self.list(&format!("/{api}/namespaces/{}/{resource}", self.namespace), "labelSelector", selector)
            .await
    }

    async fn pods(&mut self, workload: &Value) -> Result<Vec<Value>, String> {
        let selector = selector(&workload["spec"]["selector"]);
        self.of("api/v1", "pods", &selector).await.map_err(|trouble| trouble.message())
    }

    /// The endpoints of a service.
    async fn slices(&mut self, service: &str) -> Result<Vec<Value>, Trouble> {
        let selector = format!("kubernetes.io/service-name={service}");
        self.of("apis/discovery.k8s.io/v1", "endpointslices", &selector).await
    }

    /// The services that an ingress leads to, with their endpoints.
    async fn backends(&mut self, ingress: &Value) -> Backends {
        let services = format!("/api/v1/namespaces/{}/services", self.namespace);
        let mut backends = Backends::new();
        for name in service::names(ingress) {
            let slices = self.slices(name).await;
            let service = self.session.object(&named(&services, name)).await;
            let backend =
                slices.and_then(|slices| Ok((service?, slices))).map_err(|trouble| trouble.message());
            backends.insert(name.to_owned(), backend);
        }
        backends
    }
}

impl Page {
    /// The whole text, with what happened, if that is told.
    fn with(self, events: Option<&[Value]>) -> String {
        let head = table::align(&self.0, 0, 2);
        match events {
            None => head,
            Some([]) => table::align(&(self.0 + "Events:\t<none>\n"), 0, 2),
            Some(events) => head + &table::align(&happened(events), 0, 2),
        }
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
    fn whatever_an_object_has_there_is_a_page() {
        let odd = json!({"type": "é", "http": {}, "name": 5, "service": {"name": "s"}});
        let fields = [
            "conditions",
            "metrics",
            "rules",
            "ports",
            "limits",
            "taints",
            "volumes",
            "containers",
            "initContainers",
            "startTime",
            "completedIndexes",
        ];
        let fields: Value =
            fields.map(|field| (field.to_owned(), json!([odd, null, "é".repeat(60)]))).into_iter().collect();
        for part in [Value::Null, json!(5), json!([]), json!({}), fields] {
            let object = json!({"metadata": part, "spec": part, "status": part, "data": part});
            let (list, pods) = ([object.clone(), part.clone()], Ok(vec![object.clone()]));
            let backends = [("s".to_owned(), Ok((object.clone(), list.to_vec())))].into();
            let mut page = Page::default();
            page.pod(&object);
            page.node(&object, Some(&list), Ok(&object));
            page.deployment(&object, list.to_vec());
            page.replica_set(&object, &pods);
            page.stateful_set(&object, &Err("no".to_owned()));
            page.daemon_set(&object, &pods);
            page.service(&object, &list);
            page.ingress(&object, &backends);
            page.job(&object);
            page.cron_job(&object);
            page.autoscaler(&object);
            page.claim(&object, &list);
            page.config_map(&object);
            page.service_account(&object);
            page.namespace(&object, list.to_vec(), &list);
            let named = |page: Page| page.with(None).lines().filter(|line| line.starts_with("Name:")).count();
            assert_eq!((named(page), named(Page::generic(&object))), (15, 1));
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
        let mut page = Page::default();
        page.pod(&pod);
        assert_eq!(page.with(Some(&[])), expected);
    }
}
