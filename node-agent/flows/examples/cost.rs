//! What flows cost, for `hack/bench flows`.
//!
//!     cost read SOCKET    reads a server to its end: prints how many came, how many were different, microseconds of
//!                         processor time
//!     cost count KEYS     prints how many flows of so many kinds a second of processor time counts: the map alone, and
//!                         with the names of both ends, as Hubble has them
//!     cost bound KEYS     as many kinds in a window as the agent has: prints how many were counted, how many left out, and
//!                         KiB that were resident at most

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a rig that says what it found, or stops")]

use std::{env, fs, hint::black_box, sync::Mutex, time::Duration};

use kestrel_flows::{
    counts::Counts,
    flow::{Direction, Flow, Peer, Source, Verdict},
    hubble::Hubble,
    window::{self, Window},
};
use kestrel_proto::hubble::flow::Endpoint;
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixStream;

/// Of the map's own speed, its names are few.
const PODS: usize = 1000;

/// Flows counted for a figure.
const UPDATES: usize = 20_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<_> = env::args().skip(1).collect();
    let number = |text: &str| text.parse().expect("a number");
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", socket] => read(socket).await,
        ["count", keys] => count(number(keys)),
        ["bound", keys] => bound(number(keys)),
        _ => println!("usage: cost read SOCKET | count KEYS | bound KEYS"),
    }
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn read(socket: &str) {
    let window = Mutex::new(Window::new(window::MOST_FLOWS));
    let counts = Counts::default();
    let stream = UnixStream::connect(socket).await.expect("a server");
    Hubble::of_node(counts.clone()).read(stream, "http://localhost", &window, |_| {}).await;
    let cpu = cpu();
    let parts = window.lock().expect("no panic").close();
    let (different, total) =
        parts.flatten().fold((0, 0), |(different, total), flow| (different + 1, total + flow.count));
    println!("{total} {different} {}", cpu.as_micros());
}

/// Endpoints with five labels each.
fn endpoints() -> Vec<Vec<u8>> {
    let endpoint = |number: usize| Endpoint {
        namespace: "shop".to_owned(),
        pod_name: format!("service-7d9f8b6c5-{number:05}"),
        labels: (0..5).map(|label| format!("k8s:app.kubernetes.io/label-{label}=service-{number}")).collect(),
        ..Endpoint::default()
    };
    (0..PODS).map(|number| endpoint(number).encode_to_vec()).collect()
}

/// The flow of this kind.
fn flow(endpoints: &[Vec<u8>], kind: usize) -> Flow<'_> {
    let peer = |pod: usize| {
        let [high, low] = (pod as u16).to_be_bytes();
        Peer { address: Some([10, 0, high, low].into()), endpoint: &endpoints[pod], ..Peer::default() }
    };
    Flow {
        source: peer(kind % PODS),
        destination: peer((kind * 7 + 1) % PODS),
        port: (kind / PODS) as u16,
        protocol: 6,
        verdict: Verdict::Forwarded,
        direction: Direction::Egress,
        seen_by: Source::Hubble,
        time: 1,
        bytes_sent: 0,
        bytes_received: 0,
        reason: "",
        policies: &[],
    }
}

fn count(keys: usize) {
    println!("{:.0} {:.0}", rate(&vec![Vec::new(); PODS], keys), rate(&endpoints(), keys));
}

/// Flows that are counted in a second of processor time.
fn rate(endpoints: &[Vec<u8>], keys: usize) -> f64 {
    let mut window = Window::new(keys);
    for kind in 0..keys {
        assert!(window.add(&flow(endpoints, kind)), "there is room");
    }
    let mut random = fastrand::Rng::new();
    let begun = cpu();
    for _ in 0..UPDATES {
        assert!(window.add(black_box(&flow(endpoints, random.usize(..keys)))));
    }
    UPDATES as f64 / (cpu() - begun).as_secs_f64()
}

fn bound(keys: usize) {
    let (endpoints, mut window) = (endpoints(), Window::new(window::MOST_FLOWS));
    let counted = (0..keys).filter(|kind| window.add(&flow(&endpoints, *kind))).count();
    let told: usize = window.close().map(|part| black_box(part).len()).sum();
    assert_eq!(counted, told);
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    println!("{counted} {} {}", keys - counted, peak.trim().trim_end_matches(" kB"));
}
