//! The rights that an account holds beyond its need: somebody bound more to it than the chart does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
    SubjectRulesReviewStatus,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{OPTIONAL, RIGHTS};
use crate::executor::switch::Switch;

/// The API server must answer within this time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A namespace that nobody's rights are limited to.
const ELSEWHERE: &str = "default";
/// Kinds of which as many rights are told.
const SHOWN: usize = 8;
/// Paths of the API server that everybody may read.
const OPEN: [&str; 9] =
    ["/api", "/apis", "/healthz", "/livez", "/readyz", "/openapi", "/version", "/.well-known", "/openid"];

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The rights of the table.
    Table,
    /// To read, Secrets only if their hashes are allowed.
    Read {
        /// They are.
        secrets: bool,
    },
    /// To try what would be written.
    Try,
}

/// An account of the operator, with a client that acts as it.
pub(crate) struct Account {
    pub name: String,
    pub client: Client,
    pub need: Need,
}

/// The own account, and those that it acts as, if it does: who reads and who tries what would be written.
pub(crate) async fn accounts(
    own: Client,
    [reader, trier]: [(Option<String>, Client); 2],
    switch: Option<&Switch>,
) -> Vec<Account> {
    let secrets = match switch {
        Some(switch) => switch.rules().await.is_ok_and(|rules| rules.secret_hashes),
        None => false,
    };
    let needs = [(reader, Need::Read { secrets }), (trier, Need::Try)];
    let others =
        needs.into_iter().filter_map(|((name, client), need)| Some(Account { name: name?, client, need }));
    let own = Account { name: "the aggregator's own account".to_owned(), client: own, need: Need::Table };
    std::iter::once(own).chain(others).collect()
}

/// Says it in the log, once.
pub(crate) async fn say(accounts: &[Account], namespace: &str) {
    match sentence(accounts, namespace).await {
        Ok(Verdict::Enough(sentence)) => info!("{sentence}"),
        Ok(Verdict::Beyond(sentence)) => warn!("{sentence}"),
        Err(why) => warn!("whether more rights are held than are needed is not known: {why}"),
    }
}

/// What is held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing beyond the need.
    Enough(String),
    /// More.
    Beyond(String),
}

/// What the accounts hold beyond their needs, in the whole cluster and in the own namespace.
///
/// # Errors
/// The API server does not say.
pub(crate) async fn sentence(accounts: &[Account], namespace: &str) -> Result<Verdict, String> {
    let (mut held, mut names) = (Vec::new(), Vec::new());
    for Account { name, client, need } in accounts {
        let mut beyond = Beyond::default();
        for (place, is_own) in [(namespace, true), (ELSEWHERE, false)] {
            let rules = match rules(client, place).await {
                // An account that is not there holds nothing.
                Err(why) if why.contains("cannot impersonate") => continue,
                rules => rules.map_err(|why| format!("{name}: {why}"))?,
            };
            beyond.add(*need, is_own, &rules.resource_rules, &rules.non_resource_rules);
        }
        names.push(name.as_str());
        if let Some(text) = beyond.text() {
            held.push(format!("{name} holds {text}"));
        }
    }
    Ok(match held[..] {
        [] => Verdict::Enough(format!("no right is held beyond need by {}", names.join(", "))),
        _ => Verdict::Beyond(format!(
            "rights are held beyond need: {}; kubectl get clusterrolebindings,rolebindings -A -o wide shows who is bound to what",
            held.join("; ")
        )),
    })
}

async fn rules(client: &Client, namespace: &str) -> Result<SubjectRulesReviewStatus, String> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..Default::default() };
    let api = Api::<SelfSubjectRulesReview>::all(client.clone());
    match timeout(TIMEOUT, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => Ok(answer.status.unwrap_or_default()),
        Ok(Err(error)) => Err(anyhow::Error::new(error).root_cause().to_string()),
        Err(_) => Err("no answer in 10 s".to_owned()),
    }
}

/// What a right is good for in the hands of who should not have it, the worst first: the order in which rights are
/// told, of which a cluster's worth would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Danger {
    /// Other rights: Secrets, tokens, other accounts, roles, everything.
    Rights,
    /// To act inside of containers and nodes, or on all that is admitted.
    Acts,
    Writes,
    Reads,
}

impl Danger {
    fn of(group: &str, resource: &str, verb: &str) -> Self {
        let reads = ["get", "list", "watch", "head"].contains(&verb);
        let below = resource.split_once('/').map(|(_, below)| below);
        let acts = ["exec", "attach", "portforward", "proxy", "ephemeralcontainers", "approval"];
        if [resource, verb].contains(&"*")
            || ["impersonate", "escalate", "bind", "approve", "sign"].contains(&verb)
            || resource == "secrets"
            || below == Some("token")
            || group == "rbac.authorization.k8s.io" && !reads
        {
            Self::Rights
        } else if below.is_some_and(|below| acts.contains(&below))
            || ["admissionregistration.k8s.io", "apiextensions.k8s.io"].contains(&group) && !reads
        {
            Self::Acts
        } else if reads {
            Self::Reads
        } else {
            Self::Writes
        }
    }
}

/// The worst that can be done to something, and the verbs.
#[derive(Debug)]
struct Verbs {
    danger: Danger,
    names: BTreeSet<String>,
}

/// Verbs by what they are done to.
#[derive(Debug, Default)]
struct Beyond(BTreeMap<String, Verbs>);

impl Beyond {
    fn add(&mut self, need: Need, is_own: bool, resources: &[ResourceRule], paths: &[NonResourceRule]) {
        for rule in resources {
            let names = rule.resource_names.as_deref().unwrap_or_default();
            for group in rule.api_groups.as_deref().unwrap_or_default() {
                for resource in rule.resources.as_deref().unwrap_or_default() {
                    for verb in &rule.verbs {
                        if !need.has(group, resource, verb, names, is_own) && !is_everybodys(group, resource)
                        {
                            self.note(
                                &named(group, resource, names),
                                verb,
                                Danger::of(group, resource, verb),
                            );
                        }
                    }
                }
            }
        }
        for rule in paths {
            for path in rule.non_resource_urls.iter().flatten() {
                let plain = path.trim_end_matches(['*', '/']);
                let is_open = OPEN.iter().any(|open| {
                    plain.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                });
                for verb in
                    rule.verbs.iter().filter(|verb| !is_open || !["get", "head"].contains(&verb.as_str()))
                {
                    self.note(path, verb, Danger::of("", path, verb));
                }
            }
        }
    }

    fn note(&mut self, what: &str, verb: &str, danger: Danger) {
        let verbs = self.0.entry(what.to_owned());
        let verbs = verbs.or_insert_with(|| Verbs { danger, names: BTreeSet::new() });
        verbs.danger = verbs.danger.min(danger);
        verbs.names.insert(verb.to_owned());
    }

    /// `None` if there is nothing.
    fn text(&self) -> Option<String> {
        let mut held: Vec<_> = self.0.iter().collect();
        held.sort_by_key(|(_, verbs)| verbs.danger);
        let verbs = |verbs: &Verbs| verbs.names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let shown = held.into_iter().take(SHOWN);
        let mut kinds: Vec<String> = shown.map(|(what, of)| format!("{} of {what}", verbs(of))).collect();
        if self.0.len() > SHOWN {
            kinds.push(format!("and {} more", self.0.len() - SHOWN));
        }
        (!kinds.is_empty()).then(|| kinds.join(", "))
    }
}

fn named(group: &str, resource: &str, names: &[String]) -> String {
    let group = if group.is_empty() { String::new() } else { format!(" ({group})") };
    let names = if names.is_empty() { String::new() } else { format!(" named {}", names.join(", ")) };
    format!("{resource}{group}{names}")
}

/// To ask who one is and what one may: bound to all who are known.
fn is_everybodys(group: &str, resource: &str) -> bool {
    ["authorization.k8s.io", "authentication.k8s.io"].contains(&group) && resource.starts_with("selfsubject")
}

impl Need {
    /// Whether a right belongs to it. `is_own`: it was found in the own namespace, and not outside.
    fn has(self, group: &str, resource: &str, verb: &str, names: &[String], is_own: bool) -> bool {
        let is_wild = [group, resource, verb].contains(&"*");
        let acts = resource.contains('/');
        match self {
            Self::Table => {
                let fits = |name: Option<&str>| {
                    RIGHTS.iter().chain(&OPTIONAL).any(|right| {
                        (is_own || !right.own)
                            && right.group == group
                            && right.resources.contains(&resource)
                            && right.verbs.contains(&verb)
                            && (right.name.is_none() || right.name == name)
                    })
                };
                fits(None) || !names.is_empty() && names.iter().all(|name| fits(Some(name)))
            }
            Self::Read { secrets } => {
                let parts = ["log", "status", "scale"];
                let below = resource.rsplit_once('/').map(|(_, below)| below);
                !is_wild
                    && ["get", "list", "watch"].contains(&verb)
                    && below.is_none_or(|below| parts.contains(&below))
                    && (secrets || resource != "secrets")
            }
            Self::Try => {
                let gives =
                    ["rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"];
                !is_wild
                    && !acts
                    && ["create", "patch"].contains(&verb)
                    && resource != "secrets"
                    && !gives.contains(&group)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> ResourceRule {
        let texts = |of: &[&str]| of.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        ResourceRule {
            api_groups: Some(texts(&[group])),
            resource_names: Some(texts(names)),
            resources: Some(texts(resources)),
            verbs: texts(verbs),
        }
    }

    fn beyond(need: Need, is_own: bool, rules: &[ResourceRule]) -> Option<String> {
        let mut beyond = Beyond::default();
        beyond.add(need, is_own, rules, &[]);
        beyond.text()
    }

    #[test]
    fn what_the_table_has_is_needed_where_it_has_it() {
        let table: Vec<ResourceRule> = RIGHTS
            .iter()
            .map(|right| rule(right.group, right.resources, right.name.as_slice(), right.verbs))
            .collect();
        assert_eq!(beyond(Need::Table, true, &table), None);
        let outside = beyond(Need::Table, false, &table).unwrap();
        assert!(
            outside.starts_with("create of secrets, get, update of secrets named kestrel-agent-link, ")
                && outside.contains(
                    "impersonate of serviceaccounts named kestrel-executor, create of configmaps, "
                ),
            "{outside}"
        );
        assert!(!outside.contains("of pods"), "{outside}");
        let everybody = rule("authorization.k8s.io", &["selfsubjectrulesreviews"], &[], &["create"]);
        for (held, expected) in [
            (rule("", &["secrets"], &[], &["get"]), Some("get of secrets")),
            (
                rule("", &["secrets"], &["kestrel-agent-link", "other"], &["get"]),
                Some("get of secrets named kestrel-agent-link, other"),
            ),
            (rule("", &["pods"], &["one"], &["get", "delete"]), Some("delete of pods named one")),
            (rule("*", &["*"], &[], &["*"]), Some("* of * (*)")),
            (everybody, None),
        ] {
            assert_eq!(beyond(Need::Table, true, &[held]).as_deref(), expected);
        }
    }

    #[test]
    fn who_reads_needs_no_writes_and_who_tries_no_reads() {
        let read = Need::Read { secrets: false };
        for (need, held, expected) in [
            (read, rule("", &["pods", "pods/log", "configmaps"], &[], &["get", "list", "watch"]), None),
            (read, rule("apps", &["deployments/status", "deployments/scale"], &[], &["get"]), None),
            (
                read,
                rule("apps", &["deployments/scale"], &[], &["get", "patch"]),
                Some("patch of deployments/scale (apps)"),
            ),
            (read, rule("", &["secrets"], &[], &["get"]), Some("get of secrets")),
            (Need::Read { secrets: true }, rule("", &["secrets"], &[], &["get"]), None),
            (
                read,
                rule("", &["nodes/proxy", "pods/exec"], &[], &["get"]),
                Some("get of nodes/proxy, get of pods/exec"),
            ),
            (
                read,
                rule("apps", &["deployments"], &[], &["get", "patch"]),
                Some("patch of deployments (apps)"),
            ),
            (read, rule("", &["*"], &[], &["get"]), Some("get of *")),
            (Need::Try, rule("apps", &["deployments"], &[], &["create", "patch"]), None),
            (Need::Try, rule("apps", &["deployments"], &[], &["get"]), Some("get of deployments (apps)")),
            (
                Need::Try,
                rule("", &["secrets", "serviceaccounts/token"], &[], &["create"]),
                Some("create of secrets, create of serviceaccounts/token"),
            ),
            (
                Need::Try,
                rule("rbac.authorization.k8s.io", &["roles"], &[], &["create"]),
                Some("create of roles (rbac.authorization.k8s.io)"),
            ),
        ] {
            assert_eq!(beyond(need, true, &[held]).as_deref(), expected, "{need:?}");
        }
    }

    #[test]
    fn the_worst_is_told_first_and_never_left_out() {
        let read = Need::Read { secrets: false };
        let many = (0..10).map(|n| rule("", &[&format!("kind{n}")], &[], &["delete"]));
        let worse = [
            rule("apps", &["deployments/scale"], &[], &["patch"]),
            rule("", &["pods/exec"], &[], &["create"]),
            rule("", &["users"], &[], &["impersonate"]),
            rule("rbac.authorization.k8s.io", &["clusterroles"], &[], &["get", "escalate"]),
            rule("", &["serviceaccounts/token"], &[], &["create"]),
            rule("", &["secrets"], &[], &["list"]),
        ];
        let told = beyond(read, true, &many.chain(worse).collect::<Vec<_>>()).unwrap();
        assert_eq!(
            told,
            "escalate of clusterroles (rbac.authorization.k8s.io), list of secrets, create of serviceaccounts/token, \
             impersonate of users, create of pods/exec, patch of deployments/scale (apps), delete of kind0, delete of kind1, and 8 more"
        );
    }

    #[test]
    fn paths_that_everybody_reads_are_no_news() {
        let mut beyond = Beyond::default();
        let path = |path: &str, verb: &str| NonResourceRule {
            non_resource_urls: Some(vec![path.to_owned()]),
            verbs: vec![verb.to_owned()],
        };
        let open = ["/api", "/api/*", "/healthz", "/openapi/*", "/version/"].map(|open| path(open, "get"));
        beyond.add(Need::Table, true, &[], &open);
        assert_eq!(beyond.text(), None);
        beyond.add(
            Need::Table,
            true,
            &[],
            &[path("/metrics", "get"), path("*", "get"), path("/api", "post")],
        );
        assert_eq!(beyond.text().unwrap(), "get of *, post of /api, get of /metrics");
    }
}
