//! The runtime Secret: what the server gave, kept where Helm does not look.
//! Only the lines that are changed are the operator's; others stay as they are.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::timeout;

use crate::uplink::problem::{Problem, RUNTIME_SECRET};

/// An API server that says nothing for this long is away.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Somebody else writes at the same time at most this often.
const CONFLICTS: usize = 5;

/// The cluster's token.
pub(super) const TOKEN: &str = "token";
/// The certificate that the server pushed last.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// Its key.
pub(super) const KEY: &str = "tls.key";
/// The authority that was pushed with it.
pub(super) const AUTHORITY: &str = "ca.crt";
/// The certificate before that, for when the server does not take the last one.
pub(super) const PREVIOUS_CERTIFICATE: &str = "previous.tls.crt";
/// Its key.
pub(super) const PREVIOUS_KEY: &str = "previous.tls.key";
/// The authority that was pushed with it.
pub(super) const PREVIOUS_AUTHORITY: &str = "previous.ca.crt";

/// What the Secret holds. Not printable.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Contents(BTreeMap<String, ByteString>);

impl Contents {
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|bytes| bytes.0.as_slice())
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8]) {
        self.0.insert(key.to_owned(), ByteString(value.to_vec()));
    }

    /// Moves what is at one key to another.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.remove(from) {
            self.0.insert(to.to_owned(), value);
        }
    }
}

/// The way to the Secret.
pub struct RuntimeSecret {
    api: Api<Secret>,
    owner: Option<OwnerReference>,
}

impl RuntimeSecret {
    /// The Secret in `namespace`, which belongs to `owner` from when it is made,
    /// or from when it is first read if somebody else made it (the operator of
    /// chart 0.1 gave it no owner, and an uninstall would leave it behind).
    pub fn new(client: Client, namespace: &str, owner: Option<OwnerReference>) -> Self {
        Self { api: Api::namespaced(client, namespace), owner }
    }

    /// What it holds; nothing if there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) async fn read(&self) -> Result<Contents, Problem> {
        let secret = within(self.api.get_opt(RUNTIME_SECRET)).await;
        let secret = secret.map_err(|failed| failed.problem("read"))?;
        if let Some(found) = &secret {
            self.adopt(found).await;
        }
        Ok(secret.map(contents).unwrap_or_default())
    }

    async fn adopt(&self, found: &Secret) {
        let Some(owner) = self.owner.clone().filter(|_| found.metadata.owner_references.is_none()) else {
            return;
        };
        let mut secret = found.clone();
        secret.metadata.owner_references = Some(vec![owner]);
        // What fails is tried again at the next read; nothing else depends on it.
        let _best_effort = within(self.api.replace(RUNTIME_SECRET, &PostParams::default(), &secret)).await;
    }

    /// Changes what it holds, and makes it if there is none. `change` is called
    /// again when another wrote in between; it returns whether it changed anything.
    ///
    /// # Errors
    /// It can't be read or written.
    pub(super) async fn change(
        &self,
        mut change: impl FnMut(&mut Contents) -> bool,
    ) -> Result<Contents, Problem> {
        let mut conflicts = 0;
        loop {
            let found = within(self.api.get_opt(RUNTIME_SECRET)).await;
            let found = found.map_err(|failed| failed.problem("read"))?;
            let mut new = found.clone().map(contents).unwrap_or_default();
            if !change(&mut new) {
                return Ok(new);
            }
            let written = self.write(found, new.clone()).await;
            match written {
                Ok(()) => return Ok(new),
                Err(Failed::Conflict) if conflicts < CONFLICTS => conflicts += 1,
                Err(failed) => return Err(failed.problem("written")),
            }
        }
    }

    async fn write(&self, found: Option<Secret>, new: Contents) -> Result<(), Failed> {
        let (data, parameters) = (Some(new.0), PostParams::default());
        match found {
            Some(mut secret) => {
                secret.data = data;
                within(self.api.replace(RUNTIME_SECRET, &parameters, &secret)).await?;
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(RUNTIME_SECRET.to_owned()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                let secret = Secret { metadata, data, ..Secret::default() };
                within(self.api.create(&parameters, &secret)).await?;
            }
        }
        Ok(())
    }
}

fn contents(secret: Secret) -> Contents {
    Contents(secret.data.unwrap_or_default())
}

/// Why a request failed.
enum Failed {
    /// Another was faster.
    Conflict,
    Other(String),
}

impl Failed {
    fn problem(self, doing: &'static str) -> Problem {
        let why = match self {
            Self::Conflict => "others write it all the time".to_owned(),
            Self::Other(why) => why,
        };
        Problem::RuntimeSecret { doing, why }
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failed::Conflict),
        Ok(Err(kube::Error::Api(status))) => {
            Err(Failed::Other(format!("{} (check the role of this ServiceAccount)", status.message)))
        }
        Ok(Err(other)) => Err(Failed::Other(format!(
            "the API server does not answer: {}",
            anyhow::Error::new(other).root_cause()
        ))),
        Err(_) => Err(Failed::Other("the API server does not answer".to_owned())),
    }
}
