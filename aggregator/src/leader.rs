//! Which of the replicas leads: the one that holds the Lease.
//!
//! A candidate judges another's Lease by its own clock alone: a record that has
//! not changed for its whole duration is over, whatever times it carries. The
//! holder gives up after two thirds of the duration without a renewal, so it has
//! stopped before another can begin.
//!
//! With every renewal the holder notes how far the cloud has been told of what
//! happens in the cluster ([`TOLD_UNTIL`]), and since when it has watched
//! ([`TOLD_SINCE`]). A standby sees the same things happen and keeps what came
//! before or after that, so that a leader's end loses nothing.

pub mod standing;

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{inventory::Mirror, uplink::lanes::Lanes};
use standing::Standing;

/// The Lease of the aggregator.
const NAME: &str = "kestrel-aggregator";

/// Annotation of the Lease: every signal and every deletion up to this time (RFC 3339) has left
/// its leader's resend window …
const TOLD_UNTIL: &str = "kestrel.ai/told-until";

/// … as far as it came since this time, when the leader began to watch.
const TOLD_SINCE: &str = "kestrel.ai/told-since";

/// What every replica sees and the leader tells the cloud.
pub trait Told: Send + Sync {
    /// Everything before this time has been told for sure.
    fn told_until(&self) -> Timestamp;
    /// Another has told everything that came at `since` or later, but before `before`.
    fn forget_told(&self, since: Timestamp, before: Timestamp);
}

/// Signals and deletions.
impl Told for (Lanes, Mirror) {
    fn told_until(&self) -> Timestamp {
        self.0.told_until().min(self.1.told_until())
    }

    fn forget_told(&self, since: Timestamp, before: Timestamp) {
        self.0.forget_told(since, before);
        self.1.forget_told(since, before);
    }
}

/// One replica's candidacy.
pub struct Election {
    api: Api<Lease>,
    config: Config,
    told: Arc<dyn Told>,
    owner: Option<OwnerReference>,
    standing: Standing,
    /// When this process began to watch the cluster.
    since: Timestamp,
}

/// How a replica runs for leader.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pod's name.
    pub identity: String,
    /// A holder that is silent for this long has lost.
    pub duration: Duration,
    /// Replicas hear of one thing at different times by their clocks; by this
    /// much at most, so that what is younger is told twice rather than never.
    pub overlap: Duration,
}

/// The Lease as this replica has seen it, and since when it is unchanged.
struct Seen {
    record: (Option<String>, Option<MicroTime>),
    since: Instant,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is nobody's, ours or over.
    Take,
    /// Another holds it; look again after this.
    Wait(Duration),
}

/// What came of an attempt to lead.
enum Attempt {
    /// The Lease is ours.
    Taken(Box<Lease>),
    /// It is another's; look again after `wait`.
    Held { by: String, wait: Duration },
}

impl Election {
    /// A candidacy in `namespace`. A Lease that must be made belongs to `owner`.
    pub fn new(
        client: Client,
        namespace: &str,
        config: Config,
        told: Arc<dyn Told>,
        owner: Option<OwnerReference>,
    ) -> Self {
        let standing = Standing::default();
        let since = Timestamp::now();
        Self { api: Api::namespaced(client, namespace), config, told, owner, standing, since }
    }

    /// Where it says how it stands.
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Resolves when this replica leads; `None` if the drain came first.
    pub async fn win(self: &Arc<Self>, drain: &CancellationToken) -> Option<Leadership> {
        let mut seen: Option<Seen> = None;
        let mut said = String::new();
        loop {
            let begun = Instant::now();
            // What took longer could leave no time to renew it.
            let attempt = timeout(self.config.duration / 3, self.attempt(&mut seen));
            let (sentence, wait) = match drain.run_until_cancelled(attempt).await? {
                Ok(Ok(Attempt::Taken(lease))) => {
                    info!("this replica leads ({})", self.config.identity);
                    self.standing.leads();
                    return Some(Leadership { election: Arc::clone(self), lease: *lease, renewed: begun });
                }
                Ok(Ok(Attempt::Held { by, wait })) => (format!("standing by: {by} leads"), wait),
                Ok(Err(error)) => {
                    (format!("standing by: the Lease {NAME} can't be taken: {}", cause(error)), self.look())
                }
                Err(_) => (format!("standing by: no answer about the Lease {NAME}"), self.look()),
            };
            if said != sentence {
                info!("{sentence}");
                self.standing.stands_by(&sentence);
                said = sentence;
            }
            drain.run_until_cancelled(sleep(wait)).await?;
        }
    }

    async fn attempt(&self, seen: &mut Option<Seen>) -> kube::Result<Attempt> {
        let taken = match self.api.get_opt(NAME).await? {
            None => {
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(self.record(None)) };
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(lease) => {
                self.hear(&lease);
                match self.judge(&lease, seen, Instant::now()) {
                    Verdict::Take => self.write(&lease, self.record(Some(&lease))).await,
                    Verdict::Wait(wait) => {
                        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
                        return Ok(Attempt::Held { by: holder, wait });
                    }
                }
            }
        };
        match taken {
            Ok(lease) => Ok(Attempt::Taken(Box::new(lease))),
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::Held { by: "another replica".to_owned(), wait: self.look() })
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets what the Lease's last holder has told: by its notes, each less the
    /// overlap. What was seen just before the holder began to watch, the holder
    /// found as the state of things; kept, it would be told again when it is old.
    fn hear(&self, lease: &Lease) {
        let (since, until) = (noted(lease, TOLD_SINCE), noted(lease, TOLD_UNTIL));
        let since = since.map(|since| since.checked_sub(self.config.overlap).unwrap_or(Timestamp::MIN));
        if let Some(until) = until.and_then(|until| until.checked_sub(self.config.overlap).ok()) {
            // An earlier version of the holder notes only the end.
            self.told.forget_told(since.unwrap_or(Timestamp::MIN), until);
        }
    }

    fn judge(&self, lease: &Lease, seen: &mut Option<Seen>, now: Instant) -> Verdict {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.config.identity {
            return Verdict::Take;
        }
        let record = (spec.holder_identity.clone(), spec.renew_time);
        let since = match seen {
            Some(seen) if seen.record == record => seen.since,
            _ => seen.insert(Seen { record, since: now }).since,
        };
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let over = since + duration.map_or(self.config.duration, Duration::from_secs);
        match over.checked_duration_since(now) {
            None | Some(Duration::ZERO) => Verdict::Take,
            Some(rest) => Verdict::Wait(rest.min(self.look())),
        }
    }

    /// Between a standby's looks at the Lease: a planned hand-over takes no longer.
    fn look(&self) -> Duration {
        self.config.duration / 15
    }

    /// Between renewals.
    fn pause(&self) -> Duration {
        self.config.duration / 6
    }

    /// The Lease in our hands, after `before`.
    fn record(&self, before: Option<&Lease>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let before = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.config.identity);
        LeaseSpec {
            acquire_time: if ours { before.acquire_time } else { now.clone() },
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.duration.as_secs()).ok(),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            renew_time: now,
            ..LeaseSpec::default()
        }
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.config.identity)
    }

    /// Replaces exactly the version in `lease`.
    async fn write(&self, lease: &Lease, spec: LeaseSpec) -> kube::Result<Lease> {
        let lease = Lease { metadata: lease.metadata.clone(), spec: Some(spec) };
        self.api.replace(NAME, &PostParams::default(), &lease).await
    }

    /// Writes `spec` and how far the cloud has been told by now.
    async fn renew(&self, lease: &Lease, spec: LeaseSpec) -> kube::Result<Lease> {
        let mut lease = lease.clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(TOLD_SINCE.to_owned(), self.since.to_string());
        annotations.insert(TOLD_UNTIL.to_owned(), self.told.told_until().to_string());
        self.write(&lease, spec).await
    }
}

/// What the Lease's last holder has noted.
fn noted(lease: &Lease, annotation: &str) -> Option<Timestamp> {
    lease.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// The Lease in this replica's hands.
pub struct Leadership {
    election: Arc<Election>,
    lease: Lease,
    /// Not later than its last renewal.
    renewed: Instant,
}

impl Leadership {
    /// Renews the Lease until `quiet` (this replica does nothing any more that
    /// only a leader may), then hands it back so that the next one need not wait.
    ///
    /// # Errors
    /// The Lease was lost: the process must end.
    pub async fn hold(mut self, quiet: &CancellationToken) -> anyhow::Result<()> {
        let election = self.election;
        loop {
            let deadline = self.renewed + election.config.duration * 2 / 3;
            let next = deadline.min(Instant::now() + election.pause());
            if quiet.run_until_cancelled(sleep_until(next)).await.is_none() {
                break;
            }
            let begun = Instant::now();
            match timeout_at(deadline, election.renew(&self.lease, election.record(Some(&self.lease)))).await
            {
                Ok(Ok(lease)) => (self.lease, self.renewed) = (lease, begun),
                // Somebody wrote to it, perhaps we did, in an attempt that seemed to fail.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    match timeout_at(deadline, election.api.get(NAME)).await {
                        Ok(Ok(lease)) if election.holds(&lease) => self.lease = lease,
                        Ok(Ok(_)) => bail!("another replica has taken the Lease {NAME}"),
                        _ => {}
                    }
                }
                Ok(Err(error)) => warn!("the Lease {NAME} can't be renewed: {}", cause(error)),
                Err(_) => {
                    bail!("the Lease {NAME} could not be renewed in time: is the API server reachable?")
                }
            }
        }
        let free = LeaseSpec { holder_identity: None, ..self.lease.spec.clone().unwrap_or_default() };
        match election.renew(&self.lease, free).await {
            Ok(_) => info!("the Lease {NAME} is handed back"),
            Err(error) => {
                warn!("the Lease {NAME} can't be handed back and ends by itself: {}", cause(error));
            }
        }
        Ok(())
    }
}

/// What is behind an error of the client.
fn cause(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (check the role of this ServiceAccount)", status.message),
        other => format!("the API server does not answer: {}", anyhow::Error::new(other).root_cause()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Method, Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that knows one Lease and its versions.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Stored>>);

    #[derive(Default)]
    struct Stored {
        lease: Option<Lease>,
        version: u64,
        down: bool,
    }

    impl Server {
        fn client(&self) -> Client {
            let server = self.clone();
            Client::new(tower::service_fn(move |request| server.clone().answer(request)), "default")
        }

        async fn answer(self, request: Request<Body>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
            if self.0.lock().unwrap().down {
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut stored = self.0.lock().unwrap();
            let current = stored.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            let (status, answer) = match (parts.method, current) {
                (Method::GET, None) => {
                    (404, json!({"code": 404, "reason": "NotFound", "message": "", "status": "Failure"}))
                }
                (Method::GET, Some(_)) => (200, json!(stored.lease)),
                (method, current) => {
                    let mut lease: Lease = serde_json::from_slice(&body).unwrap();
                    if (method == Method::POST) != current.is_none()
                        || lease.metadata.resource_version != current
                    {
                        (409, json!({"code": 409, "reason": "Conflict", "message": "", "status": "Failure"}))
                    } else {
                        stored.version += 1;
                        lease.metadata.resource_version = Some(stored.version.to_string());
                        stored.lease = Some(lease);
                        (200, json!(stored.lease))
                    }
                }
            };
            let body = Full::new(bytes::Bytes::from(answer.to_string()));
            Ok(Response::builder().status(status).body(body).unwrap())
        }

        fn holder(&self) -> Option<String> {
            self.0.lock().unwrap().lease.clone()?.spec?.holder_identity
        }

        fn transitions(&self) -> Option<i32> {
            self.0.lock().unwrap().lease.clone()?.spec?.lease_transitions
        }

        fn election(&self, identity: &str) -> Arc<Election> {
            self.election_of(identity, Arc::default())
        }

        fn election_of(&self, identity: &str, signals: Arc<Signals>) -> Arc<Election> {
            let config = Config { identity: identity.to_owned(), duration: DURATION, overlap: OVERLAP };
            Arc::new(Election::new(self.client(), "ns", config, signals, None))
        }
    }

    const DURATION: Duration = Duration::from_secs(15);
    const OVERLAP: Duration = Duration::from_secs(40);

    /// How far a replica has told, and what it has heard of another.
    #[derive(Default)]
    struct Signals {
        told: Mutex<Timestamp>,
        heard: Mutex<Option<(Timestamp, Timestamp)>>,
    }

    impl Told for Signals {
        fn told_until(&self) -> Timestamp {
            *self.told.lock().unwrap()
        }

        fn forget_told(&self, since: Timestamp, before: Timestamp) {
            *self.heard.lock().unwrap() = Some((since, before));
        }
    }

    fn cancelled() -> CancellationToken {
        let token = CancellationToken::new();
        token.cancel();
        token
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_takes_over_at_once_when_the_lease_is_handed_back() {
        let server = Server::default();
        let (first, second) = (server.election("a"), server.election("b"));
        let drain = CancellationToken::new();
        let leadership = first.win(&drain).await.unwrap();
        let (forever, quiet) = (CancellationToken::new(), CancellationToken::new());
        let standby = async {
            second.win(&forever).await.unwrap();
            Instant::now()
        };
        let story = async {
            sleep(DURATION * 3).await;
            drain.cancel();
            sleep(DURATION * 3).await;
            assert_eq!(server.holder().as_deref(), Some("a"), "the drain takes its time");
            quiet.cancel();
            Instant::now()
        };
        let (held, handed_back, taken) = tokio::join!(leadership.hold(&quiet), story, standby);
        held.unwrap();
        assert!(taken - handed_back <= DURATION / 15);
        assert_eq!((server.holder().as_deref(), server.transitions()), (Some("b"), Some(2)));
        assert!(first.standing().now().leads() && second.standing().now().leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_replaced_after_the_duration_and_knows_it_before() {
        let server = Server::default();
        let (first, second) = (server.election("a"), server.election("b"));
        let drain = CancellationToken::new();
        let mut leadership = first.win(&drain).await.unwrap();
        // Requests of the leader hang from now on; the standby reaches the server.
        let cut_off = Server::default();
        cut_off.0.lock().unwrap().down = true;
        let lonely = cut_off.election("a");
        leadership.election = lonely;
        let begun = Instant::now();
        sleep(DURATION / 2).await;
        let lost = leadership.hold(&CancellationToken::new()).await.unwrap_err();
        assert!(lost.to_string().contains("could not be renewed in time"), "{lost}");
        assert!(begun.elapsed() <= DURATION * 2 / 3);
        second.win(&drain).await.unwrap();
        assert_eq!(server.holder().as_deref(), Some("b"));
        assert!(begun.elapsed() >= DURATION);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_lease_was_taken_ends_and_a_foreign_write_does_not_matter() {
        let server = Server::default();
        let election = server.election("a");
        let drain = CancellationToken::new();
        let leadership = election.win(&drain).await.unwrap();
        let bump = |holder: &str| {
            let mut stored = server.0.lock().unwrap();
            stored.version += 1;
            let version = stored.version.to_string();
            let lease = stored.lease.as_mut().unwrap();
            lease.metadata.resource_version = Some(version);
            lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
        };
        bump("a");
        let held = tokio::spawn({
            let server = server.clone();
            async move {
                sleep(DURATION * 2).await;
                assert_eq!(server.holder().as_deref(), Some("a"));
            }
        });
        let mut hold = std::pin::pin!(leadership.hold(&drain));
        tokio::select! {
            ended = &mut hold => panic!("{ended:?}"),
            held = held => held.unwrap(),
        }
        bump("b");
        let lost = hold.await.unwrap_err();
        assert!(lost.to_string().contains("another replica has taken"), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_holder_leads_again_at_once_and_the_drain_ends_a_candidacy() {
        let server = Server::default();
        let drain = CancellationToken::new();
        server.election("a").win(&drain).await.unwrap();
        let begun = Instant::now();
        server.election("a").win(&drain).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(server.election("b").win(&cancelled()).await.is_none());
    }
    #[tokio::test(start_paused = true)]
    async fn a_standby_hears_how_far_and_since_when_the_leader_has_told() {
        let server = Server::default();
        let (leading, standing_by) = (Arc::<Signals>::default(), Arc::<Signals>::default());
        let (first, second) = (
            server.election_of("a", Arc::clone(&leading)),
            server.election_of("b", Arc::clone(&standing_by)),
        );
        let (drain, quiet) = (CancellationToken::new(), CancellationToken::new());
        let leadership = first.win(&drain).await.unwrap();
        let since = first.since - OVERLAP;
        let heard = || *standing_by.heard.lock().unwrap();
        let told: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let story = async {
            sleep(DURATION).await;
            assert_eq!(heard(), Some((since, Timestamp::UNIX_EPOCH - OVERLAP)));
            *leading.told.lock().unwrap() = told;
            sleep(DURATION).await;
            assert_eq!(heard(), Some((since, told - OVERLAP)));
            *leading.told.lock().unwrap() = told + DURATION;
            quiet.cancel();
        };
        let (held, won, ()) = tokio::join!(leadership.hold(&quiet), second.win(&drain), story);
        held.unwrap();
        assert!(won.is_some());
        assert_eq!(heard(), Some((since, told + DURATION - OVERLAP)), "noted with the hand-over");
        let mut lease = server.0.lock().unwrap().lease.clone().unwrap();
        lease.metadata.annotations.get_or_insert_default().remove(TOLD_SINCE);
        second.hear(&lease);
        assert_eq!(heard(), Some((Timestamp::MIN, told + DURATION - OVERLAP)), "of an earlier version");
    }
}
