//! Which paths of the Kubernetes API the cloud may read.

use crate::excluded::Excluded;

/// A path that may be read, in the canonical form in which it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readable {
    /// Path and query, percent-encoded once.
    pub uri: String,
    /// What the answer is.
    pub form: Form,
    /// Only the metadata of objects is wanted.
    pub metadata_only: bool,
    /// Whose logs or events are there.
    told: Told,
}

/// Whose logs or events are at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Nobodys,
    /// Of this namespace.
    Of(String),
    OfAll,
}

/// What the answer to a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list of objects.
    List,
    /// One object.
    Object,
    /// A container's log.
    Log,
    /// Something of the API server's own.
    Other,
}

/// Why a path may not be read, with the status that the answer carries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It is not a path of the API.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is one that is never read.
    #[error("{0}")]
    Forbidden(&'static str),
}

impl Refused {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Forbidden(_) => 403,
        }
    }
}

impl Readable {
    /// Judges `path`, a path of the API with or without its first slash and
    /// with an optional query.
    ///
    /// # Errors
    /// It may not be read; the sentence says why.
    pub(crate) fn parse(path: &str) -> Result<Self, Refused> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments = segments(path.strip_prefix('/').unwrap_or(path))?;
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let form = admit(&names)?;
        let mut uri = String::new();
        for segment in &segments {
            uri.push('/');
            encode(segment, &mut uri);
        }
        let metadata_only = query_into(query, &mut uri)?;
        Ok(Self { uri, form, metadata_only, told: told(&names, form) })
    }

    /// The same, if it has no logs and no events of `excluded` namespaces.
    ///
    /// # Errors
    /// It has, or may have.
    pub(crate) fn outside(self, excluded: &Excluded) -> Result<Self, Refused> {
        match &self.told {
            Told::Of(namespace) if excluded.has(namespace) => Err(Refused::Forbidden(
                "logs and events of this namespace stay in the cluster (Helm: data.namespaces.exclude)",
            )),
            Told::OfAll if !excluded.is_empty() => Err(Refused::Forbidden(
                "events of some namespaces stay in the cluster (Helm: data.namespaces.exclude): ask for those of one",
            )),
            _ => Ok(self),
        }
    }
}

fn told(segments: &[&str], form: Form) -> Told {
    match segments {
        ["api", "v1", resource @ ..] | ["apis", _, _, resource @ ..] => match resource {
            ["namespaces", namespace, "events", ..] => Told::Of((*namespace).to_owned()),
            ["namespaces", namespace, ..] if form == Form::Log => Told::Of((*namespace).to_owned()),
            ["events", ..] => Told::OfAll,
            _ => Told::Nobodys,
        },
        _ => Told::Nobodys,
    }
}

/// The decoded segments of a path. A segment that holds a slash once it is
/// decoded would be another path to the API server, so there is none.
fn segments(path: &str) -> Result<Vec<String>, Refused> {
    path.split('/')
        .map(|segment| {
            let segment = decode(segment, false)?;
            let plain = !segment.is_empty()
                && segment != "."
                && segment != ".."
                && !segment.contains(|c: char| matches!(c, '/' | '\\' | '%' | '?' | '#') || c.is_control());
            if plain {
                Ok(segment)
            } else {
                Err(Refused::Malformed("this is not a path of the Kubernetes API"))
            }
        })
        .collect()
}

/// Whether the path may be read, and what is there.
fn admit(segments: &[&str]) -> Result<Form, Refused> {
    match segments {
        ["api" | "apis" | "version" | "healthz" | "livez" | "readyz"] | ["apis", _] => Ok(Form::Other),
        ["openapi", "v2"] | ["openapi", "v3", ..] => Ok(Form::Other),
        ["api", "v1", resources @ ..] => admit_resource(true, resources),
        ["apis", _group, _version, resources @ ..] => admit_resource(false, resources),
        _ => Err(Refused::Malformed(
            "only api/v1, apis, openapi, version, healthz, livez and readyz of the Kubernetes API are read",
        )),
    }
}

fn admit_resource(is_core: bool, segments: &[&str]) -> Result<Form, Refused> {
    let (resource, below) = match segments {
        [] => return Ok(Form::Other),
        ["watch" | "proxy" | "redirect", ..] => {
            return Err(Refused::Forbidden("watch and proxy paths are never followed"));
        }
        ["namespaces", _, "status"] => ("namespaces", &segments[1..]),
        ["namespaces", _, resource, below @ ..] => (*resource, below),
        [resource, below @ ..] => (*resource, below),
    };
    if resource == "secrets" {
        return Err(Refused::Forbidden("Secrets are never read for the cloud"));
    }
    match below {
        [] => Ok(Form::List),
        [_name] => Ok(Form::Object),
        [_name, "log"] if is_core && resource == "pods" => Ok(Form::Log),
        [_name, "status" | "scale"] => Ok(Form::Object),
        // Everything else below an object does something (exec, attach,
        // portforward, proxy, eviction, binding) or hands out credentials (token).
        _ => Err(Refused::Forbidden(
            "below an object only status, scale and a pod's log are read; exec, attach, portforward, proxy and \
             token never",
        )),
    }
}

/// Appends the query, encoded once; says if `metadata=true` was in it.
fn query_into(query: &str, uri: &mut String) -> Result<bool, Refused> {
    let (mut metadata_only, mut separator) = (false, '?');
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        match name.as_str() {
            "metadata" => {
                metadata_only = value == "true";
                continue;
            }
            // The API server takes every other value, even none, for "yes".
            "watch" | "follow" if !matches!(value.to_ascii_lowercase().as_str(), "false" | "0") => {
                return Err(Refused::Malformed("a watch never ends: ask without watch and follow"));
            }
            "watch" | "follow" => continue,
            "insecureSkipTLSVerifyBackend" => {
                return Err(Refused::Forbidden("the kubelet's certificate is always verified"));
            }
            _ => {}
        }
        uri.push(separator);
        separator = '&';
        encode(&name, uri);
        uri.push('=');
        encode(&value, uri);
    }
    Ok(metadata_only)
}

/// Decodes `%XX` once, and in a query `+` as a blank.
fn decode(text: &str, in_query: bool) -> Result<String, Refused> {
    let malformed = || Refused::Malformed("a % must be followed by two hexadecimal digits of valid UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte =
                    digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(malformed)?;
                bytes.push(byte);
                rest = &after[2..];
            }
            b'+' if in_query => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

/// Encodes everything but RFC 3986's unreserved characters.
fn encode(text: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _writing_to_a_string_works = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(path: &str) -> String {
        match Readable::parse(path) {
            Ok(Readable { uri, form, metadata_only, .. }) => {
                format!("{form:?} {}{uri}", if metadata_only { "metadata " } else { "" })
            }
            Err(refused) => refused.status().to_string(),
        }
    }

    #[test]
    fn plain_reads_are_allowed_and_come_out_canonical() {
        for (path, expected) in [
            ("version", "Other /version"),
            ("/api", "Other /api"),
            ("apis", "Other /apis"),
            ("readyz?verbose", "Other /readyz?verbose="),
            ("openapi/v2", "Other /openapi/v2"),
            ("openapi/v3/apis/apps/v1?hash=A", "Other /openapi/v3/apis/apps/v1?hash=A"),
            ("api/v1/pods", "List /api/v1/pods"),
            ("api/v1/namespaces", "List /api/v1/namespaces"),
            ("api/v1/namespaces/kube-system", "Object /api/v1/namespaces/kube-system"),
            ("api/v1/namespaces/a/status", "Object /api/v1/namespaces/a/status"),
            ("api/v1/nodes/n1", "Object /api/v1/nodes/n1"),
            ("api/v1/namespaces/a/pods/p/status", "Object /api/v1/namespaces/a/pods/p/status"),
            ("apis/apps", "Other /apis/apps"),
            (
                "apis/apps/v1/namespaces/a/deployments/d/scale",
                "Object /apis/apps/v1/namespaces/a/deployments/d/scale",
            ),
            (
                "api/v1/pods?labelSelector=app%3Dx,b%21%3Dc&limit=5",
                "List /api/v1/pods?labelSelector=app%3Dx%2Cb%21%3Dc&limit=5",
            ),
            ("api/v1/pods?labelSelector=app=x+y", "List /api/v1/pods?labelSelector=app%3Dx%20y"),
            ("api/v1/pods?watch=false&x=", "List /api/v1/pods?x="),
            ("api/v1/pods?metadata=true&limit=5", "List metadata /api/v1/pods?limit=5"),
            (
                "api/v1/namespaces/a/pods/p/log?container=c&tailLines=10",
                "Log /api/v1/namespaces/a/pods/p/log?container=c&tailLines=10",
            ),
            // A namespace or a pod may be called like a resource.
            ("api/v1/namespaces/secrets/pods", "List /api/v1/namespaces/secrets/pods"),
            ("api/v1/namespaces/a/configmaps/secrets", "Object /api/v1/namespaces/a/configmaps/secrets"),
        ] {
            assert_eq!(uri(path), expected, "{path}");
        }
    }

    #[test]
    fn nothing_that_acts_or_hands_out_secrets_is_allowed() {
        for path in [
            "api/v1/secrets",
            "api/v1/namespaces/a/secrets",
            "api/v1/namespaces/a/secrets/s?metadata=true",
            "api/v1/namespaces/a/%73ecrets/s",
            "apis/example.com/v1/namespaces/a/secrets",
            "api/v1/watch/secrets",
            "api/v1/watch/namespaces/a/secrets",
            "api/v1/proxy/nodes/n",
            "api/v1/namespaces/a/pods/p/exec?command=id",
            "api/v1/namespaces/a/pods/p/attach",
            "api/v1/namespaces/a/pods/p/portforward",
            "api/v1/namespaces/a/pods/p/proxy",
            "api/v1/namespaces/a/pods/p/proxy/metrics",
            "api/v1/namespaces/a/pods/p/log/proxy",
            "api/v1/nodes/n/log",
            "apis/example.com/v1/namespaces/a/pods/p/log",
            "api/v1/namespaces/a/pods/p/ephemeralcontainers",
            "api/v1/namespaces/a/services/s:80/proxy/",
            "api/v1/nodes/n/proxy/configz",
            "api/v1/namespaces/a/serviceaccounts/s/token",
            "api/v1/namespaces/a/pods/p/log?insecureSkipTLSVerifyBackend=true",
        ] {
            let refused = Readable::parse(path).unwrap_err();
            assert!(matches!(refused.status(), 403 | 400), "{path}");
            assert!(refused.status() == 403 || path.ends_with('/'), "{path}: {refused}");
        }
    }

    #[test]
    fn logs_and_events_of_excluded_namespaces_are_not_read() {
        let ask = |path, excluded| {
            let readable = Readable::parse(path).unwrap();
            readable.outside(&Excluded::parse(excluded)).map_err(|refused| refused.status()).is_ok()
        };
        for path in [
            "api/v1/namespaces/bank/pods/p/log?container=c",
            "api/v1/namespaces/b%61nk/pods/p/log",
            "api/v1/namespaces/bank/events",
            "api/v1/namespaces/bank/events/e",
            "apis/events.k8s.io/v1/namespaces/bank/events",
            "api/v1/events?fieldSelector=x",
            "apis/events.k8s.io/v1/events",
        ] {
            assert!(ask(path, "") && !ask(path, "shop,bank"), "{path}");
        }
        for path in [
            "api/v1/namespaces/shop/pods/p/log",
            "api/v1/namespaces/shop/events",
            "api/v1/namespaces/bank/pods/events",
            "api/v1/namespaces/bank",
            "version",
        ] {
            assert!(ask(path, "bank"), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_the_api_is_refused() {
        for path in [
            "",
            "/",
            "versionx",
            "metrics",
            "logs",
            "debug/pprof",
            "api/v2/pods",
            "api/v1//pods",
            "api/v1/pods/",
            "api/v1/../v1/secrets",
            "api/v1/%2e%2e/secrets",
            "api/v1/namespaces/a/pods/p%2Fexec",
            "api/v1/pods%3Fwatch=true",
            "api/v1/pods/a%00b",
            "api/v1/pods/%zz",
            "api/v1/pods/%ff",
            "api/v1/pods/%2",
            "api/v1/pods/%+1",
            "api/v1/pods/%2573ecrets",
            "api/v1/pods?watch=true",
            "api/v1/pods?watch",
            "api/v1/pods?w%61tch=1",
            "api/v1/namespaces/a/pods/p/log?follow=TRUE",
            "https://example.com/api/v1/pods",
        ] {
            assert_eq!(uri(path), "400", "{path}");
        }
    }

    proptest! {
        /// Whatever is asked for, what comes out is a plain path below a known
        /// root that means the same to whoever decodes it once.
        #[test]
        fn whatever_is_allowed_is_canonical_and_harmless(
            path in "/?(api/v1|apis/[a-z.]{1,8}/v1|\\PC{0,10})(/(namespaces|secrets|pods|%73ecrets|exec|proxy|watch|[a-z%2Ff.]{1,8}|\\PC{0,6})){0,5}(\\?\\PC{0,20})?"
        ) {
            if let Ok(readable) = Readable::parse(&path) {
                let again = Readable::parse(&readable.uri).unwrap();
                prop_assert_eq!(&again.uri, &readable.uri, "canonical");
                prop_assert!(readable.uri.is_ascii() && !readable.uri.contains("//"));
                let path = readable.uri.split('?').next().unwrap_or_default();
                let segments: Vec<String> = path[1..].split('/').map(|s| decode(s, false).unwrap()).collect();
                prop_assert!(!segments.iter().any(|s| s.is_empty() || s == ".." || s.contains('/')));
                let last = segments.last().map(String::as_str).unwrap_or_default();
                if segments.len() >= 7 && segments[0] == "api" {
                    prop_assert!(matches!(last, "status" | "scale" | "log"));
                }
                prop_assert!(!matches!(segments.iter().map(String::as_str).collect::<Vec<_>>()[..],
                    ["api", "v1", "secrets", ..] | ["api", "v1", "namespaces", _, "secrets", ..]));
                prop_assert!(readable.uri.parse::<http::Uri>().is_ok());
            }
        }
    }
}
