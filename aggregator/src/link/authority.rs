//! The link's own certificate authority, in a Secret, and its succession.
//!
//! In the last year of its life the next one lies beside it and is published
//! too, so that whoever attaches once in that year knows both. It signs when
//! the first one is about to end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kestrel_runtime::tls::{authority::Authority, mounted::Offered};
use kube::{Api, Client, api::PostParams};
use tracing::info;

use super::publish::{LINK, metadata};

/// The server's certificate lives in this process alone, and this long.
pub(super) const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The next authority is known this long before it is used.
const OVERLAP: Duration = Duration::from_secs(365 * 24 * 3600);
/// Making the Secret and putting the successor in and into place; more means
/// that somebody undoes it.
const MOST_STEPS: usize = 8;

/// Keys of the Secret: of the authority that signs, and of its successor.
const CURRENT: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");

/// What the Secret holds.
struct Authorities {
    current: Authority,
    next: Option<Authority>,
    ends: Timestamp,
}

/// What is to be done with them.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// A successor is made.
    Prepare,
    /// The successor takes the place.
    Promote,
}

/// A certificate must not outlive the authority that signed it.
fn step(ends: Timestamp, has_next: bool, now: Timestamp) -> Step {
    if now + OVERLAP < ends {
        Step::Nothing
    } else if !has_next {
        Step::Prepare
    } else if now + LEAF_LIFETIME < ends {
        Step::Nothing
    } else {
        Step::Promote
    }
}

/// A new certificate of the authority that the Secret keeps, which is made if
/// there is none and replaced in time.
///
/// # Errors
/// The Secret can't be read, is damaged, or can't be written.
pub(super) async fn sign(client: &Client, namespace: &str, names: &[String]) -> anyhow::Result<Offered> {
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    for _ in 0..MOST_STEPS {
        let found = secrets.get_opt(LINK).await;
        let found = found.with_context(|| format!("the Secret {namespace}/{LINK} can't be read"))?;
        let Some(mut secret) = found else {
            let mut secret = Secret { metadata: metadata(LINK, namespace), ..Default::default() };
            store(&mut secret, CURRENT, &Authority::generate(LINK)?);
            let created = unless_overtaken(secrets.create(&PostParams::default(), &secret).await);
            if created.with_context(|| format!("the Secret {namespace}/{LINK} can't be made"))? {
                info!("made the agent link's certificate authority, kept in the Secret {namespace}/{LINK}");
            }
            continue;
        };
        let authorities = stored(&secret).with_context(|| {
            format!(
                "the Secret {namespace}/{LINK} is damaged; delete it, and restart the pods with a collector"
            )
        })?;
        let Authorities { current, next, ends } = authorities;
        let sentence = match (step(ends, next.is_some(), Timestamp::now()), next) {
            (Step::Prepare, _) => {
                store(&mut secret, NEXT, &Authority::generate(LINK)?);
                format!(
                    "the agent link's certificate authority ends at {ends:.0}; its successor is made known"
                )
            }
            (Step::Promote, Some(next)) => {
                store(&mut secret, CURRENT, &next);
                secret.data.get_or_insert_default().retain(|key, _| key != NEXT.0 && key != NEXT.1);
                "the agent link's next certificate authority is in use from now on".to_owned()
            }
            (Step::Nothing | Step::Promote, next) => {
                let all = [Some(&current), next.as_ref()].into_iter().flatten();
                let authorities = all.map(|authority| authority.certificate_pem().trim().to_owned());
                return Ok(Offered {
                    authorities: authorities.collect(),
                    certificate: current.server_certificate(names, LEAF_LIFETIME)?,
                });
            }
        };
        let replaced = unless_overtaken(secrets.replace(LINK, &PostParams::default(), &secret).await);
        if replaced.with_context(|| format!("the Secret {namespace}/{LINK} can't be written"))? {
            info!("{sentence}");
        }
    }
    bail!("the Secret {namespace}/{LINK} changes all the time: does someone else manage it?")
}

fn store(secret: &mut Secret, (certificate, key): (&str, &str), authority: &Authority) {
    let data = secret.data.get_or_insert_default();
    for (name, pem) in [(certificate, authority.certificate_pem()), (key, authority.key_pem())] {
        data.insert(name.to_owned(), ByteString(pem.as_bytes().to_vec()));
    }
}

fn stored(secret: &Secret) -> anyhow::Result<Authorities> {
    let nothing = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&nothing);
    let text = |key: &str| {
        let value = data.get(key).with_context(|| format!("no key {key}"))?;
        std::str::from_utf8(&value.0).with_context(|| format!("the key {key} is no text"))
    };
    let read = |(certificate, key): (&str, &str)| -> anyhow::Result<Authority> {
        Ok(Authority::from_pem(text(certificate)?, text(key)?)?)
    };
    let current = read(CURRENT)?;
    let next = if data.contains_key(NEXT.0) { Some(read(NEXT)?) } else { None };
    let ends = current.ends().try_into()?;
    Ok(Authorities { current, next, ends })
}

/// False if another leader was faster: what it did is read next.
fn unless_overtaken<K>(result: kube::Result<K>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use http::{Method, Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use kestrel_runtime::tls;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn the_successor_is_known_for_a_year_and_takes_over_before_the_end() {
        let ends = Timestamp::UNIX_EPOCH + DAY * 3650;
        for (days_left, has_next, expected) in [
            (3650, false, Step::Nothing),
            (366, false, Step::Nothing),
            (365, false, Step::Prepare),
            (365, true, Step::Nothing),
            (2, true, Step::Nothing),
            (1, true, Step::Promote),
            // Nobody led for a long time.
            (0, false, Step::Prepare),
            (0, true, Step::Promote),
        ] {
            assert_eq!(step(ends, has_next, ends - DAY * days_left), expected, "{days_left} {has_next}");
        }
    }

    #[test]
    fn what_a_secret_keeps_is_checked() {
        tls::install_provider();
        let authority = Authority::generate(LINK).unwrap();
        let mut secret = Secret::default();
        store(&mut secret, CURRENT, &authority);
        let whole = stored(&secret).unwrap();
        assert!(whole.next.is_none() && whole.ends > Timestamp::now() + DAY * 3600);
        store(&mut secret, NEXT, &Authority::generate(LINK).unwrap());
        assert!(stored(&secret).unwrap().next.is_some());
        secret.data.as_mut().unwrap().insert(CURRENT.0.to_owned(), ByteString(Vec::new()));
        let damaged = stored(&secret).err().unwrap();
        assert!(damaged.to_string().contains("no usable certificate"), "{damaged}");
        assert_eq!(stored(&Secret::default()).err().unwrap().to_string(), "no key ca.crt");
    }

    type Place = Arc<Mutex<Option<Secret>>>;

    /// An API server with one Secret, or none.
    fn api_server(place: &Place) -> Client {
        let place = Arc::clone(place);
        Client::new(tower::service_fn(move |request| answer(Arc::clone(&place), request)), "ns")
    }

    async fn answer(place: Place, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut kept = place.lock().unwrap();
        if parts.method != Method::GET {
            *kept = Some(serde_json::from_slice(&body).unwrap());
        }
        let (status, answer) = match &*kept {
            Some(secret) => (200, json!(secret)),
            None => (404, json!({"code": 404, "reason": "NotFound", "message": "no", "status": "Failure"})),
        };
        Ok(Response::builder().status(status).body(Full::from(answer.to_string())).unwrap())
    }

    #[tokio::test]
    async fn an_authority_is_made_once_and_signs_for_all_leaders() {
        tls::install_provider();
        let place = Arc::new(Mutex::new(None));
        let client = api_server(&place);
        let names = ["link.ns.svc".to_owned()];
        let one = sign(&client, "ns", &names).await.unwrap();
        let other = sign(&client, "ns", &names).await.unwrap();
        assert_eq!(one.authorities, other.authorities);
        assert_ne!(one.certificate.cert, other.certificate.cert);

        // A successor that is there is made known beside it, and signs nothing yet.
        let next = Authority::generate(LINK).unwrap();
        store(place.lock().unwrap().as_mut().unwrap(), NEXT, &next);
        let both = sign(&client, "ns", &names).await.unwrap();
        assert_eq!(both.authorities, [&one.authorities[0], next.certificate_pem().trim()]);
    }
}
