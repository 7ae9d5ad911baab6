//! The two folders without which there is no agent: the kubelet's logs, and its own positions.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use kestrel_runtime::check::Finding;
use kestrel_tail::position::store::Store;
use rustix::{
    fs::{Access, access, statvfs},
    io::Errno,
    process::geteuid,
};

/// Files that are opened to see that they can be.
const MOST_TRIED: usize = 100;

/// What is in the way of who may not read or write.
pub(super) fn remedy_of_refusal() -> &'static str {
    if geteuid().is_root() {
        "where SELinux confines containers, nodeAgent.seLinuxOptions.type gives one that may (spc_t; on Bottlerocket super_t)"
    } else {
        "it belongs to user 0, as which the agent has to run (runAsUser: 0 of the chart)"
    }
}

/// Whether the logs of pods can be read.
pub(super) fn logs(folder: &Path) -> Finding {
    const SUBJECT: &str = "logs";
    let name = folder.display();
    let files = match log_files(folder) {
        Ok(files) => files,
        Err((path, error)) if error.kind() == io::ErrorKind::NotFound && path == folder => {
            return Finding::failed(
                SUBJECT,
                format!(
                    "{name} is not there: the pod has lost the volume pod-logs of the chart, or the kubelet of this node keeps logs elsewhere \
                     (podLogsDir of its configuration; KESTREL_POD_LOGS_DIR)"
                ),
            );
        }
        Err((path, error)) => {
            return Finding::failed(SUBJECT, format!("{}: {error}: {}", path.display(), remedy_of_refusal()));
        }
    };
    let tried = files.iter().map(|path| (path, File::open(path)));
    let refused = tried.filter_map(|(path, opened)| Some((path, opened.err()?)));
    // One that went meanwhile, or that leads to where the runtime keeps it.
    let refused = refused.filter(|(_, error)| error.kind() != io::ErrorKind::NotFound);
    match refused.into_iter().next() {
        Some((path, error)) => {
            Finding::failed(SUBJECT, format!("{}: {error}: {}", path.display(), remedy_of_refusal()))
        }
        None if files.is_empty() => Finding::ok(SUBJECT, format!("{name} is there, without a log so far")),
        None => {
            Finding::ok(SUBJECT, format!("{} of {name} were opened", crate::story::count(files.len(), "log")))
        }
    }
}

/// Some of the logs, by `NAMESPACE_POD_UID/CONTAINER/N.log`.
fn log_files(folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut files = Vec::new();
    for pod in entries(folder)?.iter().filter(|path| path.is_dir()) {
        // A pod that goes while we look is no trouble.
        let gone = |problem: (PathBuf, io::Error)| match problem.1.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(problem),
        };
        for container in entries(pod).or_else(gone)?.iter().filter(|path| path.is_dir()) {
            let found = entries(container).or_else(gone)?;
            files.extend(found.into_iter().filter(|path| path.extension() == Some(OsStr::new("log"))));
            if files.len() >= MOST_TRIED {
                return Ok(files);
            }
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let read = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    read.map_err(|error| (folder.to_owned(), error))
}

/// Whether positions can be kept.
pub(super) fn state(folder: &Path) -> Finding {
    const SUBJECT: &str = "positions";
    let name = folder.display();
    let consequence = "without positions lines are sent again after each restart";
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        _ if folder.exists() && !folder.is_dir() => {
            return Finding::failed(
                SUBJECT,
                format!("{name} is no folder (KESTREL_STATE_DIR): {consequence}"),
            );
        }
        Ok(()) => {}
        Err(Errno::NOENT) => {
            return Finding::failed(
                SUBJECT,
                format!(
                    "{name} is not there: the pod has lost the volume state of the chart; {consequence}. Where a platform admits no hostPath \
                     that can be written (GKE Autopilot), nodeAgent.enabled: false"
                ),
            );
        }
        Err(Errno::ROFS) => {
            return Finding::failed(
                SUBJECT,
                format!(
                    "{name} is mounted read-only, or its file system became so after an error: {consequence}"
                ),
            );
        }
        Err(error) => {
            return Finding::failed(
                SUBJECT,
                format!("{name}: {error}: {}; {consequence}", remedy_of_refusal()),
            );
        }
    }
    if statvfs(folder).is_ok_and(|room| room.f_blocks > 0 && room.f_bavail == 0) {
        return Finding::failed(SUBJECT, format!("the file system of {name} is full: {consequence}"));
    }
    match Store::load(&folder.join("positions")) {
        Ok(_) => Finding::ok(SUBJECT, format!("{name} can be written")),
        Err(problem) => Finding::caution(
            SUBJECT,
            format!("{problem}; at the next start all retained logs are read again"),
        ),
    }
}
