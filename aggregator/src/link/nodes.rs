//! What is asked of nodes, by way of their agents: the questions that wait, and who waits for the answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kestrel_proto::node::v1::{
    HostAnswer, HostRead, HostReadEnd, aggregator_message::Message as Down, host_read::What,
};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};

/// The feature of an agent that answers.
pub(super) const HOST_READS: &str = "host-reads";
/// Questions to one node that may be open; an agent has a small share of its node.
const AT_ONCE: usize = 4;
/// Messages that wait for a stream that does not take them.
const UNSENT: usize = 4 * AT_ONCE;
/// An answer travels, and is started on, for so long beyond the time that it is given.
const TRAVEL: Duration = Duration::from_secs(2);

/// Why a node gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Silent {
    /// There is no agent, or not of this version.
    #[error(
        "the agent of the node {0} is not attached to this aggregator, or its version answers no reads: kubectl get pods -o wide of the operator's namespace shows it"
    )]
    NoAgent(String),
    /// Others asked, until there was no time left.
    #[error("{AT_ONCE} other reads of the node {0} were under way all the time: ask again later")]
    Busy(String),
    /// Its stream came to an end.
    #[error("the agent of the node {0} left before it answered: ask again")]
    Left(String),
    /// It took too long.
    #[error("the node {node} did not answer in {} s", time.as_secs())]
    Late {
        /// Its name.
        node: String,
        /// How long it had.
        time: Duration,
    },
}

/// The nodes whose agents answer. Clones share them.
#[derive(Clone, Default)]
pub struct Nodes(Arc<Mutex<Agents>>);

#[derive(Default)]
struct Agents {
    by_node: HashMap<String, Agent>,
    /// Streams so far.
    streams: u64,
    /// Questions so far.
    questions: u64,
}

/// An attached agent.
struct Agent {
    stream: u64,
    /// Who may ask; the others wait in the order in which they came.
    turns: Arc<Semaphore>,
    unsent: VecDeque<Down>,
    more: Arc<Notify>,
    waiting: HashMap<u64, oneshot::Sender<HostAnswer>>,
}

impl Nodes {
    /// Nobody asks for a longer text.
    pub(crate) const ANSWER_BYTES: usize = 1024 * 1024;

    /// The agent of `node` answers from now on, as long as the returned end is held. A newer stream takes the
    /// place of the older one.
    pub(super) fn attached(&self, node: &str) -> Questions {
        let mut agents = self.agents();
        agents.streams += 1;
        let (stream, more) = (agents.streams, Arc::<Notify>::default());
        let agent = Agent {
            stream,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            unsent: VecDeque::new(),
            more: Arc::clone(&more),
            waiting: HashMap::new(),
        };
        agents.by_node.insert(node.to_owned(), agent);
        Questions { nodes: self.clone(), node: node.to_owned(), stream, more }
    }

    /// Asks the agent of `node` when its turn has come, and gives it `time`, or what is left of it until the `deadline`.
    /// Who stops waiting has it stop.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn ask(
        &self,
        node: &str,
        what: What,
        time: Duration,
        deadline: Instant,
    ) -> Result<HostAnswer, Silent> {
        let known = self.agents().by_node.get(node).map(|agent| (agent.stream, Arc::clone(&agent.turns)));
        let Some((stream, turns)) = known else { return Err(Silent::NoAgent(node.to_owned())) };
        // Held until the agent was told that nobody waits any more.
        let Ok(Ok(_turn)) = timeout_at(deadline, turns.acquire()).await else {
            return Err(Silent::Busy(node.to_owned()));
        };
        let time = time.min(deadline.saturating_duration_since(Instant::now()));
        let (id, answer) = {
            let mut agents = self.agents();
            agents.questions += 1;
            let id = agents.questions;
            let Some(agent) = agents.by_node.get_mut(node).filter(|agent| agent.stream == stream) else {
                return Err(Silent::Left(node.to_owned()));
            };
            if agent.unsent.len() >= UNSENT {
                return Err(Silent::Busy(node.to_owned()));
            }
            let (answered, answer) = oneshot::channel();
            agent.waiting.insert(id, answered);
            agent.tell(Down::HostRead(HostRead {
                id,
                milliseconds: u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
                most_bytes: Self::ANSWER_BYTES as u32,
                what: Some(what),
            }));
            (id, answer)
        };
        let _waiting = Waiting { nodes: self, node, id };
        match timeout(time + TRAVEL, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Silent::Left(node.to_owned())),
            Err(_) => Err(Silent::Late { node: node.to_owned(), time }),
        }
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        // It is whole after every one of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    fn tell(&mut self, message: Down) {
        self.unsent.push_back(message);
        self.more.notify_one();
    }
}

/// Someone who waits for an answer.
struct Waiting<'a> {
    nodes: &'a Nodes,
    node: &'a str,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(agent) = self.nodes.agents().by_node.get_mut(self.node)
            && agent.waiting.remove(&self.id).is_some()
        {
            agent.tell(Down::HostReadEnd(HostReadEnd { id: self.id }));
        }
    }
}

/// The session's end: what is to be sent to its agent. It holds nothing while nothing is asked.
pub(super) struct Questions {
    nodes: Nodes,
    node: String,
    stream: u64,
    more: Arc<Notify>,
}

impl Questions {
    /// The next message for the agent.
    pub(super) async fn next(&self) -> Down {
        loop {
            if let Some(message) = self.agent(|agent| agent.unsent.pop_front()) {
                return message;
            }
            self.more.notified().await;
        }
    }

    /// Takes an answer. One that nobody waits for is passed over.
    pub(super) fn answered(&self, answer: HostAnswer) {
        if let Some(waiting) = self.agent(|agent| agent.waiting.remove(&answer.id)) {
            let _stopped_waiting = waiting.send(answer);
        }
    }

    /// Of this stream, if no newer one has taken its place.
    fn agent<T>(&self, of: impl FnOnce(&mut Agent) -> Option<T>) -> Option<T> {
        let mut agents = self.nodes.agents();
        let agent = agents.by_node.get_mut(&self.node).filter(|agent| agent.stream == self.stream);
        agent.and_then(of)
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        let mut agents = self.nodes.agents();
        if agents.by_node.get(&self.node).is_some_and(|agent| agent.stream == self.stream) {
            agents.by_node.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kestrel_proto::node::v1::{Table, TableRead};
    use tokio::join;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    fn what() -> What {
        What::Table(TableRead { table: Table::Addresses.into(), interface: String::new() })
    }

    fn soon() -> Instant {
        Instant::now() + 4 * TIME
    }

    async fn id(questions: &Questions) -> u64 {
        match questions.next().await {
            Down::HostRead(read) => read.id,
            other => panic!("{other:?}"),
        }
    }

    fn answer(id: u64) -> HostAnswer {
        HostAnswer { id, text: id.to_string(), ..HostAnswer::default() }
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer_from_its_own_node() {
        let nodes = Nodes::default();
        assert_eq!(nodes.ask("n1", what(), TIME, soon()).await, Err(Silent::NoAgent("n1".to_owned())));
        let (one, other) = (nodes.attached("n1"), nodes.attached("n2"));
        let agent = async {
            let (first, second) = (id(&one).await, id(&one).await);
            other.answered(answer(first));
            one.answered(answer(77));
            one.answered(answer(second));
            one.answered(answer(first));
        };
        let (first, second, ()) =
            join!(nodes.ask("n1", what(), TIME, soon()), nodes.ask("n1", what(), TIME, soon()), agent);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.id != second.id && first.text == first.id.to_string());
        assert!(one.next().now_or_never().is_none() && other.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_or_waits_too_long_has_the_agent_stop() {
        let nodes = Nodes::default();
        let questions = nodes.attached("n1");
        let mut asked = Box::pin(nodes.ask("n1", what(), TIME, soon()));
        assert!(asked.as_mut().now_or_never().is_none());
        let first = id(&questions).await;
        drop(asked);
        assert_eq!(questions.next().await, Down::HostReadEnd(HostReadEnd { id: first }));
        let late = nodes.ask("n1", what(), TIME, soon()).await;
        assert_eq!(late, Err(Silent::Late { node: "n1".to_owned(), time: TIME }));
        let second = id(&questions).await;
        assert_eq!(questions.next().await, Down::HostReadEnd(HostReadEnd { id: second }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_asked_little_at_once_and_a_newer_stream_takes_the_place_of_the_older() {
        let nodes = Nodes::default();
        let older = nodes.attached("n1");
        let mut asked: Vec<_> =
            (0..AT_ONCE).map(|_| Box::pin(nodes.ask("n1", what(), TIME, soon()))).collect();
        assert!(asked.iter_mut().all(|asked| asked.as_mut().now_or_never().is_none()));
        let mut waits = Box::pin(nodes.ask("n1", what(), TIME, soon()));
        assert!(waits.as_mut().now_or_never().is_none());
        let busy = nodes.ask("n1", what(), TIME, Instant::now() + TIME).await;
        assert_eq!(busy, Err(Silent::Busy("n1".to_owned())), "until its deadline");
        // The first one ends, and who waited is asked for in the time that is left to it.
        drop(asked.remove(0));
        assert!(waits.as_mut().now_or_never().is_none());
        let told = std::iter::from_fn(|| older.next().now_or_never()).collect::<Vec<_>>();
        let [.., Down::HostReadEnd(_), Down::HostRead(read)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((told.len(), read.milliseconds), (AT_ONCE + 2, 5000));
        asked.push(waits);
        let newer = nodes.attached("n1");
        for asked in asked {
            assert_eq!(asked.await, Err(Silent::Left("n1".to_owned())));
        }
        drop(older);
        let (answered, ()) =
            join!(nodes.ask("n1", what(), TIME, soon()), async { newer.answered(answer(id(&newer).await)) });
        assert!(answered.is_ok());
        drop(newer);
        assert_eq!(nodes.ask("n1", what(), TIME, soon()).await, Err(Silent::NoAgent("n1".to_owned())));
    }
}
