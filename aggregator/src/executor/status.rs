//! What the API server says when it does not give what was asked for.

use serde::Deserialize;
use serde_json::Value;

/// Its answer in the place of an object.
#[derive(Deserialize)]
pub(super) struct Status {
    pub message: String,
    #[serde(default)]
    pub reason: String,
}

/// The same as far as it names fields, in whatever form.
#[derive(Deserialize)]
struct Causes {
    #[serde(default)]
    details: Value,
}

/// What the API server says of a field that never changes.
const IMMUTABLE: &str = ": field is immutable";

impl Status {
    /// `None` if the text is none. Of an object that it calls invalid it shows values: those of the object as it would be stored,
    /// so also what the cluster keeps of it and who asks did not write. They are left out; fields and reasons stay.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut status: Self = serde_json::from_str(text).ok()?;
        let causes = serde_json::from_str(text).map_or(Value::Null, |Causes { details }| details);
        let causes = causes["causes"].as_array().map_or(&[][..], Vec::as_slice);
        let part = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
        if causes.iter().any(|cause| part(cause, "reason").starts_with("FieldValue")) {
            let said: Vec<String> = causes
                .iter()
                .map(|cause| format!("{}: {}", part(cause, "field"), without_value(&part(cause, "message"))))
                .collect();
            let what = status.message.split_once(" is invalid: ").map_or("the object", |(what, _)| what);
            status.message = match &said[..] {
                [one] => format!("{what} is invalid: {one}"),
                all => format!("{what} is invalid: [{}]", all.join(", ")),
            };
        }
        Some(status)
    }
}

/// What is said of a field, such as `Invalid value: -1: must be greater than or equal to 0`, without the value. Behind the first line,
/// if there is more, is what changes in the object.
fn without_value(said: &str) -> String {
    let said = said.lines().next().unwrap_or_default();
    let shows_value =
        ["Invalid value: ", "Unsupported value: ", "Duplicate value: ", "Not found: ", "Too many: "];
    let Some(kind) = shows_value.into_iter().find(|kind| said.starts_with(kind)) else {
        return said.to_owned();
    };
    let value = &said[kind.len()..];
    let end = match value.strip_prefix('"') {
        Some(text) => quoted(text).map(|length| 1 + length),
        None => {
            let end = value.find(": ").unwrap_or(value.len());
            let value = &value[..end];
            let is_plain = value.parse::<f64>().is_ok() || matches!(value, "true" | "false" | "null");
            is_plain.then_some(end)
        }
    };
    // Where the end of a value is not sure, all that is behind may be of it.
    let why = match end.map(|end| &value[end..]) {
        Some(why) if why.is_empty() || why.starts_with(": ") => why,
        _ if said.ends_with(IMMUTABLE) => IMMUTABLE,
        _ => "",
    };
    format!("{}{why}", kind.trim_end_matches(": "))
}

/// The length of a text as Go quotes it, behind its first quote, with its last.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (place, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(place + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(message: &str, causes: &[(&str, &str, &str)]) -> String {
        let causes: Vec<Value> = causes
            .iter()
            .map(|(reason, field, message)| json!({"reason": reason, "field": field, "message": message}))
            .collect();
        let status =
            json!({"kind": "Status", "message": message, "reason": "Invalid", "details": {"causes": causes}});
        Status::read(&status.to_string()).unwrap().message
    }

    #[test]
    fn a_change_that_is_not_allowed_is_told_without_what_changes() {
        let why = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`";
        let diff = "\n  core.PodSpec{\n  \t... // 1 field\n- \tValue: \"hunter2\",\n+ \tValue: \"x\",\n  }\n";
        let message = format!("Pod \"p\" is invalid: spec: {why}{diff}");
        assert_eq!(
            told(&message, &[("FieldValueForbidden", "spec", &format!("{why}{diff}"))]),
            format!("Pod \"p\" is invalid: spec: {why}")
        );
    }

    #[test]
    fn values_of_the_object_as_it_would_be_are_left_out_and_reasons_stay() {
        for (said, shown) in [
            (
                "Invalid value: -1: must be greater than or equal to 0",
                "Invalid value: must be greater than or equal to 0",
            ),
            ("Invalid value: \"hun\\\"t: er2\": must be short", "Invalid value: must be short"),
            ("Invalid value: \"hunter2", "Invalid value"),
            (
                "Invalid value: {\"env\":[{\"value\":\"hunter2\"}]}: field is immutable",
                "Invalid value: field is immutable",
            ),
            (
                "Invalid value: core.PodSpec{Env:[]core.EnvVar{Value:\"a}: hunter2\"}}: must not be",
                "Invalid value",
            ),
            (
                "Invalid value: &PodSpec{Env:[]EnvVar{EnvVar{Value:hunter2,},},}: field is immutable",
                "Invalid value: field is immutable",
            ),
            ("Invalid value: true: may not be set", "Invalid value: may not be set"),
            ("Invalid value: 5", "Invalid value"),
            ("Invalid value: hunter2: or not: no", "Invalid value"),
            (
                "Unsupported value: \"hunter2\": supported values: \"red\", \"blue\"",
                "Unsupported value: supported values: \"red\", \"blue\"",
            ),
            ("Duplicate value: \"hunter2\"", "Duplicate value"),
            ("Duplicate value: {\"name\":\"hunter2\"}", "Duplicate value"),
            ("Too many: 5: must have at most 3 items", "Too many: must have at most 3 items"),
            ("Required value", "Required value"),
            ("Too long: may not be more than 5 bytes", "Too long: may not be more than 5 bytes"),
        ] {
            assert_eq!(without_value(said), shown);
        }
        let causes = [
            ("FieldValueRequired", "a", "Required value"),
            ("FieldValueInvalid", "b", "Invalid value: \"hunter2\": no"),
        ];
        assert_eq!(
            told("W \"w\" is invalid: [a: Required value, b: Invalid value: \"hunter2\": no]", &causes),
            "W \"w\" is invalid: [a: Required value, b: Invalid value: no]"
        );
    }

    #[test]
    fn what_names_no_field_is_told_as_it_is() {
        for causes in
            [json!(null), json!({}), json!({"causes": null}), json!({"causes": [{"message": "a: \"b\""}, 5]})]
        {
            let status = json!({"message": "a: \"b\"\nc", "details": causes});
            let Status { message, reason } = Status::read(&status.to_string()).unwrap();
            assert_eq!((message.as_str(), reason.as_str()), ("a: \"b\"\nc", ""));
        }
        assert!(Status::read("no object").is_none() && Status::read(r#"{"kind": "Status"}"#).is_none());
    }

    proptest! {
        #[test]
        fn no_value_is_told_whatever_is_in_it(value in "hunter2(\\PC|[\"\\\\:}\n]|: |field is immutable){0,20}", is_text: bool) {
            let value = if is_text { format!("{value:?}") } else { format!("&Env{{{value},}}") };
            let shown = without_value(&format!("Invalid value: {value}: field is immutable"));
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}
