//! `kubectl explain`, from the API server's OpenAPI v3.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Output,
    kubectl::Kubectl,
    list,
    session::{Session, Trouble},
    text,
};

/// Fields within fields.
const DEPTH: usize = 40;

pub(super) async fn run(session: &Session<'_>, command: &Kubectl) -> Result<Output, Trouble> {
    let word = command.words[0].as_str();
    let resources = session.resources().await?;
    // pods.spec.containers, and deployments.apps: the longest beginning that names a kind.
    let parts: Vec<&str> = word.split('.').collect();
    let wanted = command.arguments.value("api-version");
    let found = (1..=parts.len()).rev().find_map(|count| {
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
    let document: Value = serde_json::from_str(&session.schema(&path, "application/json").await?)
        .map_err(|error| Trouble::said(format!("the API server's description can't be read: {error}")))?;
    let book = Book { schemas: &document["components"]["schemas"] };
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
        .ok_or_else(|| Trouble::said(format!("{} is not described by the API server", resource.kind)))?;
    let mut told = String::new();
    if !resource.group.is_empty() {
        told.push_str(&format!("GROUP:      {}\n", resource.group));
    }
    told.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version));
    match book.field(schema, fields, 0) {
        Some((owner, name, schema)) => {
            if let Some(name) = name {
                told.push_str(&format!("FIELD: {name} <{}>\n", book.kind(owner, 0)));
                if let Some(values) = owner["enum"].as_array() {
                    told.push_str("ENUM:");
                    values.iter().for_each(|value| told.push_str(&format!("\n    {}", enumerated(value))));
                }
                told.push_str("\n\n");
            }
            let description = book.description(schema, 0);
            let description = if description.is_empty() { "<empty>".to_owned() } else { description };
            told.push_str(&format!("DESCRIPTION:\n{}\n", indented(&wrapped(&description, 76), 4)));
            let mut fields = String::new();
            let recursive = command.arguments.has("recursive");
            book.fields(schema, 1, recursive, &mut BTreeSet::new(), &mut fields);
            if !fields.is_empty() {
                told.push_str(&format!("FIELDS:\n{fields}"));
            }
            told.push('\n');
        }
        None => {
            let missing = fields.last().unwrap_or(&"");
            let mut output = Output::of(session.cluster.cleaned_lines(told));
            output.fails(&Trouble::said(format!("field \"{missing}\" does not exist")));
            return Ok(output);
        }
    }
    Ok(Output::of(session.cluster.cleaned_lines(told)))
}

struct Book<'a> {
    schemas: &'a Value,
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
        if depth > DEPTH {
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

    fn description(&self, schema: &'a Value, depth: usize) -> String {
        if depth > DEPTH {
            return String::new();
        }
        let resolved = self.resolved(schema);
        let mut told = match text(resolved, &["description"]) {
            "" => String::new(),
            description => format!("{description}\n"),
        };
        for schema in list(resolved, &["allOf"]) {
            told.push_str(&self.description(schema, depth + 1));
        }
        for through in ["items", "additionalProperties"] {
            if resolved[through].is_object() {
                told.push_str(&self.description(&resolved[through], depth + 1));
            }
        }
        told
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
        if level > DEPTH || (!reference.is_empty() && !seen.insert(reference.clone())) {
            return;
        }
        let resolved = self.resolved(schema);
        let required: Vec<&str> = list(resolved, &["required"]).iter().filter_map(Value::as_str).collect();
        for (name, field) in resolved["properties"].as_object().into_iter().flatten() {
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

    #[test]
    fn a_schema_is_told_field_by_field() {
        let schemas = json!({
            "a.Pod": {"description": "A pod.", "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/a.Spec"}], "description": "Its wishes."}}},
            "a.Spec": {"description": "Wishes.", "type": "object", "required": ["names"], "properties": {
                "names": {"type": "array", "items": {"type": "string"}, "description": "Names."},
                "policy": {"type": "string", "enum": ["A", ""]}, "self": {"$ref": "#/components/schemas/a.Spec"}}},
        });
        let book = Book { schemas: &schemas };
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
