//! A page of what an object says, and the form of kinds that kubectl does not know.

use std::fmt::Display;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::super::{go_text, is_full, list, text};

/// A longer annotation is shown behind its name.
const ANNOTATION_CHARS: usize = 140;
/// What Go makes of a moment that is not there.
const NO_MOMENT: &str = "Mon, 01 Jan 0001 00:00:00 +0000";

#[derive(Default)]
pub(super) struct Page(pub(super) String);

impl Page {
    /// What is deep is many times larger than its JSON, for its blanks; what is beyond an output is cut, and said, by who
    /// asked for it.
    pub(super) fn line(&mut self, level: usize, text: &str) {
        if is_full(&self.0) {
            return;
        }
        self.0.push_str(&"  ".repeat(level));
        self.0.push_str(text);
        self.0.push('\n');
    }

    pub(super) fn field(&mut self, level: usize, title: &str, value: impl Display) {
        self.line(level, &format!("{title}:\t{value}"));
    }

    /// A field for each of the texts that `of` has, in the order of the titles; without one it is empty.
    pub(super) fn fields(&mut self, level: usize, of: &Value, titles: &[(&str, &str)]) {
        titles.iter().for_each(|(title, name)| self.field(level, title, text(of, &[name])));
    }

    /// A value, unless it is not there.
    pub(super) fn present(&mut self, title: &str, value: &Value, unit: &str) {
        if !value.is_null() {
            self.field(0, title, go_text(value) + unit);
        }
    }

    pub(super) fn or_unset(&mut self, title: &str, value: &Value, unit: &str) {
        match value {
            Value::Null => self.field(0, title, "<unset>"),
            value => self.present(title, value, unit),
        }
    }

    pub(super) fn name(&mut self, object: &Value) {
        self.fields(0, &object["metadata"], &[("Name", "name"), ("Namespace", "namespace")]);
    }

    pub(super) fn created(&mut self, object: &Value) {
        self.field(0, "CreationTimestamp", moment(text(object, &["metadata", "creationTimestamp"])));
    }

    /// Labels and annotations.
    pub(super) fn marks(&mut self, object: &Value) {
        self.labels("", "Labels", &object["metadata"]["labels"]);
        self.annotations("", &object["metadata"]["annotations"]);
    }

    pub(super) fn controller(&mut self, object: &Value) {
        let owners = list(object, &["metadata", "ownerReferences"]);
        if let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) {
            self.field(0, "Controlled By", format!("{}/{}", text(owner, &["kind"]), text(owner, &["name"])));
        }
    }

    /// The table of conditions, if there are any. Behind its first cells, as many as `blanks`, stands a blank.
    pub(super) fn conditions(&mut self, object: &Value, titles: &[&str], blanks: usize) {
        let conditions = list(object, &["status", "conditions"]);
        if conditions.is_empty() {
            return;
        }
        self.line(0, "Conditions:");
        self.head(titles);
        for condition in conditions {
            let cells = (0..).zip(titles).map(|(place, title)| {
                let value = text(condition, &[&(title[..1].to_lowercase() + &title[1..])]);
                let value = if title.ends_with("Time") { moment(value) } else { value.to_owned() };
                if place < blanks { value + " " } else { value }
            });
            let cells: Vec<String> = cells.collect();
            self.line(1, &cells.join("\t"));
        }
    }

    /// Titles of columns, underlined.
    pub(super) fn head(&mut self, titles: &[&str]) {
        self.line(1, &titles.join("\t"));
        // kubectl has one line for conditions of nodes and of claims.
        let length = |title: &str| if title == "LastProbeTime" { 17 } else { title.len() };
        let lines: Vec<String> = titles.iter().map(|title| "-".repeat(length(title))).collect();
        self.line(1, &lines.join("\t"));
    }

    /// A title, and behind it each value on a line of its own; `<none>` without any.
    pub(super) fn lines<V: Display>(
        &mut self,
        indent: &str,
        title: &str,
        values: impl IntoIterator<Item = V>,
    ) {
        let mut lead = format!("{indent}{title}:");
        for value in values {
            self.line(0, &format!("{}\t{value}", std::mem::take(&mut lead)));
        }
        if !lead.is_empty() {
            self.line(0, &format!("{lead}\t<none>"));
        }
    }

    pub(super) fn labels(&mut self, indent: &str, title: &str, labels: &Value) {
        let shown =
            |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
        self.lines(indent, title, labels.as_object().into_iter().flatten().map(shown));
    }

    pub(super) fn annotations(&mut self, indent: &str, annotations: &Value) {
        self.0.push_str(&format!("{indent}Annotations:\t"));
        let Some(annotations) = annotations.as_object().filter(|annotations| !annotations.is_empty()) else {
            self.0.push_str("<none>\n");
            return;
        };
        for (place, (name, value)) in annotations.iter().enumerate() {
            let lead = if place == 0 { "" } else { "\t" };
            let value = value.as_str().unwrap_or_default();
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + name.len() + 2 <= ANNOTATION_CHARS && !value.contains('\n') {
                self.0.push_str(&format!("{lead}{name}: {value}\n"));
                continue;
            }
            self.0.push_str(&format!("{lead}{name}:\n"));
            for line in value.split('\n') {
                let end = line.floor_char_boundary(ANNOTATION_CHARS - 2);
                let more = if end < line.len() { "..." } else { "" };
                self.0.push_str(&format!("\t  {}{more}\n", &line[..end]));
            }
        }
    }

    pub(super) fn unless_empty(&mut self, level: usize, title: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, title, value);
        }
    }

    /// As kubectl shows an object of a kind that it does not know.
    pub(super) fn generic(object: &Value) -> Self {
        let mut page = Self::default();
        page.name(object);
        page.marks(object);
        let shown = [
            ".metadata.managedFields",
            ".metadata.name",
            ".metadata.namespace",
            ".metadata.labels",
            ".metadata.annotations",
        ];
        if let Some(fields) = object.as_object() {
            page.content(0, fields, "", &shown);
        }
        page
    }

    pub(super) fn content(&mut self, level: usize, fields: &Map<String, Value>, path: &str, shown: &[&str]) {
        for (name, value) in fields {
            // Those that are shown elsewhere are short.
            let path = if path.len() < 64 { format!("{path}.{name}") } else { "-".to_owned() };
            if shown.contains(&path.as_str()) {
                continue;
            }
            match value {
                Value::Object(inner) => {
                    self.line(level, &format!("{}:", label(name)));
                    self.content(level + 1, inner, &path, shown);
                }
                Value::Array(items) => {
                    self.line(level, &format!("{}:", label(name)));
                    for item in items {
                        match item {
                            Value::Object(inner) => self.content(level + 1, inner, &path, shown),
                            other => self.line(level + 1, &go_text(other)),
                        }
                    }
                }
                other => self.field(level, &label(name), go_text(other)),
            }
        }
    }
}

/// A moment as RFC 1123 has it, in UTC.
pub(super) fn moment(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(moment) => moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        Err(_) => NO_MOMENT.to_owned(),
    }
}

/// A text of an object, or what stands for none.
pub(super) fn text_or<'a>(of: &'a Value, path: &[&str], none: &'a str) -> &'a str {
    match text(of, path) {
        "" => none,
        text => text,
    }
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// The texts of a list with something between them; `<none>` without any.
pub(super) fn joined(of: &Value, path: &[&str], between: &str) -> String {
    let texts: Vec<&str> = list(of, path).iter().filter_map(Value::as_str).collect();
    or_none(texts.join(between))
}

/// `apiVersion` as `API Version`; a name with other signs stays as it is.
pub(super) fn label(name: &str) -> String {
    if !name.chars().all(|char| char.is_alphabetic() || char == '-') {
        return name.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let chars: Vec<char> = name.chars().collect();
    for (place, char) in chars.iter().enumerate() {
        let before = place.checked_sub(1).map(|place| chars[place]);
        let starts = match before {
            None => true,
            Some(before) => {
                let next_is_lower = chars.get(place + 1).is_some_and(|next| next.is_lowercase());
                (char.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower)))
                    || (char.is_alphabetic() != before.is_alphabetic())
            }
        };
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(*char);
        }
    }
    let titled = |word: &String| {
        let upper = word.to_uppercase();
        if ["API", "URL", "UID", "OSB", "GUID"].contains(&upper.as_str()) {
            return upper;
        }
        let mut chars = word.chars();
        chars.next().map_or(String::new(), |first| {
            first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect()
        })
    };
    words.iter().map(titled).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::command::OUTPUT_BYTES;

    #[test]
    fn what_is_deep_has_an_end() {
        let deep = (0..60).fold(Value::from(vec![1; 200_000]), |inner, _| json!({"a": inner}));
        let page = Page::generic(&deep);
        assert!((OUTPUT_BYTES..OUTPUT_BYTES + 1024).contains(&page.0.len()), "{}", page.0.len());
    }
}
