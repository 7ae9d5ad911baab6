//! The containers of a pod, in kubectl's own form.

use serde_json::Value;

use super::{
    super::{go_text, list, number, quantity::Amount, text},
    page::{Page, moment},
};

impl Page {
    pub(super) fn containers(
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
            self.field(2, "Container ID", text(status, &["containerID"]));
        }
        self.field(2, "Image", text(container, &["image"]));
        if let Some(status) = status {
            self.field(2, "Image ID", text(status, &["imageID"]));
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
            self.field(2, "Ready", ready);
            self.field(2, "Restart Count", number(status, &["restartCount"]));
        }
        self.resources(2, &container["resources"]);
        for (title, field) in
            [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
        {
            if container[field].is_object() {
                self.field(2, title, probe(&container[field]));
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
        let none = if mounts.is_empty() { "\t<none>" } else { "" };
        self.line(2, &format!("Mounts:{none}"));
        for mount in mounts {
            let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
            let sub_path = text(mount, &["subPath"]);
            flags.extend((!sub_path.is_empty()).then(|| format!("path={sub_path:?}")));
            let (place, name) = (text(mount, &["mountPath"]), text(mount, &["name"]));
            self.line(3, &format!("{place} from {name} ({})", flags.join(",")));
        }
        let mut devices: Vec<&Value> = list(container, &["volumeDevices"]).iter().collect();
        devices.sort_by_key(|device| text(device, &["devicePath"]));
        if !devices.is_empty() {
            // As kubectl has it, which looks at the mounts.
            self.line(2, &format!("Devices:{none}"));
        }
        for device in devices {
            self.line(3, &format!("{} from {}", text(device, &["devicePath"]), text(device, &["name"])));
        }
    }

    /// Of a container or of a whole pod.
    pub(super) fn resources(&mut self, level: usize, resources: &Value) {
        for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
            if let Some(amounts) = resources[field].as_object().filter(|amounts| !amounts.is_empty()) {
                self.line(level, &format!("{title}:"));
                amounts.iter().for_each(|(name, value)| self.field(level + 1, name, go_text(value)));
            }
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
                // Of others kubectl shows no value.
                let value = match path {
                    "metadata.name" => text(pod, &["metadata", "name"]),
                    "metadata.namespace" => text(pod, &["metadata", "namespace"]),
                    _ => "",
                };
                self.line(3, &format!("{name}:\t{value} ({version}:{path})"));
            } else if resource.is_object() {
                let path = text(resource, &["resource"]);
                let amount = |text: &str| Some(Amount::of(text)).filter(|amount| !amount.is_zero());
                // What is behind the first point may have points itself.
                let of = path.split_once('.').map(|(kind, of)| text(&container["resources"], &[kind, of]));
                let value = match of.and_then(amount) {
                    Some(value) => value.over(amount(text(resource, &["divisor"]))).to_string(),
                    None if path == "limits.cpu" || path == "limits.memory" => "node allocatable".to_owned(),
                    None => "0".to_owned(),
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
            self.field(2, title, "Running");
            self.field(3, "Started", moment(text(running, &["startedAt"])));
        } else if terminated.is_object() {
            self.field(2, title, "Terminated");
            self.unless_empty(3, "Reason", text(terminated, &["reason"]));
            self.unless_empty(3, "Message", text(terminated, &["message"]));
            self.field(3, "Exit Code", number(terminated, &["exitCode"]));
            if number(terminated, &["signal"]) > 0 {
                self.field(3, "Signal", number(terminated, &["signal"]));
            }
            self.field(3, "Started", moment(text(terminated, &["startedAt"])));
            self.field(3, "Finished", moment(text(terminated, &["finishedAt"])));
        } else {
            self.field(2, title, "Waiting");
            self.unless_empty(3, "Reason", text(state, &["waiting", "reason"]));
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
