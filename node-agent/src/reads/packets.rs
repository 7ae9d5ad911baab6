//! Packets of the node's network: where they come from and go to, and how their connections stand. What they
//! carry is cut off before anything is looked at.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use socket2::{Domain, Protocol, Socket, Type};

/// All protocols of a link (`if_ether.h`), in the order of the network.
const EVERYTHING: u16 = 3_u16.to_be();
/// The largest heads that there are: 60 bytes of IP and 60 of TCP.
const HEAD: usize = 128;
/// So often it is looked whether the time is over.
const PAUSE: Duration = Duration::from_millis(100);
/// Pairs of ends that are counted.
const PAIRS: usize = 1000;
/// Of them, those that are shown.
const SHOWN: usize = 10;
/// Characters of base64 in a line.
const LINE: usize = 76;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// Which packets are meant, and how they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) packets: u32,
    pub(super) time: Duration,
    /// At IANA; `None`: any.
    pub(super) protocol: Option<u8>,
    /// At either end.
    pub(super) host: Option<IpAddr>,
    /// At either end.
    pub(super) port: Option<u16>,
    /// As a file in base64.
    pub(super) pcap: bool,
}

/// A socket that shows every packet of every interface, from the head of IP on.
///
/// # Errors
/// The capability is missing.
pub(super) fn open() -> io::Result<File> {
    let socket = Socket::new_raw(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(EVERYTHING))))?;
    socket.set_read_timeout(Some(PAUSE))?;
    Ok(File::from(OwnedFd::from(socket)))
}

/// Prints the packets that are wanted until there are as many, or the time is over; and then who spoke to whom.
pub(super) fn print(mut packets: impl Read, wanted: &Wanted, out: &mut dyn Write) -> io::Result<()> {
    let (begun, until) = (Instant::now(), Instant::now() + wanted.time);
    let (mut seen, mut fitting) = (0_u64, 0);
    let mut pairs: HashMap<String, (u64, u64)> = HashMap::new();
    let mut file = if wanted.pcap { pcap_head() } else { Vec::new() };
    let mut buffer = [0; HEAD];
    while fitting < wanted.packets && Instant::now() < until {
        let length = match packets.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        seen += 1;
        let Some(head) = Head::parse(&buffer[..length]).filter(|head| head.is_wanted(wanted)) else {
            continue;
        };
        fitting += 1;
        let pair = head.pair();
        if pairs.len() < PAIRS || pairs.contains_key(&pair) {
            let (count, bytes) = pairs.entry(pair).or_default();
            (*count, *bytes) = (*count + 1, *bytes + u64::from(head.bytes));
        }
        if wanted.pcap {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            pcap_packet(&mut file, now, &buffer[..length.min(head.length)], head.bytes);
        } else {
            writeln!(out, "{:>10.6} {}", begun.elapsed().as_secs_f64(), head.line())?;
        }
    }
    if wanted.pcap {
        for line in STANDARD.encode(file).as_bytes().chunks(LINE) {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(
        out,
        ";; {fitting} packets in {seconds:.1} s, of {seen} that were seen; {} pairs of ends",
        pairs.len()
    )?;
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    for (pair, (count, bytes)) in pairs.into_iter().take(SHOWN) {
        writeln!(out, ";; {count} packets, {bytes} bytes: {pair}")?;
    }
    Ok(())
}

/// The heads of a packet.
struct Head {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    /// Of TCP: flags, number, acknowledged number, window.
    tcp: Option<(u8, u32, u32, u16)>,
    /// Of ICMP: type and code.
    icmp: Option<(u8, u8)>,
    /// Of the packet, as it says itself.
    bytes: u32,
    /// Of the heads.
    length: usize,
}

impl Head {
    fn parse(packet: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
        let (source, destination, protocol, bytes, begin, is_first): (IpAddr, IpAddr, u8, u32, usize, bool) =
            match packet.first()? >> 4 {
                4 => {
                    let address = |at: usize| {
                        Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)))
                    };
                    let begin = usize::from(packet[0] & 15) * 4;
                    let is_first = u16_at(6)? & 0x1fff == 0;
                    (address(12)?, address(16)?, *packet.get(9)?, u16_at(2)?.into(), begin.max(20), is_first)
                }
                6 => {
                    let address = |at: usize| {
                        Some(IpAddr::from(Ipv6Addr::from(
                            <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
                        )))
                    };
                    (address(8)?, address(24)?, *packet.get(6)?, u32::from(u16_at(4)?) + 40, 40, true)
                }
                _ => return None,
            };
        let mut head =
            Self { source, destination, protocol, ports: None, tcp: None, icmp: None, bytes, length: begin };
        match protocol {
            _ if !is_first => {}
            TCP => {
                head.ports = u16_at(begin).zip(u16_at(begin + 2));
                let flags = packet.get(begin + 13).copied();
                let numbers = u32_at(begin + 4).zip(u32_at(begin + 8)).zip(u16_at(begin + 14)).zip(flags);
                head.tcp = numbers
                    .map(|(((number, acknowledged), window), flags)| (flags, number, acknowledged, window));
                let words = usize::from(packet.get(begin + 12).copied().unwrap_or_default() >> 4);
                head.length = begin + (words * 4).max(20);
            }
            UDP => {
                head.ports = u16_at(begin).zip(u16_at(begin + 2));
                head.length = begin + 8;
            }
            ICMP | ICMP6 => {
                head.icmp = packet.get(begin).copied().zip(packet.get(begin + 1).copied());
                head.length = begin + 8;
            }
            _ => {}
        }
        Some(head)
    }

    fn is_wanted(&self, wanted: &Wanted) -> bool {
        wanted.protocol.is_none_or(|protocol| self.protocol == protocol)
            && wanted.host.is_none_or(|host| self.source == host || self.destination == host)
            && wanted.port.is_none_or(|port| self.ports.is_some_and(|(from, to)| from == port || to == port))
    }

    fn name(&self) -> String {
        match self.protocol {
            TCP => "tcp".to_owned(),
            UDP => "udp".to_owned(),
            ICMP => "icmp".to_owned(),
            ICMP6 => "icmp6".to_owned(),
            other => format!("protocol {other}"),
        }
    }

    fn ends(&self) -> (String, String) {
        match self.ports {
            Some((from, to)) => (
                SocketAddr::from((self.source, from)).to_string(),
                SocketAddr::from((self.destination, to)).to_string(),
            ),
            None => (self.source.to_string(), self.destination.to_string()),
        }
    }

    /// Both ends, in one order for both directions.
    fn pair(&self) -> String {
        let (one, other) = self.ends();
        let (first, second) = if one <= other { (one, other) } else { (other, one) };
        format!("{} {first} <> {second}", self.name())
    }

    fn line(&self) -> String {
        let (from, to) = self.ends();
        let mut line = format!("{} {from} > {to} {} bytes", self.name(), self.bytes);
        if let Some((flags, number, acknowledged, window)) = self.tcp {
            // As tcpdump writes them.
            let names = [(2, 'S'), (1, 'F'), (4, 'R'), (8, 'P'), (16, '.'), (32, 'U'), (64, 'E'), (128, 'W')];
            let flags: String =
                names.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect();
            line.push_str(&format!(" [{flags}] seq {number} ack {acknowledged} win {window}"));
        }
        if let Some((kind, code)) = self.icmp {
            line.push_str(&format!(" type {kind} code {code}"));
        }
        line
    }
}

/// Of a file of packets that begin with IP (link type 101).
fn pcap_head() -> Vec<u8> {
    let mut head = 0xa1b2_c3d4_u32.to_be_bytes().to_vec();
    head.extend([0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 101]);
    head
}

fn pcap_packet(file: &mut Vec<u8>, time: Duration, head: &[u8], bytes: u32) {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    file.extend(number(time.as_secs()));
    file.extend(time.subsec_micros().to_be_bytes());
    file.extend(number(head.len() as u64));
    file.extend(number(u64::from(bytes).max(head.len() as u64)));
    file.extend_from_slice(head);
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A read is a packet, as of a socket.
    struct Packets(VecDeque<Vec<u8>>);

    impl Read for Packets {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let packet = self.0.pop_front().unwrap_or_default();
            let length = packet.len().min(buffer.len());
            buffer[..length].copy_from_slice(&packet[..length]);
            Ok(length)
        }
    }

    const SECRET: &[u8] = b"Authorization: Bearer secret";

    fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let bytes = u16::try_from(20 + rest.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, bytes[0], bytes[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend([from, to].concat());
        packet.extend(rest);
        packet
    }

    fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
        let mut head = [from.to_be_bytes(), to.to_be_bytes()].concat();
        head.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        head.extend(SECRET);
        head
    }

    fn shown(wanted: Wanted) -> String {
        let (one, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let udp = [&[0, 53, 0, 99, 0, 8, 0, 0], SECRET].concat();
        let mut ipv6 = vec![0x60, 0, 0, 0, 0, 8, ICMP6, 64];
        ipv6.extend([0; 31]);
        ipv6.extend([1, 128, 0, 0, 0, 0, 0, 0, 0]);
        let packets = [
            ipv4(TCP, one, other, &tcp(443, 5000, 0x12)),
            vec![0, 1, 8, 0, 6],
            ipv4(UDP, other, one, &udp),
            ipv4(TCP, other, one, &tcp(5000, 443, 0x10)),
            ipv6,
            ipv4(47, one, other, &[]),
        ];
        let mut out = Vec::new();
        let time = Duration::from_secs(20);
        print(Packets(packets.into()), &Wanted { time, ..wanted }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with(";;")).map(|line| line[11..].trim()).collect()
    }

    #[test]
    fn packets_are_shown_by_their_heads_alone() {
        let text = shown(Wanted { packets: 10, ..Wanted::default() });
        assert_eq!(
            lines(&text),
            [
                "tcp 10.0.0.1:443 > 10.0.0.2:5000 68 bytes [S.] seq 7 ack 9 win 256",
                "udp 10.0.0.2:53 > 10.0.0.1:99 56 bytes",
                "tcp 10.0.0.2:5000 > 10.0.0.1:443 68 bytes [.] seq 7 ack 9 win 256",
                "icmp6 :: > ::1 48 bytes type 128 code 0",
                "protocol 47 10.0.0.1 > 10.0.0.2 20 bytes",
            ]
        );
        assert!(text.contains(";; 5 packets in ") && text.contains("of 6 that were seen; 4 pairs"), "{text}");
        assert!(text.contains(";; 2 packets, 136 bytes: tcp 10.0.0.1:443 <> 10.0.0.2:5000\n"), "{text}");
        assert!(!text.contains("Bearer"));
        for (wanted, count) in [
            (Wanted { packets: 2, ..Wanted::default() }, 2),
            (Wanted { packets: 9, protocol: Some(TCP), ..Wanted::default() }, 2),
            (Wanted { packets: 9, port: Some(53), ..Wanted::default() }, 1),
            (Wanted { packets: 9, host: Some([10, 0, 0, 2].into()), ..Wanted::default() }, 4),
            (Wanted { packets: 9, host: Some([10, 0, 0, 9].into()), ..Wanted::default() }, 0),
        ] {
            assert_eq!(lines(&shown(wanted.clone())).len(), count, "{wanted:?}");
        }
    }

    #[test]
    fn a_file_of_packets_has_no_more_in_it() {
        let text = shown(Wanted { packets: 10, pcap: true, ..Wanted::default() });
        let base64: String = text.lines().filter(|line| !line.starts_with(";;")).collect();
        let file = STANDARD.decode(base64).unwrap();
        assert_eq!(file[..4], [0xa1, 0xb2, 0xc3, 0xd4]);
        // Five packets: 40 of TCP twice, 28 of UDP, 48 of ICMP, 20 of IP alone.
        assert_eq!(file.len(), 24 + 5 * 16 + 40 * 2 + 28 + 48 + 20);
        assert!(!file.windows(6).any(|part| part == b"Bearer"));
        assert_eq!(file[24 + 8..24 + 16], [0, 0, 0, 40, 0, 0, 0, 68]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..HEAD), version in 4_u8..7) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 15;
            }
            if let Some(head) = Head::parse(&bytes) {
                prop_assert!(head.length <= 120 && head.line().is_ascii());
            }
        }
    }
}
