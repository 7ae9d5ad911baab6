use std::{convert::Infallible, path::Path, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Client, client::Body};
use rcgen::{CertificateParams, Issuer, KeyPair};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::uplink::problem::RUNTIME_SECRET;

/// An API server that keeps one Secret.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    secret: Option<Secret>,
    version: u64,
    /// Refuses writes with this code.
    refuse: Option<u16>,
    /// Another writes this many times between a read and the write after it.
    busy: u32,
}

impl Server {
    fn secret(&self) -> RuntimeSecret {
        let server = self.clone();
        let client = Client::new(tower::service_fn(move |request| server.clone().answer(request)), "ns");
        let owner = OwnerReference { name: "kestrel-aggregator".to_owned(), ..Default::default() };
        RuntimeSecret::new(client, "ns", Some(owner))
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let failure = |code| {
            let reason = if code == 404 { "NotFound" } else { "" };
            (code, json!({ "code": code, "reason": reason, "message": "no", "status": "Failure" }))
        };
        let mut stored = self.0.lock().unwrap();
        let (status, answer) = match (&parts.method, stored.secret.is_some()) {
            (&Method::GET, false) => failure(404),
            (&Method::GET, true) => {
                let answer = json!(stored.secret);
                if stored.busy > 0 {
                    stored.busy -= 1;
                    stored.version += 1;
                    let version = stored.version.to_string();
                    stored.secret.as_mut().unwrap().metadata.resource_version = Some(version);
                }
                (200, answer)
            }
            _ if stored.refuse.is_some() => failure(stored.refuse.unwrap()),
            (method, there) => {
                let mut secret: Secret = serde_json::from_slice(&body).unwrap();
                assert_eq!(secret.metadata.name.as_deref(), Some(RUNTIME_SECRET));
                let current = stored.secret.as_ref().and_then(|s| s.metadata.resource_version.clone());
                if (method == Method::POST) == there || secret.metadata.resource_version != current {
                    failure(409)
                } else {
                    stored.version += 1;
                    secret.metadata.resource_version = Some(stored.version.to_string());
                    stored.secret = Some(secret);
                    (200, json!(stored.secret))
                }
            }
        };
        let body = Full::new(Bytes::from(answer.to_string()));
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    fn put(&self, data: &[(&str, &str)]) {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
        let mut stored = self.0.lock().unwrap();
        stored.version += 1;
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.metadata.name = Some(RUNTIME_SECRET.to_owned());
        secret.metadata.resource_version = Some(stored.version.to_string());
        stored.secret = Some(secret);
    }

    fn get(&self, key: &str) -> Option<String> {
        let stored = self.0.lock().unwrap();
        let value = stored.secret.as_ref()?.data.as_ref()?.get(key)?.0.clone();
        Some(String::from_utf8(value).unwrap())
    }
}

#[tokio::test]
async fn a_secret_that_nobody_owns_is_adopted_once_and_keeps_what_it_holds() {
    let server = Server::default();
    server.put(&[("token", "renewed")]);
    let secret = server.secret();
    for _ in 0..2 {
        assert!(secret.read().await.is_ok());
    }
    assert_eq!(server.get("token").as_deref(), Some("renewed"));
    let stored = server.0.lock().unwrap();
    let owners = stored.secret.as_ref().unwrap().metadata.owner_references.as_ref().unwrap();
    assert_eq!(owners.iter().map(|owner| &*owner.name).collect::<Vec<_>>(), ["kestrel-aggregator"]);
    assert_eq!(stored.version, 2, "one write after the first");
}

fn jwt(issued: i64, seconds: i64) -> String {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let issued = Timestamp::now().as_second() + issued;
    let claims = json!({ "tenant": "acme", "iat": issued, "exp": issued + seconds });
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// An authority whose certificates are valid between two times, in seconds from now.
struct Authority(kestrel_runtime::tls::authority::Authority);

struct Issued {
    certificate: String,
    key: String,
    authority: String,
}

impl Authority {
    fn new() -> Self {
        kestrel_runtime::tls::install_provider();
        Self(kestrel_runtime::tls::authority::Authority::generate("test").unwrap())
    }

    fn client(&self, begins: i64, ends: i64) -> Issued {
        let issuer_key = KeyPair::from_pem(self.0.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(self.0.certificate_pem(), issuer_key).unwrap();
        let at = |seconds: i64| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            let now = SystemTime::now();
            if seconds < 0 { now - distance } else { now + distance }
        };
        let mut params = CertificateParams::default();
        params.not_before = at(begins).into();
        params.not_after = at(ends).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let authority = self.0.certificate_pem().to_owned();
        Issued { certificate, key: key.serialize_pem(), authority }
    }
}

impl Issued {
    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("client.crt"), &self.certificate).unwrap();
        std::fs::write(folder.join("client.key"), &self.key).unwrap();
        std::fs::write(folder.join("ca.crt"), &self.authority).unwrap();
    }

    async fn push(&self, credentials: &Credentials) -> Result<(), Problem> {
        let [certificate, key, authority] =
            [&self.certificate, &self.key, &self.authority].map(|pem| STANDARD.encode(pem));
        credentials.renew_certificate(&certificate, &key, &authority).await
    }
}

struct Rig {
    folder: TempDir,
    server: Server,
    credentials: Credentials,
}

impl Rig {
    /// With a good token and a certificate that was made a day ago.
    fn new(authority: &Authority) -> Self {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::default());
        authority.client(-DAY, DAY).write(folder.path());
        std::fs::write(folder.path().join("token"), jwt(-60, 3_600)).unwrap();
        let credentials = Credentials::new(bootstrap(folder.path())).kept_in(server.secret());
        Self { folder, server, credentials }
    }

    /// Where the certificate is from that a connection would show.
    async fn shown(&self) -> String {
        self.credentials.tls().await.unwrap();
        self.pair().await
    }

    async fn pair(&self) -> String {
        self.credentials.material().await.unwrap().pair.place.to_string()
    }

    async fn has_changed(&self) -> bool {
        timeout(Duration::from_millis(50), self.credentials.changed()).await.is_ok()
    }
}

const DAY: i64 = 24 * 3_600;

fn bootstrap(folder: &Path) -> Bootstrap {
    Bootstrap {
        client_certificate: folder.join("client.crt"),
        client_key: folder.join("client.key"),
        authority: folder.join("ca.crt"),
        token: TokenSource::File(folder.join("token")),
        insecure: false,
        look: Duration::from_millis(5),
    }
}

#[tokio::test]
async fn a_missing_or_wrong_file_is_named_with_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let authority = Authority::new();
    let (pair, other) = (authority.client(-1, DAY), authority.client(-1, DAY));
    let credentials = Credentials::new(bootstrap(folder.path()));
    let missing = |problem: Problem, name: &str, setting: &str| {
        let sentence = problem.to_string();
        assert!(sentence.contains(at(name).to_str().unwrap()) && sentence.contains(setting), "{sentence}");
        sentence
    };
    missing(credentials.token().await.err().unwrap(), "token", "AUTH_TOKEN_FILE");
    missing(credentials.tls().await.unwrap_err(), "client.crt", "CLIENT_CERT_FILE");
    std::fs::write(at("client.crt"), pair.certificate).unwrap();
    missing(credentials.tls().await.unwrap_err(), "client.key", "CLIENT_KEY_FILE");
    std::fs::write(at("client.key"), other.key).unwrap();
    let mismatch = missing(credentials.tls().await.unwrap_err(), "client.key", "CLIENT_KEY_FILE");
    assert!(mismatch.contains("does not fit"), "{mismatch}");
    std::fs::write(at("client.key"), pair.key).unwrap();
    missing(credentials.tls().await.unwrap_err(), "ca.crt", "CA_CERT_FILE");
    std::fs::write(at("ca.crt"), "nothing").unwrap();
    missing(credentials.tls().await.unwrap_err(), "ca.crt", "CA_CERT_FILE");
    std::fs::write(at("ca.crt"), pair.authority).unwrap();
    credentials.tls().await.unwrap();
    for (begins, ends, part) in [(-DAY, -60, "expired at"), (60, DAY, "is not valid before")] {
        authority.client(begins, ends).write(folder.path());
        // Our clock may be wrong: the server judges.
        credentials.tls().await.unwrap();
        let pair = credentials.material().await.unwrap().pair;
        let sentence = missing(pair.check(Timestamp::now()).unwrap_err(), "client.crt", "CLIENT_CERT_FILE");
        assert!(sentence.contains(part) && sentence.contains("clock"), "{sentence}");
    }
    assert!(!format!("{credentials:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn a_renewed_token_is_kept_and_outlives_the_process() {
    let rig = Rig::new(&Authority::new());
    let old = rig.credentials.token().await.unwrap();
    rig.server.0.lock().unwrap().refuse = Some(403);
    let (first, second) = (jwt(-50, 3_600), jwt(-40, 3_600));
    rig.credentials.renewed(&first, &old).await.unwrap();
    assert_eq!(rig.server.get("token"), None);
    let used = rig.credentials.token().await.unwrap();
    assert_eq!(used.secret.expose_secret(), first, "it is used though it can't be kept");
    rig.server.0.lock().unwrap().refuse = None;
    rig.credentials.look().await;
    assert_eq!(rig.server.get("token").as_deref(), Some(first.as_str()), "kept at the next look");
    let owners = rig.server.0.lock().unwrap().secret.clone().unwrap().metadata.owner_references.unwrap();
    assert_eq!(owners[0].name, "kestrel-aggregator");

    rig.server.0.lock().unwrap().busy = 3;
    rig.credentials.renewed(&second, &used).await.unwrap();
    assert_eq!(rig.server.get("token").as_deref(), Some(second.as_str()), "in spite of conflicts");
    let next = Credentials::new(bootstrap(rig.folder.path())).kept_in(rig.server.secret());
    assert_eq!(next.token().await.unwrap().secret.expose_secret(), second);
}

#[tokio::test]
async fn a_newer_token_of_another_process_is_not_overwritten() {
    let rig = Rig::new(&Authority::new());
    let old = rig.credentials.token().await.unwrap();
    let (mine, newer) = (jwt(-50, 3_600), jwt(-40, 3_600));
    rig.server.put(&[("token", &newer), ("notes", "of a person")]);
    rig.credentials.renewed(&mine, &old).await.unwrap();
    rig.credentials.look().await;
    assert_eq!(rig.server.get("token").as_deref(), Some(newer.as_str()));
    assert_eq!(rig.credentials.token().await.unwrap().secret.expose_secret(), newer);
    let newest = jwt(-30, 3_600);
    rig.credentials.renewed(&newest, &old).await.unwrap();
    assert_eq!(rig.server.get("token").as_deref(), Some(newest.as_str()));
    assert_eq!(rig.server.get("notes").as_deref(), Some("of a person"));
}

#[tokio::test]
async fn a_rotated_file_is_used_without_a_restart() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    assert!(!rig.has_changed().await, "no connection was made yet");
    rig.credentials.tls().await.unwrap();
    assert!(!rig.has_changed().await);
    authority.client(-60, 2 * DAY).write(rig.folder.path());
    rig.credentials.changed().await;
    rig.credentials.tls().await.unwrap();
    assert!(!rig.has_changed().await);
    let ends = rig.credentials.ends().certificate.unwrap();
    assert!(ends > Timestamp::now() + Duration::from_secs(36 * 3_600));
}

#[tokio::test]
async fn a_pushed_certificate_is_kept_and_the_newest_wins() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    assert!(rig.shown().await.contains("CLIENT_CERT_FILE"));
    let pushed = authority.client(-60, DAY);
    pushed.push(&rig.credentials).await.unwrap();
    rig.credentials.changed().await;
    assert!(rig.shown().await.contains("tls.crt in the Secret"));
    assert_eq!(rig.server.get("tls.key").as_deref(), Some(pushed.key.as_str()));
    // An upgrade of the chart brings an old one back.
    authority.client(-2 * DAY, DAY).write(rig.folder.path());
    assert!(rig.shown().await.contains("tls.crt in the Secret"));
    // A person mounts a new one.
    authority.client(-10, DAY).write(rig.folder.path());
    rig.credentials.changed().await;
    assert!(rig.shown().await.contains("CLIENT_CERT_FILE"));
    // Nor is one shown before its time while there is another.
    authority.client(60, DAY).write(rig.folder.path());
    assert!(rig.shown().await.contains("tls.crt in the Secret"));
    authority.client(-10, DAY).write(rig.folder.path());
    let older = authority.client(-30, DAY).push(&rig.credentials).await.unwrap_err();
    assert!(older.to_string().contains("made before the one in use"), "{older}");
}

#[tokio::test]
async fn a_pushed_certificate_that_is_of_no_use_changes_nothing() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    let good = authority.client(-60, DAY);
    let stranger = authority.client(-60, DAY);
    for (pushed, part) in [
        (Issued { key: stranger.key, ..authority.client(-60, DAY) }, "client_key of the pushed"),
        (Issued { authority: "none".to_owned(), ..authority.client(-60, DAY) }, "ca_cert of the pushed"),
        (Issued { certificate: String::new(), ..authority.client(-60, DAY) }, "client_cert of the pushed"),
        (authority.client(-DAY, -60), "expired at"),
        (authority.client(60, DAY), "is not valid before"),
    ] {
        let sentence = pushed.push(&rig.credentials).await.unwrap_err().to_string();
        assert!(sentence.contains(part) && !sentence.contains("PRIVATE"), "{part}: {sentence}");
    }
    let raw = rig.credentials.renew_certificate(&good.certificate, &good.key, &good.authority).await;
    assert!(raw.unwrap_err().to_string().contains("not base64"));
    rig.server.0.lock().unwrap().refuse = Some(403);
    let unwritten = good.push(&rig.credentials).await.unwrap_err();
    assert!(unwritten.to_string().contains("can't be written"), "{unwritten}");
    assert_eq!(rig.server.get("tls.crt"), None);
    assert!(rig.shown().await.contains("CLIENT_CERT_FILE"));
    let alone = Credentials::new(bootstrap(rig.folder.path()));
    assert!(good.push(&alone).await.unwrap_err().to_string().contains("outside a cluster"));
}

#[tokio::test]
async fn a_pushed_certificate_that_the_server_refuses_gives_way_to_the_one_before() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    let (first, second, third) =
        (authority.client(-60, DAY), authority.client(-50, DAY), authority.client(-40, DAY));
    first.push(&rig.credentials).await.unwrap();
    assert!(rig.shown().await.starts_with("tls.crt"));
    second.push(&rig.credentials).await.unwrap();
    assert!(rig.shown().await.starts_with("tls.crt"));
    rig.credentials.certificate_refused();
    assert!(!rig.has_changed().await, "the connection with the one before may still be there");
    assert!(rig.shown().await.starts_with("previous.tls.crt"));
    assert_eq!(rig.server.get("previous.tls.crt").as_deref(), Some(first.certificate.as_str()));
    // The next push does not push the good one out.
    third.push(&rig.credentials).await.unwrap();
    rig.credentials.changed().await;
    assert!(rig.shown().await.starts_with("tls.crt"));
    assert_eq!(rig.server.get("previous.tls.crt").as_deref(), Some(first.certificate.as_str()));
    rig.credentials.certificate_refused();
    assert!(rig.shown().await.starts_with("previous.tls.crt"));
}

#[tokio::test]
async fn an_authority_that_was_pushed_is_trusted_beside_the_given_one() {
    let (authority, next) = (Authority::new(), Authority::new());
    let rig = Rig::new(&authority);
    next.client(-60, DAY).push(&rig.credentials).await.unwrap();
    let authorities = rig.credentials.material().await.unwrap().authorities;
    assert_eq!(authorities.len(), 2);
    std::fs::remove_file(rig.folder.path().join("ca.crt")).unwrap();
    rig.credentials.tls().await.unwrap();
}

/// Alerts read the ends: one that vanished would take its alert with it.
#[tokio::test]
async fn what_has_expired_keeps_its_end() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    rig.credentials.token().await.unwrap();
    let now = Timestamp::now();
    let is_over = |end: Option<Timestamp>, ago: i64| {
        let end = end.unwrap().as_second() - now.as_second();
        assert!((-ago - 2..=-ago + 2).contains(&end), "{end}");
    };
    assert!(rig.credentials.ends().token.unwrap() > now);
    std::fs::write(rig.folder.path().join("token"), jwt(-100, 60)).unwrap();
    rig.credentials.token().await.unwrap();
    is_over(rig.credentials.ends().token, 40);
    std::fs::remove_file(rig.folder.path().join("token")).unwrap();
    rig.credentials.token().await.err().unwrap();
    is_over(rig.credentials.ends().token, 40);

    // A process that starts with both certificates expired: the later end counts.
    let pushed = authority.client(-DAY, -30);
    rig.server.put(&[("tls.crt", &pushed.certificate), ("tls.key", &pushed.key)]);
    authority.client(-DAY, -60).write(rig.folder.path());
    assert_eq!(rig.credentials.ends().certificate, None);
    rig.credentials.tls().await.unwrap();
    is_over(rig.credentials.ends().certificate, 30);
}

#[tokio::test]
async fn a_caution_is_told_until_it_is_mended() {
    let authority = Authority::new();
    let rig = Rig::new(&authority);
    let cautions = async || {
        rig.credentials.look().await;
        let (_, _) = (rig.credentials.token().await.unwrap(), rig.credentials.material().await.unwrap());
        rig.credentials.cautions()
    };
    let old = rig.credentials.token().await.unwrap();
    assert!(cautions().await.is_empty());
    let (first, other) = (authority.client(-60, DAY), authority.client(-60, DAY));
    rig.server.put(&[("token", "nonsense"), ("tls.crt", &first.certificate), ("tls.key", &other.key)]);
    let told = cautions().await;
    assert!(told[0].contains("is not a JWT") && told[1].contains("does not fit"), "{told:?}");
    rig.server.put(&[("tls.crt", &first.certificate), ("tls.key", &first.key)]);
    assert!(cautions().await.is_empty());

    rig.server.0.lock().unwrap().refuse = Some(403);
    rig.credentials.renewed(&jwt(-50, 3_600), &old).await.unwrap();
    let told = cautions().await;
    assert!(told.len() == 1 && told[0].contains("would not outlive this process"), "{told:?}");
    rig.server.0.lock().unwrap().refuse = None;
    assert!(cautions().await.is_empty());

    rig.credentials.caution(About::Renewal, vec![Problem::NotRenewed("no".to_owned())]);
    assert_eq!(cautions().await.len(), 1);
    std::fs::write(rig.folder.path().join("token"), jwt(-10, 3_600)).unwrap();
    assert!(cautions().await.is_empty(), "a person put a new token there");
}
