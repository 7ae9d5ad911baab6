//! Where lines go on this machine.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
};

use kestrel_tail::engine::{Chunk, Record};

use super::options::Target;

/// Bytes that are written at once.
const FLUSH: usize = 64 * 1024;

/// Takes the records of a chunk, then learns where they come from.
pub(super) struct Sink {
    target: Target,
    /// Records of the open chunk; in JSON without the beginning that they share.
    records: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    out: Vec<u8>,
}

impl Sink {
    pub(super) fn new(target: Target) -> Self {
        Self { target, records: Vec::new(), ends: Vec::new(), out: Vec::new() }
    }

    /// A record of the open chunk.
    pub(super) fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        match self.target {
            Target::Stdout => {
                self.records.extend_from_slice(record.text.as_bytes());
                self.records.push(b'\n');
            }
            Target::Json => self.json(record),
            Target::Discard | Target::Link(_) => return ControlFlow::Continue(()),
        }
        if self.records.len() < FLUSH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn json(&mut self, record: &Record<'_>) {
        let out = &mut self.records;
        // Memory takes all that is written to it.
        if let Some(time) = record.timestamp {
            let _never_fails = write!(out, "\"time\":{}.{:09},", time.seconds, time.nanos);
        }
        if let Some(level) = record.level {
            let _never_fails = write!(out, "\"level\":\"{}\",", level.as_str());
        }
        out.extend_from_slice(b"\"text\":");
        let _never_fails = serde_json::to_writer(&mut *out, record.text);
        out.extend_from_slice(b"}\n");
        self.ends.push(out.len());
    }

    /// The chunk is complete: its records are written.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub(super) fn close(&mut self, chunk: &Chunk<'_>) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let written = if self.target == Target::Json {
            let origin = chunk.origin;
            let [namespace, pod, container] = [&origin.namespace, &origin.pod, &origin.container]
                .map(|name| serde_json::Value::from(name.as_str()));
            let head = format!("{{\"namespace\":{namespace},\"pod\":{pod},\"container\":{container},");
            self.out.clear();
            let mut from = 0;
            for end in self.ends.drain(..) {
                self.out.extend_from_slice(head.as_bytes());
                self.out.extend_from_slice(&self.records[from..end]);
                from = end;
            }
            io::stdout().lock().write_all(&self.out)
        } else {
            io::stdout().lock().write_all(&self.records)
        };
        self.records.clear();
        written.and_then(|()| io::stdout().lock().flush())
    }
}
