//! `kubectl rollout status` and `kubectl rollout history`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Output,
    get::targets,
    is_full,
    kubectl::Kubectl,
    list,
    logs::selector,
    number,
    session::{Session, Trouble, named, with_query},
    table, text,
};

const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The workloads that the words name.
async fn workloads(
    session: &Session<'_>,
    command: &Kubectl,
    output: &mut Output,
) -> Result<Vec<Value>, Trouble> {
    let mut workloads = Vec::new();
    for target in targets(session, &command.words).await? {
        let path = target.resource.path(Some(command.namespace()));
        match target.name {
            Some(name) => workloads.push(session.object(&named(&path, &name)).await?),
            None => {
                let pairs = [("labelSelector", command.arguments.value("selector").unwrap_or_default())];
                let found = session.list(&with_query(&path, &pairs)).await?;
                workloads.extend(found.told(&target.resource.name, output));
            }
        }
    }
    Ok(workloads)
}

/// The revision that is asked for, if one is.
fn revision(command: &Kubectl) -> Result<Option<i64>, Trouble> {
    match command.arguments.value("revision").map(str::parse::<i64>) {
        None | Some(Ok(0)) => Ok(None),
        Some(Ok(revision @ 1..)) => Ok(Some(revision)),
        Some(Ok(revision)) => Err(Trouble::Said(format!("revision must be a positive integer: {revision}"))),
        Some(Err(_)) => Err(Trouble::said("--revision is a number")),
    }
}

pub(super) async fn status(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let wanted = revision(command)?;
    for workload in workloads(session, command, &mut output).await? {
        match told(&workload, wanted) {
            Ok(text) => output.stdout.push_str(&format!("{text}\n")),
            Err(text) => output.fails(&Trouble::Said(text)),
        }
    }
    Ok(output)
}

/// How far a roll-out is, as kubectl says it, who knows which revision runs of Deployments alone.
fn told(workload: &Value, revision: Option<i64>) -> Result<String, String> {
    let name = text(workload, &["metadata", "name"]);
    let [status, spec] = [&workload["status"], &workload["spec"]];
    let of = |field: &str| number(status, &[field]);
    let observed = number(workload, &["metadata", "generation"]) <= of("observedGeneration");
    Ok(match text(workload, &["kind"]) {
        "Deployment" => {
            let (updated, replicas, available) =
                (of("updatedReplicas"), of("replicas"), of("availableReplicas"));
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
            let late = list(status, &["conditions"])
                .iter()
                .any(|it| it["type"] == "Progressing" && it["reason"] == "ProgressDeadlineExceeded");
            let running = text(workload, &["metadata", "annotations", REVISION]).parse().unwrap_or(0);
            if let Some(revision) = revision.filter(|revision| *revision != running) {
                return Err(format!(
                    "desired revision ({revision}) is different from the running revision ({running})"
                ));
            }
            if !observed {
                "Waiting for deployment spec update to be observed...".to_owned()
            } else if late {
                return Err(format!("deployment {name:?} exceeded its progress deadline"));
            } else if updated < wanted {
                format!("{waiting} {updated} out of {wanted} new replicas have been updated...")
            } else if replicas > updated {
                format!("{waiting} {} old replicas are pending termination...", replicas - updated)
            } else if available < updated {
                format!("{waiting} {available} of {updated} updated replicas are available...")
            } else {
                format!("deployment {name:?} successfully rolled out")
            }
        }
        "DaemonSet" => {
            if text(spec, &["updateStrategy", "type"]) != "RollingUpdate" {
                return Err("rollout status is only available for RollingUpdate strategy type".to_owned());
            }
            let (updated, wanted) = (of("updatedNumberScheduled"), of("desiredNumberScheduled"));
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
            if !observed {
                "Waiting for daemon set spec update to be observed...".to_owned()
            } else if updated < wanted {
                format!("{waiting} {updated} out of {wanted} new pods have been updated...")
            } else if of("numberAvailable") < wanted {
                format!("{waiting} {} of {wanted} updated pods are available...", of("numberAvailable"))
            } else {
                format!("daemon set {name:?} successfully rolled out")
            }
        }
        "StatefulSet" => {
            if text(spec, &["updateStrategy", "type"]) != "RollingUpdate" {
                return Err("rollout status is only available for RollingUpdate strategy type".to_owned());
            }
            let (wanted, updated) = (spec["replicas"].as_i64().unwrap_or(1), of("updatedReplicas"));
            let partition = &spec["updateStrategy"]["rollingUpdate"];
            if of("observedGeneration") == 0 || !observed {
                "Waiting for statefulset spec update to be observed...".to_owned()
            } else if of("readyReplicas") < wanted {
                format!("Waiting for {} pods to be ready...", wanted - of("readyReplicas"))
            } else if !partition.is_null() {
                let partition = number(partition, &["partition"]);
                if updated < wanted - partition {
                    format!(
                        "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                        wanted - partition
                    )
                } else {
                    format!("partitioned roll out complete: {updated} new pods have been updated...")
                }
            } else {
                let [current, update] =
                    ["currentRevision", "updateRevision"].map(|field| text(status, &[field]));
                if current != update {
                    format!(
                        "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
                    )
                } else {
                    format!(
                        "statefulset rolling update complete {} pods at revision {current}...",
                        of("currentReplicas")
                    )
                }
            }
        }
        kind => return Err(format!("no status viewer has been implemented for {kind}")),
    })
}

pub(super) async fn history(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let mut output = Output::default();
    let wanted = revision(command)?;
    let mut all = Vec::new();
    for workload in workloads(session, command, &mut output).await? {
        let revisions = revisions(session, command.namespace(), &workload, &mut output).await?;
        all.push((workload, revisions));
    }
    output.stdout = session.apart(move |_| history_of(all, wanted)).await?.map_err(Trouble::Said)?;
    Ok(output)
}

/// Of each revision: why it was made, and its template.
type Revisions = BTreeMap<i64, (String, Value)>;

fn history_of(all: Vec<(Value, Revisions)>, wanted: Option<i64>) -> Result<String, String> {
    let mut shown = String::new();
    for (workload, revisions) in all {
        if is_full(&shown) {
            break;
        }
        let name = text(&workload, &["metadata", "name"]);
        let api = text(&workload, &["apiVersion"]);
        let kind = text(&workload, &["kind"]).to_lowercase();
        let group = api.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
        let head = format!("{kind}{group}/{name} ");
        match wanted {
            None if revisions.is_empty() => shown.push_str(&format!("{head}\nNo rollout history found.\n")),
            None => {
                let mut rows = String::from("REVISION\tCHANGE-CAUSE\n");
                for (revision, (cause, _)) in &revisions {
                    rows.push_str(&format!("{revision}\t{cause}\n"));
                }
                shown.push_str(&format!("{head}\n{}\n", table::align(&rows, 0, 2)));
            }
            Some(revision) => match revisions.get(&revision) {
                None => return Err("unable to find the specified revision".to_owned()),
                Some((_, template)) => {
                    shown.push_str(&format!(
                        "{head}with revision #{revision}\n{}\n",
                        super::describe::template(template)
                    ));
                }
            },
        }
    }
    Ok(shown)
}

async fn revisions(
    session: &Session<'_>,
    namespace: &str,
    workload: &Value,
    output: &mut Output,
) -> Result<Revisions, Trouble> {
    let kind = text(workload, &["kind"]);
    let resource = match kind {
        "Deployment" => "replicasets",
        "DaemonSet" | "StatefulSet" => "controllerrevisions",
        kind => return Err(Trouble::said(format!("no history viewer has been implemented for {kind:?}"))),
    };
    let path = format!("/apis/apps/v1/namespaces/{namespace}/{resource}");
    let selector = selector(&workload["spec"]["selector"]);
    let uid = text(workload, &["metadata", "uid"]);
    let found = session.list(&with_query(&path, &[("labelSelector", &selector)])).await?;
    let items = found.told(resource, output);
    let mut revisions = BTreeMap::new();
    for item in items {
        let owned =
            list(&item, &["metadata", "ownerReferences"]).iter().any(|owner| text(owner, &["uid"]) == uid);
        let annotations = &item["metadata"]["annotations"];
        let revision = match kind {
            "Deployment" => text(annotations, &[REVISION]).parse().ok(),
            _ => item["revision"].as_i64(),
        };
        let Some(revision) = revision.filter(|_| owned) else { continue };
        let template = match kind {
            "Deployment" => &item["spec"]["template"],
            _ => &item["data"]["spec"]["template"],
        };
        let cause = match text(annotations, &[CHANGE_CAUSE]) {
            "" => "<none>",
            cause => cause,
        };
        revisions.insert(revision, (cause.to_owned(), template.clone()));
    }
    Ok(revisions)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_state_of_a_rollout_is_said_in_kubectls_words() {
        let deployment = |status: Value| json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
        let done =
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3});
        assert_eq!(told(&deployment(done), None).unwrap(), "deployment \"web\" successfully rolled out");
        let partly = json!({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 3});
        assert_eq!(
            told(&deployment(partly.clone()), None).unwrap(),
            "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated..."
        );
        let late = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        assert_eq!(
            told(&deployment(late), None).unwrap_err(),
            "deployment \"web\" exceeded its progress deadline"
        );
        assert!(told(&json!({"kind": "Pod"}), None).is_err());
        let mut fourth = deployment(partly);
        fourth["metadata"]["annotations"] = json!({REVISION: "4"});
        assert_eq!(
            told(&fourth, Some(3)).unwrap_err(),
            "desired revision (3) is different from the running revision (4)"
        );
        assert_eq!(told(&fourth, Some(4)), told(&fourth, None));
    }
}
