use proptest::prelude::*;

use super::*;
use crate::severity::{LONGEST, is_word};

/// The plain form: byte by byte, with a look at every word.
fn plainly(line: &[u8]) -> Option<Level> {
    let head = &line[..line.len().min(HEAD)];
    let mut at = 0;
    let mut is_first = true;
    while at < head.len() {
        if !is_word(head[at]) {
            at += candidates::escape(&head[at..]);
            continue;
        }
        let start = at;
        while at < head.len() && is_word(head[at]) {
            at += 1;
        }
        if head[start].is_ascii_digit() {
            continue;
        }
        if (3..=LONGEST).contains(&(at - start))
            && let Some(level) = marked(head, Word { start, end: at, is_first })
        {
            return Some(level);
        }
        is_first &= at - start <= 3;
    }
    None
}
/// Any text of what matters to it: words that are levels or nearly, and what stands between them.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        "[ =:|\\[\\]{}<>\"'(./\t\x1b;-]{1,3}",
        "(\x1b\\[){1,2}[0-9;]{0,4}m?",
        "[a-zA-Z0-9_]{1,14}",
        "[0-9]{1,4}",
        "[A-Z]{2,12}",
        "[a-z0-9]{20,60}",
        prop::sample::select(vec![
            "error",
            "WARN",
            "Info",
            "LOG",
            "Note",
            "System",
            "fail",
            "level=",
            "INFORMATION",
            "fatal",
            "\u{1b}[31m"
        ])
        .prop_map(str::to_owned),
    ];
    let parts = prop::collection::vec(part, 0..24);
    (parts, prop::collection::vec(any::<u8>(), 0..3))
        .prop_map(|(parts, end)| [parts.concat().into(), end].concat())
}

proptest! {
    #[test]
    fn words_that_are_passed_over_name_no_level(text in text()) {
        prop_assert_eq!(level(&text), plainly(&text));
    }

    #[test]
    fn any_bytes_have_the_level_that_a_plain_look_finds(text in prop::collection::vec(any::<u8>(), 0..150)) {
        prop_assert_eq!(level(&text), plainly(&text));
    }
}
