//! Credentials that change while there is a connection.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use kestrel_aggregator::{
    excluded::Excluded,
    executor::{Access, Executor, audit, rules::Rules, switch::Switch},
    link::Nodes,
    uplink::credentials::Credentials,
};
use kestrel_dev_cloud::{
    Authority, Claims, Cloud, Faults, Record, Stream, credentials::Identity, faults::When,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    rig::{LIMIT, Rig, arrives, cloud, config, eventually, write_credentials},
    secret::Server,
};

/// An uplink and an executor that keep what they are given in a Secret.
struct Operator {
    rig: Rig,
    credentials: Credentials,
    server: Server,
    drain: CancellationToken,
    executor: Arc<Executor>,
}

impl Operator {
    fn start(cloud: &Cloud, folder: TempDir, server: Server) -> Self {
        let mut config = config(folder.path(), cloud.address().port());
        config.credentials = config.credentials.kept_in(server.secret());
        let credentials = config.credentials.clone();
        let (mut rig, drain) = (Rig::with(folder, config), CancellationToken::new());
        let access = Access {
            reader: server.client(),
            trier: server.client(),
            switch: Switch::fixed(Rules::default()),
            excluded: Excluded::default(),
            nodes: Nodes::default(),
            metrics: audit::Metrics::default(),
        };
        let executor = Executor::new(access, credentials.clone(), rig.lanes.clone(), drain.clone()).unwrap();
        let (_, nobody) = tokio::sync::mpsc::unbounded_channel();
        let (mut requests, run) = (std::mem::replace(&mut rig.requests, nobody), executor.requests());
        tokio::spawn(async move {
            while let Some((over, request)) = requests.recv().await {
                run(over, request);
            }
        });
        Self { rig, credentials, server, drain, executor }
    }

    /// Waits until the token in use ends later than in so many seconds.
    async fn token_lasts(&self, seconds: i64) {
        let end = || self.credentials.ends().token;
        let limit = Timestamp::now() + SignedDuration::from_secs(seconds);
        let lasts = || end().filter(|end| *end > limit).map(drop);
        eventually("a renewed token", lasts, || format!("{:?}: {:?}", end(), self.rig.report.last_problem()))
            .await;
    }

    async fn stop(self) {
        self.drain.cancel();
        self.executor.finish().await;
        self.rig.stop().await;
    }
}

/// A token that was made and ends at these times from now, in seconds.
fn token(authority: &Authority, made: i64, ends: i64) -> String {
    let now = Timestamp::now();
    let mut claims = Claims::new("acme", "cluster", now, ends);
    claims.iat = now.as_second() + made;
    authority.tokens().mint(&claims).unwrap()
}

fn folder(authority: &Authority, token: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_credentials(authority, folder.path());
    write(folder.path(), "token", token);
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// Ends all streams; tokens are judged by a clock that is ahead.
fn streams_end(clock: SignedDuration) -> Faults {
    Faults { clock, ..Faults::reset(Stream::ALL, Code::Unavailable, When::Now) }
}

fn refusals(cloud: &Cloud) -> usize {
    cloud.read(|record| record.connections.refusals().len())
}

#[tokio::test]
async fn a_token_is_renewed_at_two_thirds_of_its_life_kept_and_used() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let old = token(cloud.authority(), -2_600, 1_000);
    let operator = Operator::start(&cloud, folder(cloud.authority(), &old), Server::default());
    operator.token_lasts(12 * 3_600).await;
    let kept = || operator.server.get("token").filter(|token| *token != old);
    eventually("the token in the Secret", kept, String::new).await;
    operator.rig.all_streams_are_up().await;
    // The old one is worth nothing any more.
    let before = refusals(&cloud);
    cloud.set_faults(streams_end(SignedDuration::from_hours(1)));
    let reopened = cloud.wait_for(LIMIT, |record| {
        Stream::ALL.iter().all(|stream| record.connections.stream(*stream).opened >= 2).then_some(())
    });
    assert!(reopened.await.is_some());
    assert_eq!(refusals(&cloud), before);
    operator.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_as_soon_as_the_server_lets_it() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let fresh = token(cloud.authority(), 0, 3_600);
    let operator = Operator::start(&cloud, folder(cloud.authority(), &fresh), Server::default());
    operator.rig.all_streams_are_up().await;
    assert_eq!(operator.server.get("token"), None, "not due for long");
    // The server's clock jumps ahead, and back.
    cloud.set_faults(streams_end(SignedDuration::from_hours(2)));
    operator.rig.problem("refuses the token").await;
    let refused =
        || cloud.read(|record| record.connections.refusals().iter().any(|r| r.rpc == "RenewClusterToken"));
    eventually("an attempt to renew it", || refused().then_some(()), String::new).await;
    cloud.set_faults(Faults::default());
    operator.token_lasts(12 * 3_600).await;
    operator.rig.all_streams_are_up().await;
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
    operator.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_that_the_server_never_takes_gives_way_to_the_one_in_the_secret() {
    let (authority, stranger) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let cloud = cloud(authority, None).await;
    let (server, good) = (Server::default(), token(cloud.authority(), -100, 3_600));
    server.put("token", &good);
    let folder = folder(cloud.authority(), &token(&stranger, -10, 3_600));
    let operator = Operator::start(&cloud, folder, server);
    operator.rig.all_streams_are_up().await;
    operator.token_lasts(12 * 3_600).await;
    assert!(refusals(&cloud) > 0);
    operator.stop().await;
    cloud.stop().await.unwrap();
}

/// Waits until a connection with this certificate carries all streams.
async fn shown(cloud: &Cloud, name: &str) {
    let subject = format!("CN={name}");
    let shown = cloud.wait_for(LIMIT, |record| {
        let mut open = record.connections.open_now();
        open.any(|c| c.certificate.subject == subject && c.streams.len() == 5).then_some(())
    });
    let all = cloud.read(|record| format!("{:?}", record.connections.open_now().collect::<Vec<_>>()));
    assert!(shown.await.is_some(), "no connection with {subject}: {all}");
}

async fn push(cloud: &Cloud, identity: &Identity) -> Value {
    let [client_cert, client_key, ca_cert] =
        [&identity.certificate, &identity.key, cloud.authority().certificate()]
            .map(|pem| STANDARD.encode(pem));
    let request = json!({ "certificate_renewal_request": {
        "client_cert": client_cert, "client_key": client_key, "ca_cert": ca_cert,
    }});
    let sent = cloud.send(&request, None, LIMIT).await.unwrap();
    sent.answer.unwrap().message.json()
}

#[tokio::test]
async fn a_rotated_certificate_is_shown_on_a_new_connection_without_a_restart() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let rig = Rig::start(&cloud);
    shown(&cloud, "cluster").await;
    let identity = cloud.authority().client("rotated").unwrap();
    cloud.authority().write_client(rig.folder.path(), &identity).unwrap();
    shown(&cloud, "rotated").await;
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_pushed_certificate_is_kept_and_used_and_a_refused_one_is_left_again() {
    let (authority, stranger) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let cloud = cloud(authority, None).await;
    let good = token(cloud.authority(), 0, 3_600);
    let operator = Operator::start(&cloud, folder(cloud.authority(), &good), Server::default());
    shown(&cloud, "cluster").await;

    let pushed = cloud.authority().client("pushed").unwrap();
    let mixed = Identity { key: stranger.client("x").unwrap().key, ..pushed.clone() };
    let answer = push(&cloud, &mixed).await.to_string();
    assert!(answer.contains("does not fit the certificate"), "{answer}");
    assert_eq!(operator.server.get("tls.crt"), None);

    let answer = push(&cloud, &pushed).await.to_string();
    assert!(answer.contains("\"success\":true"), "{answer}");
    assert_eq!(operator.server.get("tls.crt").as_deref(), Some(pushed.certificate.as_str()));
    shown(&cloud, "pushed").await;

    // Nothing of it is wrong but that the server does not know who signed it.
    push(&cloud, &stranger.client("stranger").unwrap()).await;
    operator.rig.problem("refuses the client certificate").await;
    cloud.cut_connections();
    operator.rig.signal("after");
    arrives(&cloud, "after", Stream::Events, 1).await;
    shown(&cloud, "pushed").await;
    operator.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn an_order_to_restart_is_answered_and_ends_the_process() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let good = token(cloud.authority(), 0, 3_600);
    let operator = Operator::start(&cloud, folder(cloud.authority(), &good), Server::default());
    operator.rig.all_streams_are_up().await;
    let order = json!({ "operator_restart_request": { "reason": "a test", "graceful": true } });
    let sent = cloud.send(&order, None, LIMIT).await.unwrap();
    assert!(sent.answer.unwrap().message.json().to_string().contains("\"success\":true"));
    tokio::time::timeout(LIMIT, operator.executor.finish()).await.unwrap();
    assert!(operator.drain.is_cancelled());
    operator.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_that_comes_twice_is_answered_from_the_record() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let good = token(cloud.authority(), 0, 3_600);
    let operator = Operator::start(&cloud, folder(cloud.authority(), &good), Server::default());
    operator.rig.all_streams_are_up().await;
    let pushed = cloud.authority().client("pushed").unwrap();
    let [client_cert, client_key, ca_cert] =
        [&pushed.certificate, &pushed.key, cloud.authority().certificate()].map(|pem| STANDARD.encode(pem));
    let request = json!({ "certificate_renewal_request": {
        "request_id": "r1", "client_cert": client_cert, "client_key": client_key, "ca_cert": ca_cert,
    }});
    cloud.send(&request, Some(Stream::Control), LIMIT).await.unwrap();
    shown(&cloud, "pushed").await;
    operator.server.put("tls.crt", "");
    let answers = |record: &Record| {
        let answers = record.answers.iter().filter(|answer| answer.facts.request_id == "r1");
        answers.map(|answer| (answer.stream, answer.message.json())).collect::<Vec<_>>()
    };
    cloud.send(&request, Some(Stream::Data), LIMIT).await.unwrap();
    // A connection that is left may send the first answer again.
    let all = cloud.wait_for(LIMIT, |record| {
        let all = answers(record);
        all.iter().any(|(stream, _)| *stream == Stream::Data).then_some(all)
    });
    let all = all.await.unwrap();
    assert!(all.iter().all(|(_, answer)| *answer == all[0].1), "{all:?}");
    assert_eq!(operator.server.get("tls.crt").as_deref(), Some(""), "it did not run again");
    operator.stop().await;
    cloud.stop().await.unwrap();
}
