//! The pods: hardening, probes, placement, mounts; and the webhook's configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::helm::{Objects, list, text};

const WORKLOADS: [&str; 3] = ["kestrel-aggregator", "kestrel-webhook", "kestrel-node-agent"];

#[test]
fn every_container_is_hardened_and_bounded() {
    let objects = Objects::with(&[]);
    let mut seen: Vec<&str> = Vec::new();
    for (workload, pod) in objects.pods() {
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{workload}");
        assert_eq!(spec["hostNetwork"], Value::Null, "{workload}");
        assert_eq!(spec["hostPID"], Value::Null, "{workload}");
        assert_eq!(spec["priorityClassName"], "kestrel-operator", "{workload}");
        assert_eq!(spec["serviceAccountName"], workload);
        let containers = list(&spec["containers"]);
        assert_eq!(containers.len(), 1, "{workload}");
        for container in containers {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{workload}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{workload}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{workload}");
            for kind in ["requests", "limits"] {
                for resource in ["cpu", "memory"] {
                    assert!(
                        container["resources"][kind][resource].is_string(),
                        "{workload} {kind}.{resource}"
                    );
                }
            }
            for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
                assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "admin"}), "{workload}");
            }
            assert!(list(&container["ports"]).contains(&json!({"name": "admin", "containerPort": 8081})));
            assert_eq!(container["command"], json!([format!("/{workload}")]));
        }
        seen.push(workload);
    }
    seen.sort_unstable_by_key(|name| WORKLOADS.iter().position(|workload| workload == name));
    assert_eq!(seen, WORKLOADS);
}

#[test]
fn the_two_deployments_are_not_root_and_spread_over_nodes() {
    let objects = Objects::with(&[]);
    for workload in ["kestrel-aggregator", "kestrel-webhook"] {
        let deployment = objects.get("Deployment", workload);
        assert_eq!(deployment["spec"]["replicas"], 2);
        // The new one is ready before an old one ends.
        let update = &deployment["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(update, &json!({"maxSurge": 1, "maxUnavailable": 0}));
        // More than the 10 s that the programs give their own end.
        assert!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64() >= Some(20));
        let spec = &deployment["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["runAsUser"], 65532);
        let spread = &spec["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
        let selector = &deployment["spec"]["selector"];
        assert_eq!(&spread["labelSelector"], selector);
        let budget = &objects.get("PodDisruptionBudget", workload)["spec"];
        assert_eq!(budget["maxUnavailable"], 1);
        assert_eq!(&budget["selector"], selector);
    }
}

/// With service links the Service `kestrel-webhook` would set `KESTREL_WEBHOOK_PORT=tcp://…` in every pod.
#[test]
fn services_set_no_variables() {
    for (workload, pod) in Objects::with(&[]).pods() {
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{workload}");
    }
}

/// Selectors cannot change in an upgrade, so no value may reach them.
#[test]
fn pod_labels_never_change_a_selector() {
    let objects = Objects::with(&["podLabels.app\\.kubernetes\\.io/component=mine"]);
    for (workload, pod) in objects.pods() {
        let component = workload.trim_start_matches("kestrel-");
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], component);
    }
}

#[test]
fn the_node_agent_runs_everywhere_and_sees_only_the_logs() {
    let objects = Objects::with(&[]);
    let daemon_set = objects.get("DaemonSet", "kestrel-node-agent");
    assert_eq!(daemon_set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "10%");
    let spec = &daemon_set["spec"]["template"]["spec"];
    assert_eq!(spec["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["securityContext"]["runAsUser"], 0);
    let of_the_node: Vec<_> = list(&spec["volumes"])
        .iter()
        .filter(|volume| volume["hostPath"].is_object())
        .map(|volume| text(&volume["hostPath"]["path"]))
        .collect();
    assert_eq!(of_the_node, ["/var/log/pods", "/var/lib/kestrel"]);
    let writable: Vec<_> = list(&spec["containers"][0]["volumeMounts"])
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| text(&mount["mountPath"]))
        .collect();
    assert_eq!(writable, ["/var/lib/kestrel"]);
    let token = list(&spec["volumes"]).iter().find(|volume| volume["projected"].is_object()).unwrap();
    assert_eq!(token["projected"]["sources"][0]["serviceAccountToken"]["audience"], "kestrel-agent-link");
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_RUNTIME_SOCKET"), None);
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_AWS_POLICY_LOG"), None);
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_HUBBLE_SOCKET"), None);
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_ZTUNNEL_NAMESPACE"), Some("istio-system"));
    let objects = Objects::with(&["nodeAgent.flows.ztunnelNamespace="]);
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_ZTUNNEL_NAMESPACE"), None);
}

#[test]
fn hubble_relay_is_read_with_the_secret_that_is_named() {
    let env = |objects: &Objects, name: &str| objects.env("kestrel-aggregator", name).map(str::to_owned);
    let objects = Objects::with(&[]);
    assert_eq!(env(&objects, "DISABLE_CILIUM_FLOWS").as_deref(), Some("true"));
    let on = "operator.cilium.disableFlows=false";
    let secret = "operator.cilium.hubble.tls.existingSecret=relay";
    let objects = Objects::with(&[on]);
    assert_eq!(
        (env(&objects, "DISABLE_CILIUM_FLOWS"), env(&objects, "KESTREL_HUBBLE_TLS_DIR")),
        (None, None)
    );
    let objects = Objects::with(&[on, secret, "nodeAgent.flows.hubbleSocket="]);
    let folder = env(&objects, "KESTREL_HUBBLE_TLS_DIR").unwrap();
    let (_, pod) = objects.pods().find(|(name, _)| *name == "kestrel-aggregator").unwrap();
    let mounts = list(&pod["spec"]["containers"][0]["volumeMounts"]);
    assert!(
        mounts.iter().any(|mount| mount["mountPath"] == *folder && mount["readOnly"] == true),
        "{mounts:?}"
    );
    let volumes = list(&pod["spec"]["volumes"]);
    assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "relay"), "{volumes:?}");
    assert_eq!(objects.env("kestrel-node-agent", "KESTREL_HUBBLE_SOCKET"), None);
    let objects = Objects::with(&[on, secret, "operator.cilium.hubble.tls.forceDisable=true"]);
    assert_eq!(env(&objects, "KESTREL_HUBBLE_TLS_DIR"), None);
}

#[test]
fn the_node_agent_sees_more_of_the_node_only_when_told() {
    let objects = Objects::with(&[
        "nodeAgent.runtimeSocket=/run/containerd/containerd.sock",
        "nodeAgent.seLinuxOptions.type=spc_t",
        "nodeAgent.flows.awsPolicyLog=/var/log/aws-routed-eni/network-policy-agent.log",
        "operator.cilium.disableFlows=false",
    ]);
    let hubble = objects.env("kestrel-node-agent", "KESTREL_HUBBLE_SOCKET");
    assert_eq!(hubble, Some("/var/run/cilium/hubble.sock"));
    let socket = objects.env("kestrel-node-agent", "KESTREL_RUNTIME_SOCKET");
    assert_eq!(socket, Some("/run/containerd/containerd.sock"));
    let container = objects.container("kestrel-node-agent");
    assert_eq!(container["securityContext"]["seLinuxOptions"]["type"], "spc_t");
    let log = objects.env("kestrel-node-agent", "KESTREL_AWS_POLICY_LOG");
    assert_eq!(log, Some("/var/log/aws-routed-eni/network-policy-agent.log"));
    for folder in ["/run/containerd", "/var/log/aws-routed-eni", "/var/run/cilium"] {
        let mount = list(&container["volumeMounts"]).iter().find(|mount| mount["mountPath"] == folder);
        assert_eq!(mount.expect("its folder is mounted")["readOnly"], true, "{folder}");
    }
}

/// Each value gives one thing: what the table in docs/security.md says, and nothing else.
#[test]
fn each_feature_of_the_node_agent_has_its_own_privilege() {
    let document = std::fs::read_to_string(crate::helm::repository("docs/security.md")).unwrap();
    let privileges = |objects: &Objects| {
        let spec = &objects.get("DaemonSet", "kestrel-node-agent")["spec"]["template"]["spec"];
        let volumes = list(&spec["volumes"]).iter().filter(|volume| volume["hostPath"].is_object());
        let path = |volume: &Value| text(&volume["hostPath"]["path"]).to_owned();
        let added = &spec["containers"][0]["securityContext"]["capabilities"]["add"];
        let added = added.as_array().into_iter().flatten().map(|name| text(name).to_owned());
        let network = (spec["hostNetwork"] == true).then(|| "the node's network".to_owned());
        volumes.map(path).chain(added).chain(network).collect::<Vec<_>>()
    };
    let always = privileges(&Objects::with(&[]));
    for (setting, expected) in [
        ("nodeAgent.runtimeSocket=/run/containerd/containerd.sock", "/run/containerd"),
        ("nodeAgent.kernelLog=true", "SYSLOG"),
        ("nodeAgent.conntrack=true", "/proc/1/net/stat"),
        ("nodeAgent.networkTables=true", "/proc/1/net"),
        ("nodeAgent.hostNetwork=true", "the node's network"),
        ("nodeAgent.packetCapture=true", "NET_RAW"),
        ("nodeAgent.firewallRules=true", "NET_ADMIN"),
        ("nodeAgent.bpfObjects=true", "SYS_ADMIN"),
        ("nodeAgent.podPressure=true", "/sys/fs/cgroup"),
        ("nodeAgent.fileSystems={/data}", "/data"),
        ("operator.cilium.disableFlows=false", "/var/run/cilium"),
        (
            "nodeAgent.flows.awsPolicyLog=/var/log/aws-routed-eni/network-policy-agent.log",
            "/var/log/aws-routed-eni",
        ),
    ] {
        let objects = Objects::with(&[setting]);
        assert_eq!(privileges(&objects), [&always[..], &[expected.to_owned()]].concat(), "{setting}");
        let mounts = list(&objects.container("kestrel-node-agent")["volumeMounts"]).to_vec();
        let writable = mounts.iter().filter(|mount| mount["readOnly"] != true).count();
        assert_eq!(writable, 1, "{setting}: the state alone");
        let name = setting.split('=').next().unwrap();
        let row = document.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        assert!(
            row.is_some_and(|row| row.contains(expected) || name.ends_with("fileSystems")),
            "{name}: {row:?}"
        );
    }
}

#[test]
fn what_is_watched_of_the_host_is_told_to_the_agent() {
    let env = |settings: &[&str], name: &str| {
        Objects::with(settings).env("kestrel-node-agent", name).map(str::to_owned)
    };
    for (value, name) in [
        ("kernelLog", "KERNEL_LOG"),
        ("conntrack", "CONNTRACK"),
        ("podPressure", "POD_PRESSURE"),
        ("networkTables", "NETWORK_TABLES"),
        ("hostNetwork", "HOST_NETWORK"),
        ("packetCapture", "PACKET_CAPTURE"),
        ("firewallRules", "FIREWALL_RULES"),
        ("bpfObjects", "BPF_OBJECTS"),
    ] {
        let name = format!("KESTREL_{name}");
        assert_eq!(env(&[], &name), None);
        assert_eq!(env(&[&format!("nodeAgent.{value}=true")], &name).as_deref(), Some("true"));
    }
    let both = Objects::with(&["nodeAgent.conntrack=true", "nodeAgent.networkTables=true"]);
    let mounts = list(&both.container("kestrel-node-agent")["volumeMounts"]).to_vec();
    let of_network: Vec<_> =
        mounts.iter().map(|mount| text(&mount["mountPath"])).filter(|path| path.contains("/net")).collect();
    assert_eq!(of_network, ["/host/proc/1/net"], "the counters are in it");
    let folders = ["nodeAgent.fileSystems={/data,/var/lib/x}", "nodeAgent.pressure.cpu=95"];
    assert_eq!(env(&folders, "KESTREL_FILE_SYSTEMS").as_deref(), Some("/data,/var/lib/x"));
    assert_eq!(env(&folders, "KESTREL_PRESSURE_CPU").as_deref(), Some("95"));
    assert_eq!(env(&[], "KESTREL_PRESSURE_IO").as_deref(), Some("40"));
    let often = ["healthcheck.livenessProbe.periodSeconds=3"];
    assert_eq!(env(&[], "KESTREL_PROBE_SECONDS").as_deref(), Some("5"));
    assert_eq!(env(&often, "KESTREL_PROBE_SECONDS").as_deref(), Some("3"));
    let objects = Objects::with(&folders);
    let mounts = list(&objects.container("kestrel-node-agent")["volumeMounts"]);
    let data = mounts.iter().find(|mount| mount["mountPath"] == "/host/data").unwrap();
    assert_eq!(data["mountPropagation"], "HostToContainer");
}

#[test]
fn agents_and_webhook_know_the_link_of_their_own_namespace() {
    let objects = Objects::with(&[]);
    for workload in ["kestrel-node-agent", "kestrel-webhook"] {
        assert_eq!(
            objects.env(workload, "KESTREL_LINK_ENDPOINT"),
            Some("https://kestrel-agent-link.kestrel-ai.svc:8443"),
            "{workload}"
        );
        let template = objects.pods().find(|(name, _)| *name == workload).unwrap().1;
        let volumes = list(&template["spec"]["volumes"]);
        let authority = volumes.iter().find(|volume| volume["configMap"].is_object()).unwrap();
        assert_eq!(authority["configMap"], json!({"name": "kestrel-agent-link-ca", "optional": true}));
    }
    let service = &objects.get("Service", "kestrel-agent-link")["spec"];
    assert_eq!(service["selector"], Value::Null);
    assert_eq!(service["ports"], json!([{"name": "https", "port": 8443, "targetPort": 8443}]));
}

#[test]
fn what_a_cluster_calls_a_secret_reaches_agents_and_collectors() {
    let objects = Objects::with(&["podLogs.redact={card [0-9]+$,pin=([0-9]+)}"]);
    for workload in ["kestrel-node-agent", "kestrel-webhook"] {
        // As the kubelet reads it, a dollar sign.
        assert_eq!(
            objects.env(workload, "KESTREL_REDACT"),
            Some("card [0-9]+$$\npin=([0-9]+)"),
            "{workload}"
        );
    }
    assert_eq!(objects.env("kestrel-aggregator", "KESTREL_REDACT"), None);
    assert_eq!(Objects::with(&[]).env("kestrel-node-agent", "KESTREL_REDACT"), None);
}

#[test]
fn the_webhook_can_neither_block_nor_see_other_pods() {
    let objects = Objects::with(&["webhook.excludedNamespaces={payments,kube-system}"]);
    let configuration = objects.get("MutatingWebhookConfiguration", "kestrel-webhook");
    let [webhook] = list(&configuration["webhooks"]) else { panic!("one webhook") };
    assert_eq!(webhook["name"], "inject.kestrel.ai");
    assert_eq!(webhook["failurePolicy"], "Ignore");
    assert_eq!(webhook["timeoutSeconds"], 3);
    assert_eq!(webhook["sideEffects"], "NoneOnDryRun");
    assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
    let [rule] = list(&webhook["rules"]) else { panic!("one rule") };
    assert_eq!((&rule["operations"], &rule["resources"]), (&json!(["CREATE"]), &json!(["pods"])));
    let namespaces = json!(["kestrel-ai", "kube-system", "kube-public", "kube-node-lease", "payments"]);
    assert_eq!(webhook["namespaceSelector"]["matchExpressions"][0]["values"], namespaces);
    assert!(text(&webhook["matchConditions"][0]["expression"]).contains("kestrel.ai/inject"));
    let policy = &objects.get("ValidatingAdmissionPolicy", "kestrel-running-pod")["spec"];
    assert_eq!(policy["matchConstraints"]["namespaceSelector"], webhook["namespaceSelector"]);
    let binding = &objects.get("ValidatingAdmissionPolicyBinding", "kestrel-running-pod")["spec"];
    assert_eq!(binding["validationActions"], json!(["Warn"]));
    // The same selector tells the webhook which pods were never its own to change.
    let selector = objects.env("kestrel-webhook", "KESTREL_NAMESPACE_SELECTOR").unwrap();
    assert_eq!(serde_json::from_str::<Value>(selector).unwrap(), webhook["namespaceSelector"]);
}

#[test]
fn who_annotates_a_running_pod_hears_what_is_sent_of_it() {
    let message = |values: &[&str]| {
        let objects = Objects::with(values);
        let policy = &objects.get("ValidatingAdmissionPolicy", "kestrel-running-pod")["spec"];
        text(&policy["validations"][0]["messageExpression"]).to_owned()
    };
    let sent = "stdout and stderr is sent in full";
    assert!(message(&[]).contains(sent) && message(&[]).contains("namespace in []"));
    // The annotation goes before the policy of the cluster.
    assert!(message(&["podLogs.policy=off"]).contains(sent));
    assert!(!message(&["nodeAgent.enabled=false"]).contains(sent));
    let no_collector = "sends to the operator need no collector";
    assert!(message(&[]).contains(no_collector));
    assert!(!message(&["operator.istio.enabled=false"]).contains(no_collector));
    assert!(message(&["data.namespaces.exclude={bank}"]).contains(r#"namespace in ["bank"]"#));
}

/// A pod that could not pull the image would not start.
#[test]
fn collectors_need_the_pull_secret_where_their_node_may_not_have_the_image() {
    let needed = |kubernetes: &str, values: &[&str]| {
        let objects = Objects::on(
            kubernetes,
            &[&["imagePullSecrets[0].name=one,imagePullSecrets[1].name=two"], values].concat(),
        );
        objects.env("kestrel-webhook", "KESTREL_COLLECTOR_PULL_SECRETS").map(str::to_owned)
    };
    let both = Some("one,two".to_owned());
    assert_eq!(needed("1.34.0", &[]), None, "every node has the image");
    assert_eq!(needed("1.35.0", &[]), both, "kubelets ask each pod");
    for elsewhere in
        ["nodeAgent.enabled=false", "nodeAgent.nodeSelector.disk=fast", "nodeAgent.affinity.nodeAffinity.x=1"]
    {
        assert_eq!(needed("1.34.0", &[elsewhere]), both, "{elsewhere}");
    }
    let open = Objects::with(&["nodeAgent.enabled=false"]);
    assert_eq!(open.env("kestrel-webhook", "KESTREL_COLLECTOR_PULL_SECRETS"), None);
}

/// The webhook writes its certificate authority itself; a rendered one would be taken back by every upgrade.
#[test]
fn helm_never_owns_the_ca_bundle() {
    let configuration = Objects::with(&[]).get("MutatingWebhookConfiguration", "kestrel-webhook").to_string();
    assert!(!configuration.contains("caBundle"), "{configuration}");
}

#[test]
fn a_selector_narrows_the_namespaces_and_the_timeout_is_a_value() {
    let objects = Objects::with(&[
        "webhook.timeoutSeconds=7",
        "webhook.namespaceSelector.matchLabels.team=shop",
        "webhook.namespaceSelector.matchExpressions[0].key=tier",
        "webhook.namespaceSelector.matchExpressions[0].operator=Exists",
    ]);
    let webhook = &objects.get("MutatingWebhookConfiguration", "kestrel-webhook")["webhooks"][0];
    assert_eq!(webhook["timeoutSeconds"], 7);
    let selector = &webhook["namespaceSelector"];
    assert_eq!(selector["matchLabels"], json!({"team": "shop"}));
    let [excluded, tier] = list(&selector["matchExpressions"]) else { panic!("{selector}") };
    assert_eq!(excluded["operator"], "NotIn", "what is excluded stays so");
    assert_eq!(tier, &json!({"key": "tier", "operator": "Exists"}));
    let policy = &objects.get("ValidatingAdmissionPolicy", "kestrel-running-pod")["spec"];
    assert_eq!(&policy["matchConstraints"]["namespaceSelector"], selector);
}

#[test]
fn a_selector_narrows_the_pods_and_the_webhook_knows_it() {
    let set = "webhook.objectSelector.matchLabels.team";
    let objects = Objects::with(&[&format!("{set}=shop")]);
    let webhook = &objects.get("MutatingWebhookConfiguration", "kestrel-webhook")["webhooks"][0];
    let selector = &webhook["objectSelector"];
    assert_eq!(selector, &json!({"matchLabels": {"team": "shop"}}));
    let policy = &objects.get("ValidatingAdmissionPolicy", "kestrel-running-pod")["spec"];
    assert_eq!(&policy["matchConstraints"]["objectSelector"], selector);
    let told = objects.env("kestrel-webhook", "KESTREL_OBJECT_SELECTOR").unwrap();
    assert_eq!(&serde_json::from_str::<Value>(told).unwrap(), selector);
    let usual = Objects::with(&[]);
    assert_eq!(usual.env("kestrel-webhook", "KESTREL_OBJECT_SELECTOR"), None);
    let webhook = &usual.get("MutatingWebhookConfiguration", "kestrel-webhook")["webhooks"][0];
    assert_eq!(webhook["objectSelector"], Value::Null);
}

/// Variables of the aggregator that its `check` has no use for.
const DAEMON_ALONE: [&str; 24] = [
    "ARGOCD_NAMESPACE",
    "FLUX_DISABLED",
    "GLIBC_TUNABLES",
    "KARPENTER_DISABLED",
    "KESTREL_ALS_REQUEST_HEADERS",
    "KESTREL_ALS_RESPONSE_HEADERS",
    "KESTREL_ALS_STATS_PORT",
    "KESTREL_ALS_STREAM_BYTES",
    "KESTREL_BUDGET_POD_BYTES",
    "KESTREL_EXCLUDED_NAMESPACES",
    "KESTREL_KEEPALIVE_SECONDS",
    "KESTREL_KEEPALIVE_TIMEOUT_SECONDS",
    "KESTREL_LEADER_ELECTION",
    "KESTREL_LEASE_SECONDS",
    "KESTREL_LINK_MAX_CONNECTIONS",
    "KESTREL_LOGS_POLICY",
    "KESTREL_SPOOL_BYTES",
    "KESTREL_SPOOL_HOURS",
    "KESTREL_STATE_DIR",
    "KESTREL_THRESHOLDS",
    "NODE_NAME",
    "POD_IP",
    "POD_UID",
    "ROLLOUTS_DISABLED",
];

/// By these, `check` alone meets the operator's own servers.
const OF_SERVERS: [&str; 4] =
    ["KESTREL_LINK_CA_FILE", "KESTREL_LINK_ENDPOINT", "KESTREL_WEBHOOK_CA_FILE", "KESTREL_WEBHOOK_ENDPOINT"];

/// Whatever else the aggregator is told, its `check` is told in the same words, and has the files that the words name.
#[test]
fn the_test_knows_what_the_aggregator_knows() {
    let everything = [
        "server.tls.serverName=cloud",
        "server.proxy.existingSecret=proxy",
        "server.proxy.noProxy=example.com",
        "data.namespaces.exclude={bank}",
        "operator.argocd.enabled=true",
        "operator.argocd.namespace=argocd",
        "operator.rollouts.enabled=false",
        "operator.flux.enabled=false",
        "operator.karpenter.enabled=false",
        "operator.istio.enabled=true",
        "operator.istio.alsPort=9000",
        "operator.istio.rootNamespace=mesh",
        "operator.istio.collectorNamespaces={shop}",
        "operator.istio.existingSecret=als",
        "operator.istio.requestHeaders={x-tenant}",
        "operator.istio.responseHeaders={x-cache}",
        "operator.istio.proxyStats=true",
        "operator.cilium.disableFlows=false",
        "operator.cilium.hubble.relay.address=relay:443",
        "operator.cilium.hubble.tls.existingSecret=relay",
        "operator.cilium.hubble.tls.serverName=relay",
        "link.existingSecret=mine",
    ];
    let named = |entries: &Value| -> BTreeMap<String, Value> {
        list(entries).iter().map(|entry| (text(&entry["name"]).to_owned(), entry.clone())).collect()
    };
    let mut unused: BTreeSet<_> = DAEMON_ALONE.into();
    for settings in [&[][..], &everything] {
        let objects = Objects::with(settings);
        let test = &objects.get("Pod", "kestrel-check")["spec"];
        let aggregator = &objects.get("Deployment", "kestrel-aggregator")["spec"]["template"]["spec"];
        let of_container = |pod: &Value, what: &str| named(&pod["containers"][0][what]);
        let (mut own, mut others) = (of_container(test, "env"), of_container(aggregator, "env"));
        others.retain(|name, _| !unused.remove(&**name) && !DAEMON_ALONE.contains(&&**name));
        own.retain(|name, _| !OF_SERVERS.contains(&&**name));
        assert_eq!(own, others);
        let (mounts, volumes) = (of_container(test, "volumeMounts"), named(&test["volumes"]));
        let unneeded = ["state", "als-tls", "server-tls"];
        let (same_mounts, same_volumes) =
            (of_container(aggregator, "volumeMounts"), named(&aggregator["volumes"]));
        for name in same_mounts.keys().filter(|name| !unneeded.contains(&&***name)) {
            assert_eq!(mounts.get(name), same_mounts.get(name), "{name}");
            assert_eq!(volumes.get(name), same_volumes.get(name), "{name}");
        }
    }
    assert!(unused.is_empty(), "not rendered: {unused:?}");
}

/// `helm test` tries what the aggregator does, with what the aggregator has, and the two servers of the operator.
#[test]
fn the_test_is_the_aggregators_own_check() {
    let objects = Objects::with(&["server.port=50051"]);
    let pod = objects.get("Pod", "kestrel-check");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    // No workload's policy, budget or Service may take it for its own.
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], "check");
    assert_eq!(pod["spec"]["serviceAccountName"], "kestrel-aggregator");
    let [container] = list(&pod["spec"]["containers"]) else { panic!("one container") };
    assert_eq!(container["command"], json!(["/kestrel-aggregator", "check"]));
    let aggregator = objects.container("kestrel-aggregator");
    for same in ["image", "securityContext"] {
        assert_eq!(container[same], aggregator[same]);
    }
    let env = |name: &str| {
        let found = list(&container["env"]).iter().find(|variable| variable["name"] == name);
        found.map(|variable| text(&variable["value"]))
    };
    assert_eq!(env("KESTREL_LINK_ENDPOINT"), Some("https://kestrel-agent-link.kestrel-ai.svc:8443"));
    assert_eq!(env("KESTREL_WEBHOOK_ENDPOINT"), Some("https://kestrel-webhook.kestrel-ai.svc/mutate"));
    let authority = |objects: &Objects| {
        let volumes = list(&objects.get("Pod", "kestrel-check")["spec"]["volumes"]).to_vec();
        let volume = volumes.into_iter().find(|volume| volume["name"] == "webhook-ca");
        volume.map(|volume| text(&volume["secret"]["secretName"]).to_owned())
    };
    assert_eq!(authority(&objects).as_deref(), Some("kestrel-webhook-ca"));
    assert_eq!(authority(&Objects::with(&["webhook.existingSecret=mine"])).as_deref(), Some("mine"));
    assert_eq!(authority(&Objects::on("1.29.0", &[])), None);
}
