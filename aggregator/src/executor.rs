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
use tokio::sync::Semaphore;
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
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Executor {
    /// An executor that reads with `client` and answers into `lanes`.
    pub fn new(client: Client, lanes: Lanes, drain: CancellationToken) -> Arc<Self> {
        let (places, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        Arc::new(Self { client, lanes, places, tasks, drain })
    }

    /// The end where requests go in.
    pub fn requests(self: &Arc<Self>) -> Requests {
        let executor = Arc::clone(self);
        Arc::new(move |over, request| executor.take(over, request))
    }

    /// Waits for the drain and for the tasks that it ends.
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
        self.tasks.spawn(async move {
            let work = async {
                // Never closed, so this only waits.
                let _place = places.acquire().await;
                read::answer(&client, request).await
            };
            if let Some(answer) = drain.run_until_cancelled(work).await {
                answers.send(Answer::Tool(Tool::KubernetesApiResponse(answer)));
            }
        });
    }
}
