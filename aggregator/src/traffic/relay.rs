//! Hubble Relay, which has the flows of all nodes: the leader reads it where no node agent reads Hubble, such as on GKE
//! with Dataplane V2, whose nodes have no socket for others.
//!
//! It is looked for again and again, so one that comes is read and one that goes is not missed.

mod place;

use std::{
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kestrel_flows::{
    counts::Counts,
    hubble::{self, End, Hubble, News},
    window::{MOST_FLOWS, Window},
};
use kestrel_proto::node::FLOW_SPAN;
use kestrel_runtime::backoff::Backoff;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Traffic;
pub use place::Config;
use place::{Relay, Unreached};

/// By then node agents have told what they see, of which they tell every ten seconds.
const GRACE: Duration = Duration::from_secs(30);

/// How often it is looked for a Relay that is not there, and whether agents read Hubble.
const LOOK: Duration = Duration::from_secs(15);

/// Ceilings of the waits between attempts at one that is there.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is read of Relay.
pub struct Follower {
    config: Config,
    traffic: Traffic,
    counts: Counts,
    window: Mutex<Window>,
    grace: Duration,
    /// The last sentence about whether flows are read, which is not said twice.
    said: String,
}

impl Follower {
    /// Of the Relay that `config` names, into `traffic`.
    pub fn new(config: Config, traffic: Traffic, counts: Counts) -> Self {
        let window = Mutex::new(Window::new(MOST_FLOWS));
        Self { config, traffic, counts, window, grace: GRACE, said: String::new() }
    }

    /// The same, without a wait for node agents.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { grace: Duration::ZERO, ..self }
    }

    /// Reads until the drain.
    pub async fn run(mut self, drain: CancellationToken) {
        if drain.run_until_cancelled(sleep(self.grace)).await.is_some() {
            drain.run_until_cancelled(self.follow()).await;
        }
        self.hand_over();
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut hubble = Hubble::of_relay(self.counts.clone());
        loop {
            if self.traffic.has_hubble_of_agents() {
                self.say("Hubble Relay is not read, as node agents read Hubble on their nodes");
                sleep(LOOK).await;
                // What was meanwhile, agents have told.
                hubble = Hubble::of_relay(self.counts.clone());
                continue;
            }
            let begun = Instant::now();
            match self.config.connect().await {
                Ok(relay) => match self.read(&mut hubble, relay).await {
                    Some(End::Fields | End::Silent) => continue,
                    Some(End::Problem(problem)) => self.fail(&problem),
                    None => continue,
                },
                Err(Unreached::Absent(where_)) => {
                    self.say(&format!("there is no Hubble Relay ({where_}); one that comes is read"));
                    hubble.forget_version();
                    sleep(LOOK).await;
                    continue;
                }
                Err(Unreached::Problem(problem)) => self.fail(&problem),
            }
            let lived = begun.elapsed();
            if lived >= RETRY.1 {
                hubble.forget_version();
            }
            sleep(backoff.next(lived)).await;
        }
    }

    /// Why it ended; nothing: node agents read Hubble.
    async fn read(&mut self, hubble: &mut Hubble, relay: Relay) -> Option<End> {
        let Relay { stream, name, origin } = relay;
        let Self { window, said, traffic, .. } = self;
        let heard = |news| match news {
            News::Answers => say(said, &format!("network flows are read from Hubble Relay at {name}")),
            News::Missing(text) => warn!("{text}"),
            News::Well(text) => info!("{text}"),
        };
        let mut read = pin!(hubble.read(stream, &origin, window, heard));
        let mut look = interval(Duration::from_secs(1));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closes = next_span();
        let end = loop {
            tokio::select! {
                end = &mut read => break Some(end),
                _ = look.tick() => {
                    if traffic.has_hubble_of_agents() {
                        break None;
                    }
                    if lock(window).is_filling() {
                        hand_over(window, traffic);
                    }
                }
                () = sleep_until(closes) => {
                    hand_over(window, traffic);
                    closes = next_span();
                }
            }
        };
        hand_over(window, traffic);
        end
    }

    fn hand_over(&self) {
        hand_over(&self.window, &self.traffic);
    }

    fn say(&mut self, sentence: &str) {
        say(&mut self.said, sentence);
    }

    fn fail(&mut self, problem: &str) {
        let sentence = format!("no network flows come from Hubble Relay for now: {problem}");
        if self.said != sentence {
            warn!("{sentence}");
            self.said = sentence;
        }
    }
}

/// Tries Relay; what is said of it.
///
/// # Errors
/// It is there and can't be read, and what to do.
pub async fn trial(config: &Config) -> Result<String, String> {
    let relay = match config.connect().await {
        Ok(relay) => relay,
        Err(Unreached::Absent(where_)) => {
            return Ok(format!("there is none ({where_}); flows come from node agents alone"));
        }
        Err(Unreached::Problem(problem)) => return Err(problem),
    };
    let Relay { stream, name, origin } = relay;
    let status =
        hubble::status(stream, &origin).await.map_err(|why| format!("{name}: {why}; {}", config.remedy()))?;
    let version =
        if status.version.is_empty() { "of a version that it does not say" } else { &status.version };
    let found = format!("{name} is {version}");
    match (status.num_connected_nodes, status.num_unavailable_nodes) {
        (Some(0), _) => Err(format!(
            "{found} and reaches no node: see its log, and whether Hubble is on in Cilium's agents (hubble.enabled)"
        )),
        (Some(nodes), None | Some(0)) => Ok(format!("{found} and reaches {nodes} nodes")),
        (Some(nodes), Some(others)) => {
            Ok(format!("{found} and reaches {nodes} nodes, {others} others it does not"))
        }
        (None, _) => Ok(format!("{found} and does not say how many nodes it reaches")),
    }
}

fn say(said: &mut String, sentence: &str) {
    if said != sentence {
        info!("{sentence}");
        sentence.clone_into(said);
    }
}

fn hand_over(window: &Mutex<Window>, traffic: &Traffic) {
    let (parts, failures) = {
        let mut window = lock(window);
        (window.close(), window.take_failures())
    };
    parts.for_each(|flows| traffic.take_of_relay(flows));
    traffic.take_failures_of_relay(failures);
}

/// Whole after every use.
fn lock(window: &Mutex<Window>) -> std::sync::MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When the present span of flows ends by our clock.
fn next_span() -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Instant::now() + Duration::from_nanos(FLOW_SPAN - now % FLOW_SPAN)
}
