//! The mutating admission webhook: gives a pod that asks for it a collector of
//! its own, and says why where it does not.

pub mod admission;
pub mod certificate;
pub mod config;
pub mod inject;
pub mod link_ca;
