//! `operator.istio`: where access logs of proxies are received, and what sends them there.

use serde_json::{Value, json};

use crate::helm::{self, Objects, list, text};

const ALS: &str = "kestrel-operator-als";

/// What the aggregator may patch.
fn slices(objects: &Objects) -> Vec<&str> {
    let rules = list(&objects.get("Role", "kestrel-aggregator")["rules"]);
    let patched =
        |rule: &&Value| rule["resources"] == json!(["endpointslices"]) && rule["verbs"] == json!(["patch"]);
    rules.iter().filter(patched).flat_map(|rule| list(&rule["resourceNames"])).map(text).collect()
}

#[test]
fn by_default_they_are_received_as_soon_as_there_is_istio_and_with_false_never() {
    let objects = Objects::with(&[]);
    assert_eq!(objects.env("kestrel-aggregator", "ENABLE_ISTIO_ALS"), Some("auto"));
    assert!(objects.find("Service", ALS).is_some() && objects.find("Telemetry", ALS).is_none());
    let off = "operator.istio.enabled=false";
    let collectors = "operator.istio.collectorNamespaces={shop}";
    let objects = Objects::with(&[off, "operator.istio.telemetry=true", collectors]);
    assert_eq!(objects.find("Service", ALS), None);
    assert!(
        objects.of_kind("Telemetry").next().is_none() && objects.of_kind("ServiceEntry").next().is_none()
    );
    assert_eq!(objects.env("kestrel-aggregator", "ENABLE_ISTIO_ALS"), None);
    assert_eq!(slices(&objects), ["kestrel-agent-link"]);
    let as_text = helm::render(&["--set-string", off]).unwrap();
    assert_eq!(Objects::parse(&as_text).find("Service", ALS), None);
}

#[test]
fn headers_are_listed_and_what_lets_somebody_in_is_refused() {
    let objects = Objects::with(&[
        "operator.istio.requestHeaders={x-tenant,user-agent}",
        "operator.istio.responseHeaders={x-cache}",
    ]);
    let listed = |variable: &str| objects.env("kestrel-aggregator", variable);
    assert_eq!(listed("KESTREL_ALS_REQUEST_HEADERS"), Some("x-tenant,user-agent"));
    assert_eq!(listed("KESTREL_ALS_RESPONSE_HEADERS"), Some("x-cache"));
    for name in ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-csrf-token"]
    {
        let error =
            helm::render(&["--set", &format!("operator.istio.requestHeaders={{{name}}}")]).unwrap_err();
        assert!(error.contains("/operator/istio/requestHeaders/0"), "{error}");
    }
}

/// Telemetries with a selector hold in their own namespace alone, and one that selects a pod whose collector does not receive would make its proxy log nothing.
#[test]
fn proxies_of_annotated_pods_are_led_to_their_own_loopback() {
    let objects =
        Objects::with(&["operator.istio.collectorNamespaces={shop,bank}", "operator.istio.telemetry=true"]);
    let entry = &objects.get("ServiceEntry", "kestrel-collector-als")["spec"];
    assert_eq!((&entry["resolution"], &entry["location"]), (&json!("STATIC"), &json!("MESH_EXTERNAL")));
    assert_eq!(entry["endpoints"], json!([{"address": "127.0.0.1"}]));
    assert_eq!(entry["ports"], json!([{"name": "grpc-als", "number": 14080, "protocol": "GRPC"}]));
    let telemetries: Vec<_> =
        objects.of_kind("Telemetry").filter(|of| of["metadata"]["name"] == "kestrel-collector-als").collect();
    let namespaces: Vec<_> = telemetries.iter().map(|of| text(&of["metadata"]["namespace"])).collect();
    assert_eq!(namespaces, ["shop", "bank"]);
    for telemetry in telemetries {
        let selector = json!({"matchLabels": {"kestrel.ai/receives-access-logs": "true"}});
        assert_eq!(telemetry["spec"]["selector"], selector);
        let providers = json!([{"name": "kestrel-collector-als"}, {"name": "kestrel-collector-als-tcp"}]);
        assert_eq!(telemetry["spec"]["accessLogging"], json!([{"providers": providers}]));
    }
    let unknown = Objects::with(&["operator.istio.collectorNamespaces={shop}"]);
    assert!(
        unknown.of_kind("Telemetry").next().is_none(),
        "nobody can be asked whether the providers are there"
    );
    let error = helm::render(&["--set", "operator.istio.collectorNamespaces={Shop}"]).unwrap_err();
    assert!(error.contains("collectorNamespaces"), "{error}");
}

#[test]
fn the_service_is_the_one_that_users_configured_and_leads_to_the_leader() {
    let objects = Objects::with(&["operator.istio.enabled=true"]);
    let service = &objects.get("Service", ALS)["spec"];
    assert_eq!(service["ports"], json!([{"name": "grpc-als", "port": 8080, "targetPort": 8080}]));
    // It selects nobody: the leading aggregator writes the EndpointSlice.
    let selected = service["selector"].as_object().unwrap();
    for (workload, pod) in objects.pods() {
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        assert!(!selected.iter().all(|(name, value)| labels.get(name) == Some(value)), "{workload}");
    }
    assert_eq!(slices(&objects), ["kestrel-agent-link", ALS]);
    for (variable, value) in [
        ("ENABLE_ISTIO_ALS", Some("true")),
        ("ISTIO_ALS_PORT", Some("8080")),
        ("KESTREL_ALS_STREAM_BYTES", Some("16777216")),
        ("KESTREL_ALS_TLS_DIR", None),
    ] {
        assert_eq!(objects.env("kestrel-aggregator", variable), value, "{variable}");
    }
    let moved = Objects::with(&["operator.istio.enabled=true", "operator.istio.alsPort=9000"]);
    assert_eq!(moved.get("Service", ALS)["spec"]["ports"][0]["targetPort"], 9000);
    assert_eq!(moved.env("kestrel-aggregator", "ISTIO_ALS_PORT"), Some("9000"));
}

#[test]
fn a_port_that_is_taken_is_refused() {
    for port in ["8443", "8081"] {
        let port = format!("operator.istio.enabled=true,operator.istio.alsPort={port}");
        let error = helm::render(&["--set", &port]).unwrap_err();
        assert!(error.contains("operator.istio.alsPort: the aggregator serves something else"), "{error}");
    }
}

/// A provider that the mesh does not know makes proxies log nothing at all.
#[test]
fn telemetry_names_providers_only_where_they_are_known_to_exist() {
    let telemetry = |mode: &str| {
        let settings = ["operator.istio.enabled=true", "operator.istio.rootNamespace=mesh", mode];
        Objects::with(&settings).find("Telemetry", ALS).cloned()
    };
    assert_eq!(telemetry("operator.istio.telemetry=auto"), None, "nobody can be asked");
    assert_eq!(telemetry("operator.istio.telemetry=false"), None);
    let telemetry = telemetry("operator.istio.telemetry=true").unwrap();
    assert_eq!(
        (&telemetry["apiVersion"], &telemetry["metadata"]["namespace"]),
        (&json!("telemetry.istio.io/v1alpha1"), &json!("mesh"))
    );
    let providers = json!([{"name": "kestrel-operator-als"}, {"name": "kestrel-operator-als-tcp"}]);
    assert_eq!(telemetry["spec"], json!({"accessLogging": [{"providers": providers}]}));
    let newer = helm::render(&[
        "--api-versions",
        "telemetry.istio.io/v1",
        "--set",
        "operator.istio.enabled=true,operator.istio.telemetry=true",
    ]);
    let newer = Objects::parse(&newer.unwrap());
    assert_eq!(newer.get("Telemetry", ALS)["apiVersion"], "telemetry.istio.io/v1");
}

#[test]
fn a_secret_makes_it_mutual_tls() {
    let objects = Objects::with(&["operator.istio.enabled=true", "operator.istio.existingSecret=als"]);
    assert_eq!(objects.env("kestrel-aggregator", "KESTREL_ALS_TLS_DIR"), Some("/etc/kestrel/als-tls"));
    let check = list(&objects.get("Pod", "kestrel-check")["spec"]["containers"][0]["env"]);
    assert!(check.contains(&json!({"name": "KESTREL_ALS_TLS_DIR", "value": "/etc/kestrel/als-tls"})));
    let (_, pod) = objects.pods().find(|(name, _)| *name == "kestrel-aggregator").unwrap();
    let volume = list(&pod["spec"]["volumes"]).iter().find(|volume| volume["name"] == "als-tls").unwrap();
    assert_eq!(
        (&volume["secret"]["secretName"], &volume["secret"]["optional"]),
        (&json!("als"), &json!(true))
    );
    let mounts = list(&objects.container("kestrel-aggregator")["volumeMounts"]);
    let mount = json!({"name": "als-tls", "mountPath": "/etc/kestrel/als-tls", "readOnly": true});
    assert!(mounts.contains(&mount));
}

const ON_NODES: [&str; 3] =
    ["operator.istio.enabled=true", "operator.istio.onNodes=true", "operator.istio.existingSecret=als"];

#[test]
fn node_agents_receive_where_that_is_asked_for_and_only_what_is_of_their_node() {
    const NODE: &str = "kestrel-operator-als-node";
    let off = Objects::with(&["operator.istio.enabled=true"]);
    assert_eq!(off.find("Service", NODE), None);
    assert_eq!(off.env("kestrel-node-agent", "KESTREL_ALS_PORT"), None);
    assert_eq!(off.env("kestrel-aggregator", "KESTREL_ISTIO_ON_NODES"), None);
    let objects = Objects::with(&ON_NODES);
    assert_eq!(objects.env("kestrel-aggregator", "KESTREL_ISTIO_ON_NODES"), Some("true"));
    let service = &objects.get("Service", NODE)["spec"];
    assert_eq!(service["internalTrafficPolicy"], "Local");
    assert_eq!(service["ports"], json!([{"name": "grpc-als", "port": 8080, "targetPort": 8080}]));
    let selected = service["selector"].as_object().unwrap();
    for (workload, pod) in objects.pods() {
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        let is_selected = selected.iter().all(|(name, value)| labels.get(name) == Some(value));
        assert_eq!(is_selected, workload == "kestrel-node-agent", "{workload}");
    }
    for (variable, value) in [
        ("KESTREL_ALS_PORT", "8080"),
        ("KESTREL_ALS_STREAM_BYTES", "16777216"),
        ("KESTREL_ALS_TLS_DIR", "/etc/kestrel/als-tls"),
    ] {
        assert_eq!(objects.env("kestrel-node-agent", variable), Some(value), "{variable}");
    }
    let (_, pod) = objects.pods().find(|(name, _)| *name == "kestrel-node-agent").unwrap();
    let volume = list(&pod["spec"]["volumes"]).iter().find(|volume| volume["name"] == "als-tls").unwrap();
    assert_eq!(volume["secret"]["secretName"], "als");
    let guarded = Objects::with(&[ON_NODES[0], ON_NODES[1], "networkPolicy.create=true"]);
    let ports = &guarded.get("NetworkPolicy", "kestrel-node-agent")["spec"]["ingress"][0]["ports"];
    assert_eq!(ports, &json!([{"port": 8081}, {"port": 8080}]));
}
