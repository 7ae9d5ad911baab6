//! A stream over real TLS, from files to batches and back to positions.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

#[path = "support/aggregator.rs"]
mod aggregator;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use aggregator::{Aggregator, DEADLINE, Stream, lines, messages};
use kestrel_link::{
    Event,
    connection::{Authority, Config, Link},
    ship::Shipper,
};
use kestrel_proto::node::v1::{Hello, LogGapReason, Role};
use kestrel_tail::{
    discover::{Layout, Origin, Source},
    engine::{Engine, PINNED_BYTES, Policy},
    position::store::Store,
    redact::{Expressions, Redactor},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, metadata::MetadataMap};

const CREDIT: u64 = 4 << 20;

/// A client with a directory of its own.
struct Client {
    directory: TempDir,
    events: mpsc::Receiver<Event>,
    link: JoinHandle<()>,
}

impl Client {
    fn start(aggregator: &Aggregator) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        fs::write(directory.path().join("token"), "secret\n").unwrap();
        fs::write(directory.path().join("ca.crt"), &aggregator.authority_pem).unwrap();
        let (link, events) = Link::new(Config {
            endpoint: aggregator.endpoint.clone(),
            authority: Authority::File(directory.path().join("ca.crt")),
            token_file: directory.path().join("token"),
            hello: Hello {
                protocol_version: 1,
                role: Role::NodeAgent.into(),
                node_name: "n1".into(),
                ..Hello::default()
            },
            retry: (Duration::from_millis(5), Duration::from_millis(50)),
        });
        Self { directory, events, link: tokio::spawn(link.run(CancellationToken::new())) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn event(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("nothing happened").unwrap()
    }

    async fn failure(&mut self) -> (String, Duration) {
        match self.event().await {
            Event::Disconnected { reason, retry_in } => (reason, retry_in),
            other => panic!("{other:?}"),
        }
    }

    fn shipper(&self) -> Shipper {
        let layout = Layout::Files {
            origin: Origin { container: "app".into(), ..Origin::default() },
            patterns: vec!["*.log".parse().unwrap()],
        };
        let source = Source { directory: self.path("logs"), layout };
        Shipper::new(
            Engine::new(
                vec![source],
                Store::load(&self.directory.path().join("positions")).unwrap(),
                Redactor::new(Expressions::default()),
            ),
            Instant::now(),
        )
    }

    fn append(&self, name: &str, text: &str) {
        let mut file =
            OpenOptions::new().create(true).append(true).open(self.path("logs").join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// Ships until `done` says so, or the test takes too long.
async fn ship(client: &mut Client, shipper: &mut Shipper, mut done: impl FnMut(&Shipper) -> bool) {
    let work = async {
        while !done(shipper) {
            shipper.engine.scan(Instant::now());
            shipper.engine.assign(|_| Some(Policy::All));
            let pause = shipper.pump(Instant::now(), SystemTime::now()).min(Duration::from_millis(50));
            tokio::select! {
                event = client.events.recv() => drop(shipper.take(event.unwrap())),
                () = tokio::time::sleep(pause) => {}
            }
        }
    };
    timeout(DEADLINE, work).await.expect("not done");
}

#[tokio::test]
async fn what_is_written_arrives_and_its_position_is_kept() {
    let mut aggregator = Aggregator::start().await;
    let mut client = Client::start(&aggregator);
    client.append("a.log", "one\ntwo\n");
    let mut shipper = client.shipper();
    let far = async {
        let mut stream = aggregator.accept(CREDIT).await;
        assert_eq!((stream.authorization.as_str(), stream.hello.node_name.as_str()), ("Bearer secret", "n1"));
        let (batch, content) = stream.batch().await;
        let chunk = &content.logs[0];
        assert_eq!((batch.id, chunk.start_offset, chunk.end_offset), (1, 0, 8));
        assert_eq!(lines(chunk).iter().map(|line| line.end).collect::<Vec<_>>(), [Some(4), Some(8)]);
        assert_eq!(messages(&content), ["one", "two"]);
        stream.credit(batch.payload.len() as u64).await;
        stream.ack(1).await;
        stream
    };
    let (stream, ()) = tokio::join!(
        far,
        ship(&mut client, &mut shipper, |s| s.shipped().batches == 1
            && s.engine.in_flight() == 0
            && s.is_delivered())
    );
    shipper.save();
    assert!(shipper.save_error().is_none());
    assert!(fs::read_to_string(client.path("positions")).unwrap().contains(" 8 "));

    // Nobody takes the events any more, so the stream ends.
    drop(client.events);
    timeout(DEADLINE, client.link).await.unwrap().unwrap();
    drop(stream);
}

#[tokio::test]
async fn refused_and_lost_batches_are_read_again() {
    let mut aggregator = Aggregator::start().await;
    let mut client = Client::start(&aggregator);
    client.append("a.log", "one\n");
    let mut shipper = client.shipper();
    let far = async {
        let mut stream = aggregator.accept(CREDIT).await;
        let (first, content) = stream.batch().await;
        assert_eq!(messages(&content), ["one"]);
        assert_eq!(first.nacks_seen, 0);
        stream.nack().await;
        let (second, content) = stream.batch().await;
        assert_eq!((second.id, second.nacks_seen, messages(&content)), (2, 1, vec!["one".to_owned()]));
        stream.fail(Status::internal("gone")).await;
        let mut stream = aggregator.accept(CREDIT).await;
        let (first, content) = stream.batch().await;
        assert_eq!((first.id, messages(&content)), (1, vec!["one".to_owned()]));
        stream.ack(first.id).await;
        stream
    };
    let (_stream, ()) = tokio::join!(
        far,
        ship(&mut client, &mut shipper, |s| s.shipped().batches == 3 && s.engine.in_flight() == 0)
    );
    assert_eq!(shipper.shipped().refusals, 1);
}

#[tokio::test]
async fn without_credit_the_files_are_the_buffer() {
    let mut aggregator = Aggregator::start().await;
    let mut client = Client::start(&aggregator);
    // Lines that hardly compress, twice as many as the credit covers.
    let mut seed = 1_u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", seed ^ (seed >> 29))
    };
    let lines: Vec<String> = (0..1000).map(|_| (0..1024).map(|_| noise()).collect()).collect();
    client.append("a.log", &(lines.join("\n") + "\n"));
    let mut shipper = client.shipper();
    let far = async {
        let mut stream: Stream = aggregator.accept(CREDIT).await;
        let mut batches = Vec::new();
        let mut bytes = 0;
        while bytes + 200_000 < CREDIT {
            let (batch, content) = stream.batch().await;
            bytes += batch.payload.len() as u64;
            batches.extend(messages(&content));
        }
        assert!(bytes <= CREDIT && batches.len() < lines.len(), "{bytes} {}", batches.len());
        stream.credit(bytes).await;
        while batches.len() < lines.len() {
            let (batch, content) = stream.batch().await;
            stream.credit(batch.payload.len() as u64).await;
            batches.extend(messages(&content));
        }
        assert!(batches == lines);
        stream
    };
    let total = lines.len() as u64;
    let (_stream, ()) = tokio::join!(far, ship(&mut client, &mut shipper, |s| s.shipped().lines == total));
}

#[tokio::test]
async fn files_are_measured_while_nothing_can_be_sent_and_what_is_lost_is_told() {
    let mut aggregator = Aggregator::start().await;
    let mut client = Client::start(&aggregator);
    client.append("a.log", "one\n");
    let mut shipper = client.shipper();
    let pump = |shipper: &mut Shipper| {
        shipper.engine.scan(Instant::now());
        shipper.engine.assign(|_| Some(Policy::All));
        shipper.pump(Instant::now(), SystemTime::now());
    };
    pump(&mut shipper);
    assert_eq!(shipper.engine.unread_bytes(), 4);
    client.append("a.log", "two\n");
    pump(&mut shipper);
    assert_eq!(shipper.engine.unread_bytes(), 8);

    // What is removed unread is let go of above the bound.
    let file = OpenOptions::new().write(true).open(client.path("logs/a.log")).unwrap();
    file.set_len(PINNED_BYTES + 1).unwrap();
    fs::remove_file(client.path("logs/a.log")).unwrap();
    pump(&mut shipper);
    pump(&mut shipper);
    assert_eq!((shipper.engine.files(), shipper.engine.stats().bytes_lost.total()), (0, PINNED_BYTES + 1));

    // It is told until it has an answer.
    let far = async {
        let mut stream = aggregator.accept(CREDIT).await;
        let (_, first) = stream.batch().await;
        stream.nack().await;
        let (batch, again) = stream.batch().await;
        stream.ack(batch.id).await;
        assert_eq!(first, again);
        (stream, again.gaps)
    };
    let is_answered = |s: &Shipper| s.shipped().batches == 2 && s.engine.in_flight() == 0;
    let ((_stream, gaps), ()) = tokio::join!(far, ship(&mut client, &mut shipper, is_answered));
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((gap.reason(), gap.bytes), (LogGapReason::Removed, PINNED_BYTES + 1));
    assert_eq!((gap.lines, gap.uncounted_bytes), (2, 0));
}

#[tokio::test]
async fn refusals_say_what_to_mend_and_are_waited_for() {
    let mut aggregator = Aggregator::start().await;
    let mut client = Client::start(&aggregator);
    let mut metadata = MetadataMap::new();
    metadata.insert("retry-after-ms", "10".parse().unwrap());
    let full = Status::with_metadata(tonic::Code::ResourceExhausted, "6000 links are open", metadata);
    aggregator.refuse(full).await;
    let (reason, retry_in) = client.failure().await;
    assert_eq!(reason, "the aggregator cannot take us now: 6000 links are open");
    assert_eq!(retry_in, Duration::from_millis(10));
    aggregator.refuse(Status::unauthenticated("the token is for another audience")).await;
    assert_eq!(
        client.failure().await.0,
        "the aggregator does not accept our token: the token is for another audience"
    );

    // Files are read for each attempt, so what is mended works without a restart.
    fs::write(client.path("token"), " \n").unwrap();
    let (reason, _) = client.failure().await;
    assert!(reason.ends_with("token is empty (KESTREL_LINK_TOKEN_FILE)"), "{reason}");
    fs::write(client.path("token"), "new").unwrap();
    fs::remove_file(client.path("ca.crt")).unwrap();
    let (reason, _) = client.failure().await;
    assert!(reason.contains("is not there yet") && reason.contains("KESTREL_LINK_CA_FILE"), "{reason}");
    let other = Aggregator::start().await;
    fs::write(client.path("ca.crt"), &other.authority_pem).unwrap();
    let (reason, _) = client.failure().await;
    assert!(reason.contains("authority that we do not trust"), "{reason}");
    fs::write(client.path("ca.crt"), &aggregator.authority_pem).unwrap();
    let stream = aggregator.accept(CREDIT).await;
    assert_eq!(stream.authorization, "Bearer new");
    assert!(
        matches!(client.event().await, Event::Connected { software_version, .. } if software_version == "test")
    );
}

#[tokio::test]
async fn an_aggregator_that_is_not_there_is_named() {
    let mut aggregator = Aggregator::start().await;
    aggregator.endpoint = "https://127.0.0.1:1".parse().unwrap();
    let mut client = Client::start(&aggregator);
    let (reason, _) = client.failure().await;
    assert!(reason.starts_with("https://127.0.0.1:1/: 127.0.0.1:1 can't be reached"), "{reason}");
    aggregator.endpoint = "http://localhost:1".parse().unwrap();
    let mut client = Client::start(&aggregator);
    assert!(client.failure().await.0.contains("has to be https"));
}
