//! Which lines belong to the line before them: stack traces, as the common languages print them, and
//! lines that begin with white space.
//!
//! [`First`] is what the beginning of a line alone says; it is cheap, and for most lines it is the end
//! of the matter. [`Shape`] is a record that grows line by line.

use std::time::Duration;

use memchr::memmem;

use crate::severity::{self, Level};

/// The most bytes of a file from a record's first line to its last, if it has more than one.
pub const LIMIT: usize = 64 * 1024;

/// A line that comes later than this after the one before it does not belong to it.
pub const PAUSE: Duration = Duration::from_millis(500);

/// How long a record may grow.
pub const SPAN: Duration = Duration::from_secs(5);

/// The longest name of an exception.
const NAME: usize = 128;

/// What a line is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing that is known here.
    Other,
    /// It is empty.
    Blank,
    /// It begins with white space.
    Indented,
    /// What a runtime prints before a stack trace, or an exception's name.
    Head,
    /// What stands between the parts of a stack trace.
    Link,
}

/// Beginnings of what runtimes print before a stack trace, except exceptions' names.
const HEADS: [&[u8]; 8] = [
    TRACEBACK,
    PANIC,
    FATAL,
    b"Exception in thread ",
    b"Unhandled exception",
    b"Unhandled Exception",
    b"Uncaught ",
    b"PHP Fatal error:",
];
const TRACEBACK: &[u8] = b"Traceback (most recent call last)";
const PANIC: &[u8] = b"panic: ";
const FATAL: &[u8] = b"fatal error: ";
const GOROUTINE: &[u8] = b"goroutine ";
const THREAD: &[u8] = b"thread '";

/// Beginnings of lines that go on with a stack trace.
const LINKS: [&[u8]; 8] = [
    b"Caused by: ",
    b"During handling of the above exception",
    b"The above exception was the direct cause",
    b"--- End of ",
    b"Stack trace:",
    b"Stacktrace:",
    b"stack backtrace:",
    b"note: run with `RUST_BACKTRACE",
];

/// Beginnings of lines of a Go program's last words that are not indented.
const GO: [&[u8]; 6] =
    [b"created by ", b"[signal ", b"[recovered", b"runtime stack:", b"exit status ", b"..."];

impl First {
    /// What `line` is.
    pub fn of(line: &[u8]) -> Self {
        match line {
            [] | [b'\r'] => Self::Blank,
            [b' ' | b'\t', ..] => Self::Indented,
            [b'a'..=b'z' | b'A'..=b'Z' | b'-', ..] => Self::of_word(line),
            _ => Self::Other,
        }
    }

    fn of_word(line: &[u8]) -> Self {
        match line[0] {
            b'C' | b'D' | b'T' | b'-' | b'S' | b's' | b'n' if begins_with(line, &LINKS) => Self::Link,
            b'T' | b'p' | b'f' | b'E' | b'U' | b'P' if begins_with(line, &HEADS) => Self::Head,
            b'g' if is_goroutine(line) => Self::Head,
            b't' if is_panic(line) => Self::Head,
            _ if exception(line).is_some() => Self::Head,
            _ => Self::Other,
        }
    }
}

/// The name of the exception that `line` begins with: `java.io.IOException: …`, `KeyError: …`,
/// `ActiveRecord::RecordInvalid (…)` does not count, `NoMethodError (…)` does.
pub fn exception(line: &[u8]) -> Option<&[u8]> {
    let name = name(line);
    let is_over = match &line[name.len()..] {
        [] | [b':' | b'\r', ..] => true,
        rest => rest.starts_with(b" ("),
    };
    (is_over && (name.ends_with(b"Error") || name.ends_with(b"Exception"))).then_some(name)
}

/// The qualified name that `line` begins with; it may be empty.
pub(crate) fn name(line: &[u8]) -> &[u8] {
    let mut at = 0;
    while at < line.len().min(NAME) {
        match line[at] {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'$' | b'\\' => at += 1,
            b':' if line.get(at + 1) == Some(&b':') => at += 2,
            _ => break,
        }
    }
    &line[..at.min(line.len())]
}

/// A record of one line or more, and what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape<'a> {
    kind: Kind,
    /// Its first line.
    head: &'a [u8],
    /// The line before was empty.
    after_blank: bool,
    /// It has more than one line.
    grown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// JSON, logfmt: complete in one line.
    Structured,
    /// Any text.
    Text,
    /// Frames of a Python trace.
    Frames,
    /// A Python trace with its exception; with true, another is announced.
    Raised(bool),
    /// A Go program's last words.
    Go,
    /// A Rust panic whose message is the next line.
    Panicked,
    /// Any other trace; with true, its exception was named.
    Trace(bool),
}

impl<'a> Shape<'a> {
    /// A record that begins with `line`, which is what `first` says.
    pub fn begin(first: First, line: &'a [u8]) -> Self {
        let kind = match first {
            First::Head => Self::head(line),
            First::Link => Kind::Trace(true),
            First::Blank => Kind::Text,
            _ if is_structured(line) => Kind::Structured,
            _ if is_frame(line) => Kind::Trace(true),
            _ => Kind::Text,
        };
        Self { kind, head: line, after_blank: false, grown: false }
    }

    /// Whether its first line names a warning or worse.
    fn is_bad(self) -> bool {
        severity::level(self.head) >= Some(Level::Warn)
    }

    fn head(line: &[u8]) -> Kind {
        if line.starts_with(TRACEBACK) {
            Kind::Frames
        } else if begins_with(line, &[PANIC, FATAL, GOROUTINE]) {
            Kind::Go
        } else if line.starts_with(THREAD) && line.ends_with(b":") {
            Kind::Panicked
        } else {
            Kind::Trace(true)
        }
    }

    /// Whether `line` belongs to it; if so, it does from now on.
    pub fn takes(&mut self, first: First, line: &[u8]) -> bool {
        let Some(kind) = self.after(first, line) else { return false };
        *self = Self { kind, after_blank: first == First::Blank, grown: true, ..*self };
        true
    }

    /// What it is with `line`; `None` if that is not a part of it.
    fn after(self, first: First, line: &[u8]) -> Option<Kind> {
        let kind = match (self.kind, first) {
            (Kind::Structured, _) => return None,

            (Kind::Text, First::Indented) if is_frame(line) => Kind::Trace(self.is_bad()),
            (Kind::Text, First::Indented) if !names_level(line) => Kind::Text,
            (Kind::Text, First::Link) => Kind::Trace(true),
            (Kind::Text, First::Head) if !self.grown && self.is_bad() => Self::head(line),
            (Kind::Text, _) => return None,

            (Kind::Frames, First::Indented | First::Blank) => Kind::Frames,
            (Kind::Frames, _) if is_raised(line) => Kind::Raised(false),

            (Kind::Raised(_), First::Link) => Kind::Raised(true),
            (Kind::Raised(_), First::Indented | First::Blank) => self.kind,
            (Kind::Raised(true), First::Head) if line.starts_with(TRACEBACK) => Kind::Frames,

            (Kind::Go, First::Indented | First::Blank) => Kind::Go,
            (Kind::Go, First::Head) if self.after_blank && is_goroutine(line) => Kind::Go,
            (Kind::Go, First::Other) if begins_with(line, &GO) || line.ends_with(b")") => Kind::Go,

            (Kind::Panicked, _) => Kind::Trace(true),

            (Kind::Trace(_), First::Indented | First::Link | First::Blank) => self.kind,
            // Node shows the line of the source before the exception.
            (Kind::Trace(false), First::Head) if self.after_blank => Self::head(line),
            (Kind::Trace(_), _) if is_loose_frame(line) => self.kind,

            _ => return None,
        };
        Some(kind)
    }

    /// Whether it is an exception or a crash.
    pub fn is_trace(self) -> bool {
        !matches!(self.kind, Kind::Structured | Kind::Text)
    }

    /// Whether the end of what a program has written so far is likely not its end.
    pub fn is_awaited(self) -> bool {
        match self.kind {
            Kind::Structured => false,
            Kind::Text => self.grown || self.is_bad(),
            _ => true,
        }
    }
}

/// JSON or logfmt.
fn is_structured(line: &[u8]) -> bool {
    line.first() == Some(&b'{') || {
        let key = name(line);
        !key.is_empty() && line.get(key.len()) == Some(&b'=')
    }
}

/// `goroutine 1 [running]:`.
fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(GOROUTINE) && line.ends_with(b"]:")
}

/// `thread 'main' panicked at src/main.rs:2:5:`.
fn is_panic(line: &[u8]) -> bool {
    line.starts_with(THREAD) && contains(line, b"panicked at ")
}

/// An indented line that only stack traces have, or the marks under a piece of source.
fn is_frame(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    if !matches!(line.first(), Some(b' ' | b'\t')) {
        return false;
    }
    match text {
        [b'a', b't', b' ', place @ ..] => {
            !place.starts_with(b"http")
                && (place.contains(&b'(') || place.last().is_some_and(u8::is_ascii_digit))
        }
        [b'f', b'r', b'o', b'm', b' ', place @ ..] => contains(place, b":in "),
        [b'F', b'i', b'l', b'e', b' ', b'"', place @ ..] => contains(place, b"\", line "),
        [b'-', b'-', b'-', rest @ ..] => rest.starts_with(b"> ") || rest.starts_with(b" End of "),
        [b'.', b'.', b'.', b' ', count @ ..] => count.ends_with(b" more"),
        [] => false,
        _ => text.iter().all(|byte| matches!(byte, b'^' | b'~')),
    }
}

/// A line of a stack trace that is not indented: `#0 /app/index.php(7): f()`, `app/x.rb:3:in 'f'`, and the
/// brace that ends what Node says of an error.
fn is_loose_frame(line: &[u8]) -> bool {
    match line {
        [b'}'] => true,
        [b'#', digit, ..] => digit.is_ascii_digit(),
        // Not the first line of a trace of Ruby, which names the exception at its end.
        _ => {
            line.ends_with(b"'")
                && memmem::find(&line[..line.len().min(256)], b":in ")
                    .is_some_and(|at| at > 0 && line[at - 1].is_ascii_digit())
        }
    }
}

/// The last line of a Python trace: `KeyError: 'x'`, `requests.exceptions.Timeout`.
fn is_raised(line: &[u8]) -> bool {
    let name = name(line);
    !name.is_empty() && matches!(line[name.len()..], [] | [b':' | b'\r', ..])
}

/// An indented line that names its own level is a record: ` WARN app > low`.
fn names_level(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    severity::level(&text[..name(text).len()]).is_some()
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    memmem::find(&line[..line.len().min(4096)], text).is_some()
}

fn begins_with(line: &[u8], any: &[&[u8]]) -> bool {
    any.iter().any(|text| line.starts_with(text))
}

#[cfg(test)]
mod tests;
