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
//! before or after that, so that a leader's end loses nothing. What is open is noted too
//! ([`OPEN`]), so that also a start after both were away knows what may be over.

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

use crate::{inventory::Mirror, signals::note::Note, traffic::requests::Requests, uplink::lanes::Lanes};
use standing::Standing;

/// The Lease of the aggregator.
const NAME: &str = "kestrel-aggregator";

/// Annotation of the Lease: every signal and every deletion up to this time (RFC 3339) has left
/// its leader's resend window …
const TOLD_UNTIL: &str = "kestrel.ai/told-until";

/// … as far as it came since this time, when the leader began to watch.
const TOLD_SINCE: &str = "kestrel.ai/told-since";

/// Annotation of the Lease: the objects whose incidents are open, or ended so late that nobody
/// may have been told.
const OPEN: &str = "kestrel.ai/open";

/// Annotation of the Lease: of requests of which more may come, what a leader that has ended told.
const REQUESTS: &str = "kestrel.ai/requests";

/// What every replica sees and the leader tells the cloud.
pub trait Told: Send + Sync {
    /// Everything before this time has been told for sure.
    fn told_until(&self) -> Timestamp;
    /// Another has told everything that came at `since` or later, but before `before`.
    fn forget_told(&self, since: Timestamp, before: Timestamp);
    /// What is open, if everything that came before `until` has been told.
    fn open(&self, until: Timestamp) -> String;
    /// What this one leaves of requests.
    fn left(&self) -> String;
    /// The last leader has left this.
    fn take_over(&self, left: String);
}

/// Signals, deletions, what is open, and requests.
impl Told for (Lanes, Mirror, Note, Requests) {
    fn told_until(&self) -> Timestamp {
        self.0.told_until().min(self.1.told_until())
    }

    fn forget_told(&self, since: Timestamp, before: Timestamp) {
        self.0.forget_told(since, before);
        self.1.forget_told(since, before);
        self.2.forget_told(before);
    }

    fn open(&self, until: Timestamp) -> String {
        self.2.names(until)
    }

    fn left(&self) -> String {
        self.3.left()
    }

    fn take_over(&self, left: String) {
        self.3.take_over(left);
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

    /// Everything in the cluster before this time has been told by an earlier leader;
    /// `None` if nobody says so within the Lease's duration.
    pub async fn told_before(&self) -> Option<Timestamp> {
        noted(&self.read().await?, TOLD_UNTIL)?.checked_sub(self.config.overlap).ok()
    }

    /// The objects whose incidents an earlier leader left open, as it noted them; empty if
    /// nobody says so within the Lease's duration.
    pub async fn left_open(&self) -> String {
        let annotations = self.read().await.and_then(|lease| lease.metadata.annotations);
        annotations.and_then(|mut annotations| annotations.remove(OPEN)).unwrap_or_default()
    }

    async fn read(&self) -> Option<Lease> {
        let read = async {
            loop {
                match self.api.get_opt(NAME).await {
                    Ok(lease) => break lease,
                    Err(_) => sleep(self.look()).await,
                }
            }
        };
        timeout(self.config.duration, read).await.ok()?
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
        let left = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REQUESTS));
        self.told.take_over(left.cloned().unwrap_or_default());
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

    /// Writes `spec`, how far the cloud has been told by now, and what is open.
    async fn renew(&self, lease: &Lease, spec: LeaseSpec) -> kube::Result<Lease> {
        let mut lease = lease.clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(TOLD_SINCE.to_owned(), self.since.to_string());
        let until = self.told.told_until();
        annotations.insert(TOLD_UNTIL.to_owned(), until.to_string());
        annotations.insert(OPEN.to_owned(), self.told.open(until));
        annotations.insert(REQUESTS.to_owned(), self.told.left());
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
mod tests;
