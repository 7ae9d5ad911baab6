//! A node's load, and an agent that is killed again and again.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::agent;

/// Bytes a second that all containers write together.
const RATE: f64 = 50e6;

/// Bytes that one of the four containers that write nearly all writes at once; the others write a sixteenth.
const BURST: usize = 64 << 10;

/// A line has about 250 bytes.
const PAD: &str = "all of the work of this turn is done and there is nothing that anybody would have to look at, \
    so this line is as long as lines are and says no more than that it was written where others were ";

/// What the containers of a node write.
struct Node {
    root: PathBuf,
    containers: Vec<Container>,
}

#[derive(Default)]
struct Container {
    lines: usize,
    /// Bytes of its live file.
    live: usize,
    rotations: u32,
}

impl Node {
    fn new(root: &Path, count: usize) -> Self {
        let mut containers = Vec::new();
        for number in 0..count {
            fs::create_dir_all(root.join(format!("ns_pod-{number}_uid/app"))).unwrap();
            containers.push(Container::default());
        }
        Self { root: root.to_owned(), containers }
    }

    /// Writes what [`RATE`] is in so many seconds; how many lines each container wrote.
    fn write(mut self, seconds: f64) -> Vec<usize> {
        let begun = Instant::now();
        let (mut written, mut turn) = (0, 0);
        while (written as f64) < RATE * seconds {
            // Four write as much as they can, the others a little.
            written += self.burst(turn % 4, BURST);
            written += self.burst(turn % self.containers.len(), BURST / 16);
            turn += 1;
            let due = begun + Duration::from_secs_f64(written as f64 / RATE);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.containers.into_iter().map(|container| container.lines).collect()
    }

    /// Adds numbered lines to a container's log, and rotates it as a kubelet does: at 1 MiB, or at 10.
    fn burst(&mut self, number: usize, bytes: usize) -> usize {
        let container = &mut self.containers[number];
        let mut text = String::new();
        while text.len() < bytes {
            let line = container.lines;
            text += &format!("2026-11-21T13:50:00.{line:09}Z stdout F {number} {line} {PAD}\n");
            container.lines += 1;
        }
        let folder = self.root.join(format!("ns_pod-{number}_uid/app"));
        let live = folder.join("0.log");
        let mut file = OpenOptions::new().append(true).create(true).open(&live).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        container.live += text.len();
        if container.live > if number.is_multiple_of(2) { 1 << 20 } else { 10 << 20 } {
            fs::rename(&live, folder.join(format!("0.log.20261121-{:06}", container.rotations))).unwrap();
            (container.live, container.rotations) = (0, container.rotations + 1);
        }
        text.len()
    }
}

/// Which lines arrived, for each container.
struct Arrived(Vec<Vec<bool>>);

impl Arrived {
    /// Reads what an agent writes; after `most` lines it is killed, and what it had written is read.
    fn read(&mut self, mut agent: Child, most: usize) -> bool {
        let mut out = BufReader::with_capacity(1 << 20, agent.stdout.take().unwrap());
        let mut line = String::new();
        for count in 0.. {
            line.clear();
            // What it was killed in the middle of is no line.
            if out.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                break;
            }
            let mut words = line.split(' ').map(|word| word.parse::<usize>());
            let (container, line) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
            let lines = &mut self.0[container];
            lines.resize(lines.len().max(line + 1), false);
            lines[line] = true;
            if count == most {
                agent.kill().unwrap();
            }
        }
        agent.wait().unwrap().success()
    }
}

#[test]
fn no_line_is_lost_under_a_nodes_load_however_often_it_is_killed() {
    let full = env::var_os("KESTREL_FULL").is_some();
    let (files, seconds) = if full { (2_000, 10.0) } else { (100, 1.0) };
    let kills: &[usize] = if full { &[200_000; 6] } else { &[1, 5_000, 100, 20_000] };
    let directory = tempfile::tempdir().unwrap();
    let (root, positions) = (directory.path().join("pods"), directory.path().join("positions"));
    let node = Node::new(&root, files);
    let start = |words: &[&str]| {
        let mut command = agent();
        command.arg("tail").arg("--root").arg(&root).arg("--positions").arg(&positions).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut arrived = Arrived(vec![Vec::new(); files]);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| node.write(seconds));
        for most in kills {
            arrived.read(start(&[]), *most);
        }
        writer.join().unwrap()
    });
    assert!(arrived.read(start(&["--until-end"]), usize::MAX));
    for (container, lines) in written.into_iter().enumerate() {
        let mut numbers = 0..lines;
        let missing = numbers.find(|line| arrived.0[container].get(*line) != Some(&true));
        assert_eq!(missing, None, "of the {lines} lines of container {container}");
    }
}
