//! The query API, asked by the command line's own client.

use std::pin::pin;

use futures::StreamExt as _;
use kestrel_dev_cloud::{
    Cloud, Stream,
    cli::client::{Api, ApiAddress},
};
use kestrel_proto::cloud::v1::{Action, Node, StreamDataRequest, stream_data_request};
use serde_json::{Value, json};

use crate::operator::*;

fn api(cloud: &Cloud) -> Api {
    Api::new(&cloud.api_address().to_string().parse::<ApiAddress>().unwrap())
}

fn query<'a>(pairs: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[tokio::test]
async fn objects_come_with_their_messages_and_filters() {
    let cloud = cloud().await;
    let token = token(&cloud, "acme", 60);
    let (data, _down) = open_data(connect(&cloud).await, &token, "acme").await.unwrap();
    for name in ["node-1", "node-2"] {
        let node = Node {
            name: name.into(),
            uid: name.into(),
            ready: true,
            action: Action::Create.into(),
            ..Node::default()
        };
        let request = Some(stream_data_request::Request::Node(node));
        data.send(StreamDataRequest { request }).await.unwrap();
    }
    let both = |record: &kestrel_dev_cloud::Record| (record.messages("node") == 2).then_some(());
    cloud.wait_for(LIMIT, both).await.unwrap();
    let api = api(&cloud);
    let nodes = api.get("/v1/nodes", &query(&[("name", "node-2")])).await.unwrap();
    let seen = (&nodes[0]["name"], &nodes[0]["action"], &nodes[0]["message"]["ready"], &nodes[1]);
    assert_eq!(seen, (&json!("node-2"), &json!("CREATE"), &json!(true), &Value::Null));
    assert_eq!(api.get("/v1/pods", &[]).await.unwrap(), json!([]));
    let summary = api.get("/v1/summary", &[]).await.unwrap();
    assert_eq!(summary["inventory"]["objects"], json!({ "node": 2 }));
    assert_eq!((&summary["connections"]["open"], &summary["connections"]["streams"]), (&json!(1), &json!(1)));
    let connections = api.get("/v1/connections", &[]).await.unwrap();
    assert_eq!(connections["open"][0]["streams"], json!({ "data": 1 }));
    let problem = api.get("/v1/gadgets", &[]).await.unwrap_err().to_string();
    assert!(problem.starts_with("no gadgets here; objects are pods, nodes"), "{problem}");
}

#[tokio::test]
async fn lines_and_series_are_found_by_container_and_prefix() {
    let cloud = cloud().await;
    let api = api(&cloud);
    let untracked = api.get("/v1/logs/sequence", &query(&[("prefix", "e ")])).await.unwrap_err();
    assert!(untracked.to_string().contains("POST"), "{untracked}");
    api.post("/v1/logs/sequence", &[], &json!({ "prefix": "e " })).await.unwrap();
    let token = token(&cloud, "acme", 60);
    let _open = send_lines(connect(&cloud).await, &token, 1..=300).await;
    cloud.wait_for(LIMIT, |record| (record.logs.total() == 300).then_some(())).await.unwrap();
    for prefix in ["line ", "e "] {
        let web = query(&[("namespace", "shop"), ("pod_prefix", "web-"), ("prefix", prefix), ("limit", "5")]);
        let report = api.get("/v1/logs/sequence", &web).await.unwrap();
        let expected = json!({
            "min": 1, "max": 300, "distinct": 300, "total": 300, "duplicates": 0,
            "missing_count": 0, "missing": [], "late": 0, "unkept": 0,
        });
        assert_eq!(report, expected);
    }
    let logs = query(&[("pod", "web-0"), ("contains", "line 29"), ("limit", "2")]);
    let logs = api.get("/v1/logs", &logs).await.unwrap();
    assert_eq!(
        (&logs["containers"][0]["total"], &logs["containers"][0]["pod"]),
        (&json!(300), &json!("web-0"))
    );
    assert_eq!((&logs["lines"][1]["message"], &logs["lines"][2]), (&json!("line 299"), &Value::Null));
}

#[tokio::test]
async fn a_request_is_sent_and_watched() {
    let cloud = cloud().await;
    let api = api(&cloud);
    let mut events = pin!(api.watch().await.unwrap());
    let token = token(&cloud, "acme", 60);
    let asking = async {
        opened(&cloud, Stream::Control).await;
        let message = json!({ "kubernetes_api_request": { "api_paths": ["version"] } });
        let sent = api.post("/v1/send", &query(&[("timeout", "20")]), &message).await.unwrap();
        api.post("/v1/faults", &[], &json!({ "cut": true })).await.unwrap();
        sent
    };
    let (sent, ()) = tokio::join!(asking, answer_one(&cloud, &token));
    assert_eq!(sent["answer"]["kind"], "kubernetes_api_response");
    assert_eq!(sent["answer"]["message"]["request_id"], sent["request_id"]);
    let mut kinds = Vec::new();
    while kinds.last() != Some(&json!("kubernetes_api_response")) {
        kinds.push(events.next().await.unwrap().unwrap()["kind"].clone());
    }
    assert_eq!(kinds[..2], [json!("connection"), json!("stream")]);
    let problem = api.post("/v1/send", &[], &json!({ "nonsense": {} })).await.unwrap_err().to_string();
    assert!(problem.contains("carries no nonsense"), "{problem}");
    let problem = api.post("/v1/faults", &[], &json!({ "nonsense": true })).await.unwrap_err().to_string();
    assert!(problem.contains("nonsense"), "{problem}");
}

#[tokio::test]
async fn a_watch_ends_with_the_cloud() {
    let cloud = cloud().await;
    let mut events = pin!(api(&cloud).watch().await.unwrap());
    cloud.stop().await.unwrap();
    assert!(events.next().await.is_none());
}
