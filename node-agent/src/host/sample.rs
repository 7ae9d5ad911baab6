//! One look at the host.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{
    conntrack::{self, Table},
    file_systems::{self, FileSystem},
    memory,
    pressure::{self, Pressure},
    tasks::{self, Tasks},
};

/// What was seen, or why it could not be.
pub type Seen<T> = Result<T, String>;

/// What was seen of everything that is looked at; `None`: it is not.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When this was, by the clock that can be set.
    pub wall: SystemTime,
    /// When this was, by the one that cannot.
    pub steady: Instant,
    /// Bytes of memory that programs can get without swapping.
    pub memory: Seen<u64>,
    /// The file systems, that of the container logs first.
    pub file_systems: Vec<FileSystem>,
    /// Tasks of all processes.
    pub tasks: Seen<Tasks>,
    /// How long tasks wait for CPU, memory and disks.
    pub pressure: Pressure,
    /// The kernel's table of connections.
    pub conntrack: Option<Seen<Table>>,
    /// The end of the kernel's log, and for how long the kernel runs.
    pub kernel_log: Option<Seen<(String, Duration)>>,
    /// The container runtime's name and version.
    pub runtime: Option<Seen<String>>,
    /// How long ago the kubelet probed this agent last.
    pub kubelet: Option<Duration>,
    /// Namespace and name of the pods that have logs on this node, by their UIDs.
    pub pods: BTreeMap<String, String>,
}

/// Where the host is looked at.
#[derive(Clone, Debug)]
pub struct Places {
    /// The kernel's own folder. It shows the whole host in a container too, but of networks the
    /// container's own.
    pub proc: PathBuf,
    /// The kubelet's directory of logs.
    pub pod_logs: PathBuf,
    /// Further folders whose file systems are watched: their names on the host, and where they are.
    pub file_systems: Vec<(String, PathBuf)>,
    /// `/proc/1/net/stat` of the host.
    pub conntrack: Option<PathBuf>,
    /// `/sys/fs/cgroup` of the host.
    pub cgroups: Option<PathBuf>,
}

impl Places {
    /// Looks at all of them; who has to be asked is not.
    pub fn look(&self) -> Sample {
        let pods = pods(&self.pod_logs);
        Sample {
            wall: SystemTime::now(),
            steady: Instant::now(),
            memory: memory::available(&self.proc),
            file_systems: file_systems::rooms(&self.pod_logs, &self.file_systems),
            tasks: tasks::count(&self.proc),
            pressure: pressure::read(&self.proc, self.cgroups.as_deref()),
            conntrack: self.conntrack.as_deref().map(|stat| conntrack::read(stat, &self.proc)),
            kernel_log: None,
            runtime: None,
            kubelet: None,
            pods,
        }
    }
}

/// The pods that have folders of logs, `NAMESPACE_NAME_UID` each.
fn pods(logs: &Path) -> BTreeMap<String, String> {
    let names = fs::read_dir(logs).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pod = |name: std::ffi::OsString| {
        let mut parts = name.to_str()?.splitn(3, '_');
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        Some((uid.to_owned(), format!("{namespace}/{name}")))
    };
    names.filter_map(pod).collect()
}

/// The text of one of the kernel's files.
pub(super) fn text(path: &Path) -> Seen<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The number in one of the kernel's files.
pub(super) fn number(path: &Path) -> Seen<u64> {
    let text = text(path)?;
    text.trim().parse().map_err(|_| format!("{}: {:?} is no number", path.display(), text.trim()))
}

/// For how long the kernel runs, as `/proc/uptime` says.
pub(super) fn uptime(proc: &Path) -> Seen<Duration> {
    let path = proc.join("uptime");
    let seconds = text(&path)?.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    uptime.ok_or_else(|| format!("{}: not in the kernel's form", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host on which nothing is wrong.
    pub(in crate::host) fn healthy() -> Sample {
        let places = Places {
            proc: PathBuf::from("/does/not/exist"),
            pod_logs: PathBuf::from("/does/not/exist"),
            file_systems: Vec::new(),
            conntrack: None,
            cgroups: None,
        };
        Sample {
            memory: Ok(1 << 30),
            file_systems: Vec::new(),
            tasks: Ok(Tasks { running: 100, limit: 1000 }),
            ..places.look()
        }
    }

    #[test]
    fn this_host_can_be_read() {
        let logs = tempfile::tempdir().unwrap();
        fs::create_dir(logs.path().join("shop_web-1_5f2a")).unwrap();
        fs::create_dir(logs.path().join("lost+found")).unwrap();
        let places = Places {
            proc: PathBuf::from("/proc"),
            pod_logs: logs.path().to_owned(),
            file_systems: vec![("/none".to_owned(), PathBuf::from("/does/not/exist"))],
            conntrack: None,
            cgroups: None,
        };
        let sample = places.look();
        assert!(sample.memory.is_ok_and(|bytes| bytes > 0));
        assert!(sample.tasks.is_ok_and(|tasks| tasks.running > 0 && tasks.limit > tasks.running));
        assert!(uptime(&places.proc).is_ok_and(|time| time > Duration::ZERO));
        let [log_disk, none] = &*sample.file_systems else { panic!("two") };
        assert!(log_disk.room.as_ref().is_ok_and(|room| room.size >= room.available));
        assert!(none.room.as_ref().is_err_and(|why| why.contains("/does/not/exist")), "{none:?}");
        assert_eq!(sample.pods, BTreeMap::from([("5f2a".to_owned(), "shop/web-1".to_owned())]));
    }
}
