//! Does what the cloud asks for, and answers.
//!
//! It reads the Kubernetes API by a grammar of paths, answers commands of kubectl in the process, tries out manifests and network
//! policies, takes a new client certificate and restarts itself; whatever else is asked for is refused
//! in an answer of its own kind. Whatever is asked for is in the audit.

mod asker;
pub mod audit;
mod cluster;
mod command;
pub mod dry_run;
pub mod events;
mod hidden;
mod json;
mod log;
mod manifest;
#[cfg(test)]
mod mutation;
mod network_policy;
mod operator;
mod outcome;
mod path;
mod percent;
mod places;
mod query;
mod read;
mod reason;
mod record;
mod refusal;
pub mod replay;
pub mod rules;
mod secret;
mod status;
pub mod switch;
mod terminal;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use kestrel_proto::cloud::v1::{
    NetworkPolicyWithError, YamlDryRunRequest, stream_control_request::Request as Tool,
};
use kube::Client;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::info;

pub use self::{
    asker::Asker,
    reason::{Reason, Refused},
};
use self::{
    audit::{Asked, Audit, Decision, Part},
    cluster::Cluster,
    hidden::Hashes,
    outcome::{Outcome, undecided},
    places::{Place, Places},
    record::{Key, Limits, Record, Verdict},
    refusal::{refuse, verdict},
    rules::Rules,
    switch::Switch,
};
use crate::{
    excluded::Excluded,
    link::Nodes,
    uplink::{
        Message, Request, Requests,
        credentials::Credentials,
        lanes::{Lanes, Over},
    },
};

const NO_PLACE: &str = "other requests took all of its time: ask again later";
const STOPPING: &str = "the operator is being stopped: ask again";
const FAILED: &str = "the operator failed at this request in a way that nobody foresaw: its log says where; ask for it in another way";
/// Requests that run or wait; beyond it the cloud is told to come back later …
const IN_ALL: usize = 256;
/// … and likewise beyond so many bytes of them.
const BYTES_IN_ALL: usize = 64 * 1024 * 1024;
/// What is kept to answer repeats from; more entries than can run at once.
const KEPT: Limits = Limits { entries: 4096, bytes: 32 * 1024 * 1024, age: Duration::from_secs(600) };

/// A client that acts as `account`, a ServiceAccount of `namespace`; without one, as who it is.
///
/// # Errors
/// The API server's address can't be used.
pub fn client_as(mut cluster: kube::Config, namespace: &str, account: Option<&str>) -> kube::Result<Client> {
    namespace.clone_into(&mut cluster.default_namespace);
    cluster.auth_info.impersonate =
        account.map(|account| format!("system:serviceaccount:{namespace}:{account}"));
    Client::try_from(cluster)
}

/// What the executor may do in the cluster, and for whom.
pub struct Access {
    /// The account that reads, and can do nothing else.
    pub reader: Client,
    /// The account that tries what would be written, and can do nothing else.
    pub trier: Client,
    /// What the owner of the cluster allows.
    pub switch: Switch,
    /// Logs and events of these namespaces are not read.
    pub excluded: Excluded,
    /// The nodes whose agents answer.
    pub nodes: Nodes,
    /// Counts what is asked for.
    pub metrics: audit::Metrics,
}

/// Runs requests beside each other.
pub struct Executor {
    cluster: Cluster,
    kinds: command::Kinds,
    nodes: Nodes,
    switch: Switch,
    audit: Audit,
    credentials: Credentials,
    lanes: Lanes,
    record: Mutex<Record<Answered>>,
    /// Bytes of requests that run or wait.
    bytes: Arc<Semaphore>,
    places: Places,
    /// The restart that waits for its time; another order takes its place.
    restart: Mutex<Option<DropGuard>>,
    tasks: TaskTracker,
    drain: CancellationToken,
}

/// An answer as it is kept for repeats.
#[derive(Clone)]
struct Answered {
    message: Message,
    /// What was allowed when it was read from the cluster.
    rules: Option<Rules>,
}

impl Executor {
    /// An executor that does what `access` allows and answers into `lanes`. It ends the process by `drain`
    /// when it is asked to.
    ///
    /// # Errors
    /// There is no key for hashes of secrets.
    pub fn new(
        access: Access,
        credentials: Credentials,
        lanes: Lanes,
        drain: CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let Access { reader, trier, switch, excluded, nodes, metrics } = access;
        let process = jiff::Timestamp::now().as_millisecond().to_string();
        Ok(Arc::new(Self {
            cluster: Cluster { client: reader, trier, excluded, hashes: Hashes::new()? },
            kinds: command::Kinds::default(),
            nodes,
            switch,
            audit: Audit::new(metrics, &process),
            credentials,
            lanes,
            record: Mutex::new(Record::new(KEPT)),
            bytes: Arc::new(Semaphore::new(BYTES_IN_ALL)),
            places: Places::new(),
            restart: Mutex::default(),
            tasks: TaskTracker::new(),
            drain,
        }))
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

    /// Writes Events of what was asked for, until everything is answered.
    pub async fn tell_events(&self, place: events::Place) {
        while self.drain.run_until_cancelled(sleep(events::PERIOD)).await.is_some() {
            self.audit.tell_events(&place).await;
        }
        self.tasks.wait().await;
        self.audit.tell_events(&place).await;
    }

    fn take(self: &Arc<Self>, over: Over, request: Request) {
        let answers = self.lanes.answers(over);
        let key = Key::of(&request);
        let verdict = match &key {
            None => Verdict::Run,
            Some(key) => self.record().came(key, over, record::is_read(&request), Instant::now()),
        };
        let executor = Arc::clone(self);
        let is_new = matches!(verdict, Verdict::Run);
        let bytes = u32::try_from(request.bytes().min(BYTES_IN_ALL)).unwrap_or(u32::MAX);
        let room = match self.tasks.len() {
            ..IN_ALL => Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok(),
            _ => None,
        };
        match (verdict, room) {
            (Verdict::Run | Verdict::Answered(_), None) => {
                if is_new {
                    let _asker = key.and_then(|key| self.record().abandoned(&key));
                }
                self.audit.tell(&Asked::of(&request), &undecided(&request, 429), Duration::ZERO);
                let why = "too many requests wait already, or too large ones: ask again later";
                answers.send(refuse(&request, 429, why));
            }
            (Verdict::Run, Some(room)) => {
                self.tasks.spawn(async move { executor.run(key, over, request, room).await });
            }
            (Verdict::Runs, _) => {
                self.audit.tell(&Asked::of(&request), &undecided(&request, 202), Duration::ZERO);
            }
            (Verdict::Answered(answered), Some(room)) => {
                self.tasks.spawn(async move { executor.repeat(key, over, request, answered, room).await });
            }
            (Verdict::Forgotten, _) => {
                let why = "this request was answered before, and the answer is not kept any more: it is not \
                           run again, ask with another request_id";
                self.audit.tell(&Asked::of(&request), &undecided(&request, 410), Duration::ZERO);
                answers.send(refuse(&request, 410, why));
            }
        }
    }

    /// Answers from the record, as long as the owner allows what the answer was made by.
    async fn repeat(
        self: Arc<Self>,
        key: Option<Key>,
        over: Over,
        request: Request,
        answered: Answered,
        bytes: OwnedSemaphorePermit,
    ) {
        let (asked, rules) = (Asked::of(&request), answered.rules);
        let room = async {
            let Some(rules) = rules else { return Ok(Some(self.places.turn(&self.lanes, || over).await)) };
            if !rules.are_within(self.switch.rules().await?) {
                return Ok(None);
            }
            tokio::select! {
                turn = self.places.turn(&self.lanes, || over) => Ok(Some(turn)),
                off = self.switch.turned_off(rules) => Err(off),
            }
        };
        let waited = self.drain.run_until_cancelled(room).await;
        let (answer, parts) = match waited {
            Some(Ok(Some(turn))) => {
                self.audit.tell(&asked, &undecided(&request, 208), Duration::ZERO);
                self.lanes.answers(over).send_encoded(answered.message);
                drop(turn);
                return;
            }
            // What is allowed now may be less, so it is asked for anew.
            Some(Ok(None)) => {
                if let Some(key) = key {
                    self.record().outdated(&key);
                }
                drop(bytes);
                return self.take(over, request);
            }
            Some(Err(off)) => {
                let Outcome { answer, parts, .. } = Outcome::refused(&request, &off);
                (answer, parts)
            }
            None => {
                let Outcome { answer, parts, .. } = Outcome::passing(&request, 503, STOPPING);
                (answer, parts)
            }
        };
        self.audit.tell(&asked, &parts, Duration::ZERO);
        self.lanes.answers(over).send(answer);
    }

    async fn run(&self, key: Option<Key>, over: Over, request: Request, bytes: OwnedSemaphorePermit) {
        // Where it came last.
        let asker = || key.as_ref().and_then(|key| self.record().asker(key)).unwrap_or(over);
        let (asked, begun) = (Asked::of(&request), Instant::now());
        // A request that fails in an unforeseen way fails alone, and is answered.
        let work = AssertUnwindSafe(self.permitted(over, &request, asker)).catch_unwind();
        let outcome = match self.drain.run_until_cancelled(work).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Outcome::passing(&request, 500, FAILED),
            None => Outcome::passing(&request, 503, STOPPING),
        };
        self.audit.tell(&asked, &outcome.parts, begun.elapsed());
        match key {
            // Without an id.
            None => self.lanes.answers(over).send(outcome.answer),
            Some(key) => {
                let message = Message::from(outcome.answer);
                let length = message.bytes();
                let asker = if outcome.passing {
                    self.record().abandoned(&key)
                } else {
                    let answered = Answered { message: message.clone(), rules: outcome.rules };
                    self.record().answered(key, answered, length, Instant::now())
                };
                self.lanes.answers(asker.unwrap_or(over)).send_encoded(message);
            }
        }
        drop((outcome.turn, outcome.place, bytes));
        if let Some((delay, rules)) = outcome.restart {
            self.restart(delay, rules).await;
        }
    }

    /// Ends the process after the delay, unless that is not allowed any more, or ordered anew.
    async fn restart(&self, delay: Duration, rules: Rules) {
        let replaced = CancellationToken::new();
        let guard = replaced.clone().drop_guard();
        *self.restart.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = replaced.cancelled() => info!("another order takes the place of the restart that was to come"),
            off = self.switch.turned_off(rules) => info!("there is no restart: {off}"),
            () = sleep(delay) => self.drain.cancel(),
        }
    }

    /// What comes of a request as long as the owner allows it.
    async fn permitted<'a>(&'a self, over: Over, request: &Request, asker: impl Fn() -> Over) -> Outcome<'a> {
        // Without it the connection would come to its end.
        if let Request::CertificateRenewal(request) = request {
            let parts =
                vec![Part { what: String::new(), decision: Decision::Allowed, status: 200, bytes: 0 }];
            return Outcome::lasting(
                operator::renew_certificate(&self.credentials, request.clone()).await,
                parts,
            );
        }
        let rules = match self.switch.rules().await {
            Ok(rules) => rules,
            // It may be switched on again, and the request come again.
            Err(off) => return Outcome { passing: true, ..Outcome::refused(request, &off) },
        };
        let is_read = record::is_read(request);
        let work = async {
            let mut outcome = self.outcome(over, request, rules).await;
            outcome.rules = is_read.then_some(rules);
            // Only what was read can be large.
            if outcome.place.is_some() {
                outcome.turn = Some(self.places.turn(&self.lanes, asker).await);
            }
            outcome
        };
        tokio::select! {
            outcome = work => outcome,
            off = self.switch.turned_off(rules) => Outcome { passing: true, ..Outcome::refused(request, &off) },
        }
    }

    async fn outcome<'a>(&'a self, over: Over, request: &Request, rules: Rules) -> Outcome<'a> {
        let place = async |limit| self.places.take(over, Instant::now() + limit).await;
        let no_place = || Outcome::passing(request, 504, NO_PLACE);
        // What waits for a place is not copied yet.
        match request {
            Request::KubernetesApi(batch) => match place(read::limit_of(batch)).await {
                Some(mut place) => {
                    let (answer, parts) = read::answer(&self.cluster, rules, batch.clone(), &mut place).await;
                    Outcome::done(Tool::KubernetesApiResponse(answer), parts, place)
                }
                None => no_place(),
            },
            Request::ShellCommand(batch) => match place(command::limit_of(batch)).await {
                Some(mut place) => {
                    let reach = (&self.cluster, &self.kinds, &self.nodes);
                    let (answer, parts) = command::answer(reach, rules, batch.clone(), &mut place).await;
                    Outcome::done(Tool::ShellCommandResponse(answer), parts, place)
                }
                None => no_place(),
            },
            Request::NetworkPolicy(policy) => match place(network_policy::LIMIT).await {
                Some(place) => self.try_out(place, policy.clone()).await,
                None => no_place(),
            },
            Request::YamlDryRun(batch) => match place(dry_run::limit_of(batch)).await {
                Some(place) => self.dry_run(place, batch.clone(), rules).await,
                None => no_place(),
            },
            Request::OperatorRestart(order) => {
                let (answer, delay) = operator::restart(order.clone());
                let restart = delay.map(|delay| (delay, rules));
                Outcome { restart, ..Outcome::lasting(answer, undecided(request, 200)) }
            }
            other => {
                let why = "not supported by this version of the operator";
                Outcome::refused(other, &Refused::new(Reason::Unsupported, why))
            }
        }
    }

    async fn try_out<'a>(&self, place: Place<'a>, policy: NetworkPolicyWithError) -> Outcome<'a> {
        let rejected = network_policy::try_out(&self.cluster, &policy, place.deadline).await.err();
        let passing = rejected.as_ref().is_some_and(|rejected| rejected.passing);
        let status = if rejected.is_some() { 422 } else { 200 };
        let why = rejected.map(|rejected| rejected.why).unwrap_or_default();
        let parts = vec![Part { what: String::new(), decision: Decision::Allowed, status, bytes: 0 }];
        Outcome { place: Some(place), passing, ..Outcome::lasting(verdict(policy, why), parts) }
    }

    async fn dry_run<'a>(
        &self,
        mut place: Place<'a>,
        request: YamlDryRunRequest,
        rules: Rules,
    ) -> Outcome<'a> {
        let (cluster, kinds, nodes, deadline) = (&self.cluster, &self.kinds, &self.nodes, place.deadline);
        let session =
            command::Session { room: command::Session::room(), cluster, rules, kinds, nodes, deadline };
        match timeout_at(deadline, dry_run::allowed(&session)).await {
            Ok(Ok(())) => {}
            Ok(Err(off)) => {
                return Outcome { passing: true, ..Outcome::refused(&Request::YamlDryRun(request), &off) };
            }
            Err(_) => {
                let why = "the API server did not say in time whether anything may be tried";
                return Outcome::passing(&Request::YamlDryRun(request), 504, why);
            }
        }
        let (answer, parts) = dry_run::answer(&session, request, &mut place).await;
        Outcome::done(Tool::YamlDryRunResponse(answer), parts, place)
    }

    fn record(&self) -> MutexGuard<'_, Record<Answered>> {
        // It is whole after every one of its operations.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
