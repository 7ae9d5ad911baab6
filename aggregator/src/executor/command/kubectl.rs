//! A command of kubectl, read by the table of its words.

use super::{
    flags::Arguments,
    here, host,
    jsonpath::Template,
    refused::REFUSED,
    verbs::{Does, NEVER, VERBS, Verb},
};
use crate::executor::{
    query::is_label,
    reason::{Reason, Refused},
};

/// Of a table, named one by one.
const COLUMNS: usize = 64;

/// A command of kubectl that runs.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    pub verb: &'static Verb,
    pub arguments: Arguments,
    /// Templates, read before anything is asked for.
    pub format: Format,
    pub sort: Option<Template>,
    /// Words behind the verb: kinds and names.
    pub words: Vec<String>,
    /// What is asked of a node.
    pub host: Option<host::HostCommand>,
    /// What stands behind the command.
    pub manifest: Option<String>,
}

/// What the output looks like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    Table { wide: bool },
    Name,
    Json,
    Yaml,
    Path { template: Template, as_json: bool },
    Columns(Vec<(String, Template)>),
}

impl Kubectl {
    /// Reads the words behind `kubectl`, and the `manifest` of a diff.
    ///
    /// # Errors
    /// It is nothing that runs.
    pub(crate) fn parse(words: &[String], manifest: Option<String>) -> Result<Self, Refused> {
        let (verb, rest) = find_verb(words)?;
        let arguments = Arguments::parse(&rest, verb.flags, &[verb.never, &NEVER])?;
        let words: Vec<String> = arguments.words().iter().map(ToString::to_string).collect();
        let host = match verb.does {
            Does::Debug => Some(host::HostCommand::parse(&arguments)?),
            _ => None,
        };
        for word in words.iter().filter(|_| host.is_none()) {
            if let Some(why) = is_odd(word, verb.does) {
                return Err(Refused::new(Reason::Malformed, format!("{word:?} {why}")));
            }
        }
        if let Some(namespace) = arguments.value("namespace")
            && !is_label(namespace)
        {
            return Err(Refused::new(
                Reason::Malformed,
                format!("{namespace:?} is not the name of a namespace"),
            ));
        }
        let format = format(arguments.value("output"), verb.does)?;
        let sort = match (verb.does, arguments.value("sort-by")) {
            (Does::Get, Some(path)) => Some(Template::relaxed(path)?),
            _ => None,
        };
        let kubectl = Self { verb, arguments, format, sort, words, host, manifest };
        kubectl.check()?;
        Ok(kubectl)
    }

    /// Whether it asks for Secrets, as far as its words say.
    pub(crate) fn asks_for_secrets(&self) -> bool {
        let is = |word: &str| {
            let kind = word.split_once('/').map_or(word, |(kind, _)| kind).to_lowercase();
            matches!(kind.split('.').next(), Some("secret" | "secrets"))
        };
        matches!(self.verb.does, Does::Get | Does::Describe)
            && self
                .words
                .iter()
                .enumerate()
                .any(|(place, word)| (place == 0 || word.contains('/')) && word.split(',').any(is))
    }

    /// Whose logs or events it asks for: of a namespace, or of all.
    pub(crate) fn tells_of(&self) -> Option<Option<&str>> {
        let kind = self.words.first().map(String::as_str).unwrap_or_default();
        let is_events = self.verb.does == Does::Get
            && kind.split(',').any(|kind| {
                let name = kind.split(['.', '/']).next().unwrap_or_default().to_lowercase();
                matches!(name.as_str(), "event" | "events" | "ev")
            });
        match self.verb.does {
            Does::Logs | Does::Events => {}
            Does::Get if is_events => {}
            _ => return None,
        }
        Some(if self.arguments.has("all-namespaces") { None } else { Some(self.namespace()) })
    }

    pub(crate) fn namespace(&self) -> &str {
        self.arguments.value("namespace").unwrap_or("default")
    }

    fn check(&self) -> Result<(), Refused> {
        let malformed = |why: &'static str| Err(Refused::new(Reason::Malformed, why));
        let count = self.words.len();
        match self.verb.does {
            Does::Get | Does::Describe if count == 0 => {
                malformed("it names no kind of objects, such as pods")
            }
            Does::Logs if count == 0 && self.arguments.value("selector").is_none() => {
                malformed("it names no pod, and no selector")
            }
            Does::Logs if count > 2 => malformed("it is logs POD [CONTAINER]"),
            Does::Explain if count != 1 => malformed("it is explain KIND[.FIELD...]"),
            Does::CanI if !self.arguments.has("list") && !(2..=3).contains(&count) => {
                malformed("it is auth can-i VERB KIND [NAME]")
            }
            Does::RolloutStatus | Does::RolloutHistory if count == 0 => {
                malformed("it names no workload, such as deployment/NAME")
            }
            Does::Diff if self.manifest.is_none() || !self.arguments.values("filename").eq(["-"]) => {
                Err(Refused::new(Reason::File, format!("there are no files: {}", here::FORM)))
            }
            Does::Version
            | Does::ApiResources
            | Does::ApiVersions
            | Does::ClusterInfo
            | Does::Events
            | Does::Diff
                if count > 0 =>
            {
                malformed("it takes no words behind it")
            }
            Does::Get
                if self
                    .arguments
                    .value("subresource")
                    .is_some_and(|name| !matches!(name, "status" | "scale")) =>
            {
                Err(Refused::new(Reason::Acts, "of subresources, status and scale are read"))
            }
            _ => Ok(()),
        }?;
        if self.arguments.values("label-columns").flat_map(|names| names.split(',')).count() > COLUMNS {
            return Err(Refused::new(Reason::TooLarge, "a table has at most 64 columns"));
        }
        for (flag, longest) in [("selector", 4096), ("field-selector", 4096), ("label-columns", 1024)] {
            if self.arguments.value(flag).is_some_and(|value| value.len() > longest) {
                return Err(Refused::new(Reason::TooLarge, format!("--{flag} is too long")));
            }
        }
        Ok(())
    }
}

/// kubectl finds its word also behind flags; those that stand before it must be of all words.
pub(super) fn find_verb(words: &[String]) -> Result<(&'static Verb, Vec<String>), Refused> {
    let mut place = 0;
    // `kubectl -n x get`: the flags that may stand there are -n and the ones that are refused.
    while let Some(word) = words.get(place).filter(|word| word.starts_with('-') && word.len() > 1) {
        let has_value = matches!(word.as_str(), "-n" | "--namespace" | "--request-timeout");
        if !has_value
            && !["-n", "--namespace=", "--request-timeout="].iter().any(|prefix| word.starts_with(prefix))
        {
            let alone = std::slice::from_ref(word);
            return Err(match Arguments::parse(alone, &[], &[&NEVER]) {
                Err(refused) => refused,
                Ok(_) => {
                    Refused::new(Reason::Unknown, format!("{word} does not stand before the word of kubectl"))
                }
            });
        }
        place += if has_value { 2 } else { 1 };
    }
    let Some(first) = words.get(place) else {
        return Err(Refused::new(Reason::Malformed, "kubectl alone does nothing"));
    };
    let second = words.get(place + 1).map_or("", String::as_str);
    // Plurals and short names that kubectl takes for these words.
    let second_name = match (first.as_str(), second) {
        ("top", "pods" | "po") => "pod",
        ("top", "nodes" | "no") => "node",
        (_, second) => second,
    };
    let behind = |count: usize| [&words[..place], &words[place + count..]].concat();
    let found = VERBS.iter().find_map(|verb| match verb.words {
        [only] if only == first => Some((verb, 1)),
        [one, two] if one == first && *two == second_name => Some((verb, 2)),
        _ => None,
    });
    let both = format!("{first} {second}");
    if let Some((_, reason, why)) = REFUSED.iter().find(|(word, ..)| *word == both) {
        return Err(Refused::new(*reason, *why));
    }
    match found {
        Some((verb, count)) => Ok((verb, behind(count))),
        None => Err(match REFUSED.iter().find(|(word, ..)| word == first) {
            Some((_, reason, why)) => Refused::new(*reason, *why),
            None => Refused::new(
                Reason::Unknown,
                format!("{first:?} is not a word of kubectl that runs: docs/commands.md has them"),
            ),
        }),
    }
}

/// Words are kinds and names; nothing in them leads out of a path.
fn is_odd(word: &str, does: Does) -> Option<&'static str> {
    if word.len() > 1024 {
        return Some("is too long");
    }
    if word.contains("://") {
        return Some("is an address, and only objects of this cluster are named");
    }
    if word.contains("..")
        || word.contains([
            '\\', '%', '?', '#', '&', '\'', '"', ' ', '{', '}', '[', ']', '(', ')', '$', '`', '~', '^', '+',
            ';', '!', '<', '>', '|',
        ])
    {
        return Some("is not the name of a kind or an object");
    }
    let slashes = word.matches('/').count();
    let is_path = does == Does::CanI && word.starts_with('/');
    if word.is_empty()
        || (slashes > 1 && !is_path)
        || (word.starts_with('/') && !is_path)
        || word.ends_with('/')
        || word.starts_with('.')
    {
        return Some("is not the name of a kind or an object");
    }
    None
}

fn format(output: Option<&str>, does: Does) -> Result<Format, Refused> {
    let Some(output) = output else { return Ok(Format::Table { wide: false }) };
    let unknown = || {
        let why = format!(
            "-o {output:?} is not a format of this command: get has wide, name, json, yaml, jsonpath=…, custom-columns=…"
        );
        Err(Refused::new(Reason::Unknown, why))
    };
    let (name, template) =
        output.split_once('=').map_or((output, None), |(name, template)| (name, Some(template)));
    let fits = match does {
        Does::Get => true,
        Does::Events => matches!(name, "json" | "yaml"),
        Does::Version => matches!(name, "json" | "yaml"),
        Does::ApiResources => matches!(name, "wide" | "name"),
        _ => false,
    };
    if !fits {
        return unknown();
    }
    Ok(match (name, template) {
        ("wide", None) => Format::Table { wide: true },
        ("name", None) => Format::Name,
        ("json", None) => Format::Json,
        ("yaml", None) => Format::Yaml,
        ("jsonpath" | "jsonpath-as-json", Some(template)) => {
            let as_json = name != "jsonpath";
            let template =
                if template.contains('{') { template.to_owned() } else { format!("{{{template}}}") };
            Format::Path { template: Template::parse(&template, true)?, as_json }
        }
        ("custom-columns", Some(columns)) => {
            let columns: Vec<_> = columns
                .split(',')
                .map(|column| {
                    let (header, path) = column.split_once(':').ok_or_else(|| {
                        Refused::new(
                            Reason::Malformed,
                            format!("{column:?} is not HEADER:PATH, such as NAME:.metadata.name"),
                        )
                    })?;
                    Ok((header.to_owned(), Template::relaxed(path)?))
                })
                .collect::<Result<_, Refused>>()?;
            if columns.len() > COLUMNS {
                return Err(Refused::new(Reason::TooLarge, "a table has at most 64 columns"));
            }
            Format::Columns(columns)
        }
        ("go-template" | "template", _) => {
            return Err(Refused::new(
                Reason::Unknown,
                "Go templates are not run: use -o jsonpath or -o custom-columns",
            ));
        }
        ("jsonpath-file" | "custom-columns-file" | "go-template-file" | "templatefile", _) => {
            return Err(Refused::new(Reason::File, "there are no files: write the template out"));
        }
        _ => return unknown(),
    })
}
