//! Does what the cloud asks for, and answers.
//!
//! It reads the Kubernetes API by a grammar of paths, answers commands of kubectl in the process, tries out manifests and network
//! policies, takes a new client certificate and restarts itself; whatever else is asked for is refused
//! in an answer of its own kind. Whatever is asked for is in the audit.

pub mod audit;
mod cluster;
mod command;
pub mod dry_run;
pub mod events;
mod hidden;
mod json;
mod manifest;
#[cfg(test)]
mod mutation;
mod operator;
mod path;
mod percent;
mod policy;
mod query;
mod read;
mod reason;
mod record;
mod refusal;
pub mod replay;
pub mod rules;
mod secret;
pub mod switch;
mod terminal;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use kestrel_proto::cloud::v1::{
    KubernetesApiRequest, NetworkPolicyWithError, ShellCommandRequest, ShellCommandResult, YamlDryRunRequest,
    stream_control_request::Request as Tool,
};
use kube::Client;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::reason::{Reason, Refused};
use self::{
    audit::{Asked, Audit, Decision, Part},
    cluster::Cluster,
    hidden::Hashes,
    record::{Key, Limits, Record, Verdict},
    refusal::{refuse, verdict},
    rules::Rules,
    switch::Switch,
};
use crate::{
    excluded::Excluded,
    link::Nodes,
    uplink::{
        Answer, Message, Request, Requests,
        credentials::Credentials,
        lanes::{Lanes, Over},
    },
};

/// Batches that run at the same time. Each may hold some 20 MiB, and some 60 where a filter sorts, beside the objects of
/// commands, which have a room of their own.
const AT_ONCE: usize = 8;
/// Of them, those that came over one stream: what floods the one leaves room for what comes over the other.
const AT_ONCE_OVER_ONE: usize = 6;
const NO_PLACE: &str = "other requests took all of its time: ask again later";
const STOPPING: &str = "the operator is being stopped: ask again";
const FAILED: &str = "the operator failed at this request in a way that nobody foresaw: its log says where; ask for it in another way";
/// Requests that run or wait; beyond it the cloud is told to come back later.
const IN_ALL: usize = 256;
/// What is kept to answer repeats from; more entries than can run at once.
const KEPT: Limits = Limits { entries: 4096, bytes: 32 * 1024 * 1024, age: Duration::from_secs(600) };

/// A client that acts as `account`, a ServiceAccount of `namespace`; without one, as who it is.
///
/// # Errors
/// The API server's address can't be used.
pub fn client_as(mut cluster: kube::Config, namespace: &str, account: Option<&str>) -> kube::Result<Client> {
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
    trier: Client,
    kinds: command::Kinds,
    nodes: Nodes,
    switch: Switch,
    audit: Audit,
    credentials: Credentials,
    lanes: Lanes,
    record: std::sync::Mutex<Record<Answered>>,
    places: Semaphore,
    /// For each stream.
    shares: [Semaphore; 2],
    /// Whose turn it is to wait for room in the lane of each stream.
    turns: [Mutex<()>; 2],
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

/// A batch may run, among all and among those of its stream.
type Place<'a> = (SemaphorePermit<'a>, SemaphorePermit<'a>);

fn number(over: Over) -> usize {
    match over {
        Over::Control => 0,
        Over::Data => 1,
    }
}

/// What came of a request.
struct Outcome<'a> {
    answer: Answer,
    /// What was decided of each part.
    parts: Vec<Part>,
    /// The cloud should ask again, and so a repeat is run.
    passing: bool,
    /// Taken until the answer is in its lane: until then it holds memory.
    place: Option<Place<'a>>,
    /// To wait for room in the lane, likewise.
    turn: Option<tokio::sync::MutexGuard<'a, ()>>,
    /// What was allowed, if it was read from the cluster.
    rules: Option<Rules>,
    /// The process ends itself so long after the answer.
    restart: Option<Duration>,
}

impl Outcome<'_> {
    fn lasting(answer: Answer, parts: Vec<Part>) -> Self {
        Self { answer, parts, passing: false, place: None, turn: None, rules: None, restart: None }
    }

    fn refused(request: Request, refused: &Refused) -> Self {
        let parts = refusal::parts_of(&request);
        let parts = parts.iter().map(|part| Part::refused(part, refused)).collect();
        Self::lasting(refuse(request, refused.status().into(), &refused.to_string()), parts)
    }

    fn passing(request: Request, status: i32, why: &str) -> Self {
        let parts = undecided(&request, status);
        Self { passing: true, ..Self::lasting(refuse(request, status, why), parts) }
    }
}

/// The parts of a request that was not refused, and not done either.
fn undecided(request: &Request, status: i32) -> Vec<Part> {
    let part = |what| Part { what, decision: Decision::Allowed, status, bytes: 0 };
    refusal::parts_of(request).into_iter().map(part).collect()
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
            cluster: Cluster { client: reader, excluded, hashes: Hashes::new()? },
            trier,
            kinds: command::Kinds::default(),
            nodes,
            switch,
            audit: Audit::new(metrics, &process),
            credentials,
            lanes,
            record: std::sync::Mutex::new(Record::new(KEPT)),
            places: Semaphore::new(AT_ONCE),
            shares: [AT_ONCE_OVER_ONE; 2].map(Semaphore::new),
            turns: Default::default(),
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
        match verdict {
            Verdict::Run | Verdict::Answered(_) if self.tasks.len() >= IN_ALL => {
                if is_new {
                    let _asker = key.and_then(|key| self.record().abandoned(&key));
                }
                self.audit.tell(&Asked::of(&request), &undecided(&request, 429), Duration::ZERO);
                let why = format!("{IN_ALL} requests wait already: ask again later");
                answers.send(refuse(request, 429, &why));
            }
            Verdict::Run => {
                self.tasks.spawn(async move { executor.run(key, over, request).await });
            }
            Verdict::Runs => {
                self.audit.tell(&Asked::of(&request), &undecided(&request, 202), Duration::ZERO);
            }
            Verdict::Answered(answered) => {
                self.tasks.spawn(async move { executor.repeat(key, over, request, answered).await });
            }
            Verdict::Forgotten => {
                let why = "this request was answered before, and the answer is not kept any more: it is not \
                           run again, ask with another request_id";
                self.audit.tell(&Asked::of(&request), &undecided(&request, 410), Duration::ZERO);
                answers.send(refuse(request, 410, why));
            }
        }
    }

    /// Answers from the record, as long as the owner allows what the answer was made by.
    async fn repeat(self: Arc<Self>, key: Option<Key>, over: Over, request: Request, answered: Answered) {
        let (asked, rules) = (Asked::of(&request), answered.rules);
        let room = async {
            let Some(rules) = rules else { return Ok(Some(self.room(|| over).await)) };
            if !rules.are_within(self.switch.rules().await?) {
                return Ok(None);
            }
            tokio::select! {
                turn = self.room(|| over) => Ok(Some(turn)),
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
                return self.take(over, request);
            }
            Some(Err(off)) => {
                let Outcome { answer, parts, .. } = Outcome::refused(request, &off);
                (answer, parts)
            }
            None => {
                let Outcome { answer, parts, .. } = Outcome::passing(request, 503, STOPPING);
                (answer, parts)
            }
        };
        self.audit.tell(&asked, &parts, Duration::ZERO);
        self.lanes.answers(over).send(answer);
    }

    async fn run(&self, key: Option<Key>, over: Over, request: Request) {
        // Where it came last.
        let asker = || key.as_ref().and_then(|key| self.record().asker(key)).unwrap_or(over);
        let again = request.clone();
        let (asked, begun) = (Asked::of(&request), Instant::now());
        // A request that fails in an unforeseen way fails alone, and is answered.
        let work = AssertUnwindSafe(self.permitted(over, request, asker)).catch_unwind();
        let outcome = match self.drain.run_until_cancelled(work).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Outcome::passing(again, 500, FAILED),
            None => Outcome::passing(again, 503, STOPPING),
        };
        self.audit.tell(&asked, &outcome.parts, begun.elapsed());
        match key {
            // Without an id.
            None => self.lanes.answers(over).send(outcome.answer),
            Some(key) => {
                let message = Message::from(outcome.answer);
                let bytes = message.bytes();
                let asker = if outcome.passing {
                    self.record().abandoned(&key)
                } else {
                    let answered = Answered { message: message.clone(), rules: outcome.rules };
                    self.record().answered(key, answered, bytes, Instant::now())
                };
                self.lanes.answers(asker.unwrap_or(over)).send_encoded(message);
            }
        }
        drop((outcome.turn, outcome.place));
        if let Some(delay) = outcome.restart {
            self.drain.run_until_cancelled(sleep(delay)).await;
            self.drain.cancel();
        }
    }

    /// What comes of a request as long as the owner allows it.
    async fn permitted(&self, over: Over, request: Request, asker: impl Fn() -> Over) -> Outcome<'_> {
        // Without it the connection would come to its end.
        if let Request::CertificateRenewal(request) = request {
            let parts =
                vec![Part { what: String::new(), decision: Decision::Allowed, status: 200, bytes: 0 }];
            return Outcome::lasting(operator::renew_certificate(&self.credentials, request).await, parts);
        }
        let rules = match self.switch.rules().await {
            Ok(rules) => rules,
            // It may be switched on again, and the request come again.
            Err(off) => return Outcome { passing: true, ..Outcome::refused(request, &off) },
        };
        let again = request.clone();
        let is_read = record::is_read(&request);
        let work = async {
            let mut outcome = self.outcome(over, request, rules).await;
            outcome.rules = is_read.then_some(rules);
            // Only what was read can be large.
            if outcome.place.is_some() {
                outcome.turn = Some(self.room(asker).await);
            }
            outcome
        };
        tokio::select! {
            outcome = work => outcome,
            off = self.switch.turned_off(rules) => Outcome { passing: true, ..Outcome::refused(again, &off) },
        }
    }

    async fn outcome(&self, over: Over, request: Request, rules: Rules) -> Outcome<'_> {
        match request {
            Request::KubernetesApi(request) => self.read(over, request, rules).await,
            Request::ShellCommand(request) => self.command(over, request, rules).await,
            Request::NetworkPolicy(policy) => self.try_out(over, policy).await,
            Request::YamlDryRun(request) => self.dry_run(over, request, rules).await,
            Request::OperatorRestart(request) => {
                let parts = undecided(&Request::OperatorRestart(request.clone()), 200);
                let (answer, restart) = operator::restart(request);
                Outcome { restart, ..Outcome::lasting(answer, parts) }
            }
            other => {
                let why = "not supported by this version of the operator";
                Outcome::refused(other, &Refused::new(Reason::Unsupported, why))
            }
        }
    }

    async fn try_out(&self, over: Over, policy: NetworkPolicyWithError) -> Outcome<'_> {
        let deadline = Instant::now() + policy::LIMIT;
        let Some(place) = self.place(over, deadline).await else {
            return Outcome::passing(Request::NetworkPolicy(policy), 504, NO_PLACE);
        };
        let rejected = policy::try_out(&self.trier, &policy, deadline).await.err();
        let passing = rejected.as_ref().is_some_and(|rejected| rejected.passing);
        let status = if rejected.is_some() { 422 } else { 200 };
        let why = rejected.map(|rejected| rejected.why).unwrap_or_default();
        let parts = undecided(&Request::NetworkPolicy(policy.clone()), status);
        Outcome { place: Some(place), passing, ..Outcome::lasting(verdict(policy, why), parts) }
    }

    async fn dry_run(&self, over: Over, request: YamlDryRunRequest, rules: Rules) -> Outcome<'_> {
        let deadline = Instant::now() + dry_run::limit_of(&request);
        let Some(place) = self.place(over, deadline).await else {
            return Outcome::passing(Request::YamlDryRun(request), 504, NO_PLACE);
        };
        let (cluster, kinds, nodes) = (&self.cluster, &self.kinds, &self.nodes);
        let session =
            command::Session { room: command::Session::room(), cluster, rules, kinds, nodes, deadline };
        match timeout_at(deadline, dry_run::allowed(&session)).await {
            Ok(Ok(())) => {}
            Ok(Err(off)) => {
                return Outcome { passing: true, ..Outcome::refused(Request::YamlDryRun(request), &off) };
            }
            Err(_) => {
                let why = "the API server did not say in time whether anything may be tried";
                return Outcome::passing(Request::YamlDryRun(request), 504, why);
            }
        }
        let (answer, parts) = dry_run::answer(&session, &self.trier, request, deadline).await;
        let answer = Answer::Tool(Tool::YamlDryRunResponse(answer));
        Outcome { place: Some(place), ..Outcome::lasting(answer, parts) }
    }

    async fn read(&self, over: Over, request: KubernetesApiRequest, rules: Rules) -> Outcome<'_> {
        let deadline = Instant::now() + read::limit_of(&request);
        let Some(place) = self.place(over, deadline).await else {
            return Outcome::passing(Request::KubernetesApi(request), 504, NO_PLACE);
        };
        let (answer, parts) = read::answer(&self.cluster, rules, request, deadline).await;
        let answer = Answer::Tool(Tool::KubernetesApiResponse(answer));
        Outcome { place: Some(place), ..Outcome::lasting(answer, parts) }
    }

    async fn command(&self, over: Over, request: ShellCommandRequest, rules: Rules) -> Outcome<'_> {
        let deadline = Instant::now() + command::limit_of(&request);
        let Some(place) = self.place(over, deadline).await else {
            return Outcome::passing(Request::ShellCommand(request), 504, NO_PLACE);
        };
        let reach = (&self.cluster, &self.kinds, &self.nodes);
        let (answer, parts) = command::answer(reach, rules, request, deadline).await;
        let answer = Answer::Tool(Tool::ShellCommandResponse(answer));
        Outcome { place: Some(place), ..Outcome::lasting(answer, parts) }
    }

    /// Waits until a batch may run; `None` if that is not before the deadline.
    async fn place(&self, over: Over, deadline: Instant) -> Option<Place<'_>> {
        let place = async {
            // The stream's own share first: who waits for it takes nothing from others.
            let share = self.shares[number(over)].acquire().await;
            Some((self.places.acquire().await.ok()?, share.ok()?))
        };
        timeout_at(deadline, place).await.ok()?
    }

    /// Waits for room where the answer goes: answers of the largest size would
    /// push each other out unsent. The room is taken while the turn is held.
    async fn room(&self, over: impl Fn() -> Over) -> tokio::sync::MutexGuard<'_, ()> {
        loop {
            let lane = over();
            let turn = self.turns[number(lane)].lock().await;
            if over() == lane {
                self.lanes.answers(lane).room().await;
            }
            if over() == lane {
                return turn;
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Record<Answered>> {
        // It is whole after every one of its operations.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers commands as the daemon would, for who asks on this machine: an owner who wants to see what Kestrel
/// Cloud sees.
pub struct Asker {
    cluster: Cluster,
    kinds: command::Kinds,
    rules: Rules,
}

impl Asker {
    /// One that reads with `reader`, by these rules.
    ///
    /// # Errors
    /// There is no key for hashes of secrets.
    pub fn new(reader: Client, rules: Rules, excluded: Excluded) -> anyhow::Result<Self> {
        let cluster = Cluster { client: reader, excluded, hashes: Hashes::new()? };
        Ok(Self { cluster, kinds: command::Kinds::default(), rules })
    }

    /// What one command prints.
    pub async fn command(&self, line: &str) -> ShellCommandResult {
        let request = ShellCommandRequest { commands: vec![line.to_owned()], ..Default::default() };
        let deadline = Instant::now() + command::limit_of(&request);
        // Agents attach to the daemon alone.
        let reach = (&self.cluster, &self.kinds, &Nodes::default());
        let (answer, _) = command::answer(reach, self.rules, request, deadline).await;
        answer.results.into_iter().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
