//! Envoy's access logs: bytes of the wire in, counts out. No tokio, no Kubernetes.
//!
//! [`entry::read`] walks a message where it lies and touches the fields that are used; [`Window`] counts entries by what they
//! have in common, with a path's [`template`] in place of the path. Memory is bounded; what there is no room for in detail
//! is kept as counts.

pub mod entry;
pub mod flags;
pub mod headers;
pub mod identity;
mod key;
pub mod sketch;
pub mod template;
mod window;
mod wire;

pub use key::{Key, Side, names_somebody};
pub use window::{Counts, Fold, Reporter, Rows, Window};
