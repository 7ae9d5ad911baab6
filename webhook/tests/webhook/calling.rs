//! The webhook's own way to an API server.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{
        HeaderMap, Request,
        header::{AUTHORIZATION, CONNECTION, USER_AGENT},
    },
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use kestrel_runtime::tls::{
    self,
    authority::Authority,
    server::{ServingCertificate, accept, config},
};
use kestrel_webhook::api_server::ApiServer;
use kube::Client;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

struct Server {
    port: u16,
    certificate: Arc<ServingCertificate>,
    connections: Arc<AtomicUsize>,
}

/// A server that says which token it was shown: over a connection that stays, or for the last time.
async fn server(authority: &Authority) -> Server {
    tls::install_provider();
    let certificate = Arc::new(ServingCertificate::default());
    show(&certificate, authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, mut accepted) = mpsc::channel(1);
    let config = config(Arc::clone(&certificate), &["http/1.1"]);
    tokio::spawn(accept(listener, config, CancellationToken::new(), sender, |_, _| {}));
    let token = async |headers: HeaderMap| {
        assert!(headers[USER_AGENT].to_str().unwrap().starts_with("kestrel-webhook/"));
        headers[AUTHORIZATION].to_str().unwrap().to_owned()
    };
    let router = Router::new()
        .route("/token", get(token))
        .route("/last", get(async move |headers| ([(CONNECTION, "close")], token(headers).await)));
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Some((stream, _)) = accepted.recv().await {
            count.fetch_add(1, Ordering::Relaxed);
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Server { port, certificate, connections }
}

fn show(certificate: &ServingCertificate, authority: &Authority) {
    let leaf = authority.server_certificate(&["localhost".to_owned()], Duration::from_secs(60));
    certificate.replace(leaf.unwrap());
}

/// As a kubelet writes it.
fn mount(account: &Path, authority: &Authority, token: &str) {
    fs::write(account.join("ca.crt"), authority.certificate_pem()).unwrap();
    fs::write(account.join("token"), token).unwrap();
}

async fn ask(client: &Client, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn connections_are_used_again_and_tokens_and_authorities_are_those_of_the_day() {
    let (old, new) = (Authority::generate("old").unwrap(), Authority::generate("new").unwrap());
    let server = server(&old).await;
    let account = tempfile::tempdir().unwrap();
    mount(account.path(), &old, "first");
    let client = ApiServer::at("localhost".to_owned(), server.port, account.path().to_owned());
    let client = client.client("kestrel-ai");
    let connections = || server.connections.load(Ordering::Relaxed);

    assert_eq!(ask(&client, "/token").await.unwrap(), "Bearer first");
    mount(account.path(), &old, "second\n");
    assert_eq!(ask(&client, "/token").await.unwrap(), "Bearer second");
    let (one, two) = tokio::join!(ask(&client, "/token"), ask(&client, "/last"));
    assert_eq!((one.unwrap(), two.unwrap()), ("Bearer second".to_owned(), "Bearer second".to_owned()));
    assert!(connections() <= 2, "{}", connections());

    show(&server.certificate, &new);
    ask(&client, "/last").await.unwrap();
    let before = connections();
    let refused = ask(&client, "/last").await.unwrap_err();
    assert!(refused.contains("authority that we do not trust"), "{refused}");
    mount(account.path(), &new, "third");
    assert_eq!(ask(&client, "/token").await.unwrap(), "Bearer third");
    assert_eq!(connections(), before + 1);
}
