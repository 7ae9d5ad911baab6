//! What the kernel answers by netlink (netlink(7)): a question is a message, the answer many, each with a tree of
//! attributes. A socket shows the network of the process that opened it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Of interfaces and what is attached to them.
pub(super) const ROUTE: i32 = libc::NETLINK_ROUTE;
/// Of the firewall.
pub(super) const NETFILTER: i32 = libc::NETLINK_NETFILTER;

/// More than the kernel puts into one datagram of an answer (32 KiB).
const DATAGRAM: usize = 64 * 1024;
/// Of a message: length, type, flags, number, port.
const HEAD: usize = 16;

const REQUEST_OF_ALL: u16 = 0x301;
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A socket of one of the kernel's subjects.
///
/// # Errors
/// The kernel does not have it.
pub(super) fn open(subject: i32) -> io::Result<File> {
    let socket = Socket::new_raw(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(subject)))?;
    Ok(File::from(OwnedFd::from(socket)))
}

/// Asks for all that there is of a kind.
pub(super) fn ask(socket: &mut impl Write, kind: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEAD + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(REQUEST_OF_ALL.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    socket.write_all(&message)
}

/// Hands on each message of the answer, without its head, and says whether what was asked for changed meanwhile.
///
/// # Errors
/// What the kernel answers instead, or what `each` says.
pub(super) fn answer(
    socket: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut buffer = vec![0; DATAGRAM];
    let mut has_changed = false;
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..length];
        while let Some((kind, flags, body, behind)) = message(rest) {
            rest = behind;
            has_changed |= flags & INTERRUPTED != 0;
            match kind {
                ERROR | DONE => {
                    return match number(body).unwrap_or_default() as i32 {
                        code @ ..0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        _ => Ok(has_changed),
                    };
                }
                _ => each(body)?,
            }
        }
    }
}

/// The first message: its type, flags and body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let body = bytes.get(HEAD..length)?;
    let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some((half(4)?, half(6)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// As the machine has it.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// Attributes behind each other, until one is not whole.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first of a kind.
    pub(super) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// Those inside of one.
    pub(super) fn inside(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or_default())
    }

    /// A number as networks have it, of up to eight bytes.
    pub(super) fn number(self, kind: u16) -> Option<u64> {
        self.get(kind).filter(|value| value.len() <= 8).map(big)
    }

    /// A name, which ends with a zero.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// Two bits say that it has others inside, and how its numbers are written.
        const KIND: u16 = 0x3fff;
        let half = |at: usize| Some(u16::from_ne_bytes(self.0.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(half(0)?), half(2)? & KIND);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Of at most eight bytes, the first of which is the highest.
pub(super) fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Up to the first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An attribute, for a question or a test.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A read is a datagram, as of a socket.
    pub(in crate::reads) struct Datagrams(pub(in crate::reads) VecDeque<Vec<u8>>);

    impl Read for Datagrams {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let datagram = self.0.pop_front().unwrap_or_default();
            buffer[..datagram.len()].copy_from_slice(&datagram);
            Ok(datagram.len())
        }
    }

    /// A message of an answer.
    pub(in crate::reads) fn told(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = u32::try_from(HEAD + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        message.extend([0; 8]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn an_answer_is_many_messages_and_an_end() {
        let all = |datagrams: Vec<Vec<u8>>| {
            let mut found = Vec::new();
            let mut socket = Datagrams(datagrams.into());
            let end = answer(&mut socket, |body| {
                found.push(body.to_vec());
                Ok(())
            });
            (found, end.map_err(|error| error.raw_os_error()))
        };
        let end = told(DONE, 2, &[0; 4]);
        let two = [told(20, 2, b"a"), told(20, 2, b"bcdef")].concat();
        let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(all(vec![two.clone(), end.clone()]), (texts(&["a", "bcdef"]), Ok(false)));
        let changed = told(20, 2 | INTERRUPTED, b"c");
        assert_eq!(all(vec![changed, end]), (texts(&["c"]), Ok(true)));
        let refused = told(ERROR, 0, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(all(vec![refused]), (vec![], Err(Some(libc::EPERM))));
        assert_eq!(all(vec![two]), (texts(&["a", "bcdef"]), Err(None)));
    }

    #[test]
    fn attributes_are_found_by_their_kind() {
        let bytes = [attribute(1, b"filter\0"), attribute(0x8002, &attribute(3, &[0, 0, 1, 0]))].concat();
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.text(1).as_deref(), Some("filter"));
        assert_eq!(attributes.inside(2).number(3), Some(256));
        assert_eq!((attributes.get(9), attributes.number(1).is_some()), (None, true));
        assert_eq!(Attributes(&[3, 0, 1, 0, 9]).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Attributes(&bytes).count() <= 50);
            let mut rest = &bytes[..];
            while let Some((.., behind)) = message(rest) {
                prop_assert!(behind.len() < rest.len());
                rest = behind;
            }
        }
    }
}
