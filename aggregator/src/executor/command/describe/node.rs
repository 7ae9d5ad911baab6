//! Nodes, with what runs there, in kubectl's own form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    super::{age, go_text, list, quantity::Amount, text},
    page::{Page, joined, moment, or_none, text_or},
};

/// Of each resource.
type Amounts = BTreeMap<String, Amount>;

const SYSTEM: [(&str, &str); 10] = [
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
    ("Kube-Proxy Version", "kubeProxyVersion"),
];

impl Page {
    /// `pods` are those that have not ended; `None`, if they may not be seen. Without a lease, the reason.
    pub(super) fn node(&mut self, node: &Value, pods: Option<&[Value]>, lease: Result<&Value, &str>) {
        let [spec, status] = [&node["spec"], &node["status"]];
        self.fields(0, &node["metadata"], &[("Name", "name")]);
        self.field(0, "Roles", roles(&node["metadata"]["labels"]));
        self.marks(node);
        self.created(node);
        self.lines("", "Taints", taints(list(spec, &["taints"])));
        self.field(0, "Unschedulable", spec["unschedulable"] == true);
        match lease {
            Err(why) => self.field(0, "Lease", format!("Failed to get lease: {why}")),
            Ok(lease) => {
                self.line(0, "Lease:");
                self.field(1, "HolderIdentity", text_or(lease, &["spec", "holderIdentity"], "<unset>"));
                for (title, field) in [("AcquireTime", "acquireTime"), ("RenewTime", "renewTime")] {
                    let time = Some(text(lease, &["spec", field])).filter(|time| !time.is_empty());
                    self.field(1, title, time.map_or("<unset>".to_owned(), moment));
                }
            }
        }
        let times = ["LastHeartbeatTime", "LastTransitionTime"];
        self.conditions(node, &["Type", "Status", times[0], times[1], "Reason", "Message"], 5);
        self.line(0, "Addresses:");
        for address in list(status, &["addresses"]) {
            self.field(1, text(address, &["type"]), text(address, &["address"]));
        }
        for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
            if let Some(resources) = status[field].as_object().filter(|resources| !resources.is_empty()) {
                self.line(0, &format!("{title}:"));
                resources.iter().for_each(|(name, value)| self.field(1, name, go_text(value)));
            }
        }
        self.line(0, "System Info:");
        self.fields(1, &status["nodeInfo"], &SYSTEM);
        self.unless_empty(0, "PodCIDR", text(spec, &["podCIDR"]));
        if !list(spec, &["podCIDRs"]).is_empty() {
            self.field(0, "PodCIDRs", joined(spec, &["podCIDRs"], ","));
        }
        self.unless_empty(0, "ProviderID", text(spec, &["providerID"]));
        match pods {
            None => self.field(0, "Pods", "not authorized"),
            Some(pods) => {
                let has = match amounts(&status["allocatable"]) {
                    none if none.is_empty() => amounts(&status["capacity"]),
                    has => has,
                };
                self.pods_of_node(pods, &has);
            }
        }
    }

    fn pods_of_node(&mut self, pods: &[Value], has: &Amounts) {
        let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
        let share = |amounts: &Amounts, name: &str| {
            let amount = of(amounts, name);
            format!("{amount} ({}%)", amount.percent(of(has, name)))
        };
        self.field(0, "Non-terminated Pods", format!("({} in total)", pods.len()));
        let titles = ["CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age"];
        self.head(&[&["Namespace", "Name", ""][..], &titles].concat());
        let mut totals = [Amounts::new(), Amounts::new()];
        for pod in pods {
            let both = ["requests", "limits"].map(|kind| of_pod(pod, kind));
            let cells =
                ["cpu", "memory"].map(|name| both.each_ref().map(|amounts| share(amounts, name)).join("\t"));
            let [namespace, name] = ["namespace", "name"].map(|field| text(pod, &["metadata", field]));
            let age = age(pod["metadata"]["creationTimestamp"].as_str());
            self.line(1, &format!("{namespace}\t{name}\t\t{}\t{age}", cells.join("\t")));
            totals.iter_mut().zip(&both).for_each(|(total, of)| add(total, of));
        }
        self.line(0, "Allocated resources:");
        self.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
        self.head(&["Resource", "Requests", "Limits"]);
        let standard = ["cpu", "memory", "ephemeral-storage"];
        let is_huge = |name: &&str| name.starts_with("hugepages-");
        let (huge, others): (Vec<&str>, Vec<&str>) = has
            .keys()
            .map(String::as_str)
            .filter(|name| !standard.contains(name) && *name != "pods")
            .partition(is_huge);
        for name in standard.into_iter().chain(huge) {
            self.line(
                1,
                &format!("{name}\t{}", totals.each_ref().map(|total| share(total, name)).join("\t")),
            );
        }
        for name in others {
            let cells = totals.each_ref().map(|total| of(total, name).to_string());
            self.line(1, &format!("{name}\t{}", cells.join("\t")));
        }
    }
}

fn roles(labels: &Value) -> String {
    let role = |(name, value): (&String, &Value)| match name.strip_prefix("node-role.kubernetes.io/") {
        None if name == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        role => role.map(str::to_owned),
    };
    let roles: BTreeSet<String> = labels.as_object().into_iter().flatten().filter_map(role).collect();
    let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
    or_none(roles.join(","))
}

/// By what they do.
fn taints(taints: &[Value]) -> Vec<String> {
    let mut taints: Vec<[&str; 3]> =
        taints.iter().map(|taint| ["effect", "key", "value"].map(|field| text(taint, &[field]))).collect();
    taints.sort_unstable();
    let shown = |[effect, key, value]: [&str; 3]| match value {
        "" => format!("{key}:{effect}"),
        value => format!("{key}={value}:{effect}"),
    };
    taints.into_iter().map(shown).collect()
}

fn amounts(resources: &Value) -> Amounts {
    let resources = resources.as_object().into_iter().flatten();
    resources.map(|(name, value)| (name.clone(), Amount::of(&go_text(value)))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.plus(*amount);
    }
}

fn raise(least: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let most = least.entry(name.clone()).or_default();
        *most = most.or_more(*amount);
    }
}

/// What a pod asks for (`requests`), or may use at most (`limits`): its containers together, or what one needs
/// that runs before them beside the sidecars that run already, where that is more.
fn of_pod(pod: &Value, kind: &str) -> Amounts {
    let [spec, status] = [&pod["spec"], &pod["status"]];
    let resize = list(status, &["conditions"]).iter().find(|it| it["type"] == "PodResizePending");
    let is_infeasible = resize.is_some_and(|it| it["reason"] == "Infeasible");
    let statuses = ["containerStatuses", "initContainerStatuses"].map(|field| list(status, &[field]));
    // While a container is resized, the larger one of what it has and of what it shall have.
    let of_container = |container: &Value| {
        let mut wanted = amounts(&container["resources"][kind]);
        let known = statuses.into_iter().flatten().find(|status| status["name"] == container["name"]);
        if let Some(status) = known.filter(|it| kind == "requests" && it["resources"].is_object()) {
            if is_infeasible {
                wanted.clear();
            }
            raise(&mut wanted, &amounts(&status["resources"][kind]));
            raise(&mut wanted, &amounts(&status["allocatedResources"]));
        }
        wanted
    };
    let (mut total, mut sidecars, mut before) = (Amounts::new(), Amounts::new(), Amounts::new());
    list(spec, &["containers"]).iter().for_each(|container| add(&mut total, &of_container(container)));
    for container in list(spec, &["initContainers"]) {
        let wanted = of_container(container);
        let mut together = sidecars.clone();
        add(&mut together, &wanted);
        raise(&mut before, &together);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &wanted);
            sidecars = together;
        }
    }
    raise(&mut total, &before);
    let mut overhead = amounts(&spec["overhead"]);
    overhead.retain(|name, _| kind == "requests" || total.get(name).is_some_and(|amount| !amount.is_zero()));
    add(&mut total, &overhead);
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(amounts: &Amounts) -> Vec<String> {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn a_pod_needs_what_its_containers_need_together_or_one_before_them() {
        let of = |requests: Value| json!({"requests": requests, "limits": requests});
        let mut pod = json!({
            "spec": {
                "containers": [{"name": "a", "resources": of(json!({"cpu": "100m", "memory": "64Mi"}))}],
                "initContainers": [
                    {"name": "first", "resources": of(json!({"cpu": "2"}))},
                    {"name": "sidecar", "restartPolicy": "Always", "resources": of(json!({"cpu": "50m", "memory": "1Mi"}))},
                    {"name": "last", "resources": of(json!({"memory": "100Mi"}))},
                ],
                "overhead": {"cpu": "10m", "example.com/x": "1"},
            },
        });
        assert_eq!(written(&of_pod(&pod, "requests")), ["cpu=2010m", "example.com/x=1", "memory=101Mi"]);
        assert_eq!(written(&of_pod(&pod, "limits")), ["cpu=2010m", "memory=101Mi"]);
        pod["status"] =
            json!({"containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}]});
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "3060m", "it has more than it shall have");
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("9");
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "9060m");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(of_pod(&pod, "requests")["cpu"].to_string(), "3060m", "it does not get it");
    }

    #[test]
    fn a_node_without_anything_is_shown_with_unknowns() {
        let mut page = Page::default();
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "b", "effect": "NoSchedule"}, {"key": "a", "value": "c", "effect": "NoExecute"}]}});
        page.node(&node, None, Err("no"));
        for line in [
            "Roles:\t<none>",
            "Lease:\tFailed to get lease: no",
            "Taints:\ta=c:NoExecute\n\tb:NoSchedule",
            "Pods:\tnot authorized",
        ] {
            assert!(page.0.contains(line), "{line}: {}", page.0);
        }
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        page.node(&node, Some(&[pod]), Ok(&json!({})));
        for line in [
            "HolderIdentity:\t<unset>",
            "\tp\t\t1 (0%)\t0 (0%)\t0 (0%)\t0 (0%)\t<unknown>",
            "cpu\t1 (0%)\t0 (0%)",
        ] {
            assert!(page.0.contains(line), "{line}: {}", page.0);
        }
    }
}
