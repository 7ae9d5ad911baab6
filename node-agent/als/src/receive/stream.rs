//! One stream of a proxy, from its first message to its last.

use std::{error::Error as _, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tonic::{Status, Streaming};

use super::{Shared, metrics::Refused, places::Place, rate::Rate};

/// What a proxy had sent before it saw that its stream has ended is read for as long.
const LINGER: Duration = Duration::from_secs(1);

/// Reads a stream until its end. `answer` is told when the proxy is to have its response: when it has ended the stream itself,
/// and when it is to connect anew, after which what it sent before is still read.
pub(super) async fn read(
    mut inbound: Streaming<Bytes>,
    peer: IpAddr,
    shared: Arc<Shared>,
    answer: oneshot::Sender<Result<(), Status>>,
    _place: Place,
) {
    let Shared { config, counter, metrics, drain, .. } = &*shared;
    metrics.streams.inc();
    let mut source = counter.stream(config.pod_address.unwrap_or(peer));
    let mut rate = Rate::new(config.stream_bytes_per_second, Instant::now());
    // Not all at once.
    let age = config.stream_age.mul_f64(0.8 + 0.4 * fastrand::f64());
    let over = async {
        tokio::select! {
            () = sleep(age) => {}
            () = drain.cancelled() => {}
        }
    };
    let (mut over, mut answer) = (pin!(over), Some(answer));
    let mut linger = pin!(sleep(Duration::MAX));
    let end = loop {
        let message = tokio::select! {
            biased;
            () = &mut over, if answer.is_some() => {
                let _gone = answer.take().map(|answer| answer.send(Ok(())));
                linger.as_mut().reset(Instant::now() + LINGER);
                continue;
            }
            () = &mut linger, if answer.is_none() => break Ok(()),
            message = inbound.message() => message,
        };
        match message {
            Ok(Some(message)) => {
                metrics.messages.inc();
                metrics.bytes.inc_by(message.len() as u64);
                if rate.admits(&message, Instant::now()) {
                    source.take(&message);
                } else {
                    source.pass_over(&message);
                }
            }
            Ok(None) => break Ok(()),
            Err(status) => {
                // What comes of the connection, such as its end, is nothing that the proxy did wrong.
                if status.source().is_none() {
                    metrics.refused(Refused::Message);
                }
                break Err(status);
            }
        }
    };
    let _gone = answer.map(|answer| answer.send(end));
    metrics.streams.dec();
}
