//! What network flows are read from on this node.

use std::{fs, io, path::Path};

use kestrel_flows::hubble;
use kestrel_runtime::check::Finding;
use tokio::net::UnixStream;

use super::folders::remedy_of_refusal;
use crate::{config::Config, story::count};

const HUBBLE: &str = "flows of Hubble";
const AWS: &str = "flows of AWS";
const ZTUNNEL: &str = "flows of ztunnel";

/// A line for each source.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let hubble = match &config.hubble_socket {
        None => Finding::note(
            HUBBLE,
            "not read; operator.cilium.disableFlows: false mounts the folder of its socket (nodeAgent.flows.hubbleSocket) for it",
        ),
        Some(socket) => of_hubble(socket).await,
    };
    let aws = match &config.aws_policy_log {
        None => Finding::note(
            AWS,
            "not read; nodeAgent.flows.awsPolicyLog names the log of the VPC CNI's network policy agent",
        ),
        Some(log) => aws(log),
    };
    let ztunnel = match &config.ztunnel_namespace {
        None => Finding::note(ZTUNNEL, "not read; nodeAgent.flows.ztunnelNamespace names its namespace"),
        Some(namespace) => ztunnel(&config.pod_logs, namespace),
    };
    vec![hubble, aws, ztunnel]
}

async fn of_hubble(socket: &Path) -> Finding {
    let name = socket.display();
    if let Some(missing) =
        no_mount(HUBBLE, socket, "operator.cilium.disableFlows: false and nodeAgent.flows.hubbleSocket")
    {
        return missing;
    }
    match UnixStream::connect(socket).await {
        Ok(stream) => match hubble::status(stream, "http://localhost").await {
            Ok(_) => Finding::ok(HUBBLE, format!("the server of {name} answers")),
            Err(why) => Finding::failed(
                HUBBLE,
                format!(
                    "{name} takes connections, and its server does not answer as Hubble: {why}: is it Cilium's agent, and does it hang?"
                ),
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::ok(
            HUBBLE,
            format!(
                "there is no {name} on this node; one that comes is read (Cilium makes it with hubble.enabled)"
            ),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::failed(HUBBLE, format!("{name}: {error}: {}", remedy_of_refusal()))
        }
        Err(error) => Finding::failed(
            HUBBLE,
            format!("{name}: {error}: Cilium's agent on this node is not running, or has Hubble off"),
        ),
    }
}

fn aws(log: &Path) -> Finding {
    let name = log.display();
    if let Some(missing) = no_mount(AWS, log, "nodeAgent.flows.awsPolicyLog") {
        return missing;
    }
    match fs::File::open(log) {
        Ok(_) => Finding::ok(AWS, format!("{name} can be read")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::ok(
            AWS,
            format!(
                "there is no {name} on this node; one that comes is read (the VPC CNI writes it with network policies on)"
            ),
        ),
        Err(error) => Finding::failed(AWS, format!("{name}: {error}: {}", remedy_of_refusal())),
    }
}

/// Its logs are those of pods, which are tried as such.
fn ztunnel(pod_logs: &Path, namespace: &str) -> Finding {
    let beginning = format!("{namespace}_ztunnel-");
    let pods = fs::read_dir(pod_logs).into_iter().flatten().flatten();
    let pods = pods
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&beginning)))
        .count();
    match pods {
        0 => Finding::ok(
            ZTUNNEL,
            format!(
                "no pod ztunnel-… of namespace {namespace} (nodeAgent.flows.ztunnelNamespace) has a log on this node; one that comes is read"
            ),
        ),
        pods => Finding::ok(
            ZTUNNEL,
            format!("the logs of {} of namespace {namespace} are read", count(pods, "pod")),
        ),
    }
}

/// The folder is made on the node where it is not, so it is missing only with its mount.
fn no_mount(subject: &'static str, path: &Path, values: &str) -> Option<Finding> {
    let folder = path.parent()?;
    let is_there = folder.try_exists();
    match is_there {
        Ok(true) => None,
        Ok(false) => Some(Finding::failed(
            subject,
            format!(
                "{} is not there: the pod has no mount of it, which {values} give; an admission policy may have taken the volume",
                folder.display()
            ),
        )),
        Err(error) => {
            Some(Finding::failed(subject, format!("{}: {error}: {}", folder.display(), remedy_of_refusal())))
        }
    }
}
