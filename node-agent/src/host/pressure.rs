//! Pressure stall information: the share of time in which tasks wait for CPU, memory or disks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    condition::{Edge, Finding},
    sample::{Seen, text},
};

/// Pods are looked at only when the node itself waits this much, in hundredths of a percent:
/// where none of its tasks waits, none of a pod does.
const WORTH_A_LOOK: u64 = 100;
/// Folders of control groups are looked for this deep, and so many at most.
const DEPTH: usize = 5;
const MOST_GROUPS: usize = 1024;
/// Pods named in a message.
const NAMED: usize = 3;

/// Of which resource, how its file is called and what is judged of it.
struct Resource {
    kind: &'static str,
    file: &'static str,
    /// `some` (one task waits) or `full` (all do). All tasks never wait for a processor.
    line: &'static str,
    name: &'static str,
}

const RESOURCES: [Resource; 3] = [
    Resource { kind: "kestrel.ai/CPUStalled", file: "cpu", line: "some", name: "a CPU" },
    Resource { kind: "kestrel.ai/MemoryStalled", file: "memory", line: "full", name: "memory" },
    Resource { kind: "kestrel.ai/IOStalled", file: "io", line: "full", name: "disks" },
];

/// Shares of the last minute at which a resource stalls the node or a pod, in percent: of CPU,
/// memory and disks; 0: never.
pub type Limits = [u64; 3];

/// What the kernel says of each of CPU, memory and disks.
pub(super) type Pressure = [Seen<Waits>; 3];

/// Shares of the last minute, in hundredths of a percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Of the node's tasks.
    pub node: u64,
    /// Of pods' tasks, or why nothing is known of them; `None`: nobody looked.
    pub pods: Option<Seen<Pods>>,
}

/// Shares of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    /// By UID.
    pub shares: BTreeMap<String, u64>,
    /// Folders of control groups that were passed over because there were too many.
    pub left_out: u64,
}

/// Reads `pressure` in `proc`, and of the pods in the host's control groups.
pub(super) fn read(proc: &Path, cgroups: Option<&Path>) -> Pressure {
    RESOURCES.map(|Resource { file, line, .. }| {
        let path = proc.join("pressure").join(file);
        let text = text(&path).map_err(|why| {
            format!("{why} (the kernel may be built without it, or need the parameter psi=1)")
        })?;
        let malformed = || format!("{}: not in the kernel's form", path.display());
        let node = share(&text, line).ok_or_else(malformed)?;
        let is_worth_it = share(&text, "some").ok_or_else(malformed)? >= WORTH_A_LOOK;
        let pods = cgroups.filter(|_| is_worth_it).map(|root| of_pods(root, file, line));
        Ok(Waits { node, pods })
    })
}

/// `avg60` of the line that begins with `line`, in hundredths of a percent.
fn share(text: &str, line: &str) -> Option<u64> {
    let line = text.lines().find_map(|it| it.strip_prefix(line))?;
    let share = line.split_whitespace().find_map(|field| field.strip_prefix("avg60="))?;
    let (whole, hundredths) = share.split_once('.')?;
    let hundredths = hundredths.parse::<u64>().ok().filter(|_| hundredths.len() == 2)?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths)
}

fn of_pods(root: &Path, file: &str, line: &str) -> Seen<Pods> {
    if !root.join("cgroup.controllers").exists() {
        let name = root.display();
        return Err(match fs::read_dir(root) {
            Ok(_) => format!("{name}: control groups of version 1 have no pressure of their own"),
            Err(error) => format!("{name}: {error}"),
        });
    }
    let (groups, left_out) = pod_groups(root);
    let share = |(uid, group): (String, PathBuf)| {
        let text = text(&group.join(format!("{file}.pressure"))).ok()?;
        Some((uid, share(&text, line)?))
    };
    Ok(Pods { shares: groups.into_iter().filter_map(share).collect(), left_out })
}

/// The control groups of pods, by their UIDs: the kubelet's are called `kubepods…`, at whatever depth. And how many
/// groups were passed over.
fn pod_groups(root: &Path) -> (Vec<(String, PathBuf)>, u64) {
    let (mut found, mut left_out, mut level) = (Vec::new(), 0, vec![root.to_owned()]);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in level {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                match pod_of(name) {
                    Some(uid) if found.len() < MOST_GROUPS => found.push((uid, entry.path())),
                    // Groups of containers and services have none of pods below them.
                    None if name.ends_with(".service") || name.ends_with(".scope") => {}
                    None if next.len() < MOST_GROUPS => next.push(entry.path()),
                    _ => left_out += 1,
                }
            }
        }
        level = next;
    }
    (found, left_out)
}

/// The UID of the pod whose control group has this name: `podUID`, or of systemd
/// `kubepods-burstable-podUID.slice` with underscores for dashes; a kubelet with a root of its own has its
/// name before that (`kubelet-kubepods-…`, as in kind).
pub(super) fn pod_of(group: &str) -> Option<String> {
    let uid = match group.strip_suffix(".slice") {
        Some(slice) => slice.split_once("kubepods")?.1.rsplit_once("-pod")?.1.replace('_', "-"),
        None => group.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

/// What stalls.
#[derive(Debug)]
pub(super) struct Stalls {
    limits: Limits,
    nodes: [Edge; 3],
    /// By UID; of pods that are past their limit alone.
    pods: [BTreeMap<String, Edge>; 3],
    left_out: u64,
}

impl Stalls {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, nodes: Default::default(), pods: Default::default(), left_out: 0 }
    }

    /// Folders of control groups that were passed over, at all looks.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// `names` are those of pods by UID; others run elsewhere.
    pub(super) fn judge(&mut self, pressure: &Pressure, names: &BTreeMap<String, String>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (number, Resource { kind, name, line, .. }) in RESOURCES.iter().enumerate() {
            let limit = self.limits[number];
            if limit == 0 {
                continue;
            }
            let waits = match &pressure[number] {
                Ok(waits) => waits,
                Err(why) => {
                    findings.push(Finding::unseen(kind, why));
                    continue;
                }
            };
            let is_node = self.nodes[number].is_over(waits.node, limit * 100);
            let none = Pods::default();
            let (pods, unseen) = match &waits.pods {
                Some(Ok(pods)) => (pods, None),
                Some(Err(why)) => (&none, Some(why)),
                None => (&none, None),
            };
            self.left_out += pods.left_out;
            let before = std::mem::take(&mut self.pods[number]);
            let mut stalled = Vec::new();
            for (uid, share) in &pods.shares {
                let Some(pod) = names.get(uid) else { continue };
                let mut edge = before.get(uid).copied().unwrap_or_default();
                if edge.is_over(*share, limit * 100) {
                    self.pods[number].insert(uid.clone(), edge);
                    stalled.push((*share, pod));
                }
            }
            stalled.sort_unstable_by(|a, b| b.cmp(a));
            let who = if *line == "some" { "some of its tasks" } else { "all of its tasks" };
            let mut message = format!(
                "of the last minute, {who} waited for {name} in {}; from {limit} % on it stalls",
                hundredths(waits.node)
            );
            if !stalled.is_empty() {
                let named = stalled.iter().take(NAMED);
                let named = named.map(|(share, pod)| format!("{pod} ({})", hundredths(*share)));
                let count = stalled.len();
                message +=
                    &format!("; pods that stall: {count}, worst {}", named.collect::<Vec<_>>().join(", "));
            }
            if let Some(why) = unseen {
                message += &format!("; of pods nothing can be seen ({why})");
            }
            let reason = match (is_node, stalled.is_empty()) {
                (true, _) => Some("NodeStalls"),
                (false, false) => Some("PodsStall"),
                (false, true) => None,
            };
            findings.push(Finding::trouble(kind, reason, "NoStall", message));
        }
        findings
    }
}

fn hundredths(share: u64) -> String {
    format!("{}.{:02} %", share / 100, share % 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::condition::Status;

    /// `/proc/pressure/memory` of Linux 6.18.
    const MEMORY: &str = "\
some avg10=0.26 avg60=1.66 avg300=2.10 total=1156460627
full avg10=0.00 avg60=0.05 avg300=0.00 total=263701661
";
    const UID: &str = "0a0b0c0d-1111-2222-3333-444455556666";

    fn pods(share: u64) -> Pressure {
        let shares = [(UID.to_owned(), share), ("other".to_owned(), 9999)].into();
        let waits = Waits { node: 150, pods: Some(Ok(Pods { shares, left_out: 1 })) };
        [Ok(Waits::default()), Ok(waits), Ok(Waits::default())]
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!((share(MEMORY, "some"), share(MEMORY, "full")), (Some(166), Some(5)));
        assert_eq!(share("some avg10=0.26\n", "some"), None);
        assert_eq!(
            pod_of("kubepods-burstable-pod0a0b0c0d_1111_2222_3333_444455556666.slice").as_deref(),
            Some(UID)
        );
        assert_eq!(pod_of("kubepods-pod0a0b0c0d_1111_2222_3333_444455556666.slice").as_deref(), Some(UID));
        assert_eq!(
            pod_of("kubelet-kubepods-besteffort-pod0a0b0c0d_1111_2222_3333_444455556666.slice").as_deref(),
            Some(UID),
            "as in kind"
        );
        assert_eq!(pod_of(&format!("pod{UID}")).as_deref(), Some(UID));
        // A static pod's.
        assert!(pod_of("pod0123456789abcdef0123456789abcdef").is_some());
        for other in ["kubepods-burstable.slice", "podman.slice", "podman", "burstable", "system.slice"] {
            assert_eq!(pod_of(other), None, "{other}");
        }
    }

    #[test]
    fn pods_are_found_wherever_the_kubelet_puts_them_and_only_where_it_is_worth_it() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let second = UID.replace('0', "e");
        write("pressure/cpu".into(), MEMORY);
        write("pressure/memory".into(), MEMORY);
        write("pressure/io".into(), &MEMORY.replace("1.66", "0.99"));
        let slice = format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
            second.replace('-', "_")
        );
        write(format!("cgroup/{slice}/memory.pressure"), MEMORY);
        write(format!("cgroup/kubelet/kubepods/besteffort/pod{UID}/memory.pressure"), "full avg60=70.25\n");
        let cgroups = root.path().join("cgroup");
        let [_, memory, io] = read(root.path(), Some(&cgroups));
        let why = memory.unwrap().pods.unwrap().unwrap_err();
        assert!(why.contains("version 1"), "{why}");
        assert_eq!(io, Ok(Waits { node: 5, pods: None }));
        write("cgroup/cgroup.controllers".into(), "cpu memory\n");
        let [cpu, memory, _] = read(root.path(), Some(&cgroups));
        let shares = BTreeMap::from([(second, 5), (UID.to_owned(), 7025)]);
        assert_eq!(memory, Ok(Waits { node: 5, pods: Some(Ok(Pods { shares, left_out: 0 })) }));
        assert_eq!(cpu, Ok(Waits { node: 166, pods: Some(Ok(Pods::default())) }), "files that are missing");
        let [missing, ..] = read(&cgroups, None);
        assert!(missing.unwrap_err().contains("psi=1"));
    }

    #[test]
    fn groups_beyond_the_bound_are_counted() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..MOST_GROUPS + 3 {
            fs::create_dir(root.path().join(format!("pod{number:032}"))).unwrap();
        }
        let (found, left_out) = pod_groups(root.path());
        assert_eq!((found.len(), left_out), (MOST_GROUPS, 3));
    }

    #[test]
    fn the_node_and_its_own_pods_stall_until_they_clearly_do_not() {
        let names = BTreeMap::from([(UID.to_owned(), "shop/web".to_owned())]);
        let mut stalls = Stalls::new([0, 10, 40]);
        let mut judge = |pressure: Pressure| {
            let [memory, io] = &stalls.judge(&pressure, &names)[..] else { panic!("CPU is not watched") };
            assert_eq!(io.status, Status::False);
            memory.clone()
        };
        assert_eq!(judge(pods(999)).reason, "NoStall", "the other pod runs on another node");
        let stalled = judge(pods(1000));
        assert_eq!(stalled.reason, "PodsStall");
        assert!(stalled.message.ends_with("; pods that stall: 1, worst shop/web (10.00 %)"), "{stalled:?}");
        assert_eq!([judge(pods(800)).reason, judge(pods(799)).reason], ["PodsStall", "NoStall"]);
        let waits = Waits { node: 1000, pods: None };
        assert_eq!(judge([Ok(Waits::default()), Ok(waits), Ok(Waits::default())]).reason, "NodeStalls");
        let unknown = Err("psi=1".to_owned());
        assert_eq!(judge([Ok(Waits::default()), unknown, Ok(Waits::default())]).status, Status::Unknown);
        assert_eq!(stalls.left_out(), 4, "one at each look at pods");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "(some |full |avg60=|[0-9.]{0,25}|\n){0,12}") {
            let _share = share(&text, "some");
            let _uid = pod_of(&text);
        }
    }
}
