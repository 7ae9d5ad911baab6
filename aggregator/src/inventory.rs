//! The cluster's inventory.

pub mod convert;
mod kind;
pub mod mirror;

pub use kind::Kind;
pub use mirror::Mirror;
