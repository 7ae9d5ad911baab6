//! What arrives, over which stream, and what a lost stream costs.

use kestrel_aggregator::uplink::{
    Answer, Request,
    lanes::Over,
    metrics::{Kind, KindLabel},
    receipt::Outcome,
};
use kestrel_dev_cloud::{Authority, Faults, Stream, faults::When};
use kestrel_proto::cloud::v1::{
    KubernetesApiResponse, LogEntry, PodLogs, stream_control_request::Request as Tool,
};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::rig::{
    KEEPALIVE, LIMIT, Rig, arrives, cloud, config, eventually, freezable, line_arrives, write_credentials,
};

/// Takes the next request and gives its id.
async fn request(rig: &mut Rig) -> (Over, String) {
    match timeout(LIMIT, rig.requests.recv()).await.unwrap().unwrap() {
        (over, Request::KubernetesApi(request)) => (over, request.request_id),
        other => panic!("another request: {other:?}"),
    }
}

fn answer(rig: &Rig, over: Over, request_id: String) {
    let answer = KubernetesApiResponse { request_id, ..Default::default() };
    rig.lanes.answers(over).send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
}

fn version() -> serde_json::Value {
    json!({ "kubernetes_api_request": { "api_paths": ["version"] } })
}

#[tokio::test]
async fn signals_and_logs_arrive_on_their_streams_and_leave_the_window() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let mut rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let sent = Instant::now();
    rig.signal("one");
    rig.log(1, "first line").await;
    arrives(&cloud, "one", Stream::Events, 1).await;
    line_arrives(&cloud, "first line").await;
    assert_eq!(rig.outcome().await, (1, Outcome::Left));
    assert!(sent.elapsed() >= KEEPALIVE.hold(), "it left the window too soon");
    let windows = || rig.view.state().streams.map(|stream| (stream.name, stream.unsettled));
    let empty = || windows().iter().all(|(_, messages)| *messages == 0).then_some(());
    eventually("empty windows", empty, || format!("{:?}", windows())).await;
    let sent = |kind| rig.metrics.sent.get_or_create(&KindLabel { kind }).get();
    assert_eq!((sent(Kind::Signal), sent(Kind::Logs)), (1, 1));
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_logs_passes_in_order_and_delays_no_signal() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let mut rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let filler = "x".repeat(1024 * 1024);
    let batches = 40;
    let flood = async {
        for id in 1..=batches {
            rig.log(id, &format!("line {id} {filler}")).await;
        }
    };
    let signal = async {
        rig.signal("in between");
        arrives(&cloud, "in between", Stream::Events, 1).await;
    };
    tokio::join!(flood, signal);
    for id in 1..=batches {
        assert_eq!(rig.outcome().await, (id, Outcome::Left));
    }
    let report = cloud.read(|record| record.logs.total());
    assert_eq!(report, batches);
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_the_server_ends_is_opened_again_alone_and_loses_nothing_silently() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let mut rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    rig.signal("one");
    rig.log(1, "first line").await;
    arrives(&cloud, "one", Stream::Events, 1).await;
    line_arrives(&cloud, "first line").await;
    assert!(rig.no_outcome());
    cloud.set_faults(Faults::reset([Stream::Logs, Stream::Events], Code::Ok, When::Now));
    // The agent is told to read its file again; a signal is sent again by itself.
    assert!(matches!(rig.outcome().await, (1, Outcome::Lost(_))));
    arrives(&cloud, "one", Stream::Events, 2).await;
    rig.log(2, "second line").await;
    line_arrives(&cloud, "second line").await;
    let opened = |stream| cloud.read(|record| record.connections.stream(stream).opened);
    assert_eq!(Stream::ALL.map(opened), [1, 1, 1, 2, 2]);
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
    assert_eq!(rig.outcome().await, (2, Outcome::Left));
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_survives_the_connection_on_which_it_was_asked_for() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let mut rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    let order = version();
    let story = async {
        let (over, id) = request(&mut rig).await;
        assert_eq!(over, Over::Control);
        cloud.cut_connections();
        let reconnected = cloud.wait_for(LIMIT, |record| {
            let counts = record.connections.counts();
            (counts.opened == 2 && counts.streams == 5).then_some(())
        });
        assert!(reconnected.await.is_some());
        answer(&rig, over, id);
    };
    let (sent, ()) = tokio::join!(cloud.send(&order, None, LIMIT), story);
    assert_eq!(sent.unwrap().answer.unwrap().stream, Stream::Control);
    assert_eq!(rig.view.state().connections, 2);
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn what_has_no_stream_goes_over_the_data_stream_until_it_has_one() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    cloud.set_faults(Faults::unimplemented([Stream::Control, Stream::Events, Stream::Logs]));
    let mut rig = Rig::start(&cloud);
    rig.signal("one");
    rig.log(1, "first line").await;
    arrives(&cloud, "one", Stream::Data, 1).await;
    // What went to a stream that turned out not to exist is reported lost.
    let mut id = 1;
    while let (lost, Outcome::Lost(_)) = rig.outcome().await {
        assert_eq!(lost, id);
        id += 1;
        rig.log(id, "first line").await;
    }
    line_arrives(&cloud, "first line").await;
    let order = version();
    let answered = async {
        let (over, id) = request(&mut rig).await;
        assert_eq!(over, Over::Data);
        answer(&rig, over, id);
    };
    let (sent, ()) = tokio::join!(cloud.send(&order, None, LIMIT), answered);
    assert_eq!(sent.unwrap().answer.unwrap().stream, Stream::Data);

    cloud.set_faults(Faults::default());
    rig.all_streams_are_up().await;
    rig.signal("two");
    arrives(&cloud, "two", Stream::Events, 1).await;
    assert_eq!(cloud.read(|record| record.connections.counts().opened), 1);
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn what_went_into_a_dead_connection_never_counts_as_arrived() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let frozen = CancellationToken::new();
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let config = config(folder.path(), freezable(&cloud, frozen.clone()).await);
    let mut rig = Rig::with(folder, config);
    rig.all_streams_are_up().await;
    frozen.cancel();
    rig.signal("into the void");
    rig.log(1, "into the void").await;
    assert!(matches!(rig.outcome().await, (1, Outcome::Lost(_))));
    rig.problem("answers no PING").await;
    rig.stop().await;
    cloud.stop().await.unwrap();
}

#[tokio::test]
async fn everything_resumes_when_the_server_is_back() {
    let state = tempfile::tempdir().unwrap();
    let first = cloud(Authority::open(state.path()).unwrap(), None).await;
    let mut rig = Rig::start(&first);
    rig.all_streams_are_up().await;
    let address = first.address();
    first.stop().await.unwrap();
    rig.problem("SERVER_PORT").await;
    rig.signal("while away");
    rig.log(1, "while away").await;
    let second = cloud(Authority::open(state.path()).unwrap(), Some(address)).await;
    arrives(&second, "while away", Stream::Events, 1).await;
    line_arrives(&second, "while away").await;
    assert_eq!(rig.outcome().await, (1, Outcome::Left));
    assert_eq!(rig.report.last_problem(), None);
    rig.stop().await;
    second.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_kept_still_goes_out_at_the_end() {
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let rig = Rig::start(&cloud);
    rig.all_streams_are_up().await;
    rig.signal("last words");
    let warning = LogEntry { message: "last warning".to_owned(), ..Default::default() };
    rig.lanes.own_logs().send(PodLogs {
        namespace: "kestrel-ai".to_owned(),
        pod_name: "kestrel-aggregator".to_owned(),
        log_entries: vec![warning],
        ..Default::default()
    });
    rig.stop().await;
    arrives(&cloud, "last words", Stream::Events, 1).await;
    line_arrives(&cloud, "last warning").await;
    let gone = cloud.wait_for(LIMIT, |record| (record.connections.counts().open == 0).then_some(()));
    assert!(gone.await.is_some());
    cloud.stop().await.unwrap();
}
