//! What is asked of nodes.

use kestrel_proto::node::v1::{HostAnswer, SettingRead, host_read::What};
use tokio::time::Instant;
use tonic::Code;

use super::{super::nodes::Silent, *};

fn what() -> What {
    What::Settings(SettingRead { names: vec!["vm.swappiness".to_owned()] })
}

/// An attached stream of a peer that says that it answers.
async fn answering(server: &Server, token: &str) -> Stream {
    let mut stream = server.open(Some(token)).await.unwrap();
    stream.send(Up::Hello(Hello { features: vec!["host-reads".to_owned()], ..hello(token) })).await;
    assert!(matches!(stream.next().await.unwrap(), Down::Welcome(_)));
    assert!(matches!(stream.next().await.unwrap(), Down::PodUpdate(_)));
    stream
}

#[tokio::test]
async fn an_agent_that_answers_is_asked_and_others_are_not() {
    let server = server(10).await;
    let nodes = server.shared.nodes.clone();
    let _older = server.attached("kestrel-ai:kestrel-node-agent agent-n2 agent-uid-2 n2").await;
    assert_eq!(
        nodes.ask("n2", what(), DEADLINE, Instant::now() + 2 * DEADLINE).await,
        Err(Silent::NoAgent("n2".to_owned()))
    );
    let mut agent = answering(&server, AGENT).await;
    let answering = async {
        let Down::HostRead(read) = agent.next().await.unwrap() else { panic!("it is not asked") };
        assert_eq!((read.what, read.milliseconds), (Some(what()), 20_000));
        agent
            .send(Up::HostAnswer(HostAnswer { id: read.id, text: "60".to_owned(), ..Default::default() }))
            .await;
        agent
    };
    let (answer, agent) =
        tokio::join!(nodes.ask("n1", what(), DEADLINE, Instant::now() + 2 * DEADLINE), answering);
    assert_eq!(answer.unwrap().text, "60");
    let (left, ()) =
        tokio::join!(nodes.ask("n1", what(), DEADLINE, Instant::now() + 2 * DEADLINE), async { drop(agent) });
    assert_eq!(left, Err(Silent::Left("n1".to_owned())));
}

#[tokio::test]
async fn nobody_answers_who_was_not_asked_and_nobody_too_much() {
    let server = server(10).await;
    let sidecar = server.attached(SIDECAR).await;
    sidecar.send(Up::HostAnswer(HostAnswer::default())).await;
    let agent = answering(&server, AGENT).await;
    let text = "x".repeat(2 << 20);
    agent.send(Up::HostAnswer(HostAnswer { id: 1, text, ..Default::default() })).await;
    for (mut stream, expected) in [(sidecar, Code::PermissionDenied), (agent, Code::InvalidArgument)] {
        let status = loop {
            match stream.next().await {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), expected);
    }
}
