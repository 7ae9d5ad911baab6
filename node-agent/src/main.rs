//! Starts the agent of one node, or the tool that is its log engine alone.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use kestrel_link::connection::Link;
use kestrel_node_agent::{
    agent::Agent,
    als, check,
    config::{self, Config},
    flows, host,
    host::kubelet::Probes,
    metrics::Metrics,
    reads, status, tail,
};
use kestrel_runtime::{
    admin::{self, AdminPort, Readiness},
    config::Environment,
    daemon::Daemon,
    limits,
    telemetry::{self, Format},
    tls,
};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tracing::error;

/// More than the agent's own wait for the aggregator, so that positions are written.
const GRACE: Duration = Duration::from_secs(10);

const USAGE: &str = "\
usage: kestrel-node-agent [status | check | tail]

  (nothing)  the daemon; its environment variables are in docs/interfaces.md
  status     what the daemon on this host is doing (HEALTH_PORT: its admin port)
  check      tries on its node, with the daemon's variables, what the daemon does, and what a read of the node must not
             be able to do; a line each: ok, note (off, and what switches it on), caution, or FAILED with the remedy, and
             code 1 if anything failed
  tail       reads container logs without Kubernetes: kestrel-node-agent tail --help
";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    // Started by this program alone, for one read of the host, or to try what such a process can do: without threads,
    // and before anything else is there.
    match words.split_first() {
        Some((word, [])) if word == "read" => reads::child::run(),
        Some((word, attempts)) if word == "try" => check::sandbox::inside(attempts),
        _ => speak(words),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn speak(words: Vec<String>) -> ExitCode {
    tls::install_provider();
    let started = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => start().await,
        ["help" | "--help" | "-h"] => return say(&mut io::stdout(), USAGE, ExitCode::SUCCESS),
        ["status"] => {
            let asked = config::health_port(&Environment).map_err(Into::into);
            return match asked.and_then(|port| admin::ask("node agent", port)) {
                Ok(text) => say(&mut io::stdout(), &text, ExitCode::SUCCESS),
                Err(problem) => say(&mut io::stderr(), &format!("{problem:#}\n"), ExitCode::FAILURE),
            };
        }
        ["check"] => {
            // Nobody reads what cannot be written.
            return check::run(&Environment, &mut io::stdout()).await.unwrap_or(ExitCode::FAILURE);
        }
        ["tail", "help" | "--help" | "-h"] => return say(&mut io::stdout(), tail::USAGE, ExitCode::SUCCESS),
        ["tail", ..] => match tail::Options::parse(&words[1..]) {
            Ok(options) => telemetry::init(Format::Text).and_then(|()| tail::start(options)),
            Err(mistake) => {
                let text = format!("{mistake}\n\n{}", tail::USAGE);
                return say(&mut io::stderr(), &text, ExitCode::from(2));
            }
        },
        _ => return say(&mut io::stderr(), USAGE, ExitCode::from(2)),
    };
    match started {
        Ok(daemon) => daemon.run(GRACE).await,
        Err(problem) => {
            error!("{problem:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    let _nobody_reads = to.write_all(text.as_bytes());
    code
}

async fn start() -> anyhow::Result<Daemon> {
    telemetry::init(Format::Text)?;
    let config = Config::read(&Environment)?;
    limits::raise_open_files();
    let mut daemon = Daemon::new();
    let drain = daemon.drain();
    let readiness = Readiness::default();
    let linked = readiness.require("no connection to the aggregator yet");
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let requests = match config.als.clone() {
        Some(als) => {
            let (receive, requests) = als::receive(als, &mut registry, drain.clone());
            daemon.spawn("access logs", async {
                receive.await;
                Ok(())
            });
            requests
        }
        None => mpsc::channel(1).1,
    };
    let probes = Probes::default();
    let admin = AdminPort::bind(config.health_port, readiness, registry, drain.clone()).await?;
    let (ask, questions) = mpsc::channel(1);
    let admin = admin.with_text("/status", move || status::ask(ask.clone()));
    let admin = admin.with_probes({
        let probes = probes.clone();
        move || probes.heard(Instant::now())
    });
    let (link, events) = Link::new(config.link());
    let (samples, sampled) = mpsc::channel(1);
    let (watch_flows, outbox) = flows::watch(&config, metrics.flows.clone());
    let agent = Agent::new(&config, metrics, linked, requests);
    daemon.spawn("admin port", admin.serve());
    daemon.spawn("agent link", {
        let drain = drain.clone();
        async {
            link.run(drain).await;
            Ok(())
        }
    });
    daemon.spawn("host", host::watch(config.host.watched(config.pod_logs.clone(), probes), samples));
    daemon.spawn("flows", watch_flows);
    daemon.spawn("logs", agent.run(events, sampled, outbox, questions, drain));
    Ok(daemon)
}
