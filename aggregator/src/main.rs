//! The aggregator's process: configuration in, parts built, run, drained. Two
//! words make it a tool for people instead.

use std::{
    fs,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use kestrel_aggregator::{
    check,
    config::{self, Config},
    excluded::Excluded,
    executor::{self, Asker, audit, replay, rules::Rules, switch::Switch},
    own_logs::OwnLogs,
    run,
};
use kestrel_runtime::{
    admin,
    config::Environment,
    limits,
    telemetry::{self, Format},
    tls,
};
use tracing::error;

/// Within the 30 s that Kubernetes gives, and within the Lease's duration.
const GRACE: Duration = Duration::from_secs(10);

const USAGE: &str = "\
usage: kestrel-aggregator [status | check [istio] | ask COMMAND | policy test FILE [OPTIONS] | audit FILE]

  (nothing)  the daemon; its environment variables are in docs/interfaces.md
  status     what the daemon on this host is doing, in ten lines (HEALTH_PORT: its admin port)
  check      tries everything an installation needs, with the daemon's variables and KUBECONFIG;
             a line each, ok or FAILED with the remedy, and code 1 if anything failed
  check istio
             what Istio lacks for its proxies to send their access logs here, with the commands that give it, of every revision;
             with KUBECONFIG and, if they differ from the chart's defaults, POD_NAMESPACE, KESTREL_ISTIO_ROOT_NAMESPACE, ISTIO_ALS_PORT
  ask COMMAND
             answers a command as the daemon would answer it to Kestrel Cloud, such as 'kubectl get pods -A', with KUBECONFIG,
             in an installed pod as its reading account and by the owner's switch; reads of nodes and dry runs are the daemon's alone
  policy test FILE [--secret-hashes] [--dry-run] [--exclude NAMESPACES]
             judges the requests in FILE, a line of JSON each, as the daemon would, without a cluster:
             {\"kubernetes_api_request\": {\"api_paths\": [\"version\"]}},
             {\"shell_command_request\": {\"commands\": [\"kubectl get pods\"]}} or
             {\"yaml_dry_run_request\": {\"yaml_manifests\": [{\"yaml_content\": \"…\"}]}}; with \"expect\": \"allowed\", or the word
             of a reason, in a line, code 1 if it is judged otherwise
  audit FILE whether the lines of the audit in a log (log.format: text) are all there and as they were written
";

/// Two threads: one may encode a large cluster while the other answers.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    // The tools hold the token too.
    limits::forbid_core_dumps();
    tls::install_provider();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => daemon().await,
        ["status"] => {
            io::stdout()
                .write_all(admin::ask("aggregator", config::health_port(&Environment)?)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        ["check"] => Ok(check::run(&Environment, &mut io::stdout()).await?),
        ["check", "istio"] => Ok(check::run_istio(&Environment, &mut io::stdout()).await?),
        ["ask", command] => ask(command).await,
        ["policy", "test", file, ref options @ ..] => policy_test(file, options),
        ["audit", file] => audit(file),
        ["help" | "--help" | "-h"] => {
            io::stdout().write_all(USAGE.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            io::stderr().write_all(USAGE.as_bytes())?;
            Ok(ExitCode::from(2))
        }
    }
}

async fn ask(command: &str) -> anyhow::Result<ExitCode> {
    let namespace = std::env::var("POD_NAMESPACE").unwrap_or_default();
    let account = std::env::var("KESTREL_EXECUTOR_ACCOUNT").ok();
    let mut cluster =
        kube::Config::infer().await.context("no Kubernetes API server is known: set KUBECONFIG")?;
    cluster.proxy_url = None;
    let switch = match std::env::var("KESTREL_EXECUTOR_SWITCH") {
        Ok(name) => {
            let own = executor::client_as(cluster.clone(), &namespace, None)?;
            Switch::config_map(own, &namespace, &name)
        }
        Err(_) => Switch::fixed(Rules::default()),
    };
    let reader = executor::client_as(cluster, &namespace, account.as_deref())?;
    let excluded = Excluded::parse(&std::env::var("KESTREL_EXCLUDED_NAMESPACES").unwrap_or_default());
    let answer = Asker::new(reader, switch, excluded)?.command(command).await;
    io::stdout().write_all(answer.stdout.as_bytes())?;
    io::stderr().write_all(answer.stderr.as_bytes())?;
    Ok(u8::try_from(answer.exit_code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn policy_test(file: &str, options: &[&str]) -> anyhow::Result<ExitCode> {
    let (mut rules, mut excluded) = (Rules::default(), Excluded::default());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match (*option, options.as_slice()) {
            ("--secret-hashes", _) => rules.secret_hashes = true,
            ("--dry-run", _) => rules.dry_run = true,
            ("--exclude", [names, ..]) => {
                excluded = Excluded::parse(names);
                options.next();
            }
            _ => {
                io::stderr().write_all(USAGE.as_bytes())?;
                return Ok(ExitCode::from(2));
            }
        }
    }
    let requests = fs::read_to_string(file).with_context(|| format!("{file} can't be read"))?;
    let summary = replay::test(&requests, rules, &excluded, &mut io::stdout().lock())?;
    let replay::Summary { allowed, refused, wrong } = summary;
    writeln!(io::stdout(), "{allowed} allowed, {refused} refused, {wrong} wrong")?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn audit(file: &str) -> anyhow::Result<ExitCode> {
    let log = fs::read_to_string(file).with_context(|| format!("{file} can't be read"))?;
    let audit::Verdict { sound, chains, broken } = audit::verify(&log);
    writeln!(io::stdout(), "{sound} lines of the audit follow from each other, in {chains} chains")?;
    for line in &broken {
        writeln!(io::stdout(), "BROKEN  line {line} was changed or added, or some before it are missing")?;
    }
    Ok(if broken.is_empty() && sound > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn daemon() -> anyhow::Result<ExitCode> {
    let own_logs = OwnLogs::default();
    telemetry::init_heard(Format::Text, Some(own_logs.listener()))?;
    let started = match Config::read(&Environment) {
        Ok(config) => run::start(config, own_logs).await,
        Err(mistakes) => Err(mistakes.into()),
    };
    match started {
        Ok(daemon) => Ok(daemon.run(GRACE).await),
        Err(problem) => {
            error!("the aggregator cannot start: {problem:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}
