//! Command lines, answered in the process: by a grammar of argv instead of a shell, and by the client of the
//! API instead of programs. What kubectl would print is printed.

mod about;
mod access;
mod describe;
mod diff;
mod discovery;
mod events;
mod explain;
mod filter;
mod flags;
mod get;
mod here;
mod host;
mod json_text;
mod jsonpath;
mod kubectl;
mod logs;
mod pattern;
mod quantity;
mod refused;
mod rollout;
mod room;
mod session;
mod table;
mod top;
mod verbs;
mod words;
mod work;
mod yaml;

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{ShellCommandRequest, ShellCommandResponse, ShellCommandResult};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

pub(super) use self::{
    discovery::Resource,
    session::{Kinds, Session, Trouble},
};
use self::{filter::Filter, kubectl::Kubectl, refused::PROGRAMS, verbs::Does};
use super::{
    audit::{Decision, Part},
    cluster::{Cluster, apart},
    dry_run,
    places::Place,
    read::{ANSWER_BYTES, PATHS, TEXT_BYTES, cut, cut_lines, limit},
    reason::{Reason, Refused},
    refusal::NOT_EXECUTED,
    rules::Rules,
};
use crate::{excluded::Excluded, link::Nodes};

/// For a batch that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Before filters and shares, the output of one command is no larger.
const OUTPUT_BYTES: usize = ANSWER_BYTES;
/// Lines that a filter reads: those that sort or look back hold some 100 bytes beside each.
const LINES: usize = 500_000;
/// Of the errors of a command.
const ERROR_BYTES: usize = 16 * 1024;
/// That of `timeout` for one that took too long.
const TIMED_OUT: i32 = 124;

/// A command line that was understood.
#[derive(Clone, Debug)]
pub(super) struct Command {
    kubectl: Kubectl,
    filters: Vec<Filter>,
}

impl Command {
    /// Whether its output is JSON, which is none without its end.
    fn prints_json(&self) -> bool {
        let format = self.kubectl.arguments.value("output").unwrap_or_default();
        self.filters.is_empty() && (format == "json" || format.starts_with("jsonpath-as-json"))
    }

    /// Reads a line, or one with a manifest behind it.
    ///
    /// # Errors
    /// It is none that runs, and why.
    pub(super) fn parse(line: &str) -> Result<Self, Refused> {
        let (line, manifest) = match here::split(line)? {
            Some((line, manifest)) => (Cow::Owned(line), Some(manifest)),
            None => (Cow::Borrowed(line), None),
        };
        let stages = words::split(&line)?;
        let Some((first, rest)) = stages.split_first() else {
            return Err(Refused::new(Reason::Malformed, "the command is empty"));
        };
        let (program, arguments) =
            first.split_first().map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
        if program != "kubectl" {
            return Err(other_program(program));
        }
        let kubectl = Kubectl::parse(arguments, manifest)?;
        let filters = rest.iter().map(|words| Filter::parse(words)).collect::<Result<_, _>>()?;
        Ok(Self { kubectl, filters })
    }

    /// The same, if the owner of the cluster allows what it asks for, as far as its words tell. What they do not
    /// tell is judged with each path that is asked for.
    ///
    /// # Errors
    /// It asks for Secrets, for what stays in the cluster, or for a dry run that is not allowed.
    pub(super) fn under(self, rules: Rules, excluded: &Excluded) -> Result<Self, Refused> {
        if self.kubectl.asks_for_secrets() && !rules.secret_hashes {
            return Err(Refused::new(
                Reason::Secret,
                "Secrets are not read; their owner may allow hashes of their values (Helm: operator.executor.secretHashes)",
            ));
        }
        let kept = match self.kubectl.tells_of() {
            Some(Some(namespace)) => excluded.has(namespace),
            Some(None) => !excluded.is_empty(),
            None => false,
        };
        if kept {
            let why = "logs and events of this namespace stay in the cluster (Helm: data.namespaces.exclude)";
            return Err(Refused::new(Reason::Kept, why));
        }
        if let Some(manifest) = &self.kubectl.manifest {
            dry_run::judge(manifest, rules)?;
        }
        Ok(self)
    }
}

fn other_program(program: &str) -> Refused {
    if program.contains('=') {
        return Refused::new(Reason::Shell, "there is no environment: write values into the command");
    }
    if let Some((_, reason, why)) = PROGRAMS.iter().find(|(names, ..)| names.contains(&program)) {
        return Refused::new(*reason, format!("{program} is not run: {why}"));
    }
    if filter::FILTERS.iter().any(|(name, _)| *name == program) {
        return Refused::new(
            Reason::File,
            format!("{program} stands behind a pipe alone, as there are no files"),
        );
    }
    if program.contains(['/', '\\']) {
        return Refused::new(
            Reason::File,
            "no program is started, wherever it lies: kubectl is answered by the operator itself",
        );
    }
    let mut shown = program.to_owned();
    cut(&mut shown, 64);
    Refused::new(
        Reason::Unknown,
        format!("{shown:?} is not run: the commands that are answered are in docs/commands.md"),
    )
}

/// What a command prints.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
    /// Objects that were tried, for the audit.
    pub tried: Vec<String>,
}

impl Output {
    fn of(stdout: String) -> Self {
        Self { stdout, ..Self::default() }
    }

    fn fails(&mut self, trouble: &Trouble) {
        self.stderr.push_str(&trouble.line());
        self.stderr.push('\n');
        self.code = 1;
    }

    /// What a filter reads, and says what it does not.
    fn bound(&mut self) {
        let end =
            self.stdout.match_indices('\n').nth(LINES - 1).map_or(self.stdout.len(), |(end, _)| end + 1);
        if cut_lines(&mut self.stdout, OUTPUT_BYTES.min(end)) {
            self.warn("cut at 8 MiB or 500,000 lines before a filter: ask for less");
        }
    }

    fn warn(&mut self, text: &str) {
        self.stderr.push_str(&format!("warning: {text}\n"));
    }
}

/// How long `request` may take, from its arrival.
pub(super) fn limit_of(request: &ShellCommandRequest) -> Duration {
    limit(request.timeout_seconds, DEFAULT_TIMEOUT)
}

/// Runs the commands of `request` one after another, until the deadline of `place`, which others have in between. Says of
/// each what was decided.
pub(super) async fn answer(
    (cluster, kinds, nodes): (&Cluster, &Kinds, &Nodes),
    rules: Rules,
    request: ShellCommandRequest,
    place: &mut Place<'_>,
) -> (ShellCommandResponse, Vec<Part>) {
    let (seconds, deadline) = (limit_of(&request).as_secs(), place.deadline);
    let ShellCommandRequest { request_id, commands, .. } = request;
    if commands.len() > PATHS {
        let why = format!("{} commands in one request are too many: at most {PATHS}", commands.len());
        let refused = Refused::new(Reason::TooLarge, why);
        let global_error_message = refused.to_string();
        let response = ShellCommandResponse { request_id, results: Vec::new(), global_error_message };
        return (response, vec![Part::refused("", &refused)]);
    }
    let share = (ANSWER_BYTES / commands.len().max(1)).saturating_sub(ERROR_BYTES + TEXT_BYTES);
    let (mut results, mut parts) = (Vec::with_capacity(commands.len()), Vec::with_capacity(commands.len()));
    let mut held = 0;
    for line in commands {
        let read = || Command::parse(&line).and_then(|command| command.under(rules, &cluster.excluded));
        let parsed = apart(line.len(), read);
        let is_json = parsed.as_ref().is_ok_and(Command::prints_json);
        let (mut output, decision) = match parsed {
            Err(refused) => (
                Output { stderr: refused.to_string(), code: NOT_EXECUTED, ..Output::default() },
                Decision::Refused(refused.reason),
            ),
            Ok(command) => {
                let has_turn = results.is_empty() || timeout_at(deadline, place.pass(held)).await.is_ok();
                if command.kubectl.host.is_some() {
                    // Its node may be a while with it, and prints little.
                    place.lend(held + Nodes::ANSWER_BYTES);
                }
                let own = command.kubectl.arguments.value("request-timeout").and_then(logs::seconds);
                let deadline =
                    own.map_or(deadline, |own| deadline.min(Instant::now() + Duration::from_secs(own)));
                let session = Session { room: Session::room(), cluster, rules, kinds, nodes, deadline };
                let ran = if has_turn { run(&session, command).await } else { None };
                match ran {
                    Some((output, refused)) => (output, refused.map_or(Decision::Allowed, Decision::Refused)),
                    None => {
                        let stderr = format!("error: no answer within the {seconds} s of this request");
                        (Output { stderr, code: TIMED_OUT, ..Output::default() }, Decision::Allowed)
                    }
                }
            }
        };
        let whole = output.stdout.len();
        if cut_lines(&mut output.stdout, share) {
            let kept = output.stdout.len();
            output.warn(&format!(
                "cut to {kept} of {whole} bytes: ask for less, or pick fields with -o jsonpath"
            ));
            if is_json && output.code == 0 {
                // Whoever reads it by a program has to know that it has no end.
                output.code = 1;
            }
        }
        cut(&mut output.stderr, ERROR_BYTES);
        held += output.stdout.len() + output.stderr.len();
        let Output { stdout, stderr, code, tried } = output;
        let what = match (tried.is_empty(), line.lines().next()) {
            (false, Some(first)) => format!("{first}: {}", tried.join(", ")),
            _ => line.clone(),
        };
        parts.push(Part { what, decision, status: code, bytes: stdout.len() });
        let mut command = line;
        cut(&mut command, TEXT_BYTES);
        results.push(ShellCommandResult { command, success: code == 0, stdout, stderr, exit_code: code });
    }
    (ShellCommandResponse { request_id, results, global_error_message: String::new() }, parts)
}

/// Runs one command and its filters; the reason, if what it asked for turned out to be refused. Nothing, if there
/// was not enough time: then what ran has ended.
async fn run(session: &Session<'_>, command: Command) -> Option<(Output, Option<Reason>)> {
    let Command { kubectl, filters } = command;
    let work = async {
        let shown = match kubectl.verb.does {
            Does::Get => get::run(session, &kubectl).await,
            Does::Describe => describe::run(session, &kubectl).await,
            Does::Logs => logs::run(session, &kubectl).await,
            Does::Events => events::run(session, &kubectl).await,
            Does::TopPod => top::pods(session, &kubectl).await,
            Does::TopNode => top::nodes(session, &kubectl).await,
            Does::Explain => explain::run(session, &kubectl).await,
            Does::CanI => access::run(session, &kubectl).await,
            Does::RolloutStatus => rollout::status(session, &kubectl).await,
            Does::RolloutHistory => rollout::history(session, &kubectl).await,
            Does::Version => about::version(session, &kubectl).await,
            Does::ApiResources => about::resources(session, &kubectl).await,
            Does::ApiVersions => about::versions(session).await,
            Does::ClusterInfo => about::cluster(session).await,
            Does::Debug => host::run(session, &kubectl).await,
            Does::Diff => diff::run(session, &kubectl).await,
        };
        let output = shown.or_else(|trouble| {
            let mut output = Output::default();
            output.fails(&trouble);
            match trouble {
                Trouble::Refused(refused) => Err((Output { code: NOT_EXECUTED, ..output }, refused.reason)),
                _ => Ok(output),
            }
        });
        match output {
            Ok(output) => (filtered(session, output, filters).await, None),
            Err((output, reason)) => (output, Some(reason)),
        }
    };
    let done = timeout_at(session.deadline, work).await.ok();
    if done.is_none() {
        session.ended().await;
    }
    done
}

/// What filters leave of an output.
async fn filtered(session: &Session<'_>, mut output: Output, filters: Vec<Filter>) -> Output {
    if filters.is_empty() {
        return output;
    }
    let passed = session.apart(move |work| {
        let own = output.code;
        for filter in &filters {
            output.bound();
            // Nobody waits for what was stopped.
            let Some((stdout, code)) = filter.apply(&output.stdout, &work.stop) else { break };
            // The last one's code counts as in a pipe, but a command that failed stays failed: what filters make of
            // nothing looks like an answer.
            output = Output { stdout, code: own.max(code), ..output };
        }
        output
    });
    passed.await.unwrap_or_else(|trouble| {
        let mut failed = Output::default();
        failed.fails(&trouble);
        failed
    })
}

/// How long ago a moment was, in kubectl's words.
fn age(moment: Option<&str>) -> String {
    let Some(moment) = moment.and_then(|moment| moment.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    human(Timestamp::now().duration_since(moment).as_secs())
}

/// So many seconds, with two or three digits that matter.
fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |large: i64, unit: char, small: i64, rest: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{rest}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// Whether a text has more than an output may have. What would stand behind it is left out, and who cuts it says so.
fn is_full(text: &str) -> bool {
    text.len() > OUTPUT_BYTES
}

/// A value as Go prints it.
fn go_text(value: &Value) -> String {
    let mut shown = String::new();
    add_go_text(value, &mut shown);
    shown
}

fn add_go_text(value: &Value, shown: &mut String) {
    match value {
        Value::Null => shown.push_str("<nil>"),
        Value::String(text) => shown.push_str(text),
        Value::Array(items) => {
            shown.push('[');
            for (place, item) in items.iter().enumerate() {
                shown.push_str(if place > 0 { " " } else { "" });
                add_go_text(item, shown);
            }
            shown.push(']');
        }
        Value::Object(fields) => {
            shown.push_str("map[");
            for (place, (name, field)) in fields.iter().enumerate() {
                shown.extend([if place > 0 { " " } else { "" }, name.as_str(), ":"]);
                add_go_text(field, shown);
            }
            shown.push(']');
        }
        other => shown.push_str(&other.to_string()),
    }
}

/// Labels as `a=b,c=d`; `<none>` without any.
fn pairs(labels: &Value) -> String {
    match labels.as_object() {
        Some(labels) if !labels.is_empty() => {
            let pairs: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            pairs.join(",")
        }
        _ => "<none>".to_owned(),
    }
}

/// A field that is text.
fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(value, |value, field| &value[*field]).as_str().unwrap_or_default()
}

/// A field that is a whole number; 0 without it.
fn number(value: &Value, path: &[&str]) -> i64 {
    path.iter().fold(value, |value, field| &value[*field]).as_i64().unwrap_or_default()
}

/// The items of a field; none without it.
fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    path.iter().fold(value, |value, field| &value[*field]).as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
