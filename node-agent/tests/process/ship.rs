//! `tail --sink link=…`: the engine alone against a real stream.

use std::{fs, process::Stdio};

use tokio::process::Command;
use tonic::Status;

use super::{agent, aggregator::Aggregator};

#[tokio::test(flavor = "multi_thread")]
async fn it_ships_to_the_end_without_positions_and_says_what_was_sent_again() {
    let mut aggregator = Aggregator::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("pods/shop_web-1_5f2a/app")).unwrap();
    let lines: String =
        (0..3).map(|number| format!("2026-11-21T13:50:00.{number}Z stdout F line {number}\n")).collect();
    fs::write(path("pods/shop_web-1_5f2a/app/0.log"), &lines).unwrap();
    fs::write(path("token"), "secret").unwrap();
    fs::write(path("ca.crt"), &aggregator.authority_pem).unwrap();
    let sink = format!("link={}", aggregator.endpoint.authority().unwrap());
    let ended = Command::from(agent())
        .envs([("NODE_NAME", "n1"), ("KESTREL_LINK_TOKEN_FILE", path("token").to_str().unwrap())])
        .env("KESTREL_LINK_CA_FILE", path("ca.crt"))
        .args(["tail", "--until-end", "--sink", &sink, "--root"])
        .arg(path("pods"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stream = aggregator.accept(4 << 20).await;
    stream.batch().await;
    stream.fail(Status::unavailable("once")).await;
    let mut stream = aggregator.accept(4 << 20).await;
    assert_eq!(stream.lines(3).await, ["line 0", "line 1", "line 2"]);
    let output = ended.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let repeated = format!(" bytes_repeated={} gaps=0 bytes_lost=0 ", lines.len());
    assert!(said.contains(&repeated), "{said}");
}
