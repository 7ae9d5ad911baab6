//! How bad a line says it is.

mod json;
mod plain;
mod words;

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

    /// A level by any of the names in use.
    fn named(word: &[u8]) -> Option<Self> {
        let (begin, rest) = word.split_first_chunk()?;
        let begin = small(*begin);
        let is_rest = |name: &Name| name.rest.iter().zip(rest).all(|(small, byte)| *small == byte | 0x20);
        let name = NAMES.get(word.len())?.iter().find(|name| name.begin == begin && is_rest(name))?;
        Some(name.level)
    }

    /// A level by its number, as loggers in JSON write it: pino and bunyan count in tens, Google Cloud
    /// in hundreds, GELF as syslog does.
    fn numbered(number: u32) -> Option<Self> {
        Some(match number {
            0..8 => Self::of_syslog(number),
            10 | 20 | 100 => Self::Debug,
            30 | 200 | 300 => Self::Info,
            40 | 400 => Self::Warn,
            50 | 500 => Self::Error,
            60 | 600 | 700 | 800 => Self::Fatal,
            _ => return None,
        })
    }

    /// RFC 5424, table 2; only the last three bits count.
    fn of_syslog(priority: u32) -> Self {
        match priority & 7 {
            0..=2 => Self::Fatal,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Bytes of the longest name of a level.
const LONGEST: usize = 11;

/// The name of a level, whose first letters tell it from nearly all others.
struct Name {
    begin: u32,
    rest: &'static [u8],
    level: Level,
}

/// Three letters as a number, all of them small: with that bit set, nothing but a capital becomes a small one.
const fn small([first, second, third]: [u8; 3]) -> u32 {
    u32::from_le_bytes([first, second, third, 0]) | 0x0020_2020
}

const fn name(text: &'static [u8], level: Level) -> Name {
    let Some((begin, rest)) = text.split_first_chunk() else { panic!("a name has three letters") };
    Name { begin: small(*begin), rest, level }
}

/// Names of levels, by their length.
const NAMES: [&[Name]; LONGEST + 1] = {
    use Level::{Debug, Error, Fatal, Info, Warn};

    [
        &[],
        &[],
        &[],
        &[
            name(b"inf", Info),
            name(b"err", Error),
            name(b"wrn", Warn),
            name(b"dbg", Debug),
            name(b"trc", Debug),
            name(b"vrb", Debug),
            name(b"ftl", Fatal),
        ],
        &[
            name(b"info", Info),
            name(b"warn", Warn),
            name(b"fine", Debug),
            name(b"dbug", Debug),
            name(b"trce", Debug),
            name(b"crit", Fatal),
        ],
        &[
            name(b"debug", Debug),
            name(b"error", Error),
            name(b"trace", Debug),
            name(b"fatal", Fatal),
            name(b"panic", Fatal),
            name(b"alert", Fatal),
            name(b"emerg", Fatal),
            name(b"finer", Debug),
        ],
        &[name(b"notice", Info), name(b"severe", Error), name(b"finest", Debug), name(b"dpanic", Fatal)],
        &[name(b"warning", Warn), name(b"verbose", Debug)],
        &[name(b"critical", Fatal)],
        &[name(b"emergency", Fatal)],
        &[],
        &[name(b"information", Info)],
    ]
};

/// How much of a line's beginning is looked at for a field.
const FIELDS: usize = 4096;

/// The severity that `line` names; `None` if it names none. The stream that it
/// was written to says nothing: many programs write all they have to standard error.
pub fn level(line: &[u8]) -> Option<Level> {
    let line = line.trim_ascii_start();
    match line {
        [b'{', ..] => json::level(&line[..line.len().min(FIELDS)]),
        [b'<', digit, ..] if digit.is_ascii_digit() => syslog(line).or_else(|| plain::level(line)),
        _ => plain::level(line),
    }
}

/// `<34>1 2026-11-21T…`, `<34>Nov 21 …`: facility and severity in a number.
fn syslog(line: &[u8]) -> Option<Level> {
    let digits = line[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 3 || line.get(1 + digits) != Some(&b'>') {
        return None;
    }
    number(&line[1..=digits]).filter(|priority| *priority <= 191).map(Level::of_syslog)
}

/// A whole number of a few digits.
fn number(text: &[u8]) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Letters, digits and `_` at the beginning.
fn leading_word(text: &[u8]) -> &[u8] {
    let length = text.iter().take_while(|byte| is_word(**byte)).count();
    &text[..length]
}

/// A letter, a digit or `_`: by a table, because a line has many.
fn is_word(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128_u8 {
            table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
            byte += 1;
        }
        table
    };
    TABLE[usize::from(byte)]
}

/// Whether a field of this name holds the level.
fn is_level_key(key: &[u8]) -> bool {
    let key = key.strip_prefix(b"@").unwrap_or(key);
    matches!(
        key,
        b"level"
            | b"severity"
            | b"lvl"
            | b"l"
            | b"levelname"
            | b"log.level"
            | b"loglevel"
            | b"log_level"
            | b"Level"
            | b"LogLevel"
            | b"logLevel"
            | b"Severity"
            | b"LEVEL"
            | b"SEVERITY"
            | b"severity_text"
            | b"severityText"
            | b"SeverityText"
            | b"level_name"
    )
}

#[cfg(test)]
mod tests;
