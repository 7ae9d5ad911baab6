//! What can be seen of the peer's HTTP/2 frames before HTTP/2 itself reads them:
//! its windows, that it says something, and that it is going away.

use h2::Reason;

/// The windows of HTTP/2 before anybody has set them, bytes.
const DEFAULT_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flag of a SETTINGS frame that only acknowledges ours.
const ACK: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// What is kept of a peer's last words.
const WORDS: usize = 100;

/// How many bytes the peer lets us send ahead of its reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// On the whole connection.
    pub connection: u64,
    /// On each stream.
    pub stream: u32,
}

impl Windows {
    /// A sentence, if one stream that the server does not read can use up what
    /// all of them share.
    pub(crate) fn narrow(self) -> Option<String> {
        let Self { connection, stream } = self;
        (connection <= u64::from(stream)).then(|| {
            format!(
                "one slow stream can delay the others: the server's connection window is {connection} bytes and \
                 its streams' {stream}; it should be several times as large"
            )
        })
    }
}

/// Why a peer is going away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoingAway {
    pub reason: Reason,
    /// The beginning of what it says to people.
    pub words: Vec<u8>,
}

/// Reads frame headers and the few payloads that matter, however the bytes are cut.
#[derive(Debug)]
pub(crate) struct Frames {
    header: [u8; 9],
    /// Bytes of the header that have come.
    headed: usize,
    /// Bytes of the payload that are still to come.
    rest: usize,
    unit: [u8; 8],
    /// Bytes of the unit that have come.
    filled: usize,
    credit: u64,
    windows: Windows,
    data: u64,
    going_away: Option<GoingAway>,
}

impl Default for Frames {
    fn default() -> Self {
        let windows = Windows { connection: u64::from(DEFAULT_WINDOW), stream: DEFAULT_WINDOW };
        Self {
            header: [0; 9],
            headed: 0,
            rest: 0,
            unit: [0; 8],
            filled: 0,
            credit: windows.connection,
            windows,
            data: 0,
            going_away: None,
        }
    }
}

impl Frames {
    /// The next bytes of the peer, when `sent` bytes of DATA have left for it.
    pub(crate) fn read(&mut self, mut bytes: &[u8], sent: u64) {
        while !bytes.is_empty() {
            if self.headed < self.header.len() {
                let (taken, others) = bytes.split_at(bytes.len().min(self.header.len() - self.headed));
                self.header[self.headed..][..taken.len()].copy_from_slice(taken);
                self.headed += taken.len();
                bytes = others;
                if self.headed == self.header.len() {
                    let [high, middle, low, ..] = self.header;
                    self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.filled = 0;
                    self.data += u64::from(self.header[3] == DATA);
                    self.end_of_frame();
                }
                continue;
            }
            let size = match self.header[3] {
                SETTINGS => 6,
                WINDOW_UPDATE => 4,
                GO_AWAY => 8,
                _ => 0,
            };
            let wanted = if self.filled < size { size - self.filled } else { self.rest };
            let (taken, others) = bytes.split_at(bytes.len().min(wanted).min(self.rest));
            if self.filled < size {
                self.unit[self.filled..][..taken.len()].copy_from_slice(taken);
                self.filled += taken.len();
                if self.filled == size {
                    self.unit(sent);
                }
            } else if self.header[3] == GO_AWAY
                && let Some(GoingAway { words, .. }) = &mut self.going_away
            {
                words.extend_from_slice(&taken[..taken.len().min(WORDS - words.len())]);
            }
            self.rest -= taken.len();
            bytes = others;
            self.end_of_frame();
        }
    }

    /// Frames of DATA, which messages travel in.
    pub(crate) fn data(&self) -> u64 {
        self.data
    }

    /// Why the peer is going away, if it is.
    pub(crate) fn going_away(&self) -> Option<&GoingAway> {
        self.going_away.as_ref()
    }

    /// The peer's windows as far as they have shown themselves. What was sent
    /// and not given back is missing from the connection's, so the largest that
    /// was seen is the best that is known.
    pub(crate) fn windows(&self) -> Windows {
        self.windows
    }

    fn end_of_frame(&mut self) {
        if self.rest == 0 {
            self.headed = 0;
        }
    }

    /// A setting, a window update or the beginning of a GOAWAY is complete.
    fn unit(&mut self, sent: u64) {
        let [.., kind, flags, _, _, _, _] = self.header;
        let of_the_connection = self.header[5..] == [0; 4];
        let [a, b, c, d, e, f, g, h] = self.unit;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                self.filled = 0;
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE {
                    self.windows.stream = u32::from_be_bytes([c, d, e, f]);
                }
            }
            WINDOW_UPDATE if of_the_connection => {
                self.credit += u64::from(u32::from_be_bytes([a & 0x7f, b, c, d]));
                self.windows.connection = self.windows.connection.max(self.credit.saturating_sub(sent));
            }
            GO_AWAY => {
                let reason = u32::from_be_bytes([e, f, g, h]).into();
                self.going_away = Some(GoingAway { reason, words: Vec::new() });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn update(stream: u32, bytes: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    fn setting(id: u16, value: u32) -> Vec<u8> {
        [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    /// Settings with a window of 1 MiB, headers, data, more window and a GOAWAY with a text.
    fn conversation() -> Vec<u8> {
        let settings = [setting(3, 100), setting(4, 1 << 20), setting(5, 1 << 14)].concat();
        let go_away = [&7_u32.to_be_bytes()[..], &11_u32.to_be_bytes(), b"too_many_pings"].concat();
        [
            frame(SETTINGS, 0, 0, &settings),
            update(0, 16 << 20),
            frame(SETTINGS, ACK, 0, &[]),
            frame(1, 4, 1, b"headers"),
            frame(DATA, 0, 1, &[9; 1000]),
            update(1, 1 << 24),
            frame(GO_AWAY, 0, 0, &go_away),
        ]
        .concat()
    }

    proptest! {
        #[test]
        fn everything_is_seen_however_the_bytes_are_cut(cuts in prop::collection::vec(1_usize..50, 1..100)) {
            let (all, mut frames) = (conversation(), Frames::default());
            let mut rest = &all[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(rest.len().min(*cut));
                frames.read(now, 0);
                rest = later;
            }
            let windows = Windows { connection: (16 << 20) + 65_535, stream: 1 << 20 };
            prop_assert_eq!(frames.windows(), windows);
            let words = b"too_many_pings".to_vec();
            let going_away = GoingAway { reason: Reason::ENHANCE_YOUR_CALM, words };
            prop_assert_eq!(frames.data(), 1);
            prop_assert_eq!(frames.going_away(), Some(&going_away));
            prop_assert_eq!(windows.narrow(), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..60)) {
            let mut frames = Frames::default();
            for piece in pieces {
                frames.read(&piece, 5);
            }
        }
    }

    #[test]
    fn credit_that_only_gives_back_what_was_sent_is_no_larger_window() {
        let mut frames = Frames::default();
        frames.read(&update(0, 40_000), 40_000);
        assert_eq!(frames.windows().connection, 65_535);
        assert!(frames.windows().narrow().unwrap().contains("65535 bytes"));
        frames.read(&update(0, 200_000), 40_000);
        assert_eq!(frames.windows().connection, 265_535);
        assert_eq!(frames.windows().narrow(), None);
    }
}
