//! The aggregator's environment variables: those of the Go operator under
//! their old names, and ours.

use std::{net::IpAddr, path::Path, time::Duration};

use kestrel_als::headers::{Headers, refusal};
use kestrel_proto::node::v1::LogPolicy;
use kestrel_runtime::{
    config::{Mistakes, Settings, Source},
    tls::proxy::Proxy,
};

use crate::{
    als,
    excluded::Excluded,
    inventory::Integrations,
    istio::{Scope, Wanted, mesh::Receiver},
    leader, link,
    signals::thresholds::Thresholds,
    traffic::relay,
    uplink::{
        self, Keepalive, Retry,
        credentials::{Bootstrap, Credentials, TokenSource},
        spool::Spool,
    },
};

/// Ceilings of the waits between attempts to connect or to open a stream, and
/// the time until a stream that the server does not offer is tried again.
const RETRY: Retry =
    Retry { first: Duration::from_secs(1), most: Duration::from_secs(60), absent: Duration::from_secs(300) };
/// From one look at the credentials' files and at the runtime Secret to the next.
const LOOK: Duration = Duration::from_secs(30);

/// Where every program of the operator has its admin port.
const HEALTH_PORT: u16 = 8081;

/// Where users of the Go operator have their proxies send access logs.
const ALS_PORT: u16 = 8080;

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// `HEALTH_PORT` (8081): the admin port.
    pub health_port: u16,
    /// `POD_NAMESPACE` (`kestrel-ai`): where the Lease is.
    pub namespace: String,
    /// `KESTREL_LEADER_ELECTION` (`true` in a cluster): the candidacy, as
    /// `POD_NAME` (or the host's name), for `KESTREL_LEASE_SECONDS` (15).
    pub election: Option<leader::Config>,
    /// `KESTREL_LOGS_POLICY` (`errors`): what is sent of pods that do not say.
    pub logs_policy: LogPolicy,
    /// `KESTREL_EXCLUDED_NAMESPACES` (names, separated by commas): whose logs, events and
    /// flows stay in the cluster.
    pub excluded: Excluded,
    /// `KESTREL_THRESHOLDS` (such as `unready=90s,stable=5m`): how long what may
    /// last a moment lasts until it is an incident.
    pub thresholds: Thresholds,
    /// `KESTREL_ISTIO_ROOT_NAMESPACE` (`istio-system`): policies there are for the whole mesh; `KESTREL_ISTIO_COLLECTORS` (`false`):
    /// proxies of some namespaces are to send their access logs to their pods' collectors; `KESTREL_ISTIO_ON_NODES` (`false`): they may
    /// send them to node agents.
    pub mesh: Scope,
    /// `KESTREL_EXECUTOR_SWITCH` (unset: everything that the chart's defaults allow): the ConfigMap that says
    /// what of Kestrel Cloud's requests is done.
    pub executor_switch: Option<String>,
    /// `KESTREL_EXECUTOR_ACCOUNT` (unset: the own account): the ServiceAccount of the own namespace as which
    /// they read.
    pub executor_account: Option<String>,
    /// `KESTREL_DRY_RUN_ACCOUNT` (unset: the own account): the ServiceAccount of the own namespace as which what
    /// would be written is tried.
    pub dry_run_account: Option<String>,
    /// `DD_API_KEY`, `ARGOCD_NAMESPACE`, `ROLLOUTS_DISABLED`, `FLUX_DISABLED`,
    /// `KARPENTER_DISABLED`: what the commit tells of.
    pub integrations: Integrations,
    /// The connection to the cloud.
    pub uplink: uplink::Config,
    /// `KESTREL_STATE_DIR` (unset: everything waits in memory): the spool.
    pub spool: Option<Spool>,
    /// The agents' end.
    pub link: link::Config,
    /// Access logs of Envoys are received on `ISTIO_ALS_PORT` (8080), unless they are not wanted.
    pub als: Option<als::Config>,
    /// `KESTREL_ALS_REQUEST_HEADERS` and `KESTREL_ALS_RESPONSE_HEADERS` (names, separated by commas): headers of what they tell
    /// that are told, of one request of many.
    pub headers: Headers,
    /// `ENABLE_ISTIO_ALS` (`false`): whether they are; `auto`: as soon as the cluster has Istio.
    pub istio: Wanted,
    /// Hubble Relay, unless `DISABLE_CILIUM_FLOWS`.
    pub relay: Option<relay::Config>,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut settings = Settings::new(source);
        let namespace = settings.text("POD_NAMESPACE", "kestrel-ai");
        let pod_name = settings.optional("POD_NAME");
        let in_cluster = settings.optional("KUBERNETES_SERVICE_HOST").is_some();
        let identity = pod_name.clone().or_else(|| settings.optional("HOSTNAME"));
        let duration = settings.seconds("KESTREL_LEASE_SECONDS", 15);
        let uplink = uplink(&mut settings);
        let istio = settings.parse("ENABLE_ISTIO_ALS", Wanted::No);
        let election = settings.flag("KESTREL_LEADER_ELECTION", in_cluster).then(|| leader::Config {
            identity: identity.unwrap_or_else(|| format!("process-{}", std::process::id())),
            duration,
            overlap: duration + uplink.keepalive.hold(),
        });
        let als = als(&mut settings, &namespace);
        let config = Self {
            health_port: settings.parse("HEALTH_PORT", HEALTH_PORT),
            mesh: scope(&mut settings, &namespace, als.port),
            election,
            logs_policy: logs_policy(&mut settings),
            excluded: Excluded::parse(&settings.text("KESTREL_EXCLUDED_NAMESPACES", "")),
            thresholds: settings.parse("KESTREL_THRESHOLDS", Thresholds::default()),
            executor_switch: settings.optional("KESTREL_EXECUTOR_SWITCH"),
            executor_account: settings.optional("KESTREL_EXECUTOR_ACCOUNT"),
            dry_run_account: settings.optional("KESTREL_DRY_RUN_ACCOUNT"),
            integrations: Integrations {
                datadog: settings.optional("DD_API_KEY").is_some(),
                argocd: settings.optional("ARGOCD_NAMESPACE").is_some(),
                rollouts: !settings.flag("ROLLOUTS_DISABLED", false),
                flux: !settings.flag("FLUX_DISABLED", false),
                karpenter: !settings.flag("KARPENTER_DISABLED", false),
            },
            uplink,
            spool: spool(&mut settings),
            relay: relay::Config::read(&mut settings),
            link: link::Config {
                port: settings.parse("KESTREL_LINK_PORT", 8443),
                max_connections: settings.parse("KESTREL_LINK_MAX_CONNECTIONS", 6000),
                pod_bytes_per_second: settings.parse("KESTREL_BUDGET_POD_BYTES", 0),
                agent_service_account: settings
                    .text("KESTREL_LINK_AGENT_SERVICE_ACCOUNT", "kestrel-node-agent"),
                pod_ip: address(&mut settings, "POD_IP"),
                pod_name,
                pod_uid: settings.optional("POD_UID"),
                node_name: settings.optional("NODE_NAME"),
                tls_dir: settings.optional("KESTREL_LINK_TLS_DIR").map(Into::into),
                namespace: namespace.clone(),
            },
            als: Some(als).filter(|_| istio != Wanted::No),
            istio,
            headers: headers(&mut settings),
            namespace,
        };
        settings.finish()?;
        Ok(config)
    }
}

/// The admin port alone: whoever asks there needs nothing else.
///
/// # Errors
/// It is no port.
pub fn health_port(source: &dyn Source) -> Result<u16, Mistakes> {
    let mut settings = Settings::new(source);
    let port = settings.parse("HEALTH_PORT", HEALTH_PORT);
    settings.finish()?;
    Ok(port)
}

/// What `check istio` needs, and no more.
#[derive(Debug)]
pub struct Mesh {
    /// Where its configuration is looked for.
    pub scope: Scope,
    /// The operator's namespace.
    pub namespace: String,
    /// As [`Config::executor_account`].
    pub account: Option<String>,
}

impl Mesh {
    /// Reads it.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut settings = Settings::new(source);
        let namespace = settings.text("POD_NAMESPACE", "kestrel-ai");
        let port = settings.parse("ISTIO_ALS_PORT", ALS_PORT);
        let mesh = Self {
            scope: scope(&mut settings, &namespace, port),
            namespace,
            account: settings.optional("KESTREL_EXECUTOR_ACCOUNT"),
        };
        settings.finish()?;
        Ok(mesh)
    }
}

fn uplink(settings: &mut Settings<'_>) -> uplink::Config {
    let host = settings.text("SERVER_HOST", "auto-np-server");
    let port = settings.parse("SERVER_PORT", 50051);
    uplink::Config {
        port,
        proxy: Proxy::between(settings, &host, port),
        server_name: settings.text("SERVER_NAME", &host),
        host,
        credentials: Credentials::new(Bootstrap {
            client_certificate: settings.path("CLIENT_CERT_FILE", "/tls/client.crt"),
            client_key: settings.path("CLIENT_KEY_FILE", "/tls/client.key"),
            authority: settings.path("CA_CERT_FILE", "/tls/ca.crt"),
            token: token(settings),
            insecure: settings.flag("TLS_INSECURE_SKIP_VERIFY", false),
            look: LOOK,
        }),
        keepalive: Keepalive {
            interval: settings.seconds("KESTREL_KEEPALIVE_SECONDS", 20),
            timeout: settings.seconds("KESTREL_KEEPALIVE_TIMEOUT_SECONDS", 10),
        },
        retry: RETRY,
    }
}

/// The file wins, because it can be rotated.
fn token(settings: &mut Settings<'_>) -> TokenSource {
    if let Some(file) = settings.optional("AUTH_TOKEN_FILE") {
        return TokenSource::File(file.into());
    }
    let text = settings.optional("AUTH_TOKEN").unwrap_or_else(|| {
        settings.mistake(
            "neither AUTH_TOKEN_FILE nor AUTH_TOKEN is set (Helm: auth.token or auth.existingSecret): one of \
             them has the cluster's token"
                .to_owned(),
        );
        String::new()
    });
    TokenSource::Text(text.into())
}

/// `KESTREL_SPOOL_BYTES` (256 MiB): at most half of the volume, so that it never
/// fills up; `KESTREL_SPOOL_HOURS` (24).
fn spool(settings: &mut Settings<'_>) -> Option<Spool> {
    let bytes = settings.parse("KESTREL_SPOOL_BYTES", 256 * 1024 * 1024);
    let hours: u32 = settings.parse("KESTREL_SPOOL_HOURS", 24);
    let folder = settings.optional("KESTREL_STATE_DIR")?;
    let age = Duration::from_secs(3600 * u64::from(hours));
    Some(Spool { folder: Path::new(&folder).join("spool"), bytes, age })
}

fn logs_policy(settings: &mut Settings<'_>) -> LogPolicy {
    match settings.text("KESTREL_LOGS_POLICY", "errors").as_str() {
        "all" => LogPolicy::All,
        "errors" => LogPolicy::Errors,
        "off" => LogPolicy::Off,
        other => {
            settings
                .mistake(format!("KESTREL_LOGS_POLICY={other:?} is not usable: it is all, errors or off"));
            LogPolicy::Errors
        }
    }
}

/// `KESTREL_ALS_STREAM_BYTES` (16 MiB, 0: no limit): what one stream may send a second; `KESTREL_ALS_TLS_DIR` (unset: plain
/// text): the certificate that is shown, and the authority of the proxies'; `KESTREL_ALS_STATS_PORT` (unset: they are not asked): where
/// proxies show their statistics.
fn als(settings: &mut Settings<'_>, namespace: &str) -> als::Config {
    let port = settings.parse("ISTIO_ALS_PORT", ALS_PORT);
    let stream_bytes_per_second = settings.parse("KESTREL_ALS_STREAM_BYTES", 16 * 1024 * 1024);
    let tls_dir = settings.optional("KESTREL_ALS_TLS_DIR").map(Into::into);
    let stats_port = Some(settings.parse("KESTREL_ALS_STATS_PORT", 0)).filter(|port| *port != 0);
    let namespace = namespace.to_owned();
    als::Config { port, stream_bytes_per_second, stream_age: als::STREAM_AGE, namespace, tls_dir, stats_port }
}

fn headers(settings: &mut Settings<'_>) -> Headers {
    let [request, response] =
        ["KESTREL_ALS_REQUEST_HEADERS", "KESTREL_ALS_RESPONSE_HEADERS"].map(|variable| {
            let list = settings.text(variable, "");
            let names: Vec<_> =
                list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
            for name in &names {
                if let Some(why) = refusal(name) {
                    settings.mistake(format!("{variable} has {name:?}, which can't be told: {why}"));
                }
            }
            names
        });
    Headers::new(request.iter().map(String::as_str), response.iter().map(String::as_str))
}

fn scope(settings: &mut Settings<'_>, namespace: &str, port: u16) -> Scope {
    let receiver = Receiver { host: format!("{}.{namespace}.svc.cluster.local", als::ALS), port };
    let has_collectors = settings.flag("KESTREL_ISTIO_COLLECTORS", false);
    let on_nodes = settings.flag("KESTREL_ISTIO_ON_NODES", false);
    let speaks_tls = settings.optional("KESTREL_ALS_TLS_DIR").is_some();
    let root = settings.text("KESTREL_ISTIO_ROOT_NAMESPACE", "istio-system");
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if root.len() > 63 || !root.bytes().all(allowed) || root.starts_with('-') || root.ends_with('-') {
        settings.mistake(format!(
            "KESTREL_ISTIO_ROOT_NAMESPACE={root:?} is not usable: it is the name of a namespace"
        ));
    }
    Scope { root, has_collectors, receiver, on_nodes, speaks_tls }
}

fn address(settings: &mut Settings<'_>, name: &str) -> Option<IpAddr> {
    settings.optional(name)?;
    Some(settings.parse(name, IpAddr::from([127, 0, 0, 1])))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn outside_a_cluster_a_token_is_all_that_must_be_said() {
        let config = Config::read(&BTreeMap::from([("AUTH_TOKEN", "a.b.c")])).unwrap();
        assert!(config.election.is_none() && config.link.pod_ip.is_none() && config.spool.is_none());
        assert_eq!((config.uplink.host.as_str(), config.uplink.port), ("auto-np-server", 50051));
        assert!(config.mesh.root == "istio-system" && config.als.is_none());
        assert_eq!(config.uplink.credentials.bootstrap().authority, Path::new("/tls/ca.crt"));
        assert!(!format!("{config:?}").contains("a.b.c"), "a token in a debug print");
    }

    #[test]
    fn in_a_cluster_the_pod_runs_for_leader_and_the_token_is_a_file() {
        let source = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("POD_NAME", "kestrel-aggregator-x"),
            ("POD_IP", "10.0.0.7"),
            ("AUTH_TOKEN_FILE", "/etc/kestrel/auth/token"),
            ("AUTH_TOKEN", "old"),
            ("SERVER_HOST", "cloud.example"),
            ("KESTREL_LOGS_POLICY", "all"),
            ("KESTREL_EXCLUDED_NAMESPACES", "vault,bank"),
            ("KESTREL_ISTIO_ROOT_NAMESPACE", "mesh"),
            ("KESTREL_ISTIO_COLLECTORS", "true"),
            ("KESTREL_ISTIO_ON_NODES", "true"),
            ("ENABLE_ISTIO_ALS", "auto"),
            ("ISTIO_ALS_PORT", "9000"),
            ("KESTREL_ALS_STREAM_BYTES", "1000"),
            ("KESTREL_STATE_DIR", "/var/lib/kestrel"),
            ("KESTREL_SPOOL_BYTES", "1000"),
        ]);
        let config = Config::read(&source).unwrap();
        assert_eq!(config.election.unwrap().identity, "kestrel-aggregator-x");
        assert_eq!(config.uplink.server_name, "cloud.example");
        assert!(matches!(config.uplink.credentials.bootstrap().token, TokenSource::File(_)));
        assert_eq!((config.logs_policy, config.mesh.root.as_str()), (LogPolicy::All, "mesh"));
        assert!(config.mesh.has_collectors && config.mesh.on_nodes && !config.mesh.speaks_tls);
        assert_eq!(config.mesh.receiver.port, 9000);
        assert!(config.excluded.has("bank"));
        assert_eq!(config.istio, Wanted::WithIstio);
        let als = config.als.unwrap();
        assert_eq!((als.port, als.stream_bytes_per_second, als.tls_dir), (9000, 1000, None));
        let spool = config.spool.unwrap();
        assert_eq!((spool.folder.as_path(), spool.bytes), (Path::new("/var/lib/kestrel/spool"), 1000));
        assert_eq!(spool.age, Duration::from_secs(24 * 3600));
        assert_eq!(config.link.pod_ip, Some(IpAddr::from([10, 0, 0, 7])));
    }

    #[test]
    fn every_mistake_is_reported_in_one_go() {
        let source = BTreeMap::from([
            ("SERVER_PORT", "https"),
            ("KESTREL_LOGS_POLICY", "some"),
            ("KESTREL_THRESHOLDS", "unready=soon"),
            ("KESTREL_ISTIO_ROOT_NAMESPACE", "istio-system/istio"),
            ("POD_IP", "here"),
            ("ENABLE_ISTIO_ALS", "perhaps"),
            ("KESTREL_ALS_REQUEST_HEADERS", "x-tenant, authorization"),
            ("KESTREL_ALS_RESPONSE_HEADERS", "set-cookie"),
            ("KESTREL_KEEPALIVE_SECONDS", "0"),
        ]);
        let mistakes = Config::read(&source).unwrap_err().to_string();
        for part in [
            "SERVER_PORT",
            "KESTREL_LOGS_POLICY",
            "KESTREL_THRESHOLDS",
            "KESTREL_ISTIO_ROOT_NAMESPACE",
            "POD_IP",
            "ENABLE_ISTIO_ALS",
            "KESTREL_ALS_REQUEST_HEADERS has \"authorization\"",
            "KESTREL_ALS_RESPONSE_HEADERS",
            "KESTREL_KEEPALIVE_SECONDS",
            "neither AUTH_TOKEN_FILE",
        ] {
            assert!(mistakes.contains(part), "{part} in {mistakes}");
        }
    }
}
