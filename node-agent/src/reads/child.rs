//! The process that reads: `kestrel-node-agent read`, with the task on its input.

use std::{
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::process::parent_id,
    process::{self, ExitCode},
    time::Duration,
};

use kestrel_proto::node::v1::HostRead;
use prost::Message as _;

use super::{Places, request::Request};
use crate::sandbox;

/// A task is a few hundred bytes.
const TASK_BYTES: u64 = 64 * 1024;

/// What the daemon hands to the process.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    #[prost(message, optional, tag = "1")]
    read: Option<HostRead>,
    #[prost(string, tag = "2")]
    proc: String,
    #[prost(string, optional, tag = "3")]
    network: Option<String>,
    #[prost(bool, tag = "4")]
    is_host_network: bool,
    #[prost(uint32, tag = "5")]
    milliseconds: u32,
    #[prost(bool, tag = "6")]
    may_capture: bool,
    #[prost(string, optional, tag = "7")]
    runtime_socket: Option<String>,
    #[prost(bool, tag = "8")]
    may_see_firewall: bool,
    #[prost(bool, tag = "9")]
    may_see_bpf: bool,
    /// The process that waits for the answer.
    #[prost(uint32, tag = "10")]
    parent: u32,
}

impl Task {
    /// Of a read that finds these places and has this time.
    pub fn new(read: HostRead, places: &Places, time: Duration) -> Self {
        let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
        Self {
            read: Some(read),
            proc: text(&places.proc),
            network: places.network.as_ref().map(text),
            is_host_network: places.is_host_network,
            milliseconds: u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
            may_capture: places.may_capture,
            runtime_socket: places.runtime_socket.as_ref().map(text),
            may_see_firewall: places.may_see_firewall,
            may_see_bpf: places.may_see_bpf,
            parent: process::id(),
        }
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds.into())
    }

    fn places(&self) -> Places {
        Places {
            proc: (&self.proc).into(),
            network: self.network.as_ref().map(Into::into),
            is_host_network: self.is_host_network,
            may_capture: self.may_capture,
            runtime_socket: self.runtime_socket.as_ref().map(Into::into),
            may_see_firewall: self.may_see_firewall,
            may_see_bpf: self.may_see_bpf,
        }
    }
}

/// Does the task of the input: prints what was read, and says on the error output why something could not be.
pub fn run() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _nobody_reads = io::stderr().write_all(problem.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Result<(), String> {
    let mut input = Vec::new();
    io::stdin().take(TASK_BYTES).read_to_end(&mut input).map_err(|error| format!("no task: {error}"))?;
    let task = Task::decode(&*input).map_err(|error| format!("no task: {error}"))?;
    sandbox::limit(task.time())?;
    // From here on this process ends with it; before, it may have ended unseen.
    if parent_id() != task.parent {
        return Err("nobody waits for the answer any more".to_owned());
    }
    let request = Request::of(task.read.as_ref())?;
    let opened = request.open(&task.places(), task.time())?;
    sandbox::seal(opened.reach())?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = opened.print(&mut out);
    // What was found before something failed is shown too.
    out.flush().and(printed).map_err(|error| error.to_string())
}
