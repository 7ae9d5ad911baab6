//! The operator's own servers in the cluster, met as their clients meet them:
//! tried where the variables say where they are, as `helm test` does.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kestrel_runtime::{
    check::Finding,
    config::Source,
    tls::{self, client::Target},
};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;

/// A server must have answered within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer about one small pod is no longer.
const MOST_BYTES: usize = 1024 * 1024;

/// A line for each server whose address is known.
pub(super) async fn findings(source: &dyn Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(address) = source.get("KESTREL_LINK_ENDPOINT") {
        let found = within(connect(source, &address, "KESTREL_LINK_CA_FILE")).await;
        let result = found.map(|_| format!("{address} is served by a leading aggregator"));
        let remedy = "see the log of the aggregators";
        findings.push(Finding::of("agent link", result.map_err(|why| format!("{why}; {remedy}"))));
    }
    if let Some(address) = source.get("KESTREL_WEBHOOK_ENDPOINT") {
        let result = within(admission(source, &address)).await;
        let remedy = "see the log of the webhook";
        findings.push(Finding::of("webhook", result.map_err(|why| format!("{why}; {remedy}"))));
    }
    findings
}

async fn within<T>(trial: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    let result = timeout(TIMEOUT, trial).await.context("no answer in 10 s");
    result.flatten().map_err(|error| format!("{error:#}"))
}

/// A connection to a server whose certificate the authorities in a file signed.
async fn connect(source: &dyn Source, address: &str, ca_file: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    let uri: Uri = address.parse().with_context(|| format!("{address} is no address"))?;
    let host = uri.host().with_context(|| format!("{address} names no host"))?;
    let file = source.get(ca_file).with_context(|| format!("{ca_file} is not set"))?;
    let pem = fs::read(&file).with_context(|| format!("{file} ({ca_file}) can't be read"))?;
    let roots = tls::roots(&pem).with_context(|| format!("{file} ({ca_file})"))?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let target = Target {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(443),
        server_name: host.to_owned(),
        config: Arc::new(config),
        proxy: None,
    };
    target.connect().await.with_context(|| address.to_owned())
}

/// Asks what would become of an annotated pod.
async fn admission(source: &dyn Source, address: &str) -> anyhow::Result<String> {
    let stream = connect(source, address, "KESTREL_WEBHOOK_CA_FILE").await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(address).header(CONTENT_TYPE, "application/json");
    let response = sender.send_request(request.body(Full::new(Bytes::from(question().to_string())))?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    if !status.is_success() {
        bail!("{address} answers {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    let answer: Value =
        serde_json::from_slice(&body).with_context(|| format!("{address} answers no JSON"))?;
    judge(&answer).map(|sentence| format!("{address} {sentence}"))
}

fn question() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "check", "operation": "CREATE", "namespace": "kestrel-check", "dryRun": true,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "check", "annotations": {"kestrel.ai/inject": "true"}},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    })
}

/// What an answer says, in a few words.
fn judge(answer: &Value) -> anyhow::Result<String> {
    let response = &answer["response"];
    if response["allowed"] != true {
        bail!("it answers {response}, and so would refuse a pod");
    }
    Ok(match response["warnings"][0].as_str() {
        _ if response["patch"].is_string() => "would give an annotated pod a collector".to_owned(),
        Some(why) => format!("answers, and would give an annotated pod no collector: {why}"),
        None => "answers, and would give an annotated pod no collector".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kestrel_runtime::tls::{authority::Authority, server::ServingCertificate};
    use tokio::{net::TcpListener, sync::mpsc};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn an_answer_is_told_in_words() {
        let judged =
            |response: Value| judge(&json!({ "response": response })).map_err(|error| error.to_string());
        assert!(judged(json!({"allowed": true, "patch": "W10="})).unwrap().contains("a collector"));
        let skipped = judged(json!({"allowed": true, "warnings": ["host network"]})).unwrap();
        assert!(skipped.ends_with("no collector: host network"));
        assert!(judged(json!({"allowed": false})).unwrap_err().contains("would refuse a pod"));
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_the_file_alone() {
        tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| Authority::generate(name).unwrap());
        for (file, authority) in [("ours", &ours), ("other", &other)] {
            fs::write(folder.path().join(file), authority.certificate_pem()).unwrap();
        }
        let certificate = Arc::new(ServingCertificate::default());
        let names = ["127.0.0.1".to_owned()];
        certificate.replace(ours.server_certificate(&names, Duration::from_secs(600)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (accepted, _connections) = mpsc::channel(4);
        let (config, drain) = (tls::server::config(certificate, &["h2"]), CancellationToken::new());
        tokio::spawn(tls::server::accept(listener, config, drain, accepted, |_, _| {}));

        let result = async |file: &str| {
            let file = folder.path().join(file).to_str().unwrap().to_owned();
            let source =
                BTreeMap::from([("KESTREL_LINK_ENDPOINT", &*address), ("KESTREL_LINK_CA_FILE", &file)]);
            findings(&source).await.remove(0).to_string()
        };
        let ours = result("ours").await;
        assert!(ours.starts_with("ok ") && ours.ends_with("is served by a leading aggregator"), "{ours}");
        for (file, part) in
            [("other", "an authority that we do not trust"), ("missing", "KESTREL_LINK_CA_FILE")]
        {
            let said = result(file).await;
            assert!(said.starts_with("FAILED") && said.contains(part), "{said}");
        }
        assert!(findings(&BTreeMap::<&str, &str>::new()).await.is_empty());
    }
}
