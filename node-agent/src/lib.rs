//! The agent of one node: pod logs, host conditions and network flows.
//!
//! It knows no API server: whose log a file is says its path, and what is
//! wanted of a pod says the aggregator, over the agent link.

pub mod agent;
pub mod als;
pub mod check;
pub mod config;
pub mod flows;
pub mod host;
pub mod metrics;
pub mod status;
pub mod story;
pub mod tail;
mod unix_grpc;
