use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::Full;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;

/// An API server: what it answers at each path, and 403 elsewhere.
fn api_server(answers: &[(&'static str, Value)]) -> Client {
    let answers = answers.to_vec();
    let answer = move |request: Request<Body>| {
        // Of a list in pages, what continues one has its token behind the path.
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let page = query.rsplit_once("continue=").map(|(_, token)| format!("{path}?{token}"));
        let path = page.as_deref().unwrap_or(path);
        let found = answers.iter().find(|(of, _)| *of == path).map(|(_, answer)| answer.to_string());
        let (code, body) = found.map_or_else(
            || {
                let message = format!("{path} is forbidden");
                let status = json!({"kind": "Status", "status": "Failure", "code": 403, "message": message, "reason": "Forbidden"});
                (403, status.to_string())
            },
            |body| (200, body),
        );
        let response = Response::builder().status(code).body(Full::from(body)).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    };
    Client::new(tower::service_fn(answer), "default")
}

fn groups(names: &[&str]) -> Value {
    let group = |name: &&str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    json!({"groups": names.iter().map(group).collect::<Vec<_>>()})
}

const MAPS: &str = "/api/v1/namespaces/mesh/configmaps";

fn maps(names: &[&str]) -> Value {
    let map = |name: &&str| json!({"metadata": {"name": name}});
    let items: Vec<_> = names.iter().map(map).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
}

fn map(name: &str, key: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "mesh", "resourceVersion": "5"}, "data": {key: text},
    })
}

fn telemetries(providers: &[&str]) -> Value {
    let providers: Vec<_> = providers.iter().map(|name| json!({"name": name})).collect();
    let metadata = json!({"name": "als", "namespace": "mesh"});
    let off = json!({"disabled": true, "providers": [{"name": "kestrel-operator-als-tcp"}]});
    let items = json!([
        {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": metadata, "spec": {"accessLogging": [{"providers": providers}, off]}},
        {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "metrics", "namespace": "shop"}, "spec": {"metrics": []}},
    ]);
    json!({"kind": "TelemetryList", "apiVersion": "telemetry.istio.io/v1", "metadata": {}, "items": items})
}

fn scope(has_collectors: bool) -> Scope {
    let receiver = mesh::Receiver { host: "als.kestrel-ai.svc.cluster.local".to_owned(), port: 8080 };
    Scope { root: "mesh".to_owned(), has_collectors, receiver, on_nodes: false, speaks_tls: false }
}

async fn line(own: &[(&'static str, Value)], reader: &[(&'static str, Value)]) -> String {
    Reader::new(api_server(own), api_server(reader), scope(false)).look().await.unwrap().line()
}

const WHOLE: &str = "extensionProviders:\n- name: kestrel-operator-als\n  envoyHttpAls: {service: als.kestrel-ai.svc.cluster.local, port: 8080}\n\
                     - name: kestrel-operator-als-tcp\n  envoyTcpAls: {service: als.kestrel-ai.svc.cluster.local, port: 8080}\n";

#[tokio::test]
async fn istio_is_found_by_its_apis_and_what_every_revision_lacks_is_said() {
    assert!(line(&[("/apis", groups(&["apps"]))], &[]).await.starts_with("not found in this cluster"));
    let own = [("/apis", groups(&["networking.istio.io", "telemetry.istio.io"]))];
    let names = ["istio", "istio-1-24", "istio-ca-root-cert", "istio-sidecar-injector", "grafana"];
    let good = [
        (MAPS, maps(&names)),
        ("/api/v1/namespaces/mesh/configmaps/istio", map("istio", "mesh", WHOLE)),
        ("/api/v1/namespaces/mesh/configmaps/istio-1-24", map("istio-1-24", "other", "")),
        (
            "/apis/telemetry.istio.io/v1/telemetries",
            telemetries(&["kestrel-operator-als", "kestrel-operator-als-tcp"]),
        ),
    ];
    assert_eq!(
        line(&own, &good).await,
        "found, configured in mesh/istio; access logs are sent by Telemetry mesh/als"
    );
    let mut lacking = good.clone();
    lacking[2].1 = map("istio-1-24", "mesh", "trustDomain: x");
    lacking[3].1 = telemetries(&["kestrel-operator-als"]);
    assert_eq!(
        line(&own, &lacking).await,
        "found, configured in mesh/istio, mesh/istio-1-24; access logs are sent by Telemetry mesh/als; MISSING: provider kestrel-operator-als in \
         mesh/istio-1-24, provider kestrel-operator-als-tcp in mesh/istio-1-24, no Telemetry names the provider kestrel-operator-als-tcp \
         ('kestrel-aggregator check istio' says what to do)"
    );
    // Some proxies are to send to their pods' collectors, of which no revision knows.
    let found = Reader::new(api_server(&own), api_server(&good), scope(true)).look().await.unwrap().line();
    let missing = "MISSING: provider kestrel-collector-als in mesh/istio, provider kestrel-collector-als-tcp in mesh/istio ('kes";
    assert!(found.contains(missing), "{found}");
    let hidden = line(&own, &[]).await;
    assert!(
        hidden.contains("its mesh configuration can't be read")
            && hidden.contains("its Telemetries can't be read"),
        "{hidden}"
    );
}

/// Scenario: somebody has an older Telemetry of the mesh, which says nothing of access logs; the list of Telemetries comes in pages; and
/// a provider leads elsewhere.
/// Guarantee: the chart's is not said to send anything, one of another namespace is; and what leads elsewhere is told.
#[tokio::test]
async fn only_what_istio_heeds_and_leads_here_is_said_to_send() {
    const LIST: &str = "/apis/telemetry.istio.io/v1/telemetries";
    let telemetry = |namespace: &str, name: &str, minute: u8, spec: Value| {
        let metadata = json!({"namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-01T00:{minute:02}:00Z")});
        json!({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": metadata, "spec": spec})
    };
    let list = |next: &str, items: Value| json!({"kind": "TelemetryList", "apiVersion": "telemetry.istio.io/v1", "metadata": {"continue": next}, "items": items});
    let both = [json!({"name": "kestrel-operator-als"}), json!({"name": "kestrel-operator-als-tcp"})];
    let ours = json!({"accessLogging": [{"providers": both}]});
    let selective = json!({"selector": {"matchLabels": {"a": "b"}}, "accessLogging": []});
    let own = [("/apis", groups(&["networking.istio.io", "telemetry.istio.io"]))];
    // It names nothing that the older one does not.
    let again = json!({"selector": {}, "accessLogging": [{"providers": both}]});
    let first = [
        telemetry("mesh", "als", 7, ours.clone()),
        telemetry("mesh", "one", 1, selective),
        telemetry("shop", "again", 10, again),
    ];
    let second = [telemetry("mesh", "default", 5, json!({"metrics": []})), telemetry("shop", "als", 9, ours)];
    let mut there = [
        (MAPS, maps(&["istio"])),
        ("/api/v1/namespaces/mesh/configmaps/istio", map("istio", "mesh", WHOLE)),
        (LIST, list("two", first.into())),
        ("/apis/telemetry.istio.io/v1/telemetries?two", list("", second.into())),
    ];
    assert_eq!(
        line(&own, &there).await,
        "found, configured in mesh/istio; access logs are sent by Telemetry shop/als, shop/again; MISSING: Telemetry mesh/als is not heeded, as default \
         of its namespace is older ('kestrel-aggregator check istio' says what to do)"
    );
    there[1].1 = map("istio", "mesh", &WHOLE.replacen("als.kestrel-ai", "als.former", 1));
    let found = line(&own, &there).await;
    let wrong = "in mesh/istio, of provider kestrel-operator-als: it sends to als.former.svc.cluster.local:8080, and \
                 als.kestrel-ai.svc.cluster.local:8080 is where access logs are received";
    assert!(found.contains(wrong), "{found}");
    // A list without an end.
    there[3].1 = list("two", json!([]));
    let found = line(&own, &there).await;
    assert!(found.contains("its Telemetries can't be read: there are more than 3"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_istio_goes_on_when_it_comes() {
    let (istio, drain) = (Istio::default(), CancellationToken::new());
    assert_eq!(istio.line(), "not looked for yet");
    let client = api_server(&[("/apis", groups(&["networking.istio.io"]))]);
    let reader = Reader::new(client.clone(), client, scope(false));
    let looking = tokio::spawn(istio.clone().look(reader, true));
    assert!(istio.comes(&drain).await);
    assert!(istio.line().contains("this Istio has no telemetry.istio.io"), "{}", istio.line());
    looking.abort();
    let never = Istio::default();
    drain.cancel();
    assert!(!never.comes(&drain).await);
}
