//! The way to the API server, from a pod of its cluster: the kubelet says where
//! it is, whom to trust and who we are. What else may lead to one (kubeconfig
//! files, their plug-ins, proxies) would be a sixth of the program.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    BoxError,
    http::{
        HeaderValue, Request, Response,
        header::{AUTHORIZATION, HOST, USER_AGENT},
    },
};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use kestrel_runtime::{
    config::Source,
    tls::{self, client::Target},
};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use rustls::ClientConfig;
use tokio::time::timeout;
use tower::{retry::Retry, service_fn};

/// Where the kubelet mounts the token of a pod's ServiceAccount, and the API server's authority.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// By which its audit log tells us from others.
const NAME: HeaderValue = HeaderValue::from_static(concat!("kestrel-webhook/", env!("CARGO_PKG_VERSION")));
/// Until an answer begins; the API server gives itself a minute.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// An API server, and connections to it.
#[derive(Clone)]
pub struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
    /// Those over which a request went; some of them can take another.
    connections: Arc<Mutex<Vec<SendRequest<Body>>>>,
}

impl ApiServer {
    /// That of the cluster whose pod we are.
    ///
    /// # Errors
    /// We are in no pod.
    pub fn of_cluster(environment: &dyn Source) -> anyhow::Result<Self> {
        let variable = |name| environment.get(name).with_context(|| format!("{name} is not set"));
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse().with_context(|| format!("KUBERNETES_SERVICE_PORT={port} is not a port"))?;
        Ok(Self::at(host, port, ACCOUNT.into()))
    }

    /// That at `host`; `account` holds `token` and `ca.crt`, which may change at any time.
    pub fn at(host: String, port: u16, account: PathBuf) -> Self {
        Self { host, port, account, connections: Arc::default() }
    }

    /// Its client, for which `namespace` is the default one.
    pub fn client(self, namespace: &str) -> Client {
        let ask = service_fn(move |request| {
            let server = self.clone();
            async move { timeout(ANSWERS_WITHIN, server.ask(request)).await? }
        });
        Client::new(Retry::new(RetryPolicy::server_retry(), ask), namespace)
    }

    async fn ask(self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let token = fs::read_to_string(self.account.join("token"))?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
        token.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, token);
        request.headers_mut().insert(USER_AGENT, NAME);
        request.headers_mut().insert(HOST, HeaderValue::from_static("kubernetes.default.svc"));
        loop {
            let known = self.free_connection();
            let is_new = known.is_none();
            let mut connection = match known {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.try_send_request(request).await {
                Ok(response) => {
                    self.connections().push(connection);
                    return Ok(response);
                }
                // The server has closed it meanwhile, and got nothing of the request.
                Err(mut failed) => match failed.take_message() {
                    Some(untouched) if !is_new => request = untouched,
                    _ => return Err(failed.into_error().into()),
                },
            }
        }
    }

    fn free_connection(&self) -> Option<SendRequest<Body>> {
        let mut connections = self.connections();
        connections.retain(|connection| !connection.is_closed());
        let free = connections.iter().position(SendRequest::is_ready)?;
        Some(connections.swap_remove(free))
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Body>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, BoxError> {
        let authority = fs::read(self.account.join("ca.crt"))?;
        let config =
            ClientConfig::builder().with_root_certificates(tls::roots(&authority)?).with_no_client_auth();
        let target = Target {
            host: self.host.clone(),
            port: self.port,
            server_name: self.host.clone(),
            config: Arc::new(config),
            proxy: None,
        };
        let stream = TokioIo::new(target.connect().await?);
        let (sender, connection) = http1::handshake(stream).await?;
        // Whoever waits for an answer hears of its end.
        tokio::spawn(async { _ = connection.await });
        Ok(sender)
    }
}
