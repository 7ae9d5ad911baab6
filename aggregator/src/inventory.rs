//! The cluster's inventory.

pub mod convert;
mod kind;
pub mod mirror;
pub mod pods;

pub use kind::Kind;
pub use mirror::Mirror;
pub use pods::Pods;
