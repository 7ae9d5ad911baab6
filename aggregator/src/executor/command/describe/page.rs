//! A page of what an object says, and the form of kinds that kubectl does not know.

use serde_json::{Map, Value};

use super::super::{go_text, is_full, text};

/// A longer annotation is shown behind its name.
const ANNOTATION_CHARS: usize = 140;

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

    pub(super) fn labels(&mut self, indent: &str, title: &str, labels: &Value) {
        self.0.push_str(&format!("{indent}{title}:\t"));
        let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else {
            self.0.push_str("<none>\n");
            return;
        };
        for (place, (name, value)) in labels.iter().enumerate() {
            let lead = if place == 0 { String::new() } else { format!("{indent}\t") };
            self.0.push_str(&format!("{lead}{name}={}\n", value.as_str().unwrap_or_default()));
        }
    }

    pub(super) fn annotations(&mut self, annotations: &Value) {
        self.0.push_str("Annotations:\t");
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
            self.line(level, &format!("{title}:\t{value}"));
        }
    }

    /// As kubectl shows an object of a kind that it does not know.
    pub(super) fn generic(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        self.line(0, &format!("Name:\t{}", text(metadata, &["name"])));
        self.line(0, &format!("Namespace:\t{}", text(metadata, &["namespace"])));
        self.labels("", "Labels", &metadata["labels"]);
        self.annotations(&metadata["annotations"]);
        let shown = [
            ".metadata.managedFields",
            ".metadata.name",
            ".metadata.namespace",
            ".metadata.labels",
            ".metadata.annotations",
        ];
        if let Some(fields) = object.as_object() {
            self.content(0, fields, "", &shown);
        }
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
                other => self.line(level, &format!("{}:\t{}", label(name), go_text(other))),
            }
        }
    }
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
        let mut page = Page::default();
        page.generic(&deep);
        assert!((OUTPUT_BYTES..OUTPUT_BYTES + 1024).contains(&page.0.len()), "{}", page.0.len());
    }
}
