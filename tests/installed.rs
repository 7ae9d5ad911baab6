//! The chart, installed before an API server without a cluster, and its kubectl.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::api_server::ApiServer;

/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "kestrel-ai";

/// Installs the chart; `settings` are `--set` arguments. Nothing runs of it, as there are no nodes.
pub(crate) fn install(server: &ApiServer, settings: &[&str]) {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/kestrel-operator");
    let mut helm = Command::new("helm");
    helm.args(["install", "kestrel-operator", "--create-namespace", "--namespace", NAMESPACE]).arg(chart);
    helm.arg("--kubeconfig").arg(&server.kubeconfig);
    helm.args(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = helm.output().unwrap_or_else(|error| panic!("helm has to be on the PATH: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `kubectl` makes of these words, as the administrator.
pub(crate) fn kubectl(server: &ApiServer, arguments: &[&str]) -> Output {
    let program = server.kubeconfig.with_file_name("bin").join("kubectl");
    Command::new(program).arg("--kubeconfig").arg(&server.kubeconfig).args(arguments).output().unwrap()
}
