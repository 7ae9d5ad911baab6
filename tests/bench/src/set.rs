//! Generated container logs: the same bytes in every run.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use fastrand::Rng;

/// What the lines of a set are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As programs write them: 245 bytes on average.
    Ordinary,
    /// Ordinary, and every twentieth comes in two pieces.
    Pieces,
    /// All of 16 KiB, containerd's longest in one piece.
    Long,
}

/// Files laid out like `/var/log/pods`.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) root: PathBuf,
    pub(crate) bytes: u64,
    /// What programs wrote.
    pub(crate) lines: u64,
    /// What the runtime made of it.
    pub(crate) pieces: u64,
}

impl Set {
    /// Writes `files` files that have `bytes` in all.
    pub(crate) fn generate(root: PathBuf, bytes: u64, files: u64, shape: Shape) -> io::Result<Self> {
        let mut rng = Rng::with_seed(42);
        let mut set = Self { root, bytes: 0, lines: 0, pieces: 0 };
        let mut clock = Clock(1_795_269_000_000_000_000);
        for number in 0..files {
            let file = File::create(log_file(&set.root, number)?)?;
            set.fill(
                &mut BufWriter::with_capacity(1 << 20, file),
                (number + 1) * bytes / files,
                shape,
                &mut clock,
                &mut rng,
            )?;
        }
        Ok(set)
    }

    /// Brings it into the page cache, where logs are that were written just now. What fetching them from this machine's
    /// disk costs is nobody's that reads them.
    pub(crate) fn warm(&self) -> io::Result<()> {
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                } else {
                    io::copy(&mut File::open(entry.path())?, &mut io::sink())?;
                }
            }
        }
        Ok(())
    }

    /// Writes lines until the set has `bytes`.
    fn fill(
        &mut self,
        out: &mut impl Write,
        bytes: u64,
        shape: Shape,
        clock: &mut Clock,
        rng: &mut Rng,
    ) -> io::Result<()> {
        let mut content = String::new();
        while self.bytes < bytes {
            content.clear();
            ordinary(&mut content, rng);
            while shape == Shape::Long && content.len() < 16 * 1024 {
                content.push(' ');
                ordinary(&mut content, rng);
            }
            if shape == Shape::Long {
                content.truncate(16 * 1024);
            }
            self.lines += 1;
            if shape == Shape::Pieces && self.lines.is_multiple_of(20) {
                let (first, rest) = content.split_at(content.len() / 2);
                self.write(out, clock.next(rng), "P", first)?;
                self.write(out, clock.next(rng), "F", rest)?;
            } else {
                self.write(out, clock.next(rng), "F", &content)?;
            }
        }
        out.flush()
    }

    fn write(
        &mut self,
        out: &mut impl Write,
        time: jiff::Timestamp,
        tag: &str,
        content: &str,
    ) -> io::Result<()> {
        self.pieces += 1;
        self.bytes += write_piece(out, time, tag, content)? as u64;
        Ok(())
    }
}

/// Writes a line as a container runtime does; returns its bytes.
pub(crate) fn write_piece(
    out: &mut impl Write,
    time: jiff::Timestamp,
    tag: &str,
    content: &str,
) -> io::Result<usize> {
    let line = format!("{time:.9} stdout {tag} {content}\n");
    out.write_all(line.as_bytes())?;
    Ok(line.len())
}

/// The log of the container with that number: two containers a pod.
pub(crate) fn log_file(root: &Path, number: u64) -> io::Result<PathBuf> {
    let (pod, container) = (number / 2, ["app", "proxy"][(number % 2) as usize]);
    let pod = format!("team-{}_shop-{pod}_{pod:08x}-0000-4000-8000-000000000000", pod % 10);
    let folder = root.join(pod).join(container);
    fs::create_dir_all(&folder)?;
    Ok(folder.join("0.log"))
}

/// Nanoseconds since 1970; a line comes every half millisecond or so.
struct Clock(i64);

impl Clock {
    fn next(&mut self, rng: &mut Rng) -> jiff::Timestamp {
        self.0 += rng.i64(1..1_000_000);
        jiff::Timestamp::from_nanosecond(self.0.into()).unwrap_or_default()
    }
}

const WORDS: [&str; 64] = [
    "order",
    "customer",
    "payment",
    "request",
    "response",
    "timeout",
    "retry",
    "queue",
    "worker",
    "cache",
    "miss",
    "hit",
    "session",
    "token",
    "key",
    "index",
    "shard",
    "replica",
    "leader",
    "commit",
    "offset",
    "partition",
    "batch",
    "flush",
    "upstream",
    "connection",
    "pool",
    "closed",
    "opened",
    "accepted",
    "rejected",
    "received",
    "sent",
    "bytes",
    "from",
    "to",
    "for",
    "with",
    "after",
    "before",
    "while",
    "the",
    "a",
    "of",
    "in",
    "and",
    "item",
    "inventory",
    "cart",
    "checkout",
    "shipping",
    "invoice",
    "email",
    "notification",
    "scheduled",
    "job",
    "finished",
    "started",
    "updated",
    "deleted",
    "created",
    "version",
    "config",
    "reloaded",
];

/// A line of one of the forms that programs use.
fn ordinary(out: &mut String, rng: &mut Rng) {
    use std::fmt::Write as _;

    let level = ["DEBUG", "WARN", "ERROR", "INFO"][match rng.u32(0..1000) {
        0..120 => 0,
        120..145 => 1,
        145..150 => 2,
        _ => 3,
    }];
    let (id, took) = (rng.u32(..), rng.u32(1..2000));
    // Memory takes all that is written to it.
    let _never_fails = match rng.u32(0..100) {
        0..50 => {
            let thread = rng.u32(0..16);
            let _ = write!(
                out,
                "2026-11-21 13:50:00,123 {level:5} [worker-{thread}] com.shop.orders.OrderService - "
            );
            words(out, 14..28, rng);
            write!(out, " id={id} took {took} ms")
        }
        50..80 => {
            let level = level.to_ascii_lowercase();
            let _ = write!(
                out,
                r#"{{"time":"2026-11-21T13:50:00.123Z","level":"{level}","logger":"checkout","msg":""#
            );
            words(out, 10..22, rng);
            write!(out, r#"","order":"{id:08x}-5d1c-4b7e-9c55-{id:012x}","duration_ms":{took}}}"#)
        }
        80..90 => {
            let level = level.to_ascii_lowercase();
            let _ = write!(out, r#"time=2026-11-21T13:50:00.123Z level={level} component=queue msg=""#);
            words(out, 14..26, rng);
            write!(out, r#"" attempt={} id={id:08x}"#, took % 5)
        }
        _ => write!(
            out,
            "10.{}.{}.{} - - [21/Nov/2026:13:50:00 +0000] \"GET /api/v1/{}/{id} HTTP/1.1\" 200 {took} \
             \"https://shop.example.com/{}\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"",
            id % 256,
            took % 256,
            id % 199,
            rng.choice(WORDS).unwrap_or_default(),
            rng.choice(WORDS).unwrap_or_default(),
        ),
    };
}

fn words(out: &mut String, count: std::ops::Range<u32>, rng: &mut Rng) {
    for number in 0..rng.u32(count) {
        if number > 0 {
            out.push(' ');
        }
        out.push_str(WORDS[rng.usize(..WORDS.len())]);
    }
}
