//! One attached stream: batches go up, answers, credit and pods come down.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kestrel_proto::node::v1::{
    AgentMessage, AggregatorMessage, Anchors, Batch, BatchContent, Clock, Credit, Farewell, HostAnswer,
    HostReport, LogChunk, LogGap, RequestReport, RequestsTold, Welcome, agent_message::Message as Up,
    aggregator_message::Message as Down,
};
use prost::Message as _;
use tokio::{
    sync::{
        AcquireError, OwnedSemaphorePermit, Semaphore,
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    time::timeout,
};
use tonic::{Code, Status, Streaming};
use tracing::{error, info};

use super::{
    Shared,
    admission::{Full, Seat},
    batch::{self, Content},
    columns::Line,
    gap,
    identity::{Identity, MAX_NAME, Peer},
    ledger::{Ledger, Settled},
    lines::pod_logs,
    metrics::{Answered, OutcomeLabel, Refused, Role, RoleLabel},
    nodes::{HOST_READS, Nodes, Questions},
    refusals::cut,
    retry_after,
};
use crate::{
    inventory::{convert, pods::Follower},
    signals::lines::MOST_SHOWN,
    traffic::requests::sent::Sender,
    uplink::receipt::{Outcome, Receipt, Source},
};

/// The version of the protocol that this code speaks.
const PROTOCOL_VERSION: u32 = 1;
/// The first message must come within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that does not read gets this long to take the reason of the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that does not read for this time is detached: what it sent keeps room
/// from others until it has its answers.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Batches of one stream that may wait for their answer. Beyond it the peer is
/// not read, and so makes larger batches.
const MOST_UNANSWERED: usize = 8192;
/// A host's report is a few conditions.
const MAX_REPORT_BYTES: usize = 64 * 1024;
/// Pods that a peer may not speak of are named up to this number.
const MOST_NAMED: usize = 32;
/// A version is shown up to this number of bytes.
const VERSION_BYTES: usize = 64;
/// Containers whose lines are counted. Beyond it those of forgotten pods are
/// dropped, and all if that is not enough.
const MOST_COUNTED: usize = 1024;

/// The feature of a sidecar that says farewell.
const FAREWELL: &str = "farewell";

/// Our features: flows are taken, and what proxies logged.
const FEATURES: [&str; 2] = ["flows", "requests"];

/// What goes to the peer.
pub(super) type Answers = mpsc::Sender<Result<AggregatorMessage, Status>>;

/// A stream whose token was accepted.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Identity,
    pub(super) address: IpAddr,
    pub(super) answers: Answers,
}

impl Session {
    /// Runs until the peer leaves, breaks the protocol or is replaced, or the
    /// drain begins. The peer is told the reason.
    ///
    /// There are thousands of these, nearly all of them idle: what is not always needed is on
    /// the heap as long as it is, and nothing is handed on by value, which would double it.
    pub(super) async fn run(self, mut inbound: Streaming<AgentMessage>) {
        let (told, mut requests) = unbounded_channel();
        let (seat, able) = match self.until_over(Box::pin(self.greeted(&mut inbound))).await {
            Ok(greeted) => greeted,
            Err(status) => return self.farewell(status, requests).await,
        };
        let peer = &self.identity.peer;
        let role = match peer {
            Peer::Agent { .. } => Role::Agent,
            Peer::Sidecar { .. } => Role::Sidecar,
        };
        let attached = self.shared.metrics.attached.get_or_create(&RoleLabel { role }).clone();
        attached.inc();
        if let Some(uid) = peer.pod() {
            self.shared.silence().attached(uid, able.parts);
        }
        let end =
            self.until_over(Box::pin(self.converse(&mut inbound, &seat, able, (told, &mut requests)))).await;
        if let Some(uid) = peer.pod() {
            self.shared.silence().detached(uid);
        }
        attached.dec();
        match end {
            Ok(()) => info!("{peer} has left"),
            Err(status) => {
                info!("{peer} is detached: {}", status.message());
                self.farewell(status, requests).await;
            }
        }
    }

    async fn until_over<T>(
        &self,
        mut work: Pin<Box<impl Future<Output = Result<T, Status>>>>,
    ) -> Result<T, Status> {
        tokio::select! {
            end = &mut work => end,
            () = self.answers.closed() => Err(gone()),
            () = self.shared.drain.cancelled() => Err(super::leader_changes()),
        }
    }

    /// Tells which requests were told and it has not heard of, which it would send to the next leader, and why this is the end.
    async fn farewell(&self, status: Status, mut requests: UnboundedReceiver<RequestsTold>) {
        let parting = async {
            while let Ok(told) = requests.try_recv() {
                self.send(Down::RequestsTold(told)).await?;
            }
            self.answers.send(Err(status)).await.map_err(|_| gone())
        };
        let _peer_may_be_gone = timeout(FAREWELL_TIMEOUT, parting).await;
    }

    /// Takes the peer's Hello, gives it a place and welcomes it. Whoever claims
    /// to be somebody else does not even take the place of whom its token names.
    /// Returns also what it is able to do.
    async fn greeted(&self, inbound: &mut Streaming<AgentMessage>) -> Result<(Seat, Able), Status> {
        let Self { shared, identity: Identity { peer, .. }, address, .. } = self;
        let refuse = |status: fn(String) -> Status, why: String| {
            shared.refuse(*address, Refused::Claim, &format!("is not let in: {why}"));
            status(why)
        };
        let Ok(first) = timeout(HELLO_TIMEOUT, inbound.message()).await else {
            return Err(refuse(Status::deadline_exceeded, "it does not say Hello within 10 s".to_owned()));
        };
        let Some(AgentMessage { message: Some(Up::Hello(hello)) }) = first.map_err(broken)? else {
            return Err(refuse(Status::invalid_argument, "its first message is not Hello".to_owned()));
        };
        peer.check(&hello).map_err(|why| refuse(Status::permission_denied, why))?;
        if hello.protocol_version == 0 {
            return Err(refuse(Status::invalid_argument, "its Hello names no protocol version".to_owned()));
        }
        let seat = shared.admission.enter(peer, shared.signals.nodes.count()).map_err(|Full(wait)| {
            let why =
                format!("there is no place among {} (KESTREL_LINK_MAX_CONNECTIONS)", shared.admission.most());
            shared.refuse(*address, Refused::Full, &format!("is not let in: {why}"));
            if let Some(uid) = peer.pod() {
                shared.silence().refused(uid);
            }
            retry_after(Status::resource_exhausted(why), wait)
        })?;
        let version = cut(&hello.software_version, VERSION_BYTES);
        info!("{peer} is attached from {address}, version {version:?}");
        self.send(Down::Welcome(Welcome {
            protocol_version: hello.protocol_version.min(PROTOCOL_VERSION),
            features: FEATURES.map(str::to_owned).into(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            credit_bytes: batch::MAX_BYTES as u64,
            max_batch_bytes: batch::MAX_BYTES as u64,
            pod_bytes_per_second: peer.pod().map_or(0, |_| shared.pod_bytes_per_second),
            time: Some(convert::timestamp(Timestamp::now())),
        }))
        .await?;
        let able = |name: &str| hello.features.iter().any(|feature| feature == name);
        Ok((seat, Able { parts: able(FAREWELL), answers: able(HOST_READS) }))
    }

    async fn converse(
        &self,
        inbound: &mut Streaming<AgentMessage>,
        seat: &Seat,
        able: Able,
        (told, requests): (UnboundedSender<RequestsTold>, &mut UnboundedReceiver<RequestsTold>),
    ) -> Result<(), Status> {
        let only = self.identity.peer.pod();
        let mut follower = self.shared.pods.follow(&self.identity.node, only);
        // Node agents have a file, which follows the authority.
        let mut anchors = only.map(|_| self.shared.anchors.clone());
        if let Some(anchors) = &mut anchors {
            anchors.mark_changed();
        }
        let (source, mut outcomes) = match &self.identity.peer {
            Peer::Agent { .. } => Source::new(),
            Peer::Sidecar { .. } => Source::of_a_sidecar(),
        };
        let open = Open { batches: Mutex::default(), places: Semaphore::new(MOST_UNANSWERED) };
        let questions = match &self.identity.peer {
            Peer::Agent { node } if able.answers => Some(self.shared.nodes.attached(node)),
            _ => None,
        };
        let questions = questions.as_ref();
        let (lines, named) = Default::default();
        let mut reader = Reader { session: self, open: &open, source, questions, told, lines, named };
        tokio::select! {
            end = reader.run(inbound) => end,
            end = self.write(&open, (&mut outcomes, requests), &mut follower, anchors, questions) => end,
            () = seat.replaced() => {
                Err(Status::aborted("a newer stream of the same peer took the place of this one"))
            }
        }
    }

    /// Tells what the batches and the requests in them became, which pods there are and whom to trust, and asks what is asked of
    /// the node.
    async fn write(
        &self,
        open: &Open,
        (outcomes, requests): (&mut UnboundedReceiver<(u64, Outcome)>, &mut UnboundedReceiver<RequestsTold>),
        follower: &mut Follower,
        mut anchors: Option<watch::Receiver<String>>,
        questions: Option<&Questions>,
    ) -> Result<(), Status> {
        loop {
            while let Some(update) = follower.update() {
                self.send(Down::PodUpdate(update)).await?;
            }
            tokio::select! {
                () = follower.changed() => {}
                Some(question) = next(questions) => self.send(question).await?,
                Some(pem) = changed(&mut anchors) => self.send(Down::Anchors(Anchors { pem })).await?,
                Some(told) = requests.recv() => self.send(Down::RequestsTold(told)).await?,
                Some((id, outcome)) = outcomes.recv() => {
                    let Settled { answers, acked, given_up } = open.settle(id, outcome);
                    for (outcome, count) in [(Answered::Acked, acked), (Answered::Nacked, given_up)] {
                        let label = OutcomeLabel { outcome };
                        self.shared.metrics.batches.get_or_create(&label).inc_by(count as u64);
                    }
                    for answer in answers {
                        self.answer(answer).await?;
                    }
                }
            }
        }
    }

    async fn send(&self, message: Down) -> Result<(), Status> {
        self.answer(AggregatorMessage { message: Some(message) }).await
    }

    async fn answer(&self, message: AggregatorMessage) -> Result<(), Status> {
        match timeout(SEND_TIMEOUT, self.answers.send(Ok(message))).await {
            Ok(sent) => sent.map_err(|_| gone()),
            Err(_) => Err(Status::deadline_exceeded("it does not read what it is sent")),
        }
    }
}

/// What a peer said of itself.
#[derive(Clone, Copy)]
struct Able {
    /// It says farewell.
    parts: bool,
    /// It answers reads of its node.
    answers: bool,
}

/// The next question to ask, if any ever are.
async fn next(questions: Option<&Questions>) -> Option<Down> {
    Some(questions?.next().await)
}

/// The next anchors to tell, if any ever are.
async fn changed(anchors: &mut Option<watch::Receiver<String>>) -> Option<String> {
    let anchors = anchors.as_mut()?;
    anchors.changed().await.ok()?;
    Some(anchors.borrow_and_update().clone())
}

fn gone() -> Status {
    Status::cancelled("its connection is gone")
}

/// What is wrong with what the peer sent, or that there is nothing more to read.
fn broken(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange | Code::DeadlineExceeded => status,
        _ => gone(),
    }
}

/// Batches without an answer.
struct Open {
    batches: Mutex<Batches>,
    /// places of this stream
    places: Semaphore,
}

#[derive(Default)]
struct Batches {
    ledger: Ledger,
    /// the batches' share of the places of all streams
    share: Option<OwnedSemaphorePermit>,
}

impl Open {
    /// Takes up a batch when there is a place for it; `false`: see [`Ledger::begin`].
    async fn begin(&self, batch: &Batch, of_all: &Arc<Semaphore>) -> Result<bool, Status> {
        let closed = |error: AcquireError| Status::internal(error.to_string());
        let place = self.places.acquire().await.map_err(closed)?;
        let share = Arc::clone(of_all).acquire_owned().await.map_err(closed)?;
        let mut batches = self.batches();
        if !batches.ledger.begin(batch.id, batch.nacks_seen).map_err(Status::invalid_argument)? {
            return Ok(false);
        }
        place.forget();
        match &mut batches.share {
            Some(all) => all.merge(share),
            none => *none = Some(share),
        }
        Ok(true)
    }

    fn settle(&self, id: u64, outcome: Outcome) -> Settled {
        let mut batches = self.batches();
        let settled = batches.ledger.settle(id, outcome);
        let places = settled.acked + settled.given_up;
        self.places.add_permits(places);
        drop(batches.share.as_mut().and_then(|all| all.split(places)));
        settled
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what the peer sends. It reads on only when the lane has taken what
/// was read, so that a peer that ignores its credit is held by the transport.
struct Reader<'a> {
    session: &'a Session,
    open: &'a Open,
    source: Source,
    questions: Option<&'a Questions>,
    /// hears what has been told of requests
    told: UnboundedSender<RequestsTold>,
    /// lines so far, by pod UID and container
    lines: HashMap<(String, String), i64>,
    /// pods that the peer may not speak of, and was told so
    named: HashSet<String>,
}

impl Reader<'_> {
    async fn run(&mut self, inbound: &mut Streaming<AgentMessage>) -> Result<(), Status> {
        while let Some(AgentMessage { message }) = inbound.message().await.map_err(broken)? {
            match message {
                Some(Up::Batch(batch)) => Box::pin(self.take(batch)).await?,
                Some(Up::HostReport(report)) => self.report(report).await?,
                Some(Up::Farewell(farewell)) => Box::pin(self.farewell(farewell)).await?,
                Some(Up::HostAnswer(answer)) => self.answered(answer)?,
                Some(Up::Hello(_)) => return Err(Status::invalid_argument("a second Hello")),
                // Of a newer protocol than we said we speak; it can be nothing that matters.
                None => {}
            }
        }
        Ok(())
    }

    async fn report(&self, report: HostReport) -> Result<(), Status> {
        let Peer::Agent { node } = &self.session.identity.peer else {
            return Err(Status::permission_denied("a sidecar has no host to report of"));
        };
        let bytes = report.encoded_len();
        if bytes > MAX_REPORT_BYTES {
            let why = format!("a host report of {bytes} bytes; {MAX_REPORT_BYTES} are allowed");
            return Err(Status::invalid_argument(why));
        }
        let signals = &self.session.shared.signals;
        signals.nodes.reported(node, report.conditions);
        signals.happened.on(node, report.events, Timestamp::now());
        let time = Some(convert::timestamp(Timestamp::now()));
        self.session.send(Down::Clock(Clock { time })).await
    }

    fn answered(&self, answer: HostAnswer) -> Result<(), Status> {
        let Some(questions) = self.questions else {
            return Err(Status::permission_denied("an answer of one who is not asked"));
        };
        let bytes = answer.encoded_len();
        if bytes > Nodes::ANSWER_BYTES + 64 * 1024 {
            let why =
                format!("an answer of {bytes} bytes to a read; {} of text are allowed", Nodes::ANSWER_BYTES);
            return Err(Status::invalid_argument(why));
        }
        questions.answered(answer);
        Ok(())
    }

    /// What the sidecar of a pod that has ended could not send becomes gaps.
    async fn farewell(&mut self, farewell: Farewell) -> Result<(), Status> {
        let Some(uid) = self.session.identity.peer.pod() else {
            return Err(Status::permission_denied("a node agent does not say farewell"));
        };
        self.session.shared.silence().parted(uid);
        // Nobody waits for what becomes of it.
        let (source, _unheard) = Source::of_a_sidecar();
        let receipt = source.receipt(1, 0);
        self.tell(farewell.gaps, &receipt).await;
        receipt.left();
        Ok(())
    }

    async fn tell(&mut self, gaps: Vec<LogGap>, receipt: &Receipt) {
        let now = Timestamp::now();
        for (chunk, text) in gaps.into_iter().map(gap::told) {
            self.pass_on(&chunk, vec![gap::line(&text, now)], receipt).await;
        }
    }

    async fn take(&mut self, batch: Batch) -> Result<(), Status> {
        let shared = &self.session.shared;
        let (id, nacks_seen, bytes) = (batch.id, batch.nacks_seen, batch.payload.len() as u64);
        let invalid = |why: batch::Invalid| Status::invalid_argument(format!("batch {id} {why}"));
        shared.metrics.payload_bytes.inc_by(bytes);
        if !self.open.begin(&batch, &shared.unanswered).await? {
            return self.session.send(Down::Credit(Credit { bytes })).await;
        }

        // One batch at a time is decompressed and waits for room, so that those
        // who wait behind it hold nothing but what they received.
        let turn = shared.turn.lock().await;
        let content = Content::of(batch).map_err(invalid)?;
        let room = shared.decoded.take(content.decoded_bytes).await;
        drop(turn);

        let receipt = self.source.receipt(id, nacks_seen);
        let BatchContent { logs, flows, requests, gaps } = content.decode().map_err(invalid)?;
        let chunks = batch::lines(&logs).map_err(invalid)?;
        match &self.session.identity.peer {
            Peer::Agent { node } => flows.into_iter().for_each(|report| shared.traffic.take(node, report)),
            Peer::Sidecar { .. } if flows.is_empty() => {}
            Peer::Sidecar { .. } => return Err(Status::permission_denied("a sidecar sees no node's flows")),
        }
        self.take_requests(&requests);
        self.tell(gaps, &receipt).await;
        for (chunk, lines) in logs.iter().zip(chunks) {
            self.pass_on(chunk, lines, &receipt).await;
        }
        receipt.left();
        drop(room);
        self.session.send(Down::Credit(Credit { bytes })).await
    }

    fn take_requests(&self, reports: &[RequestReport]) {
        let Session { shared, identity, address, .. } = self.session;
        let peer = &identity.peer;
        let sender = match peer {
            Peer::Agent { node } => Sender::Agent(node),
            Peer::Sidecar { namespace, pod, .. } => Sender::Collector { namespace, pod, address: *address },
        };
        for report in reports {
            shared.requests.take(&peer.to_string(), sender, report, &self.told);
        }
    }

    async fn pass_on(&mut self, chunk: &LogChunk, mut lines: Vec<Line<'_>>, receipt: &Receipt) {
        let Session { shared, identity, .. } = self.session;
        let known = shared.pods.get(&chunk.pod_uid);
        shared.metrics.lines_left_out.inc_by(chunk.lines_left_out);
        if shared.pods.keeps(&chunk.pod_namespace) {
            // Of an agent that does not know it yet.
            shared.metrics.kept_lines.inc_by(lines.len() as u64);
            return;
        }
        if !identity.may_send(chunk, known.as_ref()) {
            shared.metrics.foreign_lines.inc_by(lines.len() as u64);
            let names = [&chunk.pod_namespace, &chunk.pod_name, &chunk.pod_uid];
            let [namespace, pod, uid] = names.map(|name| cut(name, MAX_NAME));
            if self.named.len() < MOST_NAMED && self.named.insert(uid.to_owned()) {
                let peer = &identity.peer;
                error!(
                    "lines of the pod {namespace:?}/{pod:?} ({uid:?}) dropped: {peer} may not speak of it"
                );
            }
            return;
        }
        let (repeats, rest) = shared.repeats().sift(&identity.peer.to_string(), chunk, &mut lines, receipt);
        shared.metrics.repeated_lines.inc_by(repeats);
        let Some(receipt) = rest else { return };
        shared.metrics.lines.inc_by(lines.len() as u64);
        if self.lines.len() >= MOST_COUNTED {
            self.lines.retain(|(uid, _), _| shared.pods.node_of(uid).is_some());
        }
        if self.lines.len() >= MOST_COUNTED {
            self.lines.clear();
        }
        let uid = known.as_ref().map_or(chunk.pod_uid.as_str(), |known| &known.api_uid);
        let time = |line: &Line<'_>| {
            let at = (line.nanoseconds > 0).then(|| Timestamp::from_nanosecond(line.nanoseconds.into()).ok());
            at.flatten()
        };
        let shown =
            lines[lines.len().saturating_sub(MOST_SHOWN)..].iter().map(|line| (time(line), line.text));
        shared.signals.lines.keep(uid, &chunk.container_name, shown);
        if let Some(known) = &known {
            let written = lines.iter().map(|line| (time(line), line.text));
            shared.signals.edges.wrote(known, written, Timestamp::now());
        }
        let number = self.lines.entry((chunk.pod_uid.clone(), chunk.container_name.clone())).or_default();
        for message in pod_logs(chunk, &lines, known.as_ref(), &identity.node, number, Timestamp::now()) {
            shared.logs.send(message, receipt.clone()).await;
        }
        receipt.left();
    }
}
