//! What would become of a pod, for people: the planner without a cluster.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    cluster::Cluster,
    files,
    inject::{self, pod::Pod},
    profile::Labels,
};

/// Where `kubectl` creates what names no namespace.
const NAMESPACE: &str = "default";
/// What is taken for granted of a profile's image without a cluster.
pub(crate) const TRIED: &str =
    "counts as an image that has run on a node without a Secret, which only a cluster knows";

/// Decision, reason and patch of every pod and pod template in `text`.
///
/// # Errors
/// There is none, or what is wrong with which.
pub fn explain(text: &str, cluster: &Cluster) -> Result<String, String> {
    let mut report = String::new();
    for object in files::objects(text)? {
        let Some(template) = template(&object) else { continue };
        let field = |name: &str| object["metadata"][name].as_str();
        let namespace = field("namespace").unwrap_or(NAMESPACE);
        let name = field("name").or_else(|| field("generateName")).unwrap_or("without a name");
        let kind = object["kind"].as_str().unwrap_or("Pod");
        let what = format!("{kind} {namespace}/{name}");
        let mut pod: Pod =
            serde_json::from_value(template.clone()).map_err(|error| format!("{what}: {error}"))?;
        if kind != "Pod" {
            pod.is_made_by(kind, name);
        }
        // To a String it cannot fail.
        if let Some(skip) = cluster.leaves_out(namespace, pod.labels().unwrap_or(&Labels::new())) {
            _ = writeln!(report, "{what}: {}\nno patch", skip.status());
            continue;
        }
        let verdict = inject::judge(&pod, namespace, cluster);
        _ = writeln!(report, "{what}: {}", verdict.status);
        for warning in &verdict.warnings {
            _ = writeln!(report, "warning: {warning}");
        }
        if verdict.patch.is_empty() {
            _ = writeln!(report, "no patch");
        } else {
            let patch = serde_json::to_string_pretty(&verdict.patch).map_err(|error| error.to_string())?;
            _ = writeln!(report, "patch:\n{patch}");
        }
    }
    if report.is_empty() {
        return Err("no pod and no pod template is in it".to_owned());
    }
    for (name, image) in cluster.images_of_profiles() {
        _ = writeln!(report, "note: {image} of InjectionProfile {name} {TRIED}");
    }
    Ok(report)
}

/// The pod, or the template of one.
fn template(object: &Value) -> Option<&Value> {
    if object["kind"] == "Pod" {
        return Some(object);
    }
    ["/spec/jobTemplate/spec/template", "/spec/template"].into_iter().find_map(|path| object.pointer(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Settings;

    fn explained(text: &str) -> Result<String, String> {
        explain(text, &cluster(""))
    }

    /// A cluster whose only profile covers namespace `shop`, with more in its specification.
    fn cluster(more: &str) -> Cluster {
        let settings = Settings {
            namespace: "kestrel-ai".to_owned(),
            link_ca: Some("PEM".to_owned()),
            default_profile: true,
            ..Settings::default()
        };
        let mut cluster = Cluster::new(settings);
        let profile = format!(
            "apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {{name: p}}\n\
             spec: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: shop}}}}{more}}}"
        );
        files::learn(&profile, &mut cluster).unwrap();
        cluster.take_images_as_tried();
        cluster
    }

    const TEMPLATE: &str =
        "{metadata: {annotations: {kestrel.ai/inject: 'true'}}, spec: {containers: [{name: a}]}}";

    #[test]
    fn pods_and_templates_get_decision_reason_and_patch() {
        let text = format!(
            "kind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec: {{template: {TEMPLATE}}}\n---\n\
             kind: CronJob\nmetadata: {{name: nightly}}\nspec: {{jobTemplate: {{spec: {{template: {TEMPLATE}}}}}}}\n---\n\
             kind: Pod\nmetadata: {{name: p}}\nspec: {{}}\n"
        );
        let report = explained(&text).unwrap();
        let lines: Vec<_> = report.lines().filter(|line| !line.starts_with([' ', '[', ']'])).collect();
        assert_eq!(
            lines,
            [
                "Deployment shop/web: injected by InjectionProfile p: no log files to read, as no container writes \
                 to an emptyDir volume",
                "patch:",
                "CronJob default/nightly: injected: no log files to read, as no container writes to an emptyDir volume",
                "patch:",
                "Pod default/p: skipped (not-asked): kestrel.ai/inject is not \"true\"",
                "no patch",
            ]
        );
    }

    #[test]
    fn a_roll_out_reaches_the_same_workloads_as_in_a_cluster() {
        let cluster = cluster(", rollout: {percent: 50}");
        let reached = |name: &str| {
            let text = format!(
                "kind: Deployment\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{template: {TEMPLATE}}}"
            );
            explain(&text, &cluster).unwrap().contains(": injected by")
        };
        let makes_pods = |name: &str| {
            let pod = serde_json::json!({
                "metadata": {"annotations": {"kestrel.ai/inject": "true"}, "labels": {"pod-template-hash": "5d8f"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{name}-5d8f"), "controller": true}]},
                "spec": {"containers": [{"name": "a"}]},
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            inject::judge(&pod, "shop", &cluster).skipped.is_none()
        };
        let names: Vec<_> = (0..20).map(|number| format!("app-{number}")).collect();
        let found: Vec<_> = names.iter().map(|name| reached(name)).collect();
        assert_eq!(found, names.iter().map(|name| makes_pods(name)).collect::<Vec<_>>());
        assert!(found.contains(&true) && found.contains(&false));
    }

    #[test]
    fn a_profiles_image_counts_as_tried_and_that_is_said() {
        let text =
            format!("kind: Job\nmetadata: {{name: once, namespace: shop}}\nspec: {{template: {TEMPLATE}}}");
        let report = explain(&text, &cluster(", image: private/collector:1")).unwrap();
        assert!(report.starts_with("Job shop/once: injected by InjectionProfile p: "), "{report}");
        let note = format!("note: private/collector:1 of InjectionProfile p {TRIED}\n");
        assert!(report.ends_with(&note), "{report}");
    }

    #[test]
    fn what_the_webhook_is_not_asked_about_is_left_alone() {
        let mut cluster = cluster("");
        cluster.coverage.namespaces = r#"{"matchLabels": {"team": "web"}}"#.parse().unwrap();
        let shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: web}}";
        files::learn(shop, &mut cluster).unwrap();
        cluster.coverage.pods =
            r#"{"matchExpressions": [{"key": "job-name", "operator": "DoesNotExist"}]}"#.parse().unwrap();
        let labelled = TEMPLATE.replace("metadata: {", "metadata: {labels: {job-name: a}, ");
        let text =
            format!("kind: Job\nmetadata: {{name: a, namespace: shop}}\nspec: {{template: {labelled}}}");
        let report = explain(&text, &cluster).unwrap();
        assert!(report.starts_with("Job shop/a: skipped (labels): "), "{report}");
        for (namespace, expected) in [("shop", "injected"), ("bank", "skipped (namespace): ")] {
            let text = format!(
                "kind: Deployment\nmetadata: {{name: a, namespace: {namespace}}}\nspec: {{template: {TEMPLATE}}}"
            );
            let report = explain(&text, &cluster).unwrap();
            assert!(report.starts_with(&format!("Deployment {namespace}/a: {expected}")), "{report}");
        }
    }

    #[test]
    fn what_is_no_pod_is_said() {
        assert_eq!(explained("kind: Service").unwrap_err(), "no pod and no pod template is in it");
        let problem = explained("kind: Pod\nmetadata: {name: p}\nspec: {volumes: 3}").unwrap_err();
        assert!(problem.starts_with("Pod default/p: invalid type: integer `3`"), "{problem}");
    }
}
