//! The other end of the agent link, driven by the test: real TLS, real HTTP/2.

#![allow(dead_code, unreachable_pub)] // not every test uses all of it
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

#[path = "columns.rs"]
mod columns;

use std::{sync::Arc, time::Duration};

use kestrel_proto::node::v1::{
    Ack, AgentMessage, AggregatorMessage, Anchors, Batch, BatchContent, Credit, Hello, HostReport, LogGap,
    LogPolicy, Nack, PodInfo, PodUpdate, Welcome,
    agent_link_server::{AgentLink, AgentLinkServer},
    agent_message,
    aggregator_message::Message,
};
use kestrel_runtime::tls::{authority::Authority, install_provider, server};
use prost::Message as _;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

pub use columns::lines;

/// What is waited for comes within this time, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A listening aggregator; it ends when dropped.
pub struct Aggregator {
    pub endpoint: http::Uri,
    pub authority_pem: String,
    certificate: Arc<server::ServingCertificate>,
    attempts: mpsc::Receiver<Attempt>,
    _ends: DropGuard,
}

/// A client that called Attach and waits for an answer.
struct Attempt {
    authorization: String,
    incoming: Streaming<AgentMessage>,
    answer: tokio::sync::oneshot::Sender<Result<Outgoing, Status>>,
}

type Outgoing = ReceiverStream<Result<AggregatorMessage, Status>>;

/// An open stream.
pub struct Stream {
    pub authorization: String,
    pub hello: Hello,
    incoming: Streaming<AgentMessage>,
    outgoing: mpsc::Sender<Result<AggregatorMessage, Status>>,
}

struct Service(mpsc::Sender<Attempt>);

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = Outgoing;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Outgoing>, Status> {
        let authorization = request.metadata().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        let (answer, answered) = tokio::sync::oneshot::channel();
        let attempt = Attempt {
            authorization: authorization.unwrap_or_default(),
            incoming: request.into_inner(),
            answer,
        };
        self.0.send(attempt).await.map_err(|_| Status::unavailable("the test is over"))?;
        answered.await.map_err(|_| Status::unavailable("the test is over"))?.map(Response::new)
    }
}

impl Aggregator {
    pub async fn start() -> Self {
        install_provider();
        let authority = Authority::generate("agent link").unwrap();
        let certificate = Arc::new(server::ServingCertificate::default());
        certify(&certificate, &authority);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let drain = CancellationToken::new();
        let (accepted, connections) = mpsc::channel(4);
        tokio::spawn(server::accept(
            listener,
            server::config(Arc::clone(&certificate), &["h2"]),
            drain.clone(),
            accepted,
            |_, _| {},
        ));
        let (attempted, attempts) = mpsc::channel(4);
        let connections = ReceiverStream::new(connections).map(|(stream, _)| Ok::<_, std::io::Error>(stream));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AgentLinkServer::new(Service(attempted)).max_decoding_message_size(8 << 20))
                .serve_with_incoming_shutdown(connections, drain.clone().cancelled_owned()),
        );
        Self {
            endpoint: format!("https://localhost:{port}").parse().unwrap(),
            authority_pem: authority.certificate_pem().to_owned(),
            certificate,
            attempts,
            _ends: drain.drop_guard(),
        }
    }

    /// Shows a certificate of `authority` from now on.
    pub fn certified_by(&self, authority: &Authority) {
        certify(&self.certificate, authority);
    }

    async fn attempt(&mut self) -> Attempt {
        timeout(DEADLINE, self.attempts.recv()).await.expect("nobody attached").unwrap()
    }

    /// Answers the next client with `status`.
    pub async fn refuse(&mut self, status: Status) {
        self.attempt().await.answer.send(Err(status)).unwrap();
    }

    /// Takes the next client and welcomes it with `credit` bytes.
    pub async fn accept(&mut self, credit: u64) -> Stream {
        self.accept_with(Welcome { credit_bytes: credit, ..Welcome::default() }).await
    }

    /// Takes the next client and welcomes it so.
    pub async fn accept_with(&mut self, welcome: Welcome) -> Stream {
        let (authorization, mut incoming, outgoing) = loop {
            let Attempt { authorization, incoming, answer } = self.attempt().await;
            let (outgoing, answers) = mpsc::channel(64);
            // A client that ended meanwhile takes no answer any more.
            if answer.send(Ok(ReceiverStream::new(answers))).is_ok() {
                break (authorization, incoming, outgoing);
            }
        };
        let first = timeout(DEADLINE, incoming.message()).await.expect("no hello").unwrap().unwrap();
        let Some(agent_message::Message::Hello(hello)) = first.message else { panic!("{first:?}") };
        let stream = Stream { authorization, hello, incoming, outgoing };
        let welcome = Welcome {
            protocol_version: 1,
            software_version: "test".into(),
            max_batch_bytes: 4 << 20,
            ..welcome
        };
        stream.send(Message::Welcome(welcome)).await;
        stream
    }
}

impl Stream {
    pub async fn send(&self, message: Message) {
        self.outgoing.send(Ok(AggregatorMessage { message: Some(message) })).await.unwrap();
    }

    pub async fn ack(&self, up_to_id: u64) {
        self.send(Message::Ack(Ack { up_to_id })).await;
    }

    pub async fn nack(&self) {
        self.send(Message::Nack(Nack { reason: "the test says so".into() })).await;
    }

    pub async fn credit(&self, bytes: u64) {
        self.send(Message::Credit(Credit { bytes })).await;
    }

    /// Names the only pod with its policy.
    pub async fn pod(&self, namespace: &str, name: &str, uid: &str, policy: LogPolicy) {
        let pod = PodInfo {
            uid: uid.into(),
            namespace: namespace.into(),
            name: name.into(),
            log_policy: policy.into(),
            ..PodInfo::default()
        };
        self.pods(vec![pod]).await;
    }

    /// Names all pods.
    pub async fn pods(&self, pods: Vec<PodInfo>) {
        let update = PodUpdate { snapshot: true, pods, removed_uids: vec![] };
        self.send(Message::PodUpdate(update)).await;
    }

    /// Says whom to trust from now on.
    pub async fn anchors(&self, pem: String) {
        self.send(Message::Anchors(Anchors { pem })).await;
    }

    /// Ends the stream with `status`.
    pub async fn fail(self, status: Status) {
        self.outgoing.send(Err(status)).await.unwrap();
    }

    /// The next message; `None` when the client ended the stream.
    pub async fn next(&mut self) -> Option<agent_message::Message> {
        let message = timeout(DEADLINE, self.incoming.message()).await.expect("nothing came");
        message.ok().flatten().and_then(|message| message.message)
    }

    /// The next batch and what is in it; host reports are passed over.
    pub async fn batch(&mut self) -> (Batch, BatchContent) {
        loop {
            match self.next().await.expect("the stream ended") {
                agent_message::Message::Batch(batch) => {
                    let bytes = zstd::stream::decode_all(batch.payload.as_ref()).unwrap();
                    assert_eq!(bytes.len() as u64, batch.content_bytes);
                    return (batch, BatchContent::decode(bytes.as_slice()).unwrap());
                }
                agent_message::Message::HostReport(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The gaps of the farewell, which ends the stream; batches are passed over.
    pub async fn farewell(&mut self) -> Vec<LogGap> {
        loop {
            match self.next().await.expect("the stream ended without a farewell") {
                agent_message::Message::Farewell(farewell) => {
                    assert_eq!(self.next().await, None);
                    return farewell.gaps;
                }
                agent_message::Message::Batch(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next host report; batches are passed over.
    pub async fn report(&mut self) -> HostReport {
        loop {
            if let agent_message::Message::HostReport(report) = self.next().await.expect("the stream ended") {
                return report;
            }
        }
    }

    /// Takes batches, gives their credit back, acknowledges them, until `lines`
    /// lines came; returns those.
    pub async fn lines(&mut self, lines: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < lines {
            let (batch, content) = self.batch().await;
            self.credit(batch.payload.len() as u64).await;
            self.ack(batch.id).await;
            found.extend(messages(&content));
        }
        found
    }
}

fn certify(certificate: &server::ServingCertificate, authority: &Authority) {
    let names = ["localhost".to_owned()];
    certificate.replace(authority.server_certificate(&names, Duration::from_secs(600)).unwrap());
}

/// The texts of a batch.
pub fn messages(content: &BatchContent) -> Vec<String> {
    content.logs.iter().flat_map(lines).map(|line| line.text).collect()
}
