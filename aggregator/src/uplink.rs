//! The one connection to Kestrel Cloud and its five streams.

pub mod lanes;
mod message;
pub mod metrics;
mod queue;
pub mod receipt;

pub use message::Answer;
