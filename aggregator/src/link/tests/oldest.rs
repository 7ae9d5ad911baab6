//! The oldest collector: what it sent is a recording, and what it reads is declared here as it knew it. Pods
//! with it may run for years, so neither ever changes.

use kestrel_proto::codec::Raw;

use super::*;

const RECORDED: &str = include_str!("collector-0.1.0.hex");

/// The messages that the collector knew, with the fields that they had.
mod known {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AggregatorMessage {
        #[prost(oneof = "Message", tags = "1, 2, 3, 4, 5")]
        pub(super) message: Option<Message>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Message {
        #[prost(message, tag = "1")]
        Welcome(Welcome),
        #[prost(message, tag = "2")]
        Ack(Number),
        #[prost(message, tag = "3")]
        Nack(Nack),
        #[prost(message, tag = "4")]
        Credit(Number),
        #[prost(message, tag = "5")]
        PodUpdate(PodUpdate),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Welcome {
        #[prost(uint32, tag = "1")]
        pub(super) protocol_version: u32,
        #[prost(uint64, tag = "4")]
        pub(super) credit_bytes: u64,
        #[prost(uint64, tag = "5")]
        pub(super) max_batch_bytes: u64,
    }

    /// `Ack.up_to_id`, `Credit.bytes`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Number {
        #[prost(uint64, tag = "1")]
        pub(super) value: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Nack {
        #[prost(string, tag = "1")]
        pub(super) reason: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PodUpdate {
        #[prost(bool, tag = "1")]
        pub(super) snapshot: bool,
        #[prost(message, repeated, tag = "2")]
        pub(super) pods: Vec<PodInfo>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PodInfo {
        #[prost(string, tag = "1")]
        pub(super) uid: String,
        #[prost(int32, tag = "4")]
        pub(super) log_policy: i32,
    }
}

use known::Message as Known;

/// A stream that carries the bytes of messages, whatever they are.
struct Recorded {
    up: mpsc::Sender<Bytes>,
    down: Streaming<Bytes>,
    sent: Vec<Bytes>,
}

impl Server {
    async fn recorded(&self) -> Recorded {
        let (up, queue) = mpsc::channel(4);
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        request.metadata_mut().insert("authorization", format!("Bearer {SIDECAR}").parse().unwrap());
        let mut client = tonic::client::Grpc::new(self.channel().await);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/node.v1.AgentLink/Attach");
        let attach = client.streaming(request, path, Raw);
        let down = timeout(DEADLINE, attach).await.unwrap().unwrap().into_inner();
        let sent = RECORDED.lines().filter(|line| !line.starts_with('#')).map(hex).collect();
        Recorded { up, down, sent }
    }
}

impl Recorded {
    /// Sends the next message of the recording.
    async fn plays(&mut self) -> u64 {
        let message = self.sent.remove(0);
        let payload = match AgentMessage::decode(message.clone()).unwrap().message {
            Some(Up::Batch(batch)) => batch.payload.len() as u64,
            _ => 0,
        };
        timeout(DEADLINE, self.up.send(message)).await.unwrap().unwrap();
        payload
    }

    /// The next message that it understands; others it passes over.
    async fn reads(&mut self) -> Known {
        loop {
            let bytes = timeout(DEADLINE, self.down.message()).await.unwrap().unwrap().unwrap();
            if let Some(known) = known::AggregatorMessage::decode(bytes).unwrap().message {
                return known;
            }
        }
    }
}

fn hex(line: &str) -> Bytes {
    let digits: Vec<_> = line.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn the_oldest_collector_is_served_as_it_expects() {
    let server = server(10).await;
    let mut collector = server.recorded().await;
    collector.plays().await;
    let Known::Welcome(welcome) = collector.reads().await else { panic!() };
    assert_eq!(welcome.protocol_version, 1);
    assert!(welcome.max_batch_bytes >= 4 << 20 && welcome.credit_bytes >= welcome.max_batch_bytes);
    let Known::PodUpdate(update) = collector.reads().await else { panic!() };
    assert!(update.snapshot);
    assert_eq!((update.pods[0].uid.as_str(), update.pods[0].log_policy), ("u1", 1), "1: errors");
    server.pods.turned("u1", true);
    let Known::PodUpdate(update) = collector.reads().await else { panic!() };
    assert_eq!(update.pods[0].log_policy, 2, "2: all");

    let bytes = collector.plays().await;
    assert_eq!(collector.reads().await, Known::Credit(known::Number { value: bytes }));
    let (logs, number) = server.logs().await;
    assert_eq!((texts(&logs), logs.container_name.as_str()), (vec!["one", "WARN two"], "app"));
    server.lanes.left(Lane::Logs, number);
    assert_eq!(collector.reads().await, Known::Ack(known::Number { value: 1 }));

    let bytes = collector.plays().await;
    assert_eq!(collector.reads().await, Known::Credit(known::Number { value: bytes }));
    let (_, number) = server.logs().await;
    server.lanes.again(Lane::Logs, number);
    assert!(matches!(collector.reads().await, Known::Nack(nack) if !nack.reason.is_empty()));
    let bytes = collector.plays().await;
    assert_eq!(collector.reads().await, Known::Credit(known::Number { value: bytes }));
    let (logs, number) = server.logs().await;
    assert_eq!(texts(&logs), ["ERROR java.lang.IllegalStateException: three", "four"]);
    server.lanes.left(Lane::Logs, number);
    assert_eq!(collector.reads().await, Known::Ack(known::Number { value: 3 }));
}
