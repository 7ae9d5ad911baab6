//! What the pod's own proxy logs: counted here, told to the aggregator.

use std::net::IpAddr;

use kestrel_als::{
    counter::{Counter, Limits},
    receive::{self, STREAM_AGE},
};
use kestrel_proto::node::v1::RequestReport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Receives on `port` of the loopback until the drain, and then hands over to the end what was counted. `pod_address` is the pod's, if that
/// is known.
pub fn receive(
    port: u16,
    pod_address: Option<IpAddr>,
    drain: CancellationToken,
) -> (impl Future<Output = ()>, mpsc::Receiver<RequestReport>) {
    let config = receive::Config {
        port,
        is_loopback: true,
        pod_address,
        stream_bytes_per_second: 0,
        stream_age: STREAM_AGE,
        tls: None,
        limits: receive::Limits::POD,
    };
    // Nobody asks a collector for numbers: what became of entries goes with them.
    let (entries, streams) = Default::default();
    receive::beside_the_link(config, Counter::of_proxies(Limits::POD, entries), streams, drain)
}
