//! Hubble itself: Cilium's parser, ring, observer and Relay (`hack/hubble`), read by the node agent and by the aggregator.
//! `KESTREL_HUBBLE` names its program.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

mod node;
mod relay;

use std::{
    env,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{sleep, timeout};

/// Flows are told every ten seconds.
const DEADLINE: Duration = Duration::from_secs(100);

/// A server of its own process.
struct Hubble {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Hubble {
    /// Returns when it serves. Its ring keeps `capacity` events.
    fn start(socket: &Path, capacity: &str) -> Self {
        Self::run(&[socket.to_str().unwrap(), capacity])
    }

    /// Relay of the node whose socket this is, at `address`; with a folder of certificates by TLS.
    fn relay(address: &str, socket: &Path, folder: Option<&Path>) -> Self {
        let mut words = vec!["relay", address, socket.to_str().unwrap()];
        words.extend(folder.and_then(Path::to_str));
        Self::run(&words)
    }

    fn run(words: &[&str]) -> Self {
        let program = env::var_os("KESTREL_HUBBLE").expect("KESTREL_HUBBLE names the program of hack/hubble");
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut hubble = Self { process, answers };
        assert_eq!(hubble.answers.next().unwrap().unwrap(), "serves");
        hubble
    }

    /// Its ring gives an event away when the next one has come: a reply, which nobody asks for.
    fn happen(&mut self, events: &str) {
        for events in [events, "replies 1"] {
            writeln!(self.process.stdin.as_mut().unwrap(), "{events}").unwrap();
            assert_eq!(self.answers.next().unwrap().unwrap(), events);
        }
    }
}

impl Drop for Hubble {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Waits until the counter with these labels is what is wanted.
async fn shows(registry: &Registry, counter: &str, is_enough: impl Fn(u64) -> bool) {
    let shown = async {
        loop {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse().ok());
            if value.is_some_and(&is_enough) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, shown).await.unwrap_or_else(|_| panic!("{counter} is not what it should be"));
}
