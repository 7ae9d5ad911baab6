//! A development Kestrel Cloud: a small but real server of the contract.
//!
//! In a test, in process:
//!
//! ```no_run
//! use std::time::Duration;
//! use kestrel_dev_cloud::{Authority, Claims, Config, serve};
//! # async fn example() -> anyhow::Result<()> {
//! let folder = std::env::temp_dir();
//! let cloud = serve(Config::new(Authority::generate()?)).await?;
//! // What an operator needs: ca.crt, client.crt and client.key in a folder, and a token.
//! let client = cloud.authority().client("cluster-1")?;
//! cloud.authority().write_client(&folder, &client)?;
//! let claims = Claims::new("tenant-1", "cluster-1", jiff::Timestamp::now(), 3600);
//! let token = cloud.authority().tokens().mint(&claims)?;
//! // … start the operator against localhost and cloud.address().port() …
//! let limit = Duration::from_secs(10);
//! let pods = cloud.wait_for(limit, |record| {
//!     record.inventory.commits().back()?;
//!     Some(record.inventory.of_kind("pod").count())
//! });
//! assert_eq!(pods.await, Some(3));
//! let request = serde_json::json!({ "kubernetes_api_request": { "api_paths": ["version"] } });
//! let answer = cloud.send(&request, None, limit).await?.answer;
//! cloud.cut_connections();
//! cloud.stop().await?;
//! # drop((token, answer)); Ok(()) }
//! ```
//!
//! [`Record`] says what arrived: `inventory` (latest state by UID, commits), `signals`, `flows`,
//! `logs` (lines, and whether a numbered series is complete), `answers`, `connections` (open,
//! past, refused). A kept [`record::Arrival`] decodes to its generated type with
//! `arrival.message.decode::<Pod>()`.

mod api;
pub mod cli;
pub mod credentials;
pub mod faults;
mod hub;
pub mod record;
mod server;
pub mod wire;

pub use credentials::{Authority, Claims};
pub use faults::Faults;
pub use hub::{SendError, Sent};
pub use record::Record;
pub use server::{CONNECTION_WINDOW, Cloud, Config, MAX_MESSAGE_BYTES, serve};
pub use wire::Stream;
