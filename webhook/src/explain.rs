//! What would become of a pod, for people: the planner without a cluster.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    cluster::Cluster,
    files,
    inject::{self, pod::Pod},
};

/// Where `kubectl` creates what names no namespace.
const NAMESPACE: &str = "default";

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
        let what = format!("{} {namespace}/{name}", object["kind"].as_str().unwrap_or("Pod"));
        let pod: Pod =
            serde_json::from_value(template.clone()).map_err(|error| format!("{what}: {error}"))?;
        let verdict = inject::judge(&pod, namespace, cluster);
        // To a String it cannot fail.
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
    if report.is_empty() { Err("no pod and no pod template is in it".to_owned()) } else { Ok(report) }
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
        let settings = Settings {
            namespace: "kestrel-ai".to_owned(),
            link_ca: Some("PEM".to_owned()),
            default_profile: true,
            ..Settings::default()
        };
        let mut cluster = Cluster::new(settings);
        let profile = "apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {name: p}\n\
                       spec: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}";
        files::learn(profile, &mut cluster).unwrap();
        explain(text, &cluster)
    }

    #[test]
    fn pods_and_templates_get_decision_reason_and_patch() {
        let template =
            "{metadata: {annotations: {kestrel.ai/inject: 'true'}}, spec: {containers: [{name: a}]}}";
        let text = format!(
            "kind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec: {{template: {template}}}\n---\n\
             kind: CronJob\nmetadata: {{name: nightly}}\nspec: {{jobTemplate: {{spec: {{template: {template}}}}}}}\n---\n\
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
    fn what_is_no_pod_is_said() {
        assert_eq!(explained("kind: Service").unwrap_err(), "no pod and no pod template is in it");
        let problem = explained("kind: Pod\nmetadata: {name: p}\nspec: {volumes: 3}").unwrap_err();
        assert!(problem.starts_with("Pod default/p: invalid type: integer `3`"), "{problem}");
    }
}
