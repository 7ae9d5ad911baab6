//! Where Hubble Relay is, and the way there.

use std::{path::PathBuf, sync::Arc};

use kestrel_runtime::{
    config::Settings,
    tls::{
        client::{self, ConnectError, Target},
        mounted,
    },
};

use crate::uplink::dial::Transport;

/// Services of Relay, and the names in their certificates: Cilium's own, and that of GKE with Dataplane V2. Cilium's is made
/// for every name of `*.hubble-relay.cilium.io`.
const PLACES: [(&str, &str); 2] = [
    ("hubble-relay.kube-system.svc", "ui.hubble-relay.cilium.io"),
    (
        "hubble-relay.gke-managed-dpv2-observability.svc",
        "hubble-relay.gke-managed-dpv2-observability.svc.cluster.local",
    ),
];

/// Ports of the Service, with TLS and without.
const PORTS: [u16; 2] = [443, 80];

/// Where Relay is asked, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// `KESTREL_HUBBLE_RELAY`: host and port; unset: it is looked for by the names of its Services.
    pub address: Option<(String, u16)>,
    /// `KESTREL_HUBBLE_TLS_DIR`: a folder with `ca.crt` and, if Relay wants to know who asks, `tls.crt` and `tls.key`; unset,
    /// or with `DISABLE_HUBBLE_TLS`: without TLS.
    pub tls: Option<PathBuf>,
    /// `KESTREL_HUBBLE_SERVER_NAME`: a name in its certificate; unset: that of its place.
    pub server_name: Option<String>,
}

/// A connection to Relay.
pub(super) struct Relay {
    pub(super) stream: Box<dyn Transport>,
    /// Host and port.
    pub(super) name: String,
    /// What gRPC calls it.
    pub(super) origin: String,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Unreached {
    /// There is no Relay: which names were looked for.
    Absent(String),
    /// A sentence for whoever can mend it.
    Problem(String),
}

impl Config {
    /// `None` with `DISABLE_CILIUM_FLOWS`.
    pub(crate) fn read(settings: &mut Settings<'_>) -> Option<Self> {
        let address = settings.optional("KESTREL_HUBBLE_RELAY").and_then(|text| {
            let address =
                text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            if address.is_none() {
                settings.mistake(format!("KESTREL_HUBBLE_RELAY={text} is not usable: it is host:port"));
            }
            address
        });
        let tls = settings.optional("KESTREL_HUBBLE_TLS_DIR").map(PathBuf::from);
        let is_plain = settings.flag("DISABLE_HUBBLE_TLS", false);
        let server_name = settings.optional("KESTREL_HUBBLE_SERVER_NAME");
        let is_off = settings.flag("DISABLE_CILIUM_FLOWS", false);
        (!is_off).then_some(Self { address, tls: tls.filter(|_| !is_plain), server_name })
    }

    /// The first Relay that there is. The files are read each time, so that new ones are used.
    pub(super) async fn connect(&self) -> Result<Relay, Unreached> {
        let port = PORTS[usize::from(self.tls.is_none())];
        let places: Vec<_> = match &self.address {
            Some((host, port)) => vec![(&**host, *port, &**host)],
            None => PLACES.iter().map(|(host, name)| (*host, port, *name)).collect(),
        };
        let mut absent = Vec::new();
        for (host, port, server_name) in places {
            let name = format!("{host}:{port}");
            let problem = |why: String| Unreached::Problem(format!("{name}: {why}; {}", self.remedy()));
            let stream = match &self.tls {
                None => client::reach(host, port).await.map(|stream| Box::new(stream) as Box<dyn Transport>),
                Some(folder) => {
                    let config = mounted::client(folder, &["h2"])
                        .map_err(|why| problem(format!("{}: {why}", folder.display())))?;
                    let server_name = self.server_name.clone().unwrap_or_else(|| server_name.to_owned());
                    let target = Target {
                        host: host.to_owned(),
                        port,
                        server_name,
                        config: Arc::new(config),
                        proxy: None,
                    };
                    target.connect().await.map(|stream| Box::new(stream) as _)
                }
            };
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            match stream {
                Ok(stream) => return Ok(Relay { stream, origin: format!("{scheme}://{name}"), name }),
                // Resolvers do not all tell a name that is not there from one that could not be asked for: their words do.
                Err(ConnectError::Resolve { source, .. }) => absent.push(format!("{name} ({source})")),
                Err(error) => return Err(problem(error.to_string())),
            }
        }
        Err(Unreached::Absent(format!("no address for {}", absent.join(" or "))))
    }

    /// What may have to be changed.
    pub(super) fn remedy(&self) -> &'static str {
        if self.tls.is_some() {
            "operator.cilium.hubble.tls.existingSecret has to name a Secret with ca.crt and, if Relay wants a client's \
             certificate, tls.crt and tls.key (Cilium's is hubble-relay-client-certs), and .serverName a name in Relay's \
             certificate; Relay without TLS needs .forceDisable"
        } else {
            "it is spoken to without TLS: a Relay with TLS needs operator.cilium.hubble.tls.existingSecret; a \
             NetworkPolicy may be in the way"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(variables: &[(&'static str, &'static str)]) -> (Option<Config>, bool) {
        let source: BTreeMap<_, _> = variables.iter().copied().collect();
        let mut settings = Settings::new(&source);
        let config = Config::read(&mut settings);
        (config, settings.finish().is_ok())
    }

    #[test]
    fn the_variables_of_the_go_operator_mean_what_they_meant() {
        let (config, is_right) = read(&[]);
        assert!(is_right && config.is_some_and(|config| config.tls.is_none() && config.address.is_none()));
        assert!(read(&[("DISABLE_CILIUM_FLOWS", "true")]).0.is_none());
        let tls = |disabled| {
            let (config, _) = read(&[("KESTREL_HUBBLE_TLS_DIR", "/tls"), ("DISABLE_HUBBLE_TLS", disabled)]);
            config.unwrap().tls
        };
        assert_eq!((tls("false"), tls("true")), (Some("/tls".into()), None));
        let (config, _) = read(&[("KESTREL_HUBBLE_RELAY", "relay.example:4245")]);
        assert_eq!(config.unwrap().address, Some(("relay.example".to_owned(), 4245)));
        assert!(!read(&[("KESTREL_HUBBLE_RELAY", "relay.example")]).1);
    }

    #[tokio::test]
    async fn a_relay_that_is_not_there_is_no_trouble_and_one_that_refuses_is() {
        let at = |host: &str, port| Config {
            address: Some((host.to_owned(), port)),
            tls: None,
            server_name: None,
        };
        assert!(matches!(at("relay.invalid", 80).connect().await, Err(Unreached::Absent(_))));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        match at("127.0.0.1", closed).connect().await {
            Err(Unreached::Problem(problem)) => assert!(problem.contains("existingSecret"), "{problem}"),
            _ => panic!("nobody listens"),
        }
    }
}
