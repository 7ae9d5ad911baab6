//! YAML as kubectl writes it: its library's order of keys, its choice of quotes and its folds at 80 columns.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{is_full, work::Stop};

/// Behind this column a line is folded at the next blank.
const WIDTH: usize = 80;

/// An object as `-o yaml` shows it.
pub(super) fn write(value: &Value) -> String {
    write_until(value, &Stop::default())
}

/// The same, or what of it there is when it is stopped.
pub(super) fn write_until(value: &Value, stop: &Stop) -> String {
    let mut writer = Writer { out: String::new(), column: 0, stop };
    match value {
        Value::Object(fields) if !fields.is_empty() => writer.mapping(fields, 0, true),
        Value::Array(items) if !items.is_empty() => writer.sequence(items, 0, true),
        scalar => {
            writer.scalar(scalar, 0);
            writer.put("\n");
        }
    }
    writer.out
}

struct Writer<'a> {
    out: String,
    column: usize,
    stop: &'a Stop,
}

impl Writer<'_> {
    /// What is deep is many times larger than its JSON, for its blanks.
    fn is_done(&self) -> bool {
        is_full(&self.out) || self.stop.is_set()
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column = match text.rsplit_once('\n') {
            Some((_, last)) => last.chars().count(),
            None => self.column + text.chars().count(),
        };
    }

    fn indent(&mut self, indent: usize) {
        self.put(&" ".repeat(indent));
    }

    /// `inline`: its first key stands behind what is written already.
    fn mapping(&mut self, fields: &Map<String, Value>, indent: usize, mut inline: bool) {
        let mut keys: Vec<&String> = fields.keys().collect();
        keys.sort_by(|one, other| natural(one, other));
        for key in keys {
            if self.is_done() {
                return;
            }
            if !std::mem::take(&mut inline) {
                self.indent(indent);
            }
            self.text(key, indent, true);
            self.put(":");
            match &fields[key] {
                Value::Object(inner) if !inner.is_empty() => {
                    self.put("\n");
                    self.mapping(inner, indent + 2, false);
                }
                // A sequence in a mapping is not indented.
                Value::Array(items) if !items.is_empty() => {
                    self.put("\n");
                    self.sequence(items, indent, false);
                }
                scalar => {
                    self.put(" ");
                    self.scalar(scalar, indent);
                    self.put("\n");
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize, mut inline: bool) {
        for item in items {
            if self.is_done() {
                return;
            }
            if !std::mem::take(&mut inline) {
                self.indent(indent);
            }
            self.put("- ");
            match item {
                Value::Object(inner) if !inner.is_empty() => self.mapping(inner, indent + 2, true),
                Value::Array(inner) if !inner.is_empty() => self.sequence(inner, indent + 2, true),
                scalar => {
                    self.scalar(scalar, indent);
                    self.put("\n");
                }
            }
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::String(text) => self.text(text, indent, false),
            Value::Null => self.put("null"),
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            other => self.put(&other.to_string()),
        }
    }

    fn text(&mut self, text: &str, indent: usize, is_key: bool) {
        let shape = Shape::of(text);
        let is_literal = text.contains('\n') && shape.block && !is_key;
        if is_literal {
            return self.literal(text, indent + 2);
        }
        let folds = !is_key;
        if text.contains('\n') || resolves(text) {
            // It would be something else without quotes.
            self.double_quoted(text, indent + 2, folds);
        } else if shape.plain {
            self.plain(text, indent + 2, folds);
        } else if shape.single {
            self.single_quoted(text, indent + 2, folds);
        } else {
            self.double_quoted(text, indent + 2, folds);
        }
    }

    fn fold(&mut self, indent: usize) {
        self.put("\n");
        self.indent(indent);
    }

    fn plain(&mut self, text: &str, indent: usize, folds: bool) {
        let chars: Vec<char> = text.chars().collect();
        let mut after_blank = false;
        for (place, char) in chars.iter().enumerate() {
            let next_is_blank = chars.get(place + 1) == Some(&' ');
            if *char == ' ' && folds && !after_blank && self.column > WIDTH && !next_is_blank {
                self.fold(indent);
            } else {
                self.put(char.encode_utf8(&mut [0; 4]));
            }
            after_blank = *char == ' ';
        }
    }

    fn single_quoted(&mut self, text: &str, indent: usize, folds: bool) {
        self.put("'");
        let chars: Vec<char> = text.chars().collect();
        let mut after_blank = false;
        for (place, char) in chars.iter().enumerate() {
            let inside = place > 0 && place + 1 < chars.len();
            let next_is_blank = chars.get(place + 1) == Some(&' ');
            match char {
                ' ' if folds && !after_blank && self.column > WIDTH && inside && !next_is_blank => {
                    self.fold(indent)
                }
                '\'' => self.put("''"),
                char => self.put(char.encode_utf8(&mut [0; 4])),
            }
            after_blank = *char == ' ';
        }
        self.put("'");
    }

    fn double_quoted(&mut self, text: &str, indent: usize, folds: bool) {
        self.put("\"");
        let chars: Vec<char> = text.chars().collect();
        let mut after_blank = false;
        for (place, char) in chars.iter().enumerate() {
            let escape = match char {
                '\0' => "\\0".to_owned(),
                '\u{7}' => "\\a".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\t' => "\\t".to_owned(),
                '\n' => "\\n".to_owned(),
                '\u{b}' => "\\v".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                '\r' => "\\r".to_owned(),
                '\u{1b}' => "\\e".to_owned(),
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\u{85}' => "\\N".to_owned(),
                '\u{2028}' => "\\L".to_owned(),
                '\u{2029}' => "\\P".to_owned(),
                char if !is_printable(*char) => match u32::from(*char) {
                    code @ ..=0xff => format!("\\x{code:02X}"),
                    code @ ..=0xffff => format!("\\u{code:04X}"),
                    code => format!("\\U{code:08X}"),
                },
                ' ' if folds
                    && !after_blank
                    && self.column > WIDTH
                    && place > 0
                    && place + 1 < chars.len() =>
                {
                    self.fold(indent);
                    if chars[place + 1] == ' ' {
                        self.put("\\");
                    }
                    after_blank = true;
                    continue;
                }
                char => {
                    self.put(char.encode_utf8(&mut [0; 4]));
                    after_blank = *char == ' ';
                    continue;
                }
            };
            self.put(&escape);
            after_blank = false;
        }
        self.put("\"");
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        let body = text.strip_suffix('\n');
        match body {
            None => self.put("-"),
            Some(body) if body.is_empty() || body.ends_with('\n') => self.put("+"),
            Some(_) => {}
        }
        let body = body.unwrap_or(text);
        for line in body.split('\n') {
            self.put("\n");
            if !line.is_empty() {
                self.indent(indent);
                self.put(line);
            }
        }
    }
}

/// The forms in which a text may be written.
struct Shape {
    plain: bool,
    single: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self { plain: false, single: true, block: false };
        }
        let chars: Vec<char> = text.chars().collect();
        let blank =
            |place: usize| chars.get(place).is_none_or(|char| matches!(char, ' ' | '\t' | '\n' | '\r'));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut break_space, mut space_break) = (false, false, false);
        let (mut after_space, mut after_break) = (false, false);
        for (place, char) in chars.iter().enumerate() {
            indicators |= match char {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`'
                    if place == 0 =>
                {
                    true
                }
                '?' | '-' if place == 0 => blank(place + 1),
                ':' => blank(place + 1),
                '#' => blank(place - 1),
                _ => false,
            };
            special |= !is_printable(*char) && *char != '\n';
            match char {
                ' ' => {
                    break_space |= after_break;
                    (after_space, after_break) = (true, false);
                }
                '\n' => {
                    space_break |= after_space;
                    (after_space, after_break) = (false, true);
                }
                _ => (after_space, after_break) = (false, false),
            }
        }
        let (first, last) = (chars[0], chars[chars.len() - 1]);
        let edge = matches!(first, ' ' | '\n') || matches!(last, ' ' | '\n');
        let unquotable = space_break || special;
        Self {
            plain: !edge && !break_space && !unquotable && !text.contains('\n') && !indicators,
            single: !break_space && !unquotable,
            block: last != ' ' && !unquotable,
        }
    }
}

/// As the library has it: tabs are, other control characters are not.
fn is_printable(char: char) -> bool {
    matches!(char, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && char != '\u{feff}'
        || matches!(char, '\u{10000}'..='\u{10ffff}')
}

/// Whether a text without quotes would be read as something else: a number, a truth, a date, nothing.
fn resolves(text: &str) -> bool {
    const WORDS: [&str; 40] = [
        "", "~", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N", "no",
        "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", "null", "Null", "NULL", ".nan", ".NaN",
        ".NAN", ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<",
    ];
    if WORDS.contains(&text) {
        return true;
    }
    let Some(first) = text.chars().next() else { return true };
    match first {
        '.' => is_float(text),
        '0'..='9' | '+' | '-' => {
            is_date(text)
                || is_integer(&text.replace('_', ""))
                || is_float(&text.replace('_', ""))
                || is_base_60(text)
        }
        _ => false,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let of = |digits: &str, radix: u32| {
        !digits.is_empty()
            && digits.len() <= 64
            && u64::from_str_radix(digits, radix).is_ok()
            && !digits.starts_with('+')
    };
    match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => of(&digits[2..], 16),
        Some("0b") => of(&digits[2..], 2),
        Some("0o") => of(&digits[2..], 8),
        Some(prefix) if prefix.starts_with('0') => of(&digits[1..], 8),
        _ => of(digits, 10),
    }
}

fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = text.split(':');
    let Some(first) = parts.next() else { return false };
    let rest: Vec<&str> = parts.collect();
    let is_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let sixty = |part: &str| {
        let whole = part.split_once('.').map_or(part, |(whole, _)| whole);
        (1..=2).contains(&whole.len()) && whole.parse::<u8>().is_ok_and(|number| number < 60)
    };
    !rest.is_empty() && is_digits(first) && rest.iter().all(|part| sixty(part))
}

/// `2006-1-2`, and with a time.
fn is_date(text: &str) -> bool {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number =
        |text: &str, digits: std::ops::RangeInclusive<usize>, range: std::ops::RangeInclusive<u16>| {
            digits.contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_digit())
                && text.parse().is_ok_and(|number| range.contains(&number))
        };
    let is_day = number(year, 4..=4, 0..=9999) && number(month, 1..=2, 1..=12) && number(day, 1..=2, 1..=31);
    is_day
        && time.is_none_or(|time| {
            let clock: String =
                time.chars().take_while(|char| char.is_ascii_digit() || *char == ':').collect();
            let parts: Vec<&str> = clock.split(':').collect();
            parts.len() >= 3 && number(parts[0], 1..=2, 0..=23) && number(parts[1], 1..=2, 0..=59)
        })
}

/// The library's order of keys: letters after other signs, numbers by their value.
fn natural(one: &str, other: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let length = a.len().min(b.len());
    for place in 0..length {
        let (x, y) = (a[place], b[place]);
        if x == y {
            continue;
        }
        match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => return x.cmp(&y),
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        let number = |chars: &[char]| -> (u64, usize) {
            let digits: Vec<char> =
                chars[place..].iter().copied().take_while(char::is_ascii_digit).take(18).collect();
            let mut value = 0;
            if x == '0' || y == '0' {
                let before = a[..place].iter().rev().take_while(|char| char.is_ascii_digit());
                value = u64::from(before.into_iter().any(|char| *char != '0'));
            }
            let value = digits
                .iter()
                .fold(value, |value, digit| value * 10 + u64::from(digit.to_digit(10).unwrap_or(0)));
            (value, digits.len())
        };
        let (left, right) = (number(&a), number(&b));
        return left.0.cmp(&right.0).then(left.1.cmp(&right.1)).then(x.cmp(&y));
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::command::OUTPUT_BYTES;

    #[test]
    fn objects_are_written_as_kubectl_writes_them() {
        let value = json!({
            "apiVersion": "v1", "metadata": {"labels": {"a10": "1", "a2": "true", "b": "x y"}, "empty": {}, "none": null},
            "spec": {"list": [{"name": "a", "ports": [80, 443]}, "plain", ["x", "y"]], "no": [], "text": "line\nline\n"},
            "quoted": "a: b", "single": "it's: x", "star": "*", "time": "2024-01-02T03:04:05Z", "version": "1.10", "v": "1.10.3",
            "port": "8080", "octal": "010", "hex": "0x1f", "sixty": "1:30", "empty": "", "dash": "-", "cut": "a\nb", "tab": "a\tb",
            "at": "@x", "percent": "50%", "colon": "a:b", "hash": "a #b", "on": "on",
        });
        let expected = "\
apiVersion: v1
at: '@x'
colon: a:b
cut: |-
  a
  b
dash: '-'
empty: \"\"
hash: 'a #b'
hex: \"0x1f\"
metadata:
  empty: {}
  labels:
    a2: \"true\"
    a10: \"1\"
    b: x y
  none: null
octal: \"010\"
\"on\": \"on\"
percent: 50%
port: \"8080\"
quoted: 'a: b'
single: 'it''s: x'
sixty: \"1:30\"
spec:
  list:
  - name: a
    ports:
    - 80
    - 443
  - plain
  - - x
    - \"y\"
  \"no\": []
  text: |
    line
    line
star: '*'
tab: \"a\\tb\"
time: \"2024-01-02T03:04:05Z\"
v: 1.10.3
version: \"1.10\"
";
        assert_eq!(write(&value), expected);
    }

    #[test]
    fn what_is_deep_has_an_end_and_nobody_waits_for_what_was_stopped() {
        let deep = (0..60).fold(Value::from(vec![1; 500_000]), |inner, _| json!({"a": inner}));
        let shown = write(&deep);
        assert!((OUTPUT_BYTES..OUTPUT_BYTES + 1024).contains(&shown.len()), "{}", shown.len());
        assert!(write_until(&deep, &Stop::at_look(100)).len() < 64 * 1024);
    }

    #[test]
    fn long_lines_are_folded_at_a_blank() {
        let words = "0/1 nodes are available: 1 node(s) had untolerated taint {a: b}. preemption: 0/1 nodes are available";
        let folded = write(&json!({"a": {"message": words}}));
        assert_eq!(
            folded,
            "a:\n  message: '0/1 nodes are available: 1 node(s) had untolerated taint {a: b}. preemption:\n    0/1 nodes are available'\n"
        );
    }
}
