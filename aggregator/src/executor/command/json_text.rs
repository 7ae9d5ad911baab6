//! JSON as Go writes it: sorted, four blanks deep, and with escapes for what HTML would take for a tag.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, Value, ser::PrettyFormatter};

use super::{is_full, work::Stop};

/// Adds a value as a template shows it: text as it is, everything else as compact JSON.
pub(super) fn plain(value: &Value, shown: &mut String, stop: &Stop) {
    match value {
        Value::String(text) => shown.push_str(text),
        Value::Null => {}
        // Writing to memory fails where it is full.
        other => drop(serde_json::to_writer(Escaped { shown, stop }, other)),
    }
}

/// An object, or several, as `-o json` shows it; or what of it there is when it is full or stopped.
pub(super) fn indented(value: &impl Serialize, stop: &Stop) -> String {
    let mut shown = String::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    let mut serializer = Serializer::with_formatter(Escaped { shown: &mut shown, stop }, formatter);
    drop(value.serialize(&mut serializer));
    shown.push('\n');
    shown
}

/// What is written, up to the bytes of an output: what is deep is many times larger than its JSON, for its blanks.
struct Escaped<'a> {
    shown: &'a mut String,
    stop: &'a Stop,
}

impl io::Write for Escaped<'_> {
    /// Takes what a serializer writes, which is UTF-8 each time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_full(self.shown) || self.stop.is_set() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            self.shown.push_str(text);
            return Ok(bytes.len());
        }
        // Only in texts can these stand.
        for char in text.chars() {
            match char {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.shown.push_str(&format!("\\u{:04x}", u32::from(char)));
                }
                char => self.shown.push(char),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::command::OUTPUT_BYTES;

    fn compact(value: &Value) -> String {
        let mut shown = String::new();
        plain(value, &mut shown, &Stop::default());
        shown
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let value = json!({"b": [1, {"a": "<none>"}], "a": {}, "e": [], "t": true});
        assert_eq!(
            indented(&value, &Stop::default()),
            "{\n    \"a\": {},\n    \"b\": [\n        1,\n        {\n            \"a\": \"\\u003cnone\\u003e\"\n        }\n    ],\n    \"e\": [],\n    \"t\": true\n}\n"
        );
        assert_eq!(compact(&json!(["a&b\u{2028}ä"])), "[\"a\\u0026b\\u2028ä\"]");
        assert_eq!([compact(&json!("x")), compact(&json!(1.5)), compact(&json!(null))], ["x", "1.5", ""]);
    }

    #[test]
    fn what_is_deep_has_an_end_and_nobody_waits_for_what_was_stopped() {
        let deep = (0..60).fold(Value::from(vec![1; 500_000]), |inner, _| json!([inner]));
        let shown = indented(&deep, &Stop::default());
        assert!((OUTPUT_BYTES..OUTPUT_BYTES + 1024).contains(&shown.len()), "{}", shown.len());
        assert!(indented(&deep, &Stop::at_look(100)).len() < 64 * 1024);
    }
}
