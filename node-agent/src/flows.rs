//! Network flows that this node shows: read from every source, counted together, told to the aggregator.
//!
//! The aggregator says whose addresses they were, as it alone knows all pods.

mod aws_policy;
mod files;
mod hubble;
mod missing;
pub mod sources;
mod ztunnel;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kestrel_flows::{
    counts::Counts,
    window::{MOST_FLOWS, Parts, Window},
};
use kestrel_proto::node::{
    FLOW_SPAN,
    v1::{FlowReport, NameFailure},
};
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use files::Files;
use missing::Missing;
use sources::Sources;

/// How often sources are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the link takes of flows and answers.
pub struct Outbox {
    /// Reports, in their order. Who does not take them has the sources wait.
    pub reports: mpsc::Receiver<FlowReport>,
    /// Number of the last that has arrived.
    pub arrived: watch::Sender<u64>,
    /// What flows are read from.
    pub sources: Sources,
}

/// Reads the sources that `config` names, whenever they are there, and the link's end of it.
pub fn watch(config: &Config, counts: Counts) -> (impl Future<Output = anyhow::Result<()>> + use<>, Outbox) {
    let (reports, taken) = mpsc::channel(1);
    let (arrived, heard) = watch::channel(0);
    let has_files = config.aws_policy_log.is_some() || config.ztunnel_namespace.is_some();
    let looking = usize::from(has_files) + usize::from(config.hubble_socket.is_some());
    let (now, sources) = (SystemTime::now(), Sources::looked_for_by(looking));
    let flows = Flows {
        files: Files::new(config, counts.clone(), sources.clone(), now),
        sources: sources.clone(),
        hubble: config.hubble_socket.clone(),
        counts,
        window: Arc::new(Mutex::new(Window::new(MOST_FLOWS))),
        missing: Missing::default(),
        number: 1,
        closes: Instant::now() + until_told(now),
        // Two lives do not begin in the same nanosecond.
        run: now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
        reports: 0,
        arrived: 0,
        closed: None,
        under_way: VecDeque::new(),
    };
    (flows.run(reports, heard), Outbox { reports: taken, arrived, sources })
}

struct Flows {
    files: Files,
    hubble: Option<PathBuf>,
    counts: Counts,
    sources: Sources,
    missing: Missing,
    window: Arc<Mutex<Window>>,
    /// Of the present window.
    number: u64,
    /// When the present window ends, if it is not full before.
    closes: Instant,
    run: u64,
    /// How many there were.
    reports: u64,
    /// Of the last window that was closed, and its number, what nobody has taken.
    closed: Option<(u64, Parts, Vec<NameFailure>)>,
    /// Number of the last that has arrived.
    arrived: u64,
    /// Windows that have not arrived, and their last reports.
    under_way: VecDeque<(u64, u64)>,
}

impl Flows {
    async fn run(
        mut self,
        reports: mpsc::Sender<FlowReport>,
        mut arrived: watch::Receiver<u64>,
    ) -> anyhow::Result<()> {
        let hubble = self.hubble.take().map(|socket| {
            tokio::spawn(hubble::follow(
                socket,
                Arc::clone(&self.window),
                self.counts.clone(),
                self.sources.clone(),
            ))
        });
        let _hubble = hubble.map(AbortOnDropHandle::new);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !reports.is_closed() {
            tokio::select! {
                _ = look.tick() => self.look().await,
                Ok(()) = arrived.changed() => {
                    self.arrived = *arrived.borrow_and_update();
                    self.settle();
                }
                Ok(room) = reports.reserve(), if self.closed.is_some() => {
                    if let Some(report) = self.next() {
                        room.send(report);
                    }
                }
                () = reports.closed() => {}
            }
        }
        self.arrived = *arrived.borrow();
        self.settle();
        self.files.save(SystemTime::now());
        Ok(())
    }

    /// Reads all there is, unless what was read before has not been taken.
    async fn look(&mut self) {
        self.files.scan(Instant::now().into_std());
        loop {
            let now = Instant::now();
            self.close(now);
            if self.closed.is_some() || !self.read(now) {
                break;
            }
            yield_now().await;
        }
        self.files.save(SystemTime::now());
        self.missing.tell(&self.counts, Instant::now().into_std());
    }

    /// Reads some of the files; whether there is more.
    fn read(&mut self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.read(self.number, &mut window, now.into_std())
    }

    /// Ends the window if it is time.
    fn close(&mut self, now: Instant) {
        let is_over = now >= self.closes;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.is_some() || !(is_over || window.is_filling()) {
            return;
        }
        if is_over {
            self.closes = now + until_told(SystemTime::now());
        }
        let (parts, failures) = (window.close(), window.take_failures());
        drop(window);
        if parts.is_empty() && failures.is_empty() {
            self.is_told(self.number);
        } else {
            self.closed = Some((self.number, parts, failures));
        }
        self.number += 1;
    }

    /// The next report of the closed window.
    fn next(&mut self) -> Option<FlowReport> {
        let (window, mut parts, name_failures) = self.closed.take()?;
        // Of one that is closed there is always something.
        let flows = parts.next().unwrap_or_default();
        self.reports += 1;
        if parts.is_empty() {
            self.is_told(window);
        } else {
            self.closed = Some((window, parts, Vec::new()));
        }
        Some(FlowReport { run: self.run, number: self.reports, flows, name_failures })
    }

    /// Nothing of a window is left to be told.
    fn is_told(&mut self, window: u64) {
        // What was read for one without flows has arrived with those before it.
        match self.under_way.back_mut() {
            Some((number, last)) if *last == self.reports => *number = window,
            _ => self.under_way.push_back((window, self.reports)),
        }
        self.settle();
    }

    /// Of windows whose reports have all arrived nothing has to be read again.
    fn settle(&mut self) {
        while let Some((window, _)) = self.under_way.pop_front_if(|(_, last)| *last <= self.arrived) {
            self.files.ack(window);
        }
    }
}

/// Flows are told when a span ends by the clock of the node, so by all nodes at once.
fn until_told(now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Duration::from_nanos(FLOW_SPAN - now % FLOW_SPAN)
}

#[cfg(test)]
mod tests;
