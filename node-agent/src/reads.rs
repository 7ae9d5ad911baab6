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

use std::{collections::HashMap, path::Path, path::PathBuf, time::Duration};

use kestrel_link::reads::Reply;
use kestrel_proto::node::v1::{HostAnswer, HostRead};
use prost::Message as _;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::opened::trials;
use crate::sandbox::{self, Limits, Printed};

/// Reads at the same time: an agent has a small share of its node.
const AT_ONCE: usize = 4;
/// Answers that wait for the link.
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

/// The reads that are under way.
pub struct Reads {
    places: Places,
    running: HashMap<u64, AbortOnDropHandle<()>>,
}

impl Reads {
    /// None yet.
    pub fn new(places: Places) -> Self {
        Self { places, running: HashMap::new() }
    }

    /// Begins one, whose answer goes to `reply`.
    pub fn begin(&mut self, read: HostRead, reply: Reply) {
        self.running.retain(|_, task| !task.is_finished());
        if self.running.len() >= WAITING {
            return;
        }
        let (id, is_full, places) = (read.id, self.running.len() >= AT_ONCE, self.places.clone());
        let task = tokio::spawn(async move {
            let answer = match is_full {
                true => failed(id, format!("{AT_ONCE} reads are under way: ask again later")),
                false => answer(Path::new(PROGRAM), read, &places).await,
            };
            reply.send(answer).await;
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

async fn answer(program: &Path, read: HostRead, places: &Places) -> HostAnswer {
    let id = read.id;
    let time = Duration::from_millis(read.milliseconds.into()).min(MOST_TIME);
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
