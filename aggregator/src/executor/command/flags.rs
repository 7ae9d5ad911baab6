//! The flags of a command: only those of its table, in every form in which kubectl takes them.

use crate::executor::reason::{Reason, Refused};

/// A flag of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Nothing,
    /// A value.
    Value,
}

pub(crate) const fn flag(long: &'static str, short: Option<char>) -> Flag {
    Flag { long, short, takes: Takes::Nothing }
}

pub(crate) const fn value(long: &'static str, short: Option<char>) -> Flag {
    Flag { long, short, takes: Takes::Value }
}

/// A flag that is known and never taken.
#[derive(Debug)]
pub(crate) struct Never {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    pub reason: Reason,
    pub why: &'static str,
}

/// Refused whatever its value is.
pub(crate) const fn never(
    long: &'static str,
    short: Option<char>,
    reason: Reason,
    why: &'static str,
) -> Never {
    Never { long, short, takes: Takes::Value, reason, why }
}

/// Refused but with `=false`, which is what holds here.
pub(crate) const fn never_on(
    long: &'static str,
    short: Option<char>,
    reason: Reason,
    why: &'static str,
) -> Never {
    Never { takes: Takes::Nothing, ..never(long, short, reason, why) }
}

/// A word of a command, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Word(String),
    /// `--flag`, `--flag=value`, `--flag value`.
    Long(&'static Flag, Option<(Joint, String)>),
    /// `-A`, `-n value`, `-nvalue`, `-n=value`, `-An value`.
    Short(Vec<&'static Flag>, Option<(Joint, String)>),
    /// `--flag=false` of a flag that is refused otherwise.
    Off(&'static str),
    /// `--`: all that follows are words.
    End,
}

/// How a value is joined to its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    Apart,
    Equals,
    Attached,
}

/// The arguments of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments(Vec<Item>);

impl Arguments {
    /// Reads arguments by a table.
    ///
    /// # Errors
    /// A flag that is not in it, or without the value that it takes.
    pub(crate) fn parse(
        arguments: &[String],
        table: &'static [Flag],
        nevers: &[&'static [Never]],
    ) -> Result<Self, Refused> {
        let mut items = Vec::new();
        let mut rest = arguments.iter();
        let malformed = |why: String| Err(Refused::new(Reason::Malformed, why));
        let unknown = |written: &str| {
            Refused::new(Reason::Unknown, format!("{written} is not a flag of this command: {}", told(table)))
        };
        while let Some(argument) = rest.next() {
            if argument == "--" {
                items.push(Item::End);
                items.extend(rest.by_ref().cloned().map(Item::Word));
            } else if let Some(long) = argument.strip_prefix("--") {
                let (name, given) = match long.split_once('=') {
                    Some((name, value)) => (name, Some((Joint::Equals, value.to_owned()))),
                    None => (long, None),
                };
                if let Some(never) = nevers.iter().copied().flatten().find(|never| never.long == name) {
                    let is_off = given.as_ref().is_some_and(|(_, value)| value == "false");
                    if is_off && never.takes == Takes::Nothing {
                        items.push(Item::Off(never.long));
                        continue;
                    }
                    return Err(Refused::new(never.reason, never.why));
                }
                let flag = table
                    .iter()
                    .find(|flag| flag.long == name)
                    .ok_or_else(|| unknown(&format!("--{name}")))?;
                let given = match (flag.takes, given) {
                    (Takes::Nothing, Some((_, value))) if !matches!(value.as_str(), "true" | "false") => {
                        return malformed(format!("--{name} is true or false"));
                    }
                    (Takes::Value, None) => match rest.next() {
                        Some(value) => Some((Joint::Apart, value.clone())),
                        None => return malformed(format!("--{name} has no value")),
                    },
                    (_, given) => given,
                };
                items.push(Item::Long(flag, given));
            } else if argument.len() > 1
                && let Some(shorts) = argument.strip_prefix('-')
            {
                let (mut flags, mut given) = (Vec::new(), None);
                let mut chars = shorts.chars();
                while let Some(char) = chars.next() {
                    if let Some(never) =
                        nevers.iter().copied().flatten().find(|never| never.short == Some(char))
                    {
                        return Err(Refused::new(never.reason, never.why));
                    }
                    let flag = table
                        .iter()
                        .find(|flag| flag.short == Some(char))
                        .ok_or_else(|| unknown(&format!("-{char}")))?;
                    flags.push(flag);
                    if flag.takes == Takes::Nothing {
                        continue;
                    }
                    let attached = chars.as_str();
                    given = Some(match attached.strip_prefix('=') {
                        Some(value) => (Joint::Equals, value.to_owned()),
                        None if !attached.is_empty() => (Joint::Attached, attached.to_owned()),
                        None => match rest.next() {
                            Some(value) => (Joint::Apart, value.clone()),
                            None => return malformed(format!("-{char} has no value")),
                        },
                    });
                    break;
                }
                items.push(Item::Short(flags, given));
            } else {
                items.push(Item::Word(argument.clone()));
            }
        }
        Ok(Self(items))
    }

    /// The words that are neither flags nor their values.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|item| match item {
                Item::Word(word) => Some(word.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The words before `--`, and those behind it, if it stands there.
    pub(crate) fn apart(&self) -> (Vec<&str>, Option<Vec<String>>) {
        let end = self.0.iter().position(|item| *item == Item::End);
        let behind = end.map(|end| Self(self.0[end + 1..].to_vec()));
        let behind = behind.map(|behind| behind.words().iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut before = self.words();
        before.truncate(before.len() - behind.as_ref().map_or(0, Vec::len));
        (before, behind)
    }

    /// The values of a flag, in order.
    pub(crate) fn values<'a>(&'a self, long: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |item| match item {
            Item::Long(flag, Some((_, value))) if flag.long == long => Some(value.as_str()),
            Item::Short(flags, Some((_, value))) if flags.last().is_some_and(|flag| flag.long == long) => {
                Some(value.as_str())
            }
            _ => None,
        })
    }

    /// The value of a flag: the last one wins.
    pub(crate) fn value(&self, long: &str) -> Option<&str> {
        self.values(long).last()
    }

    /// Whether a flag without a value is set; `None` if it does not stand there.
    pub(crate) fn flag(&self, long: &str) -> Option<bool> {
        self.0
            .iter()
            .filter_map(|item| match item {
                Item::Long(flag, value) if flag.long == long => {
                    Some(value.as_ref().is_none_or(|(_, value)| value == "true"))
                }
                Item::Short(flags, _) if flags.iter().any(|flag| flag.long == long) => Some(true),
                _ => None,
            })
            .next_back()
    }

    /// Whether it is set.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.flag(long) == Some(true)
    }

    /// The flags that stand there.
    #[cfg(test)]
    pub(crate) fn flags(&self) -> Vec<&'static Flag> {
        self.0
            .iter()
            .flat_map(|item| match item {
                Item::Long(flag, _) => vec![*flag],
                Item::Short(flags, _) => flags.clone(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// The arguments as they were written.
    #[cfg(test)]
    pub(crate) fn render(&self) -> Vec<String> {
        let mut rendered = Vec::new();
        let mut join = |flag: String, given: &Option<(Joint, String)>| match given {
            None => rendered.push(flag),
            Some((Joint::Apart, value)) => rendered.extend([flag, value.clone()]),
            Some((Joint::Equals, value)) => rendered.push(format!("{flag}={value}")),
            Some((Joint::Attached, value)) => rendered.push(flag + value),
        };
        for item in &self.0 {
            match item {
                Item::Word(word) => join(word.clone(), &None),
                Item::End => join("--".to_owned(), &None),
                Item::Off(long) => join(format!("--{long}=false"), &None),
                Item::Long(flag, given) => join(format!("--{}", flag.long), given),
                Item::Short(flags, given) => {
                    join(
                        std::iter::once('-').chain(flags.iter().filter_map(|flag| flag.short)).collect(),
                        given,
                    );
                }
            }
        }
        rendered
    }
}

fn told(table: &[Flag]) -> String {
    if table.is_empty() {
        return "it has none".to_owned();
    }
    let told: Vec<String> = table.iter().map(|flag| format!("--{}", flag.long)).collect();
    format!("it has {}", told.join(", "))
}
