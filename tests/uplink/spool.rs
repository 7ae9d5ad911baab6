//! The disk is full before the spool is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kestrel_aggregator::uplink::lanes::Lane;
use kestrel_dev_cloud::{Faults, faults::Door};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    secrets,
    world::{LIMIT, World, cloud},
};

/// What a disk of this size takes of the signals is for a few seconds.
const SIZE: &str = "size=128k";

/// A file system in memory.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(disk.path()).status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "no file system can be mounted, which needs root"
        );
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn spool(&self) -> PathBuf {
        self.path().join("spool")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _it_may_not_be_there = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

async fn until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !happened() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_costs_nothing_and_is_used_again() {
    let disk = Disk::new();
    let mut world = World::with(cloud(|_| {}).await, tempfile::tempdir().unwrap(), disk.spool()).await;
    world.cloud.set_faults(Faults { door: Door::Closed, cut: true, ..Faults::default() });
    let sentence = "signals can't be written to disk and wait in memory alone, which a restart of this pod loses: No \
                    space left on device";
    until("the full disk is said", || secrets::was_said(sentence)).await;
    world.cloud.set_faults(Faults::default());
    world.whole().await;
    assert_eq!(world.metric("messages_dropped_total", Lane::Signals), 0);
    world.traffic.pause().await;
    until("nothing is on disk", || world.metric("spool_bytes", Lane::Signals) == 0).await;
    world.traffic.resume();
    until("signals are on disk again", || world.metric("spool_bytes", Lane::Signals) > 0).await;
    world.end().await;
}
