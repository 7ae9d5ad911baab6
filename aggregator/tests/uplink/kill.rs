//! `kill -9` at random moments: no signal that was taken in is missing.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kestrel_aggregator::{
    inventory::Mirror,
    uplink::{
        Keepalive, Uplink,
        lanes::{Lane, Lanes},
        metrics::{DropLabel, DropReason, Metrics},
        spool::Spool,
    },
};
use kestrel_dev_cloud::{Authority, Cloud};
use kestrel_proto::cloud::v1::{KubernetesEvent, stream_events_request::Request as Signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::rig::{LIMIT, cloud, config, write_credentials};

/// Times the process is killed; `KESTREL_KILLS` sets another number.
const KILLS: u64 = 10;
/// Numbers of one life of the process begin this much above those of the one before.
const LIFE: u64 = 1_000_000;

const FOLDER: &str = "KESTREL_TEST_KILLED_FOLDER";
const PORT: &str = "KESTREL_TEST_KILLED_PORT";
const FIRST: &str = "KESTREL_TEST_KILLED_FIRST";

/// The process that is killed: takes in numbered signals, and says each number
/// with the time when that was done, and until when all signals have left the
/// resend window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other test starts it"]
async fn victim() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let number = |name| env::var(name).unwrap().parse::<u64>().unwrap();
    kestrel_runtime::tls::install_provider();
    let metrics = Metrics::default();
    let spool =
        Spool { folder: Path::new(&folder).join("spool"), bytes: 1 << 30, age: Duration::from_secs(3600) };
    let lanes = Lanes::with_spool(metrics.clone(), &spool);
    let label = DropLabel { lane: Lane::Signals, reason: DropReason::Corrupt };
    println!("corrupt {} 0", metrics.dropped.get_or_create(&label).get());
    lanes.lead();
    let mut config = config(Path::new(&folder), number(PORT) as u16);
    // Some of the signals of one life leave the window in it.
    config.keepalive =
        Keepalive { interval: Duration::from_millis(100), timeout: Duration::from_millis(300) };
    let mirror = Mirror::default();
    let uplink = Uplink::new(config, lanes.clone(), mirror, Arc::new(|_, _| {}), metrics);
    tokio::spawn(async move { uplink.run(&CancellationToken::new()).await });
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for next in number(FIRST).. {
        if next % 4 == 0 {
            tick.tick().await;
            println!("told {} 0", lanes.told_until().as_microsecond());
        }
        // Now and then one that takes a while to write.
        let bytes = if fastrand::u8(..) == 0 { 400_000 } else { fastrand::usize(..500) };
        lanes.signals().send(Signal::KubernetesEvent(KubernetesEvent {
            name: next.to_string(),
            message: "x".repeat(bytes),
            ..Default::default()
        }));
        println!("said {next} {}", Timestamp::now().as_microsecond());
    }
}

/// Killed when the test fails, too.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _it_may_be_dead = self.0.kill();
        let _it_is_dead = self.0.wait();
    }
}

fn start(folder: &Path, cloud: &Cloud, first: u64) -> Victim {
    let child = Command::new(env::current_exe().unwrap())
        .args(["kill::victim", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(PORT, cloud.address().port().to_string())
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn();
    Victim(child.unwrap())
}

/// What one life said until it was killed.
#[derive(Default)]
struct Said {
    /// Numbers with the time when they had been taken in.
    numbers: Vec<(u64, i64)>,
    /// All that came before this time has left the resend window.
    told: i64,
}

/// Lets the victim say `count` numbers, kills it and reads the rest.
fn kill_after(mut victim: Victim, count: usize) -> Said {
    let mut lines = BufReader::new(victim.0.stdout.take().unwrap()).lines();
    let mut said = Said::default();
    let mut read = |said: &mut Said| {
        let Some(line) = lines.next() else { return false };
        let line = line.unwrap();
        // The harness says something of its own, and a line may be cut.
        let words: Vec<_> = line.split(' ').collect();
        if let [word, first, second] = words[..]
            && let (Ok(first), Ok(second)) = (first.parse::<i64>(), second.parse())
        {
            match word {
                "said" => said.numbers.push((first as u64, second)),
                "told" => said.told = first,
                "corrupt" => assert_eq!(first, 0, "the spool is damaged"),
                _ => {}
            }
        }
        true
    };
    while said.numbers.len() < count {
        assert!(read(&mut said), "it ended by itself");
    }
    victim.0.kill().unwrap();
    // What it said before it died.
    while read(&mut said) {}
    said
}

/// What arrived so far, in the order of its first arrival.
#[derive(Default)]
struct Arrived {
    /// How often each number came.
    numbers: BTreeMap<u64, u64>,
    newest: u64,
    total: u64,
}

impl Arrived {
    /// Takes in what is new at the cloud. `left` are numbers up to which all have
    /// left the window before the victim's death, and the streams that were open.
    fn collect(&mut self, cloud: &Cloud, left: u64, streams: u64) {
        let (total, new) = cloud.read(|record| {
            let (total, all) = (record.signals.total(), record.signals.iter());
            let new = all.rev().take((total - self.total) as usize);
            let new: Vec<(u64, u64)> =
                new.map(|arrival| (arrival.facts.name.parse().unwrap(), arrival.stream_id)).collect();
            (total, new)
        });
        assert_eq!(new.len() as u64, total - self.total, "the cloud keeps too few");
        self.total = total;
        for (number, stream) in new.into_iter().rev() {
            let times = self.numbers.entry(number).or_default();
            *times += 1;
            if *times == 1 {
                assert!(number > self.newest, "{number} came after {}", self.newest);
                self.newest = number;
            } else {
                assert!(number > left || stream <= streams, "{number} had left the resend window");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_signal_that_it_took_in() {
    let kills = env::var("KESTREL_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let cloud = cloud(Authority::generate().unwrap(), None).await;
    let folder = tempfile::tempdir().unwrap();
    write_credentials(cloud.authority(), folder.path());
    let (mut arrived, mut said) = (Arrived::default(), Vec::new());
    let (mut left, mut streams) = (0, 0);
    for life in 1..=kills {
        let victim = start(folder.path(), &cloud, life * LIFE);
        // The longest lives are several times as long as the resend window.
        let count = fastrand::usize(1..1500);
        let life = tokio::task::spawn_blocking(move || kill_after(victim, count)).await.unwrap();
        arrived.collect(&cloud, left, streams);
        left =
            life.numbers.iter().rev().find(|(_, time)| *time < life.told).map_or(left, |(number, _)| *number);
        // All streams of this life are among these.
        streams = cloud
            .read(|record| record.connections.openings().iter().map(|opening| opening.id).max().unwrap_or(0));
        said.extend(life.numbers.into_iter().map(|(number, _)| number));
    }
    let last = start(folder.path(), &cloud, (kills + 1) * LIFE);
    let deadline = Instant::now() + LIMIT;
    loop {
        arrived.collect(&cloud, left, streams);
        let missing: Vec<_> = said.iter().filter(|number| !arrived.numbers.contains_key(number)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {} are missing: {missing:?}", missing.len(), said.len());
        sleep(Duration::from_millis(20)).await;
    }
    drop(last);
    assert!(left > 0, "no signal left the resend window before a kill: the test shows too little");
    cloud.stop().await.unwrap();
}
