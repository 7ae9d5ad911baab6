//! Messages and their places in the envelopes of the streams.
//!
//! Signals, logs and answers have two places: one in the envelope of their own
//! stream and one in the data stream's, which carries them where the server
//! does not know their stream. A message is encoded once, without an envelope;
//! the envelope is the few bytes before it.

mod fit;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kestrel_proto::cloud::v1::{
    NetworkPoliciesWithErrors, OperatorStats, PodLogs, stream_control_request, stream_events_request,
    stream_flows_request,
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

/// No message on the wire is larger, in either direction.
pub(crate) const MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;
/// A message without its envelope, which is a field's key and a length.
const BODY_BYTES: usize = MAX_MESSAGE_BYTES - 16;

/// An encoded message without its envelope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    body: Bytes,
    /// Field of the own stream's envelope, and of the data stream's.
    fields: [u8; 2],
}

/// What a request of the cloud is answered with.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// A tool's answer.
    Tool(stream_control_request::Request),
    /// What became of a pushed policy; only the data stream has a place for it.
    Policy(NetworkPoliciesWithErrors),
}

impl From<stream_events_request::Request> for Message {
    fn from(mut signal: stream_events_request::Request) -> Self {
        fit::signal(&mut signal);
        use stream_events_request::Request as Signal;
        let (own, data, body) = match signal {
            Signal::KubernetesEvent(event) => (1, 18, event.encode_to_vec()),
            Signal::PodStatusChange(change) => (2, 19, change.encode_to_vec()),
            Signal::NodeConditionChange(change) => (3, 20, change.encode_to_vec()),
            Signal::WorkloadRolloutStatus(status) => (4, 21, status.encode_to_vec()),
            Signal::DatadogMonitorAlert(alert) => (5, 27, alert.encode_to_vec()),
        };
        Self { body: body.into(), fields: [own, data] }
    }
}

impl From<OperatorStats> for Message {
    /// Only the data stream has a place for it.
    fn from(stats: OperatorStats) -> Self {
        Self { body: stats.encode_to_vec().into(), fields: [25, 25] }
    }
}

impl From<Answer> for Message {
    fn from(mut answer: Answer) -> Self {
        fit::answer(&mut answer);
        use stream_control_request::Request as Tool;
        let (own, data, body) = match answer {
            Answer::Tool(Tool::KubernetesApiResponse(answer)) => (1, 7, answer.encode_to_vec()),
            Answer::Tool(Tool::ShellCommandResponse(answer)) => (2, 9, answer.encode_to_vec()),
            Answer::Tool(Tool::YamlDryRunResponse(answer)) => (3, 12, answer.encode_to_vec()),
            Answer::Tool(Tool::YamlApplyResponse(answer)) => (4, 13, answer.encode_to_vec()),
            Answer::Tool(Tool::CertificateRenewalResponse(answer)) => (5, 15, answer.encode_to_vec()),
            Answer::Tool(Tool::OperatorRestartResponse(answer)) => (6, 16, answer.encode_to_vec()),
            Answer::Tool(Tool::MetricsQueryResponse(answer)) => (7, 24, answer.encode_to_vec()),
            Answer::Tool(Tool::DatadogQueryResponse(answer)) => (8, 26, answer.encode_to_vec()),
            Answer::Policy(verdict) => (3, 3, verdict.encode_to_vec()),
        };
        Self { body: body.into(), fields: [own, data] }
    }
}

impl Message {
    /// Logs, in as many messages as they need.
    pub(crate) fn of_logs(logs: PodLogs) -> Vec<Self> {
        fit::logs(logs).into_iter().map(|logs| Self::of_encoded_logs(logs.encode_to_vec())).collect()
    }

    /// A `PodLogs` that is encoded already, and fits.
    pub(crate) fn of_encoded_logs(logs: Vec<u8>) -> Self {
        Self { body: logs.into(), fields: [1, 22] }
    }

    /// A flow or an access log; `None`: it does not fit, which is for its lane to
    /// count.
    pub(crate) fn of_flow(flow: stream_flows_request::Request) -> Option<Self> {
        use stream_flows_request::Request as Flow;
        let (own, data, body) = match flow {
            Flow::Flow(flow) => (1, 1, flow.encode_to_vec()),
            Flow::L7AccessLog(log) => (2, 10, log.encode_to_vec()),
        };
        (body.len() <= BODY_BYTES).then(|| Self { body: body.into(), fields: [own, data] })
    }

    /// What a record on disk holds: the fields' numbers, then the body.
    pub(crate) fn record(&self) -> [&[u8]; 2] {
        [&self.fields, &self.body]
    }

    /// The message of which `record` was written.
    pub(crate) fn from_record(mut record: Bytes) -> Option<Self> {
        let fields = [record.try_get_u8().ok()?, record.try_get_u8().ok()?];
        Some(Self { body: record, fields })
    }

    /// Its size without the envelope.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Head and body of the gRPC message on the stream of its own.
    pub(crate) fn on_own_stream(self) -> (Bytes, Bytes) {
        (head(self.fields[0], &self.body), self.body)
    }

    /// Head and body of the gRPC message on the data stream.
    pub(crate) fn on_data_stream(self) -> (Bytes, Bytes) {
        (head(self.fields[1], &self.body), self.body)
    }
}

/// The head of a gRPC message that is `length` bytes long: not compressed, length.
pub(crate) fn grpc_head(length: usize, room: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(5 + room);
    head.put_u8(0);
    // Nothing above MAX_MESSAGE_BYTES gets here.
    head.put_u32(length as u32);
    head
}

/// Everything that comes before `body` when it is field `field` of an envelope.
fn head(field: u8, body: &Bytes) -> Bytes {
    let mut envelope = BytesMut::with_capacity(12);
    encode_key(u32::from(field), WireType::LengthDelimited, &mut envelope);
    encode_varint(body.len() as u64, &mut envelope);
    let mut head = grpc_head(envelope.len() + body.len(), envelope.len());
    head.extend_from_slice(&envelope);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::{
        CertificateRenewalResponse, DatadogMonitorAlert, DatadogQueryResponse, Flow, KubernetesApiResponse,
        KubernetesEvent, L7AccessLog, MetricsQueryResponse, NetworkPolicyWithError, NodeConditionChange,
        OperatorRestartResponse, PodStatusChange, ShellCommandResponse, StreamControlRequest,
        StreamDataRequest, StreamEventsRequest, StreamFlowsRequest, StreamLogsRequest, WorkloadRolloutStatus,
        YamlApplyResponse, YamlDryRunResponse, stream_data_request::Request as Data, stream_logs_request,
    };

    use super::*;

    /// The bytes after the gRPC head are those that the generated envelope has.
    fn same(message: Message, own: &impl prost::Message, data: Data) {
        let data = StreamDataRequest { request: Some(data) };
        for ((head, body), expected) in [
            (message.clone().on_own_stream(), own.encode_to_vec()),
            (message.on_data_stream(), data.encode_to_vec()),
        ] {
            assert_eq!(head[..5], grpc_head(expected.len(), 0));
            assert_eq!([&head[5..], &body].concat(), expected);
        }
    }

    macro_rules! signals {
        ($($variant:ident($value:expr)),* $(,)?) => {$({
            let value = $value;
            let own = stream_events_request::Request::$variant(value.clone());
            same(own.clone().into(), &StreamEventsRequest { request: Some(own) }, Data::$variant(value));
        })*};
    }

    macro_rules! tools {
        ($($variant:ident($message:ident)),* $(,)?) => {$({
            let value = $message { request_id: "a request".to_owned(), ..Default::default() };
            let own = stream_control_request::Request::$variant(value.clone());
            let envelope = StreamControlRequest { request: Some(own.clone()) };
            same(Answer::Tool(own).into(), &envelope, Data::$variant(value));
        })*};
    }

    #[test]
    fn every_message_has_the_bytes_of_both_of_its_envelopes() {
        signals! {
            KubernetesEvent(KubernetesEvent { name: "event".to_owned(), ..Default::default() }),
            PodStatusChange(PodStatusChange { name: "pod".to_owned(), ..Default::default() }),
            NodeConditionChange(NodeConditionChange { name: "n".repeat(300), ..Default::default() }),
            WorkloadRolloutStatus(WorkloadRolloutStatus { name: "app".to_owned(), ..Default::default() }),
            DatadogMonitorAlert(DatadogMonitorAlert { monitor_id: "7".to_owned(), ..Default::default() }),
        }
        tools! {
            KubernetesApiResponse(KubernetesApiResponse),
            ShellCommandResponse(ShellCommandResponse),
            YamlDryRunResponse(YamlDryRunResponse),
            YamlApplyResponse(YamlApplyResponse),
            CertificateRenewalResponse(CertificateRenewalResponse),
            OperatorRestartResponse(OperatorRestartResponse),
            MetricsQueryResponse(MetricsQueryResponse),
            DatadogQueryResponse(DatadogQueryResponse),
        }
        let logs = PodLogs { pod_name: "pod".to_owned(), ..Default::default() };
        let own = stream_logs_request::Request::PodLogs(logs.clone());
        same(
            Message::of_logs(logs.clone()).remove(0),
            &StreamLogsRequest { request: Some(own) },
            Data::PodLogs(logs),
        );
        let flows = [
            (stream_flows_request::Request::Flow(Flow::default()), Data::Flow(Flow::default())),
            (
                stream_flows_request::Request::L7AccessLog(L7AccessLog::default()),
                Data::L7AccessLog(L7AccessLog::default()),
            ),
        ];
        for (flow, data) in flows {
            same(Message::of_flow(flow.clone()).unwrap(), &StreamFlowsRequest { request: Some(flow) }, data);
        }
        let stats = OperatorStats { num_goroutines: 7, ..Default::default() };
        let envelope = StreamDataRequest { request: Some(Data::OperatorStats(stats)) };
        same(stats.into(), &envelope, Data::OperatorStats(stats));
        let verdict = NetworkPoliciesWithErrors { policies: vec![NetworkPolicyWithError::default()] };
        let envelope = StreamDataRequest { request: Some(Data::NetworkPolicyWithErrors(verdict.clone())) };
        let message = Message::from(Answer::Policy(verdict.clone()));
        same(message, &envelope, Data::NetworkPolicyWithErrors(verdict));
    }
}
