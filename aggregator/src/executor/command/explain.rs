//! `kubectl explain`, from the API server's OpenAPI v3.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Output,
    discovery::Resource,
    is_full,
    kubectl::Kubectl,
    list,
    session::{Session, Trouble},
    text,
    work::Work,
};

/// Fields within fields.
const DEPTH: usize = 40;
/// Of the name of a kind with its version and group.
const PARTS: usize = 16;

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let word = command.words[0].as_str();
    let resources = session.resources().await?;
    // pods.spec.containers, and deployments.apps: the longest beginning that names a kind.
    let parts: Vec<&str> = word.split('.').collect();
    let wanted = command.arguments.value("api-version");
    let found = (1..=parts.len().min(PARTS)).rev().find_map(|count| {
        let kind = parts[..count].join(".");
        let resource = super::discovery::find(&resources, &kind)?;
        Some((resource.clone(), &parts[count..]))
    });
    let Some((resource, fields)) = found else {
        return Err(Trouble::said(format!("the server doesn't have a resource type \"{}\"", parts[0])));
    };
    let resource = match wanted {
        None => resource,
        Some(version) => resources
            .iter()
            .find(|known| known.name == resource.name && known.group_version() == version)
            .cloned()
            .ok_or_else(|| {
                Trouble::said(format!("couldn't find resource for \"{version}, Kind={}\"", resource.kind))
            })?,
    };
    let path = match resource.group.as_str() {
        "" => format!("/openapi/v3/api/{}", resource.version),
        group => format!("/openapi/v3/apis/{group}/{}", resource.version),
    };
    let (document, recursive) =
        (session.schema(&path, "application/json").await?, command.arguments.has("recursive"));
    let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
    let told = session.apart(move |work| told(&document, &resource, &fields, recursive, work)).await?;
    let (told, missing) = told.map_err(Trouble::Said)?;
    let mut output = Output::of(session.cluster.cleaned_lines(told));
    if let Some(missing) = missing {
        output.fails(&Trouble::said(format!("field \"{missing}\" does not exist")));
    }
    Ok(output)
}

/// What a description of kinds says of one of them, or of a field of it; and that field, if there is none.
fn told(
    document: &str,
    resource: &Resource,
    fields: &[String],
    recursive: bool,
    work: &Work,
) -> Result<(String, Option<String>), String> {
    let document: Value = serde_json::from_str(document)
        .map_err(|error| format!("the API server's description can't be read: {error}"))?;
    let book = Book { schemas: &document["components"]["schemas"], work };
    let schema = book
        .schemas
        .as_object()
        .into_iter()
        .flat_map(|schemas| schemas.values())
        .find(|schema| {
            list(schema, &["x-kubernetes-group-version-kind"]).iter().any(|kind| {
                text(kind, &["group"]) == resource.group
                    && text(kind, &["version"]) == resource.version
                    && text(kind, &["kind"]) == resource.kind
            })
        })
        .ok_or_else(|| format!("{} is not described by the API server", resource.kind))?;
    let mut told = String::new();
    if !resource.group.is_empty() {
        told.push_str(&format!("GROUP:      {}\n", resource.group));
    }
    told.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version));
    let path: Vec<&str> = fields.iter().map(String::as_str).collect();
    let missing = match book.field(schema, &path, 0) {
        Some((owner, name, schema)) => {
            if let Some(name) = name {
                told.push_str(&format!("FIELD: {name} <{}>\n", book.kind(owner, 0)));
                if let Some(values) = owner["enum"].as_array() {
                    told.push_str("ENUM:");
                    values.iter().for_each(|value| told.push_str(&format!("\n    {}", enumerated(value))));
                }
                told.push_str("\n\n");
            }
            let mut description = String::new();
            book.description(schema, 0, &mut description);
            let description = if description.is_empty() { "<empty>" } else { &description };
            told.push_str(&format!("DESCRIPTION:\n{}\n", indented(&wrapped(description, 76), 4)));
            let mut fields = String::new();
            book.fields(schema, 1, recursive, &mut BTreeSet::new(), &mut fields);
            if !fields.is_empty() {
                told.push_str(&format!("FIELDS:\n{fields}"));
            }
            told.push('\n');
            None
        }
        None => Some(fields.last().cloned().unwrap_or_default()),
    };
    // What was not come to is not missing.
    work.take(0)?;
    Ok((told, missing))
}

struct Book<'a> {
    schemas: &'a Value,
    /// Kinds that refer to others multiply.
    work: &'a Work,
}

impl<'a> Book<'a> {
    /// What a reference leads to; without one, the schema itself.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/")) {
            Some(name) => self.schemas.get(name).unwrap_or(schema),
            None => schema,
        }
    }

    /// A field below a schema: its own schema with its name, and what it is of.
    fn field<'n>(
        &self,
        schema: &'a Value,
        path: &[&'n str],
        depth: usize,
    ) -> Option<(&'a Value, Option<&'n str>, &'a Value)> {
        if depth > DEPTH || self.work.take(1).is_err() {
            return None;
        }
        let resolved = self.resolved(schema);
        let Some((first, rest)) = path.split_first() else { return Some((schema, None, schema)) };
        if let Some(inner) = resolved["properties"].get(*first) {
            return match rest {
                [] => Some((inner, Some(*first), inner)),
                rest => self.field(inner, rest, depth + 1),
            };
        }
        for through in ["items", "additionalProperties"] {
            if resolved[through].is_object() {
                return self.field(&resolved[through], path, depth + 1);
            }
        }
        list(resolved, &["allOf"]).iter().find_map(|schema| self.field(schema, path, depth + 1))
    }

    fn description(&self, schema: &'a Value, depth: usize, told: &mut String) {
        if depth > DEPTH || is_full(told) || self.work.take(1).is_err() {
            return;
        }
        let resolved = self.resolved(schema);
        match text(resolved, &["description"]) {
            "" => {}
            description => told.extend([description, "\n"]),
        }
        for schema in list(resolved, &["allOf"]) {
            self.description(schema, depth + 1, told);
        }
        for through in ["items", "additionalProperties"] {
            if resolved[through].is_object() {
                self.description(&resolved[through], depth + 1, told);
            }
        }
    }

    fn fields(
        &self,
        schema: &'a Value,
        level: usize,
        recursive: bool,
        seen: &mut BTreeSet<String>,
        told: &mut String,
    ) {
        let reference = text(schema, &["$ref"]).to_owned();
        if level > DEPTH
            || self.work.take(1).is_err()
            || (!reference.is_empty() && !seen.insert(reference.clone()))
        {
            return;
        }
        let resolved = self.resolved(schema);
        let required: Vec<&str> = list(resolved, &["required"]).iter().filter_map(Value::as_str).collect();
        for (name, field) in resolved["properties"].as_object().into_iter().flatten() {
            if is_full(told) || self.work.take(required.len() + 1).is_err() {
                break;
            }
            let indent = level * 2;
            let must = if required.contains(&name.as_str()) { " -required-" } else { "" };
            told.push_str(&format!("{}{name}\t<{}>{must}", " ".repeat(indent), self.kind(field, 0)));
            if let Some(values) = field["enum"].as_array() {
                let mut shown: Vec<String> = values.iter().take(4).map(enumerated).collect();
                if values.len() > 4 {
                    shown.push("....".to_owned());
                }
                told.push_str(&format!("\n{}enum: {}", " ".repeat(indent), shown.join(", ")));
            }
            told.push('\n');
            if recursive {
                self.fields(field, level + 1, recursive, seen, told);
                continue;
            }
            let description = match text(field, &["description"]) {
                "" => "<no description>",
                description => description,
            };
            told.push_str(&format!("{}\n\n", indented(&wrapped(description, 78 - indent), indent + 2)));
        }
        for schema in list(resolved, &["allOf"]) {
            self.fields(schema, level, recursive, seen, told);
        }
        for through in ["items", "additionalProperties"] {
            if resolved[through].is_object() {
                self.fields(&resolved[through], level, recursive, seen, told);
            }
        }
        // A kind may occur again elsewhere, only not within itself.
        seen.remove(&reference);
    }

    /// Such as `string`, `[]Container`, `map[string]string`.
    fn kind(&self, schema: &'a Value, depth: usize) -> String {
        let all_of = list(schema, &["allOf"]);
        if depth > DEPTH {
            return "Object".to_owned();
        }
        if schema["items"].is_object() {
            return format!("[]{}", self.kind(&schema["items"], depth + 1));
        }
        if schema["additionalProperties"].is_object() {
            return format!("map[string]{}", self.kind(&schema["additionalProperties"], depth + 1));
        }
        if let ([only], true) = (all_of, schema["properties"].is_null()) {
            return self.kind(only, depth + 1);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let kind = text(self.resolved(schema), &["type"]);
            return match kind {
                "" | "object" => reference.rsplit(['/', '.']).next().unwrap_or("Object").to_owned(),
                kind => kind.to_owned(),
            };
        }
        match text(schema, &["type"]) {
            "" | "object" => "Object".to_owned(),
            kind => kind.to_owned(),
        }
    }
}

fn enumerated(value: &Value) -> String {
    match value.as_str() {
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

fn indented(text: &str, indent: usize) -> String {
    let blanks = " ".repeat(indent);
    format!("{blanks}{}", text.replace('\n', &format!("\n{blanks}")))
}

/// Words in lines of at most so many characters; lines that end stay so.
fn wrapped(text: &str, width: usize) -> String {
    let lines = text.split('\n').map(|line| {
        let (mut out, mut column) = (String::new(), 0);
        for (place, word) in line.split(' ').enumerate() {
            let length = word.chars().count();
            if place > 0 {
                if column + 1 + length > width {
                    out.push('\n');
                    column = 0;
                } else {
                    out.push(' ');
                    column += 1;
                }
            }
            out.push_str(word);
            column += length;
        }
        out
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::executor::command::{discovery::of_version, work::Stop};

    #[test]
    fn kinds_that_refer_twice_to_the_next_one_come_to_an_end() {
        let all_of = |n: usize| vec![json!({"$ref": format!("#/components/schemas/k{n}")}); 2];
        let mut schemas: serde_json::Map<String, Value> =
            (0..40).map(|n| (format!("k{n}"), json!({"allOf": all_of(n + 1)}))).collect();
        schemas["k0"]["x-kubernetes-group-version-kind"] =
            json!([{"group": "", "version": "v1", "kind": "K"}]);
        let document = json!({"components": {"schemas": schemas}}).to_string();
        let list = r#"{"resources":[{"name":"ks","singularName":"k","namespaced":true,"kind":"K","verbs":["get"]}]}"#;
        let resource = &of_version(list, "", "v1")[0];
        for fields in [&[][..], &["nothing".to_owned()]] {
            let work = Work::until(Stop::at_look(5000));
            assert!(told(&document, resource, fields, true, &work).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn a_schema_is_told_field_by_field() {
        let schemas = json!({
            "a.Pod": {"description": "A pod.", "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/a.Spec"}], "description": "Its wishes."}}},
            "a.Spec": {"description": "Wishes.", "type": "object", "required": ["names"], "properties": {
                "names": {"type": "array", "items": {"type": "string"}, "description": "Names."},
                "policy": {"type": "string", "enum": ["A", ""]}, "self": {"$ref": "#/components/schemas/a.Spec"}}},
        });
        let work = Work::until(Stop::default());
        let book = Book { schemas: &schemas, work: &work };
        let (owner, name, schema) = book.field(&schemas["a.Pod"], &["spec"], 0).unwrap();
        assert_eq!((book.kind(owner, 0).as_str(), name), ("Spec", Some("spec")));
        let mut told = String::new();
        book.fields(schema, 1, false, &mut BTreeSet::new(), &mut told);
        assert_eq!(
            told,
            "  names\t<[]string> -required-\n    Names.\n\n  policy\t<string>\n  enum: A, \"\"\n    <no description>\n\n  self\t<Spec>\n    <no description>\n\n"
        );
        let mut all = String::new();
        book.fields(schema, 1, true, &mut BTreeSet::new(), &mut all);
        assert_eq!(
            all,
            "  names\t<[]string> -required-\n  policy\t<string>\n  enum: A, \"\"\n  self\t<Spec>\n"
        );
        assert!(book.field(&schemas["a.Pod"], &["spec", "nothing"], 0).is_none());
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
    }
}
