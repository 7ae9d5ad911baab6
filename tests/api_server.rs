//! An API server without a cluster, of one test alone.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kube::{
    Client,
    config::{Config, Kubeconfig},
};

/// It ends when this is dropped.
pub(crate) struct ApiServer {
    process: Child,
    /// Its administrator's.
    pub(crate) kubeconfig: PathBuf,
}

impl ApiServer {
    /// Returns when it is ready.
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/api-server");
        let mut process = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "hack/api-server says why it does not start");
        Self { process, kubeconfig: line.trim_end().into() }
    }

    /// Its administrator.
    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The end of its input is its own.
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}
