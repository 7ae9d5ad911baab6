//! A namespace for one test.

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::kubectl::{attempt, kubectl};

/// Deleted when the test ends; if it failed, its state is printed before.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new(subject: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{subject}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        kubectl(&["create", "namespace", &name]);
        Self(name)
    }

    /// The one that the suite's values exclude.
    pub(crate) fn excluded() -> Self {
        let name = "test-excluded".to_owned();
        kubectl(&["create", "namespace", &name]);
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            for args in [
                ["get", "pods,events", "-o", "wide", "-n", &self.0].as_slice(),
                &["logs", "-n", &self.0, "--all-containers", "--tail=20", "--prefix", "-l", "!no-such-label"],
            ] {
                let state = attempt(args).unwrap_or_else(|error| error);
                println!("--- kubectl {}\n{state}", args.join(" "));
            }
        }
        let _best_effort = attempt(&["delete", "namespace", &self.0, "--wait=false"]);
    }
}
