use std::{
    convert::Infallible,
    future::pending,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use kestrel_proto::cloud::v1::{
    CertificateRenewalRequest, CertificateRenewalResponse, KubernetesApiRequest, KubernetesApiResponse,
    NetworkPoliciesWithErrors, OperatorRestartRequest, OperatorRestartResponse, YamlDryRunResponse,
    YamlManifest,
};
use kube::client::Body;

use super::{places::AT_ONCE, *};
use crate::uplink::{
    Answer,
    credentials::{Bootstrap, TokenSource},
    lanes::Lane,
    metrics::Metrics,
};

fn credentials() -> Credentials {
    Credentials::new(Bootstrap {
        client_certificate: PathBuf::new(),
        client_key: PathBuf::new(),
        authority: PathBuf::new(),
        token: TokenSource::Text("".into()),
        insecure: false,
        look: Duration::from_secs(30),
    })
}

/// The answers in a lane.
fn answers<M: prost::Message + Default>(lanes: &Lanes, lane: Lane) -> Vec<M> {
    let taken = std::iter::from_fn(|| lanes.take(lane)).map(|(_, message)| message.on_own_stream().1);
    taken.map(|body| M::decode(body).unwrap()).collect()
}

/// What the chart allows, with one client for everything.
fn access(client: Client) -> Access {
    Access {
        reader: client.clone(),
        trier: client,
        switch: Switch::fixed(Rules::default()),
        excluded: Excluded::default(),
        nodes: Nodes::default(),
        metrics: audit::Metrics::default(),
    }
}

/// An executor before an API server that never answers.
fn executor(drain: &CancellationToken) -> (Arc<Executor>, Lanes) {
    let silent =
        async |_: http::Request<Body>| pending::<Result<http::Response<Full<Bytes>>, Infallible>>().await;
    let client = Client::new(tower::service_fn(silent), "default");
    let lanes = Lanes::new(Metrics::default());
    (Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap(), lanes)
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_in_vain_and_who_runs_at_the_drain_is_answered() {
    let drain = CancellationToken::new();
    let (executor, lanes) = executor(&drain);
    let ask = |timeout_seconds| {
        let request = KubernetesApiRequest {
            api_paths: vec!["version".to_owned()],
            timeout_seconds,
            ..Default::default()
        };
        executor.take(Over::Control, Request::KubernetesApi(request));
    };
    let answers = || {
        let answers = answers::<KubernetesApiResponse>(&lanes, Lane::ControlAnswers);
        answers.iter().map(|answer| answer.results[0].status_code).collect::<Vec<_>>()
    };
    for _ in 0..AT_ONCE {
        ask(300);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ask(5);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(answers(), [504]);
    // What floods one stream leaves room for the other.
    let request = KubernetesApiRequest {
        api_paths: vec!["version".to_owned()],
        timeout_seconds: 5,
        ..Default::default()
    };
    executor.take(Over::Data, Request::KubernetesApi(request));
    tokio::time::sleep(Duration::from_secs(6)).await;
    let ran = self::answers::<KubernetesApiResponse>(&lanes, Lane::DataAnswers);
    assert_eq!(ran[0].results[0].error_message, "no answer within the 5 s of this request");
    drain.cancel();
    executor.finish().await;
    assert_eq!(answers(), [503; AT_ONCE]);
}

#[tokio::test]
async fn a_large_answer_waits_until_the_one_before_is_sent() {
    use futures::FutureExt as _;
    let lanes = Lanes::new(Metrics::default());
    let lane = lanes.answers(Over::Control);
    lane.room().await;
    let global_error_message = "x".repeat(8 << 20);
    let answer = KubernetesApiResponse { global_error_message, ..Default::default() };
    lane.send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
    let mut room = std::pin::pin!(lane.room());
    assert!((&mut room).now_or_never().is_none());
    lanes.take(Lane::ControlAnswers).unwrap();
    room.await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_answered_once_from_the_record() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let server = move |_: http::Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_secs(5)).await;
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
        }
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let executor = Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap();
    let ask = |over, id: &str| {
        let (request_id, api_paths) = (id.to_owned(), vec!["version".to_owned()]);
        let request = KubernetesApiRequest { request_id, api_paths, ..Default::default() };
        executor.take(over, Request::KubernetesApi(request));
    };
    let counts = || {
        [Lane::ControlAnswers, Lane::DataAnswers].map(|lane| {
            answers::<KubernetesApiResponse>(&lanes, lane).iter().filter(|a| a.results[0].success).count()
        })
    };
    ask(Over::Control, "r1");
    sleep(Duration::from_secs(1)).await;
    ask(Over::Data, "r1");
    sleep(Duration::from_secs(10)).await;
    assert_eq!((counts(), calls.load(Ordering::Relaxed)), ([0, 1], 1), "where it came last");
    ask(Over::Control, "r1");
    sleep(Duration::from_secs(1)).await;
    assert_eq!((counts(), calls.load(Ordering::Relaxed)), ([1, 0], 1), "from the record");
    ask(Over::Control, "");
    ask(Over::Control, "");
    sleep(Duration::from_secs(10)).await;
    assert_eq!((counts(), calls.load(Ordering::Relaxed)), ([2, 0], 3), "without an id");
    ask(Over::Control, "r2");
    drain.cancel();
    executor.finish().await;
    assert_eq!(counts(), [0, 0], "ended, and not recorded");
}

#[tokio::test(start_paused = true)]
async fn each_policy_gets_its_verdict_whatever_its_id_and_a_repeat_the_same_one() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let server = move |_: http::Request<Body>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_secs(5)).await;
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{\"metadata\": {}}"))))
        }
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let executor = Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap();
    let policy = |name: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: a}}}}"
        )
    };
    let push = |name| {
        let policy_id = "p1".to_owned();
        let policy = NetworkPolicyWithError { network_policy: policy(name), policy_id, ..Default::default() };
        executor.take(Over::Data, Request::NetworkPolicy(policy));
    };
    let verdicts = || {
        let answers = answers::<NetworkPoliciesWithErrors>(&lanes, Lane::DataAnswers);
        let verdicts = answers.into_iter().flat_map(|answer| answer.policies);
        verdicts.map(|it| (it.policy_id, it.network_policy, it.error_message)).collect::<Vec<_>>()
    };
    let accepted = |name| ("p1".to_owned(), policy(name), String::new());
    push("web");
    push("web");
    push("db");
    sleep(Duration::from_secs(10)).await;
    let mut both = verdicts();
    both.sort();
    assert_eq!(both, [accepted("db"), accepted("web")]);
    push("web");
    push("shop");
    push("db");
    sleep(Duration::from_secs(10)).await;
    let mut all = verdicts();
    all.sort();
    assert_eq!(all, [accepted("db"), accepted("shop"), accepted("web")]);
    assert_eq!(calls.load(Ordering::Relaxed), 3, "repeats from the record");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_answered_first_and_ends_the_process_after_its_delay() {
    let drain = CancellationToken::new();
    let (executor, lanes) = executor(&drain);
    let order = |delay_seconds, graceful| {
        let request = OperatorRestartRequest { delay_seconds, graceful, ..Default::default() };
        executor.take(Over::Data, Request::OperatorRestart(request));
    };
    let success = || {
        let answers = answers::<OperatorRestartResponse>(&lanes, Lane::DataAnswers);
        answers.iter().map(|answer| answer.success).collect::<Vec<_>>()
    };
    order(3601, true);
    // The last order counts, and no number of them keeps others out.
    for _ in 0..IN_ALL + 1 {
        order(300, false);
        sleep(Duration::from_millis(1)).await;
    }
    order(600, false);
    sleep(Duration::from_secs(599)).await;
    assert_eq!(success(), [&[false][..], &[true; IN_ALL + 2]].concat());
    assert!(!drain.is_cancelled());
    order(0, true);
    executor.finish().await;
    assert_eq!(success(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_waits_is_called_off_with_the_switch() {
    let rules = Arc::new(std::sync::Mutex::new([true, false]));
    let (executor, _lanes, drain) = switched(&rules, 10);
    let order = || {
        let request = OperatorRestartRequest { delay_seconds: 600, ..Default::default() };
        executor.take(Over::Data, Request::OperatorRestart(request));
    };
    order();
    sleep(Duration::from_secs(60)).await;
    rules.lock().unwrap()[0] = false;
    sleep(Duration::from_secs(5)).await;
    rules.lock().unwrap()[0] = true;
    sleep(Duration::from_secs(3600)).await;
    assert!(!drain.is_cancelled());
    order();
    executor.finish().await;
}

#[tokio::test]
async fn a_certificate_that_is_of_no_use_is_refused_with_the_reason() {
    let drain = CancellationToken::new();
    let (executor, lanes) = executor(&drain);
    let request = CertificateRenewalRequest { request_id: "r1".to_owned(), ..Default::default() };
    executor.take(Over::Control, Request::CertificateRenewal(request));
    let mut changed = lanes.changed();
    let answer = loop {
        match answers::<CertificateRenewalResponse>(&lanes, Lane::ControlAnswers).pop() {
            Some(answer) => break answer,
            None => changed.await,
        }
        changed = lanes.changed();
    };
    assert!(!answer.success && answer.error_message.contains("client_cert"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn the_switch_ends_what_runs_and_keeps_out_what_comes() {
    let on = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let says = Arc::clone(&on);
    let server = move |request: http::Request<Body>| {
        let on = says.load(Ordering::Relaxed);
        async move {
            if !request.uri().path().contains("configmaps") {
                return pending().await;
            }
            let map = format!("{{\"data\": {{\"enabled\": \"{on}\"}}}}");
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(map))))
        }
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let switch = Switch::config_map(client.clone(), "kestrel-ai", "kestrel-executor");
    let access = Access { switch, ..access(client) };
    let executor = Executor::new(access, credentials(), lanes.clone(), drain.clone()).unwrap();
    let ask = || {
        let request = KubernetesApiRequest {
            api_paths: vec!["version".to_owned()],
            timeout_seconds: 300,
            ..Default::default()
        };
        executor.take(Over::Control, Request::KubernetesApi(request));
    };
    let refused = || {
        let answers = answers::<KubernetesApiResponse>(&lanes, Lane::ControlAnswers);
        answers
            .iter()
            .map(|answer| answer.results[0].error_message.starts_with("refused (off)"))
            .collect::<Vec<_>>()
    };
    ask();
    sleep(Duration::from_secs(60)).await;
    assert!(refused().is_empty(), "it runs");
    on.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(refused(), [true], "within seconds");
    ask();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(refused(), [true]);
    on.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    ask();
    sleep(Duration::from_secs(60)).await;
    assert!(refused().is_empty(), "it runs again");
    drain.cancel();
    executor.finish().await;
}

/// A switch that says what `rules` hold, and an API server that hands out a pod of `size` bytes.
fn switched(
    rules: &Arc<std::sync::Mutex<[bool; 2]>>,
    size: usize,
) -> (Arc<Executor>, Lanes, CancellationToken) {
    let says = Arc::clone(rules);
    let server = move |request: http::Request<Body>| {
        let [enabled, hashes] = *says.lock().unwrap();
        async move {
            let text = match request.uri().path().contains("configmaps") {
                true => {
                    format!("{{\"data\": {{\"enabled\": \"{enabled}\", \"secretHashes\": \"{hashes}\"}}}}")
                }
                false => format!("{{\"x\": \"{}\"}}", "x ".repeat(size / 2)),
            };
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(text))))
        }
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let switch = Switch::config_map(client.clone(), "kestrel-ai", "kestrel-executor");
    let access = Access { switch, ..access(client) };
    (Executor::new(access, credentials(), lanes.clone(), drain.clone()).unwrap(), lanes, drain)
}

fn ask_for(executor: &Arc<Executor>, id: &str, path: &str) {
    let (request_id, api_paths) = (id.to_owned(), vec![path.to_owned()]);
    let request = KubernetesApiRequest { request_id, api_paths, ..Default::default() };
    executor.take(Over::Control, Request::KubernetesApi(request));
}

fn codes(lanes: &Lanes) -> Vec<i32> {
    let answers = answers::<KubernetesApiResponse>(lanes, Lane::ControlAnswers);
    answers.iter().map(|answer| answer.results[0].status_code).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_not_handed_out_again_once_it_is_switched_off() {
    let rules = Arc::new(std::sync::Mutex::new([true, true]));
    let (executor, lanes, drain) = switched(&rules, 10);
    let ask = async || {
        ask_for(&executor, "r1", "api/v1/namespaces/a/secrets/s");
        sleep(Duration::from_secs(2)).await;
        codes(&lanes)
    };
    assert_eq!((ask().await, ask().await), (vec![200], vec![200]));
    *rules.lock().unwrap() = [true, false];
    assert_eq!((ask().await, ask().await), (vec![403], vec![403]), "hashes are not allowed any more");
    *rules.lock().unwrap() = [false, false];
    assert_eq!(ask().await, [503]);
    *rules.lock().unwrap() = [true, false];
    assert_eq!(ask().await, [403]);
    drain.cancel();
    executor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_for_room_is_not_sent_once_it_is_switched_off() {
    let rules = Arc::new(std::sync::Mutex::new([true, false]));
    let (executor, lanes, drain) = switched(&rules, 7 << 20);
    // One fills the lane; the second and a repeat of the first wait.
    for id in ["r1", "r2", "r1"] {
        ask_for(&executor, id, "api/v1/namespaces/a/pods/p");
        sleep(Duration::from_secs(1)).await;
    }
    *rules.lock().unwrap() = [false, false];
    sleep(Duration::from_secs(5)).await;
    let mut codes = codes(&lanes);
    codes.sort_unstable();
    assert_eq!(codes, [200, 503, 503]);
    drain.cancel();
    executor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_is_answered_and_may_come_again() {
    let server = async |request: http::Request<Body>| -> Result<http::Response<Full<Bytes>>, Infallible> {
        match request.uri().path() {
            "/version" => Ok(http::Response::new(Full::new(Bytes::from_static(b"{}")))),
            path => panic!("{path}"),
        }
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let executor = Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap();
    for (path, code) in [("livez", 500), ("livez", 500), ("version", 200)] {
        ask_for(&executor, "r1", path);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(codes(&lanes), [code], "{path}");
    }
    drain.cancel();
    executor.finish().await;
}

/// An API server that answers `/version` at once and everything else never, except `/livez`, in ten seconds.
fn slow() -> (Arc<Executor>, Lanes, CancellationToken) {
    let server = async |request: http::Request<Body>| {
        match request.uri().path() {
            "/version" => {}
            "/livez" => sleep(Duration::from_secs(10)).await,
            _ => pending().await,
        }
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}"))))
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    (Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap(), lanes, drain)
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_weighed_and_not_only_counted() {
    let (executor, lanes, drain) = slow();
    let large = |parts: usize| {
        let yaml_content = "x".repeat(8 << 20);
        let mut yaml_manifests = vec![YamlManifest::default(); parts];
        yaml_manifests.push(YamlManifest { yaml_content, ..Default::default() });
        YamlDryRunRequest { yaml_manifests, ..Default::default() }
    };
    // They wait for a place.
    for _ in 0..AT_ONCE {
        ask_for(&executor, "", "readyz");
    }
    sleep(Duration::from_secs(1)).await;
    for _ in 0..20 {
        executor.take(Over::Control, Request::YamlDryRun(large(0)));
    }
    let refused = answers::<YamlDryRunResponse>(&lanes, Lane::ControlAnswers);
    assert_eq!((refused.len(), refused[0].results[0].status_code), (20 - BYTES_IN_ALL / (8 << 20) + 1, 429));
    ask_for(&executor, "", "version");
    assert_eq!(lanes.take(Lane::ControlAnswers), None, "what is small has room");
    sleep(Duration::from_secs(60)).await;
    while lanes.take(Lane::ControlAnswers).is_some() {}
    // What is no text on the wire has its place in memory.
    executor.take(Over::Control, Request::YamlDryRun(large(BYTES_IN_ALL / size_of::<YamlManifest>())));
    ask_for(&executor, "", "version");
    assert_eq!(codes(&lanes), [429]);
    drain.cancel();
    executor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn batches_of_many_slow_parts_leave_others_their_turn() {
    let (executor, lanes, drain) = slow();
    for _ in 0..AT_ONCE {
        let api_paths = vec!["livez".to_owned(); 100];
        let request = KubernetesApiRequest { api_paths, timeout_seconds: 300, ..Default::default() };
        executor.take(Over::Control, Request::KubernetesApi(request));
    }
    sleep(Duration::from_secs(1)).await;
    ask_for(&executor, "r1", "version");
    sleep(Duration::from_secs(29)).await;
    assert_eq!(codes(&lanes), [200]);
    // They are answered too, with what there was time for.
    sleep(Duration::from_secs(300)).await;
    let batches = answers::<KubernetesApiResponse>(&lanes, Lane::ControlAnswers);
    assert_eq!(batches.len(), AT_ONCE);
    for batch in batches {
        let done = batch.results.iter().take_while(|result| result.success).count();
        assert!((15..30).contains(&done), "{done}");
        assert!(batch.results[done..].iter().all(|result| result.status_code == 504));
    }
    drain.cancel();
    executor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_push_out_no_answer_that_waits_to_be_sent() {
    let (executor, lanes, drain) = slow();
    let lane = lanes.answers(Over::Control);
    for bytes in [8 << 20, 6 << 20] {
        let global_error_message = "x".repeat(bytes);
        let answer = KubernetesApiResponse { global_error_message, ..Default::default() };
        lane.send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
    }
    for _ in 0..2 * IN_ALL {
        let api_paths = vec![format!("readyz?verbose={}", "x".repeat(4 << 10)); 100];
        let request = KubernetesApiRequest { api_paths, timeout_seconds: 5, ..Default::default() };
        executor.take(Over::Control, Request::KubernetesApi(request));
    }
    sleep(Duration::from_secs(10)).await;
    let first = answers::<KubernetesApiResponse>(&lanes, Lane::ControlAnswers);
    let lengths: Vec<usize> = first.iter().take(2).map(|it| it.global_error_message.len()).collect();
    assert_eq!(lengths, [8 << 20, 6 << 20]);
    // Those that had a place waited for room.
    sleep(Duration::from_secs(10)).await;
    let later = answers::<KubernetesApiResponse>(&lanes, Lane::ControlAnswers);
    assert_eq!(first.len() + later.len(), 2 + 2 * IN_ALL);
    drain.cancel();
    executor.finish().await;
}

#[tokio::test(start_paused = true)]
async fn repeats_wait_in_the_same_bounded_number_as_everyone() {
    let server = async |request: http::Request<Body>| match request.uri().path() {
        "/version" => Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{}")))),
        _ => pending().await,
    };
    let client = Client::new(tower::service_fn(server), "default");
    let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
    let executor = Executor::new(access(client), credentials(), lanes.clone(), drain.clone()).unwrap();
    ask_for(&executor, "r1", "version");
    sleep(Duration::from_secs(1)).await;
    for _ in 0..IN_ALL {
        ask_for(&executor, "", "livez");
    }
    ask_for(&executor, "r1", "version");
    assert_eq!(codes(&lanes), [200, 429]);
    sleep(Duration::from_secs(60)).await;
    codes(&lanes);
    ask_for(&executor, "r1", "version");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(codes(&lanes), [200], "it is still in the record");
    drain.cancel();
    executor.finish().await;
}
