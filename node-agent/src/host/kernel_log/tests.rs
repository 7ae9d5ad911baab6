use super::*;
use crate::host::condition::Status;

const UID: &str = "0a0b0c0d-1111-2222-3333-444455556666";
const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn pods() -> BTreeMap<String, String> {
    BTreeMap::from([(UID.to_owned(), "shop/web-1".to_owned())])
}

fn line(second: u64, text: &str) -> String {
    format!("<4>[{second:5}.000000] {text}\n")
}

/// The lines of a kill since 5.0, after `mm/oom_kill.c` and `mm/memcontrol.c`.
fn killed(second: u64, limit: &str, group: &str, name: &str) -> String {
    let limit = if limit.is_empty() { "global_oom".to_owned() } else { format!("oom_memcg={limit}") };
    [
        line(second, &format!("{name} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=1000")),
        line(second, &format!("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,{limit},task_memcg={group},task={name},pid=4242,uid=0")),
        line(second, &format!("Memory cgroup out of memory: Killed process 4242 ({name}) total-vm:70000kB, anon-rss:65536kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:180kB oom_score_adj:1000")),
    ]
    .concat()
}

fn seen(text: &str, uptime: u64) -> Seen<(String, Duration)> {
    Ok((text.to_owned(), Duration::from_secs(uptime)))
}

fn told(text: &str) -> Vec<String> {
    let (_, events) = KernelLog::default().judge(&seen(text, 100), &pods(), SystemTime::now());
    events.into_iter().map(|event| event.message).collect()
}

#[test]
fn a_kill_names_victim_container_and_limit_whatever_the_runtime() {
    let underscores = UID.replace('-', "_");
    let pod = format!("/kubepods/burstable/pod{UID}");
    let slice = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscores}.slice");
    let containers = [
        format!("{pod}/{ID}"),
        format!("/kestrel/node1{pod}/{ID}"),
        format!("{slice}/cri-containerd-{ID}.scope"),
        format!("{slice}/crio-{ID}.scope"),
        format!(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscores}.slice/cri-containerd-{ID}.scope"
        ),
    ];
    for group in containers {
        let expected = format!(
            "the kernel killed a,pid=1 (pid 4242, 64 MiB of its own memory) in container 9f86d081884c of pod shop/web-1: \
             the limit of the container's memory was reached; its control group: {group}"
        );
        assert_eq!(told(&killed(99, &group, &group, "a,pid=1")), [expected]);
    }
    let group = format!("{pod}/{ID}");
    let ends = |text: &str, part: &str| told(text)[0].contains(part);
    assert!(ends(&killed(99, &pod, &group, "x"), "the limit of the pod's memory"));
    assert!(ends(&killed(99, "/kubepods", &group, "x"), "the limit of the control group /kubepods was"));
    assert!(ends(&killed(99, "", &group, "x"), "the node had no memory left"));

    // Linux 4.18, as RHEL 8 has it.
    let old = [
        line(99, &format!("Task in {group} killed as a result of limit of {pod}")),
        line(99, "Memory cgroup out of memory: Kill process 4242 (java) score 1900 or sacrifice child"),
        line(99, "Killed process 4242 (java) total-vm:9kB, anon-rss:2048kB, file-rss:0kB, shmem-rss:0kB"),
    ];
    assert!(ends(&old.concat(), "killed java (pid 4242, 2 MiB of its own memory) in container 9f86d081884c"));
}

#[test]
fn kills_elsewhere_are_not_this_nodes() {
    let of = |group: &str| {
        let mut log = KernelLog::default();
        let text = killed(99, group, group, "x");
        let (_, events) = log.judge(&seen(&text, 100), &pods(), SystemTime::now());
        (events.len(), log.strangers())
    };
    assert_eq!(of(&format!("/kubepods/pod{}/{ID}", UID.replace('0', "7"))), (0, 1), "another node's pod");
    assert_eq!(of("/system.slice/ssh.service"), (0, 0));
    assert_eq!(of("/"), (0, 0));
}

#[test]
fn each_kill_is_told_once_and_those_of_long_ago_are_not() {
    let group = format!("/kubepods/pod{UID}/{ID}");
    let (mut log, now) = (KernelLog::default(), SystemTime::now());
    let mut look = |text: &str, uptime| {
        let (_, events) = log.judge(&seen(text, uptime), &pods(), now);
        events
            .into_iter()
            .map(|event| (event.id, now.duration_since(event.time).unwrap().as_secs()))
            .collect::<Vec<_>>()
    };
    let mut text = killed(10, "", &group, "x") + &killed(900, "", &group, "x");
    assert_eq!(look(&text, 1000), [("900000000".to_owned(), 100)]);
    assert_eq!(look(&text, 1010), []);
    text += &killed(1015, "", &group, "x");
    assert_eq!(look(&text, 1020), [("1015000000".to_owned(), 5)]);
    // More of the same moment, and the oldest lines gone.
    let mut text = killed(1015, "", &group, "x") + &killed(1015, "", &group, "y");
    assert_eq!(look(&text, 1030).len(), 1);
    // Another processor's clock is a little behind.
    text += &killed(1014, "", &group, "z");
    assert_eq!(look(&text, 1035), [("1014000000".to_owned(), 21)]);
    assert_eq!(look(&line(1036, "other"), 1040), []);
}

fn states(log: &mut KernelLog, text: &str, uptime: u64) -> Vec<String> {
    let (findings, _) = log.judge(&seen(text, uptime), &pods(), SystemTime::now());
    let troubles = findings.into_iter().filter(|finding| finding.status != Status::False);
    troubles.map(|finding| finding.reason.into_owned()).collect()
}

#[test]
fn trouble_is_over_when_the_kernel_is_quiet_or_says_so() {
    let mut log = KernelLog::default();
    let mut text = line(4, "INFO: task dd:77 blocked for more than 120 seconds.");
    assert_eq!(states(&mut log, &text, 5), ["TaskHung"]);
    text += &line(5, "INFO: task dd:77 blocked in I/O wait for more than 120 seconds.");
    assert_eq!(states(&mut log, &text, 304), ["TaskHung"]);
    assert_eq!(states(&mut log, &text, 305), [""; 0]);
    for said in [
        "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [java:4242]",
        "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0",
        "EXT4-fs (sda1): Remounting filesystem read-only",
        "nf_conntrack: nf_conntrack: table full, dropping packet",
    ] {
        text += &line(400, said);
    }
    let all = ["SoftLockup", "FileSystemError: sda1", "FileSystemReadOnly: sda1", "ConntrackFull"];
    assert_eq!(states(&mut log, &text, 410), all);
    assert_eq!(states(&mut log, &text, 530), all[1..3]);
    assert_eq!(states(&mut log, &text, 1400), all[2..3]);
    text +=
        &line(1401, "EXT4-fs (sda1): re-mounted 0a0b0c0d-1111-2222-3333-444455556666 r/w. Quota mode: none.");
    assert_eq!(states(&mut log, &text, 1402), [""; 0]);
}

#[test]
fn a_file_system_is_writable_again_in_the_words_of_each_kernel() {
    let read_only = [
        "EXT4-fs (sda1): Remounting filesystem read-only",
        "XFS (sda1): Filesystem has been shut down due to log error (0x2).",
        "BTRFS info (device sda1: state EA): forced readonly",
    ];
    for (number, said, is_over) in [
        (0, "EXT4-fs (sda1): re-mounted. Opts: errors=remount-ro", true),
        (0, "EXT4-fs (sda1): re-mounted. Quota mode: none.", true),
        (0, "EXT4-fs (sda1): re-mounted 0a0b ro. Quota mode: none.", false),
        (0, "EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: (null)", true),
        (1, "XFS (sda1): Ending recovery (logdev: internal)", true),
        (1, "XFS (sda1): Unmounting Filesystem 0a0b", true),
        (2, "BTRFS info (device sda1: state EA): last unmount of filesystem 0a0b", true),
        (2, "BTRFS info (device sda1): first mount of filesystem 0a0b", true),
    ] {
        let mut log = KernelLog::default();
        let text = line(1, read_only[number]) + &line(2, said);
        let expected: &[&str] = if is_over { &[] } else { &["FileSystemReadOnly: sda1"] };
        assert_eq!(states(&mut log, &text, 3), expected, "{said}");
        assert_eq!(states(&mut log, &text, 2 + 24 * 3600), [""; 0], "not for ever");
    }
}

#[test]
fn devices_beyond_the_bound_are_counted() {
    let mut log = KernelLog::default();
    let said = |device| line(1, &format!("EXT4-fs error (device dm-{device}): reading directory"));
    let text: String = (0..MOST_DEVICES + 2).map(said).collect();
    assert_eq!(states(&mut log, &text, 2)[0].matches("dm-").count(), MOST_DEVICES);
    assert_eq!(log.left_out(), 2);
}

#[test]
fn the_texts_of_each_file_system_are_known() {
    for (said, expected) in [
        (
            "EXT4-fs error (device nvme0n1p1) in ext4_do_update_inode:5155: IO failure",
            "FileSystemError: nvme0n1p1",
        ),
        ("Buffer I/O error on dev sda1, logical block 5, lost async page write", "FileSystemError: sda1"),
        ("Buffer I/O error on device sda1, logical block 5", "FileSystemError: sda1"),
        (
            "I/O error, dev sdb, sector 2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            "FileSystemError: sdb",
        ),
        ("blk_update_request: critical medium error, dev sdb, sector 2048", "FileSystemError: sdb"),
        ("critical target error, dev sdb, sector 2048", ""),
        ("Aborting journal on device sda1-8.", "FileSystemError: sda1"),
        ("Aborting journal on device dm-0-8.", "FileSystemError: dm-0"),
        ("XFS (dm-0): Metadata corruption detected at xfs_agf_read_verify", "FileSystemError: dm-0"),
        ("XFS (dm-0): Metadata I/O Error (0x1) detected at xfs_trans_read_buf_map", "FileSystemError: dm-0"),
        (
            "XFS (dm-0): metadata I/O error in \"xfs_imap_to_bp\" at daddr 0x1 len 8 error 5",
            "FileSystemError: dm-0",
        ),
        (
            "XFS (dm-0): Corruption of in-memory data (0x8) detected at xfs_defer_finish",
            "FileSystemError: dm-0",
        ),
        ("XFS (dm-0): Filesystem has been shut down due to log error (0x2).", "FileSystemReadOnly: dm-0"),
        ("BTRFS error (device sdb): bdev /dev/sdb errs: wr 1, rd 0", "FileSystemError: sdb"),
        (
            "BTRFS: error (device sdb) in btrfs_run_delayed_refs:2960: errno=-5 IO failure",
            "FileSystemError: sdb",
        ),
        ("BTRFS info (device sdb): forced readonly", "FileSystemReadOnly: sdb"),
        ("BTRFS info (device sdb: state EA): forced readonly", "FileSystemReadOnly: sdb"),
        ("EXT4-fs (sda1): mounted filesystem 0a0b r/w with ordered data mode. Quota mode: none.", ""),
        ("EXT4-fs (sda1): unmounting filesystem 0a0b.", ""),
        ("EXT4-fs (sda1): warning: mounting fs with errors, running e2fsck is recommended", ""),
        ("usb 1-1: device descriptor read/64, error -71", ""),
    ] {
        let expected: Vec<_> = [expected].into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(states(&mut KernelLog::default(), &line(1, said), 2), expected, "{said}");
    }
}

#[test]
fn this_hosts_log_is_read_or_the_missing_right_is_named() {
    match read() {
        Ok(text) => assert!(text.is_empty() || text.starts_with('<'), "{:.80}", text),
        Err(why) => assert!(why.starts_with("the kernel's log: "), "{why}"),
    }
}

#[test]
fn a_log_that_cannot_be_used_is_unknown_with_the_reason() {
    let mut log = KernelLog::default();
    let reasons = |log: &mut KernelLog, seen: &Seen<(String, Duration)>| {
        let (findings, _) = log.judge(seen, &pods(), SystemTime::now());
        assert!(findings.iter().all(|finding| finding.status == Status::Unknown));
        findings[0].message.clone()
    };
    assert_eq!(reasons(&mut log, &Err("CAP_SYSLOG".to_owned())), "CAP_SYSLOG");
    assert!(reasons(&mut log, &seen("<4>no time\n", 1)).contains("printk/parameters/time"));
}
