//! The one connection between a cluster and Kestrel Cloud.

pub mod als;
pub mod check;
pub mod config;
pub mod excluded;
pub mod executor;
pub mod inventory;
pub mod istio;
pub mod leader;
pub mod link;
pub mod own_logs;
mod owner;
mod rights;
pub mod run;
pub mod signals;
pub mod stats;
pub mod status;
pub mod traffic;
pub mod uplink;
