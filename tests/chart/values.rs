//! Which values are taken, what they do, and which are refused.

use std::time::Duration;

use kestrel_aggregator::signals::thresholds::Thresholds;

use crate::helm::{self, Objects};

/// A values file of chart 0.1 with every key that it knew.
fn old_values() -> String {
    helm::repository("tests/chart/values-0.1.yaml").to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn lint_finds_nothing() {
    let chart = helm::chart();
    let report = helm::helm(&["lint", "--strict", chart.to_str().unwrap()]).expect("lint passes");
    assert!(!report.contains("[WARNING]") && !report.contains("[ERROR]"), "{report}");
}

#[test]
fn the_chart_names_the_version_of_the_programs() {
    let metadata = std::fs::read_to_string(helm::chart().join("Chart.yaml")).unwrap();
    assert!(metadata.contains(concat!("appVersion: ", env!("CARGO_PKG_VERSION"), "\n")), "{metadata}");
}

#[test]
fn two_renders_are_equal() {
    let arguments = ["--values", &old_values()];
    assert_eq!(helm::render(&arguments), helm::render(&arguments));
}

#[test]
fn a_values_file_of_chart_0_1_installs_this_chart() {
    let objects = Objects::parse(&helm::render(&["--values", &old_values()]).expect("the chart renders"));
    for (variable, value) in [
        ("SERVER_HOST", "cloud.example.com"),
        ("SERVER_PORT", "8443"),
        ("TLS_INSECURE_SKIP_VERIFY", "true"),
        ("HEALTH_PORT", "9090"),
        ("ARGOCD_NAMESPACE", "argocd"),
    ] {
        assert_eq!(objects.env("kestrel-aggregator", variable), Some(value), "{variable}");
    }
    assert_eq!(objects.get("Deployment", "kestrel-aggregator")["spec"]["replicas"], 1);
    let container = objects.container("kestrel-aggregator");
    assert_eq!(container["image"], "registry.example.com/kestrel-operator:1.2.3");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(container["livenessProbe"]["initialDelaySeconds"], 30);
    assert_eq!(container["securityContext"]["runAsUser"], 65534);
    let account = objects.get("ServiceAccount", "kestrel-aggregator");
    assert_eq!(account["metadata"]["annotations"]["example.com/role"], "kestrel");
    for secret in ["kestrel-operator-jwt", "kestrel-operator-client-tls"] {
        objects.get("Secret", secret);
    }
    for (workload, pod) in objects.pods() {
        assert_eq!(pod["metadata"]["annotations"]["example.com/scrape"], "yes", "{workload}");
        assert_eq!(pod["metadata"]["labels"]["team"], "platform", "{workload}");
        if workload != "kestrel-node-agent" {
            assert_eq!(pod["spec"]["nodeSelector"]["pool"], "system", "{workload}");
            assert_eq!(pod["spec"]["tolerations"][0]["key"], "dedicated", "{workload}");
            assert!(pod["spec"]["affinity"]["nodeAffinity"].is_object(), "{workload}");
        }
    }
}

/// The dotted names of all values in a file.
fn names(value: &serde_json::Value, prefix: &str, found: &mut Vec<String>) {
    // What these hold is a Kubernetes object's own.
    let whole =
        ["resources", "affinity", "podSecurityContext", "securityContext", "nodeSelector", "podLabels"];
    let whole =
        [&whole[..], &["podAnnotations", "serviceAccount.annotations", "healthcheck.livenessProbe"]].concat();
    match value.as_object() {
        Some(inner) if !whole.contains(&prefix) => {
            for (name, value) in inner {
                let dot = if prefix.is_empty() { "" } else { "." };
                names(value, &format!("{prefix}{dot}{name}"), found);
            }
        }
        _ => found.push(prefix.to_owned()),
    }
}

#[test]
fn the_table_of_old_values_has_each_of_them_once() {
    let file = std::fs::read_to_string(old_values()).unwrap();
    let mut expected = Vec::new();
    names(&serde_saphyr::from_str(&file).unwrap(), "", &mut expected);
    let page = std::fs::read_to_string(helm::repository("docs/values.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut documented: Vec<_> = rows
        .flat_map(|row| {
            row.split('|').nth(1).unwrap().split(',').map(|name| name.trim().trim_matches('`').to_owned())
        })
        .collect();
    expected.sort();
    documented.sort();
    assert_eq!(documented, expected);
}

#[test]
fn an_integration_can_be_kept_from_the_cloud() {
    for (name, variable) in
        [("rollouts", "ROLLOUTS_DISABLED"), ("flux", "FLUX_DISABLED"), ("karpenter", "KARPENTER_DISABLED")]
    {
        let env = |settings: &[&str]| {
            let objects = Objects::with(settings);
            objects.env("kestrel-aggregator", variable).map(str::to_owned)
        };
        assert_eq!(env(&[]), None, "{variable}");
        assert_eq!(env(&["operator=null"]), None, "{variable}");
        let off = format!("operator.{name}.enabled=false");
        assert_eq!(env(&[&off]).as_deref(), Some("true"), "{variable}");
    }
}

#[test]
fn misspelled_values_and_wrong_types_are_refused_by_name() {
    for (setting, complaint) in [
        ("server.hots=example.com", "'/server': additional properties 'hots' not allowed"),
        ("serverHost=example.com", "additional properties 'serverHost' not allowed"),
        ("operator.istio.enable=true", "'/operator/istio': additional properties 'enable' not allowed"),
        ("server.host=", "'/server/host'"),
        ("server.host=http://cloud.example.com", "'/server/host'"),
        ("server.host=cloud.example.com:443", "'/server/host'"),
        ("server.port=https", "'/server/port': got string, want integer"),
        ("replicaCount=two", "'/replicaCount': got string, want integer"),
        ("webhook.enabled=yes", "'/webhook/enabled': got string, want boolean"),
        ("image.pullPolicy=Sometimes", "'/image/pullPolicy': value must be one of"),
        ("image.digest=latest", "'/image/digest'"),
        ("operator.istio.rootNamespace=Mesh", "'/operator/istio/rootNamespace'"),
        ("podLogs.policy=some", "'/podLogs/policy': value must be one of"),
        ("resources.limits.memory=lots", "'/resources/limits/memory'"),
        ("nodeAgent.tolerations=all", "'/nodeAgent/tolerations': got string, want array"),
        // Credentials in it would be in the release's values and in the pod's specification.
        ("server.proxy.url=http://me:secret@proxy:3128", "'/server/proxy/url'"),
        ("server.proxy.url=socks5://proxy:1080", "'/server/proxy/url'"),
        ("data.namespaces.exclude=bank", "'/data/namespaces/exclude': got string, want array"),
        ("data.namespaces.exclude={Bank}", "'/data/namespaces/exclude/0'"),
        ("data.namespaces.exclude={a\\,b}", "'/data/namespaces/exclude/0'"),
        ("podLogs.budget.podBytesPerSecond=fast", "'/podLogs/budget/podBytesPerSecond': got string"),
        (
            "podLogs.budget.nodeBytesPerSecond=-1",
            "'/podLogs/budget/nodeBytesPerSecond': minimum: got -1, want 0",
        ),
        ("podLogs.lookBack=10", "'/podLogs/lookBack'"),
        ("podLogs.redact={a(}", "missing closing"),
        ("podLogs.redact={a*}", "podLogs.redact: \"a*\" matches the empty text"),
        ("aggregator.stateSizeLimit=much", "'/aggregator/stateSizeLimit'"),
        ("monitoring.serviceMonitor.interval=30", "'/monitoring/serviceMonitor/interval'"),
        ("nodeAgent.runtimeSocket=containerd.sock", "'/nodeAgent/runtimeSocket'"),
        ("nodeAgent.flows.awsPolicyLog=agent.log", "'/nodeAgent/flows/awsPolicyLog'"),
        // The whole folder would be mounted.
        ("nodeAgent.runtimeSocket=/run/cri-dockerd.sock", "'/nodeAgent/runtimeSocket'"),
        ("nodeAgent.runtimeSocket=/var/run/cri-dockerd.sock", "'/nodeAgent/runtimeSocket'"),
        ("nodeAgent.flows.hubbleSocket=/var/run/hubble.sock", "'/nodeAgent/flows/hubbleSocket'"),
        ("nodeAgent.flows.awsPolicyLog=/var/log/agent.log", "'/nodeAgent/flows/awsPolicyLog'"),
        ("nodeAgent.flows.ztunnelNamespace=a/b", "'/nodeAgent/flows/ztunnelNamespace'"),
        ("nodeAgent.fileSystems={data}", "'/nodeAgent/fileSystems/0'"),
        ("nodeAgent.pressure.io=101", "'/nodeAgent/pressure/io'"),
        // A lease has room for its retries only from there on.
        ("aggregator.leaseSeconds=5", "'/aggregator/leaseSeconds': minimum: got 5, want 6"),
        ("webhook.timeoutSeconds=31", "'/webhook/timeoutSeconds': maximum: got 31, want 30"),
        ("webhook.namespaceSelector.labels=x", "additional properties 'labels' not allowed"),
        ("webhook.excludedNamespaces={Bad_NS}", "'/webhook/excludedNamespaces/0'"),
        ("webhook.certManager.issuer=x", "additional properties 'issuer' not allowed"),
        // Without its name there would be an authority of the chart's own, and nobody would be told.
        (
            "webhook.certManager.issuerRef.kind=ClusterIssuer",
            "'/webhook/certManager/issuerRef': properties 'name' required, if 'kind' exists",
        ),
        ("link.certManager.issuerRef.group=x", "properties 'name' required, if 'group' exists"),
        ("link.certManager.issuerRef.name=", "'/link/certManager/issuerRef/name'"),
        ("nodeAgent.maxUnavailable=0%", "'/nodeAgent/maxUnavailable'"),
        (
            "healthcheck.livenessProbe.successThreshold=3",
            "'/healthcheck/livenessProbe/successThreshold': value must be 1",
        ),
        ("k8sApiServer.cidr=abc", "'/k8sApiServer/cidr'"),
        ("k8sApiServer.cidr=192.0.2.1", "'/k8sApiServer/cidr'"),
        ("hubble.cidr=192.0.2.0/33", "'/hubble/cidr'"),
        ("operator.cilium.hubble.relay.address=http://x:4245", "'/operator/cilium/hubble/relay/address'"),
        ("global.imageRegistry=registry/", "'/global/imageRegistry'"),
        ("healthcheck.port=8443", "healthcheck.port must not be 8443 or 10250"),
        ("healthcheck.port=10250", "healthcheck.port must not be 8443 or 10250"),
        ("aggregator.stateSizeLimit=0", "must be at least 16Mi"),
        ("aggregator.stateSizeLimit=1.5", "must be at least 16Mi"),
        ("aggregator.stateSizeLimit=100m", "must be at least 16Mi"),
        ("aggregator.stateSizeLimit=15Mi", "must be at least 16Mi"),
        ("resources.limits.ephemeral-storage=1Mi", "must be at least 16Mi"),
    ] {
        let refusal = helm::render(&["--set", setting]).expect_err(setting);
        assert!(refusal.contains(complaint), "{setting}: {refusal}");
    }
}

#[test]
fn addresses_are_of_either_version() {
    for setting in [
        "server.host=192.0.2.1",
        "server.host=2001:db8::1",
        "k8sApiServer.cidr=192.0.2.1/32",
        "k8sApiServer.cidr=2001:db8::/32",
        "hubble.cidr=::/0",
    ] {
        helm::render(&["--set", setting]).expect(setting);
    }
}

/// A null in a values file takes the default away; where a template looks into it, the refusal names it.
#[test]
fn what_is_needed_can_not_be_taken_away() {
    for path in [
        "server",
        "server.port",
        "server.tls",
        "auth",
        "certificates",
        "certificates.client",
        "certificates.ca",
        "podLogs",
        "image",
        "replicaCount",
        "resources",
        "aggregator",
        "aggregator.stateSizeLimit",
        "link",
        "link.maxConnections",
        "nodeAgent",
        "nodeAgent.resources",
        "nodeAgent.pressure.io",
        "webhook",
        "webhook.resources",
        "webhook.timeoutSeconds",
        "serviceAccount",
        "healthcheck",
        "healthcheck.livenessProbe",
        "healthcheck.readinessProbe",
        "log",
        "monitoring",
        "monitoring.serviceMonitor",
        "monitoring.prometheusRule",
    ] {
        let refusal = helm::render(&["--set", &format!("{path}=null")]).expect_err(path);
        let name = path.rsplit('.').next().unwrap();
        assert!(refusal.contains(&format!("missing property '{name}'")), "{path}: {refusal}");
    }
}

#[test]
fn what_may_be_empty_may_be_null() {
    let nulls = [
        "server.proxy",
        "image.tag",
        "data",
        "data.namespaces",
        "data.namespaces.exclude",
        "podLogs.policy",
        "podLogs.budget",
        "podLogs.budget.podBytesPerSecond",
        "resources.limits",
        "podSecurityContext",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "affinity",
        "serviceAccount.annotations",
        "nodeAgent.tolerations",
        "nodeAgent.seLinuxOptions",
        "nodeAgent.fileSystems",
        "webhook.excludedNamespaces",
        "webhook.namespaceSelector",
        "webhook.certManager",
        "webhook.existingSecret",
        "link.certManager",
        "link.existingSecret",
        "global",
        "global.imageRegistry",
        "networkPolicy",
        "k8sApiServer",
        "podLabels",
        "priorityClassName",
        "imagePullSecrets",
        "kubeVersion",
        "monitoring.serviceMonitor.labels",
        "monitoring.prometheusRule.labels",
    ];
    let all = "monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true";
    for path in nulls {
        helm::render(&["--set", all, "--set", &format!("{path}=null")]).expect(path);
    }
}

#[test]
fn the_thresholds_of_the_chart_are_those_of_the_program() {
    let thresholds = |set: &[&str]| {
        let rendered = helm::render(set).expect("the chart renders");
        let text =
            Objects::parse(&rendered).env("kestrel-aggregator", "KESTREL_THRESHOLDS").map(str::to_owned);
        text.unwrap().parse::<Thresholds>().unwrap()
    };
    assert_eq!(thresholds(&[]), Thresholds::default());
    let shorter = thresholds(&["--set", "signals.thresholds.stable=30s"]);
    assert_eq!(shorter, Thresholds { stable: Duration::from_secs(30), ..Thresholds::default() });
}

#[test]
fn the_root_namespace_of_the_mesh_reaches_the_program() {
    let root = |set: &[&str]| {
        let rendered = helm::render(set).expect("the chart renders");
        let name = "KESTREL_ISTIO_ROOT_NAMESPACE";
        Objects::parse(&rendered).env("kestrel-aggregator", name).map(str::to_owned)
    };
    assert_eq!(root(&[]).as_deref(), Some("istio-system"));
    assert_eq!(root(&["--set", "operator.istio.rootNamespace=mesh"]).as_deref(), Some("mesh"));
    assert_eq!(root(&["--set", "operator.istio=null"]), None, "the program's own");
}

#[test]
fn an_unquoted_off_means_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, "podLogs: {policy: off}").unwrap();
    let rendered = helm::render(&["--values", file.to_str().unwrap()]).expect("the chart renders");
    assert_eq!(Objects::parse(&rendered).env("kestrel-aggregator", "KESTREL_LOGS_POLICY"), Some("off"));
}

#[test]
fn large_numbers_stay_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, "link: {maxConnections: 1000000}").unwrap();
    let rendered = helm::render(&["--values", file.to_str().unwrap()]).expect("the chart renders");
    let maximum = Objects::parse(&rendered);
    assert_eq!(maximum.env("kestrel-aggregator", "KESTREL_LINK_MAX_CONNECTIONS"), Some("1000000"));
}

/// An agent that did not know it would read the files before the aggregator says that it must not.
#[test]
fn what_stays_in_the_cluster_is_known_to_agents_and_aggregator() {
    let excluded = |settings: &[&str]| {
        let objects = Objects::with(settings);
        ["kestrel-node-agent", "kestrel-aggregator"]
            .map(|workload| objects.env(workload, "KESTREL_EXCLUDED_NAMESPACES").map(str::to_owned))
    };
    assert_eq!(excluded(&[]), [None, None]);
    assert_eq!(excluded(&["data=null"]), [None, None]);
    let both = Some("bank,vault".to_owned());
    assert_eq!(excluded(&["data.namespaces.exclude={bank,vault}"]), [both.clone(), both]);
}

#[test]
fn a_budget_reaches_the_agents_and_none_is_no_limit() {
    let budget = |settings: &[&str]| {
        let objects = Objects::with(settings);
        ["POD", "NAMESPACE", "NODE"].map(|of| {
            objects.env("kestrel-node-agent", &format!("KESTREL_BUDGET_{of}_BYTES")).map(str::to_owned)
        })
    };
    let some = |bytes: &str| Some(bytes.to_owned());
    assert_eq!(budget(&[]), [some("4194304"), None, some("16777216")]);
    let settings = ["podLogs.budget.podBytesPerSecond=0", "podLogs.budget.namespaceBytesPerSecond=5000000"];
    assert_eq!(budget(&settings), [None, some("5000000"), some("16777216")]);
}

#[test]
fn a_digest_takes_the_place_of_the_tag_everywhere() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let objects = Objects::with(&[&format!("image.digest={digest}"), "image.tag=1.2.3"]);
    let image = format!("kestrel-operator@{digest}");
    for (workload, pod) in objects.pods() {
        assert_eq!(pod["spec"]["containers"][0]["image"], image, "{workload}");
    }
    assert_eq!(objects.env("kestrel-webhook", "KESTREL_COLLECTOR_IMAGE"), Some(image.as_str()));
}

#[test]
fn the_program_of_chart_0_1_is_never_run_and_neither_is_a_tag_that_names_no_version() {
    let version = env!("CARGO_PKG_VERSION");
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let old = "ghcr.io/kestrelai/kestrel-operator";
    for (repository, tag, digest, registry, image) in [
        (old, "latest", "", "", format!("kestrel-operator:{version}")),
        (old, "v0.1.9", &*digest, "", format!("kestrel-operator:{version}")),
        (old, "latest", "", "mirror.example.com", format!("mirror.example.com/kestrel-operator:{version}")),
        ("mine/operator", "latest", "", "", format!("mine/operator:{version}")),
        ("mine/operator", "latest", &*digest, "", format!("mine/operator@{digest}")),
        ("mine/operator", "1.2", "", "localhost:5000/x", "localhost:5000/x/mine/operator:1.2".to_owned()),
        ("r.example.com/operator", "1.2", "", "m.example.com", "m.example.com/operator:1.2".to_owned()),
        ("localhost/operator", "1.2", "", "m.example.com", "m.example.com/operator:1.2".to_owned()),
        ("r.example.com:5000/operator", "", "", "", format!("r.example.com:5000/operator:{version}")),
        ("", "", "", "", format!("kestrel-operator:{version}")),
        ("", "1.2", "", "", "kestrel-operator:1.2".to_owned()),
        ("", "1.2", &*digest, "m.example.com", format!("m.example.com/kestrel-operator@{digest}")),
    ] {
        let objects = Objects::with(&[
            &format!("image.repository={repository}"),
            &format!("image.tag={tag}"),
            &format!("image.digest={digest}"),
            &format!("global.imageRegistry={registry}"),
        ]);
        for (workload, pod) in objects.pods() {
            assert_eq!(pod["spec"]["containers"][0]["image"], *image, "{workload}");
        }
        assert_eq!(objects.env("kestrel-webhook", "KESTREL_COLLECTOR_IMAGE"), Some(&*image));
    }
}

/// A pushed chart runs the image that was pushed with it, unless another is named.
#[test]
fn a_chart_that_was_made_for_an_image_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    helm::copy(&helm::chart(), folder.path());
    let file = folder.path().join("Chart.yaml");
    let metadata = std::fs::read_to_string(&file).unwrap();
    let made_for = format!("r.example.com/x/kestrel-operator@sha256:{}", "0123456789abcdef".repeat(4));
    let changed =
        metadata.replace("kestrel.ai/image: kestrel-operator", &format!("kestrel.ai/image: {made_for}"));
    assert_ne!(metadata, changed);
    std::fs::write(file, changed).unwrap();
    let old = "image.repository=ghcr.io/kestrelai/kestrel-operator,image.tag=latest";
    let (_, digest) = made_for.split_once('/').unwrap();
    for (setting, image) in [
        ("image.tag=", &*made_for),
        (old, &*made_for),
        ("image.tag=latest", &*made_for),
        ("global.imageRegistry=m.example.com", &format!("m.example.com/{digest}")),
        ("image.tag=1.2", "r.example.com/x/kestrel-operator:1.2"),
        ("image.repository=mine,image.tag=1.2", "mine:1.2"),
    ] {
        let rendered = helm::render_chart(folder.path(), helm::NEWEST, &["--set", setting]).unwrap();
        let objects = Objects::parse(&rendered);
        assert_eq!(objects.container("kestrel-aggregator")["image"], *image, "{setting}");
    }
}

/// A chart that sets a variable which no program reads would fail silently.
#[test]
fn every_variable_is_an_agreed_one() {
    let agreed = std::fs::read_to_string(helm::repository("docs/interfaces.md")).unwrap();
    let objects = Objects::with(&[
        "server.tls.serverName=cloud",
        "server.proxy.url=http://proxy:3128",
        "server.proxy.noProxy=example.com",
        "nodeAgent.runtimeSocket=/run/c/c.sock",
        "nodeAgent.flows.awsPolicyLog=/var/log/a/b.log",
        "nodeAgent.kernelLog=true",
        "nodeAgent.conntrack=true",
        "nodeAgent.networkTables=true",
        "nodeAgent.hostNetwork=true",
        "nodeAgent.packetCapture=true",
        "nodeAgent.firewallRules=true",
        "nodeAgent.bpfObjects=true",
        "nodeAgent.podPressure=true",
        "nodeAgent.fileSystems={/data}",
        "operator.cilium.disableFlows=false",
        "operator.cilium.hubble.relay.address=relay:443",
        "operator.cilium.hubble.tls.existingSecret=relay",
        "operator.cilium.hubble.tls.serverName=relay",
        "podLogs.redact={a}",
        "podLogs.budget.namespaceBytesPerSecond=1",
        "data.namespaces.exclude={bank}",
        "webhook.existingSecret=a",
        "link.existingSecret=b",
    ]);
    for (workload, pod) in objects.pods() {
        for variable in helm::list(&pod["spec"]["containers"][0]["env"]) {
            let name = helm::text(&variable["name"]);
            assert!(agreed.contains(&format!("`{name}`")), "{workload}: {name} is not in docs/interfaces.md");
        }
    }
}

/// The kubelet evicts a pod that is over the volume's limit or its own.
#[test]
fn the_spool_has_at_most_half_of_what_the_pod_may_have() {
    let objects = Objects::with(&[]);
    let spool =
        |objects: &Objects| objects.env("kestrel-aggregator", "KESTREL_SPOOL_BYTES").unwrap().to_owned();
    assert_eq!(spool(&objects), (256 << 20).to_string());
    assert_eq!(objects.env("kestrel-aggregator", "KESTREL_SPOOL_HOURS"), Some("24"));
    let pod = &objects.get("Deployment", "kestrel-aggregator")["spec"]["template"]["spec"];
    let state = helm::list(&pod["volumes"]).iter().find(|volume| volume["name"] == "state").unwrap();
    assert_eq!(state["emptyDir"]["sizeLimit"], "512Mi");
    let mount =
        helm::list(&pod["containers"][0]["volumeMounts"]).iter().find(|mount| mount["name"] == "state");
    assert_eq!(objects.env("kestrel-aggregator", "KESTREL_STATE_DIR"), mount.unwrap()["mountPath"].as_str());
    for (size, ephemeral, bytes) in [
        ("2Gi", None, 1_u64 << 30),
        ("1.5Gi", None, 3 << 28),
        ("100M", None, 50_000_000),
        ("1Ti", None, 1 << 39),
        ("512Mi", Some("100Mi"), 50 << 20),
        ("512Mi", Some("1Gi"), 256 << 20),
    ] {
        let size = format!("aggregator.stateSizeLimit={size}");
        let ephemeral = ephemeral.map(|limit| format!("resources.limits.ephemeral-storage={limit}"));
        let settings: Vec<&str> =
            [Some(&size), ephemeral.as_ref()].into_iter().flatten().map(|s| &**s).collect();
        assert_eq!(spool(&Objects::with(&settings)), bytes.to_string(), "{settings:?}");
    }
}

/// Its tests and figures are with it.
#[test]
fn the_aggregator_gives_back_what_is_large() {
    let tunables = Objects::with(&[]).env("kestrel-aggregator", "GLIBC_TUNABLES").map(str::to_owned);
    assert_eq!(tunables.as_deref(), Some("glibc.malloc.mmap_threshold=1048576"));
}

#[test]
fn the_proxy_is_a_value_or_comes_whole_from_a_secret() {
    let plain = ["server.proxy.url=http://proxy:3128", "server.proxy.noProxy=a.example\\,b.example"];
    let objects = Objects::with(&plain);
    assert_eq!(objects.env("kestrel-aggregator", "HTTPS_PROXY"), Some("http://proxy:3128"));
    assert_eq!(objects.env("kestrel-aggregator", "NO_PROXY"), Some("a.example,b.example"));
    let objects = Objects::with(&["server.proxy.url=http://ignored", "server.proxy.existingSecret=my-proxy"]);
    let variables = helm::list(&objects.container("kestrel-aggregator")["env"]);
    let proxies: Vec<_> = variables.iter().filter(|variable| variable["name"] == "HTTPS_PROXY").collect();
    let [proxy] = proxies[..] else { panic!("one proxy: {proxies:?}") };
    let reference = serde_json::json!({"secretKeyRef": {"name": "my-proxy", "key": "url"}});
    assert_eq!(proxy["valueFrom"], reference);
    let direct = Objects::with(&[]).container("kestrel-aggregator").to_string();
    assert!(!direct.contains("PROXY"), "{direct}");
}
