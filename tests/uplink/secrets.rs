//! Nothing that the uplink says has a token or a key in it, whole or in part.

use std::{
    io,
    sync::{Mutex, OnceLock},
};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Characters of a piece of a secret; chance makes no such text.
const PIECE: usize = 16;

static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static PIECES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps everything that is logged from now on, down to the last detail of our
/// own crates.
pub(crate) fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // The cloud's HTTP/2 runs in this process too, and sees what it was sent.
        let filter = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_targets(
                ["kestrel_aggregator", "kestrel_runtime"].map(|target| (target, LevelFilter::TRACE)),
            )
            .with_target("rustls", LevelFilter::DEBUG);
        let log = fmt::layer().with_writer(Said).with_ansi(false);
        tracing_subscriber::registry().with(log).with(filter).init();
    });
}

struct Said;

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SAID.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Whether something was logged.
pub(crate) fn was_said(text: &str) -> bool {
    String::from_utf8_lossy(&SAID.lock().unwrap()).contains(text)
}

/// A token; its first part says only how it is signed.
pub(crate) fn add_token(token: &str) {
    add(token.split('.').skip(1));
}

/// A key in PEM.
pub(crate) fn add_key(pem: &str) {
    add(pem.lines().filter(|line| !line.starts_with("-----")));
}

fn add<'a>(texts: impl Iterator<Item = &'a str>) {
    let mut pieces = PIECES.lock().unwrap();
    for text in texts {
        pieces.extend(
            text.as_bytes().chunks_exact(PIECE).map(|piece| String::from_utf8(piece.to_vec()).unwrap()),
        );
    }
}

/// Expects no piece of any secret in a text.
pub(crate) fn absent_from(text: &str) {
    let pieces = PIECES.lock().unwrap().clone();
    assert!(!pieces.is_empty(), "no secret is known");
    let found = pieces.iter().find(|piece| text.contains(piece.as_str()));
    assert!(found.is_none(), "a piece of a secret was said");
}

/// Expects none in all that was logged.
pub(crate) fn absent_from_what_was_said() {
    let said = String::from_utf8_lossy(&SAID.lock().unwrap()).into_owned();
    assert!(said.contains("connected to"), "nothing was listened to");
    absent_from(&said);
}

#[test]
fn a_piece_of_a_secret_is_found() {
    add_token("e30.c29tZXRoaW5nIHRoYXQgaXMgc2FpZCBuZXZlcg.signature-signature-signature");
    absent_from("nothing of it");
    let said = std::panic::catch_unwind(|| absent_from("xx c29tZXRoaW5nIHRo xx"));
    assert!(said.is_err());
}
