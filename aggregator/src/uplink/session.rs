//! One connection, and what its five streams have sent on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::{connection::Connection, lanes::Lanes, outbound::Cargo, stream::Stream, window::Window};

/// A connection in use.
pub(crate) struct Session {
    pub connection: Connection,
    /// Cancelled when another connection takes over: what it sends here is
    /// brought to its end, and nothing new is begun.
    pub left: CancellationToken,
    /// Where the streams of the connection before this one say that they have ended.
    before: Ends,
    ends: Ends,
    windows: [SharedWindow; 5],
}

/// Each is cancelled when the stream has ended and no other is opened in its stead.
pub(crate) type Ends = [CancellationToken; 5];

/// The resend window of one stream.
pub(crate) type SharedWindow = Arc<Mutex<Window<Cargo>>>;

/// A window is whole after every one of its operations, so a panic elsewhere
/// while it was locked has not harmed it.
pub(crate) fn lock(window: &Mutex<Window<Cargo>>) -> MutexGuard<'_, Window<Cargo>> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// `before`: the ends of the connection before this one.
    pub(crate) fn new(connection: Connection, before: Ends) -> Self {
        let (left, ends) = (CancellationToken::new(), Ends::default());
        Self { connection, left, before, ends, windows: Default::default() }
    }

    /// Where the streams of this connection say that they have ended.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Resolves when this stream may be opened here. What the one before it still had on its
    /// way must not arrive after anything newer, so that one is brought to its end first,
    /// which takes no longer than the farewell. Answers to requests know no order.
    pub(crate) async fn turn(&self, stream: Stream) {
        if stream != Stream::Control {
            self.before[stream as usize].cancelled().await;
        }
    }

    pub(crate) fn window(&self, stream: Stream) -> &SharedWindow {
        &self.windows[stream as usize]
    }

    /// No stream may be opened here any more.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.life.dead.is_cancelled() || self.left.is_cancelled()
    }

    /// Resolves when no stream may be opened here any more.
    pub(crate) async fn over(&self) {
        tokio::select! {
            biased;
            () = self.connection.life.dead.cancelled() => {}
            () = self.left.cancelled() => {}
        }
    }

    /// Another connection takes over: everything that may not have arrived is
    /// due again, so that the other one sends it before anything newer.
    pub(crate) fn leave(&self, lanes: &Lanes) {
        self.left.cancel();
        for window in &self.windows {
            let lost = lock(window).lose();
            for cargo in lost {
                cargo.lost(lanes);
            }
        }
    }
}
