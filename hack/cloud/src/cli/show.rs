//! `show`: what arrived so far, as tables.

use std::io::Write;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    client::{Api, ApiAddress},
    fact::fact,
    table::{self, printable},
};

/// Shows what arrived so far.
#[derive(clap::Args)]
pub struct Args {
    what: What,
    /// Only of this namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// Only the object of this name.
    #[arg(long)]
    name: Option<String>,
    /// Logs: only of this pod.
    #[arg(long)]
    pod: Option<String>,
    /// Logs: only of this container.
    #[arg(long)]
    container: Option<String>,
    /// Logs: only lines with this text.
    #[arg(long)]
    contains: Option<String>,
    /// At most this many, the newest.
    #[arg(long)]
    limit: Option<u32>,
    /// Prints the answer of the query API as it is.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Summary,
    Pods,
    Nodes,
    Namespaces,
    Workloads,
    Services,
    NetworkPolicies,
    AuthorizationPolicies,
    Signals,
    Flows,
    Logs,
    Connections,
    Answers,
    Stats,
}

/// Titles of columns, and where their cells are in an item. An empty place is the fact in words.
type Columns = [(&'static str, &'static str)];

const FACT: (&str, &str) = ("FACT", "");
const NAME: (&str, &str) = ("NAME", "/name");
const NAMESPACE: (&str, &str) = ("NAMESPACE", "/namespace");
const CREATED: (&str, &str) = ("CREATED", "/message/created_at");
const AT: (&str, &str) = ("AT", "/at");

impl What {
    fn columns(self) -> &'static Columns {
        match self {
            Self::Pods => &[NAMESPACE, NAME, ("OWNER", "/message/owner_references/0/name"), FACT, CREATED],
            Self::Nodes => &[NAME, FACT, CREATED],
            Self::Namespaces => &[NAME, CREATED],
            Self::Workloads | Self::Services | Self::NetworkPolicies | Self::AuthorizationPolicies => {
                &[NAMESPACE, NAME, FACT, CREATED]
            }
            Self::Signals => &[AT, ("KIND", "/kind"), ("ACTION", "/action"), NAMESPACE, NAME, FACT],
            Self::Flows | Self::Answers | Self::Stats => &[AT, ("KIND", "/kind"), FACT],
            Self::Logs => &[
                ("TIME", "/time"),
                NAMESPACE,
                ("POD", "/pod"),
                ("CONTAINER", "/container"),
                ("LEVEL", "/level"),
                ("MESSAGE", "/message"),
            ],
            Self::Summary | Self::Connections => &[],
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or nothing can be printed.
pub async fn run(args: &Args, api: &ApiAddress) -> anyhow::Result<()> {
    let named = [
        ("namespace", args.namespace.clone()),
        ("name", args.name.clone()),
        ("pod", args.pod.clone()),
        ("container", args.container.clone()),
        ("contains", args.contains.clone()),
        ("limit", args.limit.map(|limit| limit.to_string())),
    ];
    let query: Vec<(&str, String)> =
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let path = args.what.to_possible_value().map(|what| format!("/v1/{}", what.get_name()));
    let answer = Api::new(api).get(&path.unwrap_or_default(), &query).await?;
    let mut out = anstream::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer:#}")?);
    }
    match args.what {
        What::Summary => summary(&mut out, &answer)?,
        What::Connections => connections(&mut out, &answer)?,
        What::Logs => rows(&mut out, args.what.columns(), &answer["lines"])?,
        _ => rows(&mut out, args.what.columns(), &answer)?,
    }
    Ok(())
}

fn rows(out: &mut impl Write, columns: &Columns, items: &Value) -> std::io::Result<()> {
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let rows: Vec<Vec<String>> = items
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|(_, pointer)| cell(item, pointer)).collect())
        .collect();
    table::write(out, &titles, &rows)
}

fn cell(item: &Value, pointer: &str) -> String {
    if pointer.is_empty() {
        return printable(&fact(item["kind"].as_str().unwrap_or_default(), &item["message"]), 120);
    }
    match item.pointer(pointer) {
        Some(Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(time) => format!("{time:.3}"),
            Err(_) => printable(text, 200),
        },
        None | Some(Value::Null) => String::new(),
        // Sets and maps, such as the open streams of a connection.
        Some(Value::Object(map)) => map.keys().cloned().collect::<Vec<_>>().join(","),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

fn connections(out: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    let columns = [
        ("ID", "/id"),
        ("PEER", "/peer"),
        ("CERTIFICATE", "/certificate/subject"),
        ("CLUSTERS", "/clusters"),
        ("STREAMS", "/streams"),
        ("OPENED", "/opened"),
        ("CLOSED", "/closed"),
    ];
    let both = [&answer["past"], &answer["open"]];
    let both: Value = both.into_iter().filter_map(Value::as_array).flatten().cloned().collect();
    rows(out, &columns, &both)?;
    if answer["refusals"].as_array().is_some_and(|refusals| !refusals.is_empty()) {
        writeln!(out, "\nRefused:")?;
        let columns = [AT, ("PEER", "/peer"), ("RPC", "/rpc"), ("REASON", "/reason")];
        rows(out, &columns, &answer["refusals"])?;
    }
    Ok(())
}

fn summary(out: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    let at = |pointer: &str| answer.pointer(pointer).map_or_else(String::new, ToString::to_string);
    writeln!(
        out,
        "Since {}: {} connections open ({} opened, {} of them reconnects, {} refused), {} streams open",
        answer["started"].as_str().unwrap_or_default(),
        at("/connections/open"),
        at("/connections/opened"),
        at("/connections/reconnects"),
        at("/connections/refused"),
        at("/connections/streams"),
    )?;
    let objects = answer["inventory"]["objects"].as_object();
    let objects: Vec<String> =
        objects.into_iter().flatten().map(|(kind, count)| format!("{count} {kind}")).collect();
    let commits = answer["inventory"]["commits"].as_array().map_or(0, Vec::len);
    writeln!(out, "Inventory: {} ({commits} commits)", objects.join(", "))?;
    writeln!(out, "Log lines: {} of {} containers", at("/logs/lines"), at("/logs/containers"))?;
    writeln!(
        out,
        "Signals: {}, flows: {}, answers: {}\n",
        at("/signals/total"),
        at("/flows/total"),
        at("/answers/total")
    )?;
    let columns = [
        ("STREAM", "/stream"),
        ("KIND", "/kind"),
        ("ACTION", "/action"),
        ("MESSAGES", "/messages"),
        ("BYTES", "/bytes"),
    ];
    rows(out, &columns, &answer["messages"])
}
