//! The resend window of one stream: what was sent and may still be lost.
//!
//! The protocol has no acknowledgements upward. What a dying connection takes
//! with it is bounded nevertheless: a message has left the window when the peer
//! answered a PING that was sent [`Window::leave`]'s `hold` or more after the
//! message's last byte went from HTTP/2 into the socket. The PING came behind
//! that byte, so the peer's HTTP/2 has read both, and a peer that died over the
//! message had the hold to do so. Other signs of life prove nothing: a peer may
//! talk for minutes while what was sent to it waits in buffers on the way.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Messages that were sent, oldest first, each with what must be done for it
/// when it leaves or is lost. One stream after another uses it.
#[derive(Debug)]
pub(crate) struct Window<C> {
    entries: VecDeque<Entry<C>>,
    /// The stream is gone, or there was none yet.
    closed: bool,
    /// When HTTP/2 last took bytes of a message.
    moved: Option<Instant>,
    /// Place of the first entry in the order of everything that was ever added.
    first: u64,
}

#[derive(Debug)]
struct Entry<C> {
    /// Nothing, if another stream cares for it now.
    cargo: Option<C>,
    entered: Instant,
    departed: Option<Instant>,
}

impl<C> Default for Window<C> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), closed: true, moved: None, first: 0 }
    }
}

impl<C> Window<C> {
    /// A stream begins. Places of earlier streams mean nothing from now on.
    pub(crate) fn open(&mut self) {
        self.closed = false;
        self.moved = None;
    }

    /// Adds a message that is about to be sent; the answer is its place, for
    /// [`Window::progress`].
    ///
    /// # Errors
    /// The cargo, when the stream is gone: nothing would resolve it here any more.
    pub(crate) fn enter(&mut self, cargo: C, now: Instant) -> Result<u64, C> {
        if self.closed {
            return Err(cargo);
        }
        self.entries.push_back(Entry { cargo: Some(cargo), entered: now, departed: None });
        Ok(self.first + self.entries.len() as u64 - 1)
    }

    /// Of the message at `place`, all but `rest` bytes have left HTTP/2's send buffer.
    pub(crate) fn progress(&mut self, place: u64, rest: usize, now: Instant) {
        self.moved = Some(now);
        if rest > 0 {
            return;
        }
        let entry = place.checked_sub(self.first).and_then(|index| self.entries.get_mut(index as usize));
        if let Some(entry) = entry {
            entry.departed = Some(now);
        }
    }

    /// Takes out what has left the window: messages that departed at least
    /// `hold` before the last PING that the peer has answered, which was sent
    /// when `proven` says.
    pub(crate) fn leave(&mut self, hold: Duration, proven: Instant) -> Vec<C> {
        let mut left = Vec::new();
        while let Some(Entry { departed: Some(departed), .. }) = self.entries.front()
            && *departed + hold <= proven
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            left.extend(entry.cargo);
        }
        left
    }

    /// Whether the peer has taken nothing of the oldest message for `patience`.
    pub(crate) fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        self.entries.front().is_some_and(|Entry { entered, departed, .. }| {
            let last = self.moved.map_or(*entered, |moved| moved.max(*entered));
            departed.is_none() && last + patience <= now
        })
    }

    /// Takes out, of what is in the window, all that another stream is to carry
    /// from now on, oldest first.
    pub(crate) fn give_up(&mut self, given_up: impl Fn(&C) -> bool) -> Vec<C> {
        self.entries.iter_mut().filter_map(|entry| entry.cargo.take_if(|cargo| given_up(cargo))).collect()
    }

    /// Takes out everything, and lets nothing in any more: the stream is gone.
    pub(crate) fn lose(&mut self) -> Vec<C> {
        self.closed = true;
        self.first += self.entries.len() as u64;
        self.entries.drain(..).filter_map(|entry| entry.cargo).collect()
    }

    /// How many messages are in the window.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    fn open<C>() -> Window<C> {
        let mut window = Window::default();
        window.open();
        window
    }

    #[test]
    fn a_message_leaves_with_a_ping_answered_after_the_hold() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = open();
        let place = window.enter("first", start).unwrap();
        window.enter("never departed", start).unwrap();
        assert!(window.leave(HOLD, at(100)).is_empty(), "it is still in the send buffer");
        window.progress(place, 0, at(100));
        assert!(window.leave(HOLD, at(101)).is_empty(), "the peer's last word may be on its way");
        assert!(window.leave(HOLD, at(129)).is_empty(), "too early");
        assert_eq!(window.leave(HOLD, at(130)), ["first"]);
        assert_eq!(window.lose(), ["never departed"]);
        assert_eq!(window.enter("too late", start), Err("too late"));
    }

    #[test]
    fn a_message_is_stuck_when_no_byte_of_it_moves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = open();
        assert!(!window.is_stuck(at(100), HOLD), "nothing to send");
        let place = window.enter("large", at(100)).unwrap();
        assert!(!window.is_stuck(at(129), HOLD) && window.is_stuck(at(130), HOLD));
        window.progress(place, 1, at(130));
        assert!(!window.is_stuck(at(159), HOLD) && window.is_stuck(at(160), HOLD));
        window.progress(place, 0, at(160));
        assert!(!window.is_stuck(at(300), HOLD), "it has departed");
    }

    #[test]
    fn what_another_stream_carries_is_not_lost_with_this_one() {
        let now = Instant::now();
        let mut window = open();
        for cargo in [1, 2, 3] {
            window.enter(cargo, now).unwrap();
        }
        assert_eq!(window.give_up(|cargo| cargo % 2 == 1), [1, 3]);
        assert_eq!(window.lose(), [2]);
        window.open();
        let place = window.enter(4, now).unwrap();
        window.progress(place - 1, 0, now);
        assert!(window.leave(HOLD, now + HOLD).is_empty(), "the place of another stream's message");
        window.progress(place, 0, now);
        assert_eq!(window.leave(HOLD, now + HOLD), [4]);
    }

    proptest! {
        /// Everything leaves or is lost exactly once, in order, and nothing leaves early.
        #[test]
        fn all_cargo_comes_out_once_and_in_order(steps in prop::collection::vec((0_u8..4, 0_u64..40), 0..200)) {
            let start = Instant::now();
            let (mut now, mut window, mut added, mut departed_at, mut out) =
                (start, open(), 0_u64, Vec::new(), Vec::new());
            for (step, amount) in steps {
                match step {
                    0 => {
                        prop_assert_eq!(window.enter(added, now), Ok(added));
                        departed_at.push(None);
                        added += 1;
                    }
                    1 if added > 0 => {
                        let place = amount % added;
                        window.progress(place, 0, now);
                        departed_at[place as usize] = Some(now);
                    }
                    2 => now += Duration::from_secs(amount),
                    _ => for cargo in window.leave(HOLD, now) {
                        let departed = departed_at[cargo as usize];
                        prop_assert!(departed.is_some_and(|departed| departed + HOLD <= now));
                        out.push(cargo);
                    }
                }
            }
            out.extend(window.lose());
            prop_assert_eq!(out, (0..added).collect::<Vec<_>>());
            prop_assert_eq!(window.len(), 0);
        }
    }
}
