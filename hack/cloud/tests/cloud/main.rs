//! The cloud as an operator and a test meet it: real TLS and HTTP over the loopback.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod faults;
mod operator;
mod query;
mod refusals;
mod streams;
