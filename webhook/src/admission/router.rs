//! `POST /mutate`. What is wrong with the request is 4xx, what is wrong with
//! us is 5xx; in both cases the configuration's failurePolicy decides about
//! the pod.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
    routing::post,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::{
    body::Bodies,
    metrics::{Metrics, Outcome},
    review::{AdmitError, admit},
};
use crate::cluster::Shared;

struct Service {
    cluster: Arc<Shared>,
    bodies: Bodies,
    metrics: Metrics,
    drain: CancellationToken,
}

/// The webhook's routes. During the drain clients of HTTP/1.1 are told to come
/// back on another connection, which leads to another replica.
pub fn router(cluster: Arc<Shared>, metrics: Metrics, drain: CancellationToken) -> Router {
    let service = Service { cluster, bodies: Bodies::default(), metrics, drain };
    Router::new().route("/mutate", post(mutate)).with_state(Arc::new(service))
}

async fn mutate(State(service): State<Arc<Service>>, request: Request) -> Response {
    let started = Instant::now();
    let version = request.version();
    let (outcome, mut response) = service.answer(request.into_body()).await;
    if version <= Version::HTTP_11 && service.drain.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    service.metrics.answered(outcome, started.elapsed());
    response
}

impl Service {
    async fn answer(&self, body: Body) -> (Outcome, Response) {
        let (body, _share) = match self.bodies.read(body).await {
            Ok(read) => read,
            Err(error) => {
                debug!("a request was refused: {error}");
                let response = (error.status(), format!("{error}\n")).into_response();
                return (Outcome::Refused(error.label()), response);
            }
        };
        match admit(&body, &self.cluster.read()) {
            Ok(admission) => {
                let outcome = admission.skipped.map_or(Outcome::Injected, Outcome::Skipped);
                let json = [(CONTENT_TYPE, "application/json")];
                (outcome, (json, admission.body).into_response())
            }
            Err(error @ AdmitError::Answer(_)) => {
                error!("a pod was not looked at: {error}");
                (Outcome::Failed, (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response())
            }
            Err(error) => {
                debug!("a request was refused: {error}");
                let response = (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
                (Outcome::Refused("not-a-review"), response)
            }
        }
    }
}
