//! What the environment says.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use http::Uri;
use kestrel_link::{
    connection::{self, Authority},
    reads::HOST_READS,
    session::PROTOCOL_VERSION,
};
use kestrel_proto::node::v1::{Hello, Role};
use kestrel_runtime::config::{Mistakes, Settings, Source};
use kestrel_tail::{budget::Limits, redact::Expressions};

use crate::{
    als,
    host::{self, Watched, kubelet::Probes, sample::Places},
    reads,
};

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
    /// What of the host is looked at.
    pub host: Host,
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
    /// Where access logs of proxies are received, if they are.
    pub als: Option<als::Config>,
}

/// What of the host is looked at beside memory, tasks and the file system of the logs.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The kernel's own folder.
    pub proc: PathBuf,
    /// Below it are the mounted folders of the host, by their names there.
    pub root: PathBuf,
    /// The container runtime's socket, if its health is to be watched.
    pub runtime_socket: Option<PathBuf>,
    /// Whether the kernel's log is read.
    pub kernel_log: bool,
    /// Whether the kernel's table of connections is watched.
    pub conntrack: bool,
    /// Whether the pressure of pods is watched, beside the node's.
    pub pod_pressure: bool,
    /// Whether the kernel's tables of the host's network are mounted, for reads that are asked for.
    pub network_tables: bool,
    /// Whether the agent is in the host's network.
    pub network: bool,
    /// Whether heads of packets may be captured, when they are asked for.
    pub packet_capture: bool,
    /// Whether the kernel may be asked for the rules of the host's firewall.
    pub firewall_rules: bool,
    /// Whether it may be asked for BPF programs and maps.
    pub bpf_objects: bool,
    /// Folders of the host whose file systems are watched.
    pub file_systems: Vec<String>,
    /// When waiting for CPU, memory and disks is a stall, in percent of a minute; 0: never.
    pub pressure: host::Limits,
    /// Time between the kubelet's probes; zero: it is not watched.
    pub probes: Duration,
    /// So many seconds are added to the node's clock where it is compared, to see what a wrong one does.
    pub clock_ahead: i64,
}

impl Host {
    fn read(settings: &mut Settings<'_>) -> Self {
        let names = settings.text("KESTREL_FILE_SYSTEMS", "");
        let mut limit = |name: &str, default| {
            let limit = settings.parse(name, default);
            if limit > 100 {
                settings.mistake(format!("{name}={limit} is not usable: it is a percentage; 0: never"));
            }
            limit
        };
        let pressure = [
            limit("KESTREL_PRESSURE_CPU", 90),
            limit("KESTREL_PRESSURE_MEMORY", 10),
            limit("KESTREL_PRESSURE_IO", 40),
        ];
        Self {
            proc: settings.path("KESTREL_PROC_DIR", "/proc"),
            root: settings.path("KESTREL_HOST_DIR", "/host"),
            runtime_socket: settings.optional("KESTREL_RUNTIME_SOCKET").map(PathBuf::from),
            kernel_log: settings.parse("KESTREL_KERNEL_LOG", false),
            conntrack: settings.parse("KESTREL_CONNTRACK", false),
            pod_pressure: settings.parse("KESTREL_POD_PRESSURE", false),
            network_tables: settings.parse("KESTREL_NETWORK_TABLES", false),
            network: settings.parse("KESTREL_HOST_NETWORK", false),
            packet_capture: settings.parse("KESTREL_PACKET_CAPTURE", false),
            firewall_rules: settings.parse("KESTREL_FIREWALL_RULES", false),
            bpf_objects: settings.parse("KESTREL_BPF_OBJECTS", false),
            file_systems: names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            pressure,
            probes: Duration::from_secs(settings.parse("KESTREL_PROBE_SECONDS", 0)),
            clock_ahead: settings.parse("KESTREL_CLOCK_AHEAD_SECONDS", 0),
        }
    }

    /// What is not watched, and which value of the chart would change that.
    pub fn left_out(&self) -> Vec<&'static str> {
        let all = [
            (self.runtime_socket.is_some(), "the container runtime (nodeAgent.runtimeSocket)"),
            (self.kernel_log, "the kernel's log (nodeAgent.kernelLog)"),
            (self.conntrack, "the table of connections (nodeAgent.conntrack)"),
            (self.pod_pressure, "the pressure of single pods (nodeAgent.podPressure)"),
            (
                !self.pod_pressure
                    || !self.cgroups().is_dir()
                    || self.cgroups().join("cgroup.controllers").exists(),
                "the pressure of single pods (control groups of version 1 have none of their own)",
            ),
        ];
        all.into_iter().filter(|(is_watched, _)| !is_watched).map(|(_, what)| what).collect()
    }

    /// Where the host's control groups are.
    pub(crate) fn cgroups(&self) -> PathBuf {
        self.root.join("sys/fs/cgroup")
    }

    /// Where what is asked for is read.
    pub fn reads(&self) -> reads::Places {
        let network = match (self.network, self.network_tables) {
            (true, _) => Some(self.proc.join("net")),
            (false, true) => Some(self.root.join("proc/1/net")),
            (false, false) => None,
        };
        reads::Places {
            proc: self.proc.clone(),
            network,
            is_host_network: self.network,
            runtime_socket: self.runtime_socket.clone(),
            may_capture: self.packet_capture,
            may_see_firewall: self.firewall_rules,
            may_see_bpf: self.bpf_objects,
        }
    }

    /// Where all of it is.
    pub fn watched(&self, pod_logs: PathBuf, probes: Probes) -> Watched {
        let on_host = |path: &str| self.root.join(path.trim_start_matches('/'));
        Watched {
            places: Places {
                proc: self.proc.clone(),
                pod_logs,
                file_systems: self.file_systems.iter().map(|name| (name.clone(), on_host(name))).collect(),
                conntrack: self.conntrack.then(|| on_host("proc/1/net/stat")),
                cgroups: self.pod_pressure.then(|| self.cgroups()),
            },
            kernel_log: self.kernel_log.then_some(host::kernel_log),
            runtime_socket: self.runtime_socket.clone(),
            probes,
        }
    }
}

/// The admin port, unless `HEALTH_PORT` says otherwise.
const HEALTH_PORT: u16 = 8081;

/// The admin port alone, for what only asks there.
///
/// # Errors
/// It is no port.
pub fn health_port(source: &dyn Source) -> Result<u16, Mistakes> {
    let mut settings = Settings::new(source);
    let port = settings.parse("HEALTH_PORT", HEALTH_PORT);
    settings.finish()?;
    Ok(port)
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
            health_port: settings.parse("HEALTH_PORT", HEALTH_PORT),
            endpoint: settings.parse("KESTREL_LINK_ENDPOINT", default),
            token_file: settings.path("KESTREL_LINK_TOKEN_FILE", "/var/run/secrets/kestrel/token"),
            ca_file: settings.path("KESTREL_LINK_CA_FILE", "/etc/kestrel/link-ca/ca.crt"),
            pod_logs: settings.path("KESTREL_POD_LOGS_DIR", "/var/log/pods"),
            state: settings.path("KESTREL_STATE_DIR", "/var/lib/kestrel"),
            host: Host::read(&mut settings),
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
            als: als::Config::read(&mut settings),
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
                features: vec![HOST_READS.to_owned()],
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
        assert_eq!((config.health_port, config.host.left_out().len()), (8081, 4));
        assert!(config.als.is_none());
        let wrong = BTreeMap::from([
            ("KESTREL_LINK_ENDPOINT", "http://x:1"),
            ("HEALTH_PORT", "x"),
            ("KESTREL_REDACT", "("),
            ("KESTREL_BUDGET_POD_BYTES", "much"),
            ("KESTREL_PRESSURE_IO", "101"),
        ]);
        let mistakes = Config::read(&wrong).unwrap_err().to_string();
        for name in [
            "NODE_NAME",
            "KESTREL_LINK_ENDPOINT",
            "HEALTH_PORT",
            "KESTREL_REDACT",
            "KESTREL_BUDGET_POD_BYTES",
            "KESTREL_PRESSURE_IO",
        ] {
            assert!(mistakes.contains(name), "{mistakes}");
        }
    }
}
