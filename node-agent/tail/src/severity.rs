//! How bad a line says it is.

use memchr::memmem;

/// Severity, from harmless to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Debugging and tracing.
    Debug,
    /// Normal work.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// The program can't go on.
    Fatal,
}

impl Level {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// A level by any of the names in use, or by the numbers of the JSON
    /// loggers that count in tens.
    fn named(word: &[u8]) -> Option<Self> {
        const NAMES: [(&str, Level); 22] = [
            ("error", Level::Error),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("debug", Level::Debug),
            ("fatal", Level::Fatal),
            ("err", Level::Error),
            ("trace", Level::Debug),
            ("information", Level::Info),
            ("notice", Level::Info),
            ("verbose", Level::Debug),
            ("severe", Level::Error),
            ("critical", Level::Fatal),
            ("crit", Level::Fatal),
            ("panic", Level::Fatal),
            ("emergency", Level::Fatal),
            ("alert", Level::Fatal),
            ("60", Level::Fatal),
            ("50", Level::Error),
            ("40", Level::Warn),
            ("30", Level::Info),
            ("20", Level::Debug),
        ];
        NAMES.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    }
}

/// How much of a line's beginning is looked at for a word.
const HEAD: usize = 120;

/// How much of a line's beginning is looked at for a field.
const FIELDS: usize = 4096;

/// Field names that hold a level in JSON and logfmt.
const FIELD_NAMES: [&[u8]; 5] = [b"level", b"severity", b"lvl", b"levelname", b"log.level"];

/// Beginnings of what runtimes print when a program dies of it.
const CRASHES: [(&[u8], Level); 6] = [
    (b"panic: ", Level::Fatal),
    (b"fatal error: ", Level::Fatal),
    (b"thread '", Level::Error),
    (b"Traceback (most recent call last)", Level::Error),
    (b"Exception in thread ", Level::Error),
    (b"Unhandled exception", Level::Error),
];

/// The severity that `line` names; `None` if it names none. The stream that it
/// was written to says nothing: many programs write all they have to standard error.
pub fn level(line: &[u8]) -> Option<Level> {
    let line = line.trim_ascii_start();
    if line.first() == Some(&b'{') {
        return json(&line[..line.len().min(FIELDS)]);
    }
    klog(line)
        .or_else(|| CRASHES.iter().find(|(text, _)| line.starts_with(text)).map(|(_, level)| *level))
        .or_else(|| logfmt(&line[..line.len().min(FIELDS)]))
        .or_else(|| word(&line[..line.len().min(HEAD)]))
}

/// `{"level":"error",…}`, at any place in the object.
fn json(line: &[u8]) -> Option<Level> {
    FIELD_NAMES.iter().find_map(|name| {
        memmem::find_iter(line, name).find_map(|at| {
            // A quote inside a string follows a backslash, so quotes on both
            // sides mean the key itself.
            line[..at].strip_suffix(b"\"")?;
            let value = line[at + name.len()..].strip_prefix(b"\"")?.trim_ascii_start();
            let value = value.strip_prefix(b":")?.trim_ascii_start();
            Level::named(leading_word(value.strip_prefix(b"\"").unwrap_or(value)))
        })
    })
}

/// `level=error`, at the beginning or after a space.
fn logfmt(line: &[u8]) -> Option<Level> {
    memmem::find_iter(line, b"=").take(16).find_map(|at| {
        let key = line[..at].rsplit(|byte| *byte == b' ').next()?;
        let value = &line[at + 1..];
        FIELD_NAMES
            .contains(&key)
            .then(|| Level::named(leading_word(value.strip_prefix(b"\"").unwrap_or(value))))
            .flatten()
    })
}

/// `E1121 13:50:00.123456`: klog's letter, month and day.
fn klog(line: &[u8]) -> Option<Level> {
    let head: &[u8; 9] = line.first_chunk()?;
    let [letter, d1, d2, d3, d4, b' ', h1, h2, b':'] = head else { return None };
    [d1, d2, d3, d4, h1, h2].iter().all(|byte| byte.is_ascii_digit()).then_some(())?;
    match letter {
        b'I' => Some(Level::Info),
        b'W' => Some(Level::Warn),
        b'E' => Some(Level::Error),
        b'F' => Some(Level::Fatal),
        _ => None,
    }
}

/// A level as a word of its own near the beginning. In capitals it counts
/// anywhere there; else only as the first word, before a colon, or in brackets,
/// because sentences talk of errors too.
fn word(head: &[u8]) -> Option<Level> {
    let mut at = 0;
    let mut first = true;
    while at < head.len() {
        let length = leading_word(&head[at..]).len();
        if length == 0 {
            at += 1;
            continue;
        }
        let word = &head[at..at + length];
        let is_text = !word[0].is_ascii_digit();
        if is_text
            && length > 2
            && let Some(level) = Level::named(word)
        {
            let before = at.checked_sub(1).map(|i| head[i]);
            let after = head.get(at + length).copied();
            let marked = matches!(after, Some(b':' | b']' | b'>' | b'|')) || before == Some(b'[');
            if first || marked || word.iter().all(u8::is_ascii_uppercase) {
                return Some(level);
            }
        }
        // The letters of a leading time (`T`, `Z`) are parts of words that
        // begin with a digit, names of months and days are short.
        first &= !is_text || length <= 3;
        at += length;
    }
    None
}

fn leading_word(text: &[u8]) -> &[u8] {
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    &text[..length]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_found_where_programs_write_them() {
        use Level::{Debug, Error, Fatal, Info, Warn};
        for (line, expected) in [
            (r#"{"ts":1,"level":"error","msg":"x"}"#, Some(Error)),
            (r#"{"msg":"say \"level\":\"error\"","severity" : "WARNING"}"#, Some(Warn)),
            (r#"{"level":50,"msg":"pino"}"#, Some(Error)),
            (r#"{"msg":"ERROR in text"}"#, None),
            ("time=2026-11-21T13:50:00Z level=warn msg=\"disk\"", Some(Warn)),
            ("lvl=\"eror\" x", None),
            ("E1121 13:50:00.123456       1 main.go:10] boom", Some(Error)),
            ("I1121 13:50:00.123456       1 main.go:10] ERROR is only a word here", Some(Info)),
            ("2026-11-21 13:50:00,123 ERROR [main] com.x.Y - boom", Some(Error)),
            ("2026-11-21T13:50:00.1Z  WARN crate::module: slow", Some(Warn)),
            ("[2026-11-21 13:50:00] [error] 17#17: *1 open() failed", Some(Error)),
            ("Nov 21 13:50:00 host app[1]: warning: low", Some(Warn)),
            ("error: no such file", Some(Error)),
            ("Error connecting to database", Some(Error)),
            ("there was no error at all", None),
            ("DEBUG x", Some(Debug)),
            ("panic: runtime error: index out of range", Some(Fatal)),
            ("Traceback (most recent call last):", Some(Error)),
            ("10.0.0.1 - - \"GET /errors HTTP/1.1\" 200", None),
            ("", None),
        ] {
            assert_eq!(level(line.as_bytes()), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = level(&line);
        }

        #[test]
        fn any_object_is_survived(line in "\\{[\"a-z:\\\\ levl]{0,40}") {
            let _ = level(line.as_bytes());
        }
    }
}
