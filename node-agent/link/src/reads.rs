//! Answers to what is asked of the node.

use kestrel_proto::node::v1::{AgentMessage, HostAnswer, agent_message::Message};
use tokio::sync::mpsc::WeakSender;

/// Says that an agent answers reads of its node.
pub const HOST_READS: &str = "host-reads";

/// The way of an answer: the stream on which it was asked for, and no other. It does not keep that open.
#[derive(Clone, Debug)]
pub struct Reply(pub WeakSender<AgentMessage>);

impl Reply {
    /// Sends the answer when the stream takes it. If that has ended, nobody waits for it.
    pub async fn send(&self, answer: HostAnswer) {
        let message = AgentMessage { message: Some(Message::HostAnswer(answer)) };
        if let Some(messages) = self.0.upgrade() {
            let _nobody_waits = messages.send(message).await;
        }
    }

    /// Sends the answer if the stream takes it at once.
    pub fn send_now(&self, answer: HostAnswer) {
        let message = AgentMessage { message: Some(Message::HostAnswer(answer)) };
        if let Some(messages) = self.0.upgrade() {
            let _is_full = messages.try_send(message);
        }
    }
}
