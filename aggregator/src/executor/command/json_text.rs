//! JSON as Go writes it: sorted, four blanks deep, and with escapes for what HTML would take for a tag.

use std::io;

use serde_json::Value;

use super::OUTPUT_BYTES;

/// A value as a template shows it: text as it is, everything else as compact JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => escaped(&other.to_string()),
    }
}

/// An object as `-o json` shows it.
pub(super) fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // Writing a value to memory does not fail.
    let _written = serde::Serialize::serialize(value, &mut serializer);
    escaped(&String::from_utf8_lossy(&out)) + "\n"
}

/// The same of several values; nothing if it would be too much.
pub(super) fn list(values: &[&Value]) -> Option<String> {
    let mut out = Bounded(Vec::new());
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(values, &mut serializer).ok()?;
    Some(escaped(&String::from_utf8_lossy(&out.0)) + "\n")
}

/// What is written, up to the bytes of an output.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Only in texts can these stand.
fn escaped(json: &str) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json.to_owned();
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for char in json.chars() {
        match char {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_go_writes_it() {
        let value = json!({"b": [1, {"a": "<none>"}], "a": {}, "e": [], "t": true});
        assert_eq!(
            indented(&value),
            "{\n    \"a\": {},\n    \"b\": [\n        1,\n        {\n            \"a\": \"\\u003cnone\\u003e\"\n        }\n    ],\n    \"e\": [],\n    \"t\": true\n}\n"
        );
        assert_eq!(plain(&json!(["a&b"])), "[\"a\\u0026b\"]");
        assert_eq!([plain(&json!("x")), plain(&json!(1.5)), plain(&json!(null))], ["x", "1.5", ""]);
    }
}
