//! What the cluster has besides Kubernetes, as the commit tells it.

use std::time::Duration;

use kestrel_proto::cloud::v1::InventoryCommit;
use kestrel_runtime::backoff::Backoff;
use kube::Client;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::Mirror;
use crate::uplink::Retry;

/// From one look to the next. It is one small request, answered from memory.
const LOOK: Duration = Duration::from_secs(60);
/// The API server must answer within this time.
const ANSWER: Duration = Duration::from_secs(30);
/// Refusals after which the commit is not held back any more.
const ENOUGH: usize = 3;

/// What the cluster's owner says of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Integrations {
    /// `DD_API_KEY` is given.
    pub datadog: bool,
    /// `ARGOCD_NAMESPACE` is given.
    pub argocd: bool,
    /// Not `ROLLOUTS_DISABLED`.
    pub rollouts: bool,
    /// Not `FLUX_DISABLED`.
    pub flux: bool,
    /// Not `KARPENTER_DISABLED`.
    pub karpenter: bool,
}

/// A resource that says that something is installed.
struct Mark {
    group: &'static str,
    versions: &'static [&'static str],
    resource: &'static str,
}

/// The group alone is Argo CD's too.
const ROLLOUTS: Mark = Mark { group: "argoproj.io", versions: &["v1alpha1"], resource: "rollouts" };
const KUSTOMIZATIONS: Mark =
    Mark { group: "kustomize.toolkit.fluxcd.io", versions: &["v1", "v1beta2"], resource: "kustomizations" };
const HELM_RELEASES: Mark = Mark {
    group: "helm.toolkit.fluxcd.io",
    versions: &["v2", "v2beta2", "v2beta1"],
    resource: "helmreleases",
};
const NODE_POOLS: Mark = Mark { group: "karpenter.sh", versions: &["v1", "v1beta1"], resource: "nodepools" };

/// Keeps what the next commit tells. Discovery needs no rights on the objects.
pub(super) async fn look(client: Client, wanted: Integrations, mirror: Mirror, retry: Retry) {
    let fresh = Backoff::new(retry.first, retry.most);
    let (mut backoff, mut known, mut refusals) = (fresh.clone(), None, 0);
    loop {
        let wait = match timeout(ANSWER, wanted.found(&client)).await {
            Ok(Ok(found)) => {
                backoff.clone_from(&fresh);
                if known != Some(found) {
                    info!("integrations: {}", words(&found));
                    mirror.tell_with_commit(found);
                    known = Some(found);
                }
                LOOK
            }
            Ok(Err(kube::Error::Api(status)))
                if known.is_none() && (status.is_forbidden() || refusals >= ENOUGH) =>
            {
                warn!(
                    "it is not known whether the cluster has Argo Rollouts, Flux or Karpenter, because the API server \
                     does not say which APIs there are (if it is forbidden, bind the ClusterRole system:discovery \
                     to this process): {status}"
                );
                let configured = wanted.configured();
                mirror.tell_with_commit(configured);
                known = Some(configured);
                retry.absent
            }
            // The watches say what is wrong with the API server.
            Ok(Err(error)) => {
                debug!("discovery: {error}");
                refusals += usize::from(matches!(error, kube::Error::Api(_)));
                backoff.next(Duration::ZERO)
            }
            Err(_late) => backoff.next(Duration::ZERO),
        };
        sleep(wait).await;
    }
}

impl Integrations {
    async fn found(&self, client: &Client) -> kube::Result<InventoryCommit> {
        let groups = client.list_api_groups().await?;
        let mut served = Vec::new();
        for group in &groups.groups {
            served.extend(group.versions.iter().map(|version| version.group_version.as_str()));
        }
        let is_served = async |is_wanted: bool, mark: &Mark| -> kube::Result<bool> {
            let of_group = mark.versions.iter().map(|version| format!("{}/{version}", mark.group));
            for version in of_group.filter(|version| is_wanted && served.contains(&version.as_str())) {
                let resources = client.list_api_group_resources(&version).await?;
                if resources.resources.iter().any(|resource| resource.name == mark.resource) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        Ok(InventoryCommit {
            has_rollouts: is_served(self.rollouts, &ROLLOUTS).await?,
            has_flux: is_served(self.flux, &KUSTOMIZATIONS).await?
                || is_served(self.flux, &HELM_RELEASES).await?,
            has_karpenter: is_served(self.karpenter, &NODE_POOLS).await?,
            ..self.configured()
        })
    }

    fn configured(&self) -> InventoryCommit {
        InventoryCommit { has_datadog: self.datadog, has_argocd: self.argocd, ..InventoryCommit::default() }
    }
}

fn words(commit: &InventoryCommit) -> String {
    let InventoryCommit { has_datadog, has_argocd, has_rollouts, has_flux, has_karpenter } = *commit;
    let all = [
        (has_datadog, "Datadog"),
        (has_argocd, "Argo CD"),
        (has_rollouts, "Argo Rollouts"),
        (has_flux, "Flux"),
        (has_karpenter, "Karpenter"),
    ];
    let names: Vec<_> = all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    const ALL: Integrations =
        Integrations { datadog: false, argocd: true, rollouts: true, flux: true, karpenter: true };

    /// An API server with these API versions; each has one resource.
    fn api_server(served: &'static [(&'static str, &'static str)]) -> Client {
        let answer = move |request: Request<Body>| {
            let path = request.uri().path();
            let body = match path.strip_prefix("/apis/").filter(|version| !version.is_empty()) {
                None => {
                    let group = |version: &str| json!({"name": version.split('/').next(), "versions": [{"groupVersion": version, "version": "v"}]});
                    json!({"groups": served.iter().map(|(version, _)| group(version)).collect::<Vec<_>>()})
                }
                Some(version) => {
                    let resource = served.iter().find(|(served, _)| *served == version).unwrap().1;
                    let resource = json!({"name": resource, "singularName": "", "namespaced": true, "kind": "K", "verbs": []});
                    json!({"groupVersion": version, "resources": [resource]})
                }
            };
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::from(body.to_string()))))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn what_is_served_is_there_unless_it_is_switched_off() {
        let found = ALL
            .found(&api_server(&[
                ("argoproj.io/v1alpha1", "applications"),
                ("helm.toolkit.fluxcd.io/v2beta1", "helmreleases"),
                ("karpenter.sh/v1", "nodepools"),
            ]))
            .await
            .unwrap();
        assert_eq!(words(&found), "Argo CD, Flux, Karpenter", "Argo CD's group is not Argo Rollouts");
        let off = Integrations { rollouts: false, karpenter: false, argocd: false, ..ALL };
        let served: &[_] = &[("argoproj.io/v1alpha1", "rollouts"), ("karpenter.sh/v1beta1", "nodepools")];
        assert_eq!(words(&off.found(&api_server(served)).await.unwrap()), "none");
        assert_eq!(
            words(&ALL.found(&api_server(served)).await.unwrap()),
            "Argo CD, Argo Rollouts, Karpenter"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_does_not_say_holds_nothing_back_for_long() {
        let answer = |_request: Request<Body>| {
            let status = json!({"kind": "Status", "status": "Failure", "code": 500, "message": "no", "reason": "InternalError"});
            let response = Response::builder().status(500).body(Full::from(status.to_string())).unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let mirror = Mirror::default();
        crate::inventory::Kind::ALL.into_iter().for_each(|kind| mirror.skip(kind));
        mirror.restart();
        assert!(mirror.next().is_none(), "the commit waits");
        let second = Duration::from_secs(1);
        let retry = Retry { first: second, most: second, absent: second };
        let looking = look(client, ALL, mirror.clone(), retry);
        assert!(timeout(Duration::from_secs(60), looking).await.is_err(), "it looks for ever");
        assert!(mirror.next().is_some(), "the commit, with what is configured");
    }
}
