//! What is asked of a node, by way of the link, of a real agent that reads this machine.

use std::{
    fs,
    io::Write as _,
    process::{self, Output, Stdio},
    time::Duration,
};

use kestrel_node_agent::reads::{Places, child::Task};
use kestrel_proto::node::v1::{
    ConnectRead, ContainerFacts, ContainerRead, HostAnswer, HostRead, HostReadEnd, PacketRead, SettingRead,
    SocketRead, SocketStates, Table, TableRead, agent_message, aggregator_message::Message, host_read::What,
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    net::UdpSocket,
    process::{Child, Command},
};

use super::{
    agent,
    aggregator::{Aggregator, Stream},
    runtime,
};

/// What comes of a task that is given to a child process which reads, by `command`.
pub(crate) fn done(command: &mut process::Command, task: &Task) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&task.encode_to_vec()).unwrap();
    child.wait_with_output().unwrap()
}

struct Node {
    stream: Stream,
    _aggregator: Aggregator,
    _agent: Child,
    _directory: TempDir,
}

async fn node(settings: &[(&str, &str)]) -> Node {
    let mut aggregator = Aggregator::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("pods")).unwrap();
    fs::write(path("token"), "secret").unwrap();
    fs::write(path("ca.crt"), &aggregator.authority_pem).unwrap();
    let agent = Command::from(agent())
        .envs([("NODE_NAME", "n1"), ("HEALTH_PORT", "0")])
        .env("KESTREL_LINK_ENDPOINT", aggregator.endpoint.to_string())
        .env("KESTREL_LINK_TOKEN_FILE", path("token"))
        .env("KESTREL_LINK_CA_FILE", path("ca.crt"))
        .env("KESTREL_POD_LOGS_DIR", path("pods"))
        .env("KESTREL_STATE_DIR", directory.path())
        .envs(settings.iter().copied())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stream = aggregator.accept(4 << 20).await;
    assert_eq!(stream.hello.features, ["host-reads"]);
    Node { stream, _aggregator: aggregator, _agent: agent, _directory: directory }
}

impl Node {
    async fn begin(&self, id: u64, what: What, most_bytes: u32) {
        let read = HostRead { id, milliseconds: 20_000, most_bytes, what: Some(what) };
        self.stream.send(Message::HostRead(read)).await;
    }

    async fn answered(&mut self) -> HostAnswer {
        loop {
            if let Some(agent_message::Message::HostAnswer(answer)) = self.stream.next().await {
                return answer;
            }
        }
    }

    async fn ask(&mut self, what: What) -> HostAnswer {
        self.begin(1, what, 1 << 20).await;
        self.answered().await
    }
}

fn table(table: Table, interface: &str) -> What {
    What::Table(TableRead { table: table.into(), interface: interface.to_owned() })
}

fn setting(name: &str) -> What {
    What::Settings(SettingRead { names: vec![name.to_owned()] })
}

const LISTENING: What = What::Sockets(SocketRead {
    tcp: true,
    udp: false,
    unix: false,
    only_ipv4: true,
    only_ipv6: false,
    states: SocketStates::Listening as i32,
});

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_read_as_its_kernel_shows_it() {
    let mut node = node(&[("KESTREL_HOST_NETWORK", "true")]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let HostAnswer { text, problem, .. } = node.ask(LISTENING).await;
    assert!(text.contains(&format!(" {address} ")) && problem.is_empty(), "{problem}\n{text}");

    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let answer = node.ask(setting("kernel.pid_max")).await;
    assert_eq!((answer.text, answer.problem), (format!("kernel.pid_max = {pid_max}"), String::new()));
    assert_eq!(node.ask(setting("net.core.somaxconn")).await.problem, "");

    let answer = node.ask(table(Table::Addresses, "lo")).await;
    assert!(answer.text.contains("127.0.0.1/8"), "{answer:?}");
    for of in [Table::SocketCounts, Table::RoutesIpv4, Table::RoutesIpv6, Table::Neighbours] {
        assert_eq!(node.ask(table(of, "")).await.problem, "", "{of:?}");
    }
    let counters = node.ask(table(Table::ProtocolCounters, "")).await;
    assert!(counters.text.contains("TcpRetransSegs ") && counters.text.contains("TcpExtListenDrops "));
    assert!(node.ask(table(Table::InterfaceCounters, "lo")).await.text.contains("     rx_bytes: "));
    let missing = node.ask(table(Table::InterfaceCounters, "nothing0")).await;
    assert_eq!((missing.text.as_str(), missing.problem.as_str()), ("", "there is no interface nothing0"));

    let connect = |port: u16| What::Connect(ConnectRead { host: "127.0.0.1".to_owned(), port: port.into() });
    let answer = node.ask(connect(address.port())).await;
    assert!(answer.text.starts_with(&format!("connected to {address} in ")), "{answer:?}");
    drop(listener);
    let refused = node.ask(connect(address.port())).await.problem;
    assert!(refused.contains("Connection refused"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_reach_or_too_large_is_said() {
    let mut node = node(&[]).await;
    let answer = node.ask(LISTENING).await;
    assert!(
        answer.text.is_empty() && answer.problem.contains("(Helm: nodeAgent.networkTables)"),
        "{answer:?}"
    );
    let answer = node.ask(setting("net.core.somaxconn")).await;
    assert!(answer.problem.contains("(Helm: nodeAgent.hostNetwork)"), "{answer:?}");
    for (name, why) in [
        ("kernel.hostname", "every pod has its own"),
        ("vm.nothing", "there is no such setting"),
        ("vm./../../etc/passwd", "this is not the name of a setting"),
        ("kernel.random", "this is a folder"),
        // It may be read by root alone, who may be who runs this.
        ("vm.compact_memory", "vm.compact_memory: "),
    ] {
        let answer = node.ask(setting(name)).await;
        assert!(answer.text.is_empty() && answer.problem.contains(why), "{name}: {answer:?}");
    }
    let unknown = node.ask(table(Table::Unspecified, "")).await;
    assert!(unknown.problem.contains("does not know this kind of read"), "{unknown:?}");

    let names = ["kernel.pid_max", "kernel.ostype", "kernel.osrelease"].map(str::to_owned).to_vec();
    node.begin(7, What::Settings(SettingRead { names }), 40).await;
    let cut = node.answered().await;
    assert!(cut.id == 7 && cut.is_cut && cut.problem.is_empty(), "{cut:?}");
    assert!(cut.text.ends_with('\n') && cut.text.len() <= 40, "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_gets_no_answer_and_the_next_one_does() {
    let mut node = node(&[]).await;
    // Nothing answers there, and nobody is let know (RFC 5737).
    let nowhere = What::Connect(ConnectRead { host: "192.0.2.1".to_owned(), port: 9 });
    for id in 1..=4 {
        node.begin(id, nowhere.clone(), 1000).await;
    }
    // It waits for one of them.
    node.begin(5, setting("kernel.ostype"), 1000).await;
    for id in 1..=4 {
        node.stream.send(Message::HostReadEnd(HostReadEnd { id })).await;
    }
    let answer = loop {
        // On a machine without a route the others may have failed before they were ended.
        let answer = node.answered().await;
        if answer.id == 5 {
            break answer;
        }
    };
    assert_eq!(answer.text, "kernel.ostype = Linux\n");
}

#[test]
fn a_process_whose_parent_is_gone_reads_nothing() {
    let read = HostRead { what: Some(setting("kernel.ostype")), ..HostRead::default() };
    let task =
        Task::new(read, &Places { proc: "/proc".into(), ..Places::default() }, Duration::from_secs(20));
    // Its parent is the shell.
    let mut shell = process::Command::new("sh");
    shell.args(["-c", "\"$0\" read; exit $?", env!("CARGO_BIN_EXE_kestrel-node-agent")]);
    let output = done(&mut shell, &task);
    let problem = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.stdout, &*problem), (Vec::new(), "nobody waits for the answer any more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_is_asked_where_the_agent_may_ask_it() {
    let containers = |facts: ContainerFacts| {
        What::Containers(ContainerRead { facts: facts.into(), id: "0a1b2c".to_owned() })
    };
    let mut without = node(&[]).await;
    let problem = without.ask(containers(ContainerFacts::Running)).await.problem;
    assert!(problem.contains("(Helm: nodeAgent.runtimeSocket)"), "{problem}");
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("runtime.sock");
    runtime::serve(&socket);
    let mut node = node(&[("KESTREL_RUNTIME_SOCKET", socket.to_str().unwrap())]).await;
    let HostAnswer { text, problem, .. } = node.ask(containers(ContainerFacts::Running)).await;
    assert!(
        problem.is_empty() && text.contains("shop/web-1") && text.contains("0a1b2c "),
        "{problem} {text}"
    );
    let problem = node.ask(containers(ContainerFacts::Stats)).await.problem;
    assert_eq!(problem, "the runtime says: only lists (Unimplemented)");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_captured_where_the_owner_wants_it() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = receiver.local_addr().unwrap().port();
    let packets = What::Packets(PacketRead {
        packets: 2,
        seconds: 15,
        protocol: 17,
        port: port.into(),
        ..PacketRead::default()
    });
    let mut without = node(&[("KESTREL_HOST_NETWORK", "true")]).await;
    let problem = without.ask(packets.clone()).await.problem;
    assert!(problem.contains("(Helm: nodeAgent.packetCapture"), "{problem}");
    let settings = [("KESTREL_HOST_NETWORK", "true"), ("KESTREL_PACKET_CAPTURE", "true")];
    let mut node = node(&settings).await;
    let sending = async {
        let mut often = tokio::time::interval(Duration::from_millis(20));
        loop {
            often.tick().await;
            receiver.send_to(b"a secret", ("127.0.0.1", port)).await.unwrap();
        }
    };
    let HostAnswer { text, problem, .. } = tokio::select! {
        answer = node.ask(packets) => answer,
        () = sending => panic!("it ends"),
    };
    // Who runs this may have the capability.
    if problem.is_empty() {
        let line = format!("udp 127.0.0.1:{port} > 127.0.0.1:{port} 36 bytes\n");
        assert_eq!(text.matches(&line).count(), 2, "{text}");
        assert!(text.contains(";; 2 packets in ") && !text.contains("secret"), "{text}");
    } else {
        assert!(problem.contains("it needs the capability NET_RAW"), "{problem}");
    }
}
