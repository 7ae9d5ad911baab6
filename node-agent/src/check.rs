//! `kestrel-node-agent check`, for a node on which something is wrong: tries with the daemon's settings what the
//! daemon does, and says which mount, permission, socket or setting is missing and what gives it. It leaves nothing
//! changed, and does not speak on the agent link.

mod flows;
mod folders;
mod host;
pub mod sandbox;

use std::{fs, io, process::ExitCode};

use kestrel_link::connection;
use kestrel_runtime::{
    check::{Finding, Report},
    config::Source,
};

use crate::config::Config;

/// Capabilities that the chart may give, by their numbers (capabilities(7)), and by which of its values.
const CAPABILITIES: [(u64, &str, &str); 4] = [
    (1 << 12, "NET_ADMIN", "nodeAgent.firewallRules"),
    (1 << 13, "NET_RAW", "nodeAgent.packetCapture"),
    (1 << 21, "SYS_ADMIN", "nodeAgent.bpfObjects"),
    (1 << 34, "SYSLOG", "nodeAgent.kernelLog"),
];

/// Runs all trials, writes a line for each, and says with what to end.
///
/// # Errors
/// Nothing can be written.
pub async fn run(source: &dyn Source, out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let mut report = Report::new(out);
    let config = match Config::read(source) {
        Ok(config) => config,
        Err(mistakes) => {
            report.say(mistakes.0.into_iter().map(|mistake| Finding::failed("settings", mistake)))?;
            return Ok(report.code());
        }
    };
    let namespace = source.get("POD_NAMESPACE").unwrap_or_else(|| "kestrel-ai".to_owned());
    report.say([pod_security(&namespace), process()])?;
    report.say([folders::logs(&config.pod_logs), folders::state(&config.state)])?;
    report.say([link(&config).await])?;
    report.say(host::findings(&config).await)?;
    report.say(flows::findings(&config).await)?;
    report.say(sandbox::findings(&config, source).await)?;
    Ok(report.code())
}

/// Nobody can say from inside whether a pod would be admitted again: this one was.
fn pod_security(namespace: &str) -> Finding {
    Finding::note(
        "Pod Security",
        format!(
            "the agent mounts folders of its node, so where Pod Security admission enforces another level than privileged, its pods \
             are refused without: kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged"
        ),
    )
}

/// As whom this process runs, and so the daemon beside it.
fn process() -> Finding {
    const PATH: &str = "/proc/self/status";
    let status = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"));
    status.map_or_else(|why| Finding::caution("process", why), |status| judge_process(&status))
}

fn judge_process(status: &str) -> Finding {
    const SUBJECT: &str = "process";
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let user = field("Uid:").unwrap_or("?");
    let capabilities =
        field("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_default();
    if user != "0" {
        return Finding::failed(
            SUBJECT,
            format!(
                "it runs as user {user}, and container logs and the folder of positions belong to user 0: the chart sets runAsUser: 0, \
                 which an admission policy changed, or on OpenShift the security context constraint (it has to allow uid 0 to the \
                 account kestrel-node-agent)"
            ),
        );
    }
    let known = CAPABILITIES.iter().fold(0, |all, (bit, ..)| all | bit);
    if capabilities & !known != 0 {
        let given = CAPABILITIES.map(|(_, name, value)| format!("{name} ({value})")).join(", ");
        return Finding::caution(
            SUBJECT,
            format!(
                "it runs as user 0 with capabilities that it does not use ({capabilities:#x}): the chart drops all but {given}, \
                 so something else started it"
            ),
        );
    }
    let held = CAPABILITIES.iter().filter(|(bit, ..)| capabilities & bit != 0).map(|(_, name, _)| *name);
    let which = match &held.collect::<Vec<_>>()[..] {
        [] => "without capabilities".to_owned(),
        [one] => format!("with the capability {one} alone"),
        some => format!("with the capabilities {} alone", some.join(", ")),
    };
    Finding::ok(SUBJECT, format!("it runs as user 0, {which}"))
}

/// Opens the way to the aggregator. Who spoke on it would take the daemon's place.
async fn link(config: &Config) -> Finding {
    let reached = connection::reach(config.link()).await;
    Finding::of(
        "agent link",
        reached
            .map(|()| {
                format!(
                    "{} is served by a leading aggregator, whose certificate {} vouches for; it has not seen the token",
                    config.endpoint,
                    config.ca_file.display()
                )
            })
            .map_err(|why| format!("{why}; kubectl logs of the aggregators says whether one of them leads")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_runs_as_is_judged() {
        let judge = |user: &str, capabilities: &str| {
            judge_process(&format!("Name:\tx\nUid:\t{user}\t0\t0\t0\nCapEff:\t{capabilities}\n")).to_string()
        };
        let none = "0000000000000000";
        assert_eq!(judge("0", none), "ok      process: it runs as user 0, without capabilities");
        assert!(judge("0", "0000000400000000").ends_with("with the capability SYSLOG alone"));
        assert!(judge("0", "0000000400002000").ends_with("with the capabilities NET_RAW, SYSLOG alone"));
        let all = judge("0", "000001ffffffffff");
        assert!(all.starts_with("caution process: ") && all.contains("0x1ffffffffff"), "{all}");
        let other = judge("65532", none);
        assert!(other.starts_with("FAILED  process: it runs as user 65532, "), "{other}");
        assert!(other.contains("runAsUser: 0"), "{other}");
    }
}
