//! Admission over a real socket.

use std::{sync::Arc, time::Duration};

use hyper::{Method, StatusCode, header::CONNECTION};
use kestrel_runtime::tls::{self, authority::Authority, server::ServingCertificate};
use kestrel_webhook::{
    admission::{Metrics, router, server::Server},
    cluster::Shared,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{Caller, Protocol},
    review::{self, Answer},
};

struct Webhook {
    caller: Caller,
    registry: Registry,
    drain: CancellationToken,
    server: JoinHandle<anyhow::Result<()>>,
}

async fn webhook(linger: Duration) -> Webhook {
    tls::install_provider();
    let authority = Authority::generate("test").unwrap();
    let leaf = authority.server_certificate(&["localhost".to_owned()], Duration::from_secs(60)).unwrap();
    let certificate = Arc::new(ServingCertificate::default());
    certificate.replace(leaf);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let drain = CancellationToken::new();
    let cluster = Arc::new(Shared::new(review::cluster()));
    let router = router(cluster, metrics.clone(), drain.clone());
    let server = Server::bind(0, certificate, router, metrics).await.unwrap();
    let caller = Caller {
        port: server.address().unwrap().port(),
        bundle: authority.certificate_pem().to_owned(),
        protocol: Protocol::Http1,
    };
    let server = tokio::spawn(server.serve(linger, drain.clone()));
    Webhook { caller, registry, drain, server }
}

fn question() -> String {
    let pod = json!({"metadata": {"annotations": {"kestrel.ai/inject": "true"}}, "spec": {"containers": []}});
    review::question(&pod, "shop").to_string()
}

#[tokio::test]
async fn both_protocols_are_served_and_every_outcome_is_counted() {
    let webhook = webhook(Duration::ZERO).await;
    let (question, post) = (question(), Method::POST);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let caller = Caller { protocol, ..webhook.caller.clone() };
        let reply = caller.call(post.clone(), "/mutate", &question).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        let answer = Answer::read(&reply.body);
        assert_eq!(answer.patch.as_array().unwrap().len(), 5);
        assert!(answer.warnings.is_empty() && !reply.headers.contains_key(CONNECTION));

        let wrong = question.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
        for bad in ["", "{}", "[", &wrong] {
            let reply = caller.call(post.clone(), "/mutate", bad).await.unwrap();
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
            assert!(!reply.body.is_empty());
        }
        let update = question.replace("CREATE", "UPDATE");
        let reply = caller.call(post.clone(), "/mutate", &update).await.unwrap();
        assert_eq!(Answer::read(&reply.body).patch, json!([]));
        assert_eq!(caller.call(post.clone(), "/", &question).await.unwrap().status, StatusCode::NOT_FOUND);
        let get = caller.call(Method::GET, "/mutate", "").await.unwrap();
        assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut plain = TcpStream::connect(("127.0.0.1", webhook.caller.port)).await.unwrap();
    plain.write_all(b"POST /mutate HTTP/1.1\r\n\r\n").await.unwrap();
    // Ends with an alert, or with a reset: either way it is over.
    let _end = plain.read_to_end(&mut Vec::new()).await;

    webhook.drain.cancel();
    webhook.server.await.unwrap().unwrap();
    let mut metrics = String::new();
    encode(&mut metrics, &webhook.registry).unwrap();
    for line in [
        "kestrel_webhook_requests_total{outcome=\"injected\",reason=\"\"} 2\n",
        "kestrel_webhook_requests_total{outcome=\"refused\",reason=\"not-a-review\"} 8\n",
        "kestrel_webhook_requests_total{outcome=\"skipped\",reason=\"not-a-new-pod\"} 2\n",
        "kestrel_webhook_request_duration_seconds_count 12\n",
        "kestrel_webhook_refused_connections_total 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// How long the server keeps a connection on which nothing more is said, in seconds.
async fn kept(stream: &mut (impl AsyncRead + Unpin)) -> u64 {
    // From here on time passes while everybody waits.
    tokio::time::pause();
    let begun = Instant::now();
    let _end = stream.read_to_end(&mut Vec::new()).await;
    let seconds = begun.elapsed().as_secs();
    tokio::time::resume();
    seconds
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_does_not_keep_its_place() {
    let webhook = webhook(Duration::ZERO).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let caller = Caller { protocol, ..webhook.caller.clone() };
        let mut silent = caller.connect().await.unwrap();
        let seconds = kept(&mut silent).await;
        assert!((9..=20).contains(&seconds), "{seconds} s");
    }
    let mut slow = webhook.caller.connect().await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let seconds = kept(&mut slow).await;
    assert!((9..=20).contains(&seconds), "{seconds} s");

    // What is no review keeps no place either.
    let question = question();
    let review = format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{question}",
        question.len()
    );
    let lost = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    for (request, status, longest) in [(lost, b"HTTP/1.1 404", 9..=20), (review, b"HTTP/1.1 200", 90..=110)] {
        let mut asked = webhook.caller.connect().await.unwrap();
        let answer = ask(&mut asked, &request).await;
        assert_eq!(&answer, status);
        let seconds = kept(&mut asked).await;
        assert!(longest.contains(&seconds), "{seconds} s");
    }
}

/// The beginning of what is answered to `request`, as it is sent.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> [u8; 12] {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_draining_webhook_still_answers_sends_clients_elsewhere_and_ends() {
    let webhook = webhook(Duration::from_secs(1)).await;
    // Whoever has connected and says nothing does not keep the server from ending.
    let _silent = webhook.caller.connect().await.unwrap();
    webhook.drain.cancel();
    let reply = webhook.caller.call(Method::POST, "/mutate", &question()).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers[CONNECTION], "close");
    timeout(Duration::from_secs(30), webhook.server).await.unwrap().unwrap().unwrap();
    assert!(webhook.caller.call(Method::POST, "/mutate", &question()).await.is_err());
}
