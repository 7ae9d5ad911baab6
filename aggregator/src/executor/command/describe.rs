//! `kubectl describe`: pods in kubectl's own form, everything else in the form that kubectl has for kinds that it
//! does not know.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Output,
    events::{last, seen},
    get::{Target, path, targets},
    go_text,
    kubectl::Kubectl,
    list, number,
    session::{Session, Trouble, with_query},
    table, text,
};

/// Objects that one command describes.
const MOST: usize = 100;
/// A longer annotation is shown behind its name.
const ANNOTATION_CHARS: usize = 140;

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let mut described = Vec::new();
    for target in targets(session, &command.words).await? {
        let objects = match objects(session, command, &target).await {
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
                _ => events(session, &object).await,
            };
            described.push(one(&object, events.as_deref()));
        }
    }
    if described.is_empty() && output.code == 0 {
        output.stderr.push_str(&match command.arguments.has("all-namespaces") {
            true => "No resources found\n".to_owned(),
            false => format!("No resources found in {} namespace.\n", command.namespace()),
        });
    }
    output.stdout = described.join("\n\n");
    Ok(output)
}

/// The objects of a target: that of the name, or those whose names begin so.
async fn objects(session: &Session<'_>, command: &Kubectl, target: &Target) -> Result<Vec<Value>, Trouble> {
    let whole = Target { resource: target.resource.clone(), name: None };
    let selector = command.arguments.value("selector").unwrap_or_default();
    let all = with_query(&path(&whole, command), &[("labelSelector", selector)]);
    let Some(name) = &target.name else { return Ok(session.list(&all).await?.items) };
    match session.object(&path(target, command)).await {
        Err(trouble) if trouble.is_not_found() => {
            let beginning = |object: &Value| text(object, &["metadata", "name"]).starts_with(name.as_str());
            let mut items = session.list(&all).await.map(|objects| objects.items).unwrap_or_default();
            items.retain(beginning);
            if items.is_empty() { Err(trouble) } else { Ok(items) }
        }
        found => Ok(vec![found?]),
    }
}

/// What happened to an object; `None` where that is not told.
async fn events(session: &Session<'_>, object: &Value) -> Option<Vec<Value>> {
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
    let mut events = session.list(&uri).await.ok()?.items;
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

/// A template of pods, as a revision of a roll-out shows it.
pub(super) fn template(template: &Value) -> String {
    let mut page = Page::default();
    page.line(0, "Pod Template:");
    page.labels("  ", "Labels", &template["metadata"]["labels"]);
    if template["metadata"]["annotations"].as_object().is_some_and(|map| !map.is_empty()) {
        page.labels("  ", "Annotations", &template["metadata"]["annotations"]);
    }
    let spec = &template["spec"];
    if !text(spec, &["serviceAccountName"]).is_empty() {
        page.line(1, &format!("Service Account:\t{}", text(spec, &["serviceAccountName"])));
    }
    if !list(spec, &["initContainers"]).is_empty() {
        page.containers("  ", "Init Containers", list(spec, &["initContainers"]), &[], template);
    }
    page.containers("  ", "Containers", list(spec, &["containers"]), &[], template);
    page.volumes("  ", spec);
    page.labels("  ", "Node-Selectors", &spec["nodeSelector"]);
    page.tolerations("  ", spec);
    table::align(&page.0, 0, 2)
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, level: usize, text: &str) {
        self.0.push_str(&"  ".repeat(level));
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn labels(&mut self, indent: &str, title: &str, labels: &Value) {
        self.0.push_str(&format!("{indent}{title}:\t"));
        let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else {
            self.0.push_str("<none>\n");
            return;
        };
        for (place, (name, value)) in labels.iter().enumerate() {
            let lead = if place == 0 { String::new() } else { format!("{indent}\t") };
            self.0.push_str(&format!("{lead}{name}={}\n", value.as_str().unwrap_or_default()));
        }
    }

    fn annotations(&mut self, annotations: &Value) {
        self.0.push_str("Annotations:\t");
        let Some(annotations) = annotations.as_object().filter(|annotations| !annotations.is_empty()) else {
            self.0.push_str("<none>\n");
            return;
        };
        for (place, (name, value)) in annotations.iter().enumerate() {
            let lead = if place == 0 { "" } else { "\t" };
            let value = value.as_str().unwrap_or_default();
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + name.len() + 2 <= ANNOTATION_CHARS && !value.contains('\n') {
                self.0.push_str(&format!("{lead}{name}: {value}\n"));
                continue;
            }
            self.0.push_str(&format!("{lead}{name}:\n"));
            for line in value.split('\n') {
                let end = line.floor_char_boundary(ANNOTATION_CHARS - 2);
                let more = if end < line.len() { "..." } else { "" };
                self.0.push_str(&format!("\t  {}{more}\n", &line[..end]));
            }
        }
    }

    fn pod(&mut self, pod: &Value) {
        let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
        self.line(0, &format!("Name:\t{}", text(metadata, &["name"])));
        self.line(0, &format!("Namespace:\t{}", text(metadata, &["namespace"])));
        if let Some(priority) = spec["priority"].as_i64() {
            self.line(0, &format!("Priority:\t{priority}"));
        }
        for (title, field) in [
            ("Priority Class Name", "priorityClassName"),
            ("Runtime Class Name", "runtimeClassName"),
            ("Service Account", "serviceAccountName"),
        ] {
            self.unless_empty(0, title, text(spec, &[field]));
        }
        self.line(
            0,
            &match text(spec, &["nodeName"]) {
                "" => "Node:\t<none>".to_owned(),
                node => format!("Node:\t{node}/{}", text(status, &["hostIP"])),
            },
        );
        if !text(status, &["startTime"]).is_empty() {
            self.line(0, &format!("Start Time:\t{}", moment(text(status, &["startTime"]))));
        }
        self.labels("", "Labels", &metadata["labels"]);
        self.annotations(&metadata["annotations"]);
        let (phase, deleted) = (text(status, &["phase"]), text(metadata, &["deletionTimestamp"]));
        if deleted.is_empty() || matches!(phase, "Failed" | "Succeeded") {
            self.line(0, &format!("Status:\t{phase}"));
        } else {
            self.line(0, &format!("Status:\tTerminating (lasts {})", super::age(Some(deleted))));
            let grace = number(metadata, &["deletionGracePeriodSeconds"]);
            self.line(0, &format!("Termination Grace Period:\t{grace}s"));
        }
        self.unless_empty(0, "Reason", text(status, &["reason"]));
        self.unless_empty(0, "Message", text(status, &["message"]));
        let profile = &spec["securityContext"]["seccompProfile"];
        self.unless_empty(0, "SeccompProfile", text(profile, &["type"]));
        self.unless_empty(0, "LocalhostProfile", text(profile, &["localhostProfile"]));
        self.line(0, &format!("IP:\t{}", text(status, &["podIP"])));
        match list(status, &["podIPs"]) {
            [] => self.line(0, "IPs:\t<none>"),
            addresses => {
                self.line(0, "IPs:");
                addresses
                    .iter()
                    .for_each(|address| self.line(1, &format!("IP:\t{}", text(address, &["ip"]))));
            }
        }
        if let Some(owner) =
            list(metadata, &["ownerReferences"]).iter().find(|owner| owner["controller"] == true)
        {
            self.line(0, &format!("Controlled By:\t{}/{}", text(owner, &["kind"]), text(owner, &["name"])));
        }
        self.unless_empty(0, "NominatedNodeName", text(status, &["nominatedNodeName"]));
        for (title, containers, statuses) in [
            ("Init Containers", "initContainers", "initContainerStatuses"),
            ("Containers", "containers", "containerStatuses"),
            ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
        ] {
            let all = list(spec, &[containers]);
            if !all.is_empty() || containers == "containers" {
                self.containers("", title, all, list(status, &[statuses]), pod);
            }
        }
        let conditions = list(status, &["conditions"]);
        let gates = list(spec, &["readinessGates"]);
        if !gates.is_empty() {
            self.0.push_str("Readiness Gates:\n  Type\tStatus\n");
            for gate in gates {
                let kind = text(gate, &["conditionType"]);
                let state = conditions
                    .iter()
                    .find(|it| it["type"] == kind)
                    .map_or("<none>", |it| text(it, &["status"]));
                self.line(1, &format!("{kind} \t{state} "));
            }
        }
        if !conditions.is_empty() {
            self.0.push_str("Conditions:\n  Type\tStatus\n");
            conditions.iter().for_each(|it| {
                self.line(1, &format!("{} \t{} ", text(it, &["type"]), text(it, &["status"])))
            });
        }
        self.volumes("", spec);
        self.line(0, &format!("QoS Class:\t{}", text(status, &["qosClass"])));
        self.labels("", "Node-Selectors", &spec["nodeSelector"]);
        self.tolerations("", spec);
    }

    fn unless_empty(&mut self, level: usize, title: &str, value: &str) {
        if !value.is_empty() {
            self.line(level, &format!("{title}:\t{value}"));
        }
    }

    fn containers(
        &mut self,
        indent: &str,
        title: &str,
        containers: &[Value],
        statuses: &[Value],
        pod: &Value,
    ) {
        let none = if containers.is_empty() { " <none>" } else { "" };
        self.0.push_str(&format!("{indent}{title}:{none}\n"));
        for container in containers {
            let name = text(container, &["name"]);
            let status = statuses.iter().find(|status| text(status, &["name"]) == name);
            self.line(1, &format!("{}{name}:", if indent.is_empty() { "" } else { " " }));
            self.container(container, status, pod);
        }
    }

    fn container(&mut self, container: &Value, status: Option<&Value>, pod: &Value) {
        if let Some(status) = status {
            self.line(2, &format!("Container ID:\t{}", text(status, &["containerID"])));
        }
        self.line(2, &format!("Image:\t{}", text(container, &["image"])));
        if let Some(status) = status {
            self.line(2, &format!("Image ID:\t{}", text(status, &["imageID"])));
        }
        for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
            let ports: Vec<String> = list(container, &["ports"])
                .iter()
                .map(|port| {
                    let shown = format!("{}/{}", number(port, &[field]), text(port, &["protocol"]));
                    match text(port, &["name"]) {
                        "" => shown,
                        name => format!("{shown} ({name})"),
                    }
                })
                .collect();
            let plural = if ports.len() > 1 { "s" } else { "" };
            let shown = if ports.is_empty() { "<none>".to_owned() } else { ports.join(", ") };
            self.line(2, &format!("{title}{plural}:\t{shown}"));
        }
        self.unless_empty(
            2,
            "SeccompProfile",
            text(container, &["securityContext", "seccompProfile", "type"]),
        );
        for (title, field) in [("Command", "command"), ("Args", "args")] {
            let words = list(container, &[field]);
            if !words.is_empty() {
                self.line(2, &format!("{title}:"));
                let lines = words.iter().filter_map(Value::as_str).flat_map(|word| word.split('\n'));
                lines.for_each(|line| self.line(3, line));
            }
        }
        if let Some(status) = status {
            self.state("State", &status["state"]);
            if status["lastState"]["terminated"].is_object() {
                self.state("Last State", &status["lastState"]);
            }
            let ready = if status["ready"] == true { "True" } else { "False" };
            self.line(2, &format!("Ready:\t{ready}"));
            self.line(2, &format!("Restart Count:\t{}", number(status, &["restartCount"])));
        }
        for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
            if let Some(resources) = container["resources"][field].as_object().filter(|it| !it.is_empty()) {
                self.line(2, &format!("{title}:"));
                resources
                    .iter()
                    .for_each(|(name, value)| self.line(3, &format!("{name}:\t{}", go_text(value))));
            }
        }
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[field].is_object() {
                self.line(2, &format!("{title}:\t{}", probe(&container[field])));
            }
        }
        let sources = list(container, &["envFrom"]);
        if !sources.is_empty() {
            self.line(2, "Environment Variables from:");
            for source in sources {
                let (kind, of) = match source["configMapRef"].is_object() {
                    true => ("ConfigMap", &source["configMapRef"]),
                    false => ("Secret", &source["secretRef"]),
                };
                let prefix = match text(source, &["prefix"]) {
                    "" => String::new(),
                    prefix => format!(" with prefix '{prefix}'"),
                };
                self.line(
                    3,
                    &format!("{}\t{kind}{prefix}\tOptional: {}", text(of, &["name"]), of["optional"] == true),
                );
            }
        }
        self.environment(container, pod);
        let mut mounts: Vec<&Value> = list(container, &["volumeMounts"]).iter().collect();
        mounts.sort_by_key(|mount| text(mount, &["mountPath"]));
        self.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
        for mount in mounts {
            let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
            let sub_path = text(mount, &["subPath"]);
            flags.extend((!sub_path.is_empty()).then(|| format!("path={sub_path:?}")));
            let (place, name) = (text(mount, &["mountPath"]), text(mount, &["name"]));
            self.line(3, &format!("{place} from {name} ({})", flags.join(",")));
        }
    }

    fn environment(&mut self, container: &Value, pod: &Value) {
        let variables = list(container, &["env"]);
        self.line(2, if variables.is_empty() { "Environment:\t<none>" } else { "Environment:" });
        for variable in variables {
            let (name, from) = (text(variable, &["name"]), &variable["valueFrom"]);
            let (secret, map, field, resource) = (
                &from["secretKeyRef"],
                &from["configMapKeyRef"],
                &from["fieldRef"],
                &from["resourceFieldRef"],
            );
            if secret.is_object() || map.is_object() {
                let (of, kind) =
                    if secret.is_object() { (secret, "in secret") } else { (map, "of config map") };
                let (key, object) = (text(of, &["key"]), text(of, &["name"]));
                let optional = of["optional"] == true;
                self.line(
                    3,
                    &format!("{name}:\t<set to the key '{key}' {kind} '{object}'>\tOptional: {optional}"),
                );
            } else if field.is_object() {
                let (version, path) = (text(field, &["apiVersion"]), text(field, &["fieldPath"]));
                let value = match path.split_once('[') {
                    None => text(pod, &path.split('.').collect::<Vec<_>>()).to_owned(),
                    Some((path, key)) => {
                        let map = path.split('.').fold(pod, |value, field| &value[field]);
                        text(map, &[key.trim_matches(['\'', ']'])]).to_owned()
                    }
                };
                self.line(3, &format!("{name}:\t{value} ({version}:{path})"));
            } else if resource.is_object() {
                let path = text(resource, &["resource"]);
                let value = path.split('.').fold(&container["resources"], |value, field| &value[field]);
                let value = match value.as_str() {
                    Some(value) => value,
                    None if path.starts_with("limits.") => "node allocatable",
                    None => "0",
                };
                self.line(3, &format!("{name}:\t{value} ({path})"));
            } else {
                let value = text(variable, &["value"]);
                for (place, line) in value.split('\n').enumerate() {
                    self.line(3, &if place == 0 { format!("{name}:\t{line}") } else { format!("\t{line}") });
                }
            }
        }
    }

    fn state(&mut self, title: &str, state: &Value) {
        let (running, terminated) = (&state["running"], &state["terminated"]);
        if running.is_object() {
            self.line(2, &format!("{title}:\tRunning"));
            self.line(3, &format!("Started:\t{}", moment(text(running, &["startedAt"]))));
        } else if terminated.is_object() {
            self.line(2, &format!("{title}:\tTerminated"));
            self.unless_empty(3, "Reason", text(terminated, &["reason"]));
            self.unless_empty(3, "Message", text(terminated, &["message"]));
            self.line(3, &format!("Exit Code:\t{}", number(terminated, &["exitCode"])));
            if number(terminated, &["signal"]) > 0 {
                self.line(3, &format!("Signal:\t{}", number(terminated, &["signal"])));
            }
            self.line(3, &format!("Started:\t{}", moment(text(terminated, &["startedAt"]))));
            self.line(3, &format!("Finished:\t{}", moment(text(terminated, &["finishedAt"]))));
        } else {
            self.line(2, &format!("{title}:\tWaiting"));
            self.unless_empty(3, "Reason", text(state, &["waiting", "reason"]));
        }
    }

    fn volumes(&mut self, indent: &str, spec: &Value) {
        let volumes = list(spec, &["volumes"]);
        if volumes.is_empty() {
            self.0.push_str(&format!("{indent}Volumes:\t<none>\n"));
            return;
        }
        self.0.push_str(&format!("{indent}Volumes:\n"));
        for volume in volumes {
            let lead = if indent.is_empty() { "" } else { " " };
            self.line(1, &format!("{lead}{}:", text(volume, &["name"])));
            self.volume(volume);
        }
    }

    fn volume(&mut self, volume: &Value) {
        let is = |field: &str| volume[field].is_object();
        let optional = |of: &Value| of["optional"] == true;
        if is("hostPath") {
            let of = &volume["hostPath"];
            self.line(2, "Type:\tHostPath (bare host directory volume)");
            self.line(2, &format!("Path:\t{}", text(of, &["path"])));
            self.line(2, &format!("HostPathType:\t{}", text(of, &["type"])));
        } else if is("emptyDir") {
            let of = &volume["emptyDir"];
            self.line(2, "Type:\tEmptyDir (a temporary directory that shares a pod's lifetime)");
            self.line(2, &format!("Medium:\t{}", text(of, &["medium"])));
            let limit = text(of, &["sizeLimit"]);
            self.line(2, &format!("SizeLimit:\t{}", if limit.is_empty() { "<unset>" } else { limit }));
        } else if is("secret") {
            let of = &volume["secret"];
            self.line(2, "Type:\tSecret (a volume populated by a Secret)");
            self.line(2, &format!("SecretName:\t{}", text(of, &["secretName"])));
            self.line(2, &format!("Optional:\t{}", optional(of)));
        } else if is("configMap") {
            let of = &volume["configMap"];
            self.line(2, "Type:\tConfigMap (a volume populated by a ConfigMap)");
            self.line(2, &format!("Name:\t{}", text(of, &["name"])));
            self.line(2, &format!("Optional:\t{}", optional(of)));
        } else if is("persistentVolumeClaim") {
            let of = &volume["persistentVolumeClaim"];
            self.line(
                2,
                "Type:\tPersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            );
            self.line(2, &format!("ClaimName:\t{}", text(of, &["claimName"])));
            self.line(2, &format!("ReadOnly:\t{}", of["readOnly"] == true));
        } else if is("projected") {
            self.line(2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
            for source in list(volume, &["projected", "sources"]) {
                if source["secret"].is_object() {
                    self.line(2, &format!("SecretName:\t{}", text(source, &["secret", "name"])));
                    self.line(2, &format!("Optional:\t{}", optional(&source["secret"])));
                } else if source["downwardAPI"].is_object() {
                    self.line(2, "DownwardAPI:\ttrue");
                } else if source["configMap"].is_object() {
                    self.line(2, &format!("ConfigMapName:\t{}", text(source, &["configMap", "name"])));
                    self.line(2, &format!("Optional:\t{}", optional(&source["configMap"])));
                } else if source["serviceAccountToken"].is_object() {
                    let seconds = number(source, &["serviceAccountToken", "expirationSeconds"]);
                    self.line(2, &format!("TokenExpirationSeconds:\t{seconds}"));
                }
            }
        } else if let Some((kind, of)) =
            volume.as_object().into_iter().flatten().find(|(name, _)| *name != "name")
        {
            self.line(2, &format!("Type:\t{kind}"));
            if let Some(fields) = of.as_object() {
                self.content(2, fields, "", &[]);
            }
        }
    }

    fn tolerations(&mut self, indent: &str, spec: &Value) {
        self.0.push_str(&format!("{indent}Tolerations:\t"));
        let mut tolerations: Vec<&Value> = list(spec, &["tolerations"]).iter().collect();
        tolerations.sort_by_key(|toleration| text(toleration, &["key"]));
        if tolerations.is_empty() {
            self.0.push_str("<none>\n");
        }
        for (place, toleration) in tolerations.into_iter().enumerate() {
            let lead = if place == 0 { String::new() } else { format!("{indent}\t") };
            let [key, value, effect] = ["key", "value", "effect"].map(|field| text(toleration, &[field]));
            let mut shown = format!("{lead}{key}");
            if !value.is_empty() {
                shown.push_str(&format!("={value}"));
            }
            if !effect.is_empty() {
                shown.push_str(&format!(":{effect}"));
            }
            if toleration["operator"] == "Exists" && value.is_empty() {
                shown.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                shown.push_str(&format!(" for {seconds}s"));
            }
            self.0.push_str(&format!("{shown}\n"));
        }
    }

    /// As kubectl shows an object of a kind that it does not know.
    fn generic(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.line(0, &format!("Name:\t{}", text(metadata, &["name"])));
        self.line(0, &format!("Namespace:\t{}", text(metadata, &["namespace"])));
        self.labels("", "Labels", &metadata["labels"]);
        self.annotations(&metadata["annotations"]);
        let shown = [
            ".metadata.managedFields",
            ".metadata.name",
            ".metadata.namespace",
            ".metadata.labels",
            ".metadata.annotations",
        ];
        if let Some(fields) = object.as_object() {
            self.content(0, fields, "", &shown);
        }
    }

    fn content(&mut self, level: usize, fields: &Map<String, Value>, path: &str, shown: &[&str]) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            if shown.contains(&path.as_str()) {
                continue;
            }
            match value {
                Value::Object(inner) => {
                    self.line(level, &format!("{}:", label(name)));
                    self.content(level + 1, inner, &path, shown);
                }
                Value::Array(items) => {
                    self.line(level, &format!("{}:", label(name)));
                    for item in items {
                        match item {
                            Value::Object(inner) => self.content(level + 1, inner, &path, shown),
                            other => self.line(level + 1, &go_text(other)),
                        }
                    }
                }
                other => self.line(level, &format!("{}:\t{}", label(name), go_text(other))),
            }
        }
    }
}

fn probe(probe: &Value) -> String {
    let of = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    let how = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        of("initialDelaySeconds", 0),
        of("timeoutSeconds", 0),
        of("periodSeconds", 0),
        of("successThreshold", 0),
        of("failureThreshold", 0)
    );
    let port = |of: &Value| go_text(&of["port"]);
    let (exec, http, tcp, grpc) = (&probe["exec"], &probe["httpGet"], &probe["tcpSocket"], &probe["grpc"]);
    if exec.is_object() {
        format!("exec {} {how}", go_text(&exec["command"]))
    } else if http.is_object() {
        let (scheme, host) = (text(http, &["scheme"]).to_lowercase(), text(http, &["host"]));
        format!("http-get {scheme}://{host}:{}{} {how}", port(http), text(http, &["path"]))
    } else if tcp.is_object() {
        format!("tcp-socket {}:{} {how}", text(tcp, &["host"]), port(tcp))
    } else if grpc.is_object() {
        format!("grpc <pod>:{} {} {how}", port(grpc), text(grpc, &["service"]))
    } else {
        format!("unknown {how}")
    }
}

/// A moment as RFC 1123 has it, in UTC.
fn moment(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(moment) => moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// `apiVersion` as `API Version`; a name with other signs stays as it is.
fn label(name: &str) -> String {
    if !name.chars().all(|char| char.is_alphabetic() || char == '-') {
        return name.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let chars: Vec<char> = name.chars().collect();
    for (place, char) in chars.iter().enumerate() {
        let before = place.checked_sub(1).map(|place| chars[place]);
        let starts = match before {
            None => true,
            Some(before) => {
                let next_is_lower = chars.get(place + 1).is_some_and(|next| next.is_lowercase());
                (char.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower)))
                    || (char.is_alphabetic() != before.is_alphabetic())
            }
        };
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(*char);
        }
    }
    let titled = |word: &String| {
        let upper = word.to_uppercase();
        if ["API", "URL", "UID", "OSB", "GUID"].contains(&upper.as_str()) {
            return upper;
        }
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| {
            first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect()
        })
    };
    words.iter().map(titled).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
