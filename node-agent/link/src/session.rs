//! The sending half of one stream.

use bytes::Bytes;
use kestrel_proto::node::v1::{
    AgentMessage, Batch, Compression, Farewell, HostReport, LogGap, Welcome, agent_message::Message,
};
use tokio::sync::mpsc;

/// The protocol version that this program speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Says that a sidecar ends with a `Farewell`.
pub const FAREWELL: &str = "farewell";

/// Says that an aggregator takes flows.
pub const FLOWS: &str = "flows";

/// Says that an aggregator takes what proxies logged.
pub const REQUESTS: &str = "requests";

/// What the protocol promises that a batch may have at least.
pub const LEAST_BATCH_BYTES: u64 = 4 * 1024 * 1024;

/// Messages between us and the socket. Small, so that what the aggregator does
/// not take stays in the files; with one batch under compression and one in
/// the socket's buffer this is all the memory a stalled link holds.
pub const QUEUED_MESSAGES: usize = 4;

/// Ids, credit and limits of one open stream.
#[derive(Debug)]
pub struct Session {
    messages: mpsc::Sender<AgentMessage>,
    next_id: u64,
    credit: u64,
    under_way: u64,
    max_batch_bytes: u64,
    nacks: u64,
    pod_bytes_per_second: u64,
    takes_flows: bool,
    takes_requests: bool,
}

/// A Welcome that breaks the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Unwelcome {
    /// Another protocol version.
    #[error(
        "the aggregator speaks protocol version {0} of the agent link, this program speaks version {PROTOCOL_VERSION}"
    )]
    Version(u32),
    /// Limits under which not every line could be sent.
    #[error(
        "the aggregator allows {max_batch_bytes} bytes a batch and {credit_bytes} in all, which is less than the protocol's least of {LEAST_BATCH_BYTES}"
    )]
    Limits {
        /// Bytes of one batch.
        max_batch_bytes: u64,
        /// Bytes under way.
        credit_bytes: u64,
    },
}

impl Session {
    /// A session as `welcome` describes it, whose messages go to `messages`.
    ///
    /// # Errors
    /// The welcome breaks the protocol.
    pub fn open(welcome: &Welcome, messages: mpsc::Sender<AgentMessage>) -> Result<Self, Unwelcome> {
        if welcome.protocol_version != PROTOCOL_VERSION {
            return Err(Unwelcome::Version(welcome.protocol_version));
        }
        let &Welcome { max_batch_bytes, credit_bytes, pod_bytes_per_second, .. } = welcome;
        if max_batch_bytes < LEAST_BATCH_BYTES || credit_bytes < max_batch_bytes {
            return Err(Unwelcome::Limits { max_batch_bytes, credit_bytes });
        }
        Ok(Self {
            messages,
            next_id: 1,
            credit: credit_bytes,
            under_way: 0,
            max_batch_bytes,
            nacks: 0,
            pod_bytes_per_second,
            takes_flows: welcome.features.iter().any(|feature| feature == FLOWS),
            takes_requests: welcome.features.iter().any(|feature| feature == REQUESTS),
        })
    }

    /// The id that the next batch will have.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Payload bytes that the aggregator holds or that travel there.
    pub fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Sends a zstd-compressed batch of `content_bytes`; false if the link does
    /// not take it now, and then nothing has changed.
    pub fn send(&mut self, payload: &Bytes, content_bytes: usize) -> bool {
        let bytes = payload.len() as u64;
        debug_assert!(bytes.max(content_bytes as u64) <= self.max_batch_bytes);
        if bytes > self.credit {
            return false;
        }
        let batch = Batch {
            id: self.next_id,
            compression: Compression::Zstd.into(),
            payload: payload.clone(),
            content_bytes: content_bytes as u64,
            nacks_seen: self.nacks,
        };
        if self.messages.try_send(AgentMessage { message: Some(Message::Batch(batch)) }).is_err() {
            return false;
        }
        self.next_id += 1;
        self.credit -= bytes;
        self.under_way += bytes;
        true
    }

    /// Sends the node's conditions; false if the link does not take them now.
    pub fn report(&self, report: HostReport) -> bool {
        self.messages.try_send(AgentMessage { message: Some(Message::HostReport(report)) }).is_ok()
    }

    /// Says that nothing comes any more and what is missing; false if the link does not take it now.
    pub fn farewell(&self, gaps: Vec<LogGap>) -> bool {
        self.messages.try_send(AgentMessage { message: Some(Message::Farewell(Farewell { gaps })) }).is_ok()
    }

    /// Bytes of lines that a sidecar may send a second; 0: no limit.
    pub fn pod_bytes_per_second(&self) -> u64 {
        self.pod_bytes_per_second
    }

    /// Whether the aggregator takes flows.
    pub fn takes_flows(&self) -> bool {
        self.takes_flows
    }

    /// Whether the aggregator takes what proxies logged.
    pub fn takes_requests(&self) -> bool {
        self.takes_requests
    }

    /// The aggregator takes nothing that was filled before now and has no answer.
    pub fn begin_again(&mut self) {
        self.nacks += 1;
    }

    /// The aggregator let go of `bytes`.
    pub fn grant(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
        self.under_way = self.under_way.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(max_batch_bytes: u64, credit_bytes: u64) -> Welcome {
        Welcome { protocol_version: 1, max_batch_bytes, credit_bytes, ..Welcome::default() }
    }

    #[test]
    fn only_what_the_credit_covers_is_sent() {
        let (messages, mut sent) = mpsc::channel(QUEUED_MESSAGES);
        let mut session = Session::open(&welcome(LEAST_BATCH_BYTES, LEAST_BATCH_BYTES), messages).unwrap();
        let half = Bytes::from(vec![0; 3 << 20]);
        assert!(session.send(&half, half.len()));
        assert!(!session.send(&half, half.len()));
        assert_eq!((session.next_id(), session.under_way()), (2, 3 << 20));
        session.grant(3 << 20);
        assert!(session.send(&half, half.len()));
        let ids: Vec<_> = std::iter::from_fn(|| sent.try_recv().ok())
            .map(|message| match message.message {
                Some(Message::Batch(batch)) => batch.id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn a_full_queue_or_a_gone_stream_changes_nothing() {
        let (messages, sent) = mpsc::channel(1);
        let mut session = Session::open(&welcome(LEAST_BATCH_BYTES, u64::MAX), messages).unwrap();
        let payload = Bytes::from_static(b"x");
        assert!(session.send(&payload, 1));
        assert!(!session.send(&payload, 1));
        drop(sent);
        assert!(!session.send(&payload, 1));
        assert_eq!(session.next_id(), 2);
    }

    #[test]
    fn a_welcome_outside_the_protocol_is_refused() {
        let open = |welcome| Session::open(&welcome, mpsc::channel(1).0).map(|_| ());
        assert!(matches!(
            open(Welcome { protocol_version: 2, ..welcome(1 << 30, 1 << 30) }),
            Err(Unwelcome::Version(2))
        ));
        assert!(matches!(open(welcome(1, 1 << 30)), Err(Unwelcome::Limits { .. })));
        assert!(matches!(open(welcome(1 << 30, 1)), Err(Unwelcome::Limits { .. })));
    }
}
