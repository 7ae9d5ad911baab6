//! Sets and maps of a table, with their elements.

use std::io::{self, Write};

use super::{
    super::netlink::Attributes,
    values::{Form, Types, verdict},
};

const INTERVALS: u64 = 4;
const MAP: u64 = 8;
const CONCATENATION: u64 = 0x80;
/// The type of what a verdict map leads to.
const VERDICT: u64 = 0xffff_ff00;

#[derive(Debug)]
pub(super) struct Set {
    pub(super) name: String,
    key: Types,
    /// Of a key, in bytes.
    pub(super) length: usize,
    /// What a map leads to: its name, and what values are.
    data: Option<(String, Types)>,
    /// Its elements are where intervals begin, and where they end.
    has_ends: bool,
    elements: Vec<Element>,
}

#[derive(Debug)]
struct Element {
    key: Vec<u8>,
    /// The last of a range of keys.
    last: Option<Vec<u8>>,
    /// It is the first behind an interval.
    is_end: bool,
    is_everything: bool,
    data: String,
}

impl Set {
    pub(super) fn of(set: Attributes<'_>) -> Option<Self> {
        let flags = set.number(3).unwrap_or_default();
        let length = set.number(5).unwrap_or_default();
        let kind = set.number(6).unwrap_or_default();
        Some(Self {
            name: set.text(2)?,
            key: Types::of(set.number(4).unwrap_or_default(), length),
            length: usize::try_from(length).ok()?,
            data: (flags & MAP != 0).then(|| match Types::of(kind, set.number(7).unwrap_or_default()) {
                types if kind == VERDICT => ("verdict".to_owned(), types),
                types => (types.name(), types),
            }),
            has_ends: flags & INTERVALS != 0 && flags & CONCATENATION == 0,
            elements: Vec::new(),
        })
    }

    /// What a value that a map leads to means.
    pub(super) fn data(&self) -> Form {
        self.data.as_ref().map_or(Form::Bytes, |(_, types)| types.form())
    }

    /// Takes elements from a message that lists some.
    pub(super) fn add(&mut self, message: Attributes<'_>) {
        const END: u64 = 1;
        const EVERYTHING: u64 = 2;
        for (_, element) in message.inside(3) {
            let element = Attributes(element);
            let flags = element.number(3).unwrap_or_default();
            let data = element.inside(2);
            let leads_to = match (data.get(2), data.get(1), &self.data) {
                (Some(code), ..) => verdict(Attributes(code)),
                (_, Some(value), Some((_, types))) => types.show(value, value),
                _ => element.text(9).unwrap_or_default(),
            };
            self.elements.push(Element {
                key: element.inside(1).get(1).unwrap_or_default().to_vec(),
                last: element.get(10).and_then(|last| Attributes(last).get(1)).map(<[u8]>::to_vec),
                is_end: flags & END != 0,
                is_everything: flags & EVERYTHING != 0,
                data: leads_to,
            });
        }
        // The end of an interval comes before the begin of the next at the same place.
        self.elements.sort_by(|one, other| one.key.cmp(&other.key).then(other.is_end.cmp(&one.is_end)));
    }

    pub(super) fn print<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        let (word, to) = match &self.data {
            None => ("set", String::new()),
            Some((name, _)) => ("map", format!(" : {name}")),
        };
        writeln!(out, "\t{word} {} {{\n\t\ttype {}{to}", self.name, self.key.name())?;
        if !self.elements.is_empty() {
            writeln!(out, "\t\telements = {{")?;
            for (place, element) in self.elements.iter().enumerate().filter(|(_, element)| !element.is_end) {
                let next = self.elements.get(place + 1).filter(|next| next.is_end);
                let key = match (&element.last, next) {
                    _ if element.is_everything => "*".to_owned(),
                    (Some(last), _) => self.key.show(&element.key, last),
                    (None, Some(end)) if self.has_ends => self.key.show(&element.key, &before(&end.key)),
                    (None, None) if self.has_ends => {
                        self.key.show(&element.key, &vec![255; element.key.len()])
                    }
                    (None, _) => self.key.show(&element.key, &element.key),
                };
                let to = if element.data.is_empty() { String::new() } else { format!(" : {}", element.data) };
                writeln!(out, "\t\t\t{key}{to}")?;
            }
            writeln!(out, "\t\t}}")?;
        }
        writeln!(out, "\t}}")
    }
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 255 {
            break;
        }
    }
    key
}
