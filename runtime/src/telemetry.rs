//! The process's own log, on standard error.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{Environment, Source};

/// The Kubernetes client reports each failure to its caller, who says it in a
/// sentence, and logs it as well. A filter that names these targets wins.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, for programs.
    Json,
    /// Time, level and sentence, for people.
    Text,
}

/// Starts the log: level from `KESTREL_LOG` (a `tracing` filter, default
/// `info`), format from `KESTREL_LOG_FORMAT` (`json` or `text`), else `default`.
///
/// # Errors
/// A filter or format that can't be understood, in a sentence.
pub fn init(default: Format) -> anyhow::Result<()> {
    let filter = Environment.get("KESTREL_LOG").unwrap_or_else(|| "info".to_owned());
    let filter: EnvFilter = format!("{QUIET},{filter}")
        .parse()
        .map_err(|error| anyhow::anyhow!("KESTREL_LOG={filter:?} is not usable: {error}"))?;
    let format = match Environment.get("KESTREL_LOG_FORMAT").as_deref() {
        None => default,
        Some("json") => Format::Json,
        Some("text") => Format::Text,
        Some(other) => anyhow::bail!("KESTREL_LOG_FORMAT={other:?} is not usable: it is json or text"),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match format {
        Format::Json => log.json().flatten_event(true).init(),
        Format::Text => log.with_ansi(false).init(),
    }
    Ok(())
}
