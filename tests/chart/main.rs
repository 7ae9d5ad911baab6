//! The Helm chart, rendered by Helm itself.
//!
//! Helm is the program that `KESTREL_HELM` names, else `helm` on the path, else the one that `hack/cluster` keeps in
//! its cache. Some tests have an API server of their own (`hack/api-server`), and one needs the schemas
//! that `hack/schemas` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "clippy.toml allows them in test functions only")]

mod access_logs;
#[path = "../api_server.rs"]
mod api_server;
mod credentials;
mod drift;
mod gates;
mod helm;
mod istio;
mod monitoring;
mod network_policies;
mod notes;
mod rights;
mod schema;
mod server_certificates;
mod upgrade;
mod values;
mod workloads;
