//! Envoy's access logs: bytes of the wire in, counts out. No Kubernetes.
//!
//! [`entry::read`] walks a message where it lies and touches the fields that are used; [`Window`] counts entries by what they
//! have in common, with a path's [`template`] in place of the path. Memory is bounded; what there is no room for in detail
//! is kept as counts. All of that is pure; [`receive`] is the server around it, for whoever is nearest to a proxy: its pod's
//! collector, its node's agent, or the aggregator, to which the other two send what they have counted.

pub mod counter;
mod counts;
pub mod entry;
pub mod flags;
pub mod headers;
pub mod identity;
mod key;
pub mod metrics;
pub mod receive;
mod report;
mod send;
pub mod sketch;
mod sources;
mod spans;
pub mod template;
mod window;
mod wire;

pub use counts::Counts;
pub use key::{Key, Side, names_somebody};
pub use report::Identify;
pub use sources::Tally;
pub use spans::Span;
pub use window::{Fold, Reporter, Room, Rows, Window};
