//! Takes out of an answer of the API what only costs room: `managedFields`
//! and kubectl's copy of the last applied object (which can hold secrets of its own).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A JSON object whose values are kept as they were written, so that a large
/// answer is not taken apart in memory.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The answer without those parts; `None` if it is not a JSON object.
pub(crate) fn strip(json: &str) -> Option<String> {
    let mut object: BTreeMap<String, Owned<'_>> = parse(json)?;
    let items =
        object.get("items").and_then(|items| serde_json::from_str::<Vec<&RawValue>>(items.get()).ok());
    match items {
        Some(items) => {
            let stripped: Vec<Box<RawValue>> = items.into_iter().map(strip_object).collect();
            object.insert("items".to_owned(), Owned::New(serde_json::value::to_raw_value(&stripped).ok()?));
            serde_json::to_string(&object).ok()
        }
        None => Some(strip_object(serde_json::from_str(json).ok()?).get().to_owned()),
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}

/// A value as it was written, or a new one.
#[derive(Serialize)]
#[serde(untagged)]
enum Owned<'a> {
    Written(&'a RawValue),
    New(Box<RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Owned<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::Written)
    }
}

impl Owned<'_> {
    fn get(&self) -> &str {
        match self {
            Self::Written(value) => value.get(),
            Self::New(value) => value.get(),
        }
    }
}

/// One object without the two parts; whatever is not shaped like one stays.
fn strip_object(object: &RawValue) -> Box<RawValue> {
    let stripped = || {
        let mut fields: BTreeMap<String, Owned<'_>> = parse(object.get())?;
        let mut metadata: BTreeMap<String, Owned<'_>> = parse(fields.get("metadata")?.get())?;
        metadata.remove("managedFields");
        let annotations = metadata.get("annotations").and_then(|written| {
            let mut annotations: Object<'_> = parse(written.get())?;
            annotations.remove(LAST_APPLIED)?;
            serde_json::value::to_raw_value(&annotations).ok()
        });
        if let Some(annotations) = annotations {
            metadata.insert("annotations".to_owned(), Owned::New(annotations));
        }
        fields.insert("metadata".to_owned(), Owned::New(serde_json::value::to_raw_value(&metadata).ok()?));
        serde_json::value::to_raw_value(&fields).ok()
    };
    stripped().unwrap_or_else(|| object.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stripped(value: Value) -> Value {
        serde_json::from_str(&strip(&value.to_string()).unwrap()).unwrap()
    }

    fn object(name: &str, bloat: bool) -> Value {
        let mut object = json!({
            "kind": "Pod", "apiVersion": "v1", "spec": {"metadata": {"managedFields": "kept"}, "n": 1.50},
            "metadata": {"name": name, "annotations": {"a": "\"b\""}, "labels": null},
        });
        if bloat {
            object["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
            object["metadata"]["annotations"][LAST_APPLIED] = json!("{}");
        }
        object
    }

    #[test]
    fn the_bloat_goes_from_objects_and_from_lists_and_nothing_else_does() {
        assert_eq!(stripped(object("one", true)), object("one", false));
        assert_eq!(stripped(object("one", false)), object("one", false));
        let list = |bloat| {
            let items = [object("a", bloat), json!("odd"), object("b", false), json!({"metadata": 3})];
            json!({"kind": "PodList", "metadata": {"continue": "x"}, "items": items})
        };
        assert_eq!(stripped(list(true)), list(false));
        assert_eq!(
            stripped(json!({"items": "not a list", "major": "1"})),
            json!({"items": "not a list", "major": "1"})
        );
    }

    #[test]
    fn what_is_no_object_is_not_touched() {
        for text in ["ok", "[1]", "{\"cut\": ", ""] {
            assert_eq!(strip(text), None, "{text}");
        }
    }
}
