//! The whole uplink against a simulated server, in virtual time: whatever
//! happens between them, and in whatever order, everything arrives.
//!
//! `KESTREL_SEED=7 cargo test -p kestrel-aggregator simulation` plays one seed
//! again, `KESTREL_SEEDS=5000 …` plays so many.

mod chaos;
mod inside;
mod network;
mod peer;
mod stories;
mod world;

use std::{
    collections::BTreeMap,
    env,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, Keepalive, Retry,
    credentials::{Bootstrap, Credentials, TokenSource},
};
use inside::Inside;
use world::World;

/// Seeds of the ordinary run.
const SEEDS: u64 = 300;
/// After the last fault everything must be well within this: the longest
/// back-off, a stream that is tried again late, and the resend window.
const RECOVERY: Duration = Duration::from_secs(20 * 60);
/// Connections within any minute: the first few waits of a back-off are short.
const CONNECTIONS_PER_MINUTE: usize = 15;

/// As in production, but for one time.
fn config() -> Config {
    Config {
        host: "simulation".to_owned(),
        port: 1,
        server_name: "simulation".to_owned(),
        proxy: None,
        credentials: Credentials::new(Bootstrap {
            client_certificate: "/nonexistent".into(),
            client_key: "/nonexistent".into(),
            authority: "/nonexistent".into(),
            // {"tenant":"acme"}
            token: TokenSource::Text("e30.eyJ0ZW5hbnQiOiJhY21lIn0.c2ln".into()),
            insecure: false,
            look: Duration::from_secs(3600),
        }),
        keepalive: Keepalive { interval: Duration::from_secs(20), timeout: Duration::from_secs(10) },
        retry: Retry {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            // Often soon enough that traffic comes back to a stream under load.
            absent: Duration::from_secs(if fastrand::bool() { 30 } else { 300 }),
        },
    }
}

/// Runs something in virtual time, the same way for the same seed.
fn run<T>(seed: u64, story: impl Future<Output = T>) -> T {
    fastrand::seed(seed);
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(story)
}

/// Plays one seed; the answer is what is wrong at its end.
fn play(seed: u64) -> Result<(), String> {
    run(seed, async {
        let windows = chaos::windows(seed);
        let world = Arc::new(World::new(seed, windows));
        let drain = CancellationToken::new();
        let inside = Inside::start(&world, &drain);
        chaos::run(seed, &world, &inside).await;
        inside.rest();
        let deadline = Instant::now() + RECOVERY;
        while let Err(wrong) = inside.is_well(&world) {
            if Instant::now() > deadline {
                return Err(wrong);
            }
            sleep(Duration::from_secs(1)).await;
        }
        inside.order(&world)?;
        let connections = world.record(|record| record.connections.clone());
        let most = (0..connections.len())
            .map(|first| {
                let minute = connections[first] + Duration::from_secs(60);
                connections[first..].iter().take_while(|later| **later < minute).count()
            })
            .max();
        if most > Some(CONNECTIONS_PER_MINUTE) {
            return Err(format!("{most:?} connections within a minute"));
        }
        drain.cancel();
        timeout(Duration::from_secs(10), inside.ended()).await.map_err(|_| "it does not end".to_owned())
    })
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Plays seeds on two threads; the answer is what is wrong with which.
fn play_all(seeds: Range<u64>) -> BTreeMap<u64, String> {
    let next = AtomicU64::new(seeds.start);
    let play_some = || {
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        mine.take_while(|seed| *seed < seeds.end)
            .filter_map(|seed| Some((seed, play(seed).err()?)))
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(play_some));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn whatever_happens_everything_arrives() {
    let seeds = match number("KESTREL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KESTREL_SEEDS").unwrap_or(SEEDS),
    };
    let wrong = play_all(seeds);
    if let Some((seed, _)) = wrong.first_key_value() {
        panic!("KESTREL_SEED={seed} plays the first of these again: {wrong:#?}");
    }
}
