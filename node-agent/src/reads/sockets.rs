//! Sockets, from `/proc/net/tcp`, `udp` and `unix`, in the words of ss(8).

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kestrel_proto::node::v1::SocketStates;

use super::opened::odd;

/// Of which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Unix,
}

/// By their numbers in the kernel (`include/net/tcp_states.h`).
const STATES: [&str; 13] = [
    "UNKNOWN",
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "UNCONN",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECV",
];

/// Prints the sockets of these files that are in such states.
pub(super) fn print<R: BufRead>(
    files: Vec<(Kind, R)>,
    states: SocketStates,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "Netid State      Recv-Q Send-Q Local Address:Port         Peer Address:Port")?;
    for (kind, file) in files {
        for line in file.lines().skip(1) {
            let line = line?;
            let socket = match kind {
                Kind::Tcp => inet(&line, "tcp"),
                Kind::Udp => inet(&line, "udp"),
                Kind::Unix => unix(&line),
            };
            let socket = socket.ok_or_else(|| odd(&line))?;
            if is_asked(states, kind, socket.state) {
                let Socket { kind, state, received, unsent, local, peer } = socket;
                writeln!(out, "{kind:<5} {state:<10} {received:<6} {unsent:<6} {local:<26} {peer}")?;
            }
        }
    }
    Ok(())
}

/// As ss chooses: without `-l` and `-a` what is neither new nor over.
fn is_asked(states: SocketStates, kind: Kind, state: &str) -> bool {
    let waits = match kind {
        Kind::Tcp | Kind::Unix => state == "LISTEN",
        Kind::Udp => state == "UNCONN",
    };
    match states {
        SocketStates::All => true,
        SocketStates::Listening => waits,
        SocketStates::Connected => !waits && !matches!(state, "UNCONN" | "TIME-WAIT" | "SYN-RECV"),
    }
}

struct Socket {
    kind: &'static str,
    state: &'static str,
    received: u32,
    unsent: u32,
    local: String,
    peer: String,
}

fn inet(line: &str, kind: &'static str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, peer, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let (unsent, received) = queues.split_once(':')?;
    let state = usize::from_str_radix(state, 16).ok()?;
    Some(Socket {
        kind,
        state: STATES.get(state).copied().unwrap_or(STATES[0]),
        received: u32::from_str_radix(received, 16).ok()?,
        unsent: u32::from_str_radix(unsent, 16).ok()?,
        local: end(local)?,
        peer: end(peer)?,
    })
}

/// Address and port, in hexadecimal.
fn end(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let address = address_of(address)?;
    let port = match u16::from_str_radix(port, 16).ok()? {
        0 => "*".to_owned(),
        port => port.to_string(),
    };
    Some(match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    })
}

/// The kernel prints words of 32 bits as the machine has them.
pub(super) fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (place, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(place * 8)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// `Num RefCount Protocol Flags Type St Inode Path`.
fn unix(line: &str) -> Option<Socket> {
    const ACCEPTS: u32 = 0x1_0000;
    let mut fields = line.split_ascii_whitespace().skip(3);
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let kind = match fields.next()? {
        "0001" => "u_str",
        "0002" => "u_dgr",
        "0005" => "u_seq",
        _ => "u_???",
    };
    let state = match fields.next()? {
        _ if flags & ACCEPTS != 0 => "LISTEN",
        "03" => "ESTAB",
        "02" => "SYN-SENT",
        _ => "UNCONN",
    };
    let inode = fields.next()?;
    let path = fields.next().unwrap_or("*");
    Some(Socket {
        kind,
        state,
        received: 0,
        unsent: 0,
        local: format!("{path} {inode}"),
        peer: "*".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0500000A:D431 0100000A:01BB 01 00000010:00000000 02:000004F8 00000000     0        0 12346 2 0000000000000000 20 4 30 10 -1
   2: 0500000A:D432 0100000A:01BB 06 00000000:00000000 03:000004F8 00000000     0        0 0 3 0000000000000000
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
";
    const UDP: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 4075: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
";
    const UNIX: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 30000 /run/containerd/containerd.sock
0000000000000000: 00000003 00000000 00000000 0001 03 30001
";

    fn shown(states: SocketStates) -> Vec<String> {
        let files = vec![
            (Kind::Tcp, TCP.as_bytes()),
            (Kind::Tcp, TCP6.as_bytes()),
            (Kind::Udp, UDP.as_bytes()),
            (Kind::Unix, UNIX.as_bytes()),
        ];
        let mut out = Vec::new();
        print(files, states, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn sockets_are_shown_as_ss_shows_them() {
        assert_eq!(
            shown(SocketStates::Listening),
            [
                "tcp LISTEN 5 0 127.0.0.1:3306 0.0.0.0:*",
                "tcp LISTEN 0 0 [::1]:8080 [::]:*",
                "udp UNCONN 0 0 0.0.0.0:68 0.0.0.0:*",
                "u_str LISTEN 0 0 /run/containerd/containerd.sock 30000 *",
            ]
        );
        assert_eq!(
            shown(SocketStates::Connected),
            ["tcp ESTAB 0 16 10.0.0.5:54321 10.0.0.1:443", "u_str ESTAB 0 0 * 30001 *"]
        );
        assert_eq!(shown(SocketStates::All).len(), 7);
    }

    #[test]
    fn what_is_no_table_of_sockets_is_said() {
        for line in
            ["x", "0: 0100007F:0CEA", "0: 0100007F:0CEA 00:00 0A 0:0", "0: é100007:0CEA 00000000:0000 0A 0:0"]
        {
            let file = format!("head\n{line}\n");
            let failed = print(vec![(Kind::Tcp, file.as_bytes())], SocketStates::All, &mut Vec::new());
            assert!(failed.unwrap_err().to_string().starts_with("not in the kernel's form"), "{line}");
        }
    }
}
