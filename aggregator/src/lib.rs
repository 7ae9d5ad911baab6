//! The one connection between a cluster and Kestrel Cloud.

pub mod inventory;
pub mod link;
pub mod signals;
pub mod uplink;
