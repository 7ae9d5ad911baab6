//! What kubectl says of the cluster as a whole: `version`, `api-resources`, `api-versions`, `cluster-info`.

use serde_json::{Value, json};

use super::{
    Output, discovery,
    kubectl::{Format, Kubectl},
    list,
    session::{Session, Trouble},
    table, text, yaml,
};

pub(super) async fn version(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let own = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut told = json!({"clientVersion": {"gitVersion": format!("kestrel-aggregator {own}")}});
    if !command.arguments.has("client") {
        let server = session.schema("/version", "application/json").await?;
        told["serverVersion"] = serde_json::from_str(&server).unwrap_or_default();
    }
    Ok(Output::of(match command.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&told).unwrap_or_default()),
        Format::Yaml => format!("{}\n", yaml::write(&told)),
        _ => {
            let server = text(&told, &["serverVersion", "gitVersion"]);
            let client = format!("Client Version: {own} (kestrel-aggregator)\n");
            if server.is_empty() { client } else { format!("{client}Server Version: {server}\n") }
        }
    }))
}

pub(super) async fn resources(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let (all, asked) = (session.resources().await?, command.clone());
    session.apart(move |_| resources_shown(&asked, &all)).await.map(Output::of)
}

fn resources_shown(command: &Kubectl, all: &[discovery::Resource]) -> String {
    let arguments = &command.arguments;
    let words = |name: &str| -> Vec<String> {
        arguments.values(name).flat_map(|words| words.split(',')).map(str::to_owned).collect()
    };
    let (verbs, categories, group) = (words("verbs"), words("categories"), arguments.value("api-group"));
    // Of a kind in several versions, the first is the preferred one.
    let mut shown: Vec<&discovery::Resource> = Vec::new();
    for resource in all {
        let fits = !resource.verbs.is_empty()
            && group.is_none_or(|group| group == resource.group)
            && arguments.flag("namespaced").is_none_or(|namespaced| namespaced == resource.namespaced)
            && verbs.iter().all(|verb| resource.can(verb))
            && categories.iter().all(|category| resource.categories.contains(category));
        if fits && !shown.iter().any(|known| known.group == resource.group && known.name == resource.name) {
            shown.push(resource);
        }
    }
    let key = |resource: &discovery::Resource| match arguments.value("sort-by") {
        Some("name") => resource.name.clone(),
        Some("kind") => resource.kind.clone(),
        _ => resource.group.clone(),
    };
    shown.sort_by_cached_key(|resource| (key(resource), resource.name.clone()));
    let wide = command.format == (Format::Table { wide: true });
    if command.format == Format::Name {
        return shown.iter().map(|resource| format!("{}\n", resource.qualified())).collect();
    }
    let mut rows = Vec::new();
    if !arguments.has("no-headers") {
        let names = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"];
        rows.push(names[..if wide { 7 } else { 5 }].iter().map(ToString::to_string).collect());
    }
    rows.extend(shown.into_iter().map(|resource| {
        let mut row = vec![
            resource.name.clone(),
            resource.short.join(","),
            resource.group_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        if wide {
            row.extend([resource.verbs.join(","), resource.categories.join(",")]);
        }
        row
    }));
    table::columns(&rows)
}

pub(super) async fn versions(session: &Session<'_>) -> Result<Output, Trouble> {
    let groups = session.schema("/apis", "application/json").await?;
    let versions =
        discovery::group_versions(&groups).into_iter().map(|(group, version)| format!("{group}/{version}"));
    let mut versions: Vec<String> = versions.chain(["v1".to_owned()]).collect();
    versions.sort();
    versions.dedup();
    Ok(Output::of(versions.iter().map(|version| format!("{version}\n")).collect()))
}

pub(super) async fn cluster(session: &Session<'_>) -> Result<Output, Trouble> {
    let endpoints =
        session.object("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await?;
    let address = list(&endpoints, &["endpoints"])
        .iter()
        .flat_map(|endpoint| list(endpoint, &["addresses"]))
        .find_map(Value::as_str)
        .unwrap_or_default();
    let port = list(&endpoints, &["ports"]).first().map_or(443, |port| super::number(port, &["port"]));
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let root = format!("https://{host}:{port}");
    let mut told = format!("Kubernetes control plane is running at {root}\n");
    let selector =
        "/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
    for service in session.list(selector).await?.items {
        let name = text(&service, &["metadata", "name"]);
        let port = list(&service, &["spec", "ports"]).first().map_or("", |port| text(port, &["name"]));
        let label = text(&service["metadata"]["labels"], &["kubernetes.io/name"]);
        let shown = if label.is_empty() { name } else { label };
        let port = if port.is_empty() { String::new() } else { format!(":{port}") };
        told.push_str(&format!(
            "{shown} is running at {root}/api/v1/namespaces/kube-system/services/{name}{port}/proxy\n"
        ));
    }
    told.push_str("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.\n");
    Ok(Output::of(told))
}
