//! What of the host the agent is told to watch, and can see.

use std::path::Path;

use kestrel_runtime::check::Finding;

use crate::{
    config::Config,
    host::{kubelet::Probes, runtime_version, sample::Sample},
    reads::trials,
};

/// A line for each thing that is watched, or could be.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let watched = config.host.watched(config.pod_logs.clone(), Probes::default());
    let (kernel_log, runtime_socket) = (watched.kernel_log, watched.runtime_socket.clone());
    let sample = watched.places.look();
    let mut findings = vec![of_proc(&sample), pressure(&sample), file_systems(&sample, config)];
    findings.push(conntrack(&sample, config));
    findings.push(pod_pressure(config));
    findings.push(match kernel_log.map(|read| read()) {
        None => Finding::note(
            KERNEL_LOG,
            "not read; nodeAgent.kernelLog: true gives the capability for it, and has kills for want of memory told with process and limit",
        ),
        Some(Ok(_)) => Finding::ok(KERNEL_LOG, "it is read by syslog(2)"),
        Some(Err(why)) => Finding::failed(
            KERNEL_LOG,
            format!("{why}; an admission policy or security context constraint may have taken the capability SYSLOG from the pod"),
        ),
    });
    findings.push(match runtime_socket {
        None => Finding::note(
            RUNTIME,
            "not asked; nodeAgent.runtimeSocket names its socket, which gives root on the node to whoever can write to it",
        ),
        Some(socket) => runtime(&socket, runtime_version(&socket).await),
    });
    findings.push(if config.host.probes.is_zero() {
        Finding::note("kubelet", "its probes are not watched: their period is not known (KESTREL_PROBE_SECONDS, which the chart sets)")
    } else {
        Finding::ok("kubelet", format!("it probes the daemon every {} s", config.host.probes.as_secs()))
    });
    findings.extend(asked(config));
    findings
}

/// What Kestrel Cloud may ask of the node beside what every process may see.
fn asked(config: &Config) -> impl Iterator<Item = Finding> {
    trials(&config.host.reads()).into_iter().map(|(subject, is_given, tried)| match tried {
        Ok(()) => Finding::ok(subject, "Kestrel Cloud may ask for them, and they can be seen"),
        Err(why) if is_given => Finding::failed(
            subject,
            format!("{why}; where the value is set, an admission policy may have taken the capability or the volume from the pod"),
        ),
        Err(why) => Finding::note(subject, why),
    })
}

const CONNTRACK: &str = "table of connections";
const KERNEL_LOG: &str = "kernel log";
const POD_PRESSURE: &str = "pressure of pods";
const RUNTIME: &str = "container runtime";

fn of_proc(sample: &Sample) -> Finding {
    let problems = [sample.memory.as_ref().err(), sample.tasks.as_ref().err()];
    let problems: Vec<_> = problems.into_iter().flatten().map(String::as_str).collect();
    if problems.is_empty() {
        return Finding::ok("memory and tasks", "both can be seen");
    }
    Finding::failed(
        "memory and tasks",
        format!("{}: KESTREL_PROC_DIR has to name a folder like /proc", problems.join("; ")),
    )
}

fn pressure(sample: &Sample) -> Finding {
    const SUBJECT: &str = "pressure of the node";
    let why = sample.pressure.iter().find_map(|resource| resource.as_ref().err());
    why.map_or_else(
        || Finding::ok(SUBJECT, "how long tasks wait for CPU, memory and disks can be seen"),
        |why| Finding::caution(SUBJECT, why.as_str()),
    )
}

fn file_systems(sample: &Sample, config: &Config) -> Finding {
    const SUBJECT: &str = "file systems";
    let unseen = sample.file_systems.iter().find_map(|it| Some((&it.folder, it.room.as_ref().err()?)));
    if let Some((folder, why)) = unseen {
        let given = if config.host.file_systems.contains(folder) {
            "nodeAgent.fileSystems names it, and the pod has no mount of it: the folder is missing on the node, or an admission policy took the volume"
        } else {
            "it is the folder of the logs (above)"
        };
        return Finding::failed(SUBJECT, format!("of {folder} nothing can be seen ({why}): {given}"));
    }
    let folders: Vec<_> = sample.file_systems.iter().map(|it| it.folder.as_str()).collect();
    let more = if config.host.file_systems.is_empty() {
        "; nodeAgent.fileSystems names further folders"
    } else {
        ""
    };
    Finding::ok(SUBJECT, format!("room is watched on those of {}{more}", folders.join(", ")))
}

fn conntrack(sample: &Sample, config: &Config) -> Finding {
    let folder = config.host.root.join("proc/1/net/stat");
    match &sample.conntrack {
        None => Finding::note(
            CONNTRACK,
            "not watched; nodeAgent.conntrack: true mounts /proc/1/net/stat of the node for it",
        ),
        Some(Ok(table)) => {
            Finding::ok(CONNTRACK, format!("{} of {} entries are used", table.entries, table.most))
        }
        Some(Err(why)) if !folder.is_dir() => Finding::failed(
            CONNTRACK,
            format!(
                "{why}: the pod has no mount of the node's /proc/1/net/stat, which nodeAgent.conntrack: true gives; an admission policy may have taken the volume"
            ),
        ),
        Some(Err(why)) => Finding::caution(
            CONNTRACK,
            format!(
                "{why}: the node tracks no connections (no kube-proxy in mode iptables or nftables), or its kernel is built without that file; nodeAgent.conntrack: false ends this"
            ),
        ),
    }
}

fn pod_pressure(config: &Config) -> Finding {
    let groups = config.host.cgroups();
    let name = groups.display();
    if !config.host.pod_pressure {
        return Finding::note(
            POD_PRESSURE,
            "not watched; nodeAgent.podPressure: true mounts /sys/fs/cgroup of the node for it",
        );
    }
    if !groups.is_dir() {
        return Finding::failed(
            POD_PRESSURE,
            format!(
                "{name} is not there: nodeAgent.podPressure: true mounts the node's /sys/fs/cgroup there; an admission policy may have taken the volume"
            ),
        );
    }
    if !groups.join("cgroup.controllers").exists() {
        return Finding::caution(
            POD_PRESSURE,
            "the node has control groups of version 1, which have no pressure of their own: pods are named on nodes with version 2 alone; nodeAgent.podPressure: false ends this",
        );
    }
    Finding::ok(POD_PRESSURE, format!("{name} can be seen"))
}

fn runtime(socket: &Path, answer: Result<String, String>) -> Finding {
    let name = socket.display();
    let why = match answer {
        Ok(version) => return Finding::ok(RUNTIME, format!("{version} answers at {name}")),
        Err(why) => why,
    };
    let remedy = if !socket.parent().is_some_and(Path::is_dir) {
        "the pod has no mount of the socket's folder, which nodeAgent.runtimeSocket gives: the node has no such folder, or an admission policy took the volume"
    } else if !socket.exists() {
        "nodeAgent.runtimeSocket names another socket than this node's (containerd: /run/containerd/containerd.sock, CRI-O: /run/crio/crio.sock), or the runtime is not running"
    } else {
        "the runtime does not answer: journalctl -u containerd (or crio) on the node says more"
    };
    Finding::failed(RUNTIME, format!("{why}: {remedy}"))
}
