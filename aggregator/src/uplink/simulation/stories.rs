//! Single faults, and what they must not touch.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt as _, duplex},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    config,
    inside::Inside,
    network::IN_FLIGHT,
    run,
    world::{Event, World},
};
use crate::uplink::{
    connection::Connection, dial::Transport, outbound::FRAME, problem::Problem, queue::MOST_TAKEN,
    stream::Stream,
};

/// Windows with which streams can't stand in each other's way.
const WIDE: (u32, u32) = (16 << 20, 65_535);

/// Waits for something that happens some time.
async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A world and an uplink that is connected, and what happens to them.
fn story<F: Future<Output = ()>>(happens: impl FnOnce(Arc<World>, Arc<Inside>) -> F) {
    story_with(WIDE, happens);
}

/// The same with these windows of the server.
fn story_with<F: Future<Output = ()>>(
    windows: (u32, u32),
    happens: impl FnOnce(Arc<World>, Arc<Inside>) -> F,
) {
    run(1, async {
        let (world, drain) = (Arc::new(World::new(1, windows)), CancellationToken::new());
        let inside = Arc::new(Inside::start(&world, &drain));
        until("five open streams", || inside.view.state().streams.iter().all(|stream| stream.is_open()))
            .await;
        happens(Arc::clone(&world), Arc::clone(&inside)).await;
        inside.rest();
        until("everything arrives", || inside.is_well(&world).is_ok()).await;
        inside.order(&world).unwrap();
        drain.cancel();
        inside.ended().await;
    });
}

fn opened(world: &World) -> [u64; 5] {
    world.record(|record| record.opened)
}

#[test]
fn a_server_that_says_goaway_loses_no_request_and_no_message() {
    story(|world, inside| async move {
        for round in 1..=3 {
            for _ in 0..20 {
                world.ask(Stream::Control);
                world.ask(Stream::Data);
                inside.signal(100);
                inside.flow(0);
            }
            world.happens(Event::GoAway);
            for _ in 0..20 {
                world.ask(Stream::Control);
                inside.signal(100);
            }
            until("a new connection", || inside.view.state().connections > round).await;
            // Those that were asked on the old connection, to the last.
            until("all answers", || world.record(|record| record.count("answer") as u64 == record.asked))
                .await;
            let open = || inside.view.state().streams.iter().all(|stream| stream.is_open());
            until("five open streams", open).await;
        }
        assert_eq!(opened(&world), [4; 5]);
    });
}

#[test]
fn after_goaway_nothing_old_comes_behind_what_is_new() {
    let ordered = [Stream::Data, Stream::Flows, Stream::Events, Stream::Logs];
    story(|world, inside| async move {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 1..=3 {
            // Of each there is more on its way than the server takes at once.
            world.change(|faults| faults.stalled.extend(ordered.map(|stream| stream as u8)));
            for _ in 0..200 {
                inside.signal(1000);
                inside.flow(1000);
                inside.pod(&mut rng);
            }
            sleep(Duration::from_secs(1)).await;
            world.happens(Event::GoAway);
            until("a new connection", || inside.view.state().connections > round).await;
            for _ in 0..20 {
                inside.pod(&mut rng);
            }
            sleep(Duration::from_secs(1)).await;
            world.change(|faults| faults.stalled.clear());
            until("all signals", || world.record(|record| record.count("signal") as u64 == 200 * round))
                .await;
            let open = || inside.view.state().streams.iter().all(|stream| stream.is_open());
            until("five open streams", open).await;
        }
        assert_eq!(world.record(|record| record.late), 0);
    });
}

#[test]
fn an_answer_waits_behind_a_frame_of_each_stream_and_not_behind_what_waits() {
    // The way there is the bottleneck.
    story_with((16 << 20, 4 << 20), |world, inside| async move {
        world.change(|faults| faults.frozen = true);
        let before = world.record(|record| record.bytes);
        for _ in 0..10 {
            inside.signal(500_000);
            inside.flow(500_000);
        }
        sleep(Duration::from_secs(5)).await;
        inside.answer();
        world.change(|faults| faults.frozen = false);
        until("the answer", || world.record(|record| record.count("answer")) == 1).await;
        let ahead = world.record(|record| record.bytes_at_answer) - before;
        let most = IN_FLIGHT + (Stream::ALL.len() + 1) * FRAME;
        assert!((1..=most as u64).contains(&ahead), "{ahead} bytes came before the answer");
    });
}

#[test]
fn a_stream_that_is_not_read_is_opened_again_alone() {
    story(|world, inside| async move {
        world.change(|faults| {
            faults.stalled.insert(Stream::Events as u8);
        });
        // More than its window.
        for _ in 0..100 {
            inside.signal(1000);
        }
        let begun = Instant::now();
        let mut flows = 0;
        while opened(&world)[Stream::Events as usize] == 1 {
            inside.flow(0);
            flows += 1;
            // The others never notice.
            until("a flow", || world.record(|record| record.count("flow")) == flows).await;
        }
        let took = begun.elapsed();
        assert!((120..130).contains(&took.as_secs()), "after four times the window: {took:?}");
        world.change(|faults| faults.stalled.clear());
        until("all signals", || world.record(|record| record.count("signal")) == 100).await;
        assert_eq!(opened(&world), [1, 1, 1, 2, 1]);
        assert_eq!(inside.view.state().connections, 1);
    });
}

#[test]
fn a_stream_whose_heartbeats_stop_is_opened_again_alone() {
    story(|world, inside| async move {
        // The server's rhythm is known by then.
        sleep(Duration::from_secs(100)).await;
        world.change(|faults| {
            faults.mute.insert(Stream::Flows as u8);
        });
        until("another flows stream", || opened(&world)[Stream::Flows as usize] == 2).await;
        // One that never had any misses none.
        sleep(Duration::from_secs(300)).await;
        assert_eq!(opened(&world), [1, 1, 2, 1, 1]);
        let problem = inside.view.state().streams[Stream::Flows as usize].problem.clone();
        assert_eq!(problem, None, "it is open again");
        world.change(|faults| faults.mute.clear());
    });
}

#[test]
fn new_credentials_are_a_new_connection_and_no_gap() {
    story(|world, inside| async move {
        sleep(Duration::from_secs(61)).await;
        world.new_credentials.notify_waiters();
        until("a new connection", || inside.view.state().connections == 2).await;
        assert_eq!(world.record(|record| record.connections.len()), 2);
    });
}

#[test]
fn what_waits_behind_a_full_window_is_sent_at_the_end() {
    run(1, async {
        let (world, drain) = (Arc::new(World::new(1, WIDE)), CancellationToken::new());
        let inside = Inside::start(&world, &drain);
        for _ in 0..MOST_TAKEN + 10 {
            inside.flow(0);
        }
        let flows = || world.record(|record| record.count("flow"));
        until("as many as may be taken at a time", || flows() == MOST_TAKEN).await;
        drain.cancel();
        inside.ended().await;
        assert_eq!(flows(), MOST_TAKEN + 10);
    });
}

/// A server that sends these bytes after its settings, and then closes.
fn ends_with(last: Vec<u8>) -> Problem {
    run(1, async {
        let (ours, mut theirs) = duplex(1024);
        let config = config();
        let transport: Box<dyn Transport> = Box::new(ours);
        let server = tokio::spawn(async move {
            theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            theirs.write_all(&last).await.unwrap();
        });
        let connection = Connection::open(transport, config.server(), config.authority(), config.keepalive);
        let connection = connection.await.unwrap();
        connection.life.dead.cancelled().await;
        server.await.unwrap();
        connection.life.problem(&connection.server)
    })
}

#[test]
fn too_many_pings_is_a_sentence_that_names_the_setting() {
    let go_away =
        |words: &[u8]| [&[0, 0, 8 + words.len() as u8, 7, 0, 0, 0, 0, 0], &[0; 7][..], &[11], words].concat();
    let sentence = ends_with(go_away(b"too_many_pings")).to_string();
    assert!(sentence.contains("KESTREL_KEEPALIVE_SECONDS"), "{sentence}");
    let sentence = ends_with(go_away(b"too_many_data_frames")).to_string();
    assert!(sentence.contains("(ENHANCE_YOUR_CALM \"too_many_data_frames\")"), "{sentence}");
}
