//! kubectl's JSONPath: templates of `{…}` with text between them.

mod grammar;

use std::cmp::Ordering;

use serde_json::{Map, Value};

use self::grammar::{enclosed, malformed, nodes};
use super::{is_full, json_text, work::Work};
use crate::executor::reason::{Reason, Refused};

/// Values in the steps of one expression, and nodes of all: no object of the API needs more.
const VALUES: usize = 200_000;
const NODES: usize = 500;
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
    pub(crate) fn show(&self, object: &Value, work: &Work) -> Result<String, String> {
        let mut shown = String::new();
        self.run(&self.actions, object, &mut shown, work)?;
        Ok(shown)
    }

    /// The values that the first path of the template finds.
    ///
    /// # Errors
    /// A sentence as kubectl says it.
    pub(crate) fn values<'a>(&self, object: &'a Value, work: &Work) -> Result<Vec<&'a Value>, String> {
        let Some(Action::Path(path)) = self.actions.first() else { return Ok(Vec::new()) };
        let found = self.walk(vec![Found::Of(object)], path, work)?;
        Ok(found
            .into_iter()
            .filter_map(|found| match found {
                Found::Of(value) => Some(value),
                Found::Made(_) => None,
            })
            .collect())
    }

    /// Takes out of an object what stands beside the fields that the first path goes through.
    pub(crate) fn prune(&self, object: &mut Value) {
        let Some(Action::Path(path)) = self.actions.first() else { return };
        let mut value = object;
        for node in path {
            let (Node::Field(name), Value::Object(fields)) = (node, value) else { return };
            fields.retain(|field, _| field == name);
            let Some(next) = fields.get_mut(name) else { return };
            value = next;
        }
    }

    fn run(&self, actions: &[Action], object: &Value, shown: &mut String, work: &Work) -> Result<(), String> {
        let mut place = 0;
        while let Some(action) = actions.get(place) {
            match action {
                Action::Text(text) => shown.push_str(text),
                Action::Path(path) => {
                    let found = self.walk(vec![Found::Of(object)], path, work)?;
                    for (place, found) in found.iter().enumerate() {
                        if place > 0 {
                            shown.push(' ');
                        }
                        json_text::plain(found.value(), shown, &work.stop);
                        // Values within values multiply, and so do paths.
                        if is_full(shown) {
                            return Err("the output is too large".to_owned());
                        }
                    }
                }
                Action::Range(path) => {
                    let end = matching_end(actions, place);
                    for found in self.walk(vec![Found::Of(object)], path, work)? {
                        if is_full(shown) {
                            return Err("the output is too large".to_owned());
                        }
                        if let Found::Of(value) = found {
                            self.run(&actions[place + 1..end], value, shown, work)?;
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
        work: &Work,
    ) -> Result<Vec<Found<'a>>, String> {
        for node in path {
            work.take(found.len() + 1)?;
            found = self.step(found, node, work)?;
        }
        Ok(found)
    }

    fn step<'a>(&self, found: Vec<Found<'a>>, node: &Node, work: &Work) -> Result<Vec<Found<'a>>, String> {
        let objects = || {
            found.iter().filter_map(|found| match found {
                Found::Of(value) if !value.is_null() => Some(*value),
                _ => None,
            })
        };
        let mut all = Vec::new();
        match node {
            Node::Text(text) => all.push(Found::Made(Value::from(text.as_str()))),
            Node::Number(number) => {
                all.extend(found.iter().map(|_| Found::Made(number_value(*number))));
            }
            Node::Truth(truth) => all.extend(found.iter().map(|_| Found::Made(Value::from(*truth)))),
            Node::Field(name) => {
                all.extend(objects().filter_map(|value| value.get(name)).map(Found::Of));
                if all.is_empty() && !found.is_empty() && !self.missing_is_empty {
                    return Err(format!("{name} is not found"));
                }
            }
            Node::Slice { from, to, step, one } => {
                for value in objects() {
                    let Value::Array(array) = value else {
                        return Err(format!("{} is not array or slice", go_type(value)));
                    };
                    add(&mut all, slice(array, *from, *to, *step, *one)?.map(Found::Of), work)?;
                }
            }
            Node::Wildcard => add(&mut all, objects().flat_map(children).map(Found::Of), work)?,
            Node::Recursive => objects().try_for_each(|value| descend(value, &mut all, work))?,
            Node::Union(paths) => {
                for path in paths {
                    work.take(found.len())?;
                    add(&mut all, self.walk(found.clone(), path, work)?, work)?;
                }
            }
            Node::Filter(one, other) => {
                for value in objects() {
                    let Value::Array(array) = value else {
                        let mut shown = String::new();
                        json_text::plain(value, &mut shown, &work.stop);
                        work.take_bytes(shown.len())?;
                        return Err(format!("{shown} is not array or slice and cannot be filtered"));
                    };
                    for item in array {
                        if self.passes(item, one, other.as_ref(), work)? {
                            add(&mut all, [Found::Of(item)], work)?;
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    fn passes(
        &self,
        item: &Value,
        one: &[Node],
        other: Option<&(Compare, Vec<Node>)>,
        work: &Work,
    ) -> Result<bool, String> {
        work.take(1)?;
        let lefts = self.walk(vec![Found::Of(item)], one, work);
        // That it is too much is no "no match".
        work.take(0)?;
        let Some((compare, other)) = other else { return Ok(lefts.is_ok_and(|lefts| !lefts.is_empty())) };
        // kubectl stops here; an item without the field is no match, which is what was meant.
        let Ok(lefts) = lefts else { return Ok(false) };
        let rights = self.walk(vec![Found::Of(item)], other, work)?;
        match (&lefts[..], &rights[..]) {
            ([], _) | (_, []) => Ok(false),
            ([left], [right]) => {
                let bytes = |found: &Found<'_>| found.value().as_str().map_or(0, str::len);
                work.take_bytes(bytes(left).min(bytes(right)))?;
                compare.holds(left.value(), right.value())
            }
            _ => Err("can only compare one element at a time".to_owned()),
        }
    }
}

/// Adds what a step finds, each for a step.
fn add<'a>(
    all: &mut Vec<Found<'a>>,
    more: impl IntoIterator<Item = Found<'a>>,
    work: &Work,
) -> Result<(), String> {
    for found in more {
        work.take(1)?;
        if all.len() >= VALUES {
            return Err(format!("the path finds more than {VALUES} values"));
        }
        all.push(found);
    }
    Ok(())
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

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let items = value.as_array().into_iter().flatten();
    items.chain(value.as_object().into_iter().flat_map(Map::values))
}

fn descend<'a>(value: &'a Value, all: &mut Vec<Found<'a>>, work: &Work) -> Result<(), String> {
    if children(value).next().is_none() {
        return work.take(1);
    }
    add(all, [Found::Of(value)], work)?;
    children(value).try_for_each(|child| descend(child, all, work))
}

fn slice(
    array: &[Value],
    from: Option<i64>,
    to: Option<i64>,
    step: Option<i64>,
    one: bool,
) -> Result<impl Iterator<Item = &Value>, String> {
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
    let is_empty = begin == end;
    if is_empty {
        (begin, end) = (0, 0);
    }
    if !is_empty && !(0..length).contains(&begin) {
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
    Ok(array.get(range).unwrap_or_default().iter().step_by(step))
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
