//! `kubectl diff`: what a server-side apply of the manifest behind the command would change, as `diff -u -N` prints it of
//! kubectl's two folders.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::Value;
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
    hidden::{HASH, MARK, hidden_length, is_hidden},
    json::Holds,
    manifest::{self, Document},
};

/// Items of a list that hide something, beyond which all that may be of one is hidden.
const ALIKE: usize = 100;
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
        Ok(object) => Some(object),
        Err(trouble) if trouble.is_not_found() => None,
        Err(trouble) => return Err(trouble),
    };
    let (answer, conflict) = trial.run(session, "application/json").await?;
    if let Some(conflict) = conflict {
        output.warn(&format!("{}{OTHERS}: {conflict}", document.place(&conflict)));
    }
    let mut merged = session.taken(&answer, Holds::of_resource(&trial.resource.name))?;
    let Trial { resource, namespace, name, .. } = trial;
    let has_names = !resource.group.contains('.') || resource.group.ends_with(".k8s.io");
    let group = if resource.group.is_empty() { String::new() } else { resource.group + "." };
    let file = format!("{group}{}.{}.{namespace}.{name}", resource.version, resource.kind);
    let diff = apart(answer.text.len(), || {
        let live = live.map_or_else(String::new, |live| {
            keep_hidden(&live, &mut merged, has_names);
            unguessable(&yaml::write(&live))
        });
        unified(&file, &live, &unguessable(&yaml::write(&merged)))
    });
    Ok((file, diff))
}

/// Hides in `merged`, which would be stored, what is hidden in the same place of `live`: what a manifest puts beside a value must not
/// make it look like none of a secret. Items of a list are the same by their names where they are told apart by them (`has_names`, as in
/// Kubernetes' own kinds); otherwise each is taken for every one that hides something.
fn keep_hidden(live: &Value, merged: &mut Value, has_names: bool) {
    match (live, merged) {
        (Value::String(live), merged) if is_hidden(live) => *merged = MARK.into(),
        (Value::Object(live), Value::Object(merged)) => {
            for (name, field) in merged {
                if let Some(live) = live.get(name) {
                    keep_hidden(live, field, has_names);
                }
            }
        }
        (Value::Array(live), Value::Array(merged)) => {
            let hiding: Vec<&Value> = live.iter().filter(|item| hides(item)).collect();
            let known: HashMap<&str, &Value> =
                live.iter().filter_map(|item| Some((item["name"].as_str()?, item))).collect();
            for item in merged {
                let named = item["name"].as_str().and_then(|name| known.get(name));
                match named {
                    Some(same) if has_names => keep_hidden(same, item, has_names),
                    // As it was, a text of a list hides nothing that was hidden.
                    _ if item.is_string() && live.contains(item) => {}
                    _ if hiding.len() > ALIKE => *item = MARK.into(),
                    _ => hiding.iter().for_each(|same| keep_hidden(same, item, has_names)),
                }
            }
        }
        _ => {}
    }
}

/// Whether anything in it is hidden.
fn hides(value: &Value) -> bool {
    match value {
        Value::String(text) => is_hidden(text),
        Value::Array(items) => items.iter().any(hides),
        Value::Object(fields) => fields.values().any(hides),
        _ => false,
    }
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
    use serde_json::json;

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

    /// Scenario: a manifest puts beside a secret what makes it look like a definition, a reference, or the value of another name.
    /// Guarantee: what is hidden where it is stays hidden; what else changes is shown.
    #[test]
    fn what_is_hidden_in_the_cluster_is_hidden_whatever_a_manifest_puts_beside_it() {
        let hidden = "[hidden:ab12:0123456789abcdef]";
        let live = json!({
            "values": {"secrets": {"db": hidden}, "mode": "slow"},
            "env": [{"id": 1, "name": "DB_PASSWORD", "value": hidden}, {"id": 2, "name": "MODE", "value": "slow"}],
            "args": ["-v", "--password", hidden],
        });
        let merged = json!({
            "values": {"secrets": {"db": "hunter2", "type": "object"}, "mode": "fast"},
            "env": [{"id": 1, "name": "MODE", "value": "hunter2"}, {"id": 2, "name": "X", "value": "slow"}],
            "args": ["-v", "--password", "-q", "hunter2"],
        });
        let kept = |has_names| {
            let mut merged = merged.clone();
            keep_hidden(&live, &mut merged, has_names);
            merged
        };
        let custom = kept(false);
        assert!(!custom.to_string().contains("hunter2"), "{custom}");
        assert_eq!(custom["values"], json!({"secrets": {"db": MARK, "type": "object"}, "mode": "fast"}));
        assert_eq!(custom["args"][1], "--password");
        // Where names tell items apart, a name is whose value it is.
        assert_eq!(kept(true)["env"][1], json!({"id": 2, "name": "X", "value": MARK}));
        let mut same =
            json!({"env": [{"name": "MODE", "value": "fast"}, {"name": "DB_PASSWORD", "value": "x"}]});
        keep_hidden(&live, &mut same, true);
        assert_eq!(
            same,
            json!({"env": [{"name": "MODE", "value": "fast"}, {"name": "DB_PASSWORD", "value": MARK}]})
        );
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
