//! The tools of which a part is answered, their flags, and why the others are not.

use kestrel_proto::node::v1::host_read::What;

use super::{
    super::flags::{Arguments, Flag, Never, flag, never, value},
    reads,
};
use crate::executor::reason::{Reason, Refused};

/// A tool of which a part is answered.
#[derive(Debug)]
pub(crate) struct Tool {
    pub word: &'static str,
    pub flags: &'static [Flag],
    pub never: &'static [Never],
    pub read: fn(&Arguments) -> Result<What, Refused>,
}

pub(super) const READS: &str = "reads change nothing";
const NO_FILE: &str = "there are no files in reach";

/// What is answered.
pub(crate) const TOOLS: [Tool; 17] = [
    Tool {
        word: "ss",
        flags: &[
            flag("tcp", Some('t')),
            flag("udp", Some('u')),
            flag("unix", Some('x')),
            flag("listening", Some('l')),
            flag("all", Some('a')),
            flag("numeric", Some('n')),
            flag("ipv4", Some('4')),
            flag("ipv6", Some('6')),
            flag("summary", Some('s')),
        ],
        never: &[
            never(
                "processes",
                Some('p'),
                Reason::Unknown,
                "which process has a socket is not seen from the agent's pod: leave -p out",
            ),
            never("kill", Some('K'), Reason::Write, READS),
            never("diag", Some('D'), Reason::File, NO_FILE),
            never("filter", Some('F'), Reason::File, NO_FILE),
            never("events", Some('E'), Reason::Endless, "events never end: ask again instead"),
            never("net", Some('N'), Reason::Elsewhere, "the node's own network is read"),
        ],
        read: reads::sockets,
    },
    Tool {
        word: "ip",
        flags: &[flag("ipv4", Some('4')), flag("ipv6", Some('6')), flag("statistics", Some('s'))],
        never: &[
            never("batch", Some('b'), Reason::File, NO_FILE),
            never("netns", Some('n'), Reason::Elsewhere, "the node's own network is read"),
        ],
        read: reads::addresses_and_routes,
    },
    Tool {
        word: "conntrack",
        flags: &[flag("dump", Some('L')), flag("stats", Some('S')), flag("count", Some('C'))],
        never: &[
            never("delete", Some('D'), Reason::Write, READS),
            never("flush", Some('F'), Reason::Write, READS),
            never("create", Some('I'), Reason::Write, READS),
            never("update", Some('U'), Reason::Write, READS),
            never("load-file", Some('R'), Reason::File, NO_FILE),
            never("event", Some('E'), Reason::Endless, "events never end: ask again instead"),
        ],
        read: reads::connections,
    },
    Tool {
        word: "ethtool",
        flags: &[flag("statistics", Some('S'))],
        never: &[
            never("change", Some('s'), Reason::Write, READS),
            never("features", Some('K'), Reason::Write, READS),
            never("reset", None, Reason::Write, READS),
            never("flash", Some('f'), Reason::Write, READS),
        ],
        read: reads::interface_counters,
    },
    Tool {
        word: "nstat",
        flags: &[flag("ignore", Some('a')), flag("zeros", Some('z'))],
        never: &[never("reset", Some('r'), Reason::Write, READS)],
        read: reads::protocol_counters,
    },
    Tool {
        word: "sysctl",
        flags: &[],
        never: &[
            never("write", Some('w'), Reason::Write, READS),
            never("load", Some('p'), Reason::File, NO_FILE),
            never("system", None, Reason::File, NO_FILE),
            never("all", Some('a'), Reason::TooLarge, "name the settings: at most 50"),
        ],
        read: reads::settings,
    },
    Tool {
        word: "dig",
        flags: &[value("type", Some('t')), value("reverse", Some('x'))],
        never: &[
            never("file", Some('f'), Reason::File, NO_FILE),
            never("key", Some('k'), Reason::File, NO_FILE),
        ],
        read: reads::records,
    },
    Tool { word: "nslookup", flags: &[], never: &[], read: reads::addresses_of },
    Tool {
        word: "nc",
        flags: &[flag("zero", Some('z')), flag("verbose", Some('v')), value("wait", Some('w'))],
        never: &[
            never("exec", Some('e'), Reason::Acts, "a connection is opened and closed: nc -z HOST PORT"),
            never("sh-exec", Some('c'), Reason::Acts, "a connection is opened and closed: nc -z HOST PORT"),
            never("listen", Some('l'), Reason::Acts, "a connection is opened and closed: nc -z HOST PORT"),
            never("proxy", Some('x'), Reason::Elsewhere, "the node itself connects"),
            never("udp", Some('u'), Reason::Unknown, "UDP does not say whether anybody listens"),
        ],
        read: reads::connect,
    },
    Tool {
        word: "tcpdump",
        flags: &[
            value("interface", Some('i')),
            flag("numeric", Some('n')),
            value("count", Some('c')),
            value("seconds", Some('G')),
            value("write", Some('w')),
        ],
        never: &[
            never("payload", Some('A'), Reason::Unknown, HEADS),
            never("hex", Some('x'), Reason::Unknown, HEADS),
            never("hex-and-ascii", Some('X'), Reason::Unknown, HEADS),
            never("snapshot-length", Some('s'), Reason::Unknown, HEADS),
            never("read", Some('r'), Reason::File, NO_FILE),
            never("filter-file", Some('F'), Reason::File, NO_FILE),
            never("file-size", Some('C'), Reason::File, NO_FILE),
            never("postrotate", Some('z'), Reason::Shell, "no program is started"),
            never("relinquish-privileges", Some('Z'), Reason::Elsewhere, "no program is started"),
            never("monitor-mode", Some('I'), Reason::Write, READS),
        ],
        read: reads::packets,
    },
    Tool { word: "crictl", flags: &[flag("all", Some('a'))], never: &[], read: reads::containers },
    Tool {
        word: "nft",
        flags: &[flag("handle", Some('a')), flag("numeric", Some('n'))],
        never: &[
            never("file", Some('f'), Reason::File, NO_FILE),
            never("includepath", Some('I'), Reason::File, NO_FILE),
            never("define", Some('D'), Reason::Unknown, RULES),
            never("interactive", Some('i'), Reason::Endless, RULES),
            never("json", Some('j'), Reason::Unknown, RULES),
            never("check", Some('c'), Reason::Write, READS),
        ],
        read: reads::rules,
    },
    iptables("iptables", reads::rules_of_ipv4),
    iptables("ip6tables", reads::rules_of_ipv6),
    iptables_save("iptables-save", reads::rules_of_ipv4),
    iptables_save("ip6tables-save", reads::rules_of_ipv6),
    Tool {
        word: "bpftool",
        flags: &[],
        never: &[
            never("bpffs", Some('f'), Reason::File, NO_FILE),
            never("json", Some('j'), Reason::Unknown, "objects are told in lines: use grep behind a pipe"),
            never("pretty", Some('p'), Reason::Unknown, "objects are told in lines: use grep behind a pipe"),
        ],
        read: reads::bpf_objects,
    },
];

const RULES: &str = "all rules are shown in the words of nft, with their handles: use grep behind a pipe";

const fn iptables(word: &'static str, read: fn(&Arguments) -> Result<What, Refused>) -> Tool {
    const FLAGS: &[Flag] = &[
        flag("list", Some('L')),
        flag("list-rules", Some('S')),
        flag("numeric", Some('n')),
        flag("verbose", Some('v')),
        flag("line-numbers", None),
        flag("exact", Some('x')),
        value("table", Some('t')),
    ];
    const NEVER: &[Never] = &[
        never("append", Some('A'), Reason::Write, READS),
        never("check", Some('C'), Reason::Unknown, RULES),
        never("delete", Some('D'), Reason::Write, READS),
        never("insert", Some('I'), Reason::Write, READS),
        never("replace", Some('R'), Reason::Write, READS),
        never("flush", Some('F'), Reason::Write, READS),
        never("zero", Some('Z'), Reason::Write, READS),
        never("new-chain", Some('N'), Reason::Write, READS),
        never("delete-chain", Some('X'), Reason::Write, READS),
        never("policy", Some('P'), Reason::Write, READS),
        never("rename-chain", Some('E'), Reason::Write, READS),
        never("jump", Some('j'), Reason::Write, READS),
        never("modprobe", None, Reason::Shell, "no program is started"),
    ];
    Tool { word, flags: FLAGS, never: NEVER, read }
}

const fn iptables_save(word: &'static str, read: fn(&Arguments) -> Result<What, Refused>) -> Tool {
    const FLAGS: &[Flag] = &[flag("counters", Some('c')), value("table", Some('t'))];
    const NEVER: &[Never] = &[
        never("file", Some('f'), Reason::File, NO_FILE),
        never("modprobe", Some('M'), Reason::Shell, "no program is started"),
    ];
    Tool { word, flags: FLAGS, never: NEVER, read }
}

const HEADS: &str = "the heads of packets are captured, whole, and never what they carry";

/// What is known of nodes and not answered, and why.
pub(crate) const NOT_ANSWERED: [(&[&str], Reason, &str); 4] = [
    (
        &["ipset", "ipvsadm", "ebtables", "arptables"],
        Reason::Unsupported,
        "of the firewall the rules and sets of nf_tables are read: nft list ruleset",
    ),
    (
        &["bpftrace", "perf", "strace"],
        Reason::Unsupported,
        "nothing is loaded into the kernel and no process is traced: bpftool prog show says what is loaded",
    ),
    (&["tshark", "dumpcap", "ngrep"], Reason::Unsupported, "packets are captured in the words of tcpdump"),
    (
        &["ctr", "nerdctl", "docker", "podman"],
        Reason::Unsupported,
        "the runtime is asked in the words of crictl",
    ),
];
