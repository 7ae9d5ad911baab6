//! A mesh configuration: which of the providers it knows that send access logs here, and how it gets the others.

use std::fmt;

use serde_json::{Value, json};

use super::Scope;

/// A provider of access logs, by the name that Telemetries know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: &'static str,
    /// The field of its entry that says what it is.
    field: &'static str,
    /// Where it receives, host and port, if not where the aggregator does.
    own: Option<(&'static str, u16)>,
}

/// Of HTTP requests, and of TCP connections.
pub const PROVIDERS: [Provider; 2] = [
    Provider { name: "kestrel-operator-als", field: "envoyHttpAls", own: None },
    Provider { name: "kestrel-operator-als-tcp", field: "envoyTcpAls", own: None },
];

/// Where a pod's own collector receives, at each of them.
const COLLECTOR: Option<(&str, u16)> = Some(("kestrel-collector-als.kestrel.internal", 14_080));

/// Likewise, of proxies that send to their pod's collector.
const COLLECTORS: [Provider; 2] = [
    Provider { name: "kestrel-collector-als", field: "envoyHttpAls", own: COLLECTOR },
    Provider { name: "kestrel-collector-als-tcp", field: "envoyTcpAls", own: COLLECTOR },
];

/// The list of providers in a mesh configuration.
const LIST: &str = "extensionProviders";

/// What a provider of HTTP has to log besides, as an answer with HTTP's 200 may be a failure of gRPC: a trailer, or a header of an answer that
/// has nothing else.
const GRPC_STATUS: &str = "grpc-status";
/// The fields of its entry that list headers and trailers.
const LOGGED: [&str; 2] = ["additionalResponseHeadersToLog", "additionalResponseTrailersToLog"];

/// Where access logs are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The Service's name in the cluster's DNS.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Text of a mesh configuration, as the key `mesh` of its ConfigMap has it.
#[derive(Clone, Debug)]
pub struct Mesh {
    text: String,
    read: Value,
    scope: Scope,
}

impl Mesh {
    /// Reads it. It has to know the receiver of `scope`, and, where there are namespaces whose proxies are to send to them, the
    /// collectors of pods.
    ///
    /// # Errors
    /// It is not one that Istio would read, in a few words.
    pub fn read(text: &str, scope: &Scope) -> Result<Self, String> {
        let read = parse(text)?;
        if !(read.is_object() && (read[LIST].is_array() || read[LIST].is_null())) {
            return Err(format!("it is no mapping with a list {LIST}"));
        }
        Ok(Self { text: text.to_owned(), read, scope: scope.clone() })
    }

    /// Those that it has to know.
    fn expected(&self) -> impl Iterator<Item = Provider> {
        PROVIDERS.into_iter().chain(COLLECTORS.into_iter().filter(|_| self.scope.has_collectors))
    }

    /// Those that it does not know.
    pub fn missing(&self) -> Vec<Provider> {
        self.expected().filter(|provider| self.find(*provider).is_none()).collect()
    }

    /// Those that it knows as something else or elsewhere, with what is wrong.
    pub fn mistaken(&self) -> Vec<(Provider, String)> {
        let wrong = |provider: Provider| {
            let found = &self.find(provider)?[provider.field];
            let (Some(service), Some(port)) = (found["service"].as_str(), found["port"].as_u64()) else {
                return Some((provider, format!("it has no {} with a service and a port", provider.field)));
            };
            let (host, own_port) = provider.at(&self.scope.receiver);
            // Istio allows for the namespace before a name.
            let name = in_cluster(service.rsplit_once('/').map_or(service, |(_, name)| name));
            // The receivers of nodes have a Service of their own.
            let is_of_nodes = name == in_cluster(&host.replacen('.', "-node.", 1));
            let is_there = name == in_cluster(host) || is_of_nodes && self.scope.on_nodes;
            let leads_here = is_there && port == u64::from(own_port);
            let why = || {
                let off = if is_of_nodes && !is_there {
                    " (node agents receive with operator.istio.onNodes: true)"
                } else {
                    ""
                };
                format!(
                    "it sends to {service}:{port}, and {host}:{own_port} is where access logs are received{off}"
                )
            };
            (!leads_here).then(|| (provider, why()))
        };
        self.expected().filter_map(wrong).collect()
    }

    /// What is no mistake and yet has to be seen to, in a sentence each.
    pub fn cautions(&self) -> Vec<String> {
        let blind = |provider: Provider| {
            let found = self.find(provider)?.get(provider.field)?;
            let logs =
                |list: &str| found[list].as_array().into_iter().flatten().any(|name| name == GRPC_STATUS);
            let lists: Vec<_> = provider.logged().iter().copied().filter(|list| !logs(list)).collect();
            let lists = Some(lists.join(" and ")).filter(|lists| !lists.is_empty())?;
            let cost = "so gRPC calls that fail count as good, as HTTP's status is 200: add it";
            Some(format!("its provider {provider} has no {GRPC_STATUS} in {lists}, {cost}"))
        };
        let tls = self.scope.speaks_tls.then(|| {
            format!(
                "access logs are received over TLS alone (operator.istio.existingSecret), which proxies speak to {} only by a \
                 DestinationRule with tls.mode MUTUAL: without it all their streams fail (docs/access-logs.md has it)",
                self.scope.receiver.host
            )
        });
        self.expected().filter_map(blind).chain(tls).collect()
    }

    fn find(&self, provider: Provider) -> Option<&Value> {
        self.read[LIST].as_array()?.iter().find(|entry| entry["name"] == provider.name)
    }

    /// The text with these providers besides all that is there: as it was, with some lines more, or, where it is in no form that lines can
    /// be put into, as JSON, which is YAML too.
    pub fn with(&self, providers: &[Provider]) -> String {
        let mut expected = self.read.clone();
        let added = providers.iter().map(|provider| provider.entry(&self.scope.receiver));
        let kept = self.read[LIST].as_array().into_iter().flatten().cloned();
        expected[LIST] = added.chain(kept).collect();
        let text = self.with_lines(providers);
        if parse(&text).as_ref() == Ok(&expected) { text } else { format!("{expected:#}\n") }
    }

    fn with_lines(&self, providers: &[Provider]) -> String {
        let mut lines: Vec<&str> = self.text.lines().collect();
        let is_list = |line: &str| {
            let value = line.strip_prefix(LIST).and_then(|rest| rest.strip_prefix(':')).map(str::trim_start);
            value.is_some_and(|value| value.is_empty() || value.starts_with('#'))
        };
        let at = match lines.iter().position(|line| is_list(line)) {
            Some(at) => at + 1,
            None => {
                lines.push("extensionProviders:");
                lines.len()
            }
        };
        // As far to the right as the first that is there.
        let first = lines.iter().skip(at).find(|line| line.trim_start().starts_with("- "));
        let indent = first.map_or(0, |line| line.len() - line.trim_start().len());
        let entries = self.entries(providers, indent);
        lines.splice(at..at, entries.lines());
        lines.join("\n") + "\n"
    }

    /// The entries of a list of providers, so far to the right.
    pub fn entries(&self, providers: &[Provider], indent: usize) -> String {
        let indent = " ".repeat(indent);
        let entry = |provider: &Provider| {
            let (Provider { name, field, .. }, (host, port)) = (provider, provider.at(&self.scope.receiver));
            let logged =
                provider.logged().iter().map(|list| format!("{indent}    {list}: [{GRPC_STATUS}]\n"));
            let logged: String = logged.collect();
            format!(
                "{indent}- name: {name}\n{indent}  {field}:\n{indent}    service: {host}\n{indent}    port: {port}\n{logged}"
            )
        };
        providers.iter().map(entry).collect()
    }
}

/// A Service's name without the cluster's own domain, which may be another one.
fn in_cluster(host: &str) -> &str {
    host.find(".svc").and_then(|end| host.get(..end)).unwrap_or(host)
}

impl Provider {
    /// Where it receives.
    fn at(self, Receiver { host, port }: &Receiver) -> (&str, u16) {
        self.own.unwrap_or((host, *port))
    }

    fn entry(self, receiver: &Receiver) -> Value {
        let (host, port) = self.at(receiver);
        let mut to = json!({"service": host, "port": port});
        for list in self.logged() {
            to[list] = json!([GRPC_STATUS]);
        }
        json!({"name": self.name, self.field: to})
    }

    /// The lists in which it has to have [`GRPC_STATUS`].
    fn logged(self) -> &'static [&'static str] {
        if self.field == "envoyHttpAls" { &LOGGED } else { &[] }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope() -> Scope {
        let host = "kestrel-operator-als.kestrel-ai.svc.cluster.local".to_owned();
        let (root, receiver) = ("istio-system".to_owned(), Receiver { host, port: 8080 });
        Scope { root, has_collectors: false, receiver, on_nodes: true, speaks_tls: false }
    }

    fn read(text: &str) -> Result<Mesh, String> {
        Mesh::read(text, &scope())
    }

    fn names(providers: &[Provider]) -> Vec<&str> {
        providers.iter().map(|provider| provider.name).collect()
    }

    const TRACING: &str = "accessLogFile: /dev/stdout # stays
extensionProviders:   # of ours
  # the first
  - name: \"otel\"
    opentelemetry: {port: 4317, service: o.example.com}
trustDomain: cluster.local
";

    #[test]
    fn what_is_missing_is_put_before_what_is_there_and_nothing_else_changes() {
        let mesh = read(TRACING).unwrap();
        assert_eq!(names(&mesh.missing()), ["kestrel-operator-als", "kestrel-operator-als-tcp"]);
        let text = mesh.with(&mesh.missing()[1..]);
        let expected = "accessLogFile: /dev/stdout # stays
extensionProviders:   # of ours
  - name: kestrel-operator-als-tcp
    envoyTcpAls:
      service: kestrel-operator-als.kestrel-ai.svc.cluster.local
      port: 8080
  # the first
  - name: \"otel\"
    opentelemetry: {port: 4317, service: o.example.com}
trustDomain: cluster.local
";
        assert_eq!(text, expected);
        assert_eq!(names(&read(&text).unwrap().missing()), ["kestrel-operator-als"]);
    }

    #[test]
    fn a_list_that_is_not_there_or_of_another_form_is_made() {
        for (text, kept) in [
            ("trustDomain: cluster.local\n", "trustDomain: cluster.local\nextensionProviders:\n- name:"),
            ("trustDomain: x", "trustDomain: x\nextensionProviders:\n- name:"),
            (
                "extensionProviders:\n- name: a\n  zipkin: {}\n",
                "extensionProviders:\n- name: kestrel-operator-als\n",
            ),
            ("extensionProviders: []\n", "{\n"),
            ("extensionProviders: [{name: a}] # one\n", "\"a\""),
            ("{\"extensionProviders\": [{\"name\": \"a\"}]}", "\"a\""),
            ("defaultConfig:\n  extensionProviders: 1\n", "  extensionProviders: 1\nextensionProviders:\n"),
        ] {
            let mesh = read(text).unwrap();
            let with = mesh.with(&mesh.missing());
            assert!(with.contains(kept), "{with}");
            let again = read(&with).unwrap();
            assert!(again.missing().is_empty() && again.mistaken().is_empty(), "{with}");
        }
    }

    #[test]
    fn a_provider_of_another_kind_and_a_text_that_is_no_configuration_are_told() {
        let mesh = read("extensionProviders:\n- name: kestrel-operator-als\n  zipkin: {}\n").unwrap();
        assert_eq!(names(&mesh.missing()), ["kestrel-operator-als-tcp"]);
        assert_eq!(mesh.mistaken().len(), 1);
        for (service, port, leads_here) in [
            ("kestrel-operator-als.kestrel-ai.svc.cluster.local", 8080, true),
            ("kestrel-ai/kestrel-operator-als.kestrel-ai.svc.example.org", 8080, true),
            ("kestrel-operator-als-node.kestrel-ai.svc.cluster.local", 8080, true),
            ("kestrel-operator-als.former.svc.cluster.local", 8080, false),
            ("kestrel-operator-als.kestrel-ai.svc.cluster.local", 9000, false),
        ] {
            let entry =
                json!({"name": "kestrel-operator-als", "envoyHttpAls": {"service": service, "port": port}});
            let mistaken = read(&json!({"extensionProviders": [entry]}).to_string()).unwrap().mistaken();
            let expected = format!(
                "it sends to {service}:{port}, and kestrel-operator-als.kestrel-ai.svc.cluster.local:8080 is where access logs are received"
            );
            let why: Vec<_> = mistaken.into_iter().map(|(_, why)| why).collect();
            assert_eq!(why, vec![expected; usize::from(!leads_here)], "{service}:{port}");
        }
        for text in ["", "- a", "extensionProviders: 1", "a: [", "a: &a [*a]"] {
            read(text).unwrap_err();
        }
    }

    #[test]
    fn the_service_of_nodes_is_one_only_where_node_agents_receive() {
        let mesh = read("{}").unwrap();
        let of_nodes = mesh.with(&PROVIDERS).replace("als.kestrel-ai", "als-node.kestrel-ai");
        assert_eq!(read(&of_nodes).unwrap().mistaken(), []);
        let off = Mesh::read(&of_nodes, &Scope { on_nodes: false, ..scope() }).unwrap();
        let [(_, why), _] = &off.mistaken()[..] else { panic!("{:?}", off.mistaken()) };
        assert!(why.ends_with("(node agents receive with operator.istio.onNodes: true)"), "{why}");
    }

    #[test]
    fn a_provider_that_does_not_log_what_became_of_grpc_and_tls_that_nobody_speaks_are_told() {
        let text = read("trustDomain: x").unwrap().with(&PROVIDERS);
        assert_eq!(read(&text).unwrap().cautions(), [""; 0]);
        let without = text.replace("additionalResponseTrailersToLog: [grpc-status]", "");
        let cautions = read(&without).unwrap().cautions();
        assert_eq!(cautions.len(), 1);
        let told =
            "its provider kestrel-operator-als has no grpc-status in additionalResponseTrailersToLog, so ";
        assert!(cautions[0].starts_with(told), "{cautions:?}");
        let cautions = Mesh::read(&text, &Scope { speaks_tls: true, ..scope() }).unwrap().cautions();
        assert!(cautions.len() == 1 && cautions[0].contains("DestinationRule"), "{cautions:?}");
    }

    proptest! {
        /// Whatever else is there, it stays.
        #[test]
        fn nothing_is_lost(
            names in prop::collection::vec("p[a-z]{1,6}", 0..4), indent in 0..5_usize, others in prop::collection::btree_map("k[a-z]{1,5}", "[a-z \"#:-]{0,12}", 0..4),
        ) {
            let mut text: String = others.iter().map(|(key, value)| format!("{key}: {}\n", json!(value))).collect();
            if !names.is_empty() {
                let entries = names.iter().map(|name| format!("{:indent$}- name: {name}\n{:indent$}  x: 1\n", "", ""));
                text = format!("extensionProviders:\n{}{text}", entries.collect::<String>());
            }
            prop_assume!(!text.is_empty());
            let mesh = read(&text).unwrap();
            let with = read(&mesh.with(&mesh.missing())).unwrap();
            prop_assert!(with.missing().is_empty());
            for (key, value) in &others {
                prop_assert_eq!(&with.read[key], value);
            }
            let kept = with.read[LIST].as_array().unwrap();
            prop_assert_eq!(kept.len(), 2 + names.len());
            for (entry, name) in kept[2..].iter().zip(&names) {
                prop_assert_eq!(entry, &json!({"name": name, "x": 1}));
            }
        }
    }
}
