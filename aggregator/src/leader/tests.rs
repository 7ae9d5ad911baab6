use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::json;

use super::*;

/// An API server that knows one Lease and its versions.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    lease: Option<Lease>,
    version: u64,
    down: bool,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().answer(request)), "default")
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
        if self.0.lock().unwrap().down {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut stored = self.0.lock().unwrap();
        let current = stored.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let (status, answer) = match (parts.method, current) {
            (Method::GET, None) => {
                (404, json!({"code": 404, "reason": "NotFound", "message": "", "status": "Failure"}))
            }
            (Method::GET, Some(_)) => (200, json!(stored.lease)),
            (method, current) => {
                let mut lease: Lease = serde_json::from_slice(&body).unwrap();
                if (method == Method::POST) != current.is_none() || lease.metadata.resource_version != current
                {
                    (409, json!({"code": 409, "reason": "Conflict", "message": "", "status": "Failure"}))
                } else {
                    stored.version += 1;
                    lease.metadata.resource_version = Some(stored.version.to_string());
                    stored.lease = Some(lease);
                    (200, json!(stored.lease))
                }
            }
        };
        let body = Full::new(bytes::Bytes::from(answer.to_string()));
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    fn holder(&self) -> Option<String> {
        self.0.lock().unwrap().lease.clone()?.spec?.holder_identity
    }

    fn transitions(&self) -> Option<i32> {
        self.0.lock().unwrap().lease.clone()?.spec?.lease_transitions
    }

    fn election(&self, identity: &str) -> Arc<Election> {
        self.election_of(identity, Arc::default())
    }

    fn election_of(&self, identity: &str, signals: Arc<Signals>) -> Arc<Election> {
        let config = Config { identity: identity.to_owned(), duration: DURATION, overlap: OVERLAP };
        Arc::new(Election::new(self.client(), "ns", config, signals, None))
    }
}

const DURATION: Duration = Duration::from_secs(15);
const OVERLAP: Duration = Duration::from_secs(40);

/// How far a replica has told, and what it has heard of another.
#[derive(Default)]
struct Signals {
    told: Mutex<Timestamp>,
    heard: Mutex<Option<(Timestamp, Timestamp)>>,
    /// What it leaves, or what was left to it.
    left: Mutex<String>,
}

impl Told for Signals {
    fn told_until(&self) -> Timestamp {
        *self.told.lock().unwrap()
    }

    fn forget_told(&self, since: Timestamp, before: Timestamp) {
        *self.heard.lock().unwrap() = Some((since, before));
    }

    fn open(&self, until: Timestamp) -> String {
        format!("a {}", until.as_second())
    }

    fn left(&self) -> String {
        self.left.lock().unwrap().clone()
    }

    fn take_over(&self, left: String) {
        *self.left.lock().unwrap() = left;
    }
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_at_once_when_the_lease_is_handed_back() {
    let server = Server::default();
    let (first, second) = (server.election("a"), server.election("b"));
    let drain = CancellationToken::new();
    let leadership = first.win(&drain).await.unwrap();
    let (forever, quiet) = (CancellationToken::new(), CancellationToken::new());
    let standby = async {
        second.win(&forever).await.unwrap();
        Instant::now()
    };
    let story = async {
        sleep(DURATION * 3).await;
        drain.cancel();
        sleep(DURATION * 3).await;
        assert_eq!(server.holder().as_deref(), Some("a"), "the drain takes its time");
        quiet.cancel();
        Instant::now()
    };
    let (held, handed_back, taken) = tokio::join!(leadership.hold(&quiet), story, standby);
    held.unwrap();
    assert!(taken - handed_back <= DURATION / 15);
    assert_eq!((server.holder().as_deref(), server.transitions()), (Some("b"), Some(2)));
    assert!(first.standing().now().leads() && second.standing().now().leads());
}

#[tokio::test(start_paused = true)]
async fn a_start_knows_what_an_earlier_leader_has_told() {
    let server = Server::default();
    assert_eq!(server.election("a").told_before().await, None, "there was none");
    assert_eq!(server.election("a").left_open().await, "");
    let told = Arc::new(Signals::default());
    *told.told.lock().unwrap() = Timestamp::from_second(1000).unwrap();
    let first = server.election_of("a", told);
    let leadership = first.win(&CancellationToken::new()).await.unwrap();
    leadership.hold(&cancelled()).await.unwrap();
    let overlap = OVERLAP.as_secs() as i64;
    assert_eq!(server.election("b").told_before().await, Timestamp::from_second(1000 - overlap).ok());
    assert_eq!(server.election("b").left_open().await, "a 1000", "noted with what has been told");
    server.0.lock().unwrap().down = true;
    assert_eq!(server.election("b").told_before().await, None, "nobody waits for longer");
    assert_eq!(server.election("b").left_open().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_replaced_after_the_duration_and_knows_it_before() {
    let server = Server::default();
    let (first, second) = (server.election("a"), server.election("b"));
    let drain = CancellationToken::new();
    let mut leadership = first.win(&drain).await.unwrap();
    // Requests of the leader hang from now on; the standby reaches the server.
    let cut_off = Server::default();
    cut_off.0.lock().unwrap().down = true;
    let lonely = cut_off.election("a");
    leadership.election = lonely;
    let begun = Instant::now();
    sleep(DURATION / 2).await;
    let lost = leadership.hold(&CancellationToken::new()).await.unwrap_err();
    assert!(lost.to_string().contains("could not be renewed in time"), "{lost}");
    assert!(begun.elapsed() <= DURATION * 2 / 3);
    second.win(&drain).await.unwrap();
    assert_eq!(server.holder().as_deref(), Some("b"));
    assert!(begun.elapsed() >= DURATION);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_ends_and_a_foreign_write_does_not_matter() {
    let server = Server::default();
    let election = server.election("a");
    let drain = CancellationToken::new();
    let leadership = election.win(&drain).await.unwrap();
    let bump = |holder: &str| {
        let mut stored = server.0.lock().unwrap();
        stored.version += 1;
        let version = stored.version.to_string();
        let lease = stored.lease.as_mut().unwrap();
        lease.metadata.resource_version = Some(version);
        lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
    };
    bump("a");
    let held = tokio::spawn({
        let server = server.clone();
        async move {
            sleep(DURATION * 2).await;
            assert_eq!(server.holder().as_deref(), Some("a"));
        }
    });
    let mut hold = std::pin::pin!(leadership.hold(&drain));
    tokio::select! {
        ended = &mut hold => panic!("{ended:?}"),
        held = held => held.unwrap(),
    }
    bump("b");
    let lost = hold.await.unwrap_err();
    assert!(lost.to_string().contains("another replica has taken"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_holder_leads_again_at_once_and_the_drain_ends_a_candidacy() {
    let server = Server::default();
    let drain = CancellationToken::new();
    server.election("a").win(&drain).await.unwrap();
    let begun = Instant::now();
    server.election("a").win(&drain).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(server.election("b").win(&cancelled()).await.is_none());
}
#[tokio::test(start_paused = true)]
async fn a_standby_hears_how_far_and_since_when_the_leader_has_told() {
    let server = Server::default();
    let (leading, standing_by) = (Arc::<Signals>::default(), Arc::<Signals>::default());
    let (first, second) =
        (server.election_of("a", Arc::clone(&leading)), server.election_of("b", Arc::clone(&standing_by)));
    let (drain, quiet) = (CancellationToken::new(), CancellationToken::new());
    let leadership = first.win(&drain).await.unwrap();
    let since = first.since - OVERLAP;
    let heard = || *standing_by.heard.lock().unwrap();
    let told: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
    let story = async {
        sleep(DURATION).await;
        assert_eq!(heard(), Some((since, Timestamp::UNIX_EPOCH - OVERLAP)));
        *leading.told.lock().unwrap() = told;
        sleep(DURATION).await;
        assert_eq!(heard(), Some((since, told - OVERLAP)));
        *leading.told.lock().unwrap() = told + DURATION;
        assert_eq!(standing_by.left(), "");
        leading.take_over("7 3 0 3,".to_owned());
        quiet.cancel();
    };
    let (held, won, ()) = tokio::join!(leadership.hold(&quiet), second.win(&drain), story);
    held.unwrap();
    assert!(won.is_some());
    assert_eq!(heard(), Some((since, told + DURATION - OVERLAP)), "noted with the hand-over");
    assert_eq!(standing_by.left(), "7 3 0 3,", "likewise");
    let mut lease = server.0.lock().unwrap().lease.clone().unwrap();
    lease.metadata.annotations.get_or_insert_default().remove(TOLD_SINCE);
    second.hear(&lease);
    assert_eq!(heard(), Some((Timestamp::MIN, told + DURATION - OVERLAP)), "of an earlier version");
}
