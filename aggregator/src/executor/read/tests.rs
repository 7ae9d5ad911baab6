use std::convert::Infallible;

use http::{Request, header};
use http_body_util::Full;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::{excluded::Excluded, executor::hidden::Hashes};

/// A page of a list: 2000 Services of 1 KiB, or 40 pods of 1 MiB.
fn page(uri: &http::Uri) -> Vec<u8> {
    // Of a key that stands twice, the API server takes the first.
    let value = |wanted: &str| {
        let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == wanted).and_then(|(_, value)| value.parse().ok())
    };
    let (count, size) = if uri.path().ends_with("pods") { (40, 1 << 20) } else { (2000, 1 << 10) };
    let begin = value("continue").unwrap_or(0);
    let end = (begin + value("limit").unwrap_or(count)).min(count);
    let items: Vec<Value> =
        (begin..end).map(|n| json!({"metadata": {"name": n.to_string()}, "x": "x".repeat(size)})).collect();
    let mut list =
        json!({"kind": "List", "apiVersion": "v1", "items": items, "metadata": {"resourceVersion": "7"}});
    if end < count {
        list["metadata"]["continue"] = end.to_string().into();
        list["metadata"]["remainingItemCount"] = (count - end).into();
    }
    list.to_string().into_bytes()
}

/// A client of an API server that answers by path.
fn client() -> Client {
    let service = tower::service_fn(async |request: Request<Body>| {
        let accept = request.headers()[header::ACCEPT].to_str().unwrap_or_default().to_owned();
        let (status, body) = match request.uri().path() {
            "/version" => (200, br#"{"major":"1","minor":"35"}"#.to_vec()),
            "/api/v1/namespaces/a/pods/p/log" => (200, b"one\xfftwo\0\n".to_vec()),
            "/api/v1/namespaces/a/pods/p" => {
                let metadata = json!({"name": "p", "managedFields": [{"manager": "x"}]});
                (200, json!({"metadata": metadata, "accept": accept}).to_string().into_bytes())
            }
            "/api/v1/namespaces/a/pods/long/log" => {
                let query = request.uri().query().unwrap_or_default();
                let lines = query.split('&').find_map(|pair| pair.strip_prefix("tailLines="));
                (200, "a line\n".repeat(lines.map_or(20_000, |lines| lines.parse().unwrap())).into_bytes())
            }
            "/api/v1/namespaces/a/pods/large/log" => {
                (200, ("ä".repeat(511) + "\n").repeat(10 * 1024).into_bytes())
            }
            "/api/v1/namespaces/a/pods/wide/log" => (200, ("ä".repeat(3 * 1024 * 1024) + "\n").into_bytes()),
            "/api/v1/namespaces/a/pods/leaks/log" => {
                let query = request.uri().query().unwrap_or_default();
                let limit = query.split('&').find_map(|pair| pair.strip_prefix("limitBytes="));
                let mut log = b"start\npassword=hunter2\n".to_vec();
                log.truncate(limit.map_or(log.len(), |limit| limit.parse().unwrap()));
                (200, log)
            }
            "/api/v1/configmaps" => {
                let map = json!({"metadata": {"name": "m"}, "binaryData": {"keystore": "AAEC"}});
                (200, json!({"kind": "ConfigMapList", "items": [map]}).to_string().into_bytes())
            }
            "/api/v1/services" | "/api/v1/pods" => (200, page(request.uri())),
            "/api/v1/nodes" => std::future::pending().await,
            "/openapi/v3/api/v1" => (301, Vec::new()),
            "/openapi/v3" => (503, Vec::new()),
            path => {
                let name = path.rsplit('/').next().unwrap_or_default().replace("%3D", "=");
                (
                    404,
                    json!({"kind": "Status", "message": format!("pods \"{name}\" not found")})
                        .to_string()
                        .into_bytes(),
                )
            }
        };
        let mut response = http::Response::builder().status(status);
        if status == 301 {
            response = response.header(header::LOCATION, "/openapi/v3/api/v1?hash=2");
        }
        Ok::<_, Infallible>(response.body(Full::new(bytes::Bytes::from(body))).unwrap())
    });
    Client::new(service, "default")
}

async fn ask(paths: &[&str], timeout_seconds: i32) -> Vec<KubernetesApiResult> {
    let api_paths = paths.iter().map(ToString::to_string).collect();
    let request = KubernetesApiRequest { request_id: "r".to_owned(), api_paths, timeout_seconds };
    let mut place = Place::alone(Instant::now() + limit_of(&request));
    let cluster = Cluster {
        client: client(),
        trier: client(),
        excluded: Excluded::parse("bank"),
        hashes: Hashes::new().unwrap(),
    };
    let (answer, parts) = answer(&cluster, Rules::default(), request, &mut place).await;
    assert_eq!(parts.len(), answer.results.len());
    assert_eq!(answer.request_id, "r");
    answer.results
}

#[tokio::test]
async fn an_answer_without_a_body_says_its_status_and_where_to_ask() {
    let results = ask(&["openapi/v3/api/v1?hash=1", "openapi/v3"], 0).await;
    assert_eq!(results[0].error_message, "301 Moved Permanently: it is at /openapi/v3/api/v1?hash=2");
    assert_eq!(results[1].error_message, "503 Service Unavailable");
    assert!(results.iter().all(|result| !result.success));
}

#[tokio::test]
async fn every_path_gets_its_own_true_answer() {
    let results = ask(
        &[
            "version",
            "api/v1/namespaces/a/pods/p",
            "api/v1/namespaces/a/pods/p?metadata=true",
            "api/v1/namespaces/a/pods/p/log",
            "api/v1/namespaces/a/pods/q",
            "api/v1/namespaces/a/secrets/s",
            "nonsense",
            "api/v1/namespaces/bank/pods/p/log",
        ],
        0,
    )
    .await;
    let codes: Vec<_> = results.iter().map(|result| (result.status_code, result.success)).collect();
    assert_eq!(codes[..4], [(200, true); 4]);
    assert_eq!(codes[4..], [(404, false), (403, false), (400, false), (403, false)]);
    assert_eq!(results[0].response_data, r#"{"major":"1","minor":"35"}"#);
    assert_eq!(results[1].response_data, r#"{"accept":"application/json","metadata":{"name":"p"}}"#);
    assert!(results[2].response_data.contains("as=PartialObjectMetadata;"), "{:?}", results[2]);
    assert_eq!(results[3].response_data, "one\u{fffd}two\n");
    assert_eq!(results[4].error_message, "pods \"q\" not found");
    assert!(results[5].error_message.starts_with("refused (secret): Secrets are not read"));
    assert!(results[7].error_message.contains("data.namespaces.exclude"));
}

#[tokio::test]
async fn a_list_of_config_maps_is_cleaned_as_one_of_them_is() {
    let results = ask(&["api/v1/configmaps"], 0).await;
    assert!(results[0].success, "{}", results[0].error_message);
    let list: Value = serde_json::from_str(&results[0].response_data).unwrap();
    let shown = list["items"][0]["binaryData"]["keystore"].as_str().unwrap();
    assert!(shown.starts_with("[hidden:"), "{shown}");
}

#[tokio::test]
async fn a_large_answer_is_cut_to_its_share_between_characters_and_says_so() {
    let [large, wide] = ["large", "wide"].map(|pod| format!("api/v1/namespaces/a/pods/{pod}/log"));
    for (path, paths, end) in [(&large, 1, "ä\n[hidden]"), (&large, 3, "ä\n"), (&wide, 3, "ä")] {
        let share = ANSWER_BYTES / paths;
        for result in ask(&vec![path.as_str(); paths], 0).await {
            assert!(result.success && result.response_data.len() <= share);
            assert!(result.response_data.len() > share - 1024 && result.response_data.ends_with(end));
            assert!(result.error_message.starts_with("cut "), "{}", result.error_message);
        }
    }
}

#[tokio::test]
async fn a_guess_can_not_be_compared_with_a_secret_and_no_part_of_one_be_seen() {
    let log = "api/v1/namespaces/a/pods/leaks/log";
    let paths: Vec<String> = (1..=30).map(|bytes| format!("{log}?limitBytes={bytes}")).collect();
    for result in ask(&paths.iter().map(String::as_str).collect::<Vec<_>>(), 0).await {
        let shown = result.response_data.as_str();
        let whole = ["[hidden]", "start\n", "start\n[hidden]", "start\npassword=[hidden]\n"];
        assert!(whole.contains(&shown), "{shown}");
    }
    // The API server repeats in its errors what was asked for.
    let results = ask(
        &[
            "api/v1/namespaces/a/pods/password=hunter2",
            "api/v1/configmaps?labelSelector=x in (y),db-password in (hunter2)",
        ],
        0,
    )
    .await;
    assert_eq!(results[0].error_message, "pods \"password=[hidden]\" not found");
    assert_eq!(results[1].status_code, 403);
    assert!(
        results[1].error_message.starts_with("refused (secret): labelSelector would tell"),
        "{:?}",
        results[1]
    );
}

#[tokio::test]
async fn a_log_that_ends_at_our_own_bound_says_so() {
    let log = "api/v1/namespaces/a/pods/long/log";
    let queries = ["", "?limitBytes=1048576", "?tailLines=20000", "?sinceSeconds=60"];
    let results = ask(&queries.map(|query| format!("{log}{query}")).each_ref().map(String::as_str), 0).await;
    let lines: Vec<_> = results.iter().map(|result| result.response_data.lines().count()).collect();
    assert_eq!(lines, [10_000, 10_000, 20_000, 20_000]);
    let said: Vec<_> = results.iter().map(|result| result.error_message.as_str()).collect();
    let ours = "these are the last 10000 lines: ask for others with tailLines, sinceSeconds or sinceTime";
    assert_eq!(said, [ours, ours, "", ""]);
    assert!(results.iter().all(|result| result.success && result.status_code == 200));
}

#[tokio::test]
async fn pages_are_followed_as_long_as_there_is_room_and_what_is_cut_is_a_list() {
    let listed = |result: &KubernetesApiResult| {
        let list: Value = serde_json::from_str(&result.response_data).unwrap();
        (list["items"].as_array().unwrap().len(), list["metadata"].clone())
    };
    let results = ask(&["api/v1/services"], 0).await;
    assert_eq!(listed(&results[0]), (2000, json!({"resourceVersion": "7"})));
    assert_eq!(results[0].error_message, "");
    let results = ask(&["api/v1/services?limit=10&continue=5"], 0).await;
    let metadata = json!({"resourceVersion": "7", "continue": "15", "remainingItemCount": 1985});
    assert_eq!(listed(&results[0]), (10, metadata));
    let results = ask(&["api/v1/services?continue=900"], 0).await;
    assert_eq!(listed(&results[0]), (1100, json!({"resourceVersion": "7"})), "from there to the end, once");
    // Pages of 500 and of 62 are too large to be read, one of 7 is not.
    let results = ask(&["api/v1/pods"], 0).await;
    assert!(results[0].success && listed(&results[0]).0 == 7, "{}", results[0].error_message);
    assert!(
        results[0].error_message.starts_with("cut to 7 of at least 40 objects"),
        "{}",
        results[0].error_message
    );
    let results = ask(&["api/v1/pods?limit=20"], 0).await;
    assert_eq!((results[0].status_code, results[0].response_data.as_str()), (413, ""));
    assert!(results[0].error_message.starts_with("more than 8 MiB: ask for less with limit"));
    let results = ask(&["api/v1/pods"; 20], 0).await;
    assert_eq!((results[0].status_code, results[0].success), (413, false), "{}", results[0].error_message);
}

#[tokio::test(start_paused = true)]
async fn the_time_is_for_the_batch_and_what_came_in_time_is_kept() {
    let results = ask(&["version", "api/v1/nodes", "api/v1/nodes"], 5).await;
    let codes: Vec<_> = results.iter().map(|result| result.status_code).collect();
    assert_eq!(codes, [200, 504, 504]);
    assert_eq!(results[1].error_message, "no answer within the 5 s of this request");
    let begun = Instant::now();
    ask(&["api/v1/nodes"], i32::MAX).await;
    assert_eq!(begun.elapsed(), LONGEST_TIMEOUT);
    ask(&["api/v1/nodes"], -1).await;
    assert_eq!(begun.elapsed(), LONGEST_TIMEOUT + DEFAULT_TIMEOUT);
}
