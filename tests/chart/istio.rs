//! Istio on an API server: what is found of it, what is added to its mesh configuration, and what Helm then renders.

use std::time::Duration;

use kestrel_aggregator::istio::{
    Found, Reader, Scope, Telemetry,
    mesh::{Mesh, Receiver},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    api_server::ApiServer,
    helm::{self, NAMESPACE, Objects, RELEASE},
};

const ROOT: &str = "istio-system";
/// Nothing here takes that long unless it is broken.
const LIMIT: Duration = Duration::from_secs(60);

fn api(
    client: &Client,
    group: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn make(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn define(client: &Client, group: &str, plural: &str, kind: &str) {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let all =
        api(client, "apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", None);
    make(&all, definition).await;
}

/// Telemetries are served a moment after they are defined.
async fn telemetries(reader: &Reader) -> Vec<Telemetry> {
    let served = async {
        loop {
            if let Ok(Found::Istio { telemetries: Ok(telemetries), .. }) = reader.look().await {
                return telemetries;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LIMIT, served).await.unwrap()
}

/// Scenario: a mesh with a revision knows one provider here and none there; what is printed is applied, once to what was read and once to
/// what somebody has changed since; then the chart is rendered by a Helm that can ask.
/// Guarantee: nothing that was there is lost, a change of somebody else's is not overwritten, and the Telemetry names what is known.
#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_added_and_named_and_nothing_is_lost() {
    kestrel_runtime::tls::install_provider();
    let api_server = ApiServer::start();
    let client = api_server.client().await;
    let receiver = Receiver { host: "als.example".to_owned(), port: 8080 };
    let scope =
        Scope { root: ROOT.to_owned(), has_collectors: false, receiver, on_nodes: false, speaks_tls: false };
    let reader = Reader::new(client.clone(), client.clone(), scope);
    let render = || {
        let (chart, kubeconfig) = (helm::chart(), api_server.kubeconfig.to_str().unwrap().to_owned());
        let at = ["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig, "--dry-run=server"];
        // Whoever only renders asks for objects, and not for the version and the APIs.
        let cluster = ["--kube-version", helm::NEWEST, "--api-versions", "telemetry.istio.io/v1"];
        let arguments = [&["template", RELEASE, chart.to_str().unwrap()][..], &at, &cluster].concat();
        Objects::parse(&helm::helm(&arguments).unwrap())
    };
    assert!(matches!(reader.look().await.unwrap(), Found::Nothing));
    assert!(render().of_kind("Telemetry").next().is_none());

    let object =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    make(&api(&client, "", "Namespace", "namespaces", None), object("Namespace", ROOT)).await;
    define(&client, "networking.istio.io", "serviceentries", "ServiceEntry").await;
    define(&client, "telemetry.istio.io", "telemetries", "Telemetry").await;
    assert!(telemetries(&reader).await.is_empty());
    let maps = api(&client, "", "ConfigMap", "configmaps", Some(ROOT));
    let http = "extensionProviders: # ours\n- name: \"kestrel-operator-als\"\n  envoyHttpAls: {service: als.example, port: 8080}\n\
                - name: zipkin\n  zipkin: {}\n# - name: kestrel-operator-als-tcp\n";
    let configure = async |name: &str, key: &str, text: &str| {
        let mut map = object("ConfigMap", name);
        map["data"] = json!({key: text});
        make(&maps, map).await;
    };
    let others =
        "extensionProviders:\n- name: kestrel-operator-als\n  zipkin: {}\n- text\n- envoyHttpAls: {}\n";
    for (name, text) in [("istio-a", others), ("istio-b", "extensionProviders: text"), ("istio-c", "[")] {
        configure(name, "mesh", text).await;
        assert!(render().of_kind("Telemetry").next().is_none(), "none is known: {text}");
        maps.delete(name, &DeleteParams::default()).await.unwrap();
    }
    configure("istio", "mesh", http).await;
    configure("istio-sidecar-injector", "config", "{}").await;
    let providers = |objects: &Objects| {
        let telemetry = objects.get("Telemetry", "kestrel-operator-als");
        assert_eq!(telemetry["apiVersion"], "telemetry.istio.io/v1");
        telemetry["spec"]["accessLogging"][0]["providers"].clone()
    };
    assert_eq!(providers(&render()), json!([{"name": "kestrel-operator-als"}]), "the only one that is known");
    configure("istio-1-24", "mesh", "trustDomain: x\n").await;
    let rendered = render();
    assert!(
        rendered.of_kind("Telemetry").next().is_none(),
        "proxies of a revision that does not know it would log nothing"
    );

    let Found::Istio { configurations, .. } = reader.look().await.unwrap() else { panic!("no Istio") };
    let configurations = configurations.unwrap();
    let names: Vec<_> = configurations.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["istio", "istio-1-24"]);
    let patch = |version: &str, mesh: &Mesh| -> Value {
        let mesh = mesh.with(&mesh.missing());
        json!({"metadata": {"resourceVersion": version}, "data": {"mesh": mesh}})
    };
    for found in &configurations {
        let patch = patch(&found.version, found.mesh.as_ref().unwrap());
        maps.patch(&found.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        let late = maps.patch(&found.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap_err();
        assert!(matches!(&late, kube::Error::Api(status) if status.code == 409), "{late}");
    }
    let istio = maps.get("istio").await.unwrap();
    let text = istio.data["data"]["mesh"].as_str().unwrap();
    assert!(
        text.contains("# ours") && text.contains("name: zipkin") && text.contains("port: 8080}"),
        "{text}"
    );
    let both = json!([{"name": "kestrel-operator-als"}, {"name": "kestrel-operator-als-tcp"}]);
    let rendered = render();
    assert_eq!(providers(&rendered), both);

    let telemetry = rendered.get("Telemetry", "kestrel-operator-als");
    let made =
        make(&api(&client, "telemetry.istio.io", "Telemetry", "telemetries", Some(ROOT)), telemetry.clone())
            .await;
    let (found, missing) = reader.look().await.unwrap().words();
    assert_eq!(missing, [""; 0]);
    assert!(found.ends_with(&format!("sent by Telemetry {ROOT}/{}", made.name_any())), "{found}");
}
