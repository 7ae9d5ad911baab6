//! Request bodies within a budget of memory.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _, to_bytes},
    http::StatusCode,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// The API server takes objects of at most 3 MiB; the review is a little around it.
const LARGEST: usize = 4 * 1024 * 1024;
/// What all bodies under way may take together.
const BUDGET_KIB: usize = 16 * 1024;
/// As long as API servers wait for the answer where nobody configures more: a body that takes longer takes room from others.
const ARRIVES_WITHIN: Duration = Duration::from_secs(3);

/// Memory for bodies under way.
pub(super) struct Bodies(Semaphore);

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request has no Content-Length")]
    NoLength,
    #[error("the body is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("the body did not arrive in time")]
    Late,
    #[error("the body ended early")]
    Broken,
}

impl BodyError {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::NoLength => "no-length",
            Self::TooLarge => "too-large",
            Self::Late => "late",
            Self::Broken => "broken",
        }
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(BUDGET_KIB))
    }
}

impl Bodies {
    /// The whole body, and its share of the budget until that is dropped.
    pub(super) async fn read(&self, body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), BodyError> {
        // With a Content-Length the upper bound is the length.
        let length = body.size_hint().upper().ok_or(BodyError::NoLength)?;
        let length = usize::try_from(length).ok().filter(|&length| length <= LARGEST);
        let kib = length.ok_or(BodyError::TooLarge)?.div_ceil(1024);
        let arrival = async {
            // Never closed, and LARGEST fits into the budget.
            let share = self.0.acquire_many(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok();
            Ok((to_bytes(body, LARGEST).await.map_err(|_| BodyError::Broken)?, share))
        };
        timeout(ARRIVES_WITHIN, arrival).await.map_err(|_| BodyError::Late)?
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_size_time_and_together() {
        let bodies = Bodies::default();
        assert_eq!(bodies.read(Body::from("ok")).await.unwrap().0, "ok");
        let too_large = bodies.read(Body::from(vec![0; LARGEST + 1])).await;
        assert_eq!(too_large.unwrap_err(), BodyError::TooLarge);
        let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(bodies.read(endless).await.unwrap_err(), BodyError::NoLength);

        let mut held = Vec::new();
        for _ in 0..BUDGET_KIB / (LARGEST / 1024) {
            held.push(bodies.read(Body::from(vec![0; LARGEST])).await.unwrap());
        }
        assert_eq!(bodies.read(Body::from("one more")).await.unwrap_err(), BodyError::Late);
        held.pop();
        assert!(bodies.read(Body::from("one more")).await.is_ok());
    }
}
