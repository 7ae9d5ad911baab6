//! The rendered roles against the table in `docs/security.md`.

use std::{collections::BTreeSet, fs};

use kestrel_aggregator::executor::dry_run::{DEMAND, GUARD};
use serde_json::Value;

use crate::helm::{self, Objects, list, text};

/// One verb on one resource, for all objects or for the named ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: String,
    /// `cluster`, or `own` for the release's namespace.
    scope: String,
    group: String,
    resource: String,
    verb: String,
    names: Vec<String>,
}

fn rendered(objects: &Objects) -> BTreeSet<Right> {
    let bindings = [("ClusterRoleBinding", "cluster"), ("RoleBinding", "own")]
        .into_iter()
        .flat_map(|(kind, scope)| objects.of_kind(kind).map(move |binding| (binding, scope)));
    let mut rights = BTreeSet::new();
    for (binding, scope) in bindings {
        let role = objects.get(text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
        for subject in list(&binding["subjects"]) {
            assert_eq!(subject["kind"], "ServiceAccount");
            assert_eq!(subject["namespace"], helm::NAMESPACE);
            for rule in list(&role["rules"]) {
                rights.extend(rights_of(rule, text(&subject["name"]), scope));
            }
        }
    }
    rights
}

fn rights_of(rule: &Value, account: &str, scope: &str) -> Vec<Right> {
    let texts = |key: &str| list(&rule[key]).iter().map(|entry| text(entry).to_owned()).collect::<Vec<_>>();
    product(
        account,
        scope,
        &texts("apiGroups"),
        &texts("resources"),
        &texts("verbs"),
        &texts("resourceNames"),
    )
}

fn product(
    account: &str,
    scope: &str,
    groups: &[String],
    resources: &[String],
    verbs: &[String],
    names: &[String],
) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in groups {
        for resource in resources {
            for verb in verbs {
                let mut names = names.to_vec();
                names.sort();
                rights.push(Right {
                    account: account.to_owned(),
                    scope: scope.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    names,
                });
            }
        }
    }
    rights
}

/// The rows of the table: account, scope, API group, resources, names, verbs, purpose.
fn documented() -> BTreeSet<Right> {
    let page = fs::read_to_string(helm::repository("docs/security.md")).unwrap();
    let mut rights = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `kestrel-")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [account, scope, group, resources, names, verbs, purpose] = cells[..] else {
            panic!("seven cells expected: {row}")
        };
        assert!(!purpose.is_empty(), "no purpose: {row}");
        let words = |cell: &str| -> Vec<String> {
            cell.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
        };
        let group = if group == "core" { String::new() } else { group.to_owned() };
        let account = account.trim_matches('`');
        let row = product(account, scope, &[group], &words(resources), &words(verbs), &words(names));
        rights.extend(row);
    }
    rights
}

#[test]
fn the_roles_are_those_of_the_security_page() {
    let (rendered, documented) = (rendered(&Objects::with(&[])), documented());
    let undocumented: Vec<_> = rendered.difference(&documented).collect();
    let unrendered: Vec<_> = documented.difference(&rendered).collect();
    assert!(undocumented.is_empty() && unrendered.is_empty(), "{undocumented:#?}\n{unrendered:#?}");
}

#[test]
fn no_right_can_be_given_away_or_hides_behind_a_wildcard() {
    for right in rendered(&Objects::with(&[])) {
        for part in [&right.group, &right.resource, &right.verb] {
            assert_ne!(part, "*", "{right:?}");
        }
        assert!(!["escalate", "bind", "delete", "deletecollection"].contains(&&*right.verb));
        // As one account of its own namespace, which only reads.
        let reads = right.scope == "own"
            && right.resource == "serviceaccounts"
            && right.names == ["kestrel-executor"];
        assert!(right.verb != "impersonate" || reads, "{right:?}");
        for door in ["exec", "attach", "proxy", "portforward", "ephemeralcontainers", "token"] {
            assert!(!right.resource.ends_with(&format!("/{door}")), "{right:?}");
        }
    }
}

#[test]
fn secrets_are_reached_by_name_alone() {
    for right in rendered(&Objects::with(&[])).iter().filter(|right| right.resource == "secrets") {
        assert_eq!(right.scope, "own", "{right:?}");
        assert!(right.verb == "create" || !right.names.is_empty(), "{right:?}");
    }
}

#[test]
fn outside_its_namespace_the_operator_only_reads() {
    for right in rendered(&Objects::with(&[])).iter().filter(|right| right.scope == "cluster") {
        let write = match (&*right.resource, &*right.verb) {
            ("events" | "tokenreviews", "create") => true,
            ("injectionprofiles/status", "patch") => true,
            ("mutatingwebhookconfigurations", "patch") => right.names == ["kestrel-webhook"],
            (_, verb) => ["get", "list", "watch"].contains(&verb),
        };
        assert!(write, "{right:?}");
    }
}

#[test]
fn the_node_agent_has_no_rights_and_no_token_for_the_api_server() {
    let objects = Objects::with(&[]);
    assert!(rendered(&objects).iter().all(|right| right.account != "kestrel-node-agent"));
    assert_eq!(objects.get("ServiceAccount", "kestrel-node-agent")["automountServiceAccountToken"], false);
    let pod = &objects.get("DaemonSet", "kestrel-node-agent")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[test]
fn reading_logs_on_request_can_be_switched_off() {
    let rights = rendered(&Objects::with(&["podLogs.onRequest=false"]));
    assert!(rights.iter().all(|right| right.resource != "pods/log"));
}

#[test]
fn who_reads_for_the_cloud_reads_no_secrets_unless_the_owner_allows_their_hashes() {
    let objects = Objects::with(&[]);
    let account = objects.get("ServiceAccount", "kestrel-executor");
    assert_eq!(account["automountServiceAccountToken"], false);
    let switch = |objects: &Objects| objects.get("ConfigMap", "kestrel-executor")["data"].clone();
    let is = |enabled: &str, hashes: &str| serde_json::json!({"enabled": enabled, "secretHashes": hashes, "dryRun": "false"});
    assert_eq!(switch(&objects), is("true", "false"));
    assert_eq!(switch(&Objects::with(&["operator.executor.enabled=false"])), is("false", "false"));
    let hashed = Objects::with(&["operator.executor.secretHashes=true"]);
    assert_eq!(switch(&hashed), is("true", "true"));
    let (without, with) = (rendered(&objects), rendered(&hashed));
    assert!(
        without
            .iter()
            .filter(|right| right.account == "kestrel-executor")
            .all(|right| right.resource != "secrets")
    );
    let more: Vec<_> =
        with.difference(&without).map(|right| (&*right.account, &*right.resource, &*right.verb)).collect();
    assert_eq!(more, [("kestrel-executor", "secrets", "get"), ("kestrel-executor", "secrets", "list")]);
    // The switch is no part of the pods, so that turning it restarts none.
    let pods =
        |objects: &Objects| objects.get("Deployment", "kestrel-aggregator")["spec"]["template"].clone();
    assert_eq!(pods(&objects), pods(&Objects::with(&["operator.executor.enabled=false"])));
}

#[test]
fn of_what_is_below_an_object_parts_are_read_of_what_may_be_read_whole() {
    let rights = rendered(&Objects::with(&[]));
    let reads: BTreeSet<_> = rights
        .iter()
        .filter(|right| right.account == "kestrel-executor" && right.verb == "get")
        .map(|right| (&*right.group, &*right.resource))
        .collect();
    for right in rights.iter().filter(|right| right.account == "kestrel-executor") {
        if let Some((whole, part)) = right.resource.split_once('/').filter(|_| right.resource != "pods/log") {
            assert!(["status", "scale"].contains(&part) && right.verb == "get", "{right:?}");
            assert!(reads.contains(&(&*right.group, whole)), "{right:?}");
        }
    }
    for (group, resource) in
        [("", "pods/status"), ("apps", "deployments/status"), ("apps", "deployments/scale")]
    {
        assert!(reads.contains(&(group, resource)), "{resource}");
    }
}

#[test]
fn dry_runs_of_network_policies_are_granted_on_request_and_nothing_but_dry_runs() {
    let switch = "operator.networkPolicies.dryRun=true";
    let (without, objects) = (rendered(&Objects::with(&[])), Objects::with(&[switch]));
    let with = rendered(&objects);
    let more: Vec<_> =
        with.difference(&without).map(|right| (&*right.account, &*right.resource, &*right.verb)).collect();
    assert_eq!(
        more,
        [
            ("kestrel-aggregator", "serviceaccounts", "impersonate"),
            ("kestrel-dry-run", "networkpolicies", "create"),
            ("kestrel-dry-run", "networkpolicies", "patch")
        ]
    );
    assert_eq!(objects.get("ConfigMap", "kestrel-executor")["data"]["dryRun"], "false");
    holds_to_dry_runs(&objects);
    let older = Objects::on("1.29.0", &[switch]);
    assert!(
        rendered(&older).iter().any(|right| right.resource == "networkpolicies" && right.verb == "patch")
    );
    assert_eq!(older.find("ValidatingAdmissionPolicy", "kestrel-dry-run"), None);
}

/// The account's every write has to be a dry run, as the aggregator looks for it.
fn holds_to_dry_runs(objects: &Objects) {
    let policy = &objects.get("ValidatingAdmissionPolicy", GUARD)["spec"];
    assert_eq!(policy["failurePolicy"], "Fail");
    let everything = serde_json::json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    assert_eq!(policy["matchConstraints"]["resourceRules"], everything);
    let account =
        format!("request.userInfo.username == 'system:serviceaccount:{}:kestrel-dry-run'", helm::NAMESPACE);
    assert_eq!(policy["matchConditions"][0]["expression"], account);
    assert_eq!(policy["validations"][0]["expression"], DEMAND);
    let binding = &objects.get("ValidatingAdmissionPolicyBinding", GUARD)["spec"];
    assert_eq!(*binding, serde_json::json!({"policyName": GUARD, "validationActions": ["Deny"]}));
}

#[test]
fn dry_runs_of_manifests_have_an_account_of_their_own_that_reads_nothing() {
    let switch = "operator.executor.dryRun=true";
    let (without, objects) = (rendered(&Objects::with(&[])), Objects::with(&[switch]));
    let with = rendered(&objects);
    let more: Vec<_> = with.difference(&without).collect();
    for right in &more {
        let may = match right.account.as_str() {
            "kestrel-dry-run" => right.scope == "cluster" && ["create", "patch"].contains(&&*right.verb),
            "kestrel-aggregator" => {
                right.scope == "own" && right.verb == "impersonate" && right.names == ["kestrel-dry-run"]
            }
            _ => false,
        };
        assert!(may, "{right:?}");
        assert!(
            !["secrets", "roles", "rolebindings", "clusterroles", "clusterrolebindings"]
                .contains(&&*right.resource)
                && !right.group.starts_with("admissionregistration")
                && !right.group.starts_with("apiextensions"),
            "{right:?}"
        );
    }
    assert!(more.len() > 80, "{}", more.len());
    // What is tried can be read as well, so that the difference is seen.
    for right in more.iter().filter(|right| right.account == "kestrel-dry-run") {
        let readable = with.iter().any(|other| {
            other.account == "kestrel-executor"
                && other.group == right.group
                && other.resource == right.resource
        });
        assert!(readable, "{right:?}");
    }
    holds_to_dry_runs(&objects);
    assert_eq!(objects.get("ConfigMap", "kestrel-executor")["data"]["dryRun"], "true");
    assert_eq!(objects.get("ServiceAccount", "kestrel-dry-run")["automountServiceAccountToken"], false);
    // Nothing would hold it to dry runs.
    let older = Objects::on("1.29.0", &[switch]);
    assert_eq!(rendered(&older).iter().find(|right| right.account == "kestrel-dry-run"), None);
    assert_eq!(older.get("ConfigMap", "kestrel-executor")["data"]["dryRun"], "false");
    let pods =
        |objects: &Objects| objects.get("Deployment", "kestrel-aggregator")["spec"]["template"].clone();
    assert_eq!(pods(&objects), pods(&Objects::with(&[])), "no pod is restarted for it");
}
