//! Services and Ingresses with their endpoints, in kubectl's own form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    super::{go_text, list, number, pairs, text},
    page::{Page, joined, text_or},
};

/// Addresses of a port that are shown.
const SHOWN: usize = 3;

/// A service and its slices of endpoints, or why they are not known; by its name.
pub(super) type Backends = BTreeMap<String, Result<(Value, Vec<Value>), String>>;

impl Page {
    pub(super) fn service(&mut self, service: &Value, slices: &[Value]) {
        let spec = &service["spec"];
        self.name(service);
        self.marks(service);
        self.field(0, "Selector", pairs(&spec["selector"]));
        self.field(0, "Type", text(spec, &["type"]));
        self.unless_empty(0, "IP Family Policy", text(spec, &["ipFamilyPolicy"]));
        self.field(0, "IP Families", joined(spec, &["ipFamilies"], ","));
        self.field(0, "IP", text(spec, &["clusterIP"]));
        self.field(0, "IPs", joined(spec, &["clusterIPs"], ","));
        if !list(spec, &["externalIPs"]).is_empty() {
            self.field(0, "External IPs", joined(spec, &["externalIPs"], ","));
        }
        self.unless_empty(0, "Desired LoadBalancer IP", text(spec, &["loadBalancerIP"]));
        self.unless_empty(0, "External Name", text(spec, &["externalName"]));
        let balancers = list(service, &["status", "loadBalancer", "ingress"]).iter().map(|it| {
            match ["ip", "ipMode", "hostname"].map(|field| text(it, &[field])) {
                ["", _, name] => name.to_owned(),
                [address, "", _] => address.to_owned(),
                [address, mode, _] => format!("{address} ({mode})"),
            }
        });
        self.unless_empty(0, "LoadBalancer Ingress", &balancers.collect::<Vec<_>>().join(", "));
        for port in list(spec, &["ports"]) {
            let (name, protocol) = (text_or(port, &["name"], "<unset>"), text(port, &["protocol"]));
            self.field(0, "Port", format!("{name}\t{}/{protocol}", number(port, &["port"])));
            self.field(0, "TargetPort", format!("{}/{protocol}", go_text(&port["targetPort"])));
            if let Some(node_port) = port["nodePort"].as_i64() {
                self.field(0, "NodePort", format!("{name}\t{node_port}/{protocol}"));
            }
            self.field(0, "Endpoints", endpoints(slices, text(port, &["name"])));
        }
        self.field(0, "Session Affinity", text(spec, &["sessionAffinity"]));
        self.unless_empty(0, "External Traffic Policy", text(spec, &["externalTrafficPolicy"]));
        self.unless_empty(0, "Internal Traffic Policy", text(spec, &["internalTrafficPolicy"]));
        if let Some(port) = spec["healthCheckNodePort"].as_i64() {
            self.field(0, "HealthCheck NodePort", port);
        }
        if !list(spec, &["loadBalancerSourceRanges"]).is_empty() {
            self.field(0, "LoadBalancer Source Ranges", joined(spec, &["loadBalancerSourceRanges"], ","));
        }
        self.unless_empty(0, "Traffic Distribution", text(spec, &["trafficDistribution"]));
    }

    pub(super) fn ingress(&mut self, ingress: &Value, backends: &Backends) {
        let spec = &ingress["spec"];
        self.fields(0, &ingress["metadata"], &[("Name", "name")]);
        self.labels("", "Labels", &ingress["metadata"]["labels"]);
        self.fields(0, &ingress["metadata"], &[("Namespace", "namespace")]);
        let balancers = list(ingress, &["status", "loadBalancer", "ingress"]).iter();
        let addresses: BTreeSet<&str> = balancers
            .map(|it| text_or(it, &["ip"], text(it, &["hostname"])))
            .filter(|it| !it.is_empty())
            .collect();
        self.field(0, "Address", addresses.into_iter().collect::<Vec<_>>().join(","));
        self.field(0, "Ingress Class", text_or(spec, &["ingressClassName"], "<none>"));
        let default = match &spec["defaultBackend"] {
            Value::Null => "<default>".to_owned(),
            of => backend(of, backends),
        };
        self.field(0, "Default backend", &default);
        let tls = list(spec, &["tls"]);
        if !tls.is_empty() {
            self.line(0, "TLS:");
        }
        for of in tls {
            let hosts: Vec<&str> = list(of, &["hosts"]).iter().filter_map(Value::as_str).collect();
            let how = match text(of, &["secretName"]) {
                "" => "SNI routes".to_owned(),
                secret => format!("{secret} terminates"),
            };
            self.line(1, &format!("{how} {}", hosts.join(",")));
        }
        self.line(0, "Rules:");
        self.head(&["Host", "Path", "Backends"]);
        let mut rules = list(spec, &["rules"]).iter().filter(|rule| rule["http"].is_object()).peekable();
        if rules.peek().is_none() {
            self.line(1, &format!("*\t*\t{default}"));
        }
        for rule in rules {
            self.line(1, &format!("{}\t", text_or(rule, &["host"], "*")));
            for path in list(rule, &["http", "paths"]) {
                self.line(
                    2,
                    &format!("\t{} \t{}", text(path, &["path"]), backend(&path["backend"], backends)),
                );
            }
        }
        self.annotations("", &ingress["metadata"]["annotations"]);
    }
}

/// The names of the services that an ingress leads to, each once.
pub(super) fn names(ingress: &Value) -> BTreeSet<&str> {
    let spec = &ingress["spec"];
    let rules = list(spec, &["rules"]).iter().flat_map(|rule| list(rule, &["http", "paths"]));
    let backends = rules.map(|path| &path["backend"]).chain([&spec["defaultBackend"]]);
    backends.map(|backend| text(backend, &["service", "name"])).filter(|name| !name.is_empty()).collect()
}

fn backend(backend: &Value, backends: &Backends) -> String {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    if resource.is_object() {
        let group = text_or(resource, &["apiGroup"], "<none>");
        let [kind, name] = ["kind", "name"].map(|field| text(resource, &[field]));
        return format!("APIGroup: {group}, Kind: {kind}, Name: {name}");
    }
    let (name, port) = (text(service, &["name"]), &service["port"]);
    let shown = match port["number"].as_i64() {
        Some(number) => format!("{name}:{number}"),
        None => format!("{name}:{}", text(port, &["name"])),
    };
    match backends.get(name) {
        None => shown,
        Some(Err(why)) => format!("{shown} (<error: {why}>)"),
        Some(Ok((service, slices))) => {
            let is_meant = |of: &&Value| match port["number"].as_i64() {
                Some(number) => of["port"] == number,
                None => of["name"] == port["name"],
            };
            let of = list(service, &["spec", "ports"]).iter().rfind(is_meant).unwrap_or(&Value::Null);
            format!("{shown} ({})", endpoints(slices, text(of, &["name"])))
        }
    }
}

/// The first addresses of a port that are ready, and how many more there are; of slices without ports, whatever
/// the port. An endpoint that does not say whether it is ready is.
fn endpoints(slices: &[Value], port: &str) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let (mut shown, mut ready, mut is_cut) = (Vec::new(), 0, false);
    for slice in slices {
        let ports = list(slice, &["ports"]);
        let of_port = ports.iter().filter(|of| text(of, &["name"]) == port).map(|of| of["port"].as_i64());
        let numbers: Vec<Option<i64>> = if ports.is_empty() { vec![None] } else { of_port.collect() };
        for number in numbers {
            for endpoint in list(slice, &["endpoints"]) {
                is_cut |= shown.len() == SHOWN;
                if endpoint["conditions"]["ready"] == false {
                    continue;
                }
                ready += 1;
                if is_cut {
                    continue;
                }
                let address =
                    list(endpoint, &["addresses"]).first().and_then(Value::as_str).unwrap_or_default();
                shown.push(match number {
                    None => address.to_owned(),
                    Some(number) if address.contains(':') => format!("[{address}]:{number}"),
                    Some(number) => format!("{address}:{number}"),
                });
            }
        }
    }
    let more = if is_cut { format!(" + {} more...", ready - SHOWN) } else { String::new() };
    shown.join(",") + &more
}
