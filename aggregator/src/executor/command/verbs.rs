//! The words of kubectl that run, their flags, and the flags that never do.

use super::{
    flags::{Flag, Never, flag, never, never_on, value},
    here::FORM,
    refused::{CHANGES, ENTERS},
};
use crate::executor::reason::Reason;

/// A word of kubectl that runs, with its flags.
#[derive(Debug)]
pub(crate) struct Verb {
    pub words: &'static [&'static str],
    pub flags: &'static [Flag],
    pub never: &'static [Never],
    pub does: Does,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    Get,
    Describe,
    Logs,
    Events,
    TopPod,
    TopNode,
    Explain,
    CanI,
    RolloutStatus,
    RolloutHistory,
    Version,
    ApiResources,
    ApiVersions,
    ClusterInfo,
    Debug,
    Diff,
}

const NAMESPACE: Flag = value("namespace", Some('n'));
const ALL: Flag = flag("all-namespaces", Some('A'));
const SELECTOR: Flag = value("selector", Some('l'));
const OUTPUT: Flag = value("output", Some('o'));
const NO_HEADERS: Flag = flag("no-headers", None);
/// Accepted by all of them: the request has a deadline of its own, and the shorter one counts.
const TIMEOUT: Flag = value("request-timeout", None);

const FILE: &str = "there are no files: name the objects";
const WATCH: &str = "a watch never ends: ask again instead";

const NO_FILES: &[Never] = &[
    never("filename", Some('f'), Reason::File, FILE),
    never("kustomize", Some('k'), Reason::File, FILE),
    never_on("recursive", Some('R'), Reason::File, FILE),
];

/// What runs.
pub(crate) const VERBS: [Verb; 16] = [
    Verb {
        words: &["get"],
        flags: &[
            NAMESPACE,
            ALL,
            SELECTOR,
            OUTPUT,
            NO_HEADERS,
            TIMEOUT,
            value("field-selector", None),
            value("sort-by", None),
            flag("show-labels", None),
            value("label-columns", Some('L')),
            flag("show-kind", None),
            flag("ignore-not-found", None),
            value("chunk-size", None),
            value("subresource", None),
        ],
        never: &[
            never_on("watch", Some('w'), Reason::Endless, WATCH),
            never_on("watch-only", None, Reason::Endless, WATCH),
            never_on("output-watch-events", None, Reason::Endless, WATCH),
            never(
                "raw",
                None,
                Reason::Elsewhere,
                "raw paths are asked for by KubernetesAPIRequest, which has a grammar of its own",
            ),
            never(
                "template",
                None,
                Reason::Unknown,
                "Go templates are not run: use -o jsonpath or -o custom-columns",
            ),
            never("filename", Some('f'), Reason::File, FILE),
            never("kustomize", Some('k'), Reason::File, FILE),
            never_on("recursive", Some('R'), Reason::File, FILE),
            never_on("show-managed-fields", None, Reason::Unknown, "managedFields are always cut"),
            never("server-print", None, Reason::Unknown, "tables are always the API server's"),
        ],
        does: Does::Get,
    },
    Verb {
        words: &["describe"],
        flags: &[NAMESPACE, ALL, SELECTOR, TIMEOUT, flag("show-events", None), value("chunk-size", None)],
        never: NO_FILES,
        does: Does::Describe,
    },
    Verb {
        words: &["logs"],
        flags: &[
            NAMESPACE,
            SELECTOR,
            TIMEOUT,
            value("container", Some('c')),
            flag("previous", Some('p')),
            value("tail", None),
            value("since", None),
            value("since-time", None),
            flag("timestamps", None),
            flag("all-containers", None),
            flag("prefix", None),
            value("limit-bytes", None),
            value("max-log-requests", None),
            flag("ignore-errors", None),
            flag("all-pods", None),
        ],
        never: &[
            never_on(
                "follow",
                Some('f'),
                Reason::Endless,
                "a log that is followed never ends: ask with --since or --tail",
            ),
            never_on(
                "insecure-skip-tls-verify-backend",
                None,
                Reason::Acts,
                "the kubelet's certificate is always verified",
            ),
            never("pod-running-timeout", None, Reason::Endless, "nothing is waited for"),
        ],
        does: Does::Logs,
    },
    Verb {
        words: &["events"],
        flags: &[
            NAMESPACE,
            ALL,
            TIMEOUT,
            OUTPUT,
            NO_HEADERS,
            value("for", None),
            value("types", None),
            value("chunk-size", None),
        ],
        never: &[never_on("watch", Some('w'), Reason::Endless, WATCH)],
        does: Does::Events,
    },
    Verb {
        words: &["top", "pod"],
        flags: &[
            NAMESPACE,
            ALL,
            SELECTOR,
            NO_HEADERS,
            TIMEOUT,
            flag("containers", None),
            value("sort-by", None),
            value("field-selector", None),
            flag("sum", None),
            flag("use-protocol-buffers", None),
        ],
        never: &[],
        does: Does::TopPod,
    },
    Verb {
        words: &["top", "node"],
        flags: &[
            SELECTOR,
            NO_HEADERS,
            TIMEOUT,
            value("sort-by", None),
            flag("show-capacity", None),
            flag("use-protocol-buffers", None),
        ],
        never: &[],
        does: Does::TopNode,
    },
    Verb {
        words: &["explain"],
        flags: &[TIMEOUT, flag("recursive", None), value("api-version", None)],
        never: &[never("output", Some('o'), Reason::Unknown, "explain has one form")],
        does: Does::Explain,
    },
    Verb {
        words: &["auth", "can-i"],
        flags: &[
            NAMESPACE,
            ALL,
            TIMEOUT,
            flag("quiet", Some('q')),
            flag("list", None),
            value("subresource", None),
            NO_HEADERS,
        ],
        never: &[],
        does: Does::CanI,
    },
    Verb {
        words: &["rollout", "status"],
        flags: &[
            NAMESPACE,
            SELECTOR,
            TIMEOUT,
            flag("watch", Some('w')),
            value("timeout", None),
            value("revision", None),
        ],
        never: NO_FILES,
        does: Does::RolloutStatus,
    },
    Verb {
        words: &["rollout", "history"],
        flags: &[NAMESPACE, SELECTOR, TIMEOUT, value("revision", None)],
        never: NO_FILES,
        does: Does::RolloutHistory,
    },
    Verb {
        words: &["version"],
        flags: &[TIMEOUT, OUTPUT, flag("client", None), flag("short", None)],
        never: &[],
        does: Does::Version,
    },
    Verb {
        words: &["api-resources"],
        flags: &[
            TIMEOUT,
            OUTPUT,
            NO_HEADERS,
            flag("namespaced", None),
            value("api-group", None),
            value("verbs", None),
            value("sort-by", None),
            flag("cached", None),
            value("categories", None),
        ],
        never: &[],
        does: Does::ApiResources,
    },
    Verb { words: &["api-versions"], flags: &[TIMEOUT], never: &[], does: Does::ApiVersions },
    Verb { words: &["cluster-info"], flags: &[TIMEOUT], never: &[], does: Does::ClusterInfo },
    Verb {
        words: &["debug"],
        flags: &[TIMEOUT, flag("stdin", Some('i')), flag("tty", Some('t'))],
        never: &[
            never("image", None, Reason::Acts, NO_POD),
            never("profile", None, Reason::Acts, NO_POD),
            never("copy-to", None, Reason::Acts, NO_POD),
            never("target", None, Reason::Acts, ENTERS),
        ],
        does: Does::Debug,
    },
    Verb {
        words: &["diff"],
        flags: &[NAMESPACE, TIMEOUT, value("filename", Some('f')), flag("server-side", None)],
        never: &[
            never("kustomize", Some('k'), Reason::File, FORM),
            never_on("recursive", Some('R'), Reason::File, FORM),
        ],
        does: Does::Diff,
    },
];

const NO_POD: &str = "no pod is made: the node's agent answers, to kubectl debug node/NAME -- COMMAND";
const AS: &str = "commands run as the operator's reading account, and as nobody else";
const SERVER: &str = "commands ask this cluster's API server, and no other";
pub(super) const CONFIG: &str = "there is no kubeconfig: commands ask this cluster's API server";

/// Flags that no word takes.
pub(crate) const NEVER: [Never; 30] = [
    never("as", None, Reason::Elsewhere, AS),
    never("as-group", None, Reason::Elsewhere, AS),
    never("as-uid", None, Reason::Elsewhere, AS),
    never("as-user-extra", None, Reason::Elsewhere, AS),
    never("token", None, Reason::Elsewhere, AS),
    never("user", None, Reason::Elsewhere, AS),
    never("username", None, Reason::Elsewhere, AS),
    never("password", None, Reason::Elsewhere, AS),
    never("client-certificate", None, Reason::Elsewhere, AS),
    never("client-key", None, Reason::Elsewhere, AS),
    never("kubeconfig", None, Reason::Elsewhere, CONFIG),
    never("context", None, Reason::Elsewhere, CONFIG),
    never("cluster", None, Reason::Elsewhere, CONFIG),
    never("kuberc", None, Reason::Elsewhere, CONFIG),
    never("server", Some('s'), Reason::Elsewhere, SERVER),
    never("certificate-authority", None, Reason::Elsewhere, SERVER),
    never("tls-server-name", None, Reason::Elsewhere, SERVER),
    never_on("insecure-skip-tls-verify", None, Reason::Elsewhere, SERVER),
    never("proxy-url", None, Reason::Elsewhere, SERVER),
    never("cache-dir", None, Reason::File, "there are no files"),
    never("profile", None, Reason::Unknown, "nothing is profiled"),
    never("profile-output", None, Reason::File, "there are no files"),
    never("log-flush-frequency", None, Reason::Unknown, "requests are not logged"),
    never("v", Some('v'), Reason::Unknown, "requests are not logged"),
    never("vmodule", None, Reason::Unknown, "requests are not logged"),
    never("overrides", None, Reason::Write, "nothing is made or changed"),
    never("image", None, Reason::Write, "nothing is made or changed"),
    never("force", None, Reason::Write, "nothing is made or changed"),
    never("dry-run", None, Reason::Write, CHANGES),
    never_on("warnings-as-errors", None, Reason::Unknown, "warnings are not handed on"),
];
