//! kubectl's JSONPath: templates of `{…}` with text between them.

mod grammar;

use std::{cell::Cell, cmp::Ordering};

use serde_json::Value;

use self::grammar::{enclosed, malformed, nodes};
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
                    for (place, found) in found.iter().enumerate() {
                        if place > 0 {
                            shown.push(' ');
                        }
                        shown.push_str(&found.text());
                        // Values within values multiply, and so do paths.
                        if shown.len() > super::OUTPUT_BYTES {
                            return Err("the output is too large".to_owned());
                        }
                    }
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

#[cfg(test)]
mod tests;
