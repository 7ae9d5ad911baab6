//! Does what the cloud asks for, and answers.
//!
//! This version reads the Kubernetes API and nothing else; whatever else is
//! asked for is refused in an answer of its own kind.

mod json;
mod path;
mod read;
mod refusal;

use std::sync::Arc;

use kestrel_proto::cloud::v1::stream_control_request::Request as Tool;
use kube::Client;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::uplink::{
    Answer, Request, Requests,
    lanes::{Lanes, Over},
};
use refusal::refuse;

/// Batches that run at the same time; each may hold some 20 MiB.
const AT_ONCE: usize = 8;
/// Batches that run or wait; beyond it the cloud is told to come back later.
const IN_ALL: usize = 256;

/// Runs requests beside each other.
pub struct Executor {
    client: Client,
    lanes: Lanes,
    places: Arc<Semaphore>,
    /// Whose turn it is to wait for room in a lane.
    turn: Arc<Mutex<()>>,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Executor {
    /// An executor that reads with `client` and answers into `lanes`.
    pub fn new(client: Client, lanes: Lanes, drain: CancellationToken) -> Arc<Self> {
        let (places, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        Arc::new(Self { client, lanes, places, turn: Arc::default(), tasks, drain })
    }

    /// The end where requests go in.
    pub fn requests(self: &Arc<Self>) -> Requests {
        let executor = Arc::clone(self);
        Arc::new(move |over, request| executor.take(over, request))
    }

    /// Waits for the drain and until everything that was asked for is answered.
    pub async fn finish(&self) {
        self.drain.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn take(&self, over: Over, request: Request) {
        let answers = self.lanes.answers(over);
        let request = match request {
            Request::KubernetesApi(request) if self.tasks.len() < IN_ALL => request,
            Request::KubernetesApi(_) => {
                let why = format!("{IN_ALL} requests wait already: ask again later");
                return answers.send(refuse(request, 429, &why));
            }
            other => {
                return answers.send(refuse(other, 501, "not supported by this version of the operator"));
            }
        };
        let (client, places, drain) = (self.client.clone(), Arc::clone(&self.places), self.drain.clone());
        let turn = Arc::clone(&self.turn);
        let deadline = Instant::now() + read::limit(&request);
        self.tasks.spawn(async move {
            let again = request.clone();
            let work = async {
                let Ok(place) = timeout_at(deadline, places.acquire()).await else {
                    let why = format!("{AT_ONCE} other requests took all of its time: ask again later");
                    return (refuse(Request::KubernetesApi(request), 504, &why), None, None);
                };
                let answer = read::answer(&client, request, deadline).await;
                // Answers of the largest size would push each other out unsent.
                let turn = turn.lock().await;
                answers.room().await;
                (Answer::Tool(Tool::KubernetesApiResponse(answer)), Some(place), Some(turn))
            };
            let (answer, _place, _turn) = drain.run_until_cancelled(work).await.unwrap_or_else(|| {
                let why = "the operator is being stopped: ask again";
                (refuse(Request::KubernetesApi(again), 503, why), None, None)
            });
            answers.send(answer);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, time::Duration};

    use bytes::Bytes;
    use http_body_util::Full;
    use kestrel_proto::cloud::v1::{KubernetesApiRequest, KubernetesApiResponse};
    use kube::client::Body;
    use prost::Message as _;

    use super::*;
    use crate::uplink::{lanes::Lane, metrics::Metrics};

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_place_in_vain_and_who_runs_at_the_drain_is_answered() {
        let silent =
            async |_: http::Request<Body>| pending::<Result<http::Response<Full<Bytes>>, Infallible>>().await;
        let client = Client::new(tower::service_fn(silent), "default");
        let (lanes, drain) = (Lanes::new(Metrics::default()), CancellationToken::new());
        let executor = Executor::new(client, lanes.clone(), drain.clone());
        let ask = |timeout_seconds| {
            let request = KubernetesApiRequest {
                api_paths: vec!["version".to_owned()],
                timeout_seconds,
                ..Default::default()
            };
            executor.take(Over::Control, Request::KubernetesApi(request));
        };
        let answers = || {
            let bodies = std::iter::from_fn(|| lanes.take(Lane::ControlAnswers))
                .map(|(_, message)| message.on_own_stream().1);
            bodies
                .map(|body| KubernetesApiResponse::decode(body).unwrap().results[0].status_code)
                .collect::<Vec<_>>()
        };
        for _ in 0..AT_ONCE {
            ask(300);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        ask(5);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(answers(), [504]);
        drain.cancel();
        executor.finish().await;
        assert_eq!(answers(), [503; AT_ONCE]);
    }

    #[tokio::test]
    async fn a_large_answer_waits_until_the_one_before_is_sent() {
        use futures::FutureExt as _;
        let lanes = Lanes::new(Metrics::default());
        let lane = lanes.answers(Over::Control);
        lane.room().await;
        let global_error_message = "x".repeat(8 << 20);
        let answer = KubernetesApiResponse { global_error_message, ..Default::default() };
        lane.send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
        let mut room = std::pin::pin!(lane.room());
        assert!((&mut room).now_or_never().is_none());
        lanes.take(Lane::ControlAnswers).unwrap();
        room.await;
    }
}
