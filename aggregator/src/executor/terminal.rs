//! What comes from the cluster is data. Whatever a terminal would obey, or a reader would not see, is
//! taken out of it: escapes, control characters, marks of direction and characters without width.

use std::borrow::Cow;

/// The text without them; line feeds and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => match chars.next() {
                Some('[') => skip_control_sequence(&mut chars),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut chars),
                // Of two characters, or with one more behind a sign.
                Some(' '..='/') => {
                    chars.next();
                }
                Some('\n') => kept.push('\n'),
                _ => {}
            },
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut chars),
            char if is_hidden(char) => {}
            char => kept.push(char),
        }
    }
    Cow::Owned(kept)
}

fn is_hidden(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        // Soft hyphen, Arabic letter mark, widths, directions, byte order mark, tags, annotations.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        char => char.is_control(),
    }
}

/// Parameters up to the letter that ends them. A line feed ends it too, so that one that was cut does not
/// take the text behind it along.
fn skip_control_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(char) = chars.next_if(|char| *char != '\n' && !matches!(char, '\u{1b}')) {
        if matches!(char, '@'..='~') {
            return;
        }
    }
}

/// Such as a title of the window: up to a bell or the end of strings, within the line.
fn skip_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(char) = chars.next_if(|char| *char != '\n') {
        match char {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                chars.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_go_with_all_that_belongs_to_them() {
        for (text, kept) in [
            ("plain\tä\n", "plain\tä\n"),
            ("\u{1b}[31;1mred\u{1b}[0m", "red"),
            ("\u{9b}2Jtext", "text"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}(Bok\u{1b}cok", "okok"),
            ("cut \u{1b}[31\nnext", "cut \nnext"),
            ("title \u{1b}]0;never ends\nnext", "title \nnext"),
            ("a\r\nb\0\u{8}\u{7f}c", "a\nbc"),
            ("user\u{202e}txt.exe\u{200b}", "usertxt.exe"),
            ("end\u{1b}", "end"),
        ] {
            assert_eq!(printable(text), kept, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_nothing_else_is_touched(text in "(\\PC|\u{1b}|\u{9b}|[\\[\\]a-z0-9;\n]){0,40}") {
            let kept = printable(&text);
            prop_assert!(!kept.chars().any(is_hidden));
            let again = printable(&kept).into_owned();
            prop_assert_eq!(again.as_str(), kept.as_ref());
            if !text.chars().any(is_hidden) {
                prop_assert_eq!(kept.as_ref(), text.as_str());
            }
        }
    }
}
