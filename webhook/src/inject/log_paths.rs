//! From a path inside a container to files of a volume.

use serde_json::Value;

use super::{
    pod::{Mount, Spec},
    sources::{EVERY_LOG, Unreadable, writer},
};

/// Files of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) volume: String,
    /// Relative to the volume's root; never empty.
    pub(super) pattern: String,
}

impl Location {
    /// Of its pattern in a list, as JSON.
    pub(super) fn bytes(&self) -> usize {
        Value::from(&*self.pattern).to_string().len() + 1
    }
}

/// Where the files lie that `path` names in the application's containers. The
/// same path may lie in different volumes in different containers. A path that
/// ends with `/` or is a mount's own stands for all log files below it. `*` and
/// `?` may stand for parts of names below a mount, `**` for directories.
///
/// # Errors
/// The reason why none of these files can be read.
pub(super) fn locate(path: &str, spec: &Spec) -> Result<Vec<Location>, String> {
    let parts: Vec<_> = parts(path).collect();
    if !path.starts_with('/') || parts.contains(&"..") {
        return Err("not an absolute path without ..".to_owned());
    }
    let mut found = Vec::new();
    let mut reason = "no container mounts a volume there".to_owned();
    for container in spec.app_containers() {
        let mounts = container.mounts().iter();
        let Some((mount, below)) = mounts
            .filter_map(|mount| Some((mount, below(mount, &parts)?)))
            .min_by_key(|(_, below)| below.len())
        else {
            continue;
        };
        // The API server refuses a mount of a volume that the pod does not have.
        let Some(volume) = spec.volume(&mount.name) else { continue };
        match writer(spec, volume) {
            Ok(_) => {
                let is_directory = path.ends_with('/') || below.is_empty();
                let files = if is_directory { &EVERY_LOG[..] } else { &[] };
                let pattern: Vec<_> = root(mount).into_iter().chain(own(below)).chain(own(files)).collect();
                found.push(Location { volume: mount.name.clone(), pattern: pattern.join("/") });
            }
            Err(why) => reason = explain(why, &mount.name),
        }
    }
    if found.is_empty() { Err(reason) } else { Ok(found) }
}

/// A path's components; empty ones and `.` mean nothing.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// What is left of the path below the mount, if it lies there.
fn below<'a, 'b>(mount: &Mount, path: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let mount_path: Vec<_> = parts(&mount.mount_path).collect();
    path.starts_with(&mount_path).then(|| &path[mount_path.len()..])
}

fn own(parts: &[&str]) -> impl Iterator<Item = String> {
    parts.iter().map(ToString::to_string)
}

/// The mount's place in its volume. Variables of `subPathExpr` get their
/// values only in the running container, so each stands for any name.
fn root(mount: &Mount) -> Vec<String> {
    let path = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        any_variable(&mount.sub_path_expr)
    };
    parts(&path).map(str::to_owned).collect()
}

/// `text` with every `$(NAME)` replaced by `*`; `$$` is a dollar sign.
fn any_variable(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        let after = &rest[at + 1..];
        let reference = after.strip_prefix('(').and_then(|name| name.split_once(')'));
        rest = if let Some((_name, after)) = reference {
            result.push('*');
            after
        } else {
            result.push('$');
            after.strip_prefix('$').unwrap_or(after)
        };
    }
    result + rest
}

fn explain(why: Unreadable, volume: &str) -> String {
    match why {
        Unreadable::NotEmptyDir => format!("volume {volume} is not an emptyDir"),
        Unreadable::InMemory => format!("volume {volume} is kept in memory"),
        Unreadable::NoWriter => format!("no container of the application writes to volume {volume}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn located(path: &str) -> Result<Vec<(String, String)>, String> {
        let spec = json!({
            "volumes": [{"name": "outer", "emptyDir": {}}, {"name": "inner", "emptyDir": {}}],
            "containers": [
                {"name": "one", "volumeMounts": [
                    {"name": "outer", "mountPath": "/var/log/"},
                    {"name": "inner", "mountPath": "/var/log/app", "subPath": "./a/b/"},
                ]},
                {"name": "two", "volumeMounts": [
                    {"name": "inner", "mountPath": "/logs", "subPathExpr": "x-$(POD_NAME)/$$(y)"},
                    {"name": "outer", "mountPath": "/var"},
                ]},
            ],
        });
        let found = locate(path, &serde_json::from_value(spec).unwrap())?;
        Ok(found.into_iter().map(|location| (location.volume, location.pattern)).collect())
    }

    fn at(volume: &str, pattern: &str) -> (String, String) {
        (volume.to_owned(), pattern.to_owned())
    }

    #[test]
    fn the_longest_mount_decides_in_every_container_and_its_sub_path_counts() {
        assert_eq!(
            located("/var/log/app//x.log").unwrap(),
            [at("inner", "a/b/x.log"), at("outer", "log/app/x.log")]
        );
        assert_eq!(located("/var/x/**/*.txt").unwrap(), [at("outer", "x/**/*.txt")]);
        assert_eq!(located("/logs/y").unwrap(), [at("inner", "x-*/$(y)/y")]);
        assert!(located("/variable/x").is_err(), "a mount path is a prefix of whole components");
    }

    #[test]
    fn a_directory_stands_for_its_log_files() {
        assert_eq!(located("/logs").unwrap(), [at("inner", "x-*/$(y)/**/*.log")]);
        assert_eq!(located("/var/run/").unwrap(), [at("outer", "run/**/*.log")]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["logs/x", "/logs/../etc/passwd", "./x"] {
            assert_eq!(located(path).unwrap_err(), "not an absolute path without ..");
        }
        for path in ["/", "/etc/x", "/*/x.log"] {
            assert_eq!(located(path).unwrap_err(), "no container mounts a volume there");
        }
    }

    #[test]
    fn variables_stand_for_any_name() {
        for (text, expected) in
            [("$(A)/$(B)", "*/*"), ("a$$b", "a$b"), ("$(open", "$(open"), ("end$", "end$"), ("$$(A)", "$(A)")]
        {
            assert_eq!(any_variable(text), expected, "{text}");
        }
    }
}
