//! What the kernel allows this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
