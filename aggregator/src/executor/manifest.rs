//! Manifests as people write them: YAML, taken apart into documents, each with the line on which it begins, within bounds
//! that no anchor and no nesting gets past; and the lines of the fields that a verdict names.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use super::{
    query::is_label,
    reason::{Reason, Refused},
    refusal::MANIFEST_BYTES,
};

/// Documents in one manifest.
const DOCUMENTS: usize = 100;
/// Values in a document, with those that aliases repeat …
const NODES: usize = 100_000;
/// … and bytes of its texts, likewise.
const SCALAR_BYTES: usize = 2 * MANIFEST_BYTES;
/// Of them, what a document may have whatever its length; beyond that it is its length that counts, as all documents of a
/// manifest are understood at once.
const FREE: (usize, usize) = (1000, 64 * 1024);
/// A document is not nested deeper.
const DEPTH: usize = 64;
/// Fields of one verdict whose lines are told.
const PLACES: usize = 5;
/// What etcd lets an object be called.
const NAME_BYTES: usize = 253;

/// A document of a manifest.
#[derive(Debug)]
pub(super) struct Document {
    /// Its first line that says anything, counted in the manifest from 1; where it is not understood, the line that is not.
    pub line: usize,
    pub object: Result<Object, Refused>,
    text: String,
    /// Lines of the manifest before `text`.
    before: usize,
    /// Among several, counted from 1.
    number: Option<usize>,
}

/// What a document describes.
#[derive(Debug, PartialEq)]
pub(super) struct Object {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// Empty where it names none.
    pub namespace: String,
    pub value: Value,
}

/// Takes a manifest apart; documents that say nothing are left out.
///
/// # Errors
/// It is too large, has too many documents, or none.
pub(super) fn read(text: &str) -> Result<Vec<Document>, Refused> {
    let too_large = |why| Err(Refused::new(Reason::TooLarge, why));
    if text.len() > MANIFEST_BYTES {
        return too_large(format!("a manifest of {} bytes is larger than {MANIFEST_BYTES}", text.len()));
    }
    let parts = split(text);
    if parts.len() > DOCUMENTS {
        return too_large(format!(
            "{} documents are more than a manifest may have, {DOCUMENTS}",
            parts.len()
        ));
    }
    if parts.is_empty() {
        return Err(Refused::new(Reason::Malformed, "the manifest is empty"));
    }
    let several = parts.len() > 1;
    let read = |(number, (before, text))| Document::read(several.then_some(number), before, text);
    Ok((1..).zip(parts).map(read).collect())
}

/// One YAML document, within the bounds.
///
/// # Errors
/// It is none, or gets past them.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    // Without aliases a value takes two bytes or more.
    let nodes = NODES.min(FREE.0 + text.len() / 2);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_nodes: nodes,
            max_events: 4 * nodes,
            max_total_scalar_bytes: SCALAR_BYTES.min(FREE.1 + 4 * text.len()),
        },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The documents of a text that say anything, each with the number of lines before it.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut begin, mut before, mut offset) = (Vec::new(), 0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            parts.push((before, &text[begin..offset]));
            // What stands behind the mark belongs to the document.
            (begin, before) = (offset + "---".len(), number);
        }
        offset += line.len();
    }
    parts.push((before, &text[begin..]));
    parts.retain(|(_, text)| text.lines().any(says));
    parts
}

/// It is neither blank nor a comment.
fn says(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

impl Document {
    fn read(number: Option<usize>, before: usize, text: &str) -> Self {
        let first = before + 1 + text.lines().position(says).unwrap_or_default();
        let (line, object) = match parse::<Value>(text) {
            Ok(value) => (first, Object::of(value)),
            Err(error) => {
                let line = error.location().and_then(|place| usize::try_from(place.line()).ok());
                let what = error.without_snippet();
                let why = format!("this is not YAML: {}", UserMessageFormatter.format_message(what));
                (line.map_or(first, |line| before + line), Err(Refused::new(Reason::Malformed, why)))
            }
        };
        Self { line, object, text: text.to_owned(), before, number }
    }

    /// What stands before a message about it: `document 2, line 14 (spec.replicas): `.
    pub(super) fn place(&self, message: &str) -> String {
        let number = self.number.map_or_else(String::new, |number| format!("document {number}, "));
        let fields: Vec<String> =
            self.places(message).iter().map(|(line, field)| format!("line {line} ({field})")).collect();
        match fields[..] {
            [] => format!("{number}line {}: ", self.line),
            _ => format!("{number}{}: ", fields.join(", ")),
        }
    }

    /// The fields that a message of the API server names and that stand in this document, such as
    /// `spec.containers[0].image`, each with its line.
    fn places(&self, message: &str) -> Vec<(usize, String)> {
        let Ok(root) = parse::<Place>(&self.text) else { return Vec::new() };
        let mut places: Vec<(usize, String)> = Vec::new();
        for word in message.split_whitespace() {
            let mut field = word
                .trim_start_matches(['[', '(', '"', '\'', '.'])
                .trim_end_matches([':', ',', '.', ';', ')', '"', '\'']);
            // Of a list of causes in brackets.
            if field.ends_with(']') && field.matches(']').count() > field.matches('[').count() {
                field = &field[..field.len() - 1];
            }
            if !field.contains(['.', '[']) || places.iter().any(|(_, known)| known == field) {
                continue;
            }
            if let Some(line) = root.line(field) {
                places.push((self.before + line, field.to_owned()));
            }
            if places.len() == PLACES {
                break;
            }
        }
        places
    }
}

impl Object {
    fn of(value: Value) -> Result<Self, Refused> {
        let text = |path: &[&str]| {
            path.iter().fold(&value, |value, field| &value[*field]).as_str().unwrap_or_default().to_owned()
        };
        let malformed = |why: String| Err(Refused::new(Reason::Malformed, why));
        let (api_version, kind) = (text(&["apiVersion"]), text(&["kind"]));
        let (name, namespace) = (text(&["metadata", "name"]), text(&["metadata", "namespace"]));
        if api_version.is_empty() || kind.is_empty() {
            return malformed("apiVersion and kind say what it is, and must be there".to_owned());
        }
        if kind == "List" && api_version == "v1" {
            return malformed("a List is no object: write its items as documents of their own".to_owned());
        }
        // Such as names of roles, with colons in them.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if !(1..=NAME_BYTES).contains(&name.len()) || !name.bytes().all(fits) || name == "." || name == ".." {
            return malformed(format!(
                "metadata.name is {name:?}, and must be the name of an object (generateName is not tried)"
            ));
        }
        if !namespace.is_empty() && !is_label(&namespace) {
            return malformed(format!(
                "metadata.namespace is {namespace:?}, which is not the name of a namespace"
            ));
        }
        if kind == "Secret" && api_version == "v1" {
            let why = "Secrets are not tried: whether a value is that of one in the cluster would be told";
            return Err(Refused::new(Reason::Secret, why));
        }
        Ok(Self { api_version, kind, name, namespace, value })
    }
}

/// Where the parts of a document stand: lines, counted from 1.
enum Place {
    /// A value, as it was written.
    Value(String),
    Fields(BTreeMap<String, (usize, Self)>),
    Items(Vec<(usize, Self)>),
}

impl Place {
    /// The line of the deepest part of a field's path that is there; `None` if not even its first one is.
    fn line(&self, field: &str) -> Option<usize> {
        let (mut place, mut rest, mut found) = (self, field, None);
        while !rest.is_empty() {
            let next = match (place, rest.strip_prefix('[').and_then(|inside| inside.split_once(']'))) {
                (Self::Items(items), Some((inside, after))) => {
                    rest = after;
                    match inside.parse::<usize>() {
                        Ok(number) => items.get(number),
                        Err(_) => items.iter().find(|(_, item)| item.is(inside)),
                    }
                }
                (Self::Fields(fields), Some((name, after))) => {
                    rest = after;
                    fields.get(name.trim_matches('"'))
                }
                // The longest, since names have dots too.
                (Self::Fields(fields), None) => {
                    rest = rest.trim_start_matches('.');
                    let ends = |after: &str| after.is_empty() || after.starts_with(['.', '[']);
                    let named =
                        fields.iter().filter(|(name, _)| rest.strip_prefix(name.as_str()).is_some_and(ends));
                    named.max_by_key(|(name, _)| name.len()).map(|(name, next)| {
                        rest = &rest[name.len()..];
                        next
                    })
                }
                _ => None,
            };
            let Some((line, next)) = next else { break };
            (found, place) = (Some(*line), next);
        }
        found
    }

    /// Whether it has the fields of a key such as `name="app"` or `port=80,protocol="TCP"`.
    fn is(&self, key: &str) -> bool {
        let Self::Fields(fields) = self else { return false };
        key.split(',').all(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            matches!(fields.get(name), Some((_, Self::Value(written))) if written == value.trim_matches('"'))
        })
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Places)
    }
}

struct Places;

impl<'de> Visitor<'de> for Places {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Place, E> {
        Ok(Place::Value(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Place, E> {
        Ok(Place::Value(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Place, E> {
        Ok(Place::Value(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Place, E> {
        Ok(Place::Value(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Place, E> {
        Ok(Place::Value(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Place, E> {
        Ok(Place::Value(String::new()))
    }

    fn visit_none<E>(self) -> Result<Place, E> {
        Ok(Place::Value(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Place, A::Error> {
        let mut places = Vec::new();
        while let Some(Spanned { value, referenced, .. }) = items.next_element::<Spanned<Place>>()? {
            places.push((usize::try_from(referenced.line()).unwrap_or_default(), value));
        }
        Ok(Place::Items(places))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Place, A::Error> {
        let mut places = BTreeMap::new();
        while let Some((name, place)) = fields.next_entry::<Spanned<String>, Place>()? {
            places.insert(name.value, (usize::try_from(name.referenced.line()).unwrap_or_default(), place));
        }
        Ok(Place::Fields(places))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_told_by_the_line_on_which_they_begin() {
        let text = "# head\n---\na: 1\n---\n\n# nothing\n--- \nb: |\n  ---\n  x\n...\nc: 3\n--- {d: 4}\n---";
        let found: Vec<(usize, &str)> = split(text);
        assert_eq!(
            found,
            [(1, "\na: 1\n"), (6, " \nb: |\n  ---\n  x\n"), (10, "\nc: 3\n"), (12, " {d: 4}\n")]
        );
        let lines: Vec<usize> = read(text).unwrap().iter().map(|document| document.line).collect();
        assert_eq!(lines, [3, 8, 12, 13]);
        for nothing in ["", "\n", "---\n---\n", "# only\n---\n# this"] {
            assert_eq!(read(nothing).unwrap_err().reason, Reason::Malformed, "{nothing:?}");
        }
    }

    /// The object of a manifest of one document.
    fn object(text: &str) -> Result<Object, (usize, String)> {
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 1);
        let document = documents.remove(0);
        document.object.map_err(|refused| (document.line, refused.to_string()))
    }

    #[test]
    fn what_is_no_object_is_said_with_its_line() {
        let good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {yes: 'no'}\n";
        let read = object(good).unwrap();
        assert_eq!((read.api_version.as_str(), read.kind.as_str()), ("v1", "ConfigMap"));
        assert_eq!(
            (read.name.as_str(), read.namespace.as_str(), &read.value["data"]["yes"]),
            ("a", "b", &"no".into())
        );
        for (text, line, part) in [
            ("a: 1", 1, "apiVersion and kind"),
            ("# x\n\n- a\n", 3, "apiVersion and kind"),
            ("# x\n---\na: b: c\n", 3, "this is not YAML"),
            ("# x\n---\na: 1\nb: 2\na: 3\n", 5, "this is not YAML"),
            ("a: [1\nb: 2\n", 2, "this is not YAML"),
            ("a: *nowhere\n", 1, "this is not YAML"),
            (&good.replace("name: a", "name: ../x"), 1, "metadata.name is \"../x\""),
            (&good.replace("name: a, ", "generateName: a, "), 1, "generateName is not tried"),
            (&good.replace("namespace: b", "namespace: b/c"), 1, "metadata.namespace is"),
            (&good.replace("ConfigMap", "List"), 1, "a List is no object"),
        ] {
            let (at, why) = object(text).unwrap_err();
            assert!(
                at == line && why.starts_with("refused (malformed): ") && why.contains(part),
                "{text:?}: {at}: {why}"
            );
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            laughs.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 9].join(", "));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let many = format!("[{}]", "1,".repeat(NODES + 1));
        for text in [&laughs, &long, &deep, &many, "a: &a [*a]"] {
            let (_, why) = object(text).unwrap_err();
            assert!(why.contains("this is not YAML"), "{why}");
        }
        assert_eq!(read(&"a: 1\n---\n".repeat(101)).unwrap_err().reason, Reason::TooLarge);
        assert_eq!(read(&"a".repeat(MANIFEST_BYTES + 1)).unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn what_aliases_repeat_has_a_bound_for_all_documents_together() {
        let lists = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n";
        let read = |text: &str| parse::<Value>(text).map_err(|error| error.without_snippet().to_string());
        assert!(read(lists).is_ok(), "some are of use");
        let more =
            format!("{lists}c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c]\n");
        assert!(read(&more).is_err());
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a,".repeat(100));
        assert!(read(&text).is_err());
    }

    #[test]
    fn a_field_that_is_named_is_found() {
        let text = "# a head\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  labels:\n    app.kubernetes.io/name: web\n\
                    spec:\n  replicas: -1\n  template:\n    spec:\n      containers:\n        - name: side\n        - name: app\n          image: x\n          ports:\n            \
                    - {containerPort: 80, protocol: TCP}\n";
        let document = &read(text).unwrap()[0];
        let lines = |message: &str| -> Vec<usize> {
            document.places(message).into_iter().map(|(line, _)| line).collect()
        };
        for (message, expected) in [
            (
                "Deployment.apps \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater",
                &[10][..],
            ),
            (
                "is invalid: [spec.replicas: Invalid value, spec.template.spec.containers[1].image: Required value]",
                &[10, 16],
            ),
            (
                "(shop/web; apps/v1, Kind=Deployment): .spec.template.spec.containers[name=\"app\"].imag: field not declared",
                &[15],
            ),
            (
                ".spec.template.spec.containers[name=\"app\"].ports[containerPort=80,protocol=\"TCP\"].protocol",
                &[18],
            ),
            ("unknown field \"spec.template.spec.containers[0].nam\"", &[14]),
            ("metadata.labels: Invalid value", &[7]),
            (".metadata.labels.app.kubernetes.io/name", &[8]),
            ("spec.selector: Required value", &[9]),
            ("the server is away. Ask later", &[]),
        ] {
            assert_eq!(lines(message), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_it_is_read_within_the_bounds(text in "([ \\n\\-:a-z\\[\\]{}&*!|>'\"#%]|---\n|apiVersion: v1\n|kind: A\n|\\PC){0,60}") {
            if let Ok(documents) = read(&text) {
                let lines = text.lines().count().max(1);
                for document in &documents {
                    prop_assert!((1..=lines + 1).contains(&document.line), "{} of {}", document.line, lines);
                    let _no_panic = document.places("spec.a[0].b: x .metadata.name [a[b=\"c\"]]");
                }
            }
        }
    }
}
