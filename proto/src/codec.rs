//! Messages on a gRPC stream: tonic's codec, with buffers that begin small.
//!
//! tonic allocates 8 KiB for each direction of each stream and keeps them. The
//! aggregator has thousands of streams that are silent most of the time, and the
//! collector has one and little memory.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::ProstCodec;

/// Bytes that a buffer begins with; it grows with the messages.
const BUFFER: usize = 512;
/// Bytes of messages that are sent together, as in tonic.
const TOGETHER: usize = 32 * 1024;

/// Encodes `E`, decodes `D`.
#[derive(Clone, Debug)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = <ProstCodec<E, D> as tonic::codec::Codec>::Encoder;
    type Decoder = <ProstCodec<E, D> as tonic::codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<E, D>::raw_encoder(BufferSettings::new(BUFFER, TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<E, D>::raw_decoder(BufferSettings::new(BUFFER, TOGETHER))
    }
}
