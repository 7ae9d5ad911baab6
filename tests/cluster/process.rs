//! Processes of the cluster's own programs, which run on this machine where `hack/cluster` is the cluster.

use std::{fs, path::Path, process::Command};

/// The number of the process whose folder in `/proc` is the one that is looked for.
pub(crate) fn find(is_it: impl Fn(&Path) -> bool) -> Option<String> {
    let mut processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let found = processes.find(|process| is_it(process))?;
    Some(found.file_name().unwrap().to_str().unwrap().to_owned())
}

/// Sends a signal to a process.
pub(crate) fn signal(signal: &str, process: &str) {
    let sent = Command::new("kill").args(["-s", signal, process]).status().unwrap();
    assert!(sent.success(), "{signal} to {process}");
}
