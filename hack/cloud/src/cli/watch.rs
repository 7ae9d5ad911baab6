//! `watch`: a line for each thing that arrives, as it arrives.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    client::{Api, ApiAddress},
    fact::fact,
    table::printable,
};

/// Lines of one kind that are shown in a window of time; the rest is counted.
const SHOWN: u32 = 8;
const WINDOW: Duration = Duration::from_secs(1);
/// Characters of a fact or a log line that are shown.
const WIDTH: usize = 200;

/// Shows what arrives, a line for each thing; floods are counted instead of shown.
#[derive(clap::Args)]
pub struct Args {
    /// Only of this namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// Only of this kind, such as pod, pod_logs or refusal; repeatable.
    #[arg(long = "kind")]
    kinds: Vec<String>,
    /// Prints every event as one line of JSON; nothing is left out.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn wants(&self, event: &Value) -> bool {
        let namespace = self.namespace.as_ref().is_none_or(|namespace| event["namespace"] == **namespace);
        namespace && (self.kinds.is_empty() || self.kinds.iter().any(|kind| event["kind"] == **kind))
    }
}

/// Runs the command until the cloud ends.
///
/// # Errors
/// Nobody answers, or nothing can be printed.
pub async fn run(args: &Args, api: &ApiAddress) -> anyhow::Result<()> {
    let mut events = std::pin::pin!(Api::new(api).watch().await?);
    let mut windows = interval(WINDOW);
    windows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut floods = Floods::default();
    let mut out = anstream::stdout();
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event.transpose()? else { anyhow::bail!("the development cloud ended") };
                if !args.wants(&event) {
                    continue;
                }
                if args.json {
                    writeln!(out, "{event}")?;
                } else {
                    write_event(&mut out, &mut floods, &event)?;
                }
            }
            _ = windows.tick() => {
                for (key, hidden) in floods.end_window() {
                    writeln!(out, "{DIM}         … and {hidden} more: {key}{DIM:#}")?;
                }
            }
        }
    }
}

/// How many things of one kind were shown, and how many not, in the current window.
#[derive(Default)]
struct Floods(BTreeMap<String, (u32, u64)>);

impl Floods {
    fn admit(&mut self, key: &str) -> bool {
        let (shown, hidden) = self.0.entry(key.to_owned()).or_default();
        if *shown < SHOWN {
            *shown += 1;
            return true;
        }
        *hidden += 1;
        false
    }

    /// What was not shown, by key.
    fn end_window(&mut self) -> Vec<(String, u64)> {
        let ended = std::mem::take(&mut self.0);
        ended.into_iter().map(|(key, (_, hidden))| (key, hidden)).filter(|(_, hidden)| *hidden > 0).collect()
    }
}

const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

fn style(kind: &str, action: &str) -> Style {
    match (kind, action) {
        ("refusal" | "skipped", _) | (_, "DELETE") => RED,
        (
            "kubernetes_event" | "pod_status_change" | "node_condition_change" | "workload_rollout_status",
            _,
        ) => YELLOW,
        (_, "CREATE") => GREEN,
        (_, "UPDATE") => CYAN,
        _ => Style::new().bold(),
    }
}

fn level_style(level: &str) -> Style {
    match level {
        "ERROR" | "FATAL" => RED,
        "WARN" => YELLOW,
        "DEBUG" => DIM,
        _ => Style::new(),
    }
}

fn write_event(out: &mut impl Write, floods: &mut Floods, event: &Value) -> io::Result<()> {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let (kind, action) = (text("kind"), text("action"));
    let time = text("at").get(11..19).unwrap_or_default();
    let about = match (text("namespace"), text("name")) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    if kind == "pod_logs" {
        return write_lines(out, floods, time, &about, &event["message"]);
    }
    if !floods.admit(format!("{kind} {}", action.to_lowercase()).trim()) {
        return Ok(());
    }
    let said =
        if event["text"].is_string() { text("text").to_owned() } else { fact(kind, &event["message"]) };
    let style = style(kind, action);
    let action = action.to_lowercase();
    writeln!(
        out,
        "{DIM}{time}{DIM:#} {style}{kind:<23} {action:<6}{style:#} {}",
        printable(&[about, said].join("  "), WIDTH).trim_start()
    )
}

fn write_lines(
    out: &mut impl Write,
    floods: &mut Floods,
    time: &str,
    pod: &str,
    batch: &Value,
) -> io::Result<()> {
    let container = batch["container_name"].as_str().unwrap_or_default();
    for line in batch["log_entries"].as_array().into_iter().flatten() {
        if !floods.admit(&format!("lines of {pod} {container}")) {
            continue;
        }
        let level = line["level"].as_str().unwrap_or_default();
        let style = level_style(level);
        let message = printable(line["message"].as_str().unwrap_or_default(), WIDTH);
        writeln!(
            out,
            "{DIM}{time}{DIM:#} {:<23} {style}{level:<6}{style:#} {DIM}{pod} {container}{DIM:#}  {message}",
            "log"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(events: &[Value]) -> (String, Floods) {
        let (mut out, mut floods) = (anstream::StripStream::new(Vec::new()), Floods::default());
        events.iter().for_each(|event| write_event(&mut out, &mut floods, event).unwrap());
        (String::from_utf8(out.into_inner()).unwrap(), floods)
    }

    #[test]
    fn a_thing_is_one_line() {
        let pod = json!({
            "at": "2026-11-21T08:09:10.5Z", "kind": "pod", "action": "CREATE", "namespace": "shop", "name": "web-0",
            "message": { "phase": "Running", "ready": true, "pod_ip": "10.1.0.7" },
        });
        let note = json!({ "at": "2026-11-21T08:09:11Z", "kind": "refusal", "text": "token expired" });
        let (text, _) = lines(&[pod, note]);
        let expected = [
            "08:09:10 pod                     create shop/web-0  Running, ready, 10.1.0.7",
            "08:09:11 refusal                        token expired",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_flood_is_counted() {
        let entries: Vec<Value> =
            (0..500).map(|n| json!({ "message": format!("m{n}"), "level": "INFO" })).collect();
        let batch = json!({
            "kind": "pod_logs", "namespace": "shop", "name": "web-0",
            "message": { "container_name": "app", "log_entries": entries },
        });
        let (text, mut floods) = lines(&[batch]);
        assert_eq!(text.lines().count(), SHOWN as usize);
        assert_eq!(floods.end_window(), [("lines of shop/web-0 app".to_owned(), 500 - u64::from(SHOWN))]);
        assert!(floods.end_window().is_empty());
    }
}
