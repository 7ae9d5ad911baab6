//! The collector's one loop: files and link.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use kestrel_link::{
    Event,
    outage::Outage,
    pods::{Pods, Unnamed},
    ship::{Notice, Shipper},
    wake::Wake,
};
use kestrel_proto::node::v1::{LogGap, RequestReport};
use kestrel_runtime::config::Mistakes;
use kestrel_tail::{
    budget::Limits,
    discover::Origin,
    engine::{Engine, Policy},
    position::store::Store,
    redact::Redactor,
};
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;

/// How often directories are looked at.
const SCAN: Duration = Duration::from_secs(1);

/// The aggregator has this long to name our pod; then everything is sent, as of every pod
/// that asked for a collector.
const UNNAMED: Unnamed = Unnamed { after: Duration::from_secs(5), policy: Policy::All };

/// At the end, this long is spent on handing over what the pod wrote last.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// And this long on saying farewell.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// What nobody mended is said again this rarely.
const REMINDER: Duration = Duration::from_secs(600);

/// Says what is wrong with the configuration, and waits to be ended.
pub async fn idle(mistakes: &Mistakes, drain: CancellationToken) {
    while !drain.is_cancelled() {
        error!("this collector does nothing, the pod runs without it: {mistakes}");
        tokio::select! {
            () = drain.cancelled() => {}
            () = sleep(REMINDER) => {}
        }
    }
}

/// Everything the collector knows.
#[derive(Debug)]
pub struct Collector {
    endpoint: http::Uri,
    shipper: Shipper,
    /// Ours alone.
    pods: Pods,
    outage: Outage,
    save_error: Option<String>,
    bytes_lost: u64,
    /// What the pod's proxy logged.
    requests: mpsc::Receiver<RequestReport>,
}

impl Collector {
    /// A collector that goes on where the stored positions say, and tells of `requests` too.
    pub fn new(config: Config, requests: mpsc::Receiver<RequestReport>) -> Self {
        let directories: Vec<_> =
            config.sources.iter().map(|source| source.directory.display().to_string()).collect();
        let Origin { namespace, pod, .. } = &config.pod;
        if !directories.is_empty() {
            info!("collecting log files of {namespace}/{pod} from {}", directories.join(", "));
        }
        let store = Store::load(&config.state.join("positions")).unwrap_or_else(|problem| {
            warn!("{problem}; all files are read again");
            Store::empty(&config.state.join("positions"))
        });
        Self {
            shipper: Shipper::new(
                Engine::new(config.sources, store, Redactor::new(config.redact)),
                Instant::now(),
            ),
            endpoint: config.link.endpoint,
            pods: Pods::new(UNNAMED, BTreeSet::new()),
            outage: Outage::default(),
            save_error: None,
            bytes_lost: 0,
            requests,
        }
    }

    /// Works until the drain, then hands over what was written until then.
    ///
    /// A native sidecar is asked to end after its pod's other containers have
    /// ended, so all that they wrote is in the files by then. It counts as
    /// delivered when the aggregator has let go of it, which it does when it has
    /// given it to the connection to the cloud; its acknowledgement comes only
    /// when that connection has lived on for a while, which is not waited for.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, drain: CancellationToken) {
        let mut scan = interval(SCAN);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wake = Wake::watch(&mut self.shipper.engine);
        let mut pause = Duration::ZERO;
        while !drain.is_cancelled() {
            if pause.is_zero() {
                yield_now().await;
            }
            tokio::select! {
                () = drain.cancelled() => {}
                Some(event) = events.recv() => self.on_event(event),
                Some(report) = self.requests.recv(), if self.shipper.has_room_for_requests() => {
                    self.shipper.tell_requests(&report);
                }
                _ = scan.tick() => self.scan(),
                () = wake.wait(pause) => {}
            }
            pause = self.shipper.pump(Instant::now(), SystemTime::now());
        }
        self.end(&mut events).await;
    }

    fn on_event(&mut self, event: Event) {
        match self.shipper.take(event) {
            Some(Notice::Connected { pod_bytes_per_second, .. }) => {
                self.pods.connected(Instant::now());
                self.shipper.engine.limit(Limits { pod: pod_bytes_per_second, ..Limits::default() });
                self.outage.up();
                info!("connected to the aggregator at {}", self.endpoint);
            }
            Some(Notice::Disconnected { reason, .. }) => {
                self.pods.disconnected();
                if self.outage.down(&reason, Instant::now()) {
                    warn!(
                        "no connection to the aggregator, the files are the buffer until it is back: {reason}"
                    );
                }
            }
            Some(Notice::Pods(update)) => {
                self.pods.update(update);
                self.pods.assign(&mut self.shipper.engine, Instant::now());
            }
            // Nobody but a node agent asks for the time, and is asked.
            Some(Notice::Clock(_) | Notice::Asked(..) | Notice::Unasked(_)) | None => {}
        }
    }

    fn scan(&mut self) {
        let now = Instant::now();
        self.shipper.engine.scan(now);
        self.pods.assign(&mut self.shipper.engine, now);
        for news in self.shipper.engine.news() {
            match news.problem {
                Some(problem) => warn!("{}: {problem}", news.path.display()),
                None => info!("{}: no problem any more", news.path.display()),
            }
        }
        let lost = self.shipper.engine.stats().bytes_lost.total();
        if lost > self.bytes_lost {
            warn!("{} bytes were gone before they were delivered", lost - self.bytes_lost);
            self.bytes_lost = lost;
        }
        let problem = self.shipper.save_error().map(ToString::to_string);
        if problem != self.save_error {
            if let Some(problem) = &problem {
                warn!("positions cannot be kept: {problem}; lines are read again if this container restarts");
            }
            self.save_error = problem;
        }
    }

    async fn end(&mut self, events: &mut mpsc::Receiver<Event>) {
        self.pods.end();
        self.shipper.engine.end();
        let begun = Instant::now();
        let mut delivered = false;
        while !delivered && begun.elapsed() < LAST_WAIT {
            self.scan();
            let pause = self.shipper.pump(Instant::now(), SystemTime::now());
            self.shipper.add_requests();
            let is_whole = self.requests.is_closed() && self.requests.is_empty();
            let nothing_left = self.shipper.engine.unread_bytes() == 0 && is_whole;
            delivered =
                nothing_left && (!self.has_read() || (self.shipper.flush() && self.shipper.is_delivered()));
            if !delivered {
                tokio::select! {
                    Some(event) = events.recv() => self.on_event(event),
                    Some(report) = self.requests.recv() => self.shipper.tell_requests(&report),
                    () = sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(100))) => {}
                }
            }
        }
        self.shipper.save();
        let lines = self.shipper.shipped().lines;
        let missing = self.shipper.missing();
        let bytes: u64 = missing.iter().map(|gap| gap.bytes).sum();
        let heard = self.farewell(&missing, events).await;
        if missing.is_empty() {
            info!("the pod has ended and its {lines} lines were handed over");
        } else {
            let told = if heard { "" } else { ", and the aggregator could not be told" };
            warn!(
                "the pod has ended; {lines} lines were sent, but {bytes} bytes could not be handed over within {} s{told}",
                LAST_WAIT.as_secs()
            );
        }
    }

    /// Tells the aggregator that nothing more comes and what is missing; whether it heard that.
    async fn farewell(&mut self, missing: &[LogGap], events: &mut mpsc::Receiver<Event>) -> bool {
        let over = async {
            while self.shipper.is_connected() {
                if self.shipper.farewell(missing) {
                    // It ends its half of the stream when it has read ours to the end.
                    while let Some(event) = events.recv().await {
                        if matches!(event, Event::Disconnected { .. }) {
                            return true;
                        }
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
            false
        };
        timeout(FAREWELL_WAIT, over).await.unwrap_or(false)
    }

    /// Whether anything was read that is not acknowledged, or counted and not told.
    fn has_read(&self) -> bool {
        self.shipper.engine.in_flight() > 0 || self.shipper.has_requests()
    }
}
