//! The bytes of one gRPC message, as HTTP/2 takes them.

use std::io::IoSlice;

use bytes::{Buf, Bytes, buf::Chain};

/// One gRPC message. HTTP/2 consumes it piece by piece as the peer's flow
/// control and the socket take its bytes, and so tells when the last one has
/// left the send buffer. Nothing is copied on the way.
pub(crate) struct Chunk<F: FnOnce()> {
    bytes: Chain<Bytes, Bytes>,
    departed: Option<F>,
}

impl<F: FnOnce()> Chunk<F> {
    /// `departed` is called once, when the last byte was consumed; never if
    /// the message is thrown away before.
    pub(crate) fn new(head: Bytes, body: Bytes, departed: F) -> Self {
        Self { bytes: head.chain(body), departed: Some(departed) }
    }
}

impl<F: FnOnce()> Buf for Chunk<F> {
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
        if !self.bytes.has_remaining()
            && let Some(departed) = self.departed.take()
        {
            departed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_last_byte_reports_the_departure_and_a_drop_does_not() {
        let departures = Cell::new(0);
        let chunk = || {
            let count = || departures.set(departures.get() + 1);
            Chunk::new(Bytes::from_static(b"head"), Bytes::from_static(b"body"), count)
        };
        let mut sent = chunk();
        sent.advance(7);
        assert_eq!((sent.chunk(), departures.get()), (&b"y"[..], 0));
        assert_eq!(sent.copy_to_bytes(1), "y");
        assert_eq!(departures.get(), 1);
        drop((sent, chunk()));
        assert_eq!(departures.get(), 1);
    }
}
