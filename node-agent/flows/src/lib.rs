//! Network flows: what any source shows of one, Hubble's stream of them, and how they are counted together.
//!
//! The node agent reads the sources of its node with it, the aggregator Hubble Relay.

pub mod counts;
pub mod flow;
pub mod hubble;
pub mod window;
