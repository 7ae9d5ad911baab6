//! The aggregator's process, and what it uses.

use std::{
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use kestrel_dev_cloud::Cloud;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{credentials::credentials, objects::OPERATOR};

/// It is killed when this is dropped.
pub(crate) struct Aggregator {
    process: Child,
    /// Port of the agent link.
    pub(crate) link_port: u16,
    _folder: TempDir,
}

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

impl Aggregator {
    /// Starts the program `KESTREL_AGGREGATOR`, alone, with everything on.
    pub(crate) fn start(kubeconfig: &Path, cloud: &Cloud) -> Self {
        let program = env::var_os("KESTREL_AGGREGATOR").expect("KESTREL_AGGREGATOR names the program");
        let folder = credentials(cloud);
        let [link_port, health_port] = [free_port(), free_port()];
        let process = Command::new(program)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("SERVER_HOST", "127.0.0.1")
            .env("SERVER_PORT", cloud.address().port().to_string())
            .env("SERVER_NAME", "localhost")
            .env("CLIENT_CERT_FILE", folder.path().join("client.crt"))
            .env("CLIENT_KEY_FILE", folder.path().join("client.key"))
            .env("CA_CERT_FILE", folder.path().join("ca.crt"))
            .env("AUTH_TOKEN_FILE", folder.path().join("token"))
            .env("KESTREL_STATE_DIR", folder.path().join("state"))
            .env("KESTREL_LEADER_ELECTION", "false")
            .env("KESTREL_LINK_PORT", link_port.to_string())
            .env("HEALTH_PORT", health_port.to_string())
            .env("POD_NAMESPACE", OPERATOR)
            .env("KESTREL_LOG", "warn")
            .spawn()
            .unwrap();
        Self { process, link_port, _folder: folder }
    }

    /// What it has in memory now.
    pub(crate) fn memory(&self) -> Memory {
        let status = self.file("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
        };
        Memory { resident: field("VmRSS:"), anonymous: field("RssAnon:") }
    }

    /// Processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.file("stat");
        // The second field is the program's name in parentheses.
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.process.id())).unwrap()
    }

    /// Asks it to end; fails if it does not end well.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _over = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
