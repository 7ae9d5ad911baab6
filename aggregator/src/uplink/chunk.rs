//! The bytes of one gRPC message, as HTTP/2 takes them.

use std::io::IoSlice;

use bytes::{Buf, Bytes, buf::Chain};

/// One gRPC message. HTTP/2 consumes it piece by piece as the peer's flow
/// control and the socket take its bytes, and so tells when the last one has
/// left the send buffer. Nothing is copied on the way.
pub(crate) struct Chunk<F: FnMut(usize)> {
    bytes: Chain<Bytes, Bytes>,
    progress: F,
}

impl<F: FnMut(usize)> Chunk<F> {
    /// `progress` is called with the number of bytes that remain whenever some
    /// were consumed; not if the message is thrown away.
    pub(crate) fn new(head: Bytes, body: Bytes, progress: F) -> Self {
        Self { bytes: head.chain(body), progress }
    }
}

impl<F: FnMut(usize)> Buf for Chunk<F> {
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
            (self.progress)(self.bytes.remaining());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_consumed_is_reported_and_a_drop_is_not() {
        let (reports, rest) = (Cell::new(0), Cell::new(8));
        let chunk = || {
            let report = |remaining| {
                reports.set(reports.get() + 1);
                rest.set(remaining);
            };
            Chunk::new(Bytes::from_static(b"head"), Bytes::from_static(b"body"), report)
        };
        let mut sent = chunk();
        sent.advance(7);
        assert_eq!((sent.chunk(), reports.get(), rest.get()), (&b"y"[..], 1, 1));
        assert_eq!(sent.copy_to_bytes(1), "y");
        assert_eq!((reports.get(), rest.get()), (2, 0));
        drop((sent, chunk()));
        assert_eq!(reports.get(), 2);
    }
}
