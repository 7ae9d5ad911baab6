//! What every daemon of the operator needs, and nothing of what any of them
//! is for: configuration, telemetry, ports, start and drain, TLS
//! material, back-off, what `check` says and who the process is.

pub mod admin;
pub mod backoff;
pub mod check;
pub mod config;
pub mod daemon;
pub mod limits;
pub mod listen;
pub mod service_account;
pub mod telemetry;
pub mod tls;
