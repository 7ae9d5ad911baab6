//! The queries of paths of the Kubernetes API: which keys there are, and what their values may be.

use jiff::Timestamp;

use super::{
    path::Form,
    percent::{decode, encode},
    reason::{Reason, Refused},
    secret::is_name,
};

/// A selector or a token of a page is no longer.
const VALUE_BYTES: usize = 4096;
/// Lines of a log for who names neither lines nor a time.
pub(crate) const LOG_LINES: u32 = 10_000;
/// No more of a log is asked for.
pub(crate) const LOG_BYTES: u32 = 8 * 1024 * 1024;

/// What a value is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Printable text.
    Text,
    /// A number from one on.
    Number,
    /// A version of the API's store.
    Version,
    Flag,
    /// A moment (RFC 3339).
    Time,
    /// The name of a container.
    Container,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Not asked for; only "no" is taken.
    Never(Reason, &'static str),
    /// Not handed on: only the metadata of objects is wanted.
    MetadataOnly,
}

const NO_WATCH: Kind = Kind::Never(Reason::Endless, "a watch never ends: ask without watch and follow");

fn kind(form: Form, key: &str) -> Option<Kind> {
    Some(match (form, key) {
        (Form::List | Form::Object, "metadata") => Kind::MetadataOnly,
        (Form::List | Form::Object, "watch") => NO_WATCH,
        (Form::List | Form::Object, "resourceVersion") => Kind::Version,
        (Form::List | Form::Object, "includeObject") => Kind::OneOf(&["None", "Metadata", "Object"]),
        (Form::List, "labelSelector" | "fieldSelector" | "continue") => Kind::Text,
        (Form::List, "limit") => Kind::Number,
        (Form::List, "resourceVersionMatch") => Kind::OneOf(&["Exact", "NotOlderThan"]),
        (Form::Log, "follow") => NO_WATCH,
        (Form::Log, "container") => Kind::Container,
        (Form::Log, "previous" | "timestamps") => Kind::Flag,
        (Form::Log, "tailLines" | "sinceSeconds" | "limitBytes") => Kind::Number,
        (Form::Log, "sinceTime") => Kind::Time,
        (Form::Log, "insecureSkipTLSVerifyBackend") => {
            Kind::Never(Reason::Acts, "the kubelet's certificate is always verified")
        }
        (Form::Health, "verbose") => Kind::Flag,
        (Form::Health, "exclude") | (Form::Schema, "hash") => Kind::Text,
        _ => return None,
    })
}

/// A query that was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Keys and values, decoded, in the order in which they came.
    pub pairs: Vec<(&'static str, String)>,
    pub metadata_only: bool,
}

/// The keys there are, so that a pair holds no text of its own for it.
const KEYS: [&str; 21] = [
    "metadata",
    "watch",
    "resourceVersion",
    "labelSelector",
    "fieldSelector",
    "continue",
    "limit",
    "resourceVersionMatch",
    "follow",
    "container",
    "previous",
    "timestamps",
    "tailLines",
    "sinceSeconds",
    "limitBytes",
    "sinceTime",
    "insecureSkipTLSVerifyBackend",
    "verbose",
    "exclude",
    "hash",
    "includeObject",
];

impl Query {
    /// Judges what stands behind the `?` of a path of that form.
    ///
    /// # Errors
    /// A key that the form does not have, a key twice, or a value that is none.
    pub(crate) fn parse(form: Form, query: &str) -> Result<Self, Refused> {
        let mut parsed = Self::default();
        let mut seen = [false; KEYS.len()];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key, true)?, decode(value, true)?);
            let known = KEYS.iter().position(|known| *known == key).zip(kind(form, &key));
            let Some((place, kind)) = known else {
                return Err(Refused::new(Reason::Unknown, unknown(form, &key)));
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(Refused::new(Reason::Malformed, format!("{key} stands twice in the query")));
            }
            let key = KEYS[place];
            if value.contains('%') {
                let why = format!("the value of {key} is encoded more than once");
                return Err(Refused::new(Reason::Encoding, why));
            }
            match kind {
                Kind::MetadataOnly => parsed.metadata_only = flag(key, &value)?,
                // The API server takes every other value, even none, for "yes".
                Kind::Never(..) if matches!(value.to_ascii_lowercase().as_str(), "false" | "0") => {}
                Kind::Never(reason, why) => return Err(Refused::new(reason, why)),
                kind => parsed.pairs.push((key, checked(kind, key, value)?)),
            }
        }
        if form == Form::Log {
            parsed.bound_log();
        }
        Ok(parsed)
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
    }

    /// Appends it to a path.
    pub(crate) fn render(&self, uri: &mut String) {
        for (place, (key, value)) in self.pairs.iter().enumerate() {
            uri.push(if place == 0 { '?' } else { '&' });
            uri.push_str(key);
            uri.push('=');
            encode(value, uri);
        }
    }

    /// Whether a log of so many bytes may end within a line: at the bound that was asked for, however exact the kubelet is
    /// with it, or at our own.
    pub(crate) fn may_cut(&self, bytes: usize) -> bool {
        let limit = self.value("limitBytes").and_then(|value| value.parse().ok()).unwrap_or(LOG_BYTES);
        limit < LOG_BYTES || bytes >= LOG_BYTES as usize
    }

    /// A log has an end: the last lines, and so many bytes.
    fn bound_log(&mut self) {
        let bounded = ["tailLines", "sinceSeconds", "sinceTime"].iter().any(|key| self.value(key).is_some());
        if !bounded {
            self.pairs.push(("tailLines", LOG_LINES.to_string()));
        }
        let most = LOG_BYTES;
        match self.pairs.iter_mut().find(|(key, _)| *key == "limitBytes") {
            Some((_, value)) => *value = value.parse().map_or(most, |asked: u32| asked.min(most)).to_string(),
            None => self.pairs.push(("limitBytes", most.to_string())),
        }
    }
}

fn unknown(form: Form, key: &str) -> String {
    let known: Vec<&str> = KEYS
        .into_iter()
        .filter(|known| kind(form, known).is_some_and(|kind| !matches!(kind, Kind::Never(..))))
        .collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("{key:?} is not a key of this query: there are {known}")
}

fn flag(key: &str, value: &str) -> Result<bool, Refused> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refused::new(Reason::Malformed, format!("{key} is true or false"))),
    }
}

fn checked(kind: Kind, key: &str, value: String) -> Result<String, Refused> {
    let malformed = |what: &str| Err(Refused::new(Reason::Malformed, format!("{key} is {what}")));
    if value.len() > VALUE_BYTES {
        let why = format!("the value of {key} has {} bytes, more than {VALUE_BYTES}", value.len());
        return Err(Refused::new(Reason::TooLarge, why));
    }
    if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(Refused::new(
            Reason::Characters,
            format!("the value of {key} has characters that are not printable ASCII"),
        ));
    }
    match kind {
        Kind::Text if key.ends_with("Selector") => {
            if let Some(name) = compared_secret(&value) {
                let why = format!(
                    "{key} would tell whether a guess at the hidden value of {name} is right: select by others"
                );
                return Err(Refused::new(Reason::Secret, why));
            }
        }
        Kind::Number => match value.parse::<u32>() {
            Ok(1..) if !value.starts_with('+') => {}
            _ => return malformed("a number from 1 on"),
        },
        Kind::Version if value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) => {
            return malformed("a number");
        }
        Kind::Flag => return Ok(flag(key, &value)?.to_string()),
        Kind::Time if value.parse::<Timestamp>().is_err() => return malformed("a moment as in RFC 3339"),
        Kind::Container if !is_label(&value) => return malformed("the name of a container"),
        Kind::OneOf(values) if !values.contains(&value.as_str()) => return malformed(&values.join(" or ")),
        _ => {}
    }
    Ok(value)
}

/// The label or field of a selector whose value is compared, if it is one that is hidden.
fn compared_secret(selector: &str) -> Option<&str> {
    selector.split(',').find_map(|requirement| {
        let requirement = requirement.trim();
        let end = requirement.find(['=', '!', ' ', '<', '>', '('])?;
        let name = &requirement[..end];
        is_name(name).then_some(name)
    })
}

/// A label of the DNS: names of namespaces and containers.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
