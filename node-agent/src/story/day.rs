//! A day of a node, from its files to its log.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use kestrel_link::{Event as LinkEvent, Session, ship::Shipper};
use kestrel_proto::node::v1::Welcome;
use kestrel_tail::{
    budget::Limits,
    discover::{Layout, Source},
    engine::{Engine, Policy},
    position::store::Store,
    redact::{Expressions, Redactor},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    agent::beginning,
    config::Config,
    host::{
        condition::Conditions,
        file_systems::{FileSystem, Room},
        kubelet::{Kubelet, Probes},
        sample::{Places, Sample},
    },
    status::Moment,
};

/// The host is looked at this often.
const LOOK: u64 = 10;
/// It had run for so many seconds when the day began.
const UPTIME: u64 = 1_000_000;
const UID: &str = "0a0b0c0d-1111-2222-3333-444455556666";

/// A node whose day is simulated: its files are real, its clocks are not.
struct Node {
    directory: TempDir,
    config: Config,
    places: Places,
    conditions: Conditions,
    shipper: Shipper,
    story: Story,
    start: (Instant, SystemTime),
    kernel_log: String,
    log: Vec<String>,
}

/// Seconds of the day.
fn at(hour: u64, minute: u64) -> u64 {
    (hour * 60 + minute) * 60
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let variables = [
            ("NODE_NAME", "node-7".to_owned()),
            ("POD_NAMESPACE", "kestrel-ai".to_owned()),
            ("POD_NAME", "kestrel-node-agent-x2v9k".to_owned()),
            ("KESTREL_POD_LOGS_DIR", path("pods")),
            ("KESTREL_STATE_DIR", path("state")),
            ("KESTREL_PROC_DIR", path("proc")),
            ("KESTREL_HOST_DIR", path("host")),
            ("KESTREL_KERNEL_LOG", "true".to_owned()),
            ("KESTREL_CONNTRACK", "true".to_owned()),
            ("KESTREL_PRESSURE_CPU", "0".to_owned()),
            ("KESTREL_RUNTIME_SOCKET", "/run/containerd/containerd.sock".to_owned()),
            ("KESTREL_PROBE_SECONDS", "5".to_owned()),
        ];
        let variables: BTreeMap<&str, &str> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let config = Config::read(&variables).unwrap();
        let source = Source { directory: config.pod_logs.clone(), layout: Layout::Pods { except: None } };
        let store = Store::empty(&config.state.join("positions"));
        let engine = Engine::new(vec![source], store, Redactor::new(Expressions::default()));
        let start = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_305_600));
        let places = config.host.watched(config.pod_logs.clone(), Probes::default()).places;
        let node = Self {
            conditions: Conditions::new(config.host.pressure, Kubelet::new(config.host.probes)),
            shipper: Shipper::new(engine, start.0),
            story: Story::default(),
            kernel_log: "<6>[    0.000000] Linux version 6.12\n".to_owned(),
            log: Vec::new(),
            directory,
            config,
            places,
            start,
        };
        fs::create_dir_all(&node.config.state).unwrap();
        for (file, text) in [
            ("proc/meminfo", "MemAvailable: 8388608 kB\n"),
            ("proc/loadavg", "0.20 0.18 0.12 2/811 12345\n"),
            ("proc/sys/kernel/threads-max", "100000\n"),
            ("proc/sys/kernel/pid_max", "4194304\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ] {
            node.write(file, text);
        }
        node.stalls("0.10");
        node.connections(20_000);
        let pods = [
            format!("shop_web-7d4b9c-x1_{UID}/app"),
            "shop_db-0_1b1b/postgres".to_owned(),
            "kube-system_coredns-5d78c9-k2_2c2c/coredns".to_owned(),
            "kube-system_kube-proxy-h8_3d3d/kube-proxy".to_owned(),
        ];
        pods.iter().for_each(|pod| node.write(&format!("pods/{pod}/0.log"), ""));
        node
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The share of a minute in which all tasks waited for memory.
    fn stalls(&self, share: &str) {
        let of = |share: &str| {
            format!(
                "some avg10=0.00 avg60={share} avg300=0.00 total=1\nfull avg10=0.00 avg60={share} avg300=0.00 total=1\n"
            )
        };
        self.write("proc/pressure/memory", &of(share));
        ["cpu", "io"].iter().for_each(|other| self.write(&format!("proc/pressure/{other}"), &of("0.10")));
    }

    fn connections(&self, entries: u64) {
        let table = format!("entries insert_failed drop\n{entries:08x} 00000000 00000000\n");
        self.write("host/proc/1/net/stat/nf_conntrack", &table);
    }

    fn killed(&mut self, second: u64, pid: u64) {
        let group = format!("/kubepods/burstable/pod{UID}/9f86d081884c7d65");
        let time = UPTIME + second;
        self.kernel_log += &format!(
            "<6>[{time}.000001] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg={group},task_memcg={group},task=java,pid={pid},uid=0\n\
             <3>[{time}.000002] Memory cgroup out of memory: Killed process {pid} (java) total-vm:1kB, anon-rss:524288kB, file-rss:0kB\n"
        );
    }

    fn tell(&mut self, second: u64, sentences: impl IntoIterator<Item = Sentence>) {
        let folder = format!("{}/", self.directory.path().display());
        for sentence in sentences {
            let (level, text) = match sentence {
                Sentence::Note(text) => (" INFO", text),
                Sentence::Warning(text) => (" WARN", text),
            };
            let text = text.replace(&format!("{folder}pods"), "/var/log/pods");
            let text = text.replace(&format!("{folder}state"), "/var/lib/kestrel");
            let text = text.replace(&folder, "/");
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            self.log.push(format!("2026-11-22T{hour:02}:{minute:02}:{second:02}Z {level} {text}"));
        }
    }

    fn now(&self, second: u64) -> Instant {
        self.start.0 + Duration::from_secs(second)
    }

    fn connect(&mut self, second: u64) {
        let (messages, _nobody_takes) = mpsc::channel(1);
        let welcome = Welcome {
            protocol_version: 1,
            credit_bytes: 4 << 20,
            max_batch_bytes: 4 << 20,
            ..Welcome::default()
        };
        let session = Session::open(&welcome, messages).unwrap();
        self.shipper.take(LinkEvent::Connected { session, software_version: String::new(), clock: None });
        let sentence = self.story.connected(&self.config.endpoint);
        self.tell(second, [sentence]);
    }

    fn disconnect(&mut self, second: u64, reason: &str) {
        let (reason, retry_in) = (reason.to_owned(), Duration::from_secs(30));
        let sentence = self.story.disconnected(&reason, retry_in, self.now(second));
        self.shipper.take(LinkEvent::Disconnected { reason, retry_in });
        self.tell(second, sentence);
    }

    /// What the agent does at a moment of the day, in which the host is so.
    fn look(&mut self, second: u64, disk_free: u64, runtime: Result<String, String>, clock_off: i64) {
        let now = self.now(second);
        let wall = self.start.1 + Duration::from_secs(second.checked_add_signed(clock_off).unwrap());
        let room = Room { available: disk_free << 30, size: 100 << 30, inodes_free: 90, inodes: 100 };
        let sample = Sample {
            wall,
            steady: now,
            file_systems: vec![FileSystem { folder: "/var/log/pods".to_owned(), room: Ok(room) }],
            kernel_log: Some(Ok((self.kernel_log.clone(), Duration::from_secs(UPTIME + second)))),
            runtime: Some(runtime),
            kubelet: Some(Duration::from_secs(second % 5)),
            ..self.places.look()
        };
        let (_, events) = self.conditions.update(&sample);
        let mut told = self.story.conditions(self.conditions.current(), now);
        told.extend(events.iter().filter_map(|event| self.story.happened(event, now)));
        told.extend(self.story.repeated(now));
        let engine = &mut self.shipper.engine;
        engine.scan(now);
        engine.assign(|_| Some(Policy::Errors));
        told.extend(self.story.pods(engine.origins(), &self.config.pod_logs, now));
        let news = engine.news();
        told.extend(self.story.problems(news, now));
        if second.is_multiple_of(600) && second > 0 {
            let moment = Moment {
                node: &self.config.node,
                age: Duration::from_secs(second),
                endpoint: &self.config.endpoint,
                shipper: &self.shipper,
                limits: Limits::default(),
                flows: (vec!["the log of ztunnel".to_owned()], Vec::new()),
                conditions: self.conditions.current(),
            };
            let (state, summary) = (moment.state(), moment.summary());
            told.extend(self.story.summary(state, summary, now));
        }
        self.tell(second, told);
    }

    /// A CronJob's pod of each minute; those before the last three are deleted.
    fn cron_job(&self, second: u64) {
        let pod =
            |minute: u64| format!("pods/jobs_report-{:08}-q{}_c{minute}", 29_921_760 + minute, minute % 10);
        let minute = second / 60;
        self.write(&format!("{}/report/0.log", pod(minute)), "");
        if let Some(old) = minute.checked_sub(3) {
            fs::remove_dir_all(self.directory.path().join(pod(old))).unwrap();
        }
    }
}

fn day() -> Vec<String> {
    let mut node = Node::new();
    let sentences = beginning(&node.config);
    node.tell(0, sentences);
    node.connect(0);
    for second in (0..at(24, 0)).step_by(LOOK as usize) {
        if second.is_multiple_of(60) {
            node.cron_job(second);
        }
        // A leak in a program, which is started again each time.
        if (at(3, 12)..at(4, 30)).contains(&second) && (second - at(3, 12)).is_multiple_of(240) {
            node.killed(second, 4200 + second / 60);
        }
        // A network policy that forgot the agents.
        if (at(5, 30)..at(6, 10)).contains(&second) && second.is_multiple_of(30) {
            let reason = "https://kestrel-agent-link.kestrel-ai.svc:8443: kestrel-agent-link.kestrel-ai.svc:8443 can't be reached: no answer in 10 s; does a NetworkPolicy keep this pod from TCP port 8443 of the operator's namespace?";
            node.disconnect(second, reason);
        }
        if second == at(6, 10) {
            node.connect(second);
        }
        // A disk that fills up for an hour and a half.
        let disk_free = match second {
            second if second < at(8, 0) => 40,
            second if second < at(9, 30) => 40 - (second - at(8, 0)) / 150,
            _ => 40,
        };
        // A roll-out.
        if second == at(11, 0) {
            for number in 0..20 {
                node.write(&format!("pods/shop_cart-6f5d-{number}_e{number}/app/0.log"), "");
            }
        }
        let runtime = if (at(13, 40)..at(13, 41)).contains(&second) {
            Err("no answer in 5 s".to_owned())
        } else {
            Ok("containerd 2.1.0".to_owned())
        };
        // Two pods that take each other's memory.
        if (at(15, 0)..at(15, 30)).contains(&second) {
            node.stalls(if (second / 60).is_multiple_of(2) { "24.00" } else { "1.00" });
        } else if second == at(15, 30) {
            node.stalls("0.10");
        }
        if second == at(17, 20) {
            node.connections(243_000);
        } else if second == at(17, 32) {
            node.connections(60_000);
        }
        let clock_off = if second < at(18, 0) { 0 } else { -4 };
        if second == at(20, 0) {
            let path = PathBuf::from("/var/log/pods/shop_db-0_1b1b/postgres/0.log");
            let news =
                News { path: path.clone(), problem: Some("Input/output error (os error 5)".to_owned()) };
            let now = node.now(second);
            let told = node.story.problems(vec![news], now);
            node.tell(second, told);
        }
        if second == at(20, 30) {
            let path = PathBuf::from("/var/log/pods/shop_db-0_1b1b/postgres/0.log");
            let now = node.now(second);
            let told = node.story.problems(vec![News { path, problem: None }], now);
            node.tell(second, told);
        }
        node.look(second, disk_free, runtime, clock_off);
    }
    node.log
}

/// What [troubleshooting](../../../docs/troubleshooting.md) shows.
#[test]
fn a_day_is_a_page_in_plain_sentences_and_the_documents_show_it() {
    let log = day();
    let text = log.join("\n");
    assert!(log.len() <= 80, "{} lines:\n{text}", log.len());
    for line in &log {
        let sentence = line.get(28..).unwrap_or_default();
        assert!(sentence.contains(' ') && !sentence.contains("{\"") && !sentence.contains("Some("), "{line}");
    }
    // Who reads it can say what happened.
    for part in [
        "the kernel killed java",
        "no connection to the aggregator",
        "kestrel.ai/DiskPressure is True",
        "kestrel.ai/DiskPressure is False",
        "kestrel.ai/RuntimeReady is False",
        "kestrel.ai/RuntimeReady is True",
        "kestrel.ai/MemoryStalled is True",
        "kestrel.ai/ConntrackPressure is True",
        "the clock of the node was set back by 4.0 s",
        "Input/output error",
        "no problem any more",
        "as it stands: connected",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let new = log.iter().filter_map(|line| line.split_once("; new: ")?.1.split_once(" pods")?.0.parse().ok());
    assert!(new.into_iter().any(|new: u32| new >= 20), "a roll-out in\n{text}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");
    let document = fs::read_to_string(path).unwrap();
    let shown =
        document.split("<!-- a day -->\n```text\n").nth(1).and_then(|rest| rest.split("\n```").next());
    assert_eq!(shown, Some(text.as_str()), "docs/troubleshooting.md has to show:\n{text}");
}
