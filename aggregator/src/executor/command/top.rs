//! `kubectl top`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Output,
    kubectl::Kubectl,
    list, quantity,
    session::{Session, Trouble, named, with_query},
    table, text,
};

/// Millicores and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    cpu: f64,
    memory: f64,
}

impl Use {
    fn of(usage: &Value) -> Self {
        let number = |field: &str| quantity::parse(text(usage, &[field])).unwrap_or_default();
        Self { cpu: number("cpu") * 1000.0, memory: number("memory") }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    /// The API rounds up to whole units.
    fn cells(self) -> [String; 2] {
        [format!("{}m", self.cpu.ceil()), format!("{}Mi", (self.memory / 1_048_576.0).floor())]
    }

    fn by(self, sort: Sort) -> f64 {
        match sort {
            Sort::Name => 0.0,
            Sort::Cpu => self.cpu,
            Sort::Memory => self.memory,
        }
    }
}

#[derive(Clone, Copy)]
enum Sort {
    Name,
    Cpu,
    Memory,
}

fn sorting(command: &Kubectl) -> Result<Sort, Trouble> {
    match command.arguments.value("sort-by") {
        None => Ok(Sort::Name),
        Some("cpu") => Ok(Sort::Cpu),
        Some("memory") => Ok(Sort::Memory),
        Some(_) => Err(Trouble::said("--sort-by accepts only cpu or memory")),
    }
}

fn unavailable(trouble: Trouble) -> Trouble {
    match trouble {
        trouble if trouble.is_not_found() => Trouble::said("Metrics API not available"),
        trouble => trouble,
    }
}

/// Rows whose last cells are in no column of their own, as kubectl ends each with a tab.
fn shown(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().cloned().chain([String::new()]).collect()).collect();
    table::columns(&rows)
}

pub(super) async fn pods(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let sort = sorting(command)?;
    let all = command.arguments.has("all-namespaces");
    let value = |name: &str| command.arguments.value(name).unwrap_or_default();
    let path = match all {
        true => "/apis/metrics.k8s.io/v1beta1/pods".to_owned(),
        false => format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", command.namespace()),
    };
    let mut output = Output::default();
    let pods = match command.words.first() {
        Some(name) => vec![session.object(&named(&path, name)).await.map_err(unavailable)?],
        None => {
            let selectors =
                [("labelSelector", value("selector")), ("fieldSelector", value("field-selector"))];
            let found = session.list(&with_query(&path, &selectors)).await.map_err(unavailable)?;
            found.told("the list of measurements", &mut output)
        }
    };
    if pods.is_empty() {
        let stderr = match all {
            true => "No resources found\n".to_owned(),
            false => format!("No resources found in {} namespace.\n", command.namespace()),
        };
        return Ok(Output { stderr, ..Output::default() });
    }
    let asked = command.clone();
    output.stdout = session.apart(move |_| pods_shown(&asked, pods, all, sort)).await?;
    Ok(output)
}

fn pods_shown(command: &Kubectl, mut pods: Vec<Value>, all: bool, sort: Sort) -> String {
    let used = |pod: &Value| {
        list(pod, &["containers"]).iter().map(|it| Use::of(&it["usage"])).fold(Use::default(), Use::plus)
    };
    let key = |pod: &Value| {
        let namespace = if all { text(pod, &["metadata", "namespace"]) } else { "" };
        (namespace.to_owned(), text(pod, &["metadata", "name"]).to_owned())
    };
    pods.sort_by(|one, other| {
        used(other).by(sort).total_cmp(&used(one).by(sort)).then_with(|| key(one).cmp(&key(other)))
    });
    let containers = command.arguments.has("containers");
    let lead = |namespace: &str, pod: &str| -> Vec<String> {
        [all.then(|| namespace.to_owned()), containers.then(|| pod.to_owned())]
            .into_iter()
            .flatten()
            .collect()
    };
    let mut rows = Vec::new();
    if !command.arguments.has("no-headers") {
        rows.push(
            [lead("NAMESPACE", "POD"), ["NAME", "CPU(cores)", "MEMORY(bytes)"].map(str::to_owned).to_vec()]
                .concat(),
        );
    }
    let mut total = Use::default();
    for pod in &pods {
        let (namespace, name) = (text(pod, &["metadata", "namespace"]), text(pod, &["metadata", "name"]));
        total = total.plus(used(pod));
        let mut lines: Vec<(String, Use)> = match containers {
            false => vec![(name.to_owned(), used(pod))],
            true => list(pod, &["containers"])
                .iter()
                .map(|container| (text(container, &["name"]).to_owned(), Use::of(&container["usage"])))
                .collect(),
        };
        lines.sort_by(|one, other| {
            other.1.by(sort).total_cmp(&one.1.by(sort)).then_with(|| one.0.cmp(&other.0))
        });
        rows.extend(
            lines
                .into_iter()
                .map(|(line, used)| [lead(namespace, name), vec![line], used.cells().to_vec()].concat()),
        );
    }
    if command.arguments.has("sum") {
        let width = lead("", "").len() + 1;
        let blank = |count: usize| vec![String::new(); count];
        rows.push([blank(width), vec!["________".to_owned(); 2]].concat());
        rows.push([blank(width), total.cells().to_vec()].concat());
    }
    shown(&rows)
}

pub(super) async fn nodes(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let sort = sorting(command)?;
    let selector = [("labelSelector", command.arguments.value("selector").unwrap_or_default())];
    let (metrics, nodes) = ("/apis/metrics.k8s.io/v1beta1/nodes", "/api/v1/nodes");
    let mut output = Output::default();
    let (metrics, nodes) = match command.words.first() {
        Some(name) => (
            vec![session.object(&named(metrics, name)).await.map_err(unavailable)?],
            vec![session.object(&named(nodes, name)).await?],
        ),
        None => (
            session
                .list(&with_query(metrics, &selector))
                .await
                .map_err(unavailable)?
                .told("the list of measurements", &mut output),
            session.list(&with_query(nodes, &selector)).await?.told("nodes", &mut output),
        ),
    };
    let asked = command.clone();
    output.stdout = session.apart(move |_| nodes_shown(&asked, metrics, &nodes, sort)).await?;
    Ok(output)
}

fn nodes_shown(command: &Kubectl, mut metrics: Vec<Value>, nodes: &[Value], sort: Sort) -> String {
    fn name(object: &Value) -> &str {
        text(object, &["metadata", "name"])
    }
    metrics.sort_by(|one, other| {
        let of = |node: &Value| Use::of(&node["usage"]).by(sort);
        of(other).total_cmp(&of(one)).then_with(|| name(one).cmp(name(other)))
    });
    let room = if command.arguments.has("show-capacity") { "capacity" } else { "allocatable" };
    let mut rows: Vec<Vec<String>> = Vec::new();
    if !command.arguments.has("no-headers") {
        rows.push(["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"].map(str::to_owned).to_vec());
    }
    let mut known: BTreeMap<&str, &Value> = nodes.iter().map(|node| (name(node), node)).collect();
    for node in &metrics {
        let used = Use::of(&node["usage"]);
        let has = known.get(name(node)).map(|known| Use::of(&known["status"][room]));
        let percent = |used: f64, has: f64| match has > 0.0 {
            true => format!("{}%", (used / has * 100.0).floor()),
            false => "<unknown>".to_owned(),
        };
        let [cpu, memory] = used.cells();
        let has = has.unwrap_or_default();
        rows.push(vec![
            name(node).to_owned(),
            cpu,
            percent(used.cpu, has.cpu),
            memory,
            percent(used.memory, has.memory),
        ]);
    }
    for node in &metrics {
        known.remove(name(node));
    }
    // Those that nobody measures, in the order of their names.
    rows.extend(
        known.keys().map(|name| [vec![(*name).to_owned()], vec!["<unknown>".to_owned(); 4]].concat()),
    );
    shown(&rows)
}
