//! What the environment says.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use http::Uri;
use kestrel_link::{
    connection::{self, Authority},
    session::PROTOCOL_VERSION,
};
use kestrel_proto::node::v1::{Hello, Role};
use kestrel_runtime::config::{Mistakes, Settings, Source};
use kestrel_tail::{budget::Limits, redact::Expressions};

/// The agent's configuration; see `docs/interfaces.md` for the variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// Namespace and name of our own pod, whose log is left out.
    pub own_pod: Option<(String, String)>,
    /// Port of `/livez`, `/readyz` and `/metrics`.
    pub health_port: u16,
    /// The agent link.
    pub endpoint: Uri,
    /// Our projected token.
    pub token_file: PathBuf,
    /// Who signs the aggregator's certificate.
    pub ca_file: PathBuf,
    /// The kubelet's directory of logs.
    pub pod_logs: PathBuf,
    /// Where positions are kept.
    pub state: PathBuf,
    /// The container runtime's socket, if its health is to be watched.
    pub runtime_socket: Option<PathBuf>,
    /// What is a secret beside what always is.
    pub redact: Expressions,
    /// Pods that ran before the agent are read from this long before it started.
    pub look_back: Duration,
    /// Namespaces whose logs stay in the cluster.
    pub excluded: BTreeSet<String>,
    /// How much may be sent.
    pub limits: Limits,
    /// The log of the AWS network policy agent, if flows are read from it.
    pub aws_policy_log: Option<PathBuf>,
    /// The socket of Hubble on this node, if flows are read from it.
    pub hubble_socket: Option<PathBuf>,
    /// Namespace of Istio's ztunnel, if flows are read from its logs.
    pub ztunnel_namespace: Option<String>,
}

impl Config {
    /// Reads all variables.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut settings = Settings::new(source);
        let default = Uri::from_static("https://kestrel-agent-link.kestrel-ai.svc:8443");
        let config = Self {
            node: settings.required("NODE_NAME", "says which node this agent speaks for (spec.nodeName)"),
            own_pod: settings.optional("POD_NAMESPACE").zip(settings.optional("POD_NAME")),
            health_port: settings.parse("HEALTH_PORT", 8081),
            endpoint: settings.parse("KESTREL_LINK_ENDPOINT", default),
            token_file: settings.path("KESTREL_LINK_TOKEN_FILE", "/var/run/secrets/kestrel/token"),
            ca_file: settings.path("KESTREL_LINK_CA_FILE", "/etc/kestrel/link-ca/ca.crt"),
            pod_logs: settings.path("KESTREL_POD_LOGS_DIR", "/var/log/pods"),
            state: settings.path("KESTREL_STATE_DIR", "/var/lib/kestrel"),
            runtime_socket: settings.optional("KESTREL_RUNTIME_SOCKET").map(PathBuf::from),
            redact: settings.parse("KESTREL_REDACT", Expressions::default()),
            look_back: settings.duration("KESTREL_LOG_LOOK_BACK", Duration::from_mins(10)),
            excluded: {
                let names = settings.text("KESTREL_EXCLUDED_NAMESPACES", "");
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                names.map(str::to_owned).collect()
            },
            limits: Limits {
                pod: settings.parse("KESTREL_BUDGET_POD_BYTES", 0),
                namespace: settings.parse("KESTREL_BUDGET_NAMESPACE_BYTES", 0),
                node: settings.parse("KESTREL_BUDGET_NODE_BYTES", 0),
            },
            aws_policy_log: settings.optional("KESTREL_AWS_POLICY_LOG").map(PathBuf::from),
            hubble_socket: settings.optional("KESTREL_HUBBLE_SOCKET").map(PathBuf::from),
            ztunnel_namespace: settings.optional("KESTREL_ZTUNNEL_NAMESPACE"),
        };
        if config.endpoint.scheme_str() != Some("https") || config.endpoint.host().is_none() {
            settings.mistake(format!(
                "KESTREL_LINK_ENDPOINT={} is not usable: it has to be https://host:port",
                config.endpoint
            ));
        }
        settings.finish().map(|()| config)
    }

    /// What the link needs of it.
    pub fn link(&self) -> connection::Config {
        let (pod_namespace, pod_name) = self.own_pod.clone().unwrap_or_default();
        connection::Config {
            endpoint: self.endpoint.clone(),
            authority: Authority::File(self.ca_file.clone()),
            token_file: self.token_file.clone(),
            hello: Hello {
                protocol_version: PROTOCOL_VERSION,
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
                role: Role::NodeAgent.into(),
                node_name: self.node.clone(),
                pod_namespace,
                pod_name,
                ..Hello::default()
            },
            retry: connection::RETRY,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_node_name_is_enough_and_all_mistakes_are_told() {
        let config =
            Config::read(&BTreeMap::from([("NODE_NAME", "n1"), ("POD_NAME", "a"), ("POD_NAMESPACE", "b")]))
                .unwrap();
        assert_eq!(config.own_pod, Some(("b".into(), "a".into())));
        assert_eq!((config.health_port, config.runtime_socket), (8081, None));
        let wrong = BTreeMap::from([
            ("KESTREL_LINK_ENDPOINT", "http://x:1"),
            ("HEALTH_PORT", "x"),
            ("KESTREL_REDACT", "("),
            ("KESTREL_BUDGET_POD_BYTES", "much"),
        ]);
        let mistakes = Config::read(&wrong).unwrap_err().to_string();
        for name in [
            "NODE_NAME",
            "KESTREL_LINK_ENDPOINT",
            "HEALTH_PORT",
            "KESTREL_REDACT",
            "KESTREL_BUDGET_POD_BYTES",
        ] {
            assert!(mistakes.contains(name), "{mistakes}");
        }
    }
}
