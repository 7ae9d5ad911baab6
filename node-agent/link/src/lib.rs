//! The agent's end of the agent link.
//!
//! [`connection`] keeps one stream to the leading aggregator alive and turns
//! what arrives into [`Event`]s; a [`Session`] is the sending half of one stream,
//! with its credit; [`batch`] writes log records in their wire form; [`ship`]
//! joins the log engine and what else is reported to all of that, [`pods`] says what of a pod is wanted, [`reads`] answers what is asked of a node, [`anchors`] whom a
//! sidecar trusts, [`wake`] waits for lines, and [`outage`] knows what of it to tell.

pub mod anchors;
pub mod batch;
pub mod connection;
mod flush;
pub mod outage;
pub mod pods;
pub mod reads;
mod reports;
mod requests;
pub mod session;
pub mod ship;
pub mod wake;

use std::time::{Duration, Instant, SystemTime};

use kestrel_proto::node::v1::{HostRead, PodUpdate, RequestsTold};

use reads::Reply;
pub use session::Session;

/// What happens on the link, in the order in which it happens.
#[derive(Debug)]
pub enum Event {
    /// A stream is open; everything is sent through its session.
    Connected {
        /// The sending half.
        session: Session,
        /// Version of the aggregator's program, for people.
        software_version: String,
        /// The aggregator's time, and when it was asked for it; an older one does not tell it.
        clock: Option<(SystemTime, Instant)>,
    },
    /// Batches up to and including this id need not be kept any longer.
    Ack(u64),
    /// Something did not reach the cloud: what has no answer must be read again.
    /// The string says why, for people.
    Nack(String),
    /// The aggregator let go of this many payload bytes.
    Credit(u64),
    /// Pods came, changed or went.
    Pods(PodUpdate),
    /// The cloud has been told of requests that were reported.
    RequestsTold(RequestsTold),
    /// The aggregator's time, when it took a report of the host.
    Clock(SystemTime),
    /// Something of the node is asked for; the answer goes over the stream on which it was.
    Asked(Box<HostRead>, Reply),
    /// Nobody waits for the answer to the read of this id any more.
    Unasked(u64),
    /// The stream ended, or could not be opened.
    Disconnected {
        /// Why, and what would help.
        reason: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
}
