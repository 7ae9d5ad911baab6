//! The sidecar: file logs of one pod.
//!
//! It must not take its pod down: it opens no port, but on the loopback for its proxy where that is asked for, needs next to nothing while
//! idle, and ends only when it is asked to. What it cannot do it says once, in a
//! sentence, and waits.

pub mod als;
pub mod collector;
pub mod config;
