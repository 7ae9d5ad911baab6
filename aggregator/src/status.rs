//! `kestrel-aggregator status`: what the process is doing, in ten lines for a
//! person. The daemon makes them at its admin port; the command asks there.

mod ask;

pub use ask::ask;
