//! Who this process is in the cluster. A bound token says so itself, so that
//! no right is needed to learn it.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Where the kubelet mounts the token of a pod's ServiceAccount.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The ServiceAccount that owns what the process makes at run time.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct ServiceAccount {
    /// Its name, in the process's own namespace.
    pub name: String,
    /// Its UID, which an ownerReference needs.
    pub uid: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Binding,
}

#[derive(Deserialize)]
struct Binding {
    serviceaccount: ServiceAccount,
}

impl ServiceAccount {
    /// That of this process; `None` outside a cluster.
    pub fn own() -> Option<Self> {
        Self::from_token(&fs::read_to_string(TOKEN_FILE).ok()?)
    }

    /// The claim `kubernetes.io.serviceaccount` of a token, unverified: it is
    /// the process's own.
    fn from_token(token: &str) -> Option<Self> {
        let claims = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        Some(claims.kubernetes.serviceaccount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_token_names_its_service_account() {
        let claims = r#"{"iss":"x","kubernetes.io":{"namespace":"n","node":{"name":"node1"},
            "serviceaccount":{"name":"kestrel-webhook","uid":"0a1b"}}}"#;
        let token = format!("e30.{}.c2ln\n", URL_SAFE_NO_PAD.encode(claims));
        let expected = ServiceAccount { name: "kestrel-webhook".to_owned(), uid: "0a1b".to_owned() };
        assert_eq!(ServiceAccount::from_token(&token), Some(expected));
        for other in ["", "opaque", "a.b.c", "e30.e30.e30"] {
            assert_eq!(ServiceAccount::from_token(other), None, "{other}");
        }
    }
}
