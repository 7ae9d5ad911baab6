//! Who is at the other end of a link: what the review of its token proves, and
//! what it may therefore speak of.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use kestrel_proto::node::v1::{Hello, LogChunk, Role};

use crate::inventory::pods::Known;

/// The audience that a token must be made for.
pub(super) const AUDIENCE: &str = "kestrel-agent-link";

/// No name of a Kubernetes object is longer, in bytes.
pub(super) const MAX_NAME: usize = 253;

/// No name of a container is longer, in bytes.
const MAX_CONTAINER_NAME: usize = 63;

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Who it is.
    pub(super) peer: Peer,
    /// The node that it runs on.
    pub(super) node: String,
}

/// A process that may attach; it has one place at the link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// The agent of a node: it speaks for every pod of that node.
    Agent {
        /// Name of the node.
        node: String,
    },
    /// The sidecar of a pod: it speaks for that pod.
    Sidecar {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the pod.
        pod: String,
        /// UID of the pod.
        uid: String,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { node } => write!(f, "the node agent of {node:?}"),
            Self::Sidecar { namespace, pod, .. } => write!(f, "the sidecar of {namespace:?}/{pod:?}"),
        }
    }
}

/// Whose tokens are node agents' tokens.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The operator's namespace.
    pub(super) namespace: String,
    /// Name of the node agents' ServiceAccount.
    pub(super) agent_account: String,
}

/// Why a token gives no identity, in words that follow "its token".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It proves nothing.
    #[error("its token {0}")]
    Unauthenticated(String),
    /// It is genuine, but its bearer has no business here.
    #[error("its token {0}")]
    Forbidden(String),
    /// We can't tell yet.
    #[error("its token {0}")]
    NotYet(String),
}

/// The identity that a reviewed token proves. `node_of` names the node of a
/// pod by UID: API servers before 1.30 do not put it into the review.
///
/// # Errors
/// The refusal, in a sentence.
pub(super) fn identify(
    status: &TokenReviewStatus,
    rules: &Rules,
    node_of: impl Fn(&str) -> Option<String>,
) -> Result<Identity, Refusal> {
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("no reason given");
        return Err(Refusal::Unauthenticated(format!("is not accepted by the API server: {why}")));
    }
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::Unauthenticated(format!("is not made for the audience {AUDIENCE}")));
    }
    let user = status.user.as_ref();
    let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
    let account = name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err(Refusal::Forbidden(format!("belongs to {name:?}, which is no ServiceAccount")));
    };
    let extra = user.and_then(|user| user.extra.as_ref());
    let (Some(pod), Some(uid)) = (claim(extra, "pod-name"), claim(extra, "pod-uid")) else {
        return Err(Refusal::Forbidden(format!("belongs to {name:?}, but is not bound to a pod")));
    };
    let Some(node) = claim(extra, "node-name").map(str::to_owned).or_else(|| node_of(uid)) else {
        return Err(Refusal::NotYet(format!(
            "is bound to the pod {namespace}/{pod}, whose node is not known yet"
        )));
    };
    let peer = if namespace == rules.namespace && account == rules.agent_account {
        Peer::Agent { node: node.clone() }
    } else {
        Peer::Sidecar { namespace: namespace.to_owned(), pod: pod.to_owned(), uid: uid.to_owned() }
    };
    Ok(Identity { peer, node })
}

fn claim<'a>(extra: Option<&'a BTreeMap<String, Vec<String>>>, name: &str) -> Option<&'a str> {
    let values = extra?.get(&format!("authentication.kubernetes.io/{name}"))?;
    values.first().map(String::as_str).filter(|value| !value.is_empty())
}

impl Peer {
    /// The UID of a sidecar's pod.
    pub(super) fn pod(&self) -> Option<&str> {
        match self {
            Self::Agent { .. } => None,
            Self::Sidecar { uid, .. } => Some(uid),
        }
    }

    /// Whether a `Hello` claims to be this peer.
    ///
    /// # Errors
    /// What it claims instead, in a sentence.
    pub(super) fn check(&self, hello: &Hello) -> Result<(), String> {
        let names = [&hello.node_name, &hello.pod_namespace, &hello.pod_name, &hello.pod_uid];
        if names.iter().any(|name| name.len() > MAX_NAME) {
            return Err(format!("a name in its Hello has more than {MAX_NAME} bytes"));
        }
        let claimed = match hello.role() {
            Role::NodeAgent => Self::Agent { node: hello.node_name.clone() },
            Role::Sidecar => Self::Sidecar {
                namespace: hello.pod_namespace.clone(),
                pod: hello.pod_name.clone(),
                uid: hello.pod_uid.clone(),
            },
            Role::Unspecified => return Err("it does not say whom it speaks for".to_owned()),
        };
        if claimed == *self {
            return Ok(());
        }
        let by_uid = if claimed.to_string() == self.to_string() { ", with another UID" } else { "" };
        Err(format!("its token is that of {self}, but it says that it is {claimed}{by_uid}"))
    }
}

impl Identity {
    /// Whether this peer may send `chunk`, whose pod is `known` to the API server.
    /// Nobody may send what names no possible pod or container.
    ///
    /// A node's agent may speak of a pod that the API server does not know (any
    /// more): lines outlive their pod's object.
    pub(super) fn may_send(&self, chunk: &LogChunk, known: Option<&Known>) -> bool {
        let is = |namespace: &str, pod: &str| chunk.pod_namespace == namespace && chunk.pod_name == pod;
        let names = [&chunk.pod_namespace, &chunk.pod_name, &chunk.pod_uid];
        if chunk.container_name.len() > MAX_CONTAINER_NAME || names.iter().any(|name| name.len() > MAX_NAME) {
            return false;
        }
        match &self.peer {
            Peer::Agent { node } => {
                known.is_none_or(|known| *known.node == **node && is(&known.info.namespace, &known.info.name))
            }
            Peer::Sidecar { namespace, pod, uid } => chunk.pod_uid == *uid && is(namespace, pod),
        }
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::PodInfo;
    use serde_json::{Value, json};

    use super::*;

    fn rules() -> Rules {
        Rules { namespace: "kestrel-ai".to_owned(), agent_account: "kestrel-node-agent".to_owned() }
    }

    fn review(account: &str, extra: Value) -> Value {
        let username = format!("system:serviceaccount:{account}");
        json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": username, "extra": extra}})
    }

    fn bound(node: bool) -> Value {
        let mut extra = json!({
            "authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["u"],
        });
        if node {
            extra["authentication.kubernetes.io/node-name"] = json!(["n1"]);
        }
        extra
    }

    fn identity(status: Value) -> Result<Identity, Refusal> {
        let node_of = |uid: &str| (uid == "u").then(|| "n2".to_owned());
        identify(&serde_json::from_value(status).unwrap(), &rules(), node_of)
    }

    fn agent(node: &str) -> Identity {
        Identity { peer: Peer::Agent { node: node.to_owned() }, node: node.to_owned() }
    }

    fn sidecar() -> Identity {
        let peer = Peer::Sidecar { namespace: "shop".to_owned(), pod: "p".to_owned(), uid: "u".to_owned() };
        Identity { peer, node: "n1".to_owned() }
    }

    #[test]
    fn a_token_of_the_agents_account_speaks_for_its_pods_node_and_any_other_for_its_pod() {
        assert_eq!(identity(review("kestrel-ai:kestrel-node-agent", bound(true))), Ok(agent("n1")));
        assert_eq!(
            identity(review("kestrel-ai:kestrel-node-agent", bound(false))),
            Ok(agent("n2")),
            "before 1.30"
        );
        assert_eq!(identity(review("shop:default", bound(true))), Ok(sidecar()));
        let impostor = identity(review("shop:kestrel-node-agent", bound(true))).unwrap();
        assert_eq!(impostor, sidecar(), "the account's name in another namespace is nothing special");
    }

    #[test]
    fn what_proves_nothing_is_refused_with_the_reason() {
        let unbound = json!({"authentication.kubernetes.io/node-name": ["n1"]});
        let mut other_audience = review("shop:default", bound(true));
        other_audience["audiences"] = json!(["https://kubernetes.default.svc"]);
        let mut person = review("shop:default", bound(true));
        person["user"]["username"] = json!("admin");
        let mut unknown_pod = bound(false);
        unknown_pod["authentication.kubernetes.io/pod-uid"] = json!(["another"]);
        for (status, code, words) in [
            (
                json!({"authenticated": false, "error": "expired"}),
                'U',
                "not accepted by the API server: expired",
            ),
            (json!({}), 'U', "no reason given"),
            (other_audience, 'U', "not made for the audience kestrel-agent-link"),
            (person, 'F', "\"admin\", which is no ServiceAccount"),
            (review("shop:default", unbound), 'F', "not bound to a pod"),
            (review("shop:default", json!(null)), 'F', "not bound to a pod"),
            (review("shop:default", unknown_pod), 'N', "shop/p, whose node is not known yet"),
        ] {
            let refusal = identity(status.clone()).unwrap_err();
            let found = match &refusal {
                Refusal::Unauthenticated(_) => 'U',
                Refusal::Forbidden(_) => 'F',
                Refusal::NotYet(_) => 'N',
            };
            assert_eq!(found, code, "{status}");
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    #[test]
    fn the_claim_must_be_what_the_token_proves() {
        let hello = |role: Role, node: &str, uid: &str| Hello {
            role: role.into(),
            node_name: node.to_owned(),
            pod_namespace: "shop".to_owned(),
            pod_name: "p".to_owned(),
            pod_uid: uid.to_owned(),
            ..Default::default()
        };
        let check = |identity: Identity, hello: &Hello| identity.peer.check(hello).err().unwrap_or_default();
        assert_eq!(check(agent("n1"), &hello(Role::NodeAgent, "n1", "")), "");
        assert_eq!(check(sidecar(), &hello(Role::Sidecar, "any", "u")), "");
        assert_eq!(
            check(agent("n1"), &hello(Role::NodeAgent, "n2", "")),
            "its token is that of the node agent of \"n1\", but it says that it is the node agent of \"n2\""
        );
        assert_eq!(
            check(sidecar(), &hello(Role::Sidecar, "n1", "other")),
            "its token is that of the sidecar of \"shop\"/\"p\", but it says that it is the sidecar of \"shop\"/\"p\", with another UID"
        );
        assert!(
            check(sidecar(), &hello(Role::NodeAgent, "n1", "u")).contains("it is the node agent of \"n1\"")
        );
        let forged = check(agent("n1"), &hello(Role::NodeAgent, "n2\nERROR all is lost", ""));
        assert!(!forged.contains('\n'), "{forged}");
        let long = check(agent("n1"), &hello(Role::NodeAgent, &"n".repeat(MAX_NAME + 1), ""));
        assert_eq!(long, "a name in its Hello has more than 253 bytes");
        assert!(check(agent("n1"), &hello(Role::Unspecified, "n1", "")).contains("does not say"));
    }

    #[test]
    fn an_agent_speaks_for_its_nodes_pods_and_a_sidecar_for_its_own() {
        let chunk = |name: &str, uid: &str| LogChunk {
            pod_namespace: "shop".to_owned(),
            pod_name: name.to_owned(),
            pod_uid: uid.to_owned(),
            ..Default::default()
        };
        let known = |node: &str| Known {
            info: PodInfo { namespace: "shop".to_owned(), name: "p".to_owned(), ..Default::default() },
            owners: [].into(),
            api_uid: "u".into(),
            node: node.into(),
        };
        let agent = agent("n1");
        assert!(agent.may_send(&chunk("p", "u"), Some(&known("n1"))));
        assert!(!agent.may_send(&chunk("p", "u"), Some(&known("n2"))), "a pod of another node");
        assert!(!agent.may_send(&chunk("q", "u"), Some(&known("n1"))), "another name");
        assert!(agent.may_send(&chunk("p", "gone"), None));
        assert!(!agent.may_send(&chunk("p", &"u".repeat(MAX_NAME + 1)), None), "no UID");
        let container_name = "c".repeat(MAX_CONTAINER_NAME + 1);
        let impossible = LogChunk { container_name, ..chunk("p", "u") };
        assert!(!sidecar().may_send(&impossible, None), "no container");
        assert!(sidecar().may_send(&chunk("p", "u"), None));
        assert!(!sidecar().may_send(&chunk("p", "v"), None), "another UID");
        assert!(!sidecar().may_send(&chunk("q", "u"), None), "another name");
    }
}
