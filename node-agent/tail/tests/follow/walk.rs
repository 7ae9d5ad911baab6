//! Everything that may happen to a file, in any order.

use kestrel_tail::multiline::PAUSE;
use proptest::prelude::*;

use super::bench::*;

/// What may happen to a container's log, and to those who read it.
#[derive(Clone, Debug)]
enum Event {
    Write(u32),
    Rotate,
    Pack,
    Pause,
    Read,
    Ack,
    Reconnect,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_u32..40).prop_map(Event::Write),
        2 => Just(Event::Rotate),
        2 => Just(Event::Pack),
        6 => Just(Event::Read),
        1 => Just(Event::Pause),
        3 => Just(Event::Ack),
        1 => Just(Event::Reconnect),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever happens, every line is delivered whole in a batch that was
    /// acknowledged, and without refusals and restarts exactly once.
    #[test]
    fn no_line_is_lost(events in prop::collection::vec(event(), 1..60)) {
        let mut bench = Bench::pods();
        let mut written = 0;
        let mut rotations = 0;
        let mut repeats = false;
        bench.append(LIVE, "");
        for event in events {
            match event {
                Event::Write(lines) => {
                    bench.append(LIVE, &cri(written..written + lines));
                    written += lines;
                }
                Event::Rotate => {
                    // In the middle of a line, as containerd does it.
                    bench.append(LIVE, "2026-11-21T13:50:00Z stdout P line \n");
                    bench.rename(LIVE, &format!("{LIVE}.20261121-{rotations:06}"));
                    bench.append(LIVE, &format!("2026-11-21T13:50:00Z stdout F {written}\n"));
                    written += 1;
                    rotations += 1;
                }
                Event::Pack => {
                    for number in 0..rotations {
                        let name = format!("{LIVE}.20261121-{number:06}");
                        if bench.path(&name).exists() {
                            bench.pack(&name);
                        }
                    }
                }
                Event::Pause => bench.later(PAUSE),
                Event::Read => {
                    bench.read();
                }
                Event::Ack => bench.ack_and_save(),
                Event::Reconnect => {
                    bench.engine.rewind();
                    repeats = true;
                }
                Event::Restart => {
                    bench.restart();
                    repeats = true;
                }
            }
        }
        bench.read_rotated();
        let mut lines = bench.lines.clone();
        lines.sort_by_key(|line| line["line ".len()..].parse::<u32>().unwrap());
        if repeats {
            lines.dedup();
        }
        prop_assert_eq!(lines, numbered(0..written));
    }
}
