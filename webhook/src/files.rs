//! What decides about pods, from files instead of an API server: YAML or
//! JSON, as `kubectl` reads and writes them. A mistake in a file is an error,
//! where the API server would refuse the object.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Key, Kind, Object},
    profile::Profile,
};

/// No object in a cluster is larger.
const LARGEST: u64 = 4 * 1024 * 1024;
const MOST_FILES: usize = 1000;

/// Reads every `.yaml`, `.yml` and `.json` file of `folder` into `cluster`.
///
/// # Errors
/// A file that cannot be read or is wrong, by its name.
pub fn load(folder: &Path, cluster: &mut Cluster) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
        {
            paths.push(path);
        }
        if paths.len() > MOST_FILES {
            bail!("{} holds more than {MOST_FILES} files", folder.display());
        }
    }
    paths.sort();
    for path in paths {
        let text = read(&path)?;
        learn(&text, cluster).map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))?;
    }
    Ok(())
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, is too large or no text.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.len();
    if size > LARGEST {
        bail!("{} is larger than {LARGEST} bytes", path.display());
    }
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Puts the objects of a text into `cluster`; kinds that do not decide about
/// pods are passed over.
///
/// # Errors
/// What is wrong with which object.
pub fn learn(text: &str, cluster: &mut Cluster) -> Result<(), String> {
    for object in objects(text)? {
        let (api_version, kind) = (&object["apiVersion"], &object["kind"]);
        let kind = match (api_version.as_str(), kind.as_str()) {
            (Some("v1"), Some("Namespace")) => Kind::Namespace,
            (Some("v1"), Some("LimitRange")) => Kind::LimitRange,
            (Some("v1"), Some("ResourceQuota")) => Kind::ResourceQuota,
            (Some("kestrel.ai/v1alpha1"), Some("InjectionProfile")) => Kind::InjectionProfile,
            (_, Some("InjectionProfile")) => {
                return Err(format!(
                    "InjectionProfile is of apiVersion kestrel.ai/v1alpha1, not {api_version}"
                ));
            }
            (Some(_), Some(_)) => continue,
            _ => return Err("an object has no apiVersion or no kind".to_owned()),
        };
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let key = Key { namespace: text("namespace"), name: text("name") };
        let name = key.name.clone();
        if name.is_empty() {
            return Err(format!("{kind:?}: metadata.name is missing"));
        }
        if kind == Kind::InjectionProfile {
            if cluster.profiles.get(&name).is_some() {
                return Err(format!("InjectionProfile {name} is there twice"));
            }
            check_fields(&name, &object["spec"])?;
        }
        let labels = match metadata.get("labels") {
            None => crate::profile::Labels::new(),
            Some(labels) => serde_json::from_value(labels.clone())
                .map_err(|error| format!("{kind:?} {name}: metadata.labels: {error}"))?,
        };
        cluster
            .put(kind, Object { key, labels, body: object, ..Object::default() })
            .map_err(|problem| format!("InjectionProfile {name}: {problem}"))?;
    }
    Ok(())
}

/// The objects of a text, those of lists one by one.
///
/// # Errors
/// The text is neither YAML nor JSON.
pub fn objects(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let error = error.to_string();
        format!("this is no YAML: {}", error.lines().next().unwrap_or_default())
    })?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ if document.is_null() => {}
            _ => objects.push(document),
        }
    }
    Ok(objects)
}

/// Whether everything that the profile says is known.
fn check_fields(name: &str, spec: &Value) -> Result<(), String> {
    let problem = |problem: String| format!("InjectionProfile {name}: {problem}");
    let profile = Profile::read(String::new(), 0, spec).map_err(problem)?;
    let known = serde_json::to_value(&profile.spec).map_err(|error| problem(error.to_string()))?;
    match unknown(spec, &known) {
        Some(path) => Err(problem(format!("spec{path} is not known"))),
        None => Ok(()),
    }
}

/// The path of the first thing that is given and not known.
fn unknown(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(key, value)| {
            let inner = known.get(key).map_or(Some(String::new()), |known| unknown(value, known))?;
            Some(format!(".{key}{inner}"))
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (given, known))| Some(format!("[{index}]{}", unknown(given, known)?))),
        (Value::Object(_) | Value::Array(_), _) => Some(String::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Settings;

    fn learned(text: &str) -> Result<Cluster, String> {
        let mut cluster = Cluster::new(Settings::default());
        learn(text, &mut cluster).map(|()| cluster)
    }

    #[test]
    fn profiles_and_namespaces_are_learned_and_other_kinds_passed_over() {
        let cluster = learned(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n---\n\
             apiVersion: v1\nkind: List\nitems:\n- apiVersion: kestrel.ai/v1alpha1\n  kind: InjectionProfile\n  \
             metadata: {name: p}\n  spec: {enabled: false}\n- apiVersion: apps/v1\n  kind: Deployment\n---\n",
        )
        .unwrap();
        assert_eq!(cluster.namespaces["shop"]["team"], "a");
        assert!(!cluster.profiles.get("p").unwrap().spec.enabled);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let profile = |rest: &str| {
            format!("apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {{name: p}}\n{rest}")
        };
        for (text, expected) in [
            ("kind: [".to_owned(), "this is no YAML: "),
            ("- 1".to_owned(), "an object has no apiVersion or no kind"),
            ("kind: Pod".to_owned(), "an object has no apiVersion or no kind"),
            (
                "apiVersion: kestrel.ai/v1\nkind: InjectionProfile".to_owned(),
                "InjectionProfile is of apiVersion",
            ),
            ("apiVersion: v1\nkind: Namespace".to_owned(), "Namespace: metadata.name is missing"),
            (profile(""), "InjectionProfile p: spec: missing, or no object"),
            (profile("spec: {enable: true}"), "InjectionProfile p: spec.enable is not known"),
            (
                profile("spec: {env: [{name: A, valueFrom: {}}]}"),
                "InjectionProfile p: spec.env[0].valueFrom is not known",
            ),
            (profile("spec: {resources: []}"), "InjectionProfile p: spec.resources is not known"),
            (profile("spec: {image: ''}"), "InjectionProfile p: spec.image: \"\" is no image"),
            (format!("{}\n---\n{0}", profile("spec: {}")), "InjectionProfile p is there twice"),
        ] {
            let problem = learned(&text).unwrap_err();
            assert!(problem.starts_with(expected), "{problem} instead of {expected}");
        }
    }
}
