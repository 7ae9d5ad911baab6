//! The bytes of gRPC messages, as HTTP/2 takes them.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// One large piece of a message, or many small messages. HTTP/2 consumes it as
/// the peer's flow control and the socket take its bytes, and so tells when the
/// last one has left the send buffer. Nothing is copied on the way.
#[derive(Default)]
pub(crate) struct Chunk {
    parts: VecDeque<Bytes>,
    bytes: usize,
    consumed: Option<Consumed>,
}

/// Told of the bytes that were consumed.
pub(crate) type Consumed = Box<dyn FnMut(usize) + Send>;

impl Chunk {
    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// `consumed` is called with the number of bytes whenever some were
    /// consumed; not if the chunk is thrown away.
    pub(crate) fn tell(&mut self, consumed: Consumed) {
        self.consumed = Some(consumed);
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.parts).map(|(slice, part)| *slice = IoSlice::new(part));
        filled.count()
    }

    fn advance(&mut self, count: usize) {
        let mut rest = count;
        while rest > 0
            && let Some(part) = self.parts.front_mut()
        {
            let now = rest.min(part.len());
            part.advance(now);
            rest -= now;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        self.bytes -= count - rest;
        if count > 0
            && let Some(consumed) = &mut self.consumed
        {
            consumed(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn what_is_consumed_is_reported_and_a_drop_is_not() {
        let total = Arc::new(AtomicUsize::new(0));
        let consumed = || total.load(Ordering::Relaxed);
        let chunk = || {
            let mut chunk = Chunk::default();
            for part in [&b"head"[..], b"", b"body"] {
                chunk.push(Bytes::from_static(part));
            }
            let total = Arc::clone(&total);
            chunk.tell(Box::new(move |count| {
                total.fetch_add(count, Ordering::Relaxed);
            }));
            chunk
        };
        let mut sent = chunk();
        let mut slices = [IoSlice::new(&[]); 3];
        assert_eq!((sent.chunks_vectored(&mut slices), &*slices[1]), (2, &b"body"[..]));
        sent.advance(7);
        assert_eq!((sent.chunk(), sent.remaining(), consumed()), (&b"y"[..], 1, 7));
        assert_eq!(sent.copy_to_bytes(1), "y");
        assert_eq!((sent.chunk(), sent.remaining(), consumed()), (&b""[..], 0, 8));
        drop((sent, chunk()));
        assert_eq!(consumed(), 8);
    }
}
