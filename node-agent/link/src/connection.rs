//! One stream to the aggregator, opened again whenever it ends.

use std::{
    error::Error as _,
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::Uri;
use kestrel_proto::node::v1::{
    AgentMessage, AggregatorMessage, Hello, Welcome, agent_link_client::AgentLinkClient, agent_message,
    aggregator_message::Message,
};
use kestrel_runtime::{
    backoff::Backoff,
    tls::{self, client::ConnectError, client::Connector, client::Target},
};
use rustls::ClientConfig;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataMap, transport::Endpoint};

use crate::{
    Event,
    anchors::Anchors,
    reads::Reply,
    session::{QUEUED_MESSAGES, Session},
};

/// First and longest wait between two attempts.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A refusal may ask for a longer wait than our own, but not for any.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long the aggregator may take for its first message.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// A silent connection is probed after the first and given up after both.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Events that nobody took yet.
const QUEUED_EVENTS: usize = 64;

/// Metadata key of a refusal: milliseconds to wait.
const RETRY_AFTER: &str = "retry-after-ms";

/// Where the certificate authority of the link is.
#[derive(Clone, Debug)]
pub enum Authority {
    /// In a file, which may come later and may change.
    File(PathBuf),
    /// Given once, and learned on the link since.
    Anchors(Anchors),
}

/// What the link needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port`.
    pub endpoint: Uri,
    /// Who signs the aggregator's certificate.
    pub authority: Authority,
    /// The projected token; it is replaced while we run.
    pub token_file: PathBuf,
    /// What we say of ourselves.
    pub hello: Hello,
    /// First and longest wait between two attempts, [`RETRY`] but in tests.
    pub retry: (Duration, Duration),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Endpoint(String),
    #[error("the token {} {problem} (KESTREL_LINK_TOKEN_FILE)", file.display())]
    Token { file: PathBuf, problem: String },
    #[error("the certificate authority of the agent link {problem} ({setting})")]
    Authority { problem: String, setting: &'static str },
    #[error("{0}")]
    Connect(String),
    #[error("the aggregator does not accept our token: {0}")]
    Unauthenticated(String),
    #[error("the aggregator does not let us speak: {0}")]
    Denied(String),
    #[error("the aggregator cannot take us now: {message}")]
    Later { message: String, wait: Option<Duration> },
    #[error("the stream failed: {0}")]
    Stream(String),
    #[error("the aggregator ended the stream")]
    Ended,
    #[error("the aggregator said nothing for {} s after the stream was opened", WELCOME_TIMEOUT.as_secs())]
    Silent,
    #[error(transparent)]
    Unwelcome(#[from] crate::session::Unwelcome),
}

/// The keeper of the stream.
#[derive(Debug)]
pub struct Link {
    config: Config,
    events: mpsc::Sender<Event>,
}

impl Link {
    /// A link and what will happen on it.
    pub fn new(config: Config) -> (Self, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(QUEUED_EVENTS);
        (Self { config, events }, received)
    }

    /// Keeps a stream open until nobody takes the events any more. From when `hurry` is
    /// cancelled on, there is no time for long waits.
    pub async fn run(mut self, hurry: CancellationToken) {
        let events = self.events.clone();
        tokio::select! {
            () = self.keep_open(hurry) => {}
            () = events.closed() => {}
        }
    }

    async fn keep_open(&mut self, hurry: CancellationToken) {
        let mut backoff = Backoff::new(self.config.retry.0, self.config.retry.1);
        loop {
            let (failure, lived) = self.attempt().await;
            let own = backoff.next(lived);
            let retry_in = match &failure {
                Failure::Later { wait: Some(wait), .. } => (*wait).min(LONGEST_WAIT),
                _ => own,
            };
            let reason = failure.to_string();
            if self.events.send(Event::Disconnected { reason, retry_in }).await.is_err() {
                return;
            }
            let short = retry_in.min(self.config.retry.0);
            let hurried = async {
                hurry.cancelled().await;
                sleep(short).await;
            };
            tokio::select! {
                () = sleep(retry_in) => {}
                () = hurried => {}
            }
        }
    }

    /// Opens a stream and follows it; why it ended and how long it lived.
    async fn attempt(&mut self) -> (Failure, Duration) {
        let (connected, reply, mut incoming) = match self.open().await {
            Ok(open) => open,
            Err(failure) => return (failure, Duration::ZERO),
        };
        let since = Instant::now();
        let failure = match self.events.send(connected).await {
            Ok(()) => self.follow(&mut incoming, &reply).await,
            Err(_) => Failure::Ended,
        };
        (failure, since.elapsed())
    }

    async fn follow(&mut self, incoming: &mut Streaming<AggregatorMessage>, reply: &Reply) -> Failure {
        loop {
            let event = match incoming.message().await {
                Ok(Some(message)) => match message.message {
                    Some(Message::Ack(ack)) => Event::Ack(ack.up_to_id),
                    Some(Message::Nack(nack)) => Event::Nack(nack.reason),
                    Some(Message::Credit(credit)) => Event::Credit(credit.bytes),
                    Some(Message::PodUpdate(update)) => Event::Pods(update),
                    Some(Message::HostRead(read)) => Event::Asked(Box::new(read), reply.clone()),
                    Some(Message::HostReadEnd(end)) => Event::Unasked(end.id),
                    Some(Message::RequestsTold(told)) => Event::RequestsTold(told),
                    Some(Message::Clock(clock)) => match SystemTime::try_from(clock.time.unwrap_or_default())
                    {
                        Ok(time) => Event::Clock(time),
                        Err(_out_of_range) => continue,
                    },
                    Some(Message::Anchors(told)) => {
                        if let Authority::Anchors(anchors) = &mut self.config.authority {
                            anchors.learn(told.pem);
                        }
                        continue;
                    }
                    // A second Welcome changes nothing; what a newer aggregator
                    // says beyond this is not for us.
                    Some(Message::Welcome(_)) | None => continue,
                },
                Ok(None) => return Failure::Ended,
                Err(status) => return refusal(&status),
            };
            if self.events.send(event).await.is_err() {
                return Failure::Ended;
            }
        }
    }

    async fn open(&self) -> Result<(Event, Reply, Streaming<AggregatorMessage>), Failure> {
        let connector = Connector(self.target()?);
        let authorization = format!("Bearer {}", self.token()?)
            .parse()
            .map_err(|_| self.token_failure("does not hold a token".into()))?;
        // TLS is the connector's work, so the transport is told of plain HTTP.
        let authority = self.config.endpoint.authority().map_or("", http::uri::Authority::as_str);
        let channel = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| Failure::Endpoint(error.to_string()))?
            .origin(self.config.endpoint.clone())
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (messages, queue) = mpsc::channel(QUEUED_MESSAGES);
        let hello = agent_message::Message::Hello(self.config.hello.clone());
        // The queue is empty, so this can't fail.
        let _sent = messages.try_send(AgentMessage { message: Some(hello) });
        let mut request = Request::new(ReceiverStream::new(queue));
        request.metadata_mut().insert("authorization", authorization);
        let mut client = AgentLinkClient::new(channel);
        let asked = Instant::now();
        let begin = async {
            let mut incoming = client.attach(request).await.map_err(|status| refusal(&status))?.into_inner();
            let first = incoming.message().await.map_err(|status| refusal(&status))?;
            Ok::<_, Failure>((first, incoming))
        };
        let (first, incoming) = timeout(WELCOME_TIMEOUT, begin).await.map_err(|_| Failure::Silent)??;
        match first.map(|message| message.message) {
            Some(Some(Message::Welcome(welcome))) => {
                let reply = Reply(messages.downgrade());
                let session = Session::open(&welcome, messages)?;
                let Welcome { software_version, time, .. } = welcome;
                let time = time.and_then(|time| SystemTime::try_from(time).ok());
                let clock = time.map(|time| (time, asked));
                Ok((Event::Connected { session, software_version, clock }, reply, incoming))
            }
            Some(_) => Err(Failure::Stream("its first message is not a welcome".into())),
            None => Err(Failure::Ended),
        }
    }

    /// Address, name and trust as they are now.
    fn target(&self) -> Result<Target, Failure> {
        let endpoint = &self.config.endpoint;
        let host = endpoint.host().filter(|_| endpoint.scheme_str() == Some("https")).ok_or_else(|| {
            Failure::Endpoint(format!(
                "{endpoint} is not usable: it has to be https://host:port (KESTREL_LINK_ENDPOINT)"
            ))
        })?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (roots, setting) = match &self.config.authority {
            Authority::Anchors(anchors) => (anchors.roots(), "KESTREL_LINK_CA"),
            Authority::File(path) => {
                let pem = fs::read(path).map_err(|error| {
                    let text = match error.kind() {
                        io::ErrorKind::NotFound => format!(
                            "is not there yet: {} is filled by the aggregator when it starts to lead",
                            path.display()
                        ),
                        _ => format!("cannot be read from {}: {error}", path.display()),
                    };
                    Failure::Authority { problem: text, setting: "KESTREL_LINK_CA_FILE" }
                })?;
                (tls::roots(&pem), "KESTREL_LINK_CA_FILE")
            }
        };
        let roots = roots.map_err(|error| Failure::Authority { problem: error.to_string(), setting })?;
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Endpoint(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let port = endpoint.port_u16().unwrap_or(443);
        let config = Arc::new(config);
        // The link is inside the cluster.
        Ok(Target { server_name: host.clone(), host, port, config, proxy: None })
    }

    fn token(&self) -> Result<String, Failure> {
        let token = fs::read_to_string(&self.config.token_file)
            .map_err(|error| self.token_failure(format!("cannot be read: {error}")))?;
        match token.trim() {
            "" => Err(self.token_failure("is empty".into())),
            token => Ok(token.to_owned()),
        }
    }

    fn token_failure(&self, problem: String) -> Failure {
        Failure::Token { file: self.config.token_file.clone(), problem }
    }

    fn unreachable(&self, error: &tonic::transport::Error) -> Failure {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(error) = inner.downcast_ref::<ConnectError>() {
                return Failure::Connect(format!("{}: {error}{}", self.config.endpoint, advice(error)));
            }
            cause = inner.source();
        }
        Failure::Connect(format!("{}: {error}", self.config.endpoint))
    }
}

/// Opens the way to the aggregator as a [`Link`] would, and no stream on it: that one would take the place of the one
/// that is open.
///
/// # Errors
/// What is in the way, in a sentence.
pub async fn reach(config: Config) -> Result<(), String> {
    let (link, _events) = Link::new(config);
    let target = link.token().and_then(|_| link.target()).map_err(|failure| failure.to_string())?;
    let reached = target.connect().await.map(drop);
    reached.map_err(|error| format!("{}: {error}{}", link.config.endpoint, advice(&error)))
}

/// What may be the reason that nobody answers.
fn advice(error: &ConnectError) -> String {
    match error {
        ConnectError::Resolve { .. } => {
            "; does a NetworkPolicy keep this pod from asking the cluster's DNS (port 53)?".to_owned()
        }
        ConnectError::Reach { port, source, .. } if source.kind() != io::ErrorKind::ConnectionRefused => {
            format!("; does a NetworkPolicy keep this pod from TCP port {port} of the operator's namespace?")
        }
        _ => String::new(),
    }
}

/// What a status means for us.
fn refusal(status: &Status) -> Failure {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated => Failure::Unauthenticated(message),
        Code::PermissionDenied => Failure::Denied(message),
        Code::Unavailable | Code::ResourceExhausted => {
            Failure::Later { message, wait: retry_after(status.metadata()) }
        }
        code => Failure::Stream(format!("{message} ({code:?})")),
    }
}

fn retry_after(metadata: &MetadataMap) -> Option<Duration> {
    metadata.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}
