//! Judges requests without a cluster, by the code that judges them in one: `kestrel-aggregator policy test`.

use std::io::{self, Write};

use serde::Deserialize;

use super::{command::Command, dry_run, path::Readable, rules::Rules};
use crate::excluded::Excluded;

/// Of a part, the verdict shows so much.
const SHOWN_CHARS: usize = 120;

/// A line of the file: a request as `hack/dev-cloud send json` takes it, and what is expected of each of its parts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    kubernetes_api_request: Option<Paths>,
    #[serde(default)]
    shell_command_request: Option<Commands>,
    #[serde(default)]
    yaml_dry_run_request: Option<Manifests>,
    /// `allowed`, or the word of a reason.
    #[serde(default)]
    expect: Option<String>,
}

#[derive(Deserialize)]
struct Paths {
    api_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Commands {
    commands: Vec<String>,
}

#[derive(Deserialize)]
struct Manifests {
    yaml_manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    yaml_content: String,
}

/// What was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Parts that would run.
    pub allowed: u64,
    /// Parts that would be refused.
    pub refused: u64,
    /// Parts that were expected to be judged otherwise, and lines that are no request.
    pub wrong: u64,
}

/// Judges each line of `requests` and says so in a line of `out`.
///
/// # Errors
/// `out` does not take it.
pub fn test(requests: &str, rules: Rules, excluded: &Excluded, out: &mut dyn Write) -> io::Result<Summary> {
    let mut summary = Summary::default();
    for (number, line) in (1_u64..).zip(requests.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => {
                summary.wrong += 1;
                writeln!(out, "{number}: NOT A REQUEST: {error}")?;
                continue;
            }
        };
        let paths = line.kubernetes_api_request.map(|it| it.api_paths).unwrap_or_default();
        let commands = line.shell_command_request.map(|it| it.commands).unwrap_or_default();
        let manifests = line.yaml_dry_run_request.map(|it| it.yaml_manifests).unwrap_or_default();
        let judged = paths
            .iter()
            .map(|path| (path, Readable::parse(path).and_then(|it| it.under(rules, excluded)).map(|_| ())))
            .chain(commands.iter().map(|command| {
                (command, Command::parse(command).and_then(|it| it.under(rules, excluded)).map(|_| ()))
            }))
            .chain(
                manifests
                    .iter()
                    .map(|manifest| (&manifest.yaml_content, dry_run::judge(&manifest.yaml_content, rules))),
            );
        for (part, verdict) in judged {
            let word = match &verdict {
                Ok(()) => "allowed",
                Err(refused) => refused.reason.as_str(),
            };
            match &verdict {
                Ok(()) => summary.allowed += 1,
                Err(_) => summary.refused += 1,
            }
            let mut shown: String = part.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
            if part.chars().nth(SHOWN_CHARS).is_some() {
                shown.push('…');
            }
            match line.expect.as_deref() {
                Some(expected) if expected != word => {
                    summary.wrong += 1;
                    writeln!(out, "{number}: WRONG: {word}, and {expected} was expected: {shown}")?;
                }
                _ => writeln!(out, "{number}: {word}: {shown}")?,
            }
            if let Err(refused) = verdict {
                writeln!(out, "    {}", refused.why)?;
            }
        }
    }
    Ok(summary)
}
