//! A socket that comes and goes.

#[path = "../../../flows/tests/support/hubble.rs"]
mod played;

use std::time::SystemTime;

use kestrel_proto::hubble::observer::{GetFlowsRequest, GetFlowsResponse};
use prometheus_client::registry::Registry;
use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;

use super::*;
use played::Answers;

const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    directory: tempfile::TempDir,
    counts: Counts,
    sources: Sources,
    follower: JoinHandle<()>,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (counts, sources) = (Counts::default(), Sources::default());
        counts.register(&mut Registry::default());
        let socket = directory.path().join("hubble.sock");
        let window = Arc::new(Mutex::new(Window::new(100)));
        let follower = tokio::spawn(follow(socket, window, counts.clone(), sources.clone()));
        Self { directory, counts, sources, follower }
    }

    /// A server at the socket, and its requests.
    fn serve(&self) -> (JoinHandle<()>, mpsc::Receiver<(GetFlowsRequest, Answers)>) {
        let socket = self.directory.path().join("hubble.sock");
        let _none_before = std::fs::remove_file(&socket);
        let connections = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        played::serve(connections)
    }

    /// Waits until this is counted.
    async fn counts(&self, told: &str) {
        let counted = async {
            while !self.counts.told().iter().any(|line| line == told) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, counted).await.unwrap_or_else(|_| panic!("no {told}"));
    }
}

fn flow() -> GetFlowsResponse {
    played::flow(SystemTime::now().into())
}

async fn next(requests: &mut mpsc::Receiver<(GetFlowsRequest, Answers)>) -> (GetFlowsRequest, Answers) {
    timeout(DEADLINE, requests.recv()).await.expect("nobody asked").unwrap()
}

#[tokio::test]
async fn a_socket_that_comes_is_read_and_after_a_restart_read_on() {
    let world = World::start();
    let (server, mut requests) = world.serve();
    let (first, answers) = next(&mut requests).await;
    answers.send(Ok(flow())).unwrap();
    world.counts("1 of hubble").await;
    assert_eq!(world.sources.names().len(), 1);
    // The whole server goes, and another one takes its place.
    server.abort();
    drop((answers, requests));
    let (_server, mut requests) = world.serve();
    let (second, answers) = next(&mut requests).await;
    let nanoseconds = |request: &GetFlowsRequest| request.since.map(|since| (since.seconds, since.nanos));
    assert!(nanoseconds(&second) > nanoseconds(&first), "after the last that was seen");
    answers.send(Ok(flow())).unwrap();
    world.counts("2 of hubble").await;
    world.follower.abort();
}

#[tokio::test]
async fn one_that_knows_fewer_fields_is_asked_again_at_once() {
    let world = World::start();
    let (_server, mut requests) = world.serve();
    let mut known = Vec::new();
    let answers = loop {
        let (request, answers) = next(&mut requests).await;
        known.push(request.field_mask.map_or(0, |mask| mask.paths.len()));
        if known.len() == 4 {
            break answers;
        }
        // As Cilium says it.
        answers.send(Err(Status::unknown("invalid fieldmask"))).unwrap();
    };
    assert_eq!(known, [16, 14, 12, 0]);
    answers.send(Ok(flow())).unwrap();
    world.counts("1 of hubble").await;
    world.follower.abort();
}

#[tokio::test]
async fn a_source_is_one_when_it_has_answered() {
    let world = World::start();
    let silent = UnixListener::bind(world.directory.path().join("hubble.sock")).unwrap();
    for _ in 0..2 {
        let (asked, _) = timeout(DEADLINE, silent.accept()).await.expect("nobody asked").unwrap();
        drop(asked);
        assert!(world.sources.names().is_empty(), "a socket alone is none");
    }
    drop(silent);
    let (_server, mut requests) = world.serve();
    let (_request, answers) = next(&mut requests).await;
    answers.send(Ok(flow())).unwrap();
    world.counts("1 of hubble").await;
    assert_eq!(world.sources.names().len(), 1);
    world.follower.abort();
}
