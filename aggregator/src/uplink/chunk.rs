//! The bytes of one gRPC message, as HTTP/2 takes them.

use std::io::IoSlice;

use bytes::{Buf, Bytes, buf::Chain};

/// A piece of a gRPC message. HTTP/2 consumes it as the peer's flow control and
/// the socket take its bytes, and so tells when the last one has left the send
/// buffer. Nothing is copied on the way.
pub(crate) struct Chunk<F: FnMut(usize, usize)> {
    bytes: Chain<Bytes, Bytes>,
    progress: F,
}

impl<F: FnMut(usize, usize)> Chunk<F> {
    /// `progress` is called whenever bytes were consumed, with their number and
    /// that of the bytes that remain; not if the piece is thrown away.
    pub(crate) fn new(head: Bytes, body: Bytes, progress: F) -> Self {
        Self { bytes: head.chain(body), progress }
    }
}

impl Chunk<Box<dyn FnMut(usize, usize) + Send>> {
    /// A piece that only ends a stream.
    pub(crate) fn nothing() -> Self {
        Self::new(Bytes::new(), Bytes::new(), Box::new(|_, _| ()))
    }
}

impl<F: FnMut(usize, usize)> Buf for Chunk<F> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if count > 0 {
            (self.progress)(count, self.bytes.remaining());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_consumed_is_reported_and_a_drop_is_not() {
        let (consumed, rest) = (Cell::new(0), Cell::new(8));
        let chunk = || {
            let report = |count, remaining| {
                consumed.set(consumed.get() + count);
                rest.set(remaining);
            };
            Chunk::new(Bytes::from_static(b"head"), Bytes::from_static(b"body"), report)
        };
        let mut sent = chunk();
        sent.advance(7);
        assert_eq!((sent.chunk(), consumed.get(), rest.get()), (&b"y"[..], 7, 1));
        assert_eq!(sent.copy_to_bytes(1), "y");
        assert_eq!((consumed.get(), rest.get()), (8, 0));
        drop((sent, chunk()));
        assert_eq!(consumed.get(), 8);
    }
}
