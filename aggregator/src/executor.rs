//! Does what the cloud asks for, and answers.
//!
//! This version reads the Kubernetes API, tries out network policies, takes a new
//! client certificate and restarts itself; whatever else is asked for is refused
//! in an answer of its own kind.

mod json;
mod operator;
mod path;
mod policy;
mod read;
mod record;
mod refusal;

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use kestrel_proto::cloud::v1::{
    KubernetesApiRequest, NetworkPolicyWithError, stream_control_request::Request as Tool,
};
use kube::Client;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    excluded::Excluded,
    uplink::{
        Answer, Message, Request, Requests,
        credentials::Credentials,
        lanes::{Lanes, Over},
    },
};
use record::{Key, Limits, Record, Verdict};
use refusal::{refuse, verdict};

/// Batches that run at the same time; each may hold some 20 MiB.
const AT_ONCE: usize = 8;
const NO_PLACE: &str = "other requests took all of its time: ask again later";
/// Requests that run or wait; beyond it the cloud is told to come back later.
const IN_ALL: usize = 256;
/// What is kept to answer repeats from; more entries than can run at once.
const KEPT: Limits = Limits { entries: 4096, bytes: 32 * 1024 * 1024, age: Duration::from_secs(600) };

/// Runs requests beside each other.
pub struct Executor {
    client: Client,
    credentials: Credentials,
    lanes: Lanes,
    excluded: Excluded,
    record: std::sync::Mutex<Record<Message>>,
    places: Semaphore,
    /// Whose turn it is to wait for room in a lane.
    turn: Mutex<()>,
    tasks: TaskTracker,
    drain: CancellationToken,
}

/// What came of a request.
struct Outcome<'a> {
    answer: Answer,
    /// The cloud should ask again, and so a repeat is run.
    passing: bool,
    /// Taken until the answer is in its lane: until then it holds memory.
    place: Option<SemaphorePermit<'a>>,
    /// The process ends itself so long after the answer.
    restart: Option<Duration>,
}

impl Outcome<'_> {
    fn lasting(answer: Answer) -> Self {
        Self { answer, passing: false, place: None, restart: None }
    }

    fn passing(request: Request, status: i32, why: &str) -> Self {
        Self { passing: true, ..Self::lasting(refuse(request, status, why)) }
    }
}

impl Executor {
    /// An executor that reads with `client` and answers into `lanes`; logs and events of `excluded` namespaces
    /// it does not read. It ends the process by `drain` when it is asked to.
    pub fn new(
        client: Client,
        credentials: Credentials,
        lanes: Lanes,
        excluded: Excluded,
        drain: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            credentials,
            lanes,
            excluded,
            record: std::sync::Mutex::new(Record::new(KEPT)),
            places: Semaphore::new(AT_ONCE),
            turn: Mutex::default(),
            tasks: TaskTracker::new(),
            drain,
        })
    }

    /// The end where requests go in.
    pub fn requests(self: &Arc<Self>) -> Requests {
        let executor = Arc::clone(self);
        Arc::new(move |over, request| executor.take(over, request))
    }

    /// Waits for the drain and until everything that was asked for is answered.
    pub async fn finish(&self) {
        self.drain.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn take(self: &Arc<Self>, over: Over, request: Request) {
        let answers = self.lanes.answers(over);
        let key = Key::of(&request);
        let verdict = match &key {
            None => Verdict::Run,
            Some(key) => self.record().came(key, over, record::is_read(&request), Instant::now()),
        };
        let executor = Arc::clone(self);
        match verdict {
            Verdict::Run if self.tasks.len() >= IN_ALL => {
                let _asker = key.and_then(|key| self.record().abandoned(&key));
                let why = format!("{IN_ALL} requests wait already: ask again later");
                answers.send(refuse(request, 429, &why));
            }
            Verdict::Run => {
                self.tasks.spawn(async move { executor.run(key, over, request).await });
            }
            Verdict::Runs => {}
            Verdict::Answered(message) => {
                self.tasks.spawn(async move {
                    let _turn = executor.drain.run_until_cancelled(executor.room(|| over)).await;
                    executor.lanes.answers(over).send_encoded(message);
                });
            }
            Verdict::Forgotten => {
                let why = "this request was answered before, and the answer is not kept any more: it is not \
                           run again, ask with another request_id";
                answers.send(refuse(request, 410, why));
            }
        }
    }

    async fn run(&self, key: Option<Key>, over: Over, request: Request) {
        // Where it came last.
        let asker = || key.as_ref().and_then(|key| self.record().asker(key)).unwrap_or(over);
        let again = request.clone();
        let work = async {
            let outcome = self.outcome(request).await;
            // Only what was read can be large.
            let turn = if outcome.place.is_some() { Some(self.room(asker).await) } else { None };
            (outcome, turn)
        };
        let (outcome, turn) = self.drain.run_until_cancelled(work).await.unwrap_or_else(|| {
            (Outcome::passing(again, 503, "the operator is being stopped: ask again"), None)
        });
        match key {
            // Without an id.
            None => self.lanes.answers(over).send(outcome.answer),
            Some(key) => {
                let message = Message::from(outcome.answer);
                let bytes = message.bytes();
                let asker = if outcome.passing {
                    self.record().abandoned(&key)
                } else {
                    self.record().answered(key, message.clone(), bytes, Instant::now())
                };
                self.lanes.answers(asker.unwrap_or(over)).send_encoded(message);
            }
        }
        drop((turn, outcome.place));
        if let Some(delay) = outcome.restart {
            self.drain.run_until_cancelled(sleep(delay)).await;
            self.drain.cancel();
        }
    }

    async fn outcome(&self, request: Request) -> Outcome<'_> {
        match request {
            Request::KubernetesApi(request) => self.read(request).await,
            Request::NetworkPolicy(policy) => self.try_out(policy).await,
            Request::CertificateRenewal(request) => {
                Outcome::lasting(operator::renew_certificate(&self.credentials, request).await)
            }
            Request::OperatorRestart(request) => {
                let (answer, restart) = operator::restart(request);
                Outcome { restart, ..Outcome::lasting(answer) }
            }
            other => Outcome::lasting(refuse(other, 501, "not supported by this version of the operator")),
        }
    }

    async fn try_out(&self, policy: NetworkPolicyWithError) -> Outcome<'_> {
        let deadline = Instant::now() + policy::LIMIT;
        let Ok(place) = timeout_at(deadline, self.places.acquire()).await else {
            return Outcome::passing(Request::NetworkPolicy(policy), 504, NO_PLACE);
        };
        let rejected = policy::try_out(&self.client, &policy, deadline).await.err();
        let passing = rejected.as_ref().is_some_and(|rejected| rejected.passing);
        let why = rejected.map(|rejected| rejected.why).unwrap_or_default();
        Outcome { place: place.ok(), passing, ..Outcome::lasting(verdict(policy, why)) }
    }

    async fn read(&self, request: KubernetesApiRequest) -> Outcome<'_> {
        let deadline = Instant::now() + read::limit(&request);
        let Ok(place) = timeout_at(deadline, self.places.acquire()).await else {
            return Outcome::passing(Request::KubernetesApi(request), 504, NO_PLACE);
        };
        let answer = read::answer(&self.client, &self.excluded, request, deadline).await;
        Outcome { place: place.ok(), ..Outcome::lasting(Answer::Tool(Tool::KubernetesApiResponse(answer))) }
    }

    /// Waits for room where the answer goes: answers of the largest size would
    /// push each other out unsent. The room is taken while the turn is held.
    async fn room(&self, over: impl Fn() -> Over) -> tokio::sync::MutexGuard<'_, ()> {
        let turn = self.turn.lock().await;
        loop {
            let lane = over();
            self.lanes.answers(lane).room().await;
            if over() == lane {
                return turn;
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Record<Message>> {
        // It is whole after every one of its operations.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
