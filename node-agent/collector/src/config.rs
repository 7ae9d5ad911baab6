//! What the webhook put into the environment.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::Uri;
use kestrel_link::{
    anchors::Anchors,
    connection::{self, Authority},
    session::{FAREWELL, PROTOCOL_VERSION},
};
use kestrel_proto::node::v1::{Hello, Role};
use kestrel_runtime::config::{Mistakes, Settings, Source as Environment};
use kestrel_tail::{
    discover::{Layout, Origin, Source, glob::Pattern},
    redact::Expressions,
};

/// First and longest wait between two attempts to connect. A wait is drawn evenly from what they
/// allow, so that it comes to one attempt in five minutes: there may be thousands of us, for months.
const RETRY: (Duration, Duration) = (connection::RETRY.0, Duration::from_mins(10));

/// The collector's configuration; see `docs/interfaces.md` for the variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our pod; the container is that of each source.
    pub pod: Origin,
    /// What to follow.
    pub sources: Vec<Source>,
    /// Where positions are kept.
    pub state: PathBuf,
    /// What is a secret beside what always is.
    pub redact: Expressions,
    /// `KESTREL_ALS_PORT`: where the pod's proxy sends its access logs; `None`: nowhere.
    pub als_port: Option<u16>,
    /// `POD_IP`: where the pod is; `None`: an older webhook does not say it.
    pub pod_address: Option<IpAddr>,
    /// The agent link.
    pub link: connection::Config,
}

/// An element of `KESTREL_LOG_SOURCES`. Fields that a newer webhook adds are
/// passed over.
#[derive(serde::Deserialize)]
struct LogSource {
    container: String,
    directory: PathBuf,
    patterns: Vec<String>,
}

impl Config {
    /// Reads all variables.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn read(environment: &dyn Environment) -> Result<Self, Mistakes> {
        let mut settings = Settings::new(environment);
        let pod = Origin {
            namespace: settings.required("POD_NAMESPACE", "says whose logs these are"),
            pod: settings.required("POD_NAME", "says whose logs these are"),
            uid: settings.required("POD_UID", "says whose logs these are"),
            container: String::new(),
        };
        let node_name = settings.text("NODE_NAME", "");
        let endpoint = settings.parse("KESTREL_LINK_ENDPOINT", Uri::default());
        if endpoint.scheme_str() != Some("https") || endpoint.host().is_none() {
            let text =
                format!("KESTREL_LINK_ENDPOINT={endpoint} is not usable: it has to be https://host:port");
            settings.mistake(text);
        }
        let authority = settings.required("KESTREL_LINK_CA", "says whom to trust on the agent link");
        let token_file = settings.path("KESTREL_LINK_TOKEN_FILE", "/kestrel/token/token");
        let state = settings.path("KESTREL_STATE_DIR", "/kestrel/state");
        let text = settings.required("KESTREL_LOG_SOURCES", "says which files to follow");
        let sources = sources(&text, &pod).unwrap_or_else(|problem| {
            if !text.is_empty() {
                settings.mistake(format!("KESTREL_LOG_SOURCES is not usable: {problem}"));
            }
            Vec::new()
        });
        let redact = settings.parse("KESTREL_REDACT", Expressions::default());
        let als_port = Some(settings.parse("KESTREL_ALS_PORT", 0)).filter(|port| *port != 0);
        let pod_address = settings.optional("POD_IP").and_then(|address| address.parse().ok());
        settings.finish()?;
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            role: Role::Sidecar.into(),
            node_name,
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.pod.clone(),
            pod_uid: pod.uid.clone(),
            features: vec![FAREWELL.to_owned()],
        };
        let authority = Authority::Anchors(Anchors::load(authority, &state.join("anchors")));
        let link = connection::Config { endpoint, authority, token_file, hello, retry: RETRY };
        Ok(Self { pod, sources, state, redact, als_port, pod_address, link })
    }
}

fn sources(text: &str, pod: &Origin) -> Result<Vec<Source>, String> {
    let sources: Vec<LogSource> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    sources
        .into_iter()
        .map(|LogSource { container, directory, patterns }| {
            let patterns: Result<Vec<Pattern>, _> = patterns.iter().map(|pattern| pattern.parse()).collect();
            let patterns = patterns.map_err(|error| error.to_string())?;
            let layout = Layout::Files { origin: Origin { container, ..pod.clone() }, patterns };
            Ok(Source { directory, layout })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn complete() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("POD_NAMESPACE", "ns"),
            ("POD_NAME", "web"),
            ("POD_UID", "1-1"),
            ("KESTREL_LINK_ENDPOINT", "https://kestrel-agent-link.kestrel-ai.svc:8443"),
            ("KESTREL_LINK_CA", "PEM"),
            (
                "KESTREL_LOG_SOURCES",
                r#"[{"container":"app","directory":"/kestrel/volumes/data","patterns":["**/*.log"],"new":1}]"#,
            ),
        ])
    }

    #[test]
    fn the_webhooks_variables_are_understood() {
        let config = Config::read(&complete()).unwrap();
        assert_eq!(config.sources.len(), 1);
        assert_eq!(config.sources[0].directory, PathBuf::from("/kestrel/volumes/data"));
        let Layout::Files { origin, patterns } = &config.sources[0].layout else { panic!() };
        assert_eq!((origin.container.as_str(), origin.uid.as_str()), ("app", "1-1"));
        assert_eq!(patterns[0].to_string(), "**/*.log");
        assert_eq!((config.link.hello.role(), config.als_port), (Role::Sidecar, None));
        let mut with_als = complete();
        with_als.extend([("KESTREL_ALS_PORT", "14080"), ("POD_IP", "10.0.0.1")]);
        let config = Config::read(&with_als).unwrap();
        assert_eq!((config.als_port, config.pod_address), (Some(14080), Some([10, 0, 0, 1].into())));
    }

    #[test]
    fn all_mistakes_are_told() {
        let mut wrong = complete();
        wrong.remove("POD_UID");
        wrong.insert("KESTREL_LINK_ENDPOINT", "nowhere");
        wrong
            .insert("KESTREL_LOG_SOURCES", r#"[{"container":"app","directory":"/x","patterns":["/etc/*"]}]"#);
        let mistakes = Config::read(&wrong).unwrap_err().to_string();
        for part in ["POD_UID", "KESTREL_LINK_ENDPOINT", "KESTREL_LOG_SOURCES", "/etc/*"] {
            assert!(mistakes.contains(part), "{mistakes}");
        }
    }
}
