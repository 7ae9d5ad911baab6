//! What of a log may be shown. Who asks for one says where it begins and ends, so either may be within a secret. Pure.

use std::borrow::Cow;

use super::{
    hidden::{MARK, marked},
    secret,
    terminal::printable,
};

/// The log without secrets. If it may be cut, it may have been cut within one: what is left of its last line is hidden, as its shape
/// does not tell any more what it is. Lines that are one blob of base64 may be of a key whose head is not there. A log is large and
/// seldom has any of this: it is copied only then.
pub(crate) fn shown(mut log: String, may_be_cut: bool) -> String {
    let whole = log.len();
    if may_be_cut {
        log.truncate(log.rfind('\n').map_or(0, |newline| newline + 1));
    }
    let is_cut = log.len() < whole;
    let printed = match printable(&log) {
        Cow::Borrowed(_) => None,
        Cow::Owned(printed) => Some(printed),
    };
    log = printed.unwrap_or(log);
    log = without_blobs(&log).unwrap_or(log);
    log = marked(&log).unwrap_or(log);
    if is_cut {
        log.reserve_exact(MARK.len());
        log.push_str(MARK);
    }
    log
}

/// `None` if there are none.
fn without_blobs(log: &str) -> Option<String> {
    let mut shown: Option<String> = None;
    let (mut in_blob, mut begin) = (false, 0);
    for line in log.split_inclusive('\n') {
        let (time, word) = secret::split_time(line.trim_end_matches('\n'));
        // The last line of a blob is a short one.
        in_blob = secret::is_blob(word) || (in_blob && secret::is_base64_text(word));
        if in_blob {
            let shown = shown.get_or_insert_with(|| log[..begin].to_owned());
            shown.push_str(time);
            shown.push_str(MARK);
            shown.push_str(&line[time.len() + word.len()..]);
        } else if let Some(shown) = &mut shown {
            shown.push_str(line);
        }
        begin += line.len();
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn shown(log: &str, may_be_cut: bool) -> String {
        super::shown(log.to_owned(), may_be_cut)
    }

    /// 64 characters of base64 a line, and a last one.
    fn key() -> String {
        let line = |n: u8| {
            (0..64).map(|place| char::from(b"aB3+Zq9/"[(place * 5 + usize::from(n)) % 8])).collect::<String>()
        };
        format!("-----BEGIN PRIVATE KEY-----\n{}\n{}\nzY8=\n-----END PRIVATE KEY-----\n", line(1), line(2))
    }

    #[test]
    fn a_key_is_hidden_wherever_the_log_begins_and_ends() {
        let log = format!("before\n{}after\n", key());
        assert_eq!(shown(&log, false), "before\n[hidden]\nafter\n");
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        for begin in 2..5 {
            assert_eq!(shown(&lines[begin..].concat(), false), "[hidden]\nafter\n", "from {begin}");
        }
        assert_eq!(shown(&lines[2..5].concat(), false), "[hidden]\n[hidden]\n[hidden]\n");
        let timed: String =
            lines[2..5].iter().map(|line| format!("2026-01-02T03:04:05.678901234Z {line}")).collect();
        assert_eq!(shown(&timed, false), "2026-01-02T03:04:05.678901234Z [hidden]\n".repeat(3));
    }

    #[test]
    fn what_is_no_secret_stays() {
        let log = "digest sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n2026-01-02T03:04:05Z \n\n\
                   0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\nDone\nunable to retrieve container logs";
        assert_eq!(shown(log, false), log);
        assert_eq!(shown("one\ntwo", true), "one\n[hidden]");
        assert_eq!(shown("one\ntwo\n", true), "one\ntwo\n");
        assert_eq!(shown("two", true), "[hidden]");
        assert_eq!(shown("", true), "");
    }

    proptest! {
        /// As who asks again and again with one byte more each time.
        #[test]
        fn nothing_of_a_secret_is_learnt_from_where_a_log_is_cut(begin in 0_usize..9, end in 0_usize..600, letter in "[a-z]{1,3}") {
            let secret = |suffix: &str| format!(
                "start\npassword=Hun{suffix}Ter2Hun\ngithub ghp_Hun{suffix}Ter2Ter2Ter2Ter2Ter2\ntoken eyJhbGciOiJIUzI1NiJ9.Hun{suffix}Ter2.Ter2\n\
                 {}db://me:Hun{suffix}Ter2@db\nend\n", key()
            );
            let cut = |log: String| {
                let tail: String = log.split_inclusive('\n').skip(begin).collect();
                let end = tail.floor_char_boundary(end);
                shown(&tail[..end], true)
            };
            let one = cut(secret(&letter));
            prop_assert_eq!(&one, &cut(secret(&"X".repeat(letter.len()))), "the same whatever the secret is");
            prop_assert!(!one.contains("Hun") && !one.contains("aB3+"), "{}", one);
        }
    }
}
