//! What is wrong with the simulated server and the way to it, and what arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use h2::Reason;
use kestrel_proto::cloud::v1::{
    Action, Flow, KubernetesEvent, Pod, PodLogs, StreamDataRequest, stream_control_request,
    stream_data_request::Request as Data,
};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::network;
use crate::uplink::stream::Stream;

/// What happens once.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The server ends a stream with a status.
    End(Stream, Code),
    /// The server resets a stream.
    Reset(Stream, Reason),
    /// The server asks for something on a stream.
    Ask(Stream, u64),
    /// The server wants the connection to end, when its streams have.
    GoAway,
    /// The server ends the connection.
    Abort(Reason),
    /// What lasts has changed.
    Changed,
}

/// What lasts for a while.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Nobody can connect.
    pub refuse: bool,
    /// The server does not say a word on new connections.
    pub dumb: bool,
    /// Bytes do not arrive.
    pub frozen: bool,
    /// Bytes take ten times as long.
    pub slow: bool,
    /// How streams are answered that are opened.
    pub opens: BTreeMap<u8, Code>,
    /// Streams that the server does not read.
    pub stalled: BTreeSet<u8>,
    /// Streams on which it sends no heartbeat.
    pub mute: BTreeSet<u8>,
}

/// What arrived, from each source the numbers in the order in which each came first.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub inventory: BTreeMap<String, String>,
    pub commits: u64,
    /// Numbers that came, by source, in the order of their first coming.
    pub firsts: BTreeMap<&'static str, Vec<u64>>,
    seen: BTreeSet<(&'static str, u64)>,
    /// Messages, repeats included.
    pub messages: u64,
    /// Bytes, on all streams.
    pub bytes: u64,
    /// Bytes that had come when the newest answer had.
    pub bytes_at_answer: u64,
    pub connections: Vec<Instant>,
    /// Times each stream was opened.
    pub opened: [u64; 5],
    /// The newest opening of each stream that brought a message.
    newest: [u64; 5],
    /// Messages that came after one that a newer opening of their stream had brought.
    pub late: u64,
    /// Requests that were asked.
    pub asked: u64,
}

/// Everything outside of the uplink.
pub(super) struct World {
    state: Mutex<(Faults, Record, Rng)>,
    links: Mutex<Vec<CancellationToken>>,
    pub events: broadcast::Sender<Event>,
    thaw: Notify,
    /// There are new credentials.
    pub new_credentials: Notify,
    /// The server's windows: of a connection and of a stream.
    pub windows: (u32, u32),
}

impl World {
    pub(super) fn new(seed: u64, windows: (u32, u32)) -> Self {
        Self {
            state: Mutex::new((Faults::default(), Record::default(), Rng::with_seed(seed))),
            links: Mutex::default(),
            events: broadcast::Sender::new(1024),
            thaw: Notify::new(),
            new_credentials: Notify::new(),
            windows,
        }
    }

    fn state(&self) -> MutexGuard<'_, (Faults, Record, Rng)> {
        self.state.lock().unwrap()
    }

    pub(super) fn faults<T>(&self, look: impl FnOnce(&Faults) -> T) -> T {
        look(&self.state().0)
    }

    pub(super) fn record<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.state().1)
    }

    /// Something that lasts begins or ends.
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().0);
        self.thaw.notify_waiters();
        self.happens(Event::Changed);
    }

    pub(super) fn happens(&self, event: Event) {
        let _nobody_is_there = self.events.send(event);
    }

    /// All connections are gone at once, with what is on its way.
    pub(super) fn cut(&self) {
        for link in self.links.lock().unwrap().drain(..) {
            link.cancel();
        }
    }

    pub(super) fn link(&self) -> CancellationToken {
        let link = CancellationToken::new();
        self.links.lock().unwrap().push(link.clone());
        link
    }

    pub(super) fn latency(&self) -> Duration {
        let mut state = self.state();
        let slow = state.0.slow;
        network::latency(&mut state.2, slow)
    }

    /// Resolves when bytes arrive.
    pub(super) async fn thawed(&self) {
        loop {
            let thaw = self.thaw.notified();
            if !self.faults(|faults| faults.frozen) {
                return;
            }
            thaw.await;
        }
    }

    pub(super) fn dialed(&self) {
        self.record(|record| record.connections.push(Instant::now()));
    }

    /// A stream was opened; the answer says the how manieth time.
    pub(super) fn opened(&self, stream: Stream) -> u64 {
        self.record(|record| {
            record.opened[stream as usize] += 1;
            record.opened[stream as usize]
        })
    }

    /// The server asks for something, on a stream that is open.
    pub(super) fn ask(&self, stream: Stream) {
        let number = self.record(|record| {
            record.asked += 1;
            record.asked
        });
        self.happens(Event::Ask(stream, number));
    }
}

impl Record {
    /// An opening of a stream brought a message.
    pub(super) fn came(&mut self, stream: Stream, opening: u64) {
        let newest = &mut self.newest[stream as usize];
        self.late += u64::from(opening < *newest);
        *newest = opening.max(*newest);
    }

    fn number(&mut self, source: &'static str, number: &str) {
        let number = number.parse().unwrap();
        self.messages += 1;
        if self.seen.insert((source, number)) {
            self.firsts.entry(source).or_default().push(number);
        }
    }

    pub(super) fn count(&self, source: &'static str) -> usize {
        self.firsts.get(source).map_or(0, Vec::len)
    }

    pub(super) fn has(&self, source: &'static str, number: u64) -> bool {
        self.seen.contains(&(source, number))
    }

    pub(super) fn signal(&mut self, event: &KubernetesEvent) {
        self.number("signal", &event.name);
    }

    pub(super) fn logs(&mut self, logs: &PodLogs) {
        let source = if logs.container_name == "own" { "own logs" } else { "logs" };
        self.number(source, &logs.pod_name);
    }

    pub(super) fn flow(&mut self, flow: &Flow) {
        self.number("flow", &flow.direction);
    }

    pub(super) fn answer(&mut self, answer: &stream_control_request::Request) {
        self.bytes_at_answer = self.bytes;
        match answer {
            stream_control_request::Request::KubernetesApiResponse(answer) => {
                self.number("answer", &answer.request_id);
            }
            other => panic!("no such answer was given: {other:?}"),
        }
    }

    pub(super) fn data(&mut self, opening: u64, message: StreamDataRequest) {
        match message.request.unwrap() {
            Data::Pod(pod) if opening == self.opened[Stream::Data as usize] => self.pod(pod),
            // A stream that was not read for a while. What it created is told
            // anew by now; what it deleted had left the window.
            Data::Pod(pod) if pod.action() == Action::Delete => self.delete_late(&pod),
            Data::Pod(_) => {}
            Data::InventoryCommit(_) => self.commits += 1,
            Data::KubernetesEvent(event) => self.signal(&event),
            Data::PodLogs(logs) => self.logs(&logs),
            Data::Flow(flow) => self.flow(&flow),
            Data::KubernetesApiResponse(answer) => self.number("answer", &answer.request_id),
            other => panic!("nothing like this was sent: {other:?}"),
        }
    }

    /// Unless it came back since then.
    fn delete_late(&mut self, pod: &Pod) {
        let change = |phase: &str| phase.parse::<u64>().unwrap();
        if self.inventory.get(&pod.uid).is_some_and(|held| change(held) <= change(&pod.phase)) {
            self.inventory.remove(&pod.uid);
        }
    }

    fn pod(&mut self, Pod { uid, phase, action, .. }: Pod) {
        match Action::try_from(action).unwrap() {
            Action::Delete => {
                self.inventory.remove(&uid);
            }
            _ => {
                self.inventory.insert(uid, phase);
            }
        }
    }
}
