//! The owner's switch: a ConfigMap that is looked at whenever something is asked for, and while anything runs.
//! A change holds within seconds, without a restart and without a watch; what cannot be read is off.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{
    reason::{Reason, Refused},
    rules::Rules,
};

/// What was read holds for so long, so that a burst of requests is one look.
const HOLDS: Duration = Duration::from_secs(1);
/// From one look to the next while something runs.
const LOOK: Duration = Duration::from_secs(2);
/// The API server has so long to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the rules are from.
pub struct Switch {
    source: Source,
    known: Mutex<Option<(Instant, Result<Rules, Refused>)>>,
}

enum Source {
    Fixed(Rules),
    ConfigMap(Box<Api<ConfigMap>>, String),
}

impl Switch {
    /// One that says the same for ever: outside a cluster.
    pub fn fixed(rules: Rules) -> Self {
        Self { source: Source::Fixed(rules), known: Mutex::default() }
    }

    /// The ConfigMap of that name.
    pub fn config_map(client: Client, namespace: &str, name: &str) -> Self {
        let source = Source::ConfigMap(Box::new(Api::namespaced(client, namespace)), name.to_owned());
        Self { source, known: Mutex::default() }
    }

    /// What is allowed now.
    ///
    /// # Errors
    /// Nothing is, or it is not known.
    pub(crate) async fn rules(&self) -> Result<Rules, Refused> {
        let (maps, name) = match &self.source {
            Source::Fixed(rules) => return enabled(*rules),
            Source::ConfigMap(maps, name) => (maps, name),
        };
        let mut known = self.known.lock().await;
        if let Some((when, rules)) = &*known
            && when.elapsed() < HOLDS
        {
            return rules.clone();
        }
        let off = |why: String| Err(Refused::new(Reason::Off, why));
        let rules = match timeout(TIMEOUT, maps.get_opt(name)).await {
            Ok(Ok(Some(map))) => enabled(Rules::of(&map.data.unwrap_or_default())),
            Ok(Ok(None)) => off(format!("there is no ConfigMap {name}, which would allow it")),
            Ok(Err(error)) => {
                let cause = anyhow::Error::new(error);
                off(format!("ConfigMap {name}, which may allow it, can't be read: {}", cause.root_cause()))
            }
            Err(_) => {
                off(format!("ConfigMap {name}, which may allow it, can't be read in {} s", TIMEOUT.as_secs()))
            }
        };
        *known = Some((Instant::now(), rules.clone()));
        rules
    }

    /// Waits until not all is allowed any more that `rules` allow.
    pub(super) async fn turned_off(&self, rules: Rules) -> Refused {
        loop {
            sleep(LOOK).await;
            match self.rules().await {
                Err(off) => return off,
                Ok(now) if !rules.are_within(now) => {
                    let why = "the owner of this cluster has switched off some of what was allowed when it was asked for: ask again";
                    return Refused::new(Reason::Off, why);
                }
                Ok(_) => {}
            }
        }
    }
}

fn enabled(rules: Rules) -> Result<Rules, Refused> {
    if rules.enabled {
        return Ok(rules);
    }
    let why = "the owner of this cluster has switched off what Kestrel Cloud asks for (Helm: operator.executor.enabled)";
    Err(Refused::new(Reason::Off, why))
}
