//! `send`: asks the operator for something and shows its answer.

use std::{
    io::{Read as _, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::client::{Api, ApiAddress};
use crate::{Authority, Stream};

/// Sends a message to the operator that connected last, and waits for its answer.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    order: Order,
    /// Seconds to wait for the answer.
    #[arg(long, global = true, default_value_t = 60)]
    timeout: u64,
    /// Stream to send on (data or control) instead of the usual one.
    #[arg(long, global = true, value_parser = stream)]
    stream: Option<Stream>,
    /// Prints the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Order {
    /// GETs paths of the Kubernetes API, such as /api/v1/namespaces.
    KubernetesApi {
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Runs command lines, each one argument.
    Shell {
        #[arg(required = true)]
        commands: Vec<String>,
    },
    /// Orders a restart.
    Restart {
        /// Why; the operator notes it.
        #[arg(long, default_value = "asked for by hand")]
        reason: String,
        /// Deletes the pod at once instead of rolling the workload.
        #[arg(long)]
        at_once: bool,
    },
    /// Makes a new client certificate and pushes it.
    Certificate {
        /// Folder with the authority that signs it.
        #[arg(long, env = "KESTREL_CLOUD_STATE", hide_env_values = true)]
        state: PathBuf,
        /// The name in the certificate.
        #[arg(long, default_value = "local")]
        cluster: String,
    },
    /// Proposes a NetworkPolicy.
    NetworkPolicy {
        /// The file with its YAML, or - for standard input.
        file: PathBuf,
    },
    /// Any message of the contract, such as {"metrics_query_request": {…}}; a request_id is made if it has none.
    Json {
        /// The file, or - for standard input.
        file: PathBuf,
    },
}

fn stream(name: &str) -> Result<Stream, String> {
    let carries_orders = |stream: &Stream| matches!(stream, Stream::Data | Stream::Control);
    name.parse().ok().filter(carries_orders).ok_or_else(|| "it is data or control".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or nothing can be printed.
pub async fn run(args: Args, api: &ApiAddress) -> anyhow::Result<()> {
    let mut query = vec![("timeout", args.timeout.to_string())];
    query.extend(args.stream.map(|stream| ("stream", stream.name().to_owned())));
    let answer = Api::new(api).post("/v1/send", &query, &message(args.order)?).await?;
    let mut out = anstream::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{answer:#}")?);
    }
    let kind = answer["answer"]["kind"].as_str().unwrap_or("no answer is expected");
    writeln!(
        out,
        "{kind} after {} ms on the {} stream",
        answer["milliseconds"],
        answer["stream"].as_str().unwrap_or_default()
    )?;
    Ok(write_answer(&mut out, &answer["answer"]["message"])?)
}

fn message(order: Order) -> anyhow::Result<Value> {
    Ok(match order {
        Order::KubernetesApi { paths } => json!({ "kubernetes_api_request": { "api_paths": paths } }),
        Order::Shell { commands } => json!({ "shell_command_request": { "commands": commands } }),
        Order::Restart { reason, at_once } => {
            json!({ "operator_restart_request": { "reason": reason, "graceful": !at_once } })
        }
        Order::Certificate { state, cluster } => {
            let authority = Authority::open(&state)?;
            let client = authority.client(&cluster)?;
            json!({ "certificate_renewal_request": {
                "client_cert": BASE64_STANDARD.encode(client.certificate),
                "client_key": BASE64_STANDARD.encode(client.key),
                "ca_cert": BASE64_STANDARD.encode(authority.certificate()),
                "issued_at": jiff::Timestamp::now(),
            }})
        }
        Order::NetworkPolicy { file } => {
            json!({ "network_policy": { "network_policy": text_of(&file)? } })
        }
        Order::Json { file } => serde_json::from_str(&text_of(&file)?)
            .with_context(|| format!("{} is not JSON", file.display()))?,
    })
}

fn text_of(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() != "-" {
        return Ok(crate::credentials::read(file)?);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// Results one by one, with their payload as it is meant to be read.
fn write_answer(out: &mut impl Write, message: &Value) -> std::io::Result<()> {
    let text = |result: &Value, field: &str| result[field].as_str().unwrap_or_default().to_owned();
    let Some(results) = message["results"].as_array() else {
        return if message.is_null() { Ok(()) } else { writeln!(out, "{message:#}") };
    };
    for result in results {
        if result["api_path"].is_string() {
            writeln!(out, "{} {}", result["status_code"], text(result, "api_path"))?;
        } else if result["command"].is_string() {
            writeln!(out, "$ {}  (exit code {})", text(result, "command"), result["exit_code"])?;
        } else {
            writeln!(out, "{result:#}")?;
            continue;
        }
        for field in ["response_data", "stdout", "stderr", "error_message"] {
            let payload = text(result, field);
            let pretty = serde_json::from_str::<Value>(&payload).map(|json| format!("{json:#}"));
            let payload = pretty.unwrap_or(payload);
            if !payload.is_empty() {
                writeln!(out, "{}", payload.trim_end())?;
            }
        }
    }
    Ok(())
}
