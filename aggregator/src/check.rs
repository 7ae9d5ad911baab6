//! Tries everything an installation needs, and says what to do about each
//! thing that does not work. It changes nothing, and opens no stream.

mod istio;
mod servers;

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use kestrel_runtime::{
    check::{Finding, Report},
    config::Source,
};
use kube::Client;
use tokio::time::timeout;

use crate::{
    config::{Config, Mesh},
    executor::{self, switch::Switch},
    istio::{Reader, Wanted},
    rights::{
        ALS, AUTHORITY, DRY_RUN, ISTIO, ON_REQUEST, RIGHTS, Right,
        beyond::{self, Verdict},
    },
    traffic::relay,
    uplink::{self, credentials::RuntimeSecret, trial},
};

/// The API server must say its version within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The oldest Kubernetes, by its minor version.
const OLDEST: u32 = 24;
/// The oldest whose pods can be given a collector.
const INJECTION: u32 = 30;

/// Why who the server is does not count.
const UNVERIFIED: &str = "TLS_INSECURE_SKIP_VERIFY (Helm: server.tls.insecureSkipVerify) is true";
/// Has to be done when the API server does not answer.
const REMEDY: &str = "check KUBECONFIG and the way to the API server";

/// Runs all trials, writes a line for each as it ends, and says with what to end.
///
/// # Errors
/// Nothing can be written.
pub async fn run(source: &dyn Source, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let mut report = Report::new(out);
    let mut config = match Config::read(source) {
        Ok(config) => config,
        Err(mistakes) => {
            report.say(mistakes.0.into_iter().map(|mistake| Finding::failed("settings", mistake)))?;
            return Ok(report.code());
        }
    };
    let (reader, trier) = (config.executor_account.take(), config.dry_run_account.take());
    let clients = clients(&config.namespace, (reader.clone(), trier.clone())).await;
    if let Ok((client, ..)) = &clients {
        // What was renewed counts too.
        let secret = RuntimeSecret::new(client.clone(), &config.namespace, None);
        config.uplink.credentials = config.uplink.credentials.kept_in(secret);
    }
    report.say(cloud(&config.uplink).await)?;
    let cautions = config.uplink.credentials.cautions();
    report.say(cautions.into_iter().map(|caution| Finding::caution("credentials", caution)))?;
    report.say(servers::findings(source).await)?;
    if let Some(config) = &config.relay {
        report.say([Finding::of("Hubble Relay", relay::trial(config).await)])?;
    }
    match clients {
        Err(problem) => report.say([Finding::failed("Kubernetes", problem.to_string())])?,
        Ok((client, reader_client, trier_client)) => {
            let result = version(&client).await;
            let reachable = result.is_ok();
            report.say([Finding::of("Kubernetes", result)])?;
            // One line is enough for an API server that is away.
            for right in RIGHTS.iter().filter(|right| reachable && is_needed(right, &config)) {
                let result = has(right, &client, &config.namespace).await;
                report.say([Finding::of("right", result)])?;
            }
            for (right, client) in [(&ON_REQUEST, &reader_client), (&DRY_RUN, &trier_client)] {
                if reachable {
                    let result = has(right, client, &config.namespace).await;
                    report.say([Finding::of("right", result)])?;
                }
            }
            if reachable {
                let switch = config.executor_switch.as_deref();
                let switch = switch.map(|name| Switch::config_map(client.clone(), &config.namespace, name));
                let accounts = beyond::accounts(
                    client.clone(),
                    [(reader, reader_client.clone()), (trier, trier_client)],
                    switch.as_ref(),
                )
                .await;
                report.say([match beyond::sentence(&accounts, &config.namespace).await {
                    Ok(Verdict::Enough(sentence)) => Finding::ok("rights", sentence),
                    Ok(Verdict::Beyond(sentence)) => Finding::caution("rights", sentence),
                    Err(why) => Finding::failed("rights", format!("{why}: {REMEDY}")),
                }])?;
            }
            if reachable
                && config.als.is_some()
                && let Ok(Mesh { scope, .. }) = Mesh::read(source)
            {
                let found = Reader::new(client, reader_client, scope).look().await;
                report.say(istio::findings(&found, config.istio == Wanted::Yes))?;
            }
        }
    }
    Ok(report.code())
}

/// Says what Istio lacks for access logs, as [`run`] does.
///
/// # Errors
/// Nothing can be written.
pub async fn run_istio(source: &dyn Source, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let mut report = Report::new(out);
    let Mesh { scope, namespace, account } = match Mesh::read(source) {
        Ok(mesh) => mesh,
        Err(mistakes) => {
            report.say(mistakes.0.into_iter().map(|mistake| Finding::failed("settings", mistake)))?;
            return Ok(report.code());
        }
    };
    match clients(&namespace, (account, None)).await {
        Err(problem) => report.say([Finding::failed("Kubernetes", problem.to_string())])?,
        Ok((own, reader, _)) => {
            let found = Reader::new(own, reader, scope).look().await;
            report.say(istio::findings(&found, true))?;
        }
    }
    Ok(report.code())
}

/// Token, certificate and server; the last only with what the first two give.
async fn cloud(config: &uplink::Config) -> Vec<Finding> {
    let now = Timestamp::now();
    let token = trial::token(config).await;
    let certificate = trial::certificate(config).await;
    let insecure = config.credentials.bootstrap().insecure;
    let ready = token.is_ok() && certificate.is_ok();
    let server = if ready {
        let through =
            config.proxy.as_ref().map_or(String::new(), |proxy| format!(" through the proxy {proxy}"));
        let server = format!("{}:{}{through}", config.host, config.port);
        let who = if insecure { format!(", but nothing was verified: {UNVERIFIED}") } else { String::new() };
        let good =
            |()| format!("{server} takes the certificate and speaks HTTP/2; it has not seen the token{who}");
        trial::server(config).await.map(good).map_err(|problem| problem.to_string())
    } else {
        Err("not tried without a token and a certificate".to_owned())
    };
    let until = |end: Option<Timestamp>| end.map_or("without an end".to_owned(), |end| until(end, now));
    vec![
        Finding::of(
            "token",
            token
                .map(|(tenant, end)| format!("of tenant {tenant}, {}", until(end)))
                .map_err(|problem| problem.to_string()),
        ),
        Finding::of(
            "certificate",
            certificate
                .map(|end| {
                    let authority =
                        if insecure { "no authority was read" } else { "the server's authority can be read" };
                    format!("{}; its key fits it, and {authority}", until(end))
                })
                .map_err(|problem| problem.to_string()),
        ),
        Finding::of("server", server),
    ]
}

/// A moment and how far away it is.
fn until(end: Timestamp, now: Timestamp) -> String {
    let hours = end.duration_since(now).as_hours();
    let away = if hours < 72 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
    format!("good until {end:.0} ({away})")
}

/// The daemon's own client, that which reads for the cloud, and that which tries what would be written.
async fn clients(
    namespace: &str,
    (reader, trier): (Option<String>, Option<String>),
) -> anyhow::Result<(Client, Client, Client)> {
    let mut config = kube::Config::infer()
        .await
        .context("no Kubernetes API server is known: run in a cluster, or set KUBECONFIG")?;
    config.proxy_url = None;
    let unusable = "the Kubernetes API server's address can't be used";
    let acting_as = |account: Option<String>| {
        executor::client_as(config.clone(), namespace, account.as_deref()).context(unusable)
    };
    Ok((acting_as(None)?, acting_as(reader)?, acting_as(trier)?))
}

async fn version(client: &Client) -> Result<String, String> {
    let info = timeout(TIMEOUT, client.apiserver_version())
        .await
        .map_err(|_| format!("no answer in 10 s: {REMEDY}"))?
        .map_err(|error| format!("{}: {REMEDY}", anyhow::Error::new(error).root_cause()))?;
    judge_version(&info.major, &info.minor, &info.git_version)
}

fn judge_version(major: &str, minor: &str, name: &str) -> Result<String, String> {
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    match (major, digits.parse::<u32>()) {
        ("1", Ok(minor)) if minor < OLDEST => {
            Err(format!("{name} is too old: 1.{OLDEST} or newer is needed"))
        }
        ("1", Ok(minor)) if minor < INJECTION => {
            Ok(format!("{name}; collectors in pods would need 1.{INJECTION} or newer"))
        }
        _ => Ok(name.to_owned()),
    }
}

/// Whether there is a use for a right of the table.
fn is_needed(right: &Right, config: &Config) -> bool {
    match *right {
        ALS => config.als.is_some(),
        AUTHORITY => config.link.tls_dir.is_none(),
        _ => true,
    }
}

async fn serves(client: &Client, group: &str) -> Result<bool, String> {
    let groups = timeout(TIMEOUT, client.list_api_groups())
        .await
        .map_err(|_| format!("no answer in 10 s: {REMEDY}"))?
        .map_err(|error| format!("{}: {REMEDY}", anyhow::Error::new(error).root_cause()))?;
    Ok(groups.groups.iter().any(|served| served.name == group))
}

async fn has(right: &Right, client: &Client, namespace: &str) -> Result<String, String> {
    let missing = match right.missing(client, namespace).await {
        // Without the account, its rights are not asked for.
        Err(why) if *right == DRY_RUN && why.contains("cannot impersonate") => vec![why],
        missing => missing.map_err(|why| format!("{right}: {why}: {REMEDY}"))?,
    };
    if missing.is_empty() {
        return Ok(right.to_string());
    }
    if *right == ON_REQUEST {
        return Ok(format!("{right} is not given, so no log can be asked for (Helm: podLogs.onRequest)"));
    }
    if *right == DRY_RUN {
        let why = "so proposed network policies are not tried (Helm: operator.networkPolicies.dryRun)";
        return Ok(format!("{right} is not given, {why}"));
    }
    if *right == ISTIO && !serves(client, right.group).await? {
        return Ok(format!("{right} is not given and not needed, as the cluster has no {}", right.group));
    }
    let kind = if right.own { "Role" } else { "ClusterRole" };
    Err(format!(
        "{} is missing: the chart's {kind} kestrel-aggregator grants it, and whoever installs the chart needs it to be \
         allowed to grant it",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_old_kubernetes_is_told_what_it_lacks() {
        let judge = |minor: &str| judge_version("1", minor, &format!("v1.{minor}.0"));
        assert!(judge("23").unwrap_err().contains("1.24 or newer is needed"));
        assert!(judge("24+").unwrap().contains("collectors in pods would need 1.30"));
        assert_eq!(judge("30+").unwrap(), "v1.30+.0");
        assert_eq!(judge_version("2", "0", "v2.0.0").unwrap(), "v2.0.0");
    }

    #[test]
    fn what_the_chart_leaves_out_is_not_asked_for() {
        let unneeded = |more: &[(&'static str, &'static str)]| {
            let source = [&[("AUTH_TOKEN", "a.b.c")], more].concat().into_iter().collect::<BTreeMap<_, _>>();
            let config = Config::read(&source).unwrap();
            RIGHTS.iter().filter(|right| !is_needed(right, &config)).copied().collect::<Vec<_>>()
        };
        assert_eq!(unneeded(&[]), [ALS]);
        let (received, mounted) = (("ENABLE_ISTIO_ALS", "auto"), ("KESTREL_LINK_TLS_DIR", "/tls"));
        assert_eq!(unneeded(&[received]), []);
        assert_eq!(unneeded(&[received, mounted]), [AUTHORITY]);
    }

    #[test]
    fn an_end_is_said_with_its_distance() {
        let now = Timestamp::UNIX_EPOCH;
        let end = |hours: i64| until(Timestamp::from_second(hours * 3600).unwrap(), now);
        assert_eq!(end(5), "good until 1970-01-01T05:00:00Z (5 hours)");
        assert!(end(100).ends_with("(4 days)"));
    }
}
