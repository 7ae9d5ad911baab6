//! Which log files the collector reads.

use super::{
    log_paths::{self, Location},
    pod::{Container, Spec, Volume},
};
use crate::profile::Collect;

/// What is read of a volume where the pod's owner does not say.
pub(super) const EVERY_LOG: [&str; 2] = ["**", "*.log"];
/// More paths than this are no list that a person wrote.
const MOST_PATHS: usize = 64;
/// Of all patterns together, as JSON. What is read is told by an environment variable, and with one of
/// 128 KiB the kernel starts no program: these and [`MOST_VOLUMES`] are half of that.
const MOST_BYTES: usize = 32 * 1024;
/// Volumes that are read, each of at most 256 bytes beside its patterns.
const MOST_VOLUMES: usize = 128;
/// Reasons that are spelled out; the rest is counted.
const MOST_REASONS: usize = 4;

/// What the collector reads of a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// In the order of the pod's volumes; a volume occurs once.
    pub(super) read: Vec<Source>,
    /// Paths that were asked for and can't be read, each with the reason.
    pub(super) unread: Vec<String>,
}

/// The files of one volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The volume's name.
    pub(super) volume: String,
    /// The container that the lines are said to come from: the first that may
    /// write to the volume.
    pub(super) container: String,
    /// Which files, relative to the volume's root; at least one pattern.
    pub(super) patterns: Vec<String>,
}

/// Why a volume's files are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    NotEmptyDir,
    InMemory,
    NoWriter,
}

/// What is to be read.
#[derive(Debug)]
pub(super) enum Wanted<'a> {
    /// Every log file of every readable volume.
    EveryLog,
    /// These paths inside the containers.
    Paths(Vec<&'a str>),
}

impl<'a> Wanted<'a> {
    /// What the pod's annotation names, else its profile.
    pub(super) fn of(annotation: Option<&'a str>, profile: &'a Collect) -> Self {
        match annotation {
            Some(paths) => {
                Self::Paths(paths.split(',').map(str::trim).filter(|path| !path.is_empty()).collect())
            }
            None if profile.log_paths.is_empty() => Self::EveryLog,
            None => Self::Paths(profile.log_paths.iter().map(String::as_str).collect()),
        }
    }
}

/// What the collector reads of a pod.
pub(super) fn find(spec: &Spec, wanted: &Wanted<'_>) -> Sources {
    let mut sources = Sources::default();
    let wanted = match wanted {
        Wanted::EveryLog => None,
        Wanted::Paths(paths) => Some(resolve(paths, spec, &mut sources.unread)),
    };
    let mut more = 0;
    for volume in spec.volumes() {
        let Ok(writer) = writer(spec, volume) else { continue };
        let patterns = match &wanted {
            None => vec![EVERY_LOG.join("/")],
            Some(wanted) => {
                let mut patterns: Vec<String> = Vec::new();
                for location in wanted.iter().filter(|location| location.volume == volume.name) {
                    if !patterns.contains(&location.pattern) {
                        patterns.push(location.pattern.clone());
                    }
                }
                patterns
            }
        };
        if patterns.is_empty() {
            continue;
        }
        if sources.read.len() < MOST_VOLUMES {
            sources.read.push(Source {
                volume: volume.name.clone(),
                container: writer.name.clone(),
                patterns,
            });
        } else {
            more += 1;
        }
    }
    if more > 0 {
        sources.unread.push(format!("{more} more volumes (only {MOST_VOLUMES} are read)"));
    }
    sources
}

/// The container that writes to `volume`, if the collector may read it: an
/// emptyDir on disk (one in memory holds secrets or shared memory rather than logs).
pub(super) fn writer<'a>(spec: &'a Spec, volume: &Volume) -> Result<&'a Container, Unreadable> {
    let empty_dir = volume.empty_dir.as_ref().ok_or(Unreadable::NotEmptyDir)?;
    if !empty_dir.medium.is_empty() {
        return Err(Unreadable::InMemory);
    }
    spec.app_containers()
        .find(|container| {
            container.mounts().iter().any(|mount| mount.name == volume.name && !mount.read_only)
        })
        .ok_or(Unreadable::NoWriter)
}

/// Where the listed paths lie. What can't be read goes to `unread`.
fn resolve(paths: &[&str], spec: &Spec, unread: &mut Vec<String>) -> Vec<Location> {
    let mut found = Vec::new();
    let mut room = MOST_BYTES;
    let mut more = 0;
    for (index, path) in paths.iter().enumerate() {
        let located = if index < MOST_PATHS {
            log_paths::locate(path, spec)
        } else {
            Err(format!("only the first {MOST_PATHS} paths are looked at"))
        };
        let fitting = located.and_then(|locations| {
            let bytes = locations.iter().map(Location::bytes).sum();
            room = room.checked_sub(bytes).ok_or("with it the paths are too long a list")?;
            Ok(locations)
        });
        match fitting {
            Ok(locations) => found.extend(locations),
            Err(reason) if unread.len() < MOST_REASONS => {
                let path: String = path.chars().take(128).collect();
                unread.push(format!("{path} ({reason})"));
            }
            Err(_) => more += 1,
        }
    }
    if more > 0 {
        unread.push(format!("{more} more"));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sources(log_paths: Option<&str>, spec: &Value) -> Sources {
        find(&serde_json::from_value(spec.clone()).unwrap(), &Wanted::of(log_paths, &Collect::default()))
    }

    fn source(volume: &str, container: &str, patterns: &[&str]) -> Source {
        Source {
            volume: volume.to_owned(),
            container: container.to_owned(),
            patterns: patterns.iter().map(ToString::to_string).collect(),
        }
    }

    fn shop() -> Value {
        json!({
            "volumes": [
                {"name": "cache", "emptyDir": {"medium": "Memory"}},
                {"name": "config", "configMap": {"name": "x"}},
                {"name": "data", "emptyDir": {}},
                {"name": "mesh", "emptyDir": {}},
                {"name": "seed", "emptyDir": {}},
                {"name": "spool", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
            "initContainers": [{"name": "fill", "volumeMounts": [{"name": "seed", "mountPath": "/seed"}]}],
            "containers": [
                {"name": "istio-proxy", "volumeMounts": [{"name": "mesh", "mountPath": "/mesh"}]},
                {"name": "web", "volumeMounts": [
                    {"name": "data", "mountPath": "/data", "readOnly": true},
                    {"name": "seed", "mountPath": "/seed", "readOnly": true},
                    {"name": "cache", "mountPath": "/cache"},
                    {"name": "config", "mountPath": "/etc/app"},
                    {"name": "spool", "mountPath": "/var/spool"},
                ]},
                {"name": "worker", "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "spool", "mountPath": "/spool", "subPath": "worker"},
                ]},
            ],
        })
    }

    #[test]
    fn volumes_on_disk_that_the_application_writes_are_read_under_the_first_writers_name() {
        let found = sources(None, &shop());
        let everything = ["**/*.log"];
        assert_eq!(found.read, [source("data", "worker", &everything), source("spool", "web", &everything)]);
        assert!(found.unread.is_empty());
    }

    #[test]
    fn listed_paths_narrow_what_is_read_and_those_that_cannot_be_are_named() {
        let paths = "/data/app.log, /data/app.log,/spool/out/,/nowhere/x,/cache/a.log,/seed/s,,/etc/app/c";
        let found = sources(Some(paths), &shop());
        let spool = source("spool", "web", &["worker/out/**/*.log"]);
        assert_eq!(found.read, [source("data", "worker", &["app.log"]), spool]);
        assert_eq!(
            found.unread,
            [
                "/nowhere/x (no container mounts a volume there)",
                "/cache/a.log (volume cache is kept in memory)",
                "/seed/s (no container of the application writes to volume seed)",
                "/etc/app/c (volume config is not an emptyDir)",
            ]
        );
    }

    #[test]
    fn a_profile_names_paths_for_pods_that_name_none() {
        let profile = Collect { log_paths: vec!["/spool/*.txt".to_owned()], ..Collect::default() };
        let spec = serde_json::from_value(shop()).unwrap();
        let found = find(&spec, &Wanted::of(None, &profile));
        assert_eq!(found.read, [source("spool", "web", &["worker/*.txt"])]);
        let own = find(&spec, &Wanted::of(Some("/data/app.log"), &profile));
        assert_eq!(own.read, [source("data", "worker", &["app.log"])]);
    }

    /// As the environment variable has them.
    fn told(sources: &Sources) -> usize {
        let read = sources.read.iter();
        let each =
            read.map(|source| json!([source.volume, source.container, source.patterns]).to_string().len());
        // Keys and folders.
        each.map(|bytes| bytes + 128).sum()
    }

    #[test]
    fn what_is_read_always_fits_into_an_environment_variable() {
        let long = format!("/data/{}.log", "x".repeat(200 * 1024));
        let found = sources(Some(&format!("{long},/data/app.log")), &shop());
        assert_eq!(found.read, [source("data", "worker", &["app.log"])]);
        let [reason] = &*found.unread else { panic!("{:?}", found.unread) };
        assert!(
            reason.len() < 256 && reason.ends_with("(with it the paths are too long a list)"),
            "{reason}"
        );
        let controls: Vec<_> = (0..60).map(|n| format!("/data/{n}{}", "\u{1}".repeat(1000))).collect();
        let found = sources(Some(&controls.join(",")), &shop());
        assert!(!found.read.is_empty() && told(&found) < 64 * 1024, "{}", told(&found));

        let name = |n: usize| format!("{}-{n}", "v".repeat(58));
        let volumes: Vec<_> = (0..300).map(|n| json!({"name": name(n), "emptyDir": {}})).collect();
        let mounts: Vec<_> =
            (0..300).map(|n| json!({"name": name(n), "mountPath": format!("/v{n}")})).collect();
        let many =
            json!({"volumes": volumes, "containers": [{"name": "c".repeat(63), "volumeMounts": mounts}]});
        let found = sources(None, &many);
        assert_eq!(
            (found.read.len(), &*found.unread),
            (128, &["172 more volumes (only 128 are read)".to_owned()][..])
        );
        assert!(told(&found) < 64 * 1024, "{}", told(&found));
    }

    #[test]
    fn an_endless_list_of_paths_costs_a_sentence() {
        let found = sources(Some(&"/x/y,".repeat(100)), &shop());
        assert_eq!(found.unread.len(), MOST_REASONS + 1);
        assert_eq!(found.unread[MOST_REASONS], "96 more");
    }
}
