//! Runs Helm on the chart and reads what it prints.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The release that every test renders, unless it says otherwise.
pub(crate) const RELEASE: &str = "kestrel-operator";
/// The namespace that every test renders for.
pub(crate) const NAMESPACE: &str = "kestrel-ai";
/// The newest Kubernetes that the chart is tested with.
pub(crate) const NEWEST: &str = "1.35.4";

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    repository("charts/kestrel-operator")
}

fn program() -> PathBuf {
    if let Some(path) = env::var_os("KESTREL_HELM") {
        return path.into();
    }
    let on_path = env::var_os("PATH")
        .into_iter()
        .flat_map(|path| env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join("helm"));
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    on_path
        .chain(cache.map(|cache| cache.join("kestrel/bin/helm")))
        .find(|file| file.is_file())
        .expect("no helm found: set KESTREL_HELM, put helm on the PATH, or run hack/cluster up")
}

/// Runs Helm; its standard output, or what it printed to standard error when it refused.
pub(crate) fn helm(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program()).args(arguments).output().expect("helm starts");
    let text = |bytes| String::from_utf8(bytes).expect("helm prints UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Renders the chart in `folder` for one Kubernetes version.
pub(crate) fn render_chart(folder: &Path, kubernetes: &str, arguments: &[&str]) -> Result<String, String> {
    let folder = folder.to_str().expect("a path in UTF-8");
    let mut all = vec!["template", RELEASE, folder, "--namespace", NAMESPACE, "--kube-version", kubernetes];
    all.extend(arguments);
    helm(&all)
}

/// Renders the chart for the newest Kubernetes.
pub(crate) fn render(arguments: &[&str]) -> Result<String, String> {
    render_chart(&chart(), NEWEST, arguments)
}

/// What the chart renders to.
#[derive(Debug)]
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    /// Renders for the newest Kubernetes; `settings` are `--set` arguments.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::on(NEWEST, settings)
    }

    /// Renders for one Kubernetes version.
    pub(crate) fn on(kubernetes: &str, settings: &[&str]) -> Self {
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        Self::parse(&render_chart(&chart(), kubernetes, &arguments).expect("the chart renders"))
    }

    /// Reads rendered text.
    pub(crate) fn parse(text: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("the chart renders YAML");
        Self(documents.into_iter().filter(|document| !document.is_null()).collect())
    }

    /// All objects of a kind.
    pub(crate) fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The one object of that kind and name.
    pub(crate) fn get(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("{kind} {name} is not rendered"))
    }

    /// The object of that kind and name, if it is rendered.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// Name and pod template of every workload.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&str, &Value)> {
        ["Deployment", "DaemonSet"]
            .into_iter()
            .flat_map(|kind| self.of_kind(kind))
            .map(|workload| (text(&workload["metadata"]["name"]), &workload["spec"]["template"]))
    }

    /// The only container of a workload.
    pub(crate) fn container(&self, workload: &str) -> &Value {
        &self.pods().find(|(name, _)| *name == workload).expect("a workload").1["spec"]["containers"][0]
    }

    /// The value of a workload's environment variable, if it has one.
    pub(crate) fn env(&self, workload: &str, variable: &str) -> Option<&str> {
        let variables = list(&self.container(workload)["env"]);
        variables.iter().find(|entry| entry["name"] == variable).map(|entry| text(&entry["value"]))
    }
}

/// A list; nothing counts as an empty one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
