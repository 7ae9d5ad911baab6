//! Whatever is seen of a file at a time, its records are the same.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    ops::ControlFlow,
    time::{Instant, SystemTime},
};

use kestrel_tail::{
    discover::{Layout, Source},
    engine::{Engine, Policy},
    position::store::Store,
    redact::{Expressions, Redactor},
};
use proptest::prelude::*;

/// One way to see the bytes of a file: how they come, and how they are read.
#[derive(Clone, Debug)]
struct Way {
    /// Bytes that are written before the engine looks again.
    written: Vec<usize>,
    /// Records after which a turn is broken off.
    most: Vec<usize>,
    is_watched: bool,
}

fn way() -> impl Strategy<Value = Way> {
    let written = prop::collection::vec(prop_oneof![1_usize..30, 30_usize..2_000], 1..20);
    (written, prop::collection::vec(1_usize..20, 1..5), any::<bool>())
        .prop_map(|(written, most, is_watched)| Way { written, most, is_watched })
}

/// Lines of both streams, whole and in pieces, and some that are none.
fn log() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        9 => (any::<bool>(), prop::bool::weighted(0.7), "[a-z0-9]{0,30}").prop_map(|(stderr, last, text)| {
            let (stream, tag) = (if stderr { "stderr" } else { "stdout" }, if last { "F" } else { "P:tag" });
            format!("2026-11-21T13:50:00.5+00:00 {stream} {tag} {text}\n").into_bytes()
        }),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|mut bytes| {
            bytes.retain(|byte| !byte.is_ascii_whitespace());
            bytes.push(b'\n');
            bytes
        }),
    ];
    prop::collection::vec(line, 1..60).prop_map(|lines| lines.concat())
}

fn records(bytes: &[u8], way: &Way) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("ns_pod_uid/app");
    fs::create_dir_all(&directory).unwrap();
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("0.log")).unwrap();
    let source = Source { directory: root.path().to_owned(), layout: Layout::Pods { except: None } };
    let store = Store::empty(&root.path().join("positions"));
    let mut engine = Engine::new(vec![source], store, Redactor::new(Expressions::default()));
    if way.is_watched {
        engine.watch().unwrap();
    }
    let now = Instant::now();
    engine.scan(now);
    engine.assign(|_| Some(Policy::All));
    let mut records = Vec::new();
    let (mut rest, mut turn) = (bytes, 0);
    let mut sizes = way.written.iter().cycle();
    loop {
        while engine.poll(now) {
            let before = turn;
            let (mut given, most) = (0, way.most[turn % way.most.len()]);
            let chunk = engine.read(1, now, |record| {
                records.push(record.text.to_owned());
                given += 1;
                if given < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            turn += usize::from(chunk.is_some());
            if turn == before {
                break;
            }
        }
        if rest.is_empty() {
            break;
        }
        let (next, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        file.write_all(next).unwrap();
        rest = later;
        if rest.is_empty() {
            engine.end();
        }
    }
    engine.ack(1);
    engine.save(SystemTime::now()).unwrap();
    assert_eq!(engine.unread_bytes(), 0);
    records
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_chunks_are_the_same_records(bytes in log(), way in way()) {
        let whole = Way { written: vec![usize::MAX], most: vec![usize::MAX], is_watched: false };
        prop_assert_eq!(records(&bytes, &way), records(&bytes, &whole));
    }
}
