//! What Kestrel Cloud asks of this node, by way of the aggregator: reads of a closed set of kinds, each in a
//! [process of its own](crate::sandbox) that is this program again.

mod addresses;
mod bpf;
pub mod child;
mod connections;
mod containers;
mod counters;
mod firewall;
mod names;
mod neighbours;
mod netlink;
mod opened;
mod packets;
mod request;
mod routes;
mod settings;
mod sockets;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kestrel_link::reads::Reply;
use kestrel_proto::node::v1::{HostAnswer, HostRead, host_read::What};
use prost::Message as _;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::opened::trials;
use crate::sandbox::{self, Limits, Printed};

/// Reads at the same time: an agent has a small share of its node.
const AT_ONCE: usize = 4;
/// Reads that run, or wait for those or for the link.
const WAITING: usize = 16;
/// No read takes longer …
const MOST_TIME: Duration = Duration::from_secs(35);
/// … or prints more.
const MOST_BYTES: usize = 1024 * 1024;
/// This program, also where its file was replaced.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

/// Where reads find what they read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The kernel's own folder.
    pub proc: PathBuf,
    /// The kernel's tables of the node's network, like `/proc/net`; none: they are not in reach.
    pub network: Option<PathBuf>,
    /// This process is in the node's network.
    pub is_host_network: bool,
    /// The container runtime's, if it may be asked.
    pub runtime_socket: Option<PathBuf>,
    /// Packets may be captured.
    pub may_capture: bool,
    /// The kernel may be asked for the rules of the firewall.
    pub may_see_firewall: bool,
    /// And for BPF objects.
    pub may_see_bpf: bool,
}

/// Who waits for whom.
struct Turns {
    all: Semaphore,
    /// One with very many rules takes most of the memory that the agent has room for.
    firewall: Semaphore,
}

impl Turns {
    fn new() -> Self {
        Self { all: Semaphore::new(AT_ONCE), firewall: Semaphore::new(1) }
    }
}

/// The reads that are under way.
pub struct Reads {
    places: Places,
    turns: Arc<Turns>,
    running: HashMap<u64, AbortOnDropHandle<()>>,
}

impl Reads {
    /// None yet.
    pub fn new(places: Places) -> Self {
        Self { places, turns: Arc::new(Turns::new()), running: HashMap::new() }
    }

    /// Begins one, whose answer goes to `reply`.
    pub fn begin(&mut self, read: HostRead, reply: Reply) {
        self.running.retain(|_, task| !task.is_finished());
        let id = read.id;
        if self.running.len() >= WAITING {
            reply.send_now(failed(id, format!("{WAITING} reads wait already: ask again later")));
            return;
        }
        let (turns, places) = (Arc::clone(&self.turns), self.places.clone());
        let task = tokio::spawn(async move {
            reply.send(answer(Path::new(PROGRAM), read, &places, &turns).await).await;
        });
        self.running.insert(id, AbortOnDropHandle::new(task));
    }

    /// Nobody waits for the answer to this one any more.
    pub fn end(&mut self, id: u64) {
        self.running.remove(&id);
    }

    /// Nor for any.
    pub fn end_all(&mut self) {
        self.running.clear();
    }
}

fn failed(id: u64, problem: String) -> HostAnswer {
    HostAnswer { id, problem, ..HostAnswer::default() }
}

async fn answer(program: &Path, read: HostRead, places: &Places, turns: &Turns) -> HostAnswer {
    let (id, begun) = (read.id, Instant::now());
    let time = Duration::from_millis(read.milliseconds.into()).min(MOST_TIME);
    let turn = async {
        let firewall = match read.what {
            Some(What::Firewall(_)) => Some(turns.firewall.acquire().await),
            _ => None,
        };
        (firewall, turns.all.acquire().await)
    };
    let Ok(_turn) = timeout(time, turn).await else {
        return failed(id, "other reads were under way all the time: ask again later".to_owned());
    };
    let time = time.saturating_sub(begun.elapsed());
    let bytes = usize::try_from(read.most_bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES);
    let task = child::Task::new(read, places, time).encode_to_vec();
    match sandbox::run(program, &["read"], &task, Limits { time, bytes }).await {
        Ok(Printed { text, is_cut, problem }) => {
            let mut text = String::from_utf8_lossy(&text).into_owned();
            // What stands for a byte that is no text is longer than it.
            let is_cut = is_cut || text.len() > bytes;
            if is_cut {
                text.truncate(text.floor_char_boundary(bytes));
                text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
            }
            HostAnswer { id, text, is_cut, problem }
        }
        Err(problem) => failed(id, problem),
    }
}

#[cfg(test)]
mod tests {
    use kestrel_proto::node::v1::{AgentMessage, FirewallRead, SettingRead, agent_message::Message};
    use tokio::sync::mpsc;

    use super::*;

    /// What is said of a program that is not there.
    async fn problem(what: What, turns: &Turns) -> String {
        let read = HostRead { id: 1, milliseconds: 30_000, most_bytes: 100, what: Some(what) };
        answer(Path::new("/no/such/program"), read, &Places::default(), turns).await.problem
    }

    #[tokio::test(start_paused = true)]
    async fn one_read_of_the_firewall_at_a_time_and_few_of_all_kinds() {
        const WAITED: &str = "other reads were under way all the time: ask again later";
        const BEGAN: &str = "can't be started";
        let turns = Turns::new();
        let [firewall, other] =
            [What::Firewall(FirewallRead::default()), What::Settings(SettingRead::default())];
        let one = turns.firewall.acquire().await;
        assert_eq!(problem(firewall.clone(), &turns).await, WAITED);
        assert!(problem(other.clone(), &turns).await.contains(BEGAN));
        drop(one);
        assert!(problem(firewall, &turns).await.contains(BEGAN));
        let all = turns.all.acquire_many(AT_ONCE as u32).await;
        assert_eq!(problem(other.clone(), &turns).await, WAITED);
        drop(all);
        assert!(problem(other, &turns).await.contains(BEGAN));
    }

    #[tokio::test]
    async fn whom_there_is_no_room_for_is_answered_and_the_others_wait() {
        let (messages, mut link) = mpsc::channel(1);
        let mut reads = Reads::new(Places::default());
        let turns = Arc::clone(&reads.turns);
        let _others = turns.all.acquire_many(AT_ONCE as u32).await;
        for id in 0..=WAITING as u64 {
            let read = HostRead { id, milliseconds: 30_000, ..HostRead::default() };
            reads.begin(read, Reply(messages.downgrade()));
        }
        let Ok(AgentMessage { message: Some(Message::HostAnswer(answer)) }) = link.try_recv() else {
            panic!("no answer")
        };
        assert_eq!((answer.id, &*answer.problem), (16, "16 reads wait already: ask again later"));
        assert!(link.try_recv().is_err());
    }
}
