//! What happens in a seed.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use h2::Reason;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{
    inside::Inside,
    world::{Event, Faults, World},
};
use crate::uplink::stream::Stream;

const CODES: [Code; 11] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::DeadlineExceeded,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::Aborted,
    Code::Internal,
    Code::Unavailable,
    Code::Unauthenticated,
    Code::Unimplemented,
];
const REASONS: [Reason; 6] = [
    Reason::NO_ERROR,
    Reason::CANCEL,
    Reason::INTERNAL_ERROR,
    Reason::REFUSED_STREAM,
    Reason::ENHANCE_YOUR_CALM,
    Reason::PROTOCOL_ERROR,
];

/// The server's windows in this seed.
pub(super) fn windows(seed: u64) -> (u32, u32) {
    const DEFAULT: u32 = 65_535;
    [(DEFAULT, DEFAULT), (1 << 20, DEFAULT), (1 << 20, 1 << 20), (16 << 20, DEFAULT)][seed as usize % 4]
}

/// Some minutes in which things go in and things go wrong, then nothing is wrong any more.
pub(super) async fn run(seed: u64, world: &Arc<World>, inside: &Inside) {
    let mut rng = Rng::with_seed(!seed);
    let end = Instant::now() + Duration::from_secs(rng.u64(60..300));
    let mut next_fault = Instant::now() + Duration::from_secs(rng.u64(..10));
    let mut mends: Vec<(Instant, Mend)> = Vec::new();
    while Instant::now() < end {
        traffic(&mut rng, world, inside);
        if next_fault <= Instant::now() {
            let lasts = Duration::from_secs(rng.u64(1..120));
            if let Some(mend) = fault(&mut rng, world, inside).await {
                mends.push((Instant::now() + lasts, mend));
            }
            next_fault = Instant::now() + Duration::from_secs(rng.u64(1..40));
        }
        let due = mends.extract_if(.., |(at, _)| *at <= Instant::now());
        for (_, mend) in due {
            world.change(mend);
        }
        sleep(Duration::from_millis(rng.u64(1..6000))).await;
    }
    world.change(|faults| *faults = Faults::default());
}

type Mend = Box<dyn FnOnce(&mut Faults) + Send>;

fn traffic(rng: &mut Rng, world: &World, inside: &Inside) {
    for _ in 0..rng.u8(..6) {
        let bytes = if rng.u8(..50) == 0 { 300_000 } else { rng.usize(..2000) };
        inside.signal(bytes);
    }
    for _ in 0..rng.u8(..6) {
        inside.flow(0);
    }
    for _ in 0..rng.u8(..4) {
        inside.pod(rng);
    }
    if rng.u8(..4) == 0 {
        inside.own_log();
    }
    if rng.u8(..4) == 0 {
        world.ask(if rng.bool() { Stream::Control } else { Stream::Data });
    }
}

/// Something goes wrong; the answer ends it, if it lasts.
async fn fault(rng: &mut Rng, world: &World, inside: &Inside) -> Option<Mend> {
    let stream = Stream::ALL[rng.usize(..5)];
    let place = stream as u8;
    let (begin, mend): (Mend, Mend) = match rng.u8(..16) {
        0 => {
            world.cut();
            return None;
        }
        1 => {
            world.happens(Event::GoAway);
            return None;
        }
        2 => {
            world.happens(Event::Abort(REASONS[rng.usize(..REASONS.len())]));
            return None;
        }
        3 => {
            world.happens(Event::End(stream, CODES[rng.usize(..CODES.len())]));
            return None;
        }
        4 => {
            world.happens(Event::Reset(stream, REASONS[rng.usize(..REASONS.len())]));
            return None;
        }
        5 => {
            world.new_credentials.notify_waiters();
            return None;
        }
        6 => {
            for _ in 0..rng.u8(1..40) {
                world.cut();
                sleep(Duration::from_millis(600)).await;
            }
            return None;
        }
        7 => {
            for _ in 0..rng.u8(1..10) {
                world.happens(Event::GoAway);
                sleep(Duration::from_secs(rng.u64(..5))).await;
            }
            return None;
        }
        8 => {
            comes_back(rng, world, inside, stream).await;
            return None;
        }
        9 => (Box::new(|faults| faults.refuse = true), Box::new(|faults| faults.refuse = false)),
        10 => (Box::new(|faults| faults.dumb = true), Box::new(|faults| faults.dumb = false)),
        11 => (Box::new(|faults| faults.frozen = true), Box::new(|faults| faults.frozen = false)),
        12 => (Box::new(|faults| faults.slow = true), Box::new(|faults| faults.slow = false)),
        13 => (
            Box::new(move |faults| {
                faults.stalled.insert(place);
            }),
            Box::new(move |faults| {
                faults.stalled.remove(&place);
            }),
        ),
        14 => (
            Box::new(move |faults| {
                faults.mute.insert(place);
            }),
            Box::new(move |faults| {
                faults.mute.remove(&place);
            }),
        ),
        _ => {
            let code = CODES[rng.usize(..CODES.len())];
            world.happens(Event::End(stream, code));
            (
                Box::new(move |faults| {
                    faults.opens.insert(place, code);
                }),
                Box::new(move |faults| {
                    faults.opens.remove(&place);
                }),
            )
        }
    };
    world.change(begin);
    Some(mend)
}

/// A stream is not offered, and is again while the data stream is stuck with what
/// it carried in its stead, and breaks. That is stuck for less than the resend window: what a
/// server takes and looks at only later may come after anything.
async fn comes_back(rng: &mut Rng, world: &World, inside: &Inside, stream: Stream) {
    let (place, data) = (stream as u8, Stream::Data as u8);
    world.change(|faults| {
        faults.opens.insert(place, Code::Unimplemented);
    });
    world.happens(Event::End(stream, Code::Unimplemented));
    // The stream is tried again half a minute after that at the earliest.
    sleep(Duration::from_secs(10)).await;
    pass(rng, world, inside, 5).await;
    world.change(|faults| {
        faults.stalled.insert(data);
    });
    pass(rng, world, inside, 5).await;
    world.change(|faults| {
        faults.opens.remove(&place);
    });
    pass(rng, world, inside, 20).await;
    world.happens(Event::Reset(Stream::Data, Reason::INTERNAL_ERROR));
    world.change(|faults| {
        faults.stalled.remove(&data);
    });
}

/// So many seconds, at most, in which things go in.
async fn pass(rng: &mut Rng, world: &World, inside: &Inside, seconds: u64) {
    for _ in 0..rng.u64(1..=seconds) {
        traffic(rng, world, inside);
        sleep(Duration::from_secs(1)).await;
    }
}
