//! Istio, as far as access logs need it: whether it is there, which of its mesh configurations know the receiver, and which Telemetries
//! send to it. Nothing of it is ever changed.

mod look;
pub mod mesh;

use std::{str::FromStr, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use look::{Reader, Scope};
use mesh::{Mesh, PROVIDERS, Provider};

/// A mesh configuration: of Istio, or of one of its revisions.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The ConfigMap's namespace.
    pub namespace: String,
    /// Its name: `istio`, or `istio-REVISION`.
    pub name: String,
    /// In which version it was read.
    pub version: String,
    /// What it says, or why it says nothing.
    pub mesh: Result<Mesh, String>,
}

/// A Telemetry that says where access logs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It is for some workloads of its namespace alone.
    pub is_selective: bool,
    /// Name of the older one of its namespace that Istio heeds in its place.
    pub hidden_by: Option<String>,
    /// The providers that it names.
    pub providers: Vec<String>,
}

/// What there is.
#[derive(Clone, Debug)]
pub enum Found {
    /// The API server knows nothing of Istio.
    Nothing,
    /// It is there.
    Istio {
        /// Its configurations; or why they can't be read.
        configurations: Result<Vec<Configuration>, String>,
        /// Its Telemetries; likewise.
        telemetries: Result<Vec<Telemetry>, String>,
    },
}

impl Found {
    /// What a person has to know: what is there, and what is missing for access logs.
    pub fn words(&self) -> (String, Vec<String>) {
        let Self::Istio { configurations, telemetries } = self else {
            return ("not found in this cluster (with operator.istio.enabled: true of the chart access logs of other Envoys are received)".to_owned(), Vec::new());
        };
        let mut missing = Vec::new();
        let found = match configurations {
            Ok(all) if all.is_empty() => {
                missing.push("no mesh configuration was found (Helm: operator.istio.rootNamespace is where it is looked for)".to_owned());
                "found".to_owned()
            }
            Ok(all) => {
                missing.extend(all.iter().flat_map(Configuration::lacks));
                let names: Vec<_> = all.iter().map(Configuration::full_name).collect();
                format!("found, configured in {}", names.join(", "))
            }
            Err(why) => {
                missing.push(format!("its mesh configuration can't be read: {why}"));
                "found".to_owned()
            }
        };
        let found = match telemetries {
            Err(why) => {
                missing.push(format!("its Telemetries can't be read: {why}"));
                found
            }
            Ok(all) => {
                for provider in
                    PROVIDERS.into_iter().filter(|provider| !all.iter().any(|of| of.names(*provider)))
                {
                    missing.push(format!("no Telemetry names the provider {provider}"));
                }
                let ours = all.iter().filter(|of| PROVIDERS.into_iter().any(|provider| of.names(provider)));
                missing.extend(ours.clone().filter_map(Telemetry::hidden));
                let heeded = ours.filter(|of| of.hidden_by.is_none());
                let names: Vec<_> = heeded.map(Telemetry::full_name).take(MOST_NAMED).collect();
                if names.is_empty() {
                    found
                } else {
                    format!("{found}; access logs are sent by Telemetry {}", names.join(", "))
                }
            }
        };
        (found, missing)
    }

    /// In one line.
    fn line(&self) -> String {
        let (found, missing) = self.words();
        if missing.is_empty() {
            return found;
        }
        format!("{found}; MISSING: {} ('kestrel-aggregator check istio' says what to do)", missing.join(", "))
    }
}

impl Telemetry {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Why Istio does not heed it; `None`: it does.
    pub fn hidden(&self) -> Option<String> {
        let (name, older) = (self.full_name(), self.hidden_by.as_ref()?);
        Some(format!("Telemetry {name} is not heeded, as {older} of its namespace is older"))
    }

    /// Whether it is to send access logs there.
    pub fn names(&self, provider: Provider) -> bool {
        self.providers.iter().any(|name| name == provider.name)
    }
}

/// Telemetries that are named.
const MOST_NAMED: usize = 5;

impl Configuration {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn lacks(&self) -> Vec<String> {
        let name = self.full_name();
        let mesh = match &self.mesh {
            Ok(mesh) => mesh,
            Err(why) => return vec![format!("{name} can't be read: {why}")],
        };
        let missing = mesh.missing().into_iter().map(|provider| format!("provider {provider} in {name}"));
        let mistaken = mesh.mistaken().into_iter();
        missing
            .chain(mistaken.map(|(provider, why)| format!("in {name}, of provider {provider}: {why}")))
            .collect()
    }
}

/// Whether access logs are received (`ENABLE_ISTIO_ALS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Never.
    No,
    /// As soon as the cluster has Istio.
    WithIstio,
    /// Of any Envoys.
    Yes,
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "true" => Ok(Self::Yes),
            "false" => Ok(Self::No),
            "auto" => Ok(Self::WithIstio),
            _ => Err("it is true, false or auto"),
        }
    }
}

/// What was found last. Clones share it.
#[derive(Clone, Debug)]
pub struct Istio(Arc<watch::Sender<Option<Found>>>);

impl Default for Istio {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Istio {
    /// A line for `status`.
    pub fn line(&self) -> String {
        self.0.borrow().as_ref().map_or_else(|| "not looked for yet".to_owned(), Found::line)
    }

    /// Waits until it is there; whether it came before the drain.
    pub(crate) async fn comes(&self, drain: &CancellationToken) -> bool {
        let mut found = self.0.subscribe();
        let comes = found.wait_for(|found| matches!(found, Some(Found::Istio { .. })));
        // Its sender is here.
        drain.run_until_cancelled(comes).await.is_some()
    }
}

#[cfg(test)]
mod tests;
