//! The uplink against the development cloud: real sockets, real TLS.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod als;
mod credentials;
mod executor;
mod kill;
mod process;
mod proxy;
mod renewal;
mod rig;
mod secret;
mod streams;
