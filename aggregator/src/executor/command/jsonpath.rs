//! kubectl's JSONPath: templates of `{…}` with text between them.

use std::{cell::Cell, cmp::Ordering};

use serde_json::Value;

use super::json_text;
use crate::executor::reason::{Reason, Refused};

/// Values in the steps of one expression, and nodes of all: no object of the API needs more.
const VALUES: usize = 200_000;
const NODES: usize = 500;
/// Values that are looked at for one template: ranges within ranges multiply.
const WORK: usize = 3_000_000;
const TEMPLATE_BYTES: usize = 8 * 1024;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    actions: Vec<Action>,
    /// What is not there is nothing, instead of an error.
    missing_is_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Text(String),
    Path(Vec<Node>),
    Range(Vec<Node>),
    End,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Number(f64),
    Truth(bool),
    Field(String),
    Slice { from: Option<i64>, to: Option<i64>, step: Option<i64>, one: bool },
    Wildcard,
    Recursive,
    Union(Vec<Vec<Node>>),
    Filter(Vec<Node>, Option<(Compare, Vec<Node>)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is none, or too large.
    pub(crate) fn parse(text: &str, missing_is_empty: bool) -> Result<Self, Refused> {
        if text.len() > TEMPLATE_BYTES {
            return Err(Refused::new(Reason::TooLarge, "the template is longer than 8 KiB"));
        }
        let (mut actions, mut rest, mut open) = (Vec::new(), text, 0_usize);
        while let Some(place) = rest.find('{') {
            if place > 0 {
                actions.push(Action::Text(rest[..place].to_owned()));
            }
            let (inner, after) = enclosed(&rest[place + 1..])?;
            rest = after;
            let trimmed = inner.trim();
            if trimmed == "end" {
                open =
                    open.checked_sub(1).ok_or_else(|| malformed("there is no range that {end} could end"))?;
                actions.push(Action::End);
            } else if let Some(path) =
                trimmed.strip_prefix("range").filter(|path| path.starts_with([' ', '.', '@', '[', '$']))
            {
                open += 1;
                actions.push(Action::Range(nodes(path, 0)?));
            } else {
                actions.push(Action::Path(nodes(trimmed, 0)?));
            }
        }
        if rest.contains('}') && actions.is_empty() {
            return Err(malformed("a brace is closed that was not opened"));
        }
        if !rest.is_empty() {
            actions.push(Action::Text(rest.to_owned()));
        }
        if open > 0 {
            return Err(malformed("a range has no {end}"));
        }
        if actions.len() > NODES {
            return Err(Refused::new(Reason::TooLarge, "the template has too many parts"));
        }
        Ok(Self { actions, missing_is_empty })
    }

    /// The one path of a column or of `--sort-by`: `{.a.b}`, `.a.b` or `a.b`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn relaxed(text: &str) -> Result<Self, Refused> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('.').unwrap_or(inner);
        if inner.contains(['{', '}']) || inner.is_empty() {
            return Err(malformed("a path is such as .metadata.name or {.metadata.name}"));
        }
        let dot = if inner.starts_with('[') { "" } else { "." };
        Self::parse(&format!("{{{dot}{inner}}}"), true)
    }

    /// What the template shows of an object.
    ///
    /// # Errors
    /// A sentence as kubectl says it.
    pub(crate) fn show(&self, object: &Value) -> Result<String, String> {
        let mut shown = String::new();
        self.run(&self.actions, object, &mut shown, &Cell::new(WORK))?;
        Ok(shown)
    }

    /// The values that the first path of the template finds.
    ///
    /// # Errors
    /// A sentence as kubectl says it.
    pub(crate) fn values<'a>(&self, object: &'a Value) -> Result<Vec<&'a Value>, String> {
        let Some(Action::Path(path)) = self.actions.first() else { return Ok(Vec::new()) };
        let found = self.walk(vec![Found::Of(object)], path, &Cell::new(WORK))?;
        Ok(found
            .into_iter()
            .filter_map(|found| match found {
                Found::Of(value) => Some(value),
                Found::Made(_) => None,
            })
            .collect())
    }

    fn run(
        &self,
        actions: &[Action],
        object: &Value,
        shown: &mut String,
        left: &Cell<usize>,
    ) -> Result<(), String> {
        let mut place = 0;
        while let Some(action) = actions.get(place) {
            match action {
                Action::Text(text) => shown.push_str(text),
                Action::Path(path) => {
                    let found = self.walk(vec![Found::Of(object)], path, left)?;
                    let texts: Vec<String> = found.iter().map(Found::text).collect();
                    shown.push_str(&texts.join(" "));
                }
                Action::Range(path) => {
                    let end = matching_end(actions, place);
                    for found in self.walk(vec![Found::Of(object)], path, left)? {
                        if shown.len() > super::OUTPUT_BYTES {
                            return Err("the output is too large".to_owned());
                        }
                        if let Found::Of(value) = found {
                            self.run(&actions[place + 1..end], value, shown, left)?;
                        }
                    }
                    place = end;
                }
                Action::End => {}
            }
            place += 1;
        }
        Ok(())
    }

    fn walk<'a>(
        &self,
        mut found: Vec<Found<'a>>,
        path: &[Node],
        left: &Cell<usize>,
    ) -> Result<Vec<Found<'a>>, String> {
        for node in path {
            found = self.step(found, node, left)?;
            let work = left.get().checked_sub(found.len() + 1);
            left.set(work.ok_or("the template looks at too many values")?);
            if found.len() > VALUES {
                return Err(format!("the path finds more than {VALUES} values"));
            }
        }
        Ok(found)
    }

    fn step<'a>(
        &self,
        found: Vec<Found<'a>>,
        node: &Node,
        left: &Cell<usize>,
    ) -> Result<Vec<Found<'a>>, String> {
        let objects = || {
            found.iter().filter_map(|found| match found {
                Found::Of(value) if !value.is_null() => Some(*value),
                _ => None,
            })
        };
        Ok(match node {
            Node::Text(text) => vec![Found::Made(Value::from(text.as_str()))],
            Node::Number(number) => found.iter().map(|_| Found::Made(number_value(*number))).collect(),
            Node::Truth(truth) => found.iter().map(|_| Found::Made(Value::from(*truth))).collect(),
            Node::Field(name) => {
                let fields: Vec<_> = objects().filter_map(|value| value.get(name)).map(Found::Of).collect();
                if fields.is_empty() && !found.is_empty() && !self.missing_is_empty {
                    return Err(format!("{name} is not found"));
                }
                fields
            }
            Node::Slice { from, to, step, one } => {
                let mut items = Vec::new();
                for value in objects() {
                    let Value::Array(array) = value else {
                        return Err(format!("{} is not array or slice", go_type(value)));
                    };
                    items.extend(slice(array, *from, *to, *step, *one)?.into_iter().map(Found::Of));
                }
                items
            }
            Node::Wildcard => objects().flat_map(children).map(Found::Of).collect(),
            Node::Recursive => {
                let mut all = Vec::new();
                objects().for_each(|value| descend(value, &mut all));
                if all.len() > VALUES {
                    return Err(format!("the path finds more than {VALUES} values"));
                }
                all.into_iter().map(Found::Of).collect()
            }
            Node::Union(paths) => {
                let mut all = Vec::new();
                for path in paths {
                    all.extend(self.walk(found.clone(), path, left)?);
                }
                all
            }
            Node::Filter(one, other) => {
                let mut items = Vec::new();
                for value in objects() {
                    let Value::Array(array) = value else {
                        return Err(format!("{value} is not array or slice and cannot be filtered"));
                    };
                    for item in array {
                        if self.passes(item, one, other.as_ref(), left)? {
                            items.push(Found::Of(item));
                        }
                    }
                }
                items
            }
        })
    }

    fn passes(
        &self,
        item: &Value,
        one: &[Node],
        other: Option<&(Compare, Vec<Node>)>,
        left: &Cell<usize>,
    ) -> Result<bool, String> {
        let lefts = self.walk(vec![Found::Of(item)], one, left);
        let Some((compare, other)) = other else { return Ok(lefts.is_ok_and(|lefts| !lefts.is_empty())) };
        // kubectl stops here; an item without the field is no match, which is what was meant.
        let Ok(lefts) = lefts else { return Ok(false) };
        let rights = self.walk(vec![Found::Of(item)], other, left)?;
        match (&lefts[..], &rights[..]) {
            ([], _) | (_, []) => Ok(false),
            ([left], [right]) => compare.holds(left.value(), right.value()),
            _ => Err("can only compare one element at a time".to_owned()),
        }
    }
}

#[derive(Clone)]
enum Found<'a> {
    Of(&'a Value),
    Made(Value),
}

impl Found<'_> {
    fn value(&self) -> &Value {
        match self {
            Found::Of(value) => value,
            Found::Made(value) => value,
        }
    }

    fn text(&self) -> String {
        json_text::plain(self.value())
    }
}

impl Compare {
    fn holds(self, left: &Value, right: &Value) -> Result<bool, String> {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right))
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) if matches!(self, Self::Equal | Self::NotEqual) => {
                Some(left.cmp(right))
            }
            _ => return Err("incompatible types for comparison".to_owned()),
        };
        Ok(order.is_some_and(|order| match self {
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
        }))
    }
}

fn number_value(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::Array(_) | Value::Null => "[]interface {}",
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    let inner = children(value);
    if all.len() > VALUES || inner.is_empty() {
        return;
    }
    all.push(value);
    inner.into_iter().for_each(|child| descend(child, all));
}

fn slice(
    array: &[Value],
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    one: bool,
) -> Result<Vec<&Value>, String> {
    let length = i64::try_from(array.len()).unwrap_or(i64::MAX);
    let mut begin = from.unwrap_or(0);
    if begin < 0 {
        begin += length;
    }
    let mut end = if one { begin.saturating_add(1) } else { to.unwrap_or(length) };
    if end < 0 {
        end += length;
    }
    let out_of_bounds = |index: i64| format!("array index out of bounds: index {index}, length {length}");
    if begin == end {
        return Ok(Vec::new());
    }
    if !(0..length).contains(&begin) {
        return Err(out_of_bounds(begin));
    }
    if !(0..=length).contains(&end) {
        return Err(out_of_bounds(end - 1));
    }
    if begin > end {
        return Err(format!("starting index {begin} is greater than ending index {end}"));
    }
    let step = match step {
        Some(step) if step <= 0 => return Err("step must be > 0".to_owned()),
        step => usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX),
    };
    let range = begin as usize..end as usize;
    Ok(array.get(range).unwrap_or_default().iter().step_by(step).collect())
}

fn matching_end(actions: &[Action], range: usize) -> usize {
    let mut open = 0;
    for (place, action) in actions.iter().enumerate().skip(range) {
        match action {
            Action::Range(_) => open += 1,
            Action::End => open -= 1,
            _ => {}
        }
        if open == 0 {
            return place;
        }
    }
    actions.len()
}

fn malformed(why: &'static str) -> Refused {
    Refused::new(Reason::Malformed, why)
}

/// Up to the brace that closes, outside of quotes; and what is behind it.
fn enclosed(text: &str) -> Result<(&str, &str), Refused> {
    let (mut quote, mut escaped) = (None, false);
    for (place, char) in text.char_indices() {
        match (quote, char) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), char) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '}') => return Ok((&text[..place], &text[place + 1..])),
            _ => {}
        }
    }
    Err(malformed("a brace is not closed"))
}

/// Nested filters and unions.
const DEPTH: usize = 8;

fn nodes(text: &str, depth: usize) -> Result<Vec<Node>, Refused> {
    if depth > DEPTH {
        return Err(Refused::new(Reason::TooLarge, "the path is nested too deep"));
    }
    let mut nodes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if nodes.len() > NODES {
            return Err(Refused::new(Reason::TooLarge, "the path has too many steps"));
        }
        match first {
            ' ' | '@' | '$' => rest = &rest[1..],
            '"' | '\'' => {
                let (text, after) = quoted(rest, first)?;
                nodes.push(Node::Text(text));
                rest = after;
            }
            '[' => {
                let (node, after) = bracket(rest, depth)?;
                nodes.extend(node);
                rest = after;
            }
            '.' if rest.starts_with("..") => {
                nodes.push(Node::Recursive);
                // `..name` and `..[…]` and `..*`.
                rest = &rest[2..];
                if rest.starts_with(|char: char| char.is_alphanumeric() || char == '_' || char == '*') {
                    let (node, after) = field(rest)?;
                    nodes.push(node);
                    rest = after;
                }
            }
            '.' => {
                rest = &rest[1..];
                if rest.is_empty() || rest.starts_with([' ', '[']) {
                    continue;
                }
                let (node, after) = field(rest)?;
                nodes.push(node);
                rest = after;
            }
            '+' | '-' | '0'..='9' => {
                let end = rest[1..]
                    .find(|char: char| !char.is_ascii_digit() && char != '.')
                    .map_or(rest.len(), |end| end + 1);
                nodes.push(Node::Number(rest[..end].parse().map_err(|_| malformed("this is not a number"))?));
                rest = &rest[end..];
            }
            _ => {
                let end = rest.find(is_terminator).unwrap_or(rest.len());
                match &rest[..end] {
                    "true" => nodes.push(Node::Truth(true)),
                    "false" => nodes.push(Node::Truth(false)),
                    _ if nodes.is_empty() && depth == 0 => {
                        // {metadata.name}, which kubectl takes for a word that it does not know.
                        return Err(malformed("a path begins with a dot, and the words are range and end"));
                    }
                    _ => return Err(malformed("this is not a path: see -o jsonpath of kubectl")),
                }
                rest = &rest[end..];
            }
        }
    }
    Ok(nodes)
}

fn is_terminator(char: char) -> bool {
    matches!(char, ' ' | '\t' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

/// A field's name, in which a backslash takes the meaning of the sign behind it.
fn field(text: &str) -> Result<(Node, &str), Refused> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((place, char)) = chars.next() {
        match char {
            '\\' => name.extend(chars.next().map(|(_, char)| char)),
            char if is_terminator(char) => {
                end = place;
                break;
            }
            char => name.push(char),
        }
    }
    let node = match name.as_str() {
        "" => return Err(malformed("behind a dot there is no name")),
        "*" => Node::Wildcard,
        _ => Node::Field(name),
    };
    Ok((node, &text[end..]))
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), Refused> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((place, char)) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, char)) => value.push(char),
                None => break,
            },
            char if char == quote => return Ok((value, &text[place + 1..])),
            char => value.push(char),
        }
    }
    Err(malformed("a quote is not closed"))
}

fn bracket(text: &str, depth: usize) -> Result<(Vec<Node>, &str), Refused> {
    if let Some(filter) = text.strip_prefix("[?(") {
        return filtered(filter, depth);
    }
    let end = text.find(']').ok_or_else(|| malformed("a bracket is not closed"))?;
    let (inner, after) = (text[1..end].trim(), &text[end + 1..]);
    let single = |inner: &str| -> Result<Vec<Node>, Refused> {
        let inner = inner.trim();
        if inner == "*" {
            return Ok(vec![Node::Slice { from: None, to: None, step: None, one: false }]);
        }
        if let Some(name) =
            ['\'', '"'].into_iter().find_map(|quote| inner.strip_prefix(quote)?.strip_suffix(quote))
        {
            let mut path = String::from(".");
            path.push_str(name);
            return nodes(&path, depth + 1);
        }
        let number = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| malformed("an index is a number")),
        };
        let parts: Vec<&str> = inner.split(':').collect();
        Ok(vec![match parts[..] {
            [index] if !index.is_empty() => {
                Node::Slice { from: number(index)?, to: None, step: None, one: true }
            }
            [from, to] => Node::Slice { from: number(from)?, to: number(to)?, step: None, one: false },
            [from, to, step] => {
                Node::Slice { from: number(from)?, to: number(to)?, step: number(step)?, one: false }
            }
            _ => return Err(malformed("an index is such as [0], [*], [1:3] or ['name']")),
        }])
    };
    let parts: Vec<&str> = inner.split(',').collect();
    let nodes = match parts[..] {
        [one] => single(one)?,
        ref many => vec![Node::Union(many.iter().map(|part| single(part)).collect::<Result<_, _>>()?)],
    };
    Ok((nodes, after))
}

fn filtered(text: &str, depth: usize) -> Result<(Vec<Node>, &str), Refused> {
    let (mut quote, mut open) = (None, 0);
    let mut end = None;
    for (place, char) in text.char_indices() {
        match (quote, char) {
            (Some(open), char) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '(') => open += 1,
            (None, ')') if open == 0 => {
                end = Some(place);
                break;
            }
            (None, ')') => open -= 1,
            _ => {}
        }
    }
    let end = end.ok_or_else(|| malformed("a filter is not closed"))?;
    let after = text[end + 1..].strip_prefix(']').ok_or_else(|| malformed("a filter ends with )]"))?;
    let inner = &text[..end];
    if inner.contains("&&") || inner.contains("||") {
        return Err(malformed("a filter has one comparison: kubectl's has no && and ||"));
    }
    let begin = inner.find(['!', '<', '>', '=']);
    let node = match begin {
        None => Node::Filter(nodes(inner, depth + 1)?, None),
        Some(begin) => {
            let signs = inner[begin..]
                .find(|char| !matches!(char, '!' | '<' | '>' | '='))
                .unwrap_or(inner.len() - begin);
            let compare = match &inner[begin..begin + signs] {
                "<" => Compare::Less,
                "<=" => Compare::LessOrEqual,
                "==" => Compare::Equal,
                "!=" => Compare::NotEqual,
                ">" => Compare::Greater,
                ">=" => Compare::GreaterOrEqual,
                _ => return Err(malformed("a filter compares with ==, !=, <, <=, > or >=")),
            };
            let (left, right) = (&inner[..begin], &inner[begin + signs..]);
            Node::Filter(nodes(left, depth + 1)?, Some((compare, nodes(right, depth + 1)?)))
        }
    };
    Ok((vec![node], after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_show_what_kubectl_shows() {
        let object = json!({
            "kind": "List", "n": 1.5, "empty": [], "items": [
                {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "status": {"ready": true, "n": 1}},
                {"metadata": {"name": "b"}, "status": {"ready": false, "n": 2, "capacity": {"cpu": "4"}}},
            ],
        });
        for (template, expected) in [
            ("{.kind}", "List"),
            ("kind is {.kind}!", "kind is List!"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1:].metadata.name}", "b"),
            ("{.items[0:1].metadata.name}", "a"),
            ("{.items[*]['metadata.name','status.n']}", "a b 1 2"),
            ("{.items[?(@.status.n>1)].metadata.name}", "b"),
            ("{.items[?(@.metadata.name==\"a\")].status.ready}", "true"),
            ("{.items[?(@.status.capacity)].metadata.name}", "b"),
            ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{\"\\n\"}{end}", "a\t1\nb\t2\n"),
            ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
            ("{..name}", "a b"),
            ("{.items[*].status.capacity}", "{\"cpu\":\"4\"}"),
            ("{.n}", "1.5"),
            ("{.empty}", "[]"),
            ("{.nothing}", ""),
            ("{$.kind}", "List"),
            ("{@.kind}", "List"),
            ("{.items[0].status.*}", "1 true"),
        ] {
            let shown = Template::parse(template, true)
                .and_then(|it| it.show(&object).map_err(|why| Refused::new(Reason::Malformed, why)));
            assert_eq!(shown.as_deref().map_err(ToString::to_string), Ok(expected), "{template}");
        }
        assert!(Template::parse("{.items[5]}", true).unwrap().show(&object).is_err());
        let relaxed = |path: &str| Template::relaxed(path).unwrap().values(&object).unwrap().len();
        assert_eq!([relaxed(".kind"), relaxed("kind"), relaxed("{.items[*].metadata.name}")], [1, 1, 2]);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in [
            "{.a",
            "{range .a}{.b}",
            "{end}",
            "{.a[}",
            "{.a[?(@.b}",
            "{.a[x]}",
            "{.}{",
            "{'a}",
            "{a.b}",
            "{.a[?(@.b=1)]}",
            "{template}",
        ] {
            assert!(Template::parse(template, true).is_err(), "{template}");
        }
        let deep = "[?(@".repeat(50) + &")]".repeat(50);
        assert!(Template::parse(&format!("{{.a{deep}}}"), true).is_err());
    }

    proptest! {
        #[test]
        fn whatever_the_template_it_ends(template in "([{}.\\[\\]@?()*'\"=:,a0-9 -]|\\.\\.|range |end|\\PC){0,30}") {
            if let Ok(template) = Template::parse(&template, true) {
                let _shown = template.show(&json!({"a": [{"a": 1}, {"a": {"a": [0]}}], "0": "x"}));
            }
        }
    }
}
