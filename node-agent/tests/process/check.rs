//! `check`: folders, sockets and rights that are missing for real, and what it says of each.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::{agent, aggregator::Aggregator, runtime};

/// A node that is all files, on which everything is as it should be.
struct Node {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/meminfo", "MemAvailable: 2097152 kB\n"),
            ("proc/loadavg", "0.20 0.18 0.12 2/811 12345\n"),
            ("proc/sys/kernel/threads-max", "1000\n"),
            ("proc/sys/kernel/pid_max", "4194304\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "100\n"),
            ("proc/pressure/cpu", STALLS),
            ("proc/pressure/memory", STALLS),
            ("proc/pressure/io", STALLS),
            ("host/proc/1/net/stat/nf_conntrack", "entries insert_failed drop\n0000005a 00000000 00000000\n"),
            ("host/proc/1/net/tcp", ""),
            ("host/sys/fs/cgroup/cgroup.controllers", "memory\n"),
            ("host/data/keep", ""),
            ("pods/istio-system_ztunnel-x_2-2/istio-proxy/0.log", ""),
            ("pods/shop_web_1-1/app/0.log", "2026-11-21T13:50:00Z stdout F a line\n"),
            ("aws/network-policy-agent.log", "{}\n"),
            ("state/keep", ""),
            ("token", "secret"),
        ] {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let path = |name: &str| directory.path().join(name).display().to_string();
        let environment = vec![
            ("NODE_NAME", "n1".to_owned()),
            ("POD_NAMESPACE", "watchers".to_owned()),
            ("KESTREL_POD_LOGS_DIR", path("pods")),
            ("KESTREL_STATE_DIR", path("state")),
            ("KESTREL_PROC_DIR", path("proc")),
            ("KESTREL_HOST_DIR", path("host")),
            ("KESTREL_LINK_TOKEN_FILE", path("token")),
            ("KESTREL_LINK_CA_FILE", path("ca.crt")),
            ("KESTREL_LINK_ENDPOINT", "https://127.0.0.1:1".to_owned()),
        ];
        Self { directory, environment }
    }

    /// Everything that can be watched is.
    fn watching(mut self) -> Self {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        self.environment.extend([
            ("KESTREL_CONNTRACK", "true".to_owned()),
            ("KESTREL_POD_PRESSURE", "true".to_owned()),
            ("KESTREL_NETWORK_TABLES", "true".to_owned()),
            ("KESTREL_PACKET_CAPTURE", "true".to_owned()),
            ("KESTREL_FILE_SYSTEMS", "/data".to_owned()),
            ("KESTREL_PROBE_SECONDS", "5".to_owned()),
            ("KESTREL_RUNTIME_SOCKET", path("run/runtime.sock")),
            ("KESTREL_HUBBLE_SOCKET", path("cilium/hubble.sock")),
            ("KESTREL_AWS_POLICY_LOG", path("aws/network-policy-agent.log")),
            ("KESTREL_ZTUNNEL_NAMESPACE", "istio-system".to_owned()),
        ]);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, mut program: Command) -> Command {
        program.arg("check").envs(self.environment.iter().map(|(name, value)| (name, value)));
        program
    }

    /// Its code and its lines.
    fn check(&self) -> (Option<i32>, Vec<String>) {
        ran(self.command(agent()))
    }
}

const STALLS: &str =
    "some avg10=0.00 avg60=1.50 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=1\n";

fn ran(mut command: Command) -> (Option<i32>, Vec<String>) {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said.lines().map(str::to_owned).collect())
}

/// The line about a subject.
fn line<'a>(lines: &'a [String], subject: &str) -> &'a str {
    let about = |line: &&String| line.get(8..).is_some_and(|rest| rest.starts_with(&format!("{subject}: ")));
    lines.iter().find(about).unwrap_or_else(|| panic!("{subject} in {lines:#?}"))
}

fn has(lines: &[String], word: &str, subject: &str, parts: &[&str]) {
    let line = line(lines, subject);
    assert!(line.starts_with(word) && parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_missing_nothing_fails() {
    let aggregator = Aggregator::start().await;
    let mut node = Node::new();
    fs::write(node.path("ca.crt"), &aggregator.authority_pem).unwrap();
    node.environment.retain(|(name, _)| *name != "KESTREL_LINK_ENDPOINT");
    node.environment.push(("KESTREL_LINK_ENDPOINT", aggregator.endpoint.to_string()));
    let (code, lines) = tokio::task::spawn_blocking(move || node.check()).await.unwrap();
    if geteuid().is_root() {
        assert_eq!(code, Some(0), "{lines:#?}");
    }
    has(&lines, "ok", "agent link", &["is served by a leading aggregator", "has not seen the token"]);
    has(&lines, "ok", "logs", &["2 logs of "]);
    has(&lines, "ok", "positions", &["can be written"]);
    let label = "kubectl label namespace watchers pod-security.kubernetes.io/enforce=privileged";
    has(&lines, "note", "Pod Security", &[label]);
    // What is off says which value has it on.
    for (subject, value) in [
        ("kernel log", "nodeAgent.kernelLog"),
        ("container runtime", "nodeAgent.runtimeSocket"),
        ("table of connections", "nodeAgent.conntrack"),
        ("pressure of pods", "nodeAgent.podPressure"),
        ("tables of the network", "nodeAgent.networkTables"),
        ("capture of packets", "nodeAgent.packetCapture"),
        ("rules of the firewall", "nodeAgent.firewallRules"),
        ("BPF objects", "nodeAgent.bpfObjects"),
        ("flows of Hubble", "operator.cilium.disableFlows"),
        ("flows of AWS", "nodeAgent.flows.awsPolicyLog"),
        ("flows of ztunnel", "nodeAgent.flows.ztunnelNamespace"),
    ] {
        has(&lines, "note", subject, &[value]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_and_there_is_well() {
    let node = Node::new().watching();
    fs::create_dir(node.path("run")).unwrap();
    runtime::serve(&node.path("run/runtime.sock"));
    let (_, lines) = tokio::task::spawn_blocking(move || node.check()).await.unwrap();
    for (subject, part) in [
        ("container runtime", "containerd 2.1.0 answers at "),
        ("memory and tasks", "both can be seen"),
        ("pressure of the node", "can be seen"),
        ("file systems", "/data"),
        ("table of connections", "90 of 100 entries"),
        ("pressure of pods", "can be seen"),
        ("kubelet", "every 5 s"),
        ("tables of the network", "Kestrel Cloud may ask for them"),
        ("flows of AWS", "can be read"),
        ("flows of ztunnel", "the logs of 1 pod of namespace istio-system are read"),
    ] {
        has(&lines, "ok", subject, &[part]);
    }
}

#[test]
fn each_thing_that_is_missing_is_named_with_what_gives_it() {
    let node = Node::new().watching();
    for folder in ["pods", "state", "host", "aws", "proc"] {
        fs::remove_dir_all(node.path(folder)).unwrap();
    }
    let (code, lines) = node.check();
    assert_eq!(code, Some(1), "{lines:#?}");
    let mount = "the pod has no mount of";
    for (subject, parts) in [
        ("logs", &["pods is not there", "the volume pod-logs", "podLogsDir"][..]),
        ("positions", &["state is not there", "the volume state", "lines are sent again"]),
        ("agent link", &["KESTREL_LINK_CA_FILE", "not there yet"]),
        ("memory and tasks", &["meminfo", "loadavg", "KESTREL_PROC_DIR"]),
        ("file systems", &["nothing can be seen"]),
        ("table of connections", &[mount, "nodeAgent.conntrack: true"]),
        ("pressure of pods", &["sys/fs/cgroup is not there", "nodeAgent.podPressure: true"]),
        ("container runtime", &[mount, "nodeAgent.runtimeSocket"]),
        ("tables of the network", &["proc/1/net/tcp: No such file", "the volume"]),
        ("capture of packets", &["with nodeAgent.hostNetwork"]),
        ("flows of Hubble", &[mount, "operator.cilium.disableFlows: false"]),
        ("flows of AWS", &[mount, "nodeAgent.flows.awsPolicyLog"]),
    ] {
        has(&lines, "FAILED", subject, parts);
    }
    has(&lines, "caution", "pressure of the node", &["psi=1"]);
}

#[test]
fn what_is_there_and_does_not_work_is_told_apart() {
    let node = Node::new().watching();
    fs::remove_dir_all(node.path("state")).unwrap();
    fs::write(node.path("state"), "a file").unwrap();
    fs::remove_dir_all(node.path("host/data")).unwrap();
    fs::remove_file(node.path("host/proc/1/net/stat/nf_conntrack")).unwrap();
    fs::remove_file(node.path("host/sys/fs/cgroup/cgroup.controllers")).unwrap();
    fs::remove_file(node.path("aws/network-policy-agent.log")).unwrap();
    fs::create_dir_all(node.path("pods/x_y_3-3/app")).unwrap();
    fs::create_dir(node.path("run")).unwrap();
    fs::create_dir(node.path("cilium")).unwrap();
    // What a program that is gone leaves behind.
    drop(UnixListener::bind(node.path("cilium/hubble.sock")).unwrap());
    fs::write(node.path("ca.crt"), "no certificate").unwrap();
    let (code, lines) = node.check();
    assert_eq!(code, Some(1), "{lines:#?}");
    for (word, subject, parts) in [
        ("FAILED", "positions", &["state is no folder", "KESTREL_STATE_DIR"][..]),
        ("FAILED", "agent link", &["certificate", "KESTREL_LINK_CA_FILE"]),
        ("FAILED", "file systems", &["of /data nothing", "nodeAgent.fileSystems"]),
        ("caution", "table of connections", &["tracks no connections", "nodeAgent.conntrack: false"]),
        ("caution", "pressure of pods", &["version 1"]),
        (
            "FAILED",
            "container runtime",
            &["KESTREL_RUNTIME_SOCKET): No such file", "another socket", "/run/crio/crio.sock"],
        ),
        ("FAILED", "flows of Hubble", &["Connection refused", "Cilium's agent"]),
        ("ok", "flows of AWS", &["one that comes is read"]),
    ] {
        has(&lines, word, subject, parts);
    }
    fs::remove_file(node.path("cilium/hubble.sock")).unwrap();
    // Another program, which says nothing and goes.
    let other = UnixListener::bind(node.path("cilium/hubble.sock")).unwrap();
    let answered = std::thread::spawn(move || drop(other.accept().unwrap()));
    has(&node.check().1, "FAILED", "flows of Hubble", &["does not answer as Hubble"]);
    answered.join().unwrap();
    fs::remove_file(node.path("cilium/hubble.sock")).unwrap();
    has(&node.check().1, "ok", "flows of Hubble", &["one that comes is read"]);
}

#[test]
fn who_may_not_read_is_told_who_may() {
    let node = Node::new();
    let mut program = agent();
    if geteuid().is_root() {
        // A program that anybody may run, and files that belong to root alone.
        let copy = node.path("agent");
        let built = Path::new(env!("CARGO_BIN_EXE_kestrel-node-agent"));
        if fs::hard_link(built, &copy).is_err() {
            fs::copy(built, &copy).unwrap();
        }
        program = Command::new(copy);
        program.env_clear().uid(65532).gid(65532);
        fs::set_permissions(node.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(node.path("pods/shop_web_1-1/app/0.log"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(node.path("state"), fs::Permissions::from_mode(0o500)).unwrap();
    let (code, lines) = ran(node.command(program));
    assert_eq!(code, Some(1), "{lines:#?}");
    has(&lines, "FAILED", "process", &["it runs as user ", "runAsUser: 0"]);
    has(&lines, "FAILED", "logs", &["0.log: Permission denied", "user 0"]);
    has(&lines, "FAILED", "positions", &["Permission denied", "user 0"]);
}

#[test]
fn what_a_read_could_do_on_this_node_is_tried() {
    let mut node = Node::new();
    let api_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = api_server.local_addr().unwrap().port();
    node.environment.push(("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()));
    node.environment.push(("KUBERNETES_SERVICE_PORT", port.to_string()));
    let (_, lines) = node.check();
    let about: Vec<_> = lines.iter().filter(|line| line[8..].starts_with("sandbox: ")).collect();
    let path = |name: &str| node.path(name).display().to_string();
    for part in [
        &format!("can't read {}, which one outside can (Operation not permitted", path("token")),
        "can't read /proc/",
        &format!("can't list {}, ", path("pods")),
        &format!("can't write into {}, ", path("state")),
        "can't start a program, ",
        "can't make a thread, ",
        &format!("can't connect to 127.0.0.1:{port}, "),
        "can't join group ",
        "one that never ends was killed after 5 s, with what it had started",
    ] {
        let line =
            about.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} in {about:#?}"));
        assert!(line.starts_with("ok "), "{line}");
    }
    let tokens = about.iter().filter(|line| line.contains("/serviceaccount/token")).count();
    assert_eq!((tokens, about.len()), (1, 13), "{about:#?}");
    assert!(about.iter().all(|line| !line.starts_with("FAILED")), "{about:#?}");
    // Nothing stays of what was written to try it.
    assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 1);
}

#[test]
fn settings_that_are_no_use_are_all_that_is_said() {
    let output = agent().args(["check"]).env("KESTREL_LINK_ENDPOINT", "http://plain").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().map(str::to_owned).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("FAILED  settings: ")), "{said}");
    assert!(said.contains("NODE_NAME is not set"), "{said}");
}
