//! The node agents' ends of the agent link.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::Request;
use futures::{StreamExt as _, stream};
use kestrel_proto::node::v1::{
    AgentMessage, Hello, Role, agent_link_client::AgentLinkClient, agent_message, aggregator_message,
};
use kestrel_runtime::tls::{
    self,
    client::{Connector, Target},
};
use kube::Client;
use rustls::{ClientConfig, client::Resumption};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::{
    LIMIT,
    objects::{AGENT, OPERATOR, Size, node_name, pod_name, uid},
};

/// Agents that attach at the same time; in a cluster they are spread over 30 s.
const AT_ONCE: usize = 64;

/// Links that are held open until this is dropped.
pub(crate) struct Agents {
    lost: Arc<AtomicUsize>,
    _links: JoinSet<()>,
}

impl Agents {
    /// Returns when the agent of every node is attached and has been told of its pods.
    pub(crate) async fn attach(client: &Client, size: Size, port: u16) -> Self {
        let config = Arc::new(trust(client).await);
        let attached: Vec<_> = stream::iter(0..size.nodes)
            .map(|number| attach(client, size, number, port, Arc::clone(&config)))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (lost, mut links) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for link in attached {
            let lost = Arc::clone(&lost);
            links.spawn(async move {
                link.await;
                lost.fetch_add(1, Ordering::Relaxed);
            });
        }
        Self { lost, _links: links }
    }

    /// Links that ended.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What an agent trusts, as soon as it is published. Each is a process of its own, which resumes
/// no other's session.
async fn trust(client: &Client) -> ClientConfig {
    let path = format!("/api/v1/namespaces/{OPERATOR}/configmaps/kestrel-agent-link-ca");
    let mut tries = interval(Duration::from_millis(100));
    let published = async {
        loop {
            tries.tick().await;
            let published = client.request::<Value>(Request::get(&path).body(Vec::new()).unwrap()).await;
            match published {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => break other.unwrap(),
            }
        }
    };
    let published = timeout(LIMIT, published).await.expect("the link's authority in time");
    let roots = tls::roots(published["data"]["ca.crt"].as_str().unwrap().as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The rest of the life of a link that is attached.
async fn attach(
    client: &Client,
    size: Size,
    number: usize,
    port: u16,
    config: Arc<ClientConfig>,
) -> impl Future<Output = ()> + use<> {
    let authorization = format!("Bearer {}", token(client, size, number).await);
    let server_name = "kestrel-agent-link".to_owned();
    let target = Target { server_name, host: "127.0.0.1".to_owned(), port, config, proxy: None };
    let channel = Endpoint::from_static("http://kestrel-agent-link")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_with_connector(Connector(target))
        .await
        .unwrap();
    let (messages, queue) = mpsc::channel(1);
    let hello = Hello {
        protocol_version: 1,
        role: Role::NodeAgent.into(),
        node_name: node_name(number, size),
        ..Hello::default()
    };
    messages.try_send(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }).unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    let mut incoming = AgentLinkClient::new(channel).attach(request).await.unwrap().into_inner();
    let welcome = incoming.message().await.unwrap().unwrap();
    assert!(matches!(welcome.message, Some(aggregator_message::Message::Welcome(_))));
    let pods = incoming.message().await.unwrap().unwrap();
    let Some(aggregator_message::Message::PodUpdate(update)) = pods.message else { panic!("{pods:?}") };
    assert_eq!(update.pods.len(), size.pods / size.nodes, "the pods of the node");
    async move {
        let _open = messages;
        while let Ok(Some(_)) = incoming.message().await {}
    }
}

/// A token of the agent's pod, as a kubelet asks for it.
async fn token(client: &Client, size: Size, number: usize) -> String {
    let (_, name) = pod_name(number, size);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid(7, number)});
    let spec = json!({"audiences": ["kestrel-agent-link"], "boundObjectRef": pod, "expirationSeconds": 3600});
    let path = format!("/api/v1/namespaces/{OPERATOR}/serviceaccounts/{AGENT}/token");
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(json!({"spec": spec}).to_string().into_bytes()).unwrap();
    let answer: Value = client.request(request).await.unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}
