//! The process's own log, on standard error.

use std::{fmt, io};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::{ParseError, Targets},
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

use crate::config::{Environment, Source};

/// The Kubernetes client reports each failure to its caller, who says it in a
/// sentence, and logs it as well. A filter that names these targets wins.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// The target of lines that are written whatever the level is: a record with holes is none.
pub const AUDIT: &str = "audit";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, for programs.
    Json,
    /// Time, level and sentence, for people.
    Text,
}

/// A warning or an error of the operator's own crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// An error, not a warning.
    pub is_error: bool,
    /// The module that says it.
    pub module: &'a str,
    /// What it says, fields included.
    pub sentence: &'a str,
}

/// Hears what is said, at once and in the speaker's thread. It must not log.
pub type Listener = Box<dyn Fn(Said<'_>) + Send + Sync>;

/// Starts the log: level from `KESTREL_LOG` (a level, or `target=level` with commas between; default
/// `info`), which does not hold for [`AUDIT`]; format from `KESTREL_LOG_FORMAT` (`json` or `text`), else `default`.
///
/// # Errors
/// A filter or format that can't be understood, in a sentence.
pub fn init(default: Format) -> anyhow::Result<()> {
    init_heard(default, None)
}

/// Like [`init`], and what passes the filter is heard.
///
/// # Errors
/// As [`init`].
pub fn init_heard(default: Format, listener: Option<Listener>) -> anyhow::Result<()> {
    let filter = Environment.get("KESTREL_LOG").unwrap_or_else(|| "info".to_owned());
    let filter =
        targets(&filter).map_err(|error| anyhow::anyhow!("KESTREL_LOG={filter:?} is not usable: {error}"))?;
    let format = match Environment.get("KESTREL_LOG_FORMAT").as_deref() {
        None => default,
        Some("json") => Format::Json,
        Some("text") => Format::Text,
        Some(other) => anyhow::bail!("KESTREL_LOG_FORMAT={other:?} is not usable: it is json or text"),
    };
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let log = match format {
        Format::Json => log.json().flatten_event(true).boxed(),
        Format::Text => log.with_ansi(false).boxed(),
    };
    Registry::default().with(log).with(listener.map(Hearing)).with(filter).init();
    Ok(())
}

/// Of two directives for a target the later one holds.
fn targets(filter: &str) -> Result<Targets, ParseError> {
    format!("{QUIET},{filter},{AUDIT}=info").parse()
}

struct Hearing(Listener);

impl<S: Subscriber> Layer<S> for Hearing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // Other crates' sentences are not made for readers far away, and who
        // knows what is in them.
        if *metadata.level() > Level::WARN || !metadata.target().starts_with("kestrel_") {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        (self.0)(Said {
            is_error: *metadata.level() == Level::ERROR,
            module: metadata.target(),
            sentence: &format!("{}{}", words.message, words.fields),
        });
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{error, info, subscriber, warn};

    use super::*;

    #[test]
    fn the_audit_is_written_at_every_level() {
        for filter in ["warn", "off", "audit=off", "info,audit=error", "kestrel_aggregator=debug"] {
            let targets = targets(filter).unwrap();
            assert!(targets.would_enable(AUDIT, &Level::INFO), "{filter}");
        }
        let quiet = targets("warn").unwrap();
        assert!(!quiet.would_enable("kestrel_aggregator::executor", &Level::INFO));
        assert!(!targets("info").unwrap().would_enable("kube_client::client", &Level::ERROR));
        assert!(targets("nonsense=loud").is_err());
    }

    #[test]
    fn only_warnings_and_errors_of_our_own_are_heard() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener: Listener = Box::new({
            let heard = Arc::clone(&heard);
            move |said| heard.lock().unwrap().push(format!("{} {}", said.is_error, said.sentence))
        });
        subscriber::with_default(Registry::default().with(Hearing(listener)), || {
            info!("a small thing");
            warn!(node = "n1", "no answer from {}", "there");
            error!("an end");
            warn!(target: "h2::client", "not ours");
        });
        assert_eq!(heard.lock().unwrap()[..], ["false no answer from there node=\"n1\"", "true an end"]);
    }
}
