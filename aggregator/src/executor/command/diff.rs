//! `kubectl diff`: what a server-side apply of the manifest behind the command would change, as `diff -u -N` prints it of
//! kubectl's two folders.

use std::{collections::BTreeMap, time::Duration};

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
    hidden::{HASH, MARK, hidden_length},
    json::Holds,
    manifest::{self, Document},
};

/// To compare one object; what is left then is shown as taken out and put in.
const TIME: Duration = Duration::from_secs(1);
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
        Ok(object) => unguessable(&yaml::write(&object)),
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
    let diff = apart(answer.text.len(), || unified(&file, &live, &unguessable(&yaml::write(&merged))));
    Ok((file, diff))
}

/// An object's text with the same mark for every secret: who writes a manifest would learn from a hash, or from a line that
/// differs, whether what is guessed in it is the secret.
fn unguessable(object: &str) -> String {
    let mut pieces = object.split(HASH);
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let hash = [HASH, piece].concat();
        match hidden_length(&hash) {
            Some(length) => shown.extend([MARK, &hash[length..]]),
            None => shown.push_str(&hash),
        }
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
    fn every_secret_looks_like_every_other() {
        for (object, shown) in [
            ("a: '[hidden:ab12:0123456789abcdef]'\nb: x [hidden]\n", "a: '[hidden]'\nb: x [hidden]\n"),
            ("[hidden:ab12:0123456789abcdef][hidden:ab12:0123456789abcdee]", "[hidden][hidden]"),
            (
                "a: '[hidden: x'\nb: '[hidden:ab12:33][hidden:'",
                "a: '[hidden: x'\nb: '[hidden:ab12:33][hidden:'",
            ),
            ("none", "none"),
        ] {
            assert_eq!(unguessable(object), shown);
        }
    }
}
