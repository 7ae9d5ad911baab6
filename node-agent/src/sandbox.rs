//! A process of its own for what reads the host: it begins with nothing, gives up what it could still get, and
//! ends when its time is over, with all that it started.
//!
//! [`run`] is the side of who starts it. The process itself calls [`limit`] first, opens what it needs, and then
//! [`seal`]s itself: from then on it can read what is open, and compute, and write to its output.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::{
    process::{
        Pid, Resource, Rlimit, Signal, kill_process_group, set_parent_process_death_signal, setrlimit,
    },
    thread::{CapabilitySet, CapabilitySets, set_capabilities},
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

/// What it says of a failure.
const SAID_BYTES: u64 = 4 * 1024;
/// Of memory that it writes to.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// Open files, its output among them.
const FILES: u64 = 96;

/// What a process may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From its start to its end.
    pub time: Duration,
    /// Of its output.
    pub bytes: usize,
}

/// What a process left behind.
#[derive(Debug)]
pub struct Printed {
    /// Its output, as far as there was room.
    pub text: Vec<u8>,
    /// There was more.
    pub is_cut: bool,
    /// What it said of its failure; empty if it did not fail.
    pub problem: String,
}

/// Starts `program` with exactly these arguments, no variable of the environment and no open file but its
/// pipes, hands it `input`, and takes what it prints. When its time is over, or nobody waits any more, it is
/// killed with its process group.
///
/// # Errors
/// It can't be started, or took too long.
pub async fn run(
    program: &Path,
    arguments: &[&str],
    input: &[u8],
    Limits { time, bytes }: Limits,
) -> Result<Printed, String> {
    let failed = |error: std::io::Error| format!("the process that reads can't be started: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut group = Group::of(&child);
    let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("the process that reads has no pipes".to_owned());
    };
    let work = async {
        // One that ends early does not read it.
        let _unread = stdin.write_all(input).await;
        drop(stdin);
        let (mut text, mut said) = (Vec::new(), Vec::new());
        stdout.take(bytes as u64 + 1).read_to_end(&mut text).await?;
        let is_cut = text.len() > bytes;
        if is_cut {
            text.truncate(bytes);
            group.kill();
        }
        (&mut stderr).take(SAID_BYTES).read_to_end(&mut said).await?;
        // Before its end is taken note of: until then the group's number is nobody else's.
        group.kill();
        let status = child.wait().await?;
        let problem = match String::from_utf8_lossy(&said).trim() {
            _ if is_cut || status.success() => String::new(),
            "" => format!("the process that reads ended with {status}"),
            said => said.to_owned(),
        };
        Ok(Printed { text, is_cut, problem })
    };
    match timeout(time, work).await {
        Ok(printed) => printed.map_err(failed),
        Err(_) => Err(format!("no answer in {:.1} s", time.as_secs_f32())),
    }
}

/// A process and all that it started, which end with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Once, while its number can be nobody else's.
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            let _has_ended = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Limits what this process may take, and has it end with the one that started it.
///
/// # Errors
/// The kernel does not do it.
pub fn limit(time: Duration) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("the process that reads can't be limited: {error}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
    for (resource, most) in [
        (Resource::Cpu, time.as_secs() + 1),
        (Resource::Data, MEMORY_BYTES),
        (Resource::Nofile, FILES),
        (Resource::Nproc, 0),
        // It writes no file, and no image of its memory.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(failed)?;
    }
    Ok(())
}

/// What a sealed process may still reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What it has open.
    Open,
    /// Likewise, and it speaks on a connection that it has open.
    Connected,
    /// Other machines too, by TCP and UDP.
    Network,
}

/// Takes from this thread, for ever, its capabilities and every way to a file, to another process and, unless
/// `reach` says so, to the network: by Landlock, as far as the kernel has it, and by seccomp, without which it
/// fails. Says whether it is by Landlock too.
///
/// # Errors
/// The kernel has no seccomp.
pub fn seal(reach: Reach) -> Result<bool, String> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|error| format!("capabilities: {error}"))?;
    let has_landlock = landlock(reach).map_err(|error| format!("Landlock: {error}"))?;
    let filter = filter(reach).map_err(|error| format!("seccomp: {error}"))?;
    apply_filter(&filter).map_err(|error| format!("seccomp: {error}"))?;
    Ok(has_landlock)
}

/// Calls that are not allowed fail as forbidden.
fn filter(reach: Reach) -> Result<BpfProgram, BackendError> {
    // A call without rules is allowed whatever its arguments are.
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    if reach == Reach::Connected {
        allowed.extend(CONNECTED_CALLS.iter().map(|call| (*call, Vec::new())));
    }
    if reach == Reach::Network {
        allowed.extend(NETWORK_CALLS.iter().map(|call| (*call, Vec::new())));
        // A socket of the file system may be the container runtime's.
        let of = |family: i32| {
            let family = u64::from(family.unsigned_abs());
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
            SeccompRule::new(vec![is])
        };
        allowed.insert(libc::SYS_socket, vec![of(libc::AF_INET)?, of(libc::AF_INET6)?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(allowed, refused, SeccompAction::Allow, arch)?.try_into()
}

/// No rule allows anything: what is handled is refused, unless this kernel has no Landlock.
fn landlock(reach: Reach) -> Result<bool, landlock::RulesetError> {
    let newest = ABI::V6;
    let mut ruleset =
        Ruleset::default().handle_access(AccessFs::from_all(newest))?.scope(Scope::from_all(newest))?;
    if reach != Reach::Network {
        ruleset = ruleset.handle_access(AccessNet::from_all(newest))?;
    }
    Ok(ruleset.create()?.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// What computing, reading what is open, writing to a pipe and ending needs. Nothing here opens, starts or
/// connects anything.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What a conversation needs that is waited for.
const CONNECTED_CALLS: &[i64] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What connections and datagrams need.
const NETWORK_CALLS: &[i64] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_ioctl,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];
