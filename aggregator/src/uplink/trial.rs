//! Tries the connection with the very code that makes it, and opens no stream
//! on it: what the server knows of this cluster stays as it is.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Config, Uplink, lanes::Lanes, metrics::Metrics, problem::Problem};
use crate::inventory::Mirror;

/// Tenant and end of the token that would be shown.
///
/// # Errors
/// There is none that can be of use.
pub async fn token(config: &Config) -> Result<(String, Option<Timestamp>), Problem> {
    let token = config.credentials.token().await?;
    Ok((token.tenant.to_str().unwrap_or_default().to_owned(), token.ends))
}

/// The end of the certificate that would be shown; its key fits it, and there
/// is an authority to trust.
///
/// # Errors
/// There is none that can be of use.
pub async fn certificate(config: &Config) -> Result<Option<Timestamp>, Problem> {
    config.credentials.tls().await?;
    Ok(config.credentials.ends().certificate)
}

/// Connects, until the server has taken the certificate and spoken HTTP/2.
///
/// # Errors
/// What is in the way.
pub async fn server(config: &Config) -> Result<(), Problem> {
    let (lanes, mirror) = (Lanes::new(Metrics::default()), Mirror::default());
    let uplink = Uplink::new(config.clone(), lanes, mirror, Arc::new(|_, _| {}), Metrics::default());
    uplink.connect().await.map(drop)
}
