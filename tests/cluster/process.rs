//! Processes of the cluster's own programs, which run on this machine where `hack/cluster` is the cluster.

use std::{fs, path::Path, process::Command};

use crate::kubectl::eventually;

/// The number of the process whose folder in `/proc` is the one that is looked for.
pub(crate) fn find(is_it: impl Fn(&Path) -> bool) -> Option<String> {
    let mut processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let found = processes.find(|process| is_it(process))?;
    Some(found.file_name().unwrap().to_str().unwrap().to_owned())
}

/// The process that runs `program` in a pod, if its node runs on this machine. The pod's name must be among the process's
/// variables, as it is for all of the operator's.
pub(crate) fn of_pod(program: &str, pod: &str) -> Option<String> {
    let own = format!("POD_NAME={pod}");
    let is_it = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).next() == Some(program.as_bytes())
            && environment.split(|byte| *byte == 0).any(|variable| variable == own.as_bytes())
    };
    find(is_it)
}

/// Takes memory in the cgroup of a process until the kernel has killed both: the process first, which counts as the one to
/// give up, as a container's does that asks for little.
pub(crate) fn exhaust_memory_of(process: &str) {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let memory = groups.lines().find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "memory", group] => Some(format!("/sys/fs/cgroup/memory{group}")),
        _ => None,
    });
    let group = memory
        .or_else(|| Some(format!("/sys/fs/cgroup{}", groups.strip_prefix("0::")?.trim_end())))
        .unwrap_or_else(|| panic!("{groups}"));
    // One buffer of that size. Bounded, should the group's limit not hold.
    let script =
        format!("echo $$ >{group}/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs=300000000 count=1");
    eventually("the kernel's kill", 120, || {
        let ended = Command::new("timeout").args(["-s", "KILL", "30", "sh", "-c", &script]).output().unwrap();
        println!("what took the memory of {group}: {ended:?}");
        // It may have been the other that was killed first, or neither within this time.
        if Path::new("/proc").join(process).exists() { Err(format!("{ended:?}")) } else { Ok(()) }
    });
}

/// Sends a signal to a process.
pub(crate) fn signal(signal: &str, process: &str) {
    let sent = Command::new("kill").args(["-s", signal, process]).status().unwrap();
    assert!(sent.success(), "{signal} to {process}");
}
