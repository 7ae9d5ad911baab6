//! The other end of the agent link: takes batches, counts what is in them, and answers at once
//! or, if that is asked for, slowly or not at all.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kestrel_proto::node::v1::{
    Ack, AgentMessage, AggregatorMessage, Batch, BatchContent, Compression, Credit, Welcome,
    agent_link_server::{AgentLink, AgentLinkServer},
    agent_message,
    aggregator_message::Message,
};
use kestrel_runtime::tls::{authority::Authority, server};
use prost::{Message as _, encoding::decode_varint};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// What the aggregator grants: bytes of a batch, and bytes that may be under way.
const BATCH_BYTES: u64 = 4 << 20;

/// How fast batches are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    /// None at all, and nothing is read.
    Stalled,
    /// So many bytes a second, before compression.
    Slow(u64),
}

/// What a line that says when it was written begins with.
pub(crate) const WRITTEN: &str = "written=";

/// A listening sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    pub(crate) authority: PathBuf,
    pub(crate) token: PathBuf,
    shared: Arc<Shared>,
    pace: watch::Sender<Pace>,
}

#[derive(Default)]
struct Shared {
    lines: AtomicU64,
    payload_bytes: AtomicU64,
    latencies: Mutex<Vec<f64>>,
}

impl Sink {
    /// Listens on the loopback; what agents need to find and trust it lies in `folder`.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let (authority_file, token) = (folder.join("ca.crt"), folder.join("token"));
        let authority = Authority::generate("agent link")?;
        fs::write(&authority_file, authority.certificate_pem())?;
        fs::write(&token, "bench")?;
        let certificate = Arc::new(server::ServingCertificate::default());
        certificate
            .replace(authority.server_certificate(&["localhost".to_owned()], Duration::from_secs(86_400))?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (accepted, connections) = mpsc::channel(4);
        let tls = server::config(certificate, &["h2"]);
        tokio::spawn(server::accept(listener, tls, CancellationToken::new(), accepted, |_, _| {}));
        let (pace, paces) = watch::channel(Pace::AtOnce);
        let shared = Arc::new(Shared::default());
        let service = AgentLinkServer::new(Service { shared: Arc::clone(&shared), paces })
            .max_decoding_message_size(2 * BATCH_BYTES as usize);
        let connections = ReceiverStream::new(connections).map(|(stream, _)| Ok::<_, std::io::Error>(stream));
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections),
        );
        Ok(Self { address, authority: authority_file, token, shared, pace })
    }

    pub(crate) fn set_pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    /// Lines since the start.
    pub(crate) fn lines(&self) -> u64 {
        self.shared.lines.load(Relaxed)
    }

    /// Compressed bytes since the start.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.shared.payload_bytes.load(Relaxed)
    }

    /// Milliseconds from write to arrival, of the lines that said it since the last call.
    pub(crate) fn take_latencies(&self) -> Vec<f64> {
        std::mem::take(&mut *self.shared.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn take(&self, batch: &Batch) -> Result<BatchContent, Status> {
        let invalid = |what: String| Status::invalid_argument(what);
        let bytes = match Compression::try_from(batch.compression) {
            Ok(Compression::Zstd) => zstd::bulk::decompress(&batch.payload, BATCH_BYTES as usize)
                .map_err(|error| invalid(error.to_string()))?,
            other => return Err(invalid(format!("{other:?}"))),
        };
        let content = BatchContent::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))?;
        self.payload_bytes.fetch_add(batch.payload.len() as u64, Relaxed);
        Ok(content)
    }

    fn count(&self, content: &BatchContent) -> Result<(), &'static str> {
        let now = nanos_since_1970();
        let mut lines = 0;
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in &content.logs {
            let (mut lengths, mut texts) = (&chunk.text_lengths[..], &chunk.texts[..]);
            while let Ok(length) = decode_varint(&mut lengths) {
                let text = texts.split_off(..length as usize).ok_or("a text is missing")?;
                latencies.extend(latency(text, now));
                lines += 1;
            }
        }
        self.lines.fetch_add(lines, Relaxed);
        Ok(())
    }
}

/// Milliseconds from when `text` says that it was written.
fn latency(text: &[u8], now: u64) -> Option<f64> {
    let rest = text.strip_prefix(WRITTEN.as_bytes())?;
    let nanos = str::from_utf8(rest.split(|byte| *byte == b' ').next()?).ok()?.parse().ok()?;
    Some(now.saturating_sub(nanos) as f64 / 1e6)
}

pub(crate) fn nanos_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

struct Service {
    shared: Arc<Shared>,
    paces: watch::Receiver<Pace>,
}

type Answer = Result<AggregatorMessage, Status>;

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = ReceiverStream<Answer>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (answers, outgoing) = mpsc::channel(64);
        let (shared, paces) = (Arc::clone(&self.shared), self.paces.clone());
        tokio::spawn(async move {
            if let Err(status) = serve(&shared, paces, request.into_inner(), &answers).await {
                let _peer_has_gone = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

async fn serve(
    shared: &Shared,
    mut paces: watch::Receiver<Pace>,
    mut incoming: Streaming<AgentMessage>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), Status> {
    let send = async |message| {
        let message = AggregatorMessage { message: Some(message) };
        answers.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent has gone"))
    };
    loop {
        let gone = paces.wait_for(|pace| *pace != Pace::Stalled).await.is_err();
        let Some(AgentMessage { message }) = incoming.message().await?.filter(|_| !gone) else {
            return Ok(());
        };
        match message {
            Some(agent_message::Message::Hello(hello)) => {
                send(Message::Welcome(Welcome {
                    protocol_version: hello.protocol_version,
                    credit_bytes: BATCH_BYTES,
                    max_batch_bytes: BATCH_BYTES,
                    ..Welcome::default()
                }))
                .await?;
            }
            Some(agent_message::Message::Batch(batch)) => {
                let content = shared.take(&batch)?;
                shared.count(&content).map_err(Status::invalid_argument)?;
                let pace = *paces.borrow();
                if let Pace::Slow(bytes) = pace {
                    sleep(Duration::from_secs_f64(batch.content_bytes as f64 / bytes as f64)).await;
                }
                send(Message::Credit(Credit { bytes: batch.payload.len() as u64 })).await?;
                send(Message::Ack(Ack { up_to_id: batch.id })).await?;
            }
            // What else an agent says is not asked for.
            _ => {}
        }
    }
}
