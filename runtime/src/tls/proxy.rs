//! Which connections go through an HTTP proxy, and what is said to it and by it.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::config::Settings;

/// Ports of proxies that name none.
const DEFAULT_PORT: u16 = 80;

/// A proxy that makes tunnels (`CONNECT`).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// DNS name or IP address.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// User and password, as the header has them.
    credentials: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Host and port, without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

impl Proxy {
    /// The proxy between this process and `host`, by `HTTPS_PROXY` and
    /// `NO_PROXY`, or their names in small letters. There is none between the
    /// parts of a cluster.
    pub fn between(settings: &mut Settings<'_>, host: &str, port: u16) -> Option<Self> {
        let mut either = |one: &'static str, other| match settings.optional(one) {
            Some(value) => Some((one, value)),
            None => settings.optional(other).map(|value| (other, value)),
        };
        let (name, url) = either("HTTPS_PROXY", "https_proxy")?;
        let exempt = either("NO_PROXY", "no_proxy").map(|(_, list)| list).unwrap_or_default();
        let api_server = settings.optional("KUBERNETES_SERVICE_HOST");
        let proxy = Self::parse(&url)
            // The value may hold a password.
            .map_err(|why| settings.mistake(format!("{name} (Helm: server.proxy) is not usable: {why}")))
            .ok()?;
        let direct =
            is_of_the_cluster(host, api_server.as_deref()) || Exempt::parse(&exempt).holds(host, port);
        (!direct).then_some(proxy)
    }

    fn parse(url: &str) -> Result<Self, &'static str> {
        let rest = match url.trim().split_once("://") {
            None => url.trim(),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err("only proxies of the form http://host:port are supported"),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (host, port) = split_port(address);
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| "its port is no number")?,
        };
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it names no host");
        }
        let credentials = user.map(|user| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            STANDARD.encode([&unescape(user)[..], b":", &unescape(password)].concat())
        });
        Ok(Self { host: host.to_owned(), port, credentials })
    }

    /// Asks for a tunnel to a server.
    pub(super) fn request(&self, host: &str, port: u16) -> String {
        let server = authority(host, port);
        let credentials = self.credentials.as_ref();
        let credentials =
            credentials.map(|text| format!("Proxy-Authorization: Basic {text}\r\n")).unwrap_or_default();
        format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{credentials}\r\n")
    }
}

/// What a proxy answered: its status, and its status line for people.
pub(super) fn status(head: &[u8]) -> Option<(u16, String)> {
    const LONGEST: usize = 100;
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line: String =
        line.iter().take(LONGEST).map(|byte| char::from(*byte)).filter(|c| matches!(c, ' '..='~')).collect();
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    let status = words.next()?.parse().ok()?;
    Some((status, line))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A host, without brackets, and a port if there is one.
fn split_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match address.split_once(':') {
        // An address of IPv6 without brackets has no port.
        Some((_, rest)) if rest.contains(':') => (address, None),
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    }
}

/// Undoes percent-encoding; what is none stays as it is.
fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A host in the one way that it is compared in.
fn plain(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a name means something inside a cluster alone.
fn is_of_the_cluster(host: &str, api_server: Option<&str>) -> bool {
    let host = plain(host);
    let inside = api_server.is_some();
    let single_label = !host.contains(['.', ':']);
    host.ends_with(".svc")
        || host.ends_with(".cluster.local")
        || api_server.is_some_and(|server| plain(server) == host)
        || (inside && single_label)
}

/// What `NO_PROXY` exempts. What can't be understood exempts nothing.
struct Exempt(Vec<Rule>);

enum Rule {
    Everything,
    Name { name: String, itself: bool, port: Option<u16> },
    Address(IpAddr, Option<u16>),
    Network(IpAddr, u32),
}

impl Exempt {
    fn parse(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        Self(entries.filter(|entry| !entry.is_empty()).filter_map(Rule::parse).collect())
    }

    fn holds(&self, host: &str, port: u16) -> bool {
        let host = plain(host);
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let same = |rule: &Option<u16>| rule.is_none_or(|rule| rule == port);
        self.0.iter().any(|rule| match rule {
            Rule::Everything => true,
            Rule::Address(rule, port) => address == Some(*rule) && same(port),
            Rule::Network(network, bits) => {
                address.is_some_and(|address| shares_prefix(*network, address, *bits))
            }
            Rule::Name { name, itself, port } => {
                address.is_none()
                    && same(port)
                    && host
                        .strip_suffix(name.as_str())
                        .is_some_and(|before| if before.is_empty() { *itself } else { before.ends_with('.') })
            }
        })
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((network, bits)) = entry.split_once('/') {
            let network = plain(network).parse::<IpAddr>().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= if network.is_ipv4() { 32 } else { 128 })?;
            return Some(Self::Network(network, bits));
        }
        let (host, port) = split_port(entry);
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok()?),
        };
        let host = plain(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let name = host.trim_start_matches('*').trim_start_matches('.');
        let itself = name.len() == host.len();
        (!name.is_empty()).then(|| Self::Name { name: name.to_owned(), itself, port })
    }
}

fn shares_prefix(network: IpAddr, address: IpAddr, bits: u32) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
