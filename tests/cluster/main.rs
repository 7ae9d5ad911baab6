//! The real-cluster suite: the installed operator, a development cloud and
//! real pods. `hack/test` installs both and runs it; every step is a `kubectl`
//! command that a person can repeat.
//!
//! The tests share one installation and disturb it on purpose, so they run
//! one after another; those of warnings and of incidents of pods and workloads disturb only what
//! they made, and run at the same time before.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise"
)]

mod api_server;
mod connection;
#[path = "../executor/corpus.rs"]
mod corpus;
mod credentials;
mod executor;
mod flows;
mod gaps;
mod host_reads;
mod incidents;
mod injection;
mod kubectl;
mod leadership;
mod link;
mod logs;
mod namespace;
mod policy;
mod process;
mod upgrade;
mod webhook;
