//! The one command that is longer than a line: `kubectl diff -f -`, with the manifest behind it as a here-document that a
//! shell would hand on as it is written. It is data, and needs no shell.

use super::{kubectl::find_verb, verbs::Does, words};
use crate::executor::{
    reason::{Reason, Refused},
    terminal::printable,
};

/// How it is written.
pub(crate) const FORM: &str = "write the manifest into the command: kubectl diff -f - <<'EOF', its lines, and EOF alone on the last one";
const BLANKS: [char; 2] = [' ', '\t'];

/// Takes the manifest out of a command: its line without the here-document, and the manifest. Nothing, if it is no `diff`
/// that has one; such a text is judged as a line.
///
/// # Errors
/// A shell would not hand it on as it is written, or it has no end.
pub(crate) fn split(command: &str) -> Result<Option<(String, String)>, Refused> {
    let Some((first, lines)) = command.split_once('\n') else { return Ok(None) };
    let Some((head, here)) = first.split_once("<<").filter(|(head, _)| is_diff(head)) else {
        return Ok(None);
    };
    let refused = |reason, why: &str| Err(Refused::new(reason, format!("{why}: {FORM}")));
    if printable(command) != command {
        return refused(Reason::Characters, "the manifest has characters that a terminal obeys, or hides");
    }
    // A number before it says which file it is for.
    if here.starts_with(['<', '-']) || head.ends_with(|char: char| char.is_ascii_digit()) {
        return refused(Reason::Shell, "nothing is redirected but a here-document");
    }
    let here = here.trim_start_matches(BLANKS);
    let quote = ["'", "\""].into_iter().find(|quote| here.starts_with(quote)).unwrap_or_default();
    let here = &here[quote.len()..];
    let (word, behind) = here.split_at(here.find(|char| !is_of_word(char)).unwrap_or(here.len()));
    let filters = behind.strip_prefix(quote).map(|behind| behind.trim_start_matches(BLANKS));
    let Some(filters) = filters.filter(|filters| filters.is_empty() || filters.starts_with('|')) else {
        return refused(Reason::Shell, "behind << stand one word and, if any, filters");
    };
    if word.is_empty() || word.starts_with(|char: char| char.is_ascii_digit()) {
        return refused(Reason::Shell, "the word behind << is of letters, digits and _");
    }
    let Some((manifest, rest)) = until(lines, word) else {
        return refused(Reason::Malformed, &format!("no line is {word} alone"));
    };
    if !rest.is_empty() {
        return refused(Reason::Shell, "nothing stands behind the manifest");
    }
    if quote.is_empty() && manifest.contains(['$', '`', '\\']) {
        return refused(Reason::Shell, "nothing is expanded, so the word behind << is put in quotes");
    }
    Ok(Some((format!("{head} {filters}"), manifest.to_owned())))
}

fn is_diff(head: &str) -> bool {
    let Ok(stages) = words::split(head) else { return false };
    let [words] = &stages[..] else { return false };
    words[0] == "kubectl" && find_verb(&words[1..]).is_ok_and(|(verb, _)| verb.does == Does::Diff)
}

fn is_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// The lines before the one that is `word`, and what is behind it.
fn until<'a>(lines: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let mut end = 0;
    for line in lines.split_inclusive('\n') {
        if line.strip_suffix('\n').unwrap_or(line) == word {
            return Some((&lines[..end], &lines[end + line.len()..]));
        }
        end += line.len();
    }
    None
}

/// A command that is taken apart to these.
#[cfg(test)]
pub(crate) fn join(line: &str, manifest: &str) -> String {
    let (head, filters) =
        line.split_once('|').map_or((line, String::new()), |(head, rest)| (head, format!("|{rest}")));
    let taken = |word: &String| manifest.lines().any(|line| line == word);
    let word = (0..).map(|number| format!("EOF{number}")).find(|word| !taken(word)).unwrap_or_default();
    format!("{head} <<'{word}' {filters}\n{manifest}{word}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifest_is_what_a_shell_would_hand_on() {
        for (command, line, manifest) in [
            ("kubectl diff -f - <<'EOF'\na: $b\n\nEOF", "kubectl diff -f -  ", "a: $b\n\n"),
            ("kubectl diff -f -<<\"E_1\"\n EOF\nE_1\n", "kubectl diff -f - ", " EOF\n"),
            (
                "kubectl -n x diff -f - << EOF | head -5\na: ü\nEOF",
                "kubectl -n x diff -f -  | head -5",
                "a: ü\n",
            ),
            (
                "kubectl diff --server-side -f - <<'EOF'| grep '<<'\nEOF",
                "kubectl diff --server-side -f -  | grep '<<'",
                "",
            ),
        ] {
            assert_eq!(split(command), Ok(Some((line.to_owned(), manifest.to_owned()))), "{command}");
        }
    }

    #[test]
    fn what_a_shell_would_not_hand_on_as_it_is_written_is_refused() {
        for (command, reason) in [
            ("kubectl diff -f - <<EOF\na: $(id)\nEOF", Reason::Shell),
            ("kubectl diff -f - <<EOF\na: `id`\nEOF", Reason::Shell),
            ("kubectl diff -f - <<EOF\na: \\\nEOF", Reason::Shell),
            ("kubectl diff -f - <<-'EOF'\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<<'EOF'\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - 3<<'EOF'\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<'EOF' > x\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<'EOF' -n x\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<'E F'\na: 1\nE F", Reason::Shell),
            ("kubectl diff -f - <<'EOF\"\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<E'OF'\na: 1\nEOF", Reason::Shell),
            ("kubectl diff -f - <<'1'\na: 1\n1", Reason::Shell),
            ("kubectl diff -f - <<''\na: 1\n\n", Reason::Shell),
            ("kubectl diff -f - <<'EOF'\na: 1\nEOF\nid", Reason::Shell),
            ("kubectl diff -f - <<'EOF'\na: 1\nEOF\n\n", Reason::Shell),
            ("kubectl diff -f - <<'EOF'\na: 1\n EOF", Reason::Malformed),
            ("kubectl diff -f - <<'EOF'\na: 1\nEOF ", Reason::Malformed),
            ("kubectl diff -f - <<'EOF'\na: 1\nEOF\r\n", Reason::Characters),
            ("kubectl diff -f - <<'EOF'\r\na: 1\nEOF", Reason::Characters),
            ("kubectl diff -f - <<'EOF'\na: \u{1b}[31m\nEOF", Reason::Characters),
            ("kubectl diff -f - <<'EOF'\na: \u{202e}b\nEOF", Reason::Characters),
        ] {
            assert_eq!(split(command).unwrap_err().reason, reason, "{command:?}");
        }
    }

    #[test]
    fn every_other_text_is_judged_as_a_line() {
        for command in [
            "kubectl diff -f - <<'EOF'",
            "kubectl diff -f -\na: 1",
            "kubectl apply -f - <<'EOF'\na: 1\nEOF",
            "kubectl get diff <<'EOF'\na: 1\nEOF",
            "cat <<'EOF'\na: 1\nEOF",
            "cat <<'EOF' | kubectl diff -f -\na: 1\nEOF",
            "kubectl diff -f - | grep x <<'EOF'\na: 1\nEOF",
            "kubectl diff -f '- <<EOF\na: 1\nEOF\n'",
            "kubectl diff -f - \\<<'EOF'\na: 1\nEOF",
            "kubectl diff -f - $(id) <<'EOF'\na: 1\nEOF",
        ] {
            assert_eq!(split(command), Ok(None), "{command}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_apart_is_written_anew_as_the_same(
            quote in "['\"]?", behind in "( \\| head)?|\\PC{0,3}",
            lines in proptest::collection::vec("EOF|[ a-z:$`\\\\-]{0,6}|\\PC{0,3}", 0..6), end in "\n?|\nid",
        ) {
            let command = format!("kubectl diff -f - <<{quote}EOF{quote}{behind}\n{}\nEOF{end}", lines.join("\n"));
            if let Ok(Some((line, manifest))) = split(&command) {
                prop_assert!(!manifest.lines().any(|line| line == "EOF"));
                prop_assert!(!quote.is_empty() || !manifest.contains(['$', '`', '\\']));
                prop_assert_eq!(command.split_once('\n').unwrap().1.trim_end_matches('\n'), format!("{manifest}EOF"));
                let (again, same) = split(&join(&line, &manifest)).unwrap().unwrap();
                prop_assert_eq!(same, manifest);
                prop_assert_eq!(words::split(&again), words::split(&line));
            }
        }
    }
}
