//! The mutating admission webhook: gives a pod that asks for it a collector of
//! its own, and says why where it does not.

pub mod admission;
pub mod api_server;
pub mod certificate;
pub mod cluster;
pub mod config;
pub mod coverage;
pub mod explain;
pub mod files;
pub mod inject;
pub mod link_ca;
pub mod offline;
pub mod profile;
mod quantity;
pub mod watch;
pub mod words;
