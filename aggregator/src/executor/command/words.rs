//! The words of a command line. It looks like a shell's, and is none: whatever a shell would expand, chain or
//! redirect is refused, and a word is what was written.

use crate::executor::reason::{Reason, Refused};

/// A line is no longer.
const LINE_BYTES: usize = 16 * 1024;
/// Nor has it more words …
const WORDS: usize = 200;
/// … or commands that are joined by pipes.
const STAGES: usize = 8;

/// The commands of a line that pipes join, as words.
pub(crate) type Pipeline = Vec<Vec<String>>;

/// Takes a line apart.
///
/// # Errors
/// It would need a shell, or is none.
pub(crate) fn split(line: &str) -> Result<Pipeline, Refused> {
    let refused = |reason, why: &'static str| Err(Refused::new(reason, why));
    if line.len() > LINE_BYTES {
        return refused(Reason::TooLarge, "the command is longer than 16 KiB");
    }
    if line.contains(['\n', '\r']) {
        return refused(Reason::Shell, "a command is one line: send several as commands of their own");
    }
    if let Some(odd) = line.chars().find(|char| *char != '\t' && (char.is_control() || !char.is_ascii())) {
        let why = format!("the command has {odd:?}, which is not printable ASCII");
        return Err(Refused::new(Reason::Characters, why));
    }
    let mut stages: Pipeline = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    let mut words = 0;
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' => words += close(&mut stages, &mut word),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(char) => word.push(char),
                        None => return refused(Reason::Malformed, "a quote is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(char @ ('"' | '\\' | '$' | '`')) => word.push(char),
                            Some(char) => word.extend(['\\', char]),
                            None => return refused(Reason::Malformed, "a quote is not closed"),
                        },
                        Some('$' | '`') => {
                            return refused(
                                Reason::Shell,
                                "nothing is expanded or substituted: write values out, or use single quotes",
                            );
                        }
                        Some(char) => word.push(char),
                        None => return refused(Reason::Malformed, "a quote is not closed"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(char) => word.get_or_insert_default().push(char),
                None => return refused(Reason::Malformed, "a command does not end with a backslash"),
            },
            '|' if chars.peek() == Some(&'|') => {
                return refused(Reason::Shell, "commands are not chained: send each as a command of its own");
            }
            '|' if chars.peek() == Some(&'&') => {
                return refused(
                    Reason::Shell,
                    "errors do not go through a pipe: they have a field of their own",
                );
            }
            '|' => {
                words += close(&mut stages, &mut word);
                if stages.last().is_some_and(Vec::is_empty) {
                    return refused(Reason::Malformed, "before a pipe there is no command");
                }
                stages.push(Vec::new());
            }
            '&' | ';' => {
                return refused(Reason::Shell, "commands are not chained: send each as a command of its own");
            }
            '>' | '<' => {
                return refused(
                    Reason::Shell,
                    "nothing is redirected: output and errors come in fields of their own, and there are no files",
                );
            }
            '$' | '`' => {
                return refused(Reason::Shell, "nothing is expanded or substituted: write values out");
            }
            '(' | ')' => return refused(Reason::Shell, "there are no subshells"),
            '~' | '#' if word.is_none() => {
                return refused(Reason::Shell, "a word does not begin with ~ or #: put it in quotes");
            }
            char => word.get_or_insert_default().push(char),
        }
        if words > WORDS {
            return refused(Reason::TooLarge, "the command has more than 200 words");
        }
    }
    close(&mut stages, &mut word);
    if stages.last().is_some_and(Vec::is_empty) {
        let why =
            if stages.len() == 1 { "the command is empty" } else { "behind a pipe there is no command" };
        return refused(Reason::Malformed, why);
    }
    if stages.len() > STAGES {
        return refused(Reason::TooLarge, "more than 8 commands are joined by pipes");
    }
    Ok(stages)
}

fn close(stages: &mut Pipeline, word: &mut Option<String>) -> usize {
    match (stages.last_mut(), word.take()) {
        (Some(stage), Some(word)) => {
            stage.push(word);
            1
        }
        _ => 0,
    }
}

/// A line that is taken apart to these words.
#[cfg(test)]
pub(crate) fn join(stages: &[Vec<String>]) -> String {
    let stage = |words: &Vec<String>| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    stages.iter().map(stage).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_what_was_written() {
        for (line, expected) in [
            ("kubectl get pods", "kubectl,get,pods"),
            ("  kubectl\tget  'a b'  ", "kubectl,get,a b"),
            ("a \"b \\\"c\\\" \\n\" 'd'e\\ f", "a,b \"c\" \\n,de f"),
            ("get -o jsonpath={.items[*].metadata.name}", "get,-o,jsonpath={.items[*].metadata.name}"),
            ("a | b 'x|y' | c", "a;b,x|y;c"),
            ("a ''", "a,"),
        ] {
            let stages = split(line).unwrap();
            let words: Vec<String> = stages.iter().map(|words| words.join(",")).collect();
            assert_eq!(words.join(";"), expected, "{line}");
        }
    }

    #[test]
    fn what_would_need_a_shell_is_refused() {
        for line in [
            "a; b",
            "a && b",
            "a || b",
            "a & b",
            "a > f",
            "a < f",
            "a 2>&1",
            "a $(b)",
            "a `b`",
            "a $HOME",
            "a \"$HOME\"",
            "a \"`b`\"",
            "(a)",
            "a\nb",
            "a |& b",
            "a ~",
            "a # b",
            "cat <(b)",
            "a;b",
        ] {
            assert_eq!(split(line).unwrap_err().reason, Reason::Shell, "{line}");
        }
        for (line, reason) in [
            ("", Reason::Malformed),
            ("  ", Reason::Malformed),
            ("a 'b", Reason::Malformed),
            ("a |", Reason::Malformed),
            ("| a", Reason::Malformed),
            ("a \\", Reason::Malformed),
            ("kubectl g\u{435}t pods", Reason::Characters),
            ("a \u{1b}[31m", Reason::Characters),
            ("a \u{a0}b", Reason::Characters),
        ] {
            assert_eq!(split(line).unwrap_err().reason, reason, "{line:?}");
        }
        assert_eq!(split(&"a ".repeat(300)).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(split(&"a".repeat(20_000)).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(split("a|a|a|a|a|a|a|a|a").unwrap_err().reason, Reason::TooLarge);
    }

    proptest! {
        #[test]
        fn what_parses_is_rendered_to_the_same_words(line in "([a-z]|[ '\"\\\\|$&;{}*=-]|\\PC){0,40}") {
            if let Ok(stages) = split(&line) {
                prop_assert_eq!(split(&join(&stages)).unwrap(), stages);
            }
        }
    }
}
