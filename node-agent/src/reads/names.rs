//! Names and connections, tried from where the agent is: by the name servers of its `resolv.conf`, and with the
//! time that it takes.

mod message;

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use message::{A, AAAA, Answer};

/// Where name servers listen.
const PORT: u16 = 53;
/// A server that does not answer gets no more time.
const TRY: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ROUNDS: usize = 2;
/// Servers, and domains, that are looked at, as many as resolvers do.
const SERVERS: usize = 3;
const DOMAINS: usize = 32;
/// Addresses of a name to which a connection is tried.
const ADDRESSES: usize = 4;

/// What `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    domains: Vec<String>,
    dots: usize,
}

impl Servers {
    /// # Errors
    /// It can't be read.
    pub(super) fn parse(file: impl BufRead) -> io::Result<Self> {
        let mut servers = Self { dots: 1, ..Self::default() };
        for line in file.lines() {
            let line = line?;
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.addresses.extend(address.map(|address| SocketAddr::from((address, PORT))));
                }
                Some("search" | "domain") => {
                    servers.domains =
                        words.take(DOMAINS).map(|it| it.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    servers.dots = dots.unwrap_or(servers.dots);
                }
                _ => {}
            }
        }
        servers.addresses.truncate(SERVERS);
        Ok(servers)
    }

    /// The names that a name may stand for, in the order in which they are tried.
    fn names(&self, name: &str, search: bool) -> Vec<String> {
        let plain = name.trim_end_matches('.').to_owned();
        if !search || name.ends_with('.') {
            return vec![plain];
        }
        let mut names: Vec<String> = self
            .domains
            .iter()
            .filter(|it| !it.is_empty())
            .map(|domain| format!("{plain}.{domain}"))
            .collect();
        let first = if plain.matches('.').count() >= self.dots { 0 } else { names.len() };
        names.insert(first, plain);
        names
    }

    /// Asks one server after the other, until one answers.
    fn ask(&self, name: &str, record: u16, until: Instant) -> io::Result<(Answer, SocketAddr, Duration)> {
        let mut last = io::Error::other("no name server is configured");
        for server in std::iter::repeat_n(&self.addresses, ROUNDS).flatten() {
            let begun = Instant::now();
            let time = TRY.min(until.saturating_duration_since(begun));
            if time.is_zero() {
                break;
            }
            match ask_one(*server, name, record, begun + time) {
                Ok(answer) => return Ok((answer, *server, begun.elapsed())),
                Err(error) => {
                    let text = match error.kind() {
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                            format!("{server} did not answer in {} ms", begun.elapsed().as_millis())
                        }
                        _ => format!("{server}: {error}"),
                    };
                    last = io::Error::other(text);
                }
            }
        }
        Err(last)
    }

    /// What the first of its names that there is has for such records.
    fn find(
        &self,
        name: &str,
        record: u16,
        search: bool,
        until: Instant,
    ) -> io::Result<(String, Answer, SocketAddr, Duration)> {
        let names = self.names(name, search);
        let last = names.len().saturating_sub(1);
        for (place, name) in names.into_iter().enumerate() {
            let (answer, server, time) = self.ask(&name, record, until)?;
            if place == last || (answer.code == 0 && !answer.records.is_empty()) {
                return Ok((name, answer, server, time));
            }
        }
        Err(io::Error::other("there is no name"))
    }
}

fn ask_one(server: SocketAddr, name: &str, record: u16, until: Instant) -> io::Result<Answer> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(server)?;
    let (id, question) = message::question(name, record)?;
    socket.send(&question)?;
    let mut buffer = [0; message::LONGEST];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        // What has another number was not asked for.
        if let Some(answer) = message::answer(&buffer[..length], id)? {
            return Ok(answer);
        }
    }
}

/// Prints what there is under a name; of a name that is searched for, addresses of both versions of IP.
pub(super) fn print(
    name: &str,
    record: u16,
    search: bool,
    servers: &Servers,
    until: Instant,
    out: &mut dyn Write,
) -> io::Result<()> {
    let both = [A, AAAA];
    let records = if search { &both[..] } else { &[record] };
    for record in records {
        let (name, answer, server, time) = servers.find(name, *record, search, until)?;
        for record in &answer.records {
            writeln!(out, "{record}")?;
        }
        let cut = if answer.is_cut { ", cut by the server" } else { "" };
        writeln!(
            out,
            ";; {} {name}. {}: {} records{cut}, from {server} in {:.1} ms",
            message::kind(*record),
            message::code(answer.code),
            answer.records.len(),
            time.as_secs_f64() * 1e3
        )?;
    }
    Ok(())
}

/// Opens a connection, says how long that took, and closes it.
pub(super) fn connect(
    (host, port): (&str, u16),
    from: &str,
    servers: &Servers,
    until: Instant,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut addresses = Vec::new();
    if let Ok(address) = host.parse() {
        addresses.push(address);
    } else {
        for record in [A, AAAA] {
            let (name, answer, server, time) = servers.find(host, record, true, until)?;
            let found = answer.addresses.len();
            writeln!(
                out,
                ";; {} {name}. {}: {found} addresses, from {server} in {:.1} ms",
                message::kind(record),
                message::code(answer.code),
                time.as_secs_f64() * 1e3
            )?;
            addresses.extend(answer.addresses);
        }
    }
    addresses.truncate(ADDRESSES);
    let mut last = io::Error::other(format!("{host} has no address"));
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    for address in addresses {
        let (to, begun) = (SocketAddr::from((address, port)), Instant::now());
        // Each has its share of the time.
        let time = until.saturating_duration_since(begun) / left.max(1);
        left -= 1;
        if time.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&to, time) {
            Ok(_closed_at_once) => {
                let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
                return writeln!(out, "connected to {to} in {milliseconds:.1} ms, from {from}");
            }
            Err(error) => {
                let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
                last = io::Error::other(format!(
                    "no connection to {to}: {error}, after {milliseconds:.1} ms, from {from}"
                ));
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Answers so many questions by `answer`.
    fn server(count: usize, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Servers {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = vec![socket.local_addr().unwrap()];
        thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..count {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                let _gone = socket.send_to(&answer(&buffer[..length]), from);
            }
        });
        Servers { addresses, domains: vec!["shop.svc".to_owned()], dots: 5 }
    }

    #[test]
    fn the_configuration_of_a_pod_is_understood() {
        let text = "search shop.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver x\noptions ndots:5 edns0\n";
        let servers = Servers::parse(text.as_bytes()).unwrap();
        assert_eq!(servers.addresses, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(
            servers.names("web", true),
            ["web.shop.svc.cluster.local", "web.svc.cluster.local", "web"]
        );
        assert_eq!(servers.names("a.b.c.d.e.f", true)[0], "a.b.c.d.e.f");
        assert_eq!(servers.names("web.", true), ["web"]);
        assert_eq!(servers.names("web", false), ["web"]);
        let nobody = Servers::parse(&b""[..]).unwrap();
        let failed = print("web", A, false, &nobody, soon(), &mut Vec::new()).unwrap_err();
        assert_eq!(failed.to_string(), "no name server is configured");
    }

    #[test]
    fn a_name_is_looked_up_behind_its_domains_and_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // web.shop.svc has 127.0.0.1 and no address of IPv6, and nothing else is there.
        let servers = server(6, |question| {
            let is_there = question.windows(4).any(|part| part == b"shop");
            let is_a = question[question.len() - 15..question.len() - 13] == [0, 1];
            let mut answer = question.to_vec();
            (answer[2], answer[3]) = (0x81, if is_there { 0x80 } else { 0x83 });
            // The options of the question are left out.
            answer.truncate(question.len() - 11);
            (answer[7], answer[11]) = (u8::from(is_there && is_a), 0);
            if is_there && is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 127, 0, 0, 1]);
            }
            answer
        });
        let mut out = Vec::new();
        print("web", A, true, &servers, soon(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(
                "web.shop.svc. 30 IN A 127.0.0.1\n;; A web.shop.svc. NOERROR: 1 records, from 127.0.0.1:"
            ),
            "{text}"
        );
        assert!(text.contains(";; AAAA web. NXDOMAIN: 0 records"), "{text}");
        let mut out = Vec::new();
        connect(("web", port), "here", &servers, soon(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\nconnected to 127.0.0.1:{port} in ")), "{text}");
        drop(listener);
        let failed = connect(("127.0.0.1", port), "here", &servers, soon(), &mut Vec::new());
        let failed = failed.unwrap_err().to_string();
        assert!(
            failed.starts_with(&format!("no connection to 127.0.0.1:{port}: Connection refused")),
            "{failed}"
        );
    }

    #[test]
    fn a_server_that_says_nothing_does_not_outlast_the_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = Servers { addresses: vec![silent.local_addr().unwrap()], ..Servers::default() };
        let until = Instant::now() + Duration::from_millis(50);
        let failed = print("web", A, false, &servers, until, &mut Vec::new()).unwrap_err().to_string();
        assert!(failed.contains("did not answer in "), "{failed}");
    }
}
