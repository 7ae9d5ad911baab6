//! The webhook's environment variables.

use std::{path::PathBuf, time::Duration};

use kestrel_runtime::config::{Mistakes, Settings as Variables, Source};

use crate::{certificate::Origin, inject, profile::Selector};

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// `KESTREL_WEBHOOK_PORT` (10250): HTTPS, for the API server.
    pub port: u16,
    /// `HEALTH_PORT` (8081): the admin port.
    pub health_port: u16,
    /// `KESTREL_WEBHOOK_CONFIGURATION` (`kestrel-webhook`): the
    /// MutatingWebhookConfiguration through which the API server finds us.
    pub configuration: String,
    /// `KESTREL_WEBHOOK_TLS_DIR` (unset): a mounted folder with `tls.crt`, `tls.key` and
    /// `ca.crt`. Without it there is an authority of our own in the Secret
    /// `KESTREL_WEBHOOK_CA_SECRET` (`kestrel-webhook-ca`) of our namespace.
    pub origin: Origin,
    /// `KESTREL_WEBHOOK_TRUST_SECONDS` (5): how long an API server may take to
    /// notice that the configuration trusts a new authority.
    pub trust_delay: Duration,
    /// `KESTREL_NAMESPACE_SELECTOR` (every namespace): of the configuration, as JSON.
    pub namespaces: Selector,
    /// `KESTREL_OBJECT_SELECTOR` (every pod): likewise.
    pub pods: Selector,
    /// `KESTREL_LINK_CA_FILE` (`/etc/kestrel/link-ca/ca.crt`).
    pub link_ca_file: PathBuf,
    /// `POD_NAMESPACE` (`kestrel-ai`), `KESTREL_COLLECTOR_IMAGE`, `KESTREL_COLLECTOR_PULL_SECRETS` (names,
    /// separated by commas), `KESTREL_REDACT` and `KESTREL_LINK_ENDPOINT`; `KESTREL_DEFAULT_PROFILE` (true). The link's authority is not known yet.
    pub injection: inject::Settings,
}

impl Config {
    /// Reads what holds without a cluster too. What only a cluster can say is
    /// named for what it is.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read_offline(source: &dyn Source) -> Result<Self, Mistakes> {
        Self::read(&Offline(source))
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn read(source: &dyn Source) -> Result<Self, Mistakes> {
        let mut variables = Variables::new(source);
        let namespace = variables.text("POD_NAMESPACE", "kestrel-ai");
        let link_endpoint = format!("https://kestrel-agent-link.{namespace}.svc:8443");
        let config = Self {
            port: variables.parse("KESTREL_WEBHOOK_PORT", 10250),
            health_port: variables.parse("HEALTH_PORT", 8081),
            configuration: variables.text("KESTREL_WEBHOOK_CONFIGURATION", "kestrel-webhook"),
            origin: match variables.optional("KESTREL_WEBHOOK_TLS_DIR") {
                Some(folder) => Origin::Mounted(folder.into()),
                None => Origin::Own {
                    namespace: namespace.clone(),
                    secret: variables.text("KESTREL_WEBHOOK_CA_SECRET", "kestrel-webhook-ca"),
                },
            },
            trust_delay: variables.seconds("KESTREL_WEBHOOK_TRUST_SECONDS", 5),
            namespaces: variables.parse("KESTREL_NAMESPACE_SELECTOR", Selector::default()),
            pods: variables.parse("KESTREL_OBJECT_SELECTOR", Selector::default()),
            link_ca_file: variables.path("KESTREL_LINK_CA_FILE", "/etc/kestrel/link-ca/ca.crt"),
            injection: inject::Settings {
                image: variables
                    .required("KESTREL_COLLECTOR_IMAGE", "names the image of injected collectors"),
                pull_secrets: variables
                    .text("KESTREL_COLLECTOR_PULL_SECRETS", "")
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                link_endpoint: variables.text("KESTREL_LINK_ENDPOINT", &link_endpoint),
                link_ca: None,
                redact: variables.text("KESTREL_REDACT", ""),
                default_profile: variables.flag("KESTREL_DEFAULT_PROFILE", true),
                namespace,
            },
        };
        variables.finish()?;
        Ok(config)
    }
}

/// A source that names an image where none is given.
struct Offline<'a>(&'a dyn Source);

impl Source for Offline<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let image = || (name == "KESTREL_COLLECTOR_IMAGE").then(|| "kestrel-operator".to_owned());
        self.0.get(name).or_else(image)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_the_collectors_image_has_no_default() {
        let text = Config::read(&BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(text, "KESTREL_COLLECTOR_IMAGE is not set: it names the image of injected collectors");
        let mut source = BTreeMap::from([("KESTREL_COLLECTOR_IMAGE", "image"), ("POD_NAMESPACE", "ours")]);
        let config = Config::read(&source).unwrap();
        assert!(config.injection.pull_secrets.is_empty());
        assert_eq!(config.port, 10250);
        assert_eq!(config.injection.link_endpoint, "https://kestrel-agent-link.ours.svc:8443");
        source.insert("KESTREL_COLLECTOR_PULL_SECRETS", "one,two");
        assert_eq!(Config::read(&source).unwrap().injection.pull_secrets, ["one", "two"]);
    }
}
