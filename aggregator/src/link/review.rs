//! Has the API server review tokens, not too many at once and not one token
//! again and again.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::Semaphore, time::timeout};

use super::identity::{AUDIENCE, Identity, Refusal, Rules, identify};
use crate::inventory::Pods;

/// Reviews under way at once.
const AT_ONCE: usize = 16;
/// One review may take this long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a review proved is believed for this long.
const BELIEVED: Duration = Duration::from_secs(60);
/// Reviews that are remembered.
const MOST: usize = 8192;

/// Where tokens are reviewed.
pub(super) trait Review: Send + Sync + 'static {
    /// Reviews `token` for our audience.
    fn review(&self, token: &str) -> impl Future<Output = anyhow::Result<TokenReviewStatus>> + Send;
}

impl Review for Client {
    async fn review(&self, token: &str) -> anyhow::Result<TokenReviewStatus> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..Default::default() };
        let answer = Api::all(self.clone()).create(&PostParams::default(), &review).await?;
        answer.status.context("the API server's answer has no status")
    }
}

/// Learns identities from tokens.
pub(super) struct Identities<R> {
    reviewer: R,
    rules: Rules,
    pods: Pods,
    turns: Semaphore,
    believed: Mutex<HashMap<u64, (Instant, Identity)>>,
    /// Keyed at random, so that nobody can make a token that has another's hash.
    hasher: RandomState,
}

impl<R: Review> Identities<R> {
    /// Learns them from `reviewer`, by `rules`.
    pub(super) fn new(reviewer: R, rules: Rules, pods: Pods) -> Arc<Self> {
        let (turns, hasher) = (Semaphore::new(AT_ONCE), RandomState::new());
        Arc::new(Self { reviewer, rules, pods, turns, believed: Mutex::default(), hasher })
    }

    /// The identity that `token` proves.
    ///
    /// # Errors
    /// It proves none, or none now.
    pub(super) async fn of(&self, token: &str) -> Result<Identity, Refusal> {
        let hash = self.hasher.hash_one(token);
        if let Some((until, identity)) = self.believed().get(&hash)
            && Instant::now() < *until
        {
            return Ok(identity.clone());
        }
        let unanswered = |why: String| Refusal::NotYet(format!("can't be reviewed now: {why}"));
        let _turn = self.turns.acquire().await.map_err(|closed| unanswered(closed.to_string()))?;
        let status = match timeout(TIMEOUT, self.reviewer.review(token)).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(unanswered(error.root_cause().to_string())),
            Err(_) => return Err(unanswered("no answer from the API server in 10 s".to_owned())),
        };
        let node_of = |uid: &str| self.pods.node_of(uid).map(|node| node.to_string());
        let identity = identify(&status, &self.rules, node_of)?;
        self.believe(hash, identity.clone());
        Ok(identity)
    }

    fn believe(&self, hash: u64, identity: Identity) {
        let (mut believed, now) = (self.believed(), Instant::now());
        if believed.len() >= MOST {
            believed.retain(|_, (until, _)| now < *until);
        }
        if believed.len() < MOST {
            believed.insert(hash, (now + BELIEVED, identity));
        }
    }

    fn believed(&self) -> MutexGuard<'_, HashMap<u64, (Instant, Identity)>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
