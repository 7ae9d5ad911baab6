//! What all streams of a running cloud share: the record, the ways down to the
//! operators, and the switches that break things on purpose.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::{
    credentials::{Authority, Claims, tokens},
    faults::{self, Faults, Moment, When},
    record::{Arrival, Parsed, Record, connections::Refusal},
    wire::{Order, Stream},
};

/// Messages for one stream that the operator has not read yet.
const DOWN_QUEUE: usize = 64;
/// Events that a slow watcher may be behind before it loses some.
const WATCH_QUEUE: usize = 2048;

/// What a watcher is told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message came.
    Arrival(Arc<Arrival>),
    /// A connection or stream changed, or something was refused.
    Note {
        /// When.
        at: Timestamp,
        /// `connection`, `stream` or `refusal`.
        kind: &'static str,
        /// A sentence.
        text: String,
    },
}

/// Why a message did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is not as the contract says.
    #[error("{0}")]
    Malformed(String),
    /// Nobody to send it to.
    #[error("no operator has its {0} stream open")]
    NoStream(&'static str),
    /// The operator reads nothing.
    #[error("the operator does not read its {0} stream: {DOWN_QUEUE} messages wait already")]
    Stuck(&'static str),
    /// Sent, and no answer came.
    #[error("no answer to request {request_id} within {seconds} s")]
    NoAnswer {
        /// The request.
        request_id: String,
        /// The limit.
        seconds: u64,
    },
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What the answer names; empty where none is expected.
    pub request_id: String,
    /// On which stream it went.
    pub stream: Stream,
    /// From sending to the answer.
    pub elapsed: Duration,
    /// The answer, where one is expected.
    pub answer: Option<Arc<Arrival>>,
}

/// A stream that was let in.
pub(crate) struct Opened {
    pub(crate) id: u64,
    pub(crate) cluster: Arc<str>,
    pub(crate) orders: mpsc::Receiver<Bytes>,
    pub(crate) end: End,
}

struct Down {
    stream: Stream,
    orders: mpsc::Sender<Bytes>,
    end: End,
}

/// How a stream ended; the first who says it is right. Clones share it.
#[derive(Clone)]
pub(crate) struct End(Arc<watch::Sender<Option<Result<(), Status>>>>);

impl End {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// The stream ends, in `status` unless that is OK.
    pub(crate) fn with(&self, status: Status) {
        let end = if status.code() == Code::Ok { Ok(()) } else { Err(status) };
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(end);
            first
        });
    }

    /// Resolves when it has ended.
    pub(crate) async fn come(&self) -> Result<(), Status> {
        let mut known = self.0.subscribe();
        let end = known.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(Ok(()))
    }
}

/// The shared state.
pub(crate) struct Hub {
    pub(crate) authority: Authority,
    pub(crate) tenant: String,
    pub(crate) token_lifetime: Duration,
    pub(crate) heartbeat: Duration,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    /// The tasks that read the streams.
    pub(crate) readers: TaskTracker,
    record: Mutex<Record>,
    changed: watch::Sender<u64>,
    events: broadcast::Sender<Event>,
    down: Mutex<BTreeMap<u64, Down>>,
    faults: watch::Sender<Faults>,
    /// Ends what the present faults do over time.
    course: Mutex<Option<DropGuard>>,
    cut: Mutex<CancellationToken>,
    goaway: Mutex<CancellationToken>,
    ids: AtomicU64,
}

impl Hub {
    pub(crate) fn new(
        authority: Authority,
        tenant: String,
        token_lifetime: Duration,
        heartbeat: Duration,
        prunes: bool,
    ) -> Self {
        Self {
            authority,
            tenant,
            token_lifetime,
            heartbeat,
            stop: CancellationToken::new(),
            readers: TaskTracker::new(),
            record: Mutex::new(Record::new(Timestamp::now(), prunes)),
            changed: watch::Sender::new(0),
            events: broadcast::Sender::new(WATCH_QUEUE),
            down: Mutex::default(),
            faults: watch::Sender::default(),
            course: Mutex::default(),
            cut: Mutex::default(),
            goaway: Mutex::default(),
            ids: AtomicU64::new(0),
        }
    }

    /// Reads the record.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&lock(&self.record))
    }

    /// Changes the record and wakes whoever waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let result = change(&mut lock(&self.record));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Waits until `found` finds something in the record; `None` at the deadline.
    pub(crate) async fn wait_for<T>(
        &self,
        limit: Duration,
        mut found: impl FnMut(&Record) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(result) = self.read(&mut found) {
                return Some(result);
            }
            timeout_at(deadline, changed.changed()).await.ok()?.ok()?;
        }
    }

    /// Everything that happens from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Tells the watchers and the record that something was not let in.
    pub(crate) fn refuse(&self, peer: SocketAddr, rpc: &str, reason: String) {
        warn!("Refused {rpc} from {peer}: {reason}");
        self.note("refusal", format!("{rpc} from {peer}: {reason}"));
        let refusal = Refusal { at: Timestamp::now(), peer, rpc: rpc.to_owned(), reason };
        self.change(|record| record.connections.refuse(refusal));
    }

    /// Tells the watchers.
    pub(crate) fn note(&self, kind: &'static str, text: String) {
        // An error means that nobody watches.
        let _ = self.events.send(Event::Note { at: Timestamp::now(), kind, text });
    }

    /// Takes in what came on a stream.
    pub(crate) fn insert(&self, stream: Stream, opened: (u64, &Arc<str>), envelope: Bytes) {
        let (id, cluster) = opened;
        let parsed = Parsed::new(stream, id, cluster, envelope, Timestamp::now());
        let arrival = self.change(|record| record.insert(parsed));
        if let Some(arrival) = arrival {
            let _ = self.events.send(Event::Arrival(arrival));
        }
    }

    /// Opens the way down of a stream.
    pub(crate) fn open(&self, connection: u64, stream: Stream, claims: &Claims) -> Opened {
        let (sender, orders) = mpsc::channel(DOWN_QUEUE);
        let id = self.next_id();
        let cluster: Arc<str> = claims.sub.as_str().into();
        let end = End::new();
        lock(&self.down).insert(id, Down { stream, orders: sender, end: end.clone() });
        let now = Timestamp::now();
        self.change(|record| record.connections.open_stream(connection, (stream, id), &cluster, now));
        Opened { id, cluster, orders, end }
    }

    /// Closes it.
    pub(crate) fn close(&self, connection: u64, stream: Stream, id: u64, outcome: String) {
        lock(&self.down).remove(&id);
        let now = Timestamp::now();
        self.change(|record| record.connections.close_stream(connection, (stream, id), outcome, now));
    }

    /// Sends `{"<member>": {…}}` to the operator whose stream was opened last
    /// and waits for the answer, if the message has one.
    pub(crate) async fn send(
        &self,
        json: &Value,
        stream: Option<Stream>,
        limit: Duration,
    ) -> Result<Sent, SendError> {
        let stream = stream.unwrap_or_else(|| self.best_stream(json));
        // Unique over restarts, as an operator may know the ids of an earlier run.
        let fallback_id = format!("dev-{:x}-{}", Timestamp::now().as_microsecond(), self.next_id());
        let order = Order::from_json(stream, json, &fallback_id).map_err(SendError::Malformed)?;
        let started = Instant::now();
        let orders = lock(&self.down)
            .values()
            .rev()
            .find(|down| down.stream == stream)
            .map(|down| down.orders.clone())
            .ok_or(SendError::NoStream(stream.name()))?;
        orders.try_send(order.envelope).map_err(|problem| match problem {
            mpsc::error::TrySendError::Full(_) => SendError::Stuck(stream.name()),
            mpsc::error::TrySendError::Closed(_) => SendError::NoStream(stream.name()),
        })?;
        let request_id = order.request_id;
        let answer = if request_id.is_empty() {
            None
        } else {
            let answer = self.wait_for(limit, |record| record.answer(&request_id).cloned()).await;
            let seconds = limit.as_secs();
            Some(answer.ok_or_else(|| SendError::NoAnswer { request_id: request_id.clone(), seconds })?)
        };
        Ok(Sent { request_id, stream, elapsed: started.elapsed(), answer })
    }

    /// Orders go on the control stream where one is open; policies always go
    /// on the data stream, the only one on which every operator reads them.
    fn best_stream(&self, json: &Value) -> Stream {
        let control = lock(&self.down).values().any(|down| down.stream == Stream::Control);
        let data_only = ["network_policy", "ack"].iter().any(|kind| json.get(kind).is_some());
        if control && !data_only { Stream::Control } else { Stream::Data }
    }

    /// What is broken now.
    pub(crate) fn faults(&self) -> watch::Ref<'_, Faults> {
        self.faults.borrow()
    }

    /// What is broken now, and every change of it.
    pub(crate) fn watch_faults(&self) -> watch::Receiver<Faults> {
        self.faults.subscribe()
    }

    /// Whether a fault ends a stream at this moment.
    pub(crate) fn strike(&self, stream: Stream, moment: Moment) -> Option<Status> {
        let mut struck = None;
        self.faults.send_if_modified(|faults| {
            struck = faults.strike(stream, moment);
            struck.is_some()
        });
        struck
    }

    /// Replaces what is broken.
    pub(crate) fn set_faults(self: &Arc<Self>, mut faults: Faults) {
        let (cut, goaway) = (std::mem::take(&mut faults.cut), std::mem::take(&mut faults.goaway));
        let (flap, lasts) = (faults.flap.take(), faults.lasts);
        let (now, later) = faults.resets.drain(..).partition(|reset| reset.when == When::Now);
        faults.resets = later;
        self.faults.send_replace(faults);
        for reset in now {
            for down in lock(&self.down).values().filter(|down| reset.streams.contains(&down.stream)) {
                down.end.with(faults::status(reset.code));
            }
        }
        if cut {
            self.cut_all();
        }
        if goaway {
            std::mem::take(&mut *lock(&self.goaway)).cancel();
        }
        let course = self.stop.child_token();
        let earlier = lock(&self.course).replace(course.clone().drop_guard());
        drop(earlier);
        if flap.is_none() && lasts.is_none() {
            return;
        }
        let hub = Arc::clone(self);
        self.readers.spawn(async move {
            let flapping = async {
                let Some(flap) = flap else { return };
                for _ in 0..flap.times {
                    sleep(flap.interval()).await;
                    hub.cut_all();
                }
            };
            let ending = async {
                let Some(lasts) = lasts else { return };
                sleep(lasts.unsigned_abs()).await;
                info!("The faults are over");
                hub.faults.send_replace(Faults::default());
            };
            course.run_until_cancelled(async { tokio::join!(flapping, ending) }).await
        });
    }

    /// Cuts every connection that is open now, without a word to the other end.
    pub(crate) fn cut_all(&self) {
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }

    /// Cancelled when the connections of now are cut.
    pub(crate) fn cut(&self) -> CancellationToken {
        lock(&self.cut).clone()
    }

    /// Cancelled when the connections of now are asked to end.
    pub(crate) fn goaway(&self) -> CancellationToken {
        lock(&self.goaway).clone()
    }

    /// Checks the token of an RPC.
    pub(crate) fn admit(&self, authorization: Option<&str>) -> Result<Claims, tokens::Refusal> {
        if self.faults().refuse_tokens {
            return Err(tokens::Refusal::Fault);
        }
        self.authority.tokens().admit(authorization, self.token_clock())
    }

    /// The time by which tokens are judged and minted.
    pub(crate) fn token_clock(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(self.faults().clock).unwrap_or(now)
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
