//! Looks for Istio, again and again: it may come later, and its configuration change.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    Configuration, Found, Istio, Telemetry,
    mesh::{Mesh, Receiver},
};

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(60);
/// The API server must have answered everything within this time.
const ANSWER: Duration = Duration::from_secs(20);
/// Configurations that are read: there is one for each revision.
const MOST_CONFIGURATIONS: usize = 16;
/// Telemetries that are read at a time, and how many times.
const PAGE: u32 = 500;
const MOST_PAGES: usize = 20;

/// The API group of Istio that all of its installations have.
const ISTIO: &str = "networking.istio.io";
/// That of Telemetries.
const TELEMETRY: &str = "telemetry.istio.io";

/// Where its mesh configuration is looked for, and what that has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Istio's root namespace.
    pub root: String,
    /// Whether proxies of some namespaces are to send to their pods' collectors.
    pub has_collectors: bool,
    /// Where access logs are received.
    pub receiver: Receiver,
    /// Whether node agents receive them too, behind a Service of their own.
    pub on_nodes: bool,
    /// Whether both speak TLS alone.
    pub speaks_tls: bool,
}

/// Reads what Istio has in the cluster: discovery as the operator, objects as the account that only reads.
#[derive(Clone)]
pub struct Reader {
    own: Client,
    reader: Client,
    scope: Scope,
}

impl Reader {
    /// `own` asks which APIs there are, `reader` reads ConfigMaps and Telemetries.
    pub fn new(own: Client, reader: Client, scope: Scope) -> Self {
        Self { own, reader, scope }
    }

    /// What there is now.
    ///
    /// # Errors
    /// The API server does not say.
    pub async fn look(&self) -> Result<Found, String> {
        let look = async {
            let groups = self.own.list_api_groups().await.map_err(short)?.groups;
            if !groups.iter().any(|group| group.name == ISTIO) {
                return Ok(Found::Nothing);
            }
            let telemetry = groups.iter().find(|group| group.name == TELEMETRY);
            let version = telemetry.and_then(|group| {
                group
                    .preferred_version
                    .as_ref()
                    .or(group.versions.first())
                    .map(|version| version.version.clone())
            });
            let telemetries = match version {
                None => Err(format!("this Istio has no {TELEMETRY}, which came with 1.11")),
                Some(version) => self.telemetries(&version).await,
            };
            let configurations = self.configurations().await.map_err(short);
            Ok(Found::Istio { configurations, telemetries })
        };
        timeout(ANSWER, look).await.unwrap_or_else(|_| Err(format!("no answer in {} s", ANSWER.as_secs())))
    }

    /// Of all revisions. Other ConfigMaps of the namespace may be large: of them the names alone are read.
    async fn configurations(&self) -> kube::Result<Vec<Configuration>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.reader.clone(), &self.scope.root);
        let names: BTreeSet<String> = maps
            .list_metadata(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| may_configure(name))
            .take(MOST_CONFIGURATIONS)
            .collect();
        let mut configurations = Vec::new();
        for name in names {
            let Some(map) = maps.get_opt(&name).await? else { continue };
            let Some(text) = map.data.as_ref().and_then(|data| data.get("mesh")) else { continue };
            configurations.push(Configuration {
                namespace: self.scope.root.clone(),
                name,
                version: map.resource_version().unwrap_or_default(),
                mesh: Mesh::read(text, &self.scope),
            });
        }
        Ok(configurations)
    }

    async fn telemetries(&self, version: &str) -> Result<Vec<Telemetry>, String> {
        let kind = GroupVersionKind::gvk(TELEMETRY, version, "Telemetry");
        let resource = ApiResource::from_gvk_with_plural(&kind, "telemetries");
        let all: Api<DynamicObject> = Api::all_with(self.reader.clone(), &resource);
        let (mut objects, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        for _ in 0..MOST_PAGES {
            let list = all.list(&page).await.map_err(short)?;
            let next = list.metadata.continue_.clone().filter(|token| !token.is_empty());
            objects.extend(list);
            match next {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(in_force(objects)),
            }
        }
        Err(format!("there are more than {}", objects.len()))
    }
}

/// Those that say something of access logs. Of those of a namespace that are for all of its workloads Istio heeds the oldest alone, even if
/// that says nothing of access logs: it hides what names a provider that it does not name.
fn in_force(mut objects: Vec<DynamicObject>) -> Vec<Telemetry> {
    objects.sort_by_cached_key(|object| {
        let name = format!("{}.{}", object.name_any(), object.namespace().unwrap_or_default());
        (object.creation_timestamp().map(|time| time.0), name)
    });
    let mut oldest = HashMap::new();
    let of_namespace = |object: &DynamicObject| {
        let found = telemetry(object);
        let names =
            |found: &Option<Telemetry>| found.as_ref().map_or_else(Vec::new, |found| found.providers.clone());
        let mut hidden_by = None;
        if !is_selective(object) {
            let (first, heeded) =
                oldest.entry(object.namespace()).or_insert_with(|| (object.name_any(), names(&found)));
            let is_hidden = names(&found).iter().any(|provider| !heeded.contains(provider));
            hidden_by = is_hidden.then(|| first.clone());
        }
        Some(Telemetry { hidden_by, ..found? })
    };
    objects.iter().filter_map(of_namespace).collect()
}

fn is_selective(object: &DynamicObject) -> bool {
    let spec = &object.data["spec"];
    let labels = spec["selector"]["matchLabels"].as_object();
    labels.is_some_and(|labels| !labels.is_empty())
        || !spec["targetRef"].is_null()
        || !spec["targetRefs"].is_null()
}

/// `istio`, or `istio-REVISION`.
fn may_configure(name: &str) -> bool {
    let others = [
        "istio-ca-root-cert",
        "istio-leader",
        "istio-namespace-controller-election",
        "istio-sidecar-injector",
    ];
    (name == "istio" || name.starts_with("istio-"))
        && !others.iter().any(|other| name.starts_with(other))
        && !name.ends_with("-election")
        && !name.ends_with("-leader")
}

/// `None`: it says nothing of access logs.
fn telemetry(object: &DynamicObject) -> Option<Telemetry> {
    let spec = &object.data["spec"];
    let logging = spec["accessLogging"].as_array()?;
    let is_on = |entry: &&Value| entry["disabled"] != true;
    let providers =
        logging.iter().filter(is_on).flat_map(|entry| entry["providers"].as_array().into_iter().flatten());
    Some(Telemetry {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        is_selective: is_selective(object),
        hidden_by: None,
        providers: providers
            .filter_map(|provider| provider["name"].as_str().map(ToOwned::to_owned))
            .collect(),
    })
}

fn short(error: kube::Error) -> String {
    anyhow::Error::new(error).root_cause().to_string()
}

impl Istio {
    /// Looks until it is dropped, and says in the log what has changed; what is missing loudly if it `is_wanted`.
    pub(crate) async fn look(self, reader: Reader, is_wanted: bool) {
        let mut said = String::new();
        loop {
            match reader.look().await {
                Ok(found) => {
                    let line = found.line();
                    if line != said {
                        if is_wanted && !found.words().1.is_empty() {
                            warn!("Istio: {line}");
                        } else {
                            info!("Istio: {line}");
                        }
                        said = line;
                    }
                    self.0.send_replace(Some(found));
                }
                // The watches say what is wrong with the API server.
                Err(why) => debug!("Istio was not looked for: {why}"),
            }
            sleep(LOOK).await;
        }
    }
}
