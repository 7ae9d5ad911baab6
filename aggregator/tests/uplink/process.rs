//! The program as it is started: exit codes, and what it does without a cluster.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use kestrel_dev_cloud::{Authority, Cloud};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::rig::{LIMIT, cloud, eventually, line_arrives, write_credentials};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kestrel-aggregator");

fn program() -> Command {
    let mut program = Command::new(PROGRAM);
    // As the chart does.
    program.env_clear().env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576").stderr(Stdio::piped());
    program
}

/// Pieces of the token, without its head, and of the client's key.
fn pieces(folder: &Path) -> Vec<String> {
    let token = fs::read_to_string(folder.join("token")).unwrap();
    let key = fs::read_to_string(folder.join("client.key")).unwrap();
    let parts = token.split('.').skip(1).chain(key.lines().filter(|line| !line.starts_with('-')));
    let pieces = parts.flat_map(|part| part.as_bytes().chunks_exact(16));
    pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
}

/// Ends the program when a test fails.
pub(crate) struct Running(pub(crate) Option<Child>);

impl Running {
    /// Waits for its end.
    fn ended(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub(crate) fn terminate(mut self) -> Output {
        let child = self.0.take().unwrap();
        let ended = Command::new("kill").arg(child.id().to_string()).status();
        assert!(ended.unwrap().success());
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _it_may_have_ended = child.kill();
        }
    }
}

#[test]
fn every_mistake_is_said_at_once_and_the_exit_code_tells() {
    let output = program().env("SERVER_PORT", "https").env("KESTREL_LEASE_SECONDS", "0").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["SERVER_PORT=\"https\"", "KESTREL_LEASE_SECONDS=0", "AUTH_TOKEN_FILE"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// The program with the credentials in `folder`, on its way to `cloud`.
pub(crate) fn installed(folder: &Path, cloud: &Cloud, api_server: SocketAddr) -> Command {
    let kubeconfig = folder.join("kubeconfig");
    let cluster = format!("{{name: c, cluster: {{server: 'http://{api_server}'}}}}");
    let context = "{name: c, context: {cluster: c, user: u}}";
    let text =
        format!("{{clusters: [{cluster}], contexts: [{context}], current-context: c, users: [{{name: u}}]}}");
    fs::write(&kubeconfig, text).unwrap();
    let mut program = program();
    program
        .env("KUBECONFIG", kubeconfig)
        // The way to neither the API server nor this machine's cloud.
        .env("HTTPS_PROXY", "http://proxy.invalid:3128")
        .env("SERVER_HOST", "localhost")
        .env("SERVER_PORT", cloud.address().port().to_string())
        .env("CLIENT_CERT_FILE", folder.join("client.crt"))
        .env("CLIENT_KEY_FILE", folder.join("client.key"))
        .env("CA_CERT_FILE", folder.join("ca.crt"))
        .env("AUTH_TOKEN", fs::read_to_string(folder.join("token")).unwrap());
    program
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Runs it to its end: code, standard output, standard error.
async fn ran(mut program: Command) -> (Option<i32>, String, String) {
    let output = tokio::task::spawn_blocking(move || program.stdout(Stdio::piped()).output().unwrap());
    let Output { status, stdout, stderr } = output.await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn without_an_api_server_it_is_connected_alive_not_ready_and_ends_well() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let port = nobody().await.port();
    let log = folder.path().join("log");
    let child = installed(folder.path(), &cloud, nobody().await)
        .env("KESTREL_LOG", "trace")
        .stderr(fs::File::create(&log).unwrap())
        .env("HEALTH_PORT", port.to_string())
        .env("KESTREL_LINK_PORT", "0")
        .env("POD_NAME", "the-pod")
        .spawn();
    let running = Running(Some(child.unwrap()));
    let connected = cloud.wait_for(LIMIT, |record| (record.connections.counts().streams == 5).then_some(()));
    assert!(connected.await.is_some());
    // A core dump would hold the token.
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.0.as_ref().unwrap().id())).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert!(core.split_whitespace().take(2).all(|limit| limit == "0"), "{limits}");
    assert!(get(port, "/livez").await.starts_with("HTTP/1.0 200"));
    let readiness = get(port, "/readyz").await;
    assert!(
        readiness.contains("503") && readiness.contains("first list of the cluster's pods"),
        "{readiness}"
    );
    // The cloud knows of a stream before the operator does.
    let scraped = async {
        loop {
            let metrics = get(port, "/metrics").await;
            if metrics.contains("kestrel_uplink_stream_up{stream=\"logs\"} 1") {
                break metrics;
            }
        }
    };
    let metrics = tokio::time::timeout(LIMIT, scraped).await.unwrap();
    for line in [
        "kestrel_uplink_connected 1",
        "kestrel_uplink_leader 1",
        "kestrel_uplink_messages_dropped_total{lane=\"Signals\",reason=\"LaneFull\"} 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in {metrics}");
    }
    for gauge in ["token_expiry_timestamp_seconds", "certificate_expiry_timestamp_seconds"] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(&format!("kestrel_uplink_{gauge} ")));
        assert!(value.is_some_and(|value| value.len() == 10), "{gauge} in {metrics}");
    }
    let status = || {
        let mut status = program();
        status.arg("status").env("HEALTH_PORT", port.to_string());
        status
    };
    let (code, lines, _) = ran(status()).await;
    assert_eq!(code, Some(0));
    assert!(
        lines.contains("the-pod: leads since ") && lines.contains("server      connected to "),
        "{lines}"
    );
    assert!(lines.contains("0 of 13 watches are complete; missing: authorizationpolicies, "), "{lines}");
    // The cloud hears what the log says.
    line_arrives(&cloud, "can't be watched: Connection refused").await;

    // Without the cloud: as alive as before, and no less ready.
    let server = cloud.address();
    cloud.stop().await.unwrap();
    let text = std::sync::Mutex::new(String::new());
    let look = || {
        let lines = status().output().unwrap().stdout;
        *text.lock().unwrap() = String::from_utf8(lines).unwrap();
        let text = text.lock().unwrap();
        let lost = text.contains("NOT connected to localhost:") && !text.contains("problem     none");
        lost.then_some(())
    };
    eventually("a status without a connection", look, || text.lock().unwrap().clone()).await;
    assert!(text.lock().unwrap().contains(&server.port().to_string()));
    assert!(get(port, "/livez").await.starts_with("HTTP/1.0 200"));
    let (_, why) = readiness.split_once("\r\n\r\n").unwrap();
    assert!(get(port, "/readyz").await.ends_with(why), "no less ready than before");

    let output = tokio::task::spawn_blocking(|| running.terminate()).await.unwrap();
    let said = fs::read_to_string(log).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("can't be watched: Connection refused"), "{said}");
    assert!(said.contains(" TRACE "), "{said}");
    for secret in pieces(folder.path()) {
        for text in [&said, &lines, &metrics] {
            assert!(!text.contains(&secret), "a piece of the token or the key is in: {text}");
        }
    }
    let (code, _, said) = ran(status()).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no aggregator answers") && said.contains("HEALTH_PORT"), "{said}");
}

#[tokio::test]
async fn check_is_content_with_a_good_installation_and_names_what_is_wrong_with_a_bad_one() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let token = fs::read_to_string(folder.path().join("token")).unwrap();
    let (good, server) = api_server("31", "no such resource").await;
    let mut program = installed(folder.path(), &cloud, good);
    program.arg("check");
    let (code, lines, said) = ran(program).await;
    assert_eq!(code, Some(0), "{lines}{said}");
    assert!(lines.lines().count() > 15 && lines.lines().all(|line| line.starts_with("ok ")), "{lines}");
    for part in [
        "of tenant acme",
        "good until",
        "takes the certificate",
        "v1.31.0",
        "get, list, watch of namespaces, nodes, pods, services",
        "no right is held beyond need by the aggregator's own account",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    assert_eq!(cloud.wait_for(LIMIT, |record| Some(record.connections.counts().streams)).await, Some(0));
    server.abort();

    let other = Authority::generate().unwrap();
    other.write_client(folder.path(), &other.client("cluster").unwrap()).unwrap();
    let (bad, server) = api_server("23", r#""resource":"nodes""#).await;
    let mut program = installed(folder.path(), &cloud, bad);
    program.arg("check");
    let (code, lines, _) = ran(program).await;
    assert_eq!(code, Some(1), "{lines}");
    let failed: Vec<_> = lines.lines().filter(|line| line.starts_with("FAILED")).collect();
    for (line, part) in failed.iter().zip(["CA_CERT_FILE", "1.24 or newer is needed"]) {
        assert!(line.contains(part), "{part} in {lines}");
    }
    assert_eq!(failed.len(), 2, "{lines}");
    assert!(!lines.contains(&token), "{lines}");
    server.abort();

    let (newer, _server) = api_server("29", r#""resource":"nodes""#).await;
    let mut program = installed(folder.path(), &cloud, newer);
    program.arg("check");
    let (_, lines, _) = ran(program).await;
    assert!(
        lines.contains("FAILED  right: get of nodes, list of nodes, watch of nodes is missing"),
        "{lines}"
    );
    assert!(
        lines.contains(
            "caution rights: rights are held beyond need: the aggregator's own account holds delete of pods;"
        ),
        "{lines}"
    );

    // Without the server's authority there is nothing that could be said of it.
    let mut program = installed(folder.path(), &cloud, newer);
    program.arg("check").env("TLS_INSECURE_SKIP_VERIFY", "true").env("CA_CERT_FILE", "/nowhere");
    cloud.authority().write_client(folder.path(), &cloud.authority().client("cluster").unwrap()).unwrap();
    let (_, lines, _) = ran(program).await;
    assert!(lines.contains("no authority was read") && lines.contains("nothing was verified"), "{lines}");
    assert!(
        lines.contains(
            "\ncaution credentials: the token of the Secret kestrel-operator-jwt-runtime is not a JWT"
        ),
        "{lines}"
    );
}

#[test]
fn other_words_get_the_usage() {
    let output = program().arg("statsu").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("usage: "));
}

/// An API server that knows its version, and grants every right but those
/// whose review contains `refused`.
async fn api_server(minor: &'static str, refused: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, minor, refused));
        }
    });
    (address, server)
}

/// One request.
async fn serve(stream: TcpStream, minor: &str, refused: &str) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head).await.unwrap() > 2 {
        let last = head.lines().last().unwrap().to_lowercase();
        length = last.strip_prefix("content-length: ").map_or(length, |bytes| bytes.parse().unwrap());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer = if head.starts_with("GET /version") {
        let rest = ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]
            .map(|name| format!(r#","{name}":"""#))
            .concat();
        format!(r#"{{"major":"1","minor":"{minor}","gitVersion":"v1.{minor}.0"{rest}}}"#)
    } else if head.starts_with("GET ") {
        // The runtime Secret; that of the newer one holds what is no token.
        let data = if minor == "29" { r#"{"token":"bm9uc2Vuc2U="}"# } else { "{}" };
        format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{}},"data":{data}}}"#)
    } else if head.contains("/selfsubjectrulesreviews") {
        let kind = r#""apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview""#;
        // The newer one lets the account do more than it needs.
        let rules = if minor == "29" {
            r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["delete"]}]"#
        } else {
            "[]"
        };
        let status = format!(r#"{{"incomplete":false,"nonResourceRules":[],"resourceRules":{rules}}}"#);
        format!(r#"{{{kind},"metadata":{{}},"spec":{{}},"status":{status}}}"#)
    } else {
        let allowed = !String::from_utf8(body).unwrap().contains(refused);
        let kind = r#""apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview""#;
        format!(r#"{{{kind},"metadata":{{}},"spec":{{}},"status":{{"allowed":{allowed}}}}}"#)
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let text = format!("{head}content-length: {}\r\n\r\n{answer}", answer.len());
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn an_order_to_restart_is_answered_and_the_process_ends_well() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let mut program = installed(folder.path(), &cloud, nobody().await);
    let running =
        Running(Some(program.env("HEALTH_PORT", "0").env("KESTREL_LINK_PORT", "0").spawn().unwrap()));
    let connected = cloud.wait_for(LIMIT, |record| (record.connections.counts().streams == 5).then_some(()));
    assert!(connected.await.is_some());
    let order = serde_json::json!({ "operator_restart_request": { "reason": "a test", "delay_seconds": 1 } });
    let answer = cloud.send(&order, None, LIMIT).await.unwrap().answer.unwrap().message.json();
    assert!(answer.to_string().contains("\"success\":true"), "{answer}");
    let output = tokio::task::spawn_blocking(|| running.ended()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("asks for a restart in 1 s: \"a test\""), "{said}");
    cloud.stop().await.unwrap();
}

pub(crate) async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
