//! The uplink against the development cloud over real sockets, with every
//! fault that the cloud can produce.
//!
//! After each fault the cloud's record must be whole ([`world::World::whole`]):
//! the inventory equals the mirror's content, every numbered signal, line and
//! flow that went in came out, first occurrences in order, repeats only where
//! the resend window allows them, and the counters add up.
//!
//! One case of every class runs always; `KESTREL_FULL=1` runs them all, with
//! the real times. Networks need root and iproute2, the full disk root.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod cluster;
mod connection;
mod credentials;
mod half_open;
mod network;
mod secrets;
mod spool;
mod streams;
mod traffic;
mod urgency;
mod world;

/// Whether the long forms run.
fn is_full() -> bool {
    std::env::var_os("KESTREL_FULL").is_some_and(|value| value == "1")
}
