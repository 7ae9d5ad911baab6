//! Everything that can be wrong with what the uplink is given: one sentence
//! that names the setting, and success as soon as it is mended, without a restart.

use std::{fs, path::Path};

use kestrel_aggregator::uplink::{
    Config,
    credentials::{Bootstrap, Credentials},
};
use kestrel_dev_cloud::{Authority, Cloud, Faults, Stream, faults::When};
use tokio::net::TcpListener;
use tonic::Code;

use crate::rig::{Rig, cloud, config, write_credentials, write_token};

/// Begins with something broken; expects the sentence; mends it; expects success.
async fn mended(cloud: &Cloud, part: &str, setting: &str, spoil: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), cloud.address().port());
    write_credentials(cloud.authority(), folder.path());
    spoil(folder.path());
    let token = fs::read_to_string(folder.path().join("token")).unwrap_or_else(|_| "no token".to_owned());
    let rig = Rig::with(folder, config);
    let sentence = rig.problem(part).await;
    assert!(sentence.contains(setting), "{setting} in: {sentence}");
    assert!(!sentence.contains(&token), "{sentence}");
    write_credentials(cloud.authority(), rig.folder.path());
    rig.all_streams_are_up().await;
    rig.stop().await;
}

#[tokio::test]
async fn every_fault_of_a_file_has_its_sentence_and_needs_no_restart() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let stranger = Authority::generate().unwrap();
    let its = || stranger.client("stranger").unwrap();

    mended(&cloud, "refuses the token", "AUTH_TOKEN_FILE", |folder| {
        write_token(&stranger, folder, "acme", 3600);
    })
    .await;
    mended(&cloud, "expired at ", "AUTH_TOKEN_FILE", |folder| {
        write_token(cloud.authority(), folder, "acme", -60);
    })
    .await;
    mended(&cloud, "no tenant claim", "AUTH_TOKEN_FILE", |folder| {
        write_token(cloud.authority(), folder, "", 3600);
    })
    .await;
    mended(&cloud, "not a JWT", "AUTH_TOKEN_FILE", |folder| {
        fs::write(folder.join("token"), "hunter2hunter2").unwrap();
    })
    .await;
    mended(&cloud, "authority that we do not trust", "CA_CERT_FILE", |folder| {
        fs::write(folder.join("ca.crt"), stranger.certificate()).unwrap();
    })
    .await;
    mended(&cloud, "refuses the client certificate", "CLIENT_CERT_FILE", |folder| {
        let identity = its();
        fs::write(folder.join("client.crt"), &identity.certificate).unwrap();
        fs::write(folder.join("client.key"), &identity.key).unwrap();
    })
    .await;
    mended(&cloud, "does not fit the certificate", "CLIENT_KEY_FILE", |folder| {
        fs::write(folder.join("client.key"), its().key).unwrap();
    })
    .await;
    for (name, setting) in [
        ("token", "AUTH_TOKEN_FILE"),
        ("client.crt", "CLIENT_CERT_FILE"),
        ("client.key", "CLIENT_KEY_FILE"),
        ("ca.crt", "CA_CERT_FILE"),
    ] {
        mended(&cloud, "can't be read", setting, |folder| {
            fs::remove_file(folder.join(name)).unwrap();
        })
        .await;
    }
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_refused_later_costs_the_streams_and_not_the_connection() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let reset = Faults::reset(Stream::ALL, Code::Ok, When::Now);
    cloud.set_faults(Faults { refuse_tokens: true, ..reset });
    rig.problem("refuses the token").await;
    cloud.set_faults(Faults::default());
    rig.all_streams_are_up().await;
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
    rig.stop().await;
    cloud.stop().await.unwrap();
}

/// Expects a sentence from an uplink with good credentials and a wrong target.
async fn unreachable(cloud: &Cloud, part: &str, setting: &str, change: impl FnOnce(&mut Config)) {
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let mut config = config(folder.path(), cloud.address().port());
    change(&mut config);
    let rig = Rig::with(folder, config);
    let sentence = rig.problem(part).await;
    assert!(sentence.contains(setting), "{setting} in: {sentence}");
    rig.stop().await;
}

#[tokio::test]
async fn every_wrong_address_has_its_sentence() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    unreachable(&cloud, "another name", "SERVER_NAME", |config| {
        config.server_name = "cloud.example".to_owned();
    })
    .await;
    unreachable(&cloud, "can't be resolved", "SERVER_HOST", |config| {
        config.host = "no-such-host.invalid".to_owned();
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    unreachable(&cloud, "can't be reached", "SERVER_PORT", |config| config.port = port).await;
    let plain = cloud.api_address().port();
    unreachable(&cloud, "TLS handshake failed", "SERVER_PORT", |config| config.port = plain).await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn an_unverified_server_is_taken_only_when_that_is_asked_for() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let mut config = config(folder.path(), cloud.address().port());
    config.server_name = "cloud.example".to_owned();
    config.credentials = Credentials::new(Bootstrap {
        authority: "/nonexistent".into(),
        insecure: true,
        ..config.credentials.bootstrap().clone()
    });
    let rig = Rig::with(folder, config);
    rig.all_streams_are_up().await;
    rig.stop().await;
    cloud.stop().await.unwrap();
}
