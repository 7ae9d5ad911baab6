//! What arrived: bounded, pure, and the one place that tests ask.

pub mod connections;
pub mod inventory;
pub mod logs;
pub mod ring;
pub mod sequence;
pub mod source;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use kestrel_proto::cloud::v1::{KubernetesEvent, PodLogs};
use serde::Serialize;
use serde_json::{Value, json};

use crate::wire::{Facts, Message, Stream};
use connections::Connections;
use inventory::Inventory;
use logs::Logs;
use ring::Ring;
use sequence::Sequences;
use source::Source;

/// Bytes of signals, of flows, of answers and of the operators' own figures that are kept.
const SIGNAL_BUDGET: usize = 32 << 20;
const FLOW_BUDGET: usize = 32 << 20;
const ANSWER_BUDGET: usize = 64 << 20;
const STATS_BUDGET: usize = 1 << 20;

/// One message with where it came from.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it came.
    pub at: Timestamp,
    /// The stream it came on.
    pub stream: Stream,
    /// Which opening of the stream; counts up over all streams.
    pub stream_id: u64,
    /// The cluster that the stream's token names.
    pub cluster: Arc<str>,
    /// What it is about.
    pub facts: Facts,
    /// The message.
    pub message: Message,
}

impl Arrival {
    /// The arrival as the query API shows it.
    pub fn json(&self) -> Value {
        json!({
            "at": self.at,
            "cluster": &*self.cluster,
            "stream": self.stream,
            "kind": self.message.kind(),
            "action": self.facts.action,
            "namespace": self.facts.namespace,
            "name": self.facts.name,
            "message": self.message.json(),
        })
    }
}

/// An envelope taken apart: what takes its time is done before the record is
/// changed, which everybody who reads it waits for.
#[derive(Debug)]
pub struct Parsed {
    stream: Stream,
    bytes: u64,
    arrival: Option<Arc<Arrival>>,
    logs: Option<PodLogs>,
}

impl Parsed {
    /// Takes an envelope apart that came at `now` on an opening of a stream.
    pub fn new(stream: Stream, stream_id: u64, cluster: &Arc<str>, envelope: Bytes, now: Timestamp) -> Self {
        let bytes = envelope.len() as u64;
        let message = Message::from_envelope(stream, envelope);
        let logs = message.as_ref().filter(|message| message.kind() == "pod_logs");
        let logs = logs.and_then(|message| message.decode().ok());
        let arrival = message.map(|message| {
            let (cluster, facts) = (Arc::clone(cluster), message.facts());
            Arc::new(Arrival { at: now, stream, stream_id, cluster, facts, message })
        });
        Self { stream, bytes, arrival, logs }
    }
}

/// How much of something arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Their encoded length in bytes.
    pub bytes: u64,
}

/// A [`Tally`] with what it counts.
#[derive(Clone, Debug, Serialize)]
pub struct KindTally {
    /// The stream.
    pub stream: Stream,
    /// The member of the envelope, such as `pod`.
    pub kind: String,
    /// `CREATE`, `UPDATE` or `DELETE`, where the message says so.
    pub action: Option<String>,
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Everything that arrived since the start.
#[derive(Debug)]
pub struct Record {
    started: Timestamp,
    tallies: BTreeMap<(Stream, String, Option<String>), Tally>,
    /// Objects.
    pub inventory: Inventory,
    /// Events, status changes and alerts.
    pub signals: Ring,
    /// The numbered series in the names and messages of Kubernetes events, by what they are about.
    pub signal_sequences: Sequences,
    /// What operators say of themselves.
    pub stats: Ring,
    /// L3/L4 flows and L7 access logs.
    pub flows: Ring,
    /// Log lines.
    pub logs: Logs,
    /// Answers and verdicts.
    pub answers: Ring,
    /// Connections, streams and refusals.
    pub connections: Connections,
}

impl Record {
    /// An empty record. `prunes`: a commit ends what its stream did not name.
    pub fn new(now: Timestamp, prunes: bool) -> Self {
        Self {
            started: now,
            tallies: BTreeMap::new(),
            inventory: Inventory::new(prunes),
            signals: Ring::new(SIGNAL_BUDGET),
            signal_sequences: Sequences::new("signal "),
            stats: Ring::new(STATS_BUDGET),
            flows: Ring::new(FLOW_BUDGET),
            logs: Logs::default(),
            answers: Ring::new(ANSWER_BUDGET),
            connections: Connections::default(),
        }
    }

    /// Takes a message in; `None` if its envelope carried nothing.
    pub fn insert(&mut self, parsed: Parsed) -> Option<Arc<Arrival>> {
        let Parsed { stream, bytes, arrival, logs } = parsed;
        let kind = arrival.as_ref().map_or("nothing", |arrival| arrival.message.kind()).to_owned();
        let action = arrival.as_ref().and_then(|arrival| arrival.facts.action.clone());
        let tally = self.tallies.entry((stream, kind, action)).or_default();
        tally.messages += 1;
        tally.bytes += bytes;
        let arrival = arrival?;
        match logs {
            Some(batch) => self.logs.insert(batch, arrival.at),
            None => self.file(&arrival),
        }
        Some(arrival)
    }

    fn file(&mut self, arrival: &Arc<Arrival>) {
        match arrival.message.kind() {
            "namespace"
            | "node"
            | "pod"
            | "workload"
            | "service"
            | "network_policy"
            | "authorization_policy" => self.inventory.apply(Arc::clone(arrival)),
            "inventory_commit" => self.inventory.commit(arrival),
            "flow" | "l7_access_log" => self.flows.push(Arc::clone(arrival)),
            "operator_stats" => self.stats.push(Arc::clone(arrival)),
            _ if !arrival.facts.request_id.is_empty() => self.answers.push(Arc::clone(arrival)),
            kind => {
                if kind == "kubernetes_event"
                    && let Ok(event) = arrival.message.decode()
                {
                    self.count(event);
                }
                self.signals.push(Arc::clone(arrival));
            }
        }
    }

    fn count(&mut self, event: KubernetesEvent) {
        let text = format!("{}: {}", event.name, event.message);
        let about = event.involved_object.map(|object| object.name).unwrap_or_default();
        let source = Source { namespace: event.namespace, pod: about, container: String::new() };
        self.signal_sequences.insert(&source, &text);
    }

    /// The newest answer to a request.
    pub fn answer(&self, request_id: &str) -> Option<&Arc<Arrival>> {
        self.answers.iter().rev().find(|answer| answer.facts.request_id == request_id)
    }

    /// When the record began.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// How much of everything arrived.
    pub fn tallies(&self) -> Vec<KindTally> {
        let one = |((stream, kind, action), tally): (&(Stream, String, Option<String>), &Tally)| KindTally {
            stream: *stream,
            kind: kind.clone(),
            action: action.clone(),
            tally: *tally,
        };
        self.tallies.iter().map(one).collect()
    }

    /// How many messages of `kind` arrived, over all streams and actions.
    pub fn messages(&self, kind: &str) -> u64 {
        self.tallies.iter().filter(|((_, of, _), _)| of == kind).map(|(_, tally)| tally.messages).sum()
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::{
        Action, InventoryCommit, ObjectReference, Pod, ShellCommandResponse, StreamControlRequest,
        StreamDataRequest, stream_control_request, stream_data_request,
    };
    use prost::Message as _;

    use super::{source::Selector, *};

    struct Cloud {
        record: Record,
        cluster: Arc<str>,
    }

    impl Cloud {
        fn new() -> Self {
            Self { record: Record::new(Timestamp::UNIX_EPOCH, true), cluster: "c1".into() }
        }

        fn data(&mut self, stream_id: u64, request: stream_data_request::Request) {
            let envelope = StreamDataRequest { request: Some(request) }.encode_to_vec();
            assert!(self.insert(Stream::Data, stream_id, envelope.into()).is_some());
        }

        fn insert(&mut self, stream: Stream, stream_id: u64, envelope: Bytes) -> Option<Arc<Arrival>> {
            let now = Timestamp::UNIX_EPOCH;
            self.record.insert(Parsed::new(stream, stream_id, &self.cluster, envelope, now))
        }

        fn pods(&self) -> Vec<String> {
            self.record.inventory.of_kind("pod").map(|pod| pod.facts.name.clone()).collect()
        }
    }

    fn pod(name: &str, action: Action) -> stream_data_request::Request {
        stream_data_request::Request::Pod(Pod {
            name: name.into(),
            uid: format!("uid-{name}"),
            action: action.into(),
            ..Pod::default()
        })
    }

    fn commit() -> stream_data_request::Request {
        stream_data_request::Request::InventoryCommit(InventoryCommit::default())
    }

    #[test]
    fn the_latest_state_is_kept_and_every_message_counted() {
        let mut cloud = Cloud::new();
        cloud.data(1, pod("a", Action::Create));
        cloud.data(1, pod("b", Action::Create));
        cloud.data(1, pod("a", Action::Update));
        cloud.data(1, pod("b", Action::Delete));
        assert_eq!(cloud.pods(), ["a"]);
        assert_eq!(cloud.record.messages("pod"), 4);
        let actions: Vec<_> =
            cloud.record.tallies().into_iter().map(|t| (t.action, t.tally.messages)).collect();
        let expected = [("CREATE", 2), ("DELETE", 1), ("UPDATE", 1)].map(|(a, n)| (Some(a.to_owned()), n));
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_commit_forgets_what_only_an_earlier_stream_named() {
        let mut cloud = Cloud::new();
        cloud.data(1, pod("a", Action::Create));
        cloud.data(1, pod("gone", Action::Create));
        cloud.data(1, commit());
        cloud.data(2, pod("a", Action::Create));
        assert_eq!(cloud.pods(), ["a", "gone"]);
        cloud.data(2, commit());
        assert_eq!(cloud.pods(), ["a"]);
        let commits: Vec<_> =
            cloud.record.inventory.commits().iter().map(|c| (c.objects, c.forgotten)).collect();
        assert_eq!(commits, [(2, 0), (1, 1)]);
    }

    #[test]
    fn answers_are_found_by_request() {
        let mut cloud = Cloud::new();
        let answer = ShellCommandResponse { request_id: "r1".into(), ..ShellCommandResponse::default() };
        let request = Some(stream_control_request::Request::ShellCommandResponse(answer));
        let envelope = StreamControlRequest { request }.encode_to_vec();
        cloud.insert(Stream::Control, 3, envelope.into());
        assert_eq!(cloud.record.answer("r1").unwrap().message.kind(), "shell_command_response");
        assert!(cloud.record.answer("r2").is_none());
    }

    #[test]
    fn numbered_signals_are_followed_by_what_they_are_about() {
        let mut cloud = Cloud::new();
        let about = |name: &str| Some(ObjectReference { name: name.into(), ..ObjectReference::default() });
        for (object, number) in [("a", 1), ("b", 2), ("a", 4), ("a", 3), ("a", 4)] {
            cloud.data(
                1,
                stream_data_request::Request::KubernetesEvent(KubernetesEvent {
                    message: format!("signal {number}"),
                    involved_object: about(object),
                    ..KubernetesEvent::default()
                }),
            );
        }
        let pod = |pod: &str| Selector { pod: Some(pod.into()), ..Selector::default() };
        let report = cloud.record.signal_sequences.report("signal ", &pod("a"), 9).unwrap();
        assert_eq!((report.missing, report.late, report.duplicates), (vec![2], 1, 1));
        let report = cloud.record.signal_sequences.report("signal ", &Selector::default(), 9).unwrap();
        assert_eq!((report.distinct, report.missing_count), (4, 0));
    }

    #[test]
    fn an_empty_envelope_is_counted() {
        let mut cloud = Cloud::new();
        assert!(cloud.insert(Stream::Events, 1, Bytes::new()).is_none());
        assert_eq!(cloud.record.messages("nothing"), 1);
    }
}
