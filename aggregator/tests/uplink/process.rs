//! The program as it is started: exit codes, and what it does without a cluster.

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

use kestrel_dev_cloud::Authority;
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{LIMIT, cloud, line_arrives, write_credentials};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kestrel-aggregator");

fn program() -> Command {
    let mut program = Command::new(PROGRAM);
    program.env_clear().stderr(Stdio::piped());
    program
}

/// Ends the program when a test fails.
struct Running(Option<Child>);

impl Running {
    fn terminate(mut self) -> Output {
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

#[tokio::test]
async fn without_an_api_server_it_is_connected_alive_not_ready_and_ends_well() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let cluster = format!("{{name: c, cluster: {{server: 'http://{nobody}'}}}}");
    let context = "{name: c, context: {cluster: c, user: u}}";
    let text =
        format!("{{clusters: [{cluster}], contexts: [{context}], current-context: c, users: [{{name: u}}]}}");
    fs::write(&kubeconfig, text).unwrap();

    let file = |name| folder.path().join(name);
    let child = program()
        .env("KUBECONFIG", &kubeconfig)
        .env("SERVER_HOST", "localhost")
        .env("SERVER_PORT", cloud.address().port().to_string())
        .env("CLIENT_CERT_FILE", file("client.crt"))
        .env("CLIENT_KEY_FILE", file("client.key"))
        .env("CA_CERT_FILE", file("ca.crt"))
        .env("AUTH_TOKEN", fs::read_to_string(file("token")).unwrap())
        .env("HEALTH_PORT", free.port().to_string())
        .env("KESTREL_LINK_PORT", "0")
        .spawn();
    let running = Running(Some(child.unwrap()));
    let connected = cloud.wait_for(LIMIT, |record| (record.connections.counts().streams == 5).then_some(()));
    assert!(connected.await.is_some());
    assert!(get(free.port(), "/livez").await.starts_with("HTTP/1.0 200"));
    let readiness = get(free.port(), "/readyz").await;
    assert!(
        readiness.contains("503") && readiness.contains("first list of the cluster's pods"),
        "{readiness}"
    );
    assert!(get(free.port(), "/metrics").await.contains("kestrel_uplink_connected 1"));
    // The cloud hears of it too.
    line_arrives(&cloud, "can't be watched: Connection refused").await;

    let output = tokio::task::spawn_blocking(|| running.terminate()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("can't be watched: Connection refused"), "{said}");
    assert!(!said.contains(&fs::read_to_string(file("token")).unwrap()), "the token is in the log");
    cloud.stop().await.unwrap();
}

async fn get(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
