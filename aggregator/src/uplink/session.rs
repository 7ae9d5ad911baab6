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
    windows: [SharedWindow; 5],
}

/// The resend window of one stream.
pub(crate) type SharedWindow = Arc<Mutex<Window<Cargo>>>;

/// A window is whole after every one of its operations, so a panic elsewhere
/// while it was locked has not harmed it.
pub(crate) fn lock(window: &Mutex<Window<Cargo>>) -> MutexGuard<'_, Window<Cargo>> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, left: CancellationToken::new(), windows: Default::default() }
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
