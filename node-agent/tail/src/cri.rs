//! One physical line of a container log, as container runtimes write it:
//! `<RFC 3339 time> stdout|stderr P|F[:tags] <content>`.

use memchr::memchr;

use crate::time::{Clock, Timestamp};

/// Which of a container's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A physical line: a whole line of the program, or a piece of one that was
/// too long for the runtime's buffer (8 KiB in CRI-O, 16 KiB in containerd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// When the runtime read it.
    pub timestamp: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// False if the next piece of the same stream continues this one.
    pub last: bool,
    /// The bytes the program wrote.
    pub content: &'a [u8],
}

/// Reads one physical line, without its line feed; `None` if it is not of this form.
pub fn parse<'a>(line: &'a [u8], clock: &mut Clock) -> Option<Piece<'a>> {
    let (timestamp, length) = clock.read(line)?;
    let rest = line.get(length..)?;
    // Nearly all lines.
    for (words, stream) in [(b" stdout F ", Stream::Stdout), (b" stderr F ", Stream::Stderr)] {
        if let Some(content) = rest.strip_prefix(words) {
            return Some(Piece { timestamp, stream, last: true, content });
        }
    }
    let rest = rest.strip_prefix(b" std")?;
    let (stream, rest) = match (rest.strip_prefix(b"out "), rest.strip_prefix(b"err ")) {
        (Some(rest), _) => (Stream::Stdout, rest),
        (_, Some(rest)) => (Stream::Stderr, rest),
        _ => return None,
    };
    // Tags are separated by colons, the first says whether more follows. A
    // line without content may end right after them.
    let (tags, content) = match memchr(b' ', rest) {
        Some(space) => (&rest[..space], &rest[space + 1..]),
        None => (rest, &[][..]),
    };
    let last = match tags {
        [b'F'] | [b'F', b':', ..] => true,
        [b'P'] | [b'P', b':', ..] => false,
        _ => return None,
    };
    Some(Piece { timestamp, stream, last, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Option<Piece<'_>> {
        super::parse(line, &mut Clock::default())
    }

    #[test]
    fn lines_of_containerd_and_crio() {
        let piece = parse(b"2026-11-21T13:50:00.123456789Z stderr F oh  no ").unwrap();
        assert_eq!((piece.stream, piece.last, piece.content), (Stream::Stderr, true, &b"oh  no "[..]));
        assert_eq!(piece.timestamp, Timestamp { seconds: 1_795_269_000, nanos: 123_456_789 });
        let piece = parse(b"2026-11-21T13:50:00.1+00:00 stdout P:x:y part").unwrap();
        assert_eq!((piece.stream, piece.last, piece.content), (Stream::Stdout, false, &b"part"[..]));
        assert_eq!(parse(b"2026-11-21T13:50:00Z stdout F ").unwrap().content, b"");
        assert_eq!(parse(b"2026-11-21T13:50:00Z stdout F").unwrap().content, b"");
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            &b""[..],
            b"plain text",
            b"{\"log\":\"docker\"}",
            b"2026-11-21T13:50:00Z",
            b"2026-11-21T13:50:00Z stdin F x",
            b"2026-11-21T13:50:00Z stdout X x",
            b"2026-11-21T13:50:00Zstdout F x",
            b"not-a-time stdout F x",
            &[b"\0".repeat(19).as_slice(), b"Z stdout F x"].concat(),
        ] {
            assert_eq!(parse(line), None, "{}", line.escape_ascii());
        }
    }
}
