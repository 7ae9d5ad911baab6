//! Which paths of the Kubernetes API the cloud may read.

use super::{
    json::Holds,
    percent::{decode, encode},
    query::{Query, is_label},
    reason::{Reason, Refused},
};
use crate::{excluded::Excluded, executor::rules::Rules};

/// A path with its query is no longer.
const PATH_BYTES: usize = 16 * 1024;
/// What etcd lets an object be called.
const NAME_BYTES: usize = 253;

/// A path that may be read, in the canonical form in which it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readable {
    /// Percent-encoded once, without the query.
    path: String,
    pub query: Query,
    /// What the answer is.
    pub form: Form,
    /// What the objects there have.
    pub holds: Holds,
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
    /// What the API server says of its own health.
    Health,
    /// What kinds there are, and of what they consist.
    Schema,
}

impl Readable {
    /// Judges `path`, a path of the API with or without its first slash and
    /// with an optional query.
    ///
    /// # Errors
    /// It may not be read; the sentence says why.
    pub(crate) fn parse(path: &str) -> Result<Self, Refused> {
        if path.len() > PATH_BYTES {
            let why = format!("a path of {} bytes is longer than {PATH_BYTES}", path.len());
            return Err(Refused::new(Reason::TooLarge, why));
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments = segments(path.strip_prefix('/').unwrap_or(path))?;
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let form = admit(&names)?;
        let query = Query::parse(form, query)?;
        let mut path = String::new();
        for segment in &segments {
            path.push('/');
            encode(segment, &mut path);
        }
        let holds = resource(&names).map_or(Holds::Nothing, |(resource, _)| Holds::of_resource(resource));
        Ok(Self { path, query, form, holds, told: told(&names, form) })
    }

    /// Path and query, percent-encoded once.
    pub(crate) fn uri(&self) -> String {
        let mut uri = self.path.clone();
        self.query.render(&mut uri);
        uri
    }

    /// The same, if the cluster's owner lets it be read: no logs and no events of `excluded` namespaces,
    /// and Secrets as `rules` say.
    ///
    /// # Errors
    /// It stays in the cluster, or may.
    pub(crate) fn under(self, rules: Rules, excluded: &Excluded) -> Result<Self, Refused> {
        if self.holds == Holds::Secrets && !rules.secret_hashes {
            return Err(Refused::new(
                Reason::Secret,
                "Secrets are not read; their owner may allow hashes of their values (Helm: operator.executor.secretHashes)",
            ));
        }
        match &self.told {
            Told::Of(namespace) if excluded.has(namespace) => Err(Refused::new(
                Reason::Kept,
                "logs and events of this namespace stay in the cluster (Helm: data.namespaces.exclude)",
            )),
            Told::OfAll if !excluded.is_empty() => Err(Refused::new(
                Reason::Kept,
                "events of some namespaces stay in the cluster (Helm: data.namespaces.exclude): ask for those of one",
            )),
            _ => Ok(self),
        }
    }
}

/// The resource of a path, and what stands below it.
fn resource<'a, 'b>(segments: &'b [&'a str]) -> Option<(&'a str, &'b [&'a str])> {
    match segments {
        ["api", "v1", rest @ ..] | ["apis", _, _, rest @ ..] => match rest {
            ["namespaces", _, "status" | "finalize"] => Some(("namespaces", &rest[1..])),
            ["namespaces", _, resource, below @ ..] | [resource, below @ ..] => Some((resource, below)),
            [] => None,
        },
        _ => None,
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
            if segment.contains('%') {
                return Err(Refused::new(Reason::Encoding, "the path is encoded more than once"));
            }
            if !segment.bytes().all(|byte| byte.is_ascii_graphic()) {
                let why = "names of the Kubernetes API are printable ASCII, without blanks";
                return Err(Refused::new(Reason::Characters, why));
            }
            let plain = !segment.is_empty()
                && segment.len() <= NAME_BYTES
                && segment != "."
                && segment != ".."
                && !segment.contains(['/', '\\', '?', '#']);
            if plain {
                Ok(segment)
            } else {
                Err(Refused::new(Reason::Malformed, "this is not a path of the Kubernetes API"))
            }
        })
        .collect()
}

/// Whether the path may be read, and what is there.
fn admit(segments: &[&str]) -> Result<Form, Refused> {
    match segments {
        ["api" | "apis" | "version"] => Ok(Form::Schema),
        ["healthz" | "livez" | "readyz"] => Ok(Form::Health),
        ["apis", group] if is_group(group) => Ok(Form::Schema),
        ["openapi", "v2"] | ["openapi", "v3"] | ["openapi", "v3", "version" | "api" | "apis" | "logs"] => {
            Ok(Form::Schema)
        }
        ["openapi", "v3", "api", version] if is_version(version) => Ok(Form::Schema),
        ["openapi", "v3", "apis", group] if is_group(group) => Ok(Form::Schema),
        ["openapi", "v3", "apis", group, version] if is_group(group) && is_version(version) => {
            Ok(Form::Schema)
        }
        ["api", "v1", ..] => admit_resource(true, segments),
        ["apis", group, version, ..] if is_group(group) && is_version(version) => {
            admit_resource(false, segments)
        }
        _ => Err(Refused::new(
            Reason::Unknown,
            "only api/v1, apis, openapi, version, healthz, livez and readyz of the Kubernetes API are read",
        )),
    }
}

fn is_group(text: &str) -> bool {
    text.len() <= NAME_BYTES && text.split('.').all(is_label)
}

/// Such as `v1` and `v1beta1`.
fn is_version(text: &str) -> bool {
    is_label(text)
        && text.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn admit_resource(is_core: bool, segments: &[&str]) -> Result<Form, Refused> {
    let Some((resource, below)) = resource(segments) else { return Ok(Form::Schema) };
    // Below the group's version: the namespace, where there is one.
    if let ["api", "v1", "namespaces", namespace, _, ..] | ["apis", _, _, "namespaces", namespace, _, ..] =
        segments
        && !is_label(namespace)
    {
        return Err(Refused::new(Reason::Malformed, "this is not the name of a namespace"));
    }
    match resource {
        "watch" => {
            return Err(Refused::new(Reason::Endless, "a watch never ends: ask for a list"));
        }
        "proxy" | "redirect" => {
            return Err(Refused::new(Reason::Acts, "proxy paths are never followed"));
        }
        "bindings" => return Err(Refused::new(Reason::Acts, "bindings are made, and never read")),
        _ if !is_label(resource) => {
            return Err(Refused::new(Reason::Malformed, "this is not the name of a resource"));
        }
        _ => {}
    }
    match below {
        [] => Ok(Form::List),
        [_name] => Ok(Form::Object),
        [_name, "log"] if is_core && resource == "pods" => Ok(Form::Log),
        [_name, "status" | "scale"] => Ok(Form::Object),
        // Everything else below an object does something (exec, attach,
        // portforward, proxy, eviction, binding) or hands out credentials (token).
        _ => Err(Refused::new(
            Reason::Acts,
            "below an object only status, scale and a pod's log are read; exec, attach, portforward, proxy, \
             ephemeralcontainers, binding and token never",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::executor::mutation::mutated;

    fn under(path: &str, secret_hashes: bool, excluded: &str) -> Result<Readable, Refused> {
        let rules = Rules { secret_hashes, ..Rules::default() };
        Readable::parse(path).and_then(|readable| readable.under(rules, &Excluded::parse(excluded)))
    }

    fn uri(path: &str) -> String {
        match Readable::parse(path) {
            Ok(readable) => {
                let metadata = if readable.query.metadata_only { "metadata " } else { "" };
                format!("{:?} {metadata}{}", readable.form, readable.uri())
            }
            Err(refused) => refused.status().to_string(),
        }
    }

    #[test]
    fn plain_reads_are_allowed_and_come_out_canonical() {
        for (path, expected) in [
            ("version", "Schema /version"),
            ("/api", "Schema /api"),
            ("apis", "Schema /apis"),
            ("readyz?verbose", "Health /readyz?verbose=true"),
            ("openapi/v2", "Schema /openapi/v2"),
            ("openapi/v3/apis/apps/v1?hash=A", "Schema /openapi/v3/apis/apps/v1?hash=A"),
            ("api/v1/pods", "List /api/v1/pods"),
            ("api/v1/namespaces", "List /api/v1/namespaces"),
            ("api/v1/namespaces/kube-system", "Object /api/v1/namespaces/kube-system"),
            ("api/v1/namespaces/a/status", "Object /api/v1/namespaces/a/status"),
            ("api/v1/nodes/n1", "Object /api/v1/nodes/n1"),
            ("api/v1/namespaces/a/pods/p/status", "Object /api/v1/namespaces/a/pods/p/status"),
            ("apis/apps", "Schema /apis/apps"),
            (
                "apis/apps/v1/namespaces/a/deployments/d/scale",
                "Object /apis/apps/v1/namespaces/a/deployments/d/scale",
            ),
            (
                "api/v1/pods?labelSelector=app%3Dx,b%21%3Dc&limit=5",
                "List /api/v1/pods?labelSelector=app%3Dx%2Cb%21%3Dc&limit=5",
            ),
            ("api/v1/pods?labelSelector=app=x+y", "List /api/v1/pods?labelSelector=app%3Dx%20y"),
            ("api/v1/pods?watch=false&limit=1", "List /api/v1/pods?limit=1"),
            ("api/v1/pods?metadata=true&limit=5", "List metadata /api/v1/pods?limit=5"),
            (
                "api/v1/namespaces/a/pods/p/log?container=c&tailLines=10",
                "Log /api/v1/namespaces/a/pods/p/log?container=c&tailLines=10&limitBytes=8388608",
            ),
            (
                "api/v1/namespaces/a/pods/p/log?limitBytes=4294967295",
                "Log /api/v1/namespaces/a/pods/p/log?limitBytes=8388608&tailLines=10000",
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
            let refused = under(path, false, "").unwrap_err();
            let endless = refused.reason == Reason::Endless;
            assert!(refused.status() == 403 || endless || path.ends_with('/'), "{path}: {refused}");
        }
    }

    #[test]
    fn logs_and_events_of_excluded_namespaces_are_not_read() {
        let ask = |path, excluded| {
            Readable::parse(path).unwrap();
            under(path, false, excluded).is_ok()
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
            is_harmless(&path)?;
        }

        /// The same of what the corpora ask for, but for a few bytes.
        #[test]
        fn what_is_allowed_of_a_mutated_corpus_is_harmless(
            path in mutated(
                &[include_str!("../../tests/policy/api.jsonl")],
                &["/", "//", "..", "%2F", "%2f", "%25", "%00", "secrets", "/exec", "/proxy", "/log", "/status", "watch=1", "follow", "?", "&", "=", "+", "namespaces/", "apis/", "api/v1/"],
            )
        ) {
            is_harmless(&path)?;
        }
    }

    fn is_harmless(path: &str) -> Result<(), TestCaseError> {
        let Ok(readable) = Readable::parse(path) else { return Ok(()) };
        let uri = readable.uri();
        let again = Readable::parse(&uri).unwrap();
        prop_assert_eq!(&again.uri(), &uri, "canonical");
        prop_assert!(uri.is_ascii() && !uri.contains("//"));
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let segments: Vec<String> = path[1..].split('/').map(|s| decode(s, false).unwrap()).collect();
        prop_assert!(!segments.iter().any(|s| s.is_empty() || s == ".." || s.contains('/')));
        let last = segments.last().map(String::as_str).unwrap_or_default();
        if segments.len() >= 7 && segments[0] == "api" {
            prop_assert!(matches!(last, "status" | "scale" | "log"));
        }
        let secret = matches!(
            segments.iter().map(String::as_str).collect::<Vec<_>>()[..],
            ["api", "v1", "secrets", ..] | ["api", "v1", "namespaces", _, "secrets", ..]
        );
        prop_assert!(!secret || readable.holds == Holds::Secrets);
        for key in query.split('&').filter_map(|pair| pair.split('=').next()) {
            prop_assert!(
                !["watch", "follow", "command", "insecureSkipTLSVerifyBackend"].contains(&key),
                "{uri}"
            );
        }
        prop_assert!(uri.parse::<http::Uri>().is_ok());
        Ok(())
    }
}
