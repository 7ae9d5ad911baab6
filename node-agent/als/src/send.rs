//! What a receiver beside the agent link has counted, on its way there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kestrel_proto::node::v1::RequestReport;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{Window, counter::Counter, report::Parts};

/// How often it is looked for what has settled.
const LOOK: Duration = Duration::from_secs(1);

/// Hands over what `counter` has counted, as soon as it has settled and there is room; after `over`, all of it. While there is
/// no room, what settles is counted together.
pub(crate) async fn run(counter: Counter, reports: mpsc::Sender<RequestReport>, over: CancellationToken) {
    let mut sender = Sender {
        counter,
        // Two lives do not begin in the same nanosecond.
        run: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
        number: 0,
        backlog: Window::default(),
        parts: None,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = None;
    while !over.is_cancelled() {
        tokio::select! {
            _ = look.tick() => sender.counter.settle_into(&mut sender.backlog, false),
            Ok(room) = reports.reserve(), if next.is_some() => {
                if let Some(report) = next.take() {
                    room.send(report);
                }
            }
            () = over.cancelled() => {}
        }
        next = next.or_else(|| sender.next());
    }
    sender.counter.settle_into(&mut sender.backlog, true);
    while let Some(report) = next.take().or_else(|| sender.next()) {
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

struct Sender {
    counter: Counter,
    run: u64,
    /// Of the last report.
    number: u64,
    /// What has settled.
    backlog: Window,
    /// Of what had settled before, what was not handed over yet.
    parts: Option<Parts>,
}

impl Sender {
    fn next(&mut self) -> Option<RequestReport> {
        let part = self.parts.as_mut().and_then(Iterator::next);
        let (proxies, rows) = match part {
            Some(part) => part,
            None => {
                let mut parts = self.counter.parts(std::mem::take(&mut self.backlog));
                let first = parts.next();
                self.parts = Some(parts);
                first?
            }
        };
        self.number += 1;
        Some(RequestReport { run: self.run, number: self.number, proxies, rows })
    }
}
