//! What of kubectl there is: its words, their flags, and why the others are refused.

use super::{
    flags::{Arguments, Flag, Never, flag, never, value},
    host,
    jsonpath::Template,
};
use crate::executor::{
    query::is_label,
    reason::{Reason, Refused},
};

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
    never("recursive", Some('R'), Reason::File, FILE),
];

/// What runs.
pub(crate) const VERBS: [Verb; 15] = [
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
            never("watch", Some('w'), Reason::Endless, WATCH),
            never("watch-only", None, Reason::Endless, WATCH),
            never("output-watch-events", None, Reason::Endless, WATCH),
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
            never("recursive", Some('R'), Reason::File, FILE),
            never("show-managed-fields", None, Reason::Unknown, "managedFields are always cut"),
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
            never(
                "follow",
                Some('f'),
                Reason::Endless,
                "a log that is followed never ends: ask with --since or --tail",
            ),
            never(
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
        never: &[never("watch", Some('w'), Reason::Endless, WATCH)],
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
];

const AS: &str = "commands run as the operator's reading account, and as nobody else";
const SERVER: &str = "commands ask this cluster's API server, and no other";
const CONFIG: &str = "there is no kubeconfig: commands ask this cluster's API server";

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
    never("insecure-skip-tls-verify", None, Reason::Elsewhere, SERVER),
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
    never("warnings-as-errors", None, Reason::Unknown, "warnings are not handed on"),
];

const CHANGES: &str = "nothing in the cluster is changed";
const NO_POD: &str = "no pod is made: the node's agent answers, to kubectl debug node/NAME -- COMMAND";
pub(crate) const ENTERS: &str = "nothing is done inside a container, and no way into the cluster is opened: logs, describe and events tell of it";

/// Words of kubectl that do not run, why, and what to ask for instead.
pub(crate) const REFUSED: [(&str, Reason, &str); 43] = [
    ("annotate", Reason::Write, CHANGES),
    ("apply", Reason::Write, CHANGES),
    ("autoscale", Reason::Write, CHANGES),
    ("certificate", Reason::Write, CHANGES),
    ("cordon", Reason::Write, CHANGES),
    ("create", Reason::Write, CHANGES),
    ("delete", Reason::Write, CHANGES),
    ("drain", Reason::Write, CHANGES),
    ("edit", Reason::Write, CHANGES),
    ("expose", Reason::Write, CHANGES),
    ("label", Reason::Write, CHANGES),
    ("patch", Reason::Write, CHANGES),
    ("replace", Reason::Write, CHANGES),
    ("run", Reason::Write, CHANGES),
    ("scale", Reason::Write, CHANGES),
    ("set", Reason::Write, CHANGES),
    ("taint", Reason::Write, CHANGES),
    ("uncordon", Reason::Write, CHANGES),
    ("rollout pause", Reason::Write, CHANGES),
    ("rollout restart", Reason::Write, CHANGES),
    ("rollout resume", Reason::Write, CHANGES),
    ("rollout undo", Reason::Write, CHANGES),
    ("auth reconcile", Reason::Write, CHANGES),
    ("attach", Reason::Acts, ENTERS),
    ("cp", Reason::Acts, ENTERS),
    ("exec", Reason::Acts, ENTERS),
    ("port-forward", Reason::Acts, ENTERS),
    ("proxy", Reason::Acts, ENTERS),
    (
        "auth whoami",
        Reason::Elsewhere,
        "commands run as the account kestrel-executor, with the rights in docs/security.md",
    ),
    ("config", Reason::Elsewhere, CONFIG),
    ("kuberc", Reason::Elsewhere, CONFIG),
    ("cluster-info dump", Reason::TooLarge, "it would be all of the cluster: ask for what you look for"),
    ("diff", Reason::File, FILE),
    ("kustomize", Reason::File, "there are no files"),
    ("plugin", Reason::Unknown, "there are no plugins"),
    ("krew", Reason::Unknown, "there are no plugins"),
    (
        "wait",
        Reason::Endless,
        "nothing is waited for: ask for rollout status, or get with -o jsonpath, again",
    ),
    ("alpha", Reason::Unknown, "there are no alpha commands"),
    ("completion", Reason::Unknown, "there is no shell"),
    ("options", Reason::Unknown, "docs/commands.md has the flags"),
    ("help", Reason::Unknown, "docs/commands.md has the commands"),
    ("top", Reason::Unknown, "it is top pod or top node"),
    ("auth", Reason::Unknown, "it is auth can-i"),
];

/// Other programs that are asked for, why they do not run, and what to ask for instead.
pub(crate) const PROGRAMS: [(&[&str], Reason, &str); 15] = [
    (
        &[
            "bash", "sh", "zsh", "ash", "dash", "busybox", "eval", "exec", "source", "sudo", "su", "xargs",
            "env", "timeout", "nohup", "watch", "time", "chroot", "nsenter", "unshare",
        ],
        Reason::Shell,
        "no shell is ever started, and no program starts another: send the command itself",
    ),
    (
        &[
            "cat", "ls", "find", "less", "more", "tee", "cp", "mv", "rm", "touch", "mkdir", "chmod", "stat",
            "file", "tar", "gzip", "base64", "xxd", "strings", "dd", "vi", "nano", "pwd", "cd", "df", "du",
        ],
        Reason::File,
        "there are no files in reach: kubectl get and KubernetesAPIRequest read the cluster",
    ),
    (
        &["curl", "wget", "nc", "ncat", "netcat", "telnet", "ssh", "scp", "openssl", "socat", "ftp"],
        Reason::Elsewhere,
        "nothing is asked for from other servers: KubernetesAPIRequest reads the API, kubectl get endpointslices and describe service say where a Service leads",
    ),
    (
        &["jq", "yq", "awk", "gawk", "sed", "perl", "python", "python3", "node", "ruby", "tr"],
        Reason::Unknown,
        "no program that has a language of its own is run: -o jsonpath and -o custom-columns pick fields, and behind a pipe there are grep, head, tail, wc, sort, uniq and cut",
    ),
    (
        &["helm"],
        Reason::Secret,
        "releases of Helm are kept in Secrets: kubectl get deploy,sts,ds -A -L app.kubernetes.io/managed-by,helm.sh/chart shows what they made",
    ),
    (
        &["cilium", "cilium-dbg", "hubble"],
        Reason::Acts,
        "Cilium's own programs run inside its pods: kubectl get ciliumendpoints,ciliumnetworkpolicies,ciliumnodes -A shows what they know",
    ),
    (
        &["istioctl", "linkerd"],
        Reason::Acts,
        "the mesh's own program enters its pods: kubectl get virtualservices,destinationrules,authorizationpolicies -A shows what is configured",
    ),
    (
        &["argocd", "flux"],
        Reason::Elsewhere,
        "its server is not asked: kubectl get applications.argoproj.io or kubectl get kustomizations,helmreleases -A shows the state",
    ),
    (&["kubectl-argo-rollouts"], Reason::Unknown, "kubectl get rollouts.argoproj.io -o wide shows the state"),
    (
        &[
            "trivy",
            "grype",
            "kube-bench",
            "kubesec",
            "popeye",
            "k9s",
            "stern",
            "kubectx",
            "kubens",
            "ctr",
            "docker",
            "nerdctl",
            "podman",
        ],
        Reason::Unsupported,
        "this program is not in the operator's image, which has no other programs",
    ),
    (
        &["ss", "ip", "conntrack", "ethtool", "nstat", "sysctl", "dig", "nslookup", "tcpdump", "crictl"],
        Reason::Malformed,
        "it is asked of a node: kubectl debug node/NAME -- COMMAND",
    ),
    (
        &[
            "netstat",
            "ifconfig",
            "arp",
            "route",
            "iptables",
            "iptables-save",
            "ip6tables-save",
            "nft",
            "ipset",
            "ipvsadm",
            "tshark",
            "bpftool",
            "bpftrace",
            "lsof",
            "traceroute",
            "ping",
            "host",
            "mtr",
        ],
        Reason::Unsupported,
        "what is read of a node is ss, ip, conntrack, ethtool, nstat, sysctl, dig, nslookup, tcpdump, crictl and nc -z: kubectl debug node/NAME -- COMMAND",
    ),
    (
        &[
            "ps",
            "top",
            "htop",
            "uptime",
            "free",
            "vmstat",
            "iostat",
            "dmesg",
            "journalctl",
            "systemctl",
            "mount",
            "id",
            "whoami",
            "uname",
            "hostname",
            "printenv",
            "export",
            "set",
            "history",
            "kill",
        ],
        Reason::Unsupported,
        "this is of a host or a container, and is not read: kubectl top, kubectl describe node and events tell of it",
    ),
    (
        &["aws", "gcloud", "az", "eksctl", "terraform", "vault"],
        Reason::Elsewhere,
        "nothing is asked for from a cloud's own API",
    ),
    (
        &["oc", "k", "kubectl.exe", "k3s", "minikube", "kind"],
        Reason::Unknown,
        "the program is called kubectl",
    ),
];

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
    /// Reads the words behind `kubectl`.
    ///
    /// # Errors
    /// It is nothing that runs.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Refused> {
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
        let kubectl = Self { verb, arguments, format, sort, words, host };
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
            Does::RolloutStatus if self.arguments.flag("watch") == Some(true) => Err(Refused::new(
                Reason::Endless,
                "nothing is waited for: ask again, with --watch=false or without it",
            )),
            Does::Version | Does::ApiResources | Does::ApiVersions | Does::ClusterInfo | Does::Events
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
        for (flag, longest) in [("selector", 4096), ("field-selector", 4096), ("label-columns", 1024)] {
            if self.arguments.value(flag).is_some_and(|value| value.len() > longest) {
                return Err(Refused::new(Reason::TooLarge, format!("--{flag} is too long")));
            }
        }
        Ok(())
    }
}

/// kubectl finds its word also behind flags; those that stand before it must be of all words.
fn find_verb(words: &[String]) -> Result<(&'static Verb, Vec<String>), Refused> {
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
