//! Our side: the uplink, what goes into it, and whether all of it came out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use kestrel_proto::cloud::v1::{
    Flow, InventoryCommit, KubernetesApiResponse, KubernetesEvent, Pod, PodLogs,
    stream_control_request::Request as Tool, stream_events_request, stream_flows_request,
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{config, network::Network, world::World};
use crate::{
    inventory::{Kind, Mirror},
    uplink::{
        Answer, Request, Uplink, View,
        lanes::{Lane, Lanes, Over},
        metrics::Metrics,
        receipt::{Outcome, Source},
        state::Phase,
    },
};

/// Our side.
pub(super) struct Inside {
    lanes: Lanes,
    mirror: Mirror,
    pub view: View,
    state: Arc<Mutex<State>>,
    rest: CancellationToken,
    uplink: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    inventory: BTreeMap<String, String>,
    /// How many went in, by source.
    sent: BTreeMap<&'static str, u64>,
    /// Requests that came.
    asked: BTreeSet<u64>,
    /// Batches of logs that left the resend window.
    left: BTreeSet<u64>,
}

impl Inside {
    pub(super) fn start(world: &Arc<World>, drain: &CancellationToken) -> Self {
        let (metrics, config, state) = (Metrics::default(), config(), Arc::new(Mutex::new(State::default())));
        let (lanes, mirror) = (Lanes::new(metrics.clone()), Mirror::default());
        for kind in Kind::ALL {
            mirror.skip(kind);
        }
        mirror.tell_with_commit(InventoryCommit::default());
        let requests = Arc::new({
            let (lanes, state) = (lanes.clone(), Arc::clone(&state));
            move |over, request| {
                let Request::KubernetesApi(request) = request else { panic!("nobody asked for {request:?}") };
                let number = request.request_id.parse().unwrap();
                state.lock().unwrap().asked.insert(number);
                // Now and then a large one.
                let global_error_message = "x".repeat(if number % 29 == 0 { 1024 * 1024 } else { 100 });
                let answer = KubernetesApiResponse {
                    request_id: request.request_id,
                    global_error_message,
                    ..Default::default()
                };
                lanes.answers(over).send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
            }
        });
        let network = Box::new(Network(Arc::clone(world)));
        let uplink = Uplink::over(network, config, lanes.clone(), mirror.clone(), requests, metrics.clone());
        let (view, rest) = (uplink.view(), CancellationToken::new());
        let drain = drain.clone();
        let uplink = tokio::spawn(async move { uplink.run(&drain).await });
        let inside = Self { lanes, mirror, view, state, rest, uplink: Mutex::new(Some(uplink)) };
        tokio::spawn(agent(inside.lanes.clone(), Arc::clone(&inside.state), inside.rest.clone()));
        inside
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn next(&self, source: &'static str) -> String {
        let mut state = self.state();
        let count = state.sent.entry(source).or_default();
        *count += 1;
        count.to_string()
    }

    pub(super) fn signal(&self, bytes: usize) {
        let event =
            KubernetesEvent { name: self.next("signal"), message: "x".repeat(bytes), ..Default::default() };
        self.lanes.signals().send(stream_events_request::Request::KubernetesEvent(event));
    }

    pub(super) fn flow(&self, bytes: usize) {
        let flow = Flow { direction: self.next("flow"), src_ip: "x".repeat(bytes), ..Default::default() };
        self.lanes.flows().send(stream_flows_request::Request::Flow(flow));
    }

    /// An answer that nobody asked for.
    pub(super) fn answer(&self) {
        let answer = KubernetesApiResponse { request_id: self.next("answer"), ..Default::default() };
        self.lanes.answers(Over::Control).send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
    }

    pub(super) fn own_log(&self) {
        let container_name = "own".to_owned();
        self.lanes.own_logs().send(PodLogs {
            pod_name: self.next("own logs"),
            container_name,
            ..Default::default()
        });
    }

    /// A pod comes, changes or goes.
    pub(super) fn pod(&self, rng: &mut Rng) {
        let uid = format!("pod-{}", rng.u32(..60));
        if rng.u8(..4) == 0 {
            self.state().inventory.remove(&uid);
            self.mirror.remove(Kind::Pod, &uid);
        } else {
            let phase = self.next("change");
            self.state().inventory.insert(uid.clone(), phase.clone());
            self.mirror.apply(Kind::Pod, &uid, &Pod { uid: uid.clone(), phase, ..Default::default() });
        }
    }

    /// Nothing new goes in.
    pub(super) fn rest(&self) {
        self.rest.cancel();
    }

    /// Whether everything is where it belongs; else what is not.
    pub(super) fn is_well(&self, world: &World) -> Result<(), String> {
        let (inside, shown) = (self.state(), self.view.state());
        world.record(|record| {
            for (source, count) in &inside.sent {
                let came = record.count(source) as u64;
                if *source != "change" && came != *count {
                    let missing = (1..=*count).find(|number| !record.has(source, *number));
                    let left = missing.is_some_and(|number| inside.left.contains(&number));
                    return Err(format!(
                        "{came} of {count} of {source}, not {missing:?} (left: {left}); {shown:#?}"
                    ));
                }
            }
            if let Some(missing) = inside.asked.iter().find(|number| !record.has("answer", **number)) {
                return Err(format!("no answer to request {missing}; {shown:#?}"));
            }
            if record.inventory != inside.inventory {
                return Err(format!("{:?} instead of {:?}; {shown:#?}", record.inventory, inside.inventory));
            }
            Ok(())
        })?;
        let logs = inside.sent.get("logs").copied().unwrap_or_default();
        if inside.left.len() as u64 != logs {
            return Err(format!("{} of {logs} batches left; {shown:#?}", inside.left.len()));
        }
        if let Some(lane) = Lane::ALL.into_iter().find(|lane| self.lanes.depth(*lane).messages > 0) {
            return Err(format!("{lane:?} is not empty; {shown:#?}"));
        }
        let open = |stream: &super::super::state::StreamState| {
            matches!(stream.phase, Phase::Open(_)) && stream.unsettled == 0
        };
        if !shown.streams.iter().all(open) {
            return Err(format!("not all streams are open and settled; {shown:#?}"));
        }
        Ok(())
    }

    /// Whether all came in its order.
    pub(super) fn order(&self, world: &World) -> Result<(), String> {
        world.record(|record| {
            for source in ["signal", "flow", "own logs", "logs"] {
                let firsts = record.firsts.get(source).map(Vec::as_slice).unwrap_or_default();
                if let Some(pair) = firsts.windows(2).find(|pair| pair[0] >= pair[1]) {
                    return Err(format!("{source} {} came before {}", pair[0], pair[1]));
                }
            }
            Ok(())
        })
    }

    pub(super) async fn ended(&self) {
        let uplink = self.uplink.lock().unwrap().take().unwrap();
        uplink.await.unwrap();
    }
}

/// A node's agent: sends batches, and when it hears that one was lost, that one
/// and all that came after it again.
async fn agent(lanes: Lanes, state: Arc<Mutex<State>>, rest: CancellationToken) {
    let (source, mut outcomes) = Source::new();
    let (mut written, mut next, mut generation) = (0, 1, source.generation());
    // What was sent, by the number of its sending: its batch, and the generation then.
    let mut sendings = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some((sending, outcome)) = outcomes.recv() => {
                let (batch, then) = sendings[sending as usize];
                match outcome {
                    Outcome::Left => {
                        state.lock().unwrap().left.insert(batch);
                    }
                    Outcome::Lost(_) if then == generation => {
                        generation = source.generation();
                        next = batch;
                    }
                    Outcome::Lost(_) => {}
                }
                continue;
            }
            () = std::future::ready(()), if next <= written => {}
            () = sleep(Duration::from_millis(1500)), if !rest.is_cancelled() => {
                written += 1;
                state.lock().unwrap().sent.insert("logs", written);
            }
        }
        let receipt = source.receipt(sendings.len() as u64, generation);
        sendings.push((next, generation));
        let logs = PodLogs { pod_name: next.to_string(), ..Default::default() };
        next += 1;
        lanes.logs().send(prost::Message::encode_to_vec(&logs), receipt).await;
    }
}
