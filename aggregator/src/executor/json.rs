//! Takes out of an object of the API what only costs room (`managedFields`, kubectl's copy of the last
//! applied object), and hides what is secret: fields as the caller says, what stands in their texts by a mark.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    hidden::{Hide, is_hidden, marked},
    secret,
    terminal::printable,
};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A page of a list, whose items are kept as they were written: a large one is never whole in memory as objects.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default, rename = "apiVersion")]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub metadata: PageMetadata,
    /// Objects, or the rows of a table.
    #[serde(borrow, alias = "rows", deserialize_with = "items")]
    pub items: Vec<&'a RawValue>,
    /// Of a table.
    #[serde(default, rename = "columnDefinitions")]
    pub columns: Vec<Column>,
}

/// A column of a table that the API server set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    #[serde(default)]
    pub format: String,
    /// From one on, it is shown only in wide tables.
    #[serde(default)]
    pub priority: i32,
}

/// What is known of the rest of a list.
#[derive(Default, Deserialize)]
pub(crate) struct PageMetadata {
    /// Asks for the next page; empty on the last.
    #[serde(default, rename = "continue")]
    pub next: String,
    #[serde(default, rename = "resourceVersion")]
    pub resource_version: String,
    #[serde(default, rename = "remainingItemCount")]
    pub remaining: Option<u64>,
}

/// Go writes an empty list as `null`.
fn items<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What objects have in fields of their own. The items of a list do not say their kind, so it is known by
/// where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    Secrets,
    ConfigMaps,
    /// What any object has.
    Nothing,
}

impl Holds {
    /// By the resource of a path, such as `configmaps`.
    pub(crate) fn of_resource(resource: &str) -> Self {
        match resource {
            "secrets" => Self::Secrets,
            "configmaps" => Self::ConfigMaps,
            _ => Self::Nothing,
        }
    }

    fn or_kind(self, object: &Map<String, Value>) -> Self {
        match (self, object.get("kind").and_then(Value::as_str)) {
            (Self::Nothing, Some("Secret")) => Self::Secrets,
            (Self::Nothing, Some("ConfigMap")) => Self::ConfigMaps,
            _ => self,
        }
    }
}

/// An object as the cloud may see it.
pub(crate) fn clean(object: &mut Value, holds: Holds, hide: Hide<'_>) {
    if let Some(fields) = object.as_object_mut() {
        let holds = holds.or_kind(fields);
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(LAST_APPLIED);
                hide_copies(annotations, holds, hide);
                hide_named(annotations, hide);
            }
        }
        hide_data(fields, holds, hide);
    }
    walk(object, hide, false, 0);
}

/// Takes out of a pod what its containers said of their end: often the last lines of their logs.
pub(crate) fn withhold_messages(pod: &mut Value) {
    for field in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        let statuses = pod.get_mut("status").and_then(|status| status.get_mut(field)?.as_array_mut());
        for status in statuses.into_iter().flatten() {
            for state in
                ["/state/waiting", "/state/terminated", "/lastState/waiting", "/lastState/terminated"]
            {
                if let Some(fields) = status.pointer_mut(state).and_then(Value::as_object_mut) {
                    fields.remove("message");
                }
            }
        }
    }
}

/// What Secrets and ConfigMaps are there for.
fn hide_data(object: &mut Map<String, Value>, holds: Holds, hide: Hide<'_>) {
    let mut each = |field: &str, hashed: &dyn Fn(&str) -> String| {
        let map = object.get_mut(field).and_then(Value::as_object_mut);
        for value in map.into_iter().flat_map(Map::values_mut) {
            let text = value.as_str().unwrap_or_default();
            if !is_hidden(text) {
                *value = hashed(text).into();
            }
        }
    };
    match holds {
        Holds::Secrets => {
            each("data", &|text| hide.of_base64(text));
            each("stringData", &|text| hide.of(text.as_bytes()));
        }
        Holds::ConfigMaps => {
            each("binaryData", &|text| hide.of_base64(text));
            if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
                hide_named(data, hide);
            }
        }
        Holds::Nothing => {}
    }
}

/// Copies of the object that tools keep in its annotations, as kapp does: with its data.
fn hide_copies(annotations: &mut Map<String, Value>, holds: Holds, hide: Hide<'_>) {
    for value in annotations.values_mut() {
        let text = value.as_str().unwrap_or_default();
        let is_copy = match holds {
            Holds::Secrets => text.trim_start().starts_with(['{', '[']) || text.contains("data:"),
            Holds::ConfigMaps => text.contains("binaryData") || text.contains("\"data\""),
            Holds::Nothing => false,
        };
        if is_copy {
            *value = hide.of(text.as_bytes()).into();
        }
    }
}

/// Entries of a map that anyone may fill: by their names, and by being one blob.
fn hide_named(map: &mut Map<String, Value>, hide: Hide<'_>) {
    for (name, value) in map {
        if let Some(text) = value.as_str().filter(|text| is_open(text))
            && (secret::is_named(name, text) || secret::is_blob(text))
        {
            *value = hide.of(text.as_bytes()).into();
        }
    }
}

/// It is something, and not hidden already.
fn is_open(text: &str) -> bool {
    !text.is_empty() && !is_hidden(text)
}

/// An object is not nested deeper.
const DEPTH: usize = 100;

/// `below`: it is below the name of a secret, so what is in it is one.
fn walk(value: &mut Value, hide: Hide<'_>, below: bool, depth: usize) {
    match value {
        // The parser of JSON has a limit of its own.
        _ if depth > DEPTH => *value = Value::Null,
        Value::String(text) => {
            if let Some(clean) = embedded(text, depth).or_else(|| text_of(text)) {
                *text = clean;
            }
        }
        Value::Array(items) => {
            hide_following(items, hide);
            items.iter_mut().for_each(|item| walk(item, hide, below, depth + 1));
        }
        Value::Object(fields) => {
            hide_variable(fields, hide);
            // An object in an object, as those that deliver others have them.
            hide_data(fields, Holds::Nothing.or_kind(fields), hide);
            let odd: Vec<String> =
                fields.keys().filter(|name| matches!(printable(name), Cow::Owned(_))).cloned().collect();
            for name in odd {
                if let Some(field) = fields.remove(&name) {
                    fields.insert(printable(&name).into_owned(), field);
                }
            }
            // Which key of a Secret is meant, or where it is mounted.
            let selects = fields.contains_key("name") || fields.contains_key("path");
            for (name, field) in &mut *fields {
                let is_about = secret::is_about(name) || (selects && name == "key");
                // Fields of custom resources, such as spec.password and spec.values.secrets.db.
                let below = (secret::is_name(name) || (below && !is_about)) && !is_schema(field);
                hide_field(name, field, below, hide);
                walk(field, hide, below, depth + 1);
            }
        }
        _ => {}
    }
}

/// Whether it describes a field: a definition of a kind has no values.
fn is_schema(field: &Value) -> bool {
    let is_type =
        |name: &str| matches!(name, "object" | "array" | "string" | "integer" | "number" | "boolean");
    field["type"].as_str().is_some_and(is_type)
        || field.as_object().is_some_and(|fields| {
            fields.keys().any(|name| name == "$ref" || name.starts_with("x-kubernetes-"))
        })
}

/// An object or a list that is written in a text, as tools keep copies in annotations and programs their configuration: `None` if it is
/// none, or nothing in it is secret.
fn embedded(text: &str, depth: usize) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let written: Value = serde_json::from_str(text).ok()?;
    let mut shown = written.clone();
    walk(&mut shown, Hide::Marked, false, depth + 1);
    if shown == written {
        return None;
    }
    if text.contains('\n') { serde_json::to_string_pretty(&shown).ok() } else { Some(shown.to_string()) }
}

/// A text or a whole number, or those of a list, by the name or `below` one. Lists of `secrets` are of their names.
fn hide_field(name: &str, field: &mut Value, below: bool, hide: Hide<'_>) {
    match field {
        Value::String(text) if is_open(text) && (below || secret::is_named(name, text)) => {
            *text = hide.of(text.as_bytes());
        }
        Value::Number(number)
            if number.as_f64().is_some_and(|number| number.fract() == 0.0)
                && secret::is_number_name(name) =>
        {
            let hash = hide.of(number.to_string().as_bytes());
            *field = hash.into();
        }
        Value::Array(items) if below && !name.to_ascii_lowercase().ends_with("secrets") => {
            for item in items {
                // A plural of one number counts; of several it names each.
                let of_one = if item.is_number() { name.strip_suffix('s').unwrap_or(name) } else { name };
                hide_field(of_one, item, below, hide);
            }
        }
        _ => {}
    }
}

/// The text without secrets and without what a terminal obeys; `None` if it is so already.
pub(crate) fn text_of(text: &str) -> Option<String> {
    let shown = printable(text);
    match marked(&shown) {
        None => match shown {
            Cow::Borrowed(_) => None,
            Cow::Owned(shown) => Some(shown),
        },
        hidden => hidden,
    }
}

/// An environment variable: its name and its value are fields beside each other.
fn hide_variable(fields: &mut Map<String, Value>, hide: Hide<'_>) {
    let named = ["name", "key"]
        .iter()
        .any(|field| fields.get(*field).and_then(Value::as_str).is_some_and(secret::is_name));
    let Some(value) = fields.get_mut("value") else { return };
    if let Some(text) = value.as_str().filter(|text| is_open(text) && !secret::is_reference(text))
        && (named || secret::is_blob(text))
    {
        *value = hide.of(text.as_bytes()).into();
    }
}

/// The argument behind an option that is named like a secret: `["--password", "x"]`.
fn hide_following(items: &mut [Value], hide: Hide<'_>) {
    for place in 1..items.len() {
        let option = items[place - 1].as_str().and_then(|before| before.strip_prefix('-'));
        let named = option.is_some_and(|name| !name.contains('=') && secret::is_name(name));
        if named
            && let Some(text) = items[place].as_str().filter(|text| is_open(text) && !text.starts_with("-"))
        {
            items[place] = hide.of(text.as_bytes()).into();
        }
    }
}

#[cfg(test)]
mod tests;
