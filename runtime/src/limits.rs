//! What the kernel allows this process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Raises the number of files that may be open to what the container runtime
/// allows: every followed file is open, and the default of 1024 is not enough
/// for a full node or a pod with many files.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!("no more than {} files can be followed: {error}", current.unwrap_or(u64::MAX));
    }
}

/// No core dump of this process, and no other process of its user may look into
/// it: its memory holds a token and keys.
pub fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let forbidden =
        setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = forbidden {
        tracing::warn!("a core dump of this process would hold its token: {error}");
    }
}
