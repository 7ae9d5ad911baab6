//! `kubectl diff`: what a server-side apply of the manifest behind the command would change, as `diff -u -N` prints it of
//! kubectl's two folders.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use similar::TextDiff;

use super::{
    Output,
    kubectl::Kubectl,
    session::{Session, Trouble},
    yaml,
};
use crate::executor::{
    cluster::apart,
    dry_run::{self, OTHERS, Trial},
    json::Holds,
    manifest::{self, Document},
};

/// To compare one object; what is left then is shown as taken out and put in.
const TIME: Duration = Duration::from_secs(1);
/// What stands before a hash.
const HIDDEN: &str = "[hidden:";
/// The exit codes of kubectl.
const DIFFERS: i32 = 1;
const FAILED: i32 = 2;

/// Tries each document.
///
/// # Errors
/// Nothing is tried, or not this.
pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    dry_run::allowed(session).await?;
    let text = command.manifest.as_deref().unwrap_or_default();
    let documents = apart(text.len(), || manifest::read(text))?;
    let namespace = command.arguments.value("namespace").unwrap_or_default();
    let mut output = Output::default();
    // In the order of the files; of two with one name the last is left.
    let mut files = BTreeMap::new();
    for document in &documents {
        match compare(session, document, namespace, &mut output).await {
            Ok((name, diff)) => {
                files.insert(name, diff);
            }
            Err(refused @ Trouble::Refused(_)) => return Err(refused),
            Err(trouble) => {
                let why = trouble.line();
                output.stderr.push_str(&format!("{}{why}\n", document.place(&why)));
                output.code = FAILED;
            }
        }
    }
    output.stdout = files.into_values().collect();
    if output.code == 0 && !output.stdout.is_empty() {
        output.code = DIFFERS;
    }
    Ok(output)
}

/// The name of an object's file, and how it differs.
async fn compare(
    session: &Session<'_>,
    document: &Document,
    namespace: &str,
    output: &mut Output,
) -> Result<(String, String), Trouble> {
    let trial = Trial::of(session, document, namespace).await?;
    output.tried.push(trial.to_string());
    // First, since who may not read it may not see what it would be.
    let live = match session.object(&trial.path).await {
        Ok(object) => yaml::write(&object),
        Err(trouble) if trouble.is_not_found() => String::new(),
        Err(trouble) => return Err(trouble),
    };
    let (answer, conflict) = trial.run(session, "application/json").await?;
    if let Some(conflict) = conflict {
        output.warn(&format!("{}{OTHERS}: {conflict}", document.place(&conflict)));
    }
    let merged = session.taken(&answer, Holds::of_resource(&trial.resource.name))?;
    let Trial { resource, namespace, name, .. } = trial;
    let group = if resource.group.is_empty() { String::new() } else { resource.group + "." };
    let file = format!("{group}{}.{}.{namespace}.{name}", resource.version, resource.kind);
    let diff = apart(answer.text.len(), || unified(&file, &live, &known(&live, &yaml::write(&merged))));
    Ok((file, diff))
}

/// `merged` with those hashes alone that `live` has: who writes a manifest would learn from another the hash of whatever
/// secret is guessed in it.
fn known(live: &str, merged: &str) -> String {
    fn hash(behind: &str) -> Option<&str> {
        let (hash, _) = behind.split_once(']')?;
        hash.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':').then_some(hash)
    }
    let hashes: HashSet<&str> = live.split(HIDDEN).skip(1).filter_map(hash).collect();
    let mut pieces = merged.split(HIDDEN);
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        shown.push_str(HIDDEN);
        let own = hash(piece).filter(|hash| !hashes.contains(hash));
        shown.push_str(if own.is_some() { "new" } else { "" });
        shown.push_str(&piece[own.map_or(0, str::len)..]);
    }
    shown
}

fn unified(file: &str, live: &str, merged: &str) -> String {
    let (from, to) = (format!("LIVE/{file}"), format!("MERGED/{file}"));
    let diff = TextDiff::configure().timeout(TIME).diff_lines(live, merged);
    match diff.unified_diff().header(&from, &to).to_string() {
        same if same.is_empty() => same,
        hunks => format!("diff -u -N {from} {to}\n{hunks}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_as_diff_compares_them() {
        let lines =
            |numbers: &[u32]| numbers.iter().map(|number| format!("a: {number}\n")).collect::<String>();
        let all: Vec<u32> = (1..=20).collect();
        let live = lines(&all);
        assert_eq!(unified("v1.X.a.b", &live, &live), "");
        let (begin, end) = live.split_once("a: 4\n").unwrap();
        let merged = format!("{begin}a: four\n{}b: 1\n", end.replace("a: 15\na: 16\n", ""));
        assert_eq!(
            unified("v1.X.a.b", &live, &merged),
            "diff -u -N LIVE/v1.X.a.b MERGED/v1.X.a.b\n--- LIVE/v1.X.a.b\n+++ MERGED/v1.X.a.b\n\
             @@ -1,7 +1,7 @@\n a: 1\n a: 2\n a: 3\n-a: 4\n+a: four\n a: 5\n a: 6\n a: 7\n\
             @@ -12,9 +12,8 @@\n a: 12\n a: 13\n a: 14\n-a: 15\n-a: 16\n a: 17\n a: 18\n a: 19\n a: 20\n+b: 1\n"
        );
        let new = unified("f", "", "a: 1\n");
        assert!(new.ends_with("+++ MERGED/f\n@@ -0,0 +1 @@\n+a: 1\n"), "{new}");
    }

    #[test]
    fn no_hash_is_told_of_what_is_not_in_the_cluster() {
        let live = "a: '[hidden:ab12:0011]'\nb: x [hidden:ab12:22]\n";
        for (merged, shown) in [
            (live, live),
            ("a: '[hidden:ab12:0012]'\nb: [hidden:ab12:22]", "a: '[hidden:new]'\nb: [hidden:ab12:22]"),
            ("a: '[hidden: x'\nb: '[hidden:ab12:33][hidden:'", "a: '[hidden: x'\nb: '[hidden:new][hidden:'"),
            ("none", "none"),
        ] {
            assert_eq!(known(live, merged), shown);
        }
    }
}
