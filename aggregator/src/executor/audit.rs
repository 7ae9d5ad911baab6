//! What was asked for and what was decided, for the owner of the cluster: a line of the log each, whose hash
//! has that of the line before in it, so that none can be changed or taken out unseen by who can't write those behind
//! it anew; counters; and Events.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use kestrel_runtime::telemetry::AUDIT;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{info, warn};

use super::{
    events::{Place, Untold},
    hidden::hex,
    read::cut,
    reason::{Reason, Refused},
    terminal::printable,
};
use crate::uplink::Request;

/// Of what was asked for, a line shows so much.
const SHOWN_BYTES: usize = 512;
/// Characters of a hash in a line: 128 bits.
const HASH_CHARS: usize = 32;
/// What begins the first line of a process.
const BEGIN: &str = "begin";
/// Finds the lines of the audit in a log.
const MARK: &str = "audit ";

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    Refused(Reason),
}

/// A part of a request: a path, a command, a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// As it was asked for.
    pub what: String,
    pub decision: Decision,
    /// Of HTTP, or of a command.
    pub status: i32,
    /// Of the answer.
    pub bytes: usize,
}

impl Part {
    pub(super) fn refused(what: &str, refused: &Refused) -> Self {
        let (decision, status) = (Decision::Refused(refused.reason), refused.status().into());
        Self { what: what.to_owned(), decision, status, bytes: 0 }
    }
}

/// Counters of requests; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    parts: Family<Labels, Counter>,
    bytes: Counter,
    unwritten: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    request: &'static str,
    decision: &'static str,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Paths, commands, manifests and orders that Kestrel Cloud asked for; decision is allowed, or why it was refused";
        registry.register("requests", help, self.parts.clone());
        registry.register("answer_bytes", "Bytes of what was answered to them", self.bytes.clone());
        let help = "Events about what Kestrel Cloud asked for that could not be written; the log has it";
        registry.register("events_unwritten", help, self.unwritten.clone());
    }
}

/// The chain of this process.
pub(super) struct Audit {
    chain: Mutex<Chain>,
    untold: Mutex<Untold>,
    metrics: Metrics,
}

/// The last line's number and hash.
#[derive(Debug)]
struct Chain {
    number: u64,
    hash: String,
}

impl Chain {
    fn new(first: String) -> Self {
        Self { number: 0, hash: first }
    }

    /// The next line.
    fn line(&mut self, what: &str) -> String {
        self.number += 1;
        let line = format!("{MARK}{} {what} after={}", self.number, self.hash);
        self.hash = hash(&line);
        format!("{line} hash={}", self.hash)
    }
}

/// What was asked for as far as a line shows it, and of what is longer, what tells it from others that begin so.
fn shown(what: &str) -> (String, String) {
    let mut text = printable(what).into_owned();
    if text.len() <= SHOWN_BYTES {
        return (text, String::new());
    }
    cut(&mut text, SHOWN_BYTES);
    let whole = hex(digest(&SHA256, what.as_bytes()).as_ref());
    (text, format!("… {} bytes sha256={whole}", what.len()))
}

fn hash(line: &str) -> String {
    let mut hash = hex(digest(&SHA256, line.as_bytes()).as_ref());
    hash.truncate(HASH_CHARS);
    hash
}

/// The kind of a request, as a label.
pub(super) fn kind(request: &Request) -> &'static str {
    match request {
        Request::KubernetesApi(_) => "kubernetes_api",
        Request::ShellCommand(_) => "shell_command",
        Request::YamlDryRun(_) => "yaml_dry_run",
        Request::YamlApply(_) => "yaml_apply",
        Request::CertificateRenewal(_) => "certificate_renewal",
        Request::OperatorRestart(_) => "operator_restart",
        Request::MetricsQuery(_) => "metrics_query",
        Request::DatadogQuery(_) => "datadog_query",
        Request::NetworkPolicy(_) => "network_policy",
    }
}

/// Who asked: a request's kind and id.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub kind: &'static str,
    pub id: String,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        let id = match request {
            Request::KubernetesApi(it) => &it.request_id,
            Request::ShellCommand(it) => &it.request_id,
            Request::YamlDryRun(it) => &it.request_id,
            Request::YamlApply(it) => &it.request_id,
            Request::CertificateRenewal(it) => &it.request_id,
            Request::OperatorRestart(it) => &it.request_id,
            Request::MetricsQuery(it) => &it.request_id,
            Request::DatadogQuery(it) => &it.request_id,
            Request::NetworkPolicy(it) => &it.policy_id,
        };
        let mut id = id.clone();
        cut(&mut id, 64);
        Self { kind: kind(request), id }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Refused(reason) => write!(f, "refused={}", reason.as_str()),
        }
    }
}

impl Audit {
    /// `process` tells one chain from another, such as the moment of the start.
    pub(super) fn new(metrics: Metrics, process: &str) -> Self {
        let chain = Mutex::new(Chain::new(format!("{BEGIN}-{process}")));
        Self { chain, untold: Mutex::default(), metrics }
    }

    /// Writes a line of what was answered to each part.
    pub(super) fn tell(&self, asked: &Asked, parts: &[Part], took: Duration) {
        // What asks for nothing is in the audit too.
        let nothing = Part { what: String::new(), decision: Decision::Allowed, status: 200, bytes: 0 };
        let parts = if parts.is_empty() { std::slice::from_ref(&nothing) } else { parts };
        for Part { what, decision, status, bytes } in parts {
            let label = match decision {
                Decision::Allowed => "allowed",
                Decision::Refused(reason) => reason.as_str(),
            };
            self.metrics.parts.get_or_create(&Labels { request: asked.kind, decision: label }).inc();
            self.metrics.bytes.inc_by(*bytes as u64);
            let (what, rest) = shown(what);
            let Asked { kind, id } = asked;
            let milliseconds = took.as_millis();
            let text = format!(
                "{kind} id={id:?} {what:?}{rest} {decision} status={status} bytes={bytes} ms={milliseconds}"
            );
            // Both are whole after every line.
            let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
            info!(target: AUDIT, "{}", chain.line(&text));
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            untold.add(chain.number, kind, &what, *decision);
        }
    }

    /// Writes Events of what was decided since the last time.
    pub(super) async fn tell_events(&self, place: &Place) {
        let tellings = self.untold.lock().unwrap_or_else(PoisonError::into_inner).take();
        for telling in tellings {
            if let Err(error) = place.write(telling).await {
                self.metrics.unwritten.inc();
                warn!("no Event can be written of what Kestrel Cloud asked for: {}", error.root_cause());
            }
        }
    }
}

/// What a log says of its own audit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines of the audit that follow from the one before.
    pub sound: u64,
    /// Processes that began a chain.
    pub chains: u64,
    /// Lines that were changed or added, or before which some are missing, by their number in the log.
    pub broken: Vec<u64>,
}

/// What a line of the log says: what stands in its midst may come from anybody.
fn behind_level(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        let (word, behind) = rest.split_once(' ')?;
        rest = behind.trim_start();
        if matches!(word, "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR") {
            return Some(rest);
        }
    }
}

/// A line of the audit: its text, its number, the hash of the line before, and its own.
fn told(line: &str) -> Option<(&str, u64, &str, &str)> {
    let (body, hash) = line.trim_end().rsplit_once(" hash=")?;
    let (text, after) = body.rsplit_once(" after=")?;
    let number = text.strip_prefix(MARK)?.split(' ').next()?.parse().ok()?;
    Some((body, number, after, hash))
}

/// Checks the lines of the audit in a log, as it was written in text.
pub fn verify(log: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let mut last = (0, "");
    for (place, line) in (1_u64..).zip(log.lines()) {
        let Some(line) = behind_level(line).filter(|line| line.starts_with(MARK)) else { continue };
        let Some((body, number, after, told)) = told(line) else {
            verdict.broken.push(place);
            continue;
        };
        let begins = after.starts_with(BEGIN);
        verdict.chains += u64::from(begins);
        let follows = if begins { number == 1 } else { last == (number.wrapping_sub(1), after) };
        if follows && hash(body) == told {
            verdict.sound += 1;
        } else {
            verdict.broken.push(place);
        }
        last = (number, told);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_line_quotes_is_no_line_of_the_audit() {
        let mut chain = Chain::new("begin-x".to_owned());
        let [one, other] = ["get \"1\"", "get \"2\""].map(|what| chain.line(what));
        let log = format!(
            "2026-01-02T03:04:05Z  INFO {one}\n2026-01-02T03:04:05Z  WARN a pod says: INFO audit 9 get after=begin-y hash=0\n\
             [pod/kestrel-aggregator/aggregator] 2026-01-02T03:04:05Z  INFO {other}\n"
        );
        assert_eq!(verify(&log), Verdict { sound: 2, chains: 1, broken: vec![] });
    }

    #[test]
    fn what_is_too_long_for_a_line_is_told_apart_from_what_begins_so() {
        let long = |end: &str| shown(&("x".repeat(600) + end));
        let (one, other) = (long("a"), long("b"));
        assert_eq!((one.0.len(), one.0 == other.0, one.1 == other.1), (SHOWN_BYTES, true, false));
        assert!(one.1.starts_with("… 601 bytes sha256="), "{}", one.1);
        assert_eq!(shown("get").1, "");
    }

    #[test]
    fn a_line_that_is_changed_missing_or_added_breaks_the_chain() {
        let mut chain = Chain::new("begin-x".to_owned());
        let lines: Vec<String> =
            (0..5).map(|n| format!("time INFO {}", chain.line(&format!("get \"{n}\"")))).collect();
        let judge = |lines: &[String]| {
            let verdict = verify(&lines.join("\n"));
            (verdict.sound, verdict.broken)
        };
        assert_eq!(judge(&lines), (5, vec![]));
        let mut changed = lines.clone();
        changed[2] = changed[2].replace("get \"2\"", "get \"9\"");
        assert_eq!(judge(&changed), (4, vec![3]));
        let mut shorter = lines.clone();
        shorter.remove(1);
        assert_eq!(judge(&shorter), (3, vec![2]));
        let mut twice = lines.clone();
        twice.insert(3, lines[0].clone());
        // The one that begins anew is sound in itself; the one behind it does not follow from it.
        assert_eq!(judge(&twice), (5, vec![5]));
        let mut added = lines.clone();
        added.insert(2, "time INFO audit 3 get \"9\"".to_owned());
        assert_eq!(judge(&added), (5, vec![3]), "without a hash");
        // Whose hashes are right, and whose numbers tell that something was between them.
        let mut other = Chain { number: 7, hash: chain.hash.clone() };
        let gap = [&lines[..], &[format!("time INFO {}", other.line("get"))]].concat();
        assert_eq!(judge(&gap), (5, vec![6]));
        let mut begun = Chain { number: 1, hash: "begin-x".to_owned() };
        assert_eq!(judge(&[format!("time INFO {}", begun.line("get"))]), (0, vec![1]));
        let mut again = Chain::new("begin-y".to_owned());
        let both: Vec<String> =
            lines.iter().cloned().chain([format!("time INFO {}", again.line("get"))]).collect();
        assert_eq!(verify(&both.join("\n")).chains, 2);
        assert_eq!(judge(&both).1, Vec::<u64>::new());
    }
}
