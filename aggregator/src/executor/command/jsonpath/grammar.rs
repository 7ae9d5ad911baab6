//! The grammar of the paths between a template's braces.

use super::{Compare, NODES, Node};
use crate::executor::reason::{Reason, Refused};

pub(super) fn malformed(why: &'static str) -> Refused {
    Refused::new(Reason::Malformed, why)
}

/// Up to the brace that closes, outside of quotes; and what is behind it.
pub(super) fn enclosed(text: &str) -> Result<(&str, &str), Refused> {
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

pub(super) fn nodes(text: &str, depth: usize) -> Result<Vec<Node>, Refused> {
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
