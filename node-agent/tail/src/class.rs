//! What kind of error a record is about.

use memchr::memchr_iter;

use crate::multiline::{exception, name};

/// How much of a record is looked at.
const REACH: usize = 16 * 1024;

/// Ends of exceptions' names.
const ENDS: [&str; 2] = ["Error", "Exception"];

/// Beginnings of what runtimes print, and what class that is.
const CRASHES: [(&str, &str); 3] = [("panic: ", "panic"), ("fatal error: ", "panic"), ("thread '", "panic")];

/// Names of the operating system's errors, which are classes by themselves.
const NUMBERS: [&str; 9] = [
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENOTFOUND",
    "EADDRINUSE",
    "ENOSPC",
    "EACCES",
    "EPIPE",
    "EMFILE",
];

/// The class of error that `text` names: an exception's type or an error's name; `None` if it names none.
/// Of a Python trace it is the exception that was raised last, of others the first that is named.
pub fn class(text: &str) -> Option<&str> {
    let text = text.get(..REACH).unwrap_or(text);
    let first = text.lines().next()?;
    if first.starts_with("Traceback ") || text.contains("\nTraceback ") {
        let raised = text.lines().rfind(|line| !line.starts_with([' ', '\t']) && !line.trim().is_empty())?;
        let name = name(raised.as_bytes()).len();
        return raised.get(..name).filter(|name| !name.is_empty() && *name != "Traceback");
    }
    if let Some((_, class)) = CRASHES.iter().find(|(begin, _)| first.starts_with(begin)) {
        return Some(class);
    }
    // The line of an exception after a line that talks of it.
    let named = text.lines().take(3).find_map(|line| {
        let length = exception(line.as_bytes())?.len();
        line.get(..length)
    });
    named.or_else(|| within(text))
}

/// A name somewhere in a line that only an exception has, `TypeError` or `java.io.IOException`, not `Error` or `onError`;
/// else an error's name. All of them have a capital E.
fn within(text: &str) -> Option<&str> {
    let mut number = None;
    let name = memchr_iter(b'E', text.as_bytes()).find_map(|at| {
        let rest = text.get(at..)?;
        number = number.or_else(|| NUMBERS.into_iter().find(|name| rest.starts_with(name)));
        let end = ENDS.iter().find(|end| rest.starts_with(**end))?;
        named(text, at, at + end.len())
    });
    name.or(number)
}

/// The name of which the bytes from `at` to `stop` are the end.
fn named(text: &str, at: usize, stop: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    let is_part =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$' | b':' | b'\\');
    let length = bytes[..at].iter().rev().take_while(|byte| is_part(byte)).count();
    let name = text.get(at - length..stop)?.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let last = name.rsplit(['.', ':', '\\', '$']).next()?;
    let is_over = bytes.get(stop).is_none_or(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let is_longer = last.len() > stop - at && last.starts_with(|c: char| c.is_ascii_uppercase());
    (is_over && is_longer).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_have_the_class_that_they_name() {
        for (text, expected) in [
            (
                "java.lang.IllegalStateException: x\n\tat a.B.c(D.java:1)\nCaused by: java.io.IOException",
                "java.lang.IllegalStateException",
            ),
            (
                "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space",
                "java.lang.OutOfMemoryError",
            ),
            (
                "2026-11-21 ERROR order failed\njava.sql.SQLException: timeout\n\tat x",
                "java.sql.SQLException",
            ),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  x\nrequests.exceptions.Timeout",
                "requests.exceptions.Timeout",
            ),
            ("ERROR:root:no\nTraceback (most recent call last):\n  x\nValueError: bad", "ValueError"),
            ("panic: runtime error: x\n\ngoroutine 1 [running]:", "panic"),
            ("thread 'main' panicked at src/main.rs:2:5:\nx", "panic"),
            ("TypeError: x is not a function\n    at f (a.js:1:2)", "TypeError"),
            (
                "Unhandled exception. System.InvalidOperationException: outer",
                "System.InvalidOperationException",
            ),
            ("/app/x.rb:3:in `f': key not found (KeyError)", "KeyError"),
            ("ActiveRecord::RecordNotUniqueError (x)", "ActiveRecord::RecordNotUniqueError"),
            ("[2026-11-21 13:50:00: ERROR/Worker-1] Task raised unexpected: KeyError('x')", "KeyError"),
            ("ERROR connect ECONNREFUSED 10.0.0.1:5432", "ECONNREFUSED"),
            ("Error: listen EADDRINUSE: address already in use", "Error"),
            (
                "{\"level\":\"error\",\"exception\":\"App\\\\Http\\\\NotFoundException\"}",
                "App\\\\Http\\\\NotFoundException",
            ),
        ] {
            assert_eq!(class(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "ERROR something failed",
            "Error connecting",
            "onError was called",
            "3 Errors",
            "Traceback (most recent call last):",
        ] {
            assert_eq!(class(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,30}(Traceback |panic: |Error|Exception|\n){0,4}\\PC{0,30}(Error|Exception)?\n?\\PC{0,10}") {
            let _ = class(&text);
        }
    }
}
