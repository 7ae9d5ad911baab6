//! What the agents' nodes saw.

use kestrel_proto::{
    cloud::v1::{self, StreamFlowsRequest, stream_flows_request},
    node::v1::{Flow, FlowDirection, FlowPeer, FlowReport, FlowVerdict},
};
use tonic::Code;

use super::*;

fn report(number: u64, direction: FlowDirection) -> BatchContent {
    let peer = |last| Some(FlowPeer { address: vec![10, 0, 0, last].into(), ..Default::default() });
    let flow = Flow {
        source: peer(1),
        destination: peer(2),
        port: 80,
        protocol: 6,
        verdict: FlowVerdict::Forwarded.into(),
        direction: direction.into(),
        count: 3,
        ..Default::default()
    };
    BatchContent {
        flows: vec![FlowReport { run: 1, number, flows: vec![flow], ..Default::default() }],
        ..Default::default()
    }
}

impl Server {
    /// All flows that wait for the cloud.
    fn flows(&self) -> Vec<v1::Flow> {
        let mut flows = Vec::new();
        while let Some((_, message)) = self.lanes.take(Lane::Flows) {
            let (head, body) = message.on_own_stream();
            let envelope = StreamFlowsRequest::decode(&[&head[5..], &body].concat()[..]).unwrap();
            let Some(stream_flows_request::Request::Flow(flow)) = envelope.request else {
                panic!("{envelope:?}")
            };
            flows.push(flow);
        }
        flows
    }
}

/// Waits for an answer to a batch, which comes when it was taken.
async fn acked(stream: &mut Stream, id: u64) {
    loop {
        match stream.next().await.unwrap() {
            Down::Ack(ack) if ack.up_to_id == id => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn both_nodes_views_become_one_flow_and_a_report_that_comes_again_counts_once() {
    let server = server(10).await;
    let mut one = server.attached(AGENT).await;
    let mut other = server.attached("kestrel-ai:kestrel-node-agent agent-n2 agent-uid-2 n2").await;
    one.content(1, report(1, FlowDirection::Egress)).await;
    one.content(2, report(1, FlowDirection::Egress)).await;
    acked(&mut one, 2).await;
    other.content(1, report(1, FlowDirection::Ingress)).await;
    acked(&mut other, 1).await;
    assert!(server.flows().is_empty(), "more may come");
    let (traffic, ends) = (server.shared.traffic.clone(), CancellationToken::new());
    ends.cancel();
    traffic.run(ends).await;
    let flows = server.flows();
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!((flows[0].count, flows[0].allowed, flows[0].port), (3, true, 80));
    assert_eq!((flows[0].src_ip.as_str(), flows[0].dst_ip.as_str()), ("10.0.0.1", "10.0.0.2"));
}

#[tokio::test]
async fn an_aggregator_says_that_it_takes_flows_and_a_sidecar_may_send_none() {
    let server = server(10).await;
    let mut stream = server.open(Some(SIDECAR)).await.unwrap();
    stream.send(Up::Hello(hello(SIDECAR))).await;
    let Down::Welcome(welcome) = stream.next().await.unwrap() else { panic!() };
    assert_eq!(welcome.features, ["flows", "requests"]);
    stream.content(1, report(1, FlowDirection::Egress)).await;
    let status = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
}
