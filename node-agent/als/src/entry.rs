//! The entries of a message, read where they lie.

use std::net::SocketAddr;

use memchr::{memmem, memrchr};

use crate::{
    flags::{Flags, UNAUTHORIZED_FIELD},
    headers::header,
    wire::{Fields, Malformed, Value},
};

/// What a message holds.
#[derive(Debug)]
pub enum Found<'m, 'a> {
    /// Who sends the stream, once at its beginning: an encoded `Identifier`.
    Identifier(&'a [u8]),
    /// A request, or a connection.
    Entry(&'m Entry<'a>),
    /// An entry whose bytes are none; or, where no entry can be told from the next, the rest of the message.
    Malformed,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Nothing that Envoy understands.
    #[default]
    Tcp,
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// Of what a text says why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Of the end of the request or of the connection.
    #[default]
    End,
    /// Of the failure of the connection to who answers.
    Upstream,
    /// Of the failure of the client's connection.
    Downstream,
}

/// An address of a socket, as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address<'a> {
    /// Such as `10.0.0.1`.
    pub ip: &'a [u8],
    /// Its port.
    pub port: u16,
}

/// What is used of one entry. Texts are as they came, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Entry<'a> {
    /// What was spoken.
    pub protocol: Protocol,
    /// Who connected.
    pub client: Address<'a>,
    /// Who it is for, where a header says so.
    pub client_by_header: Address<'a>,
    /// Where it connected to.
    pub local: Address<'a>,
    /// Who answered.
    pub upstream: Address<'a>,
    /// The proxy's name for who answers.
    pub cluster: &'a [u8],
    /// The client by its certificate: the first URI.
    pub principal: &'a [u8],
    /// When it began, nanoseconds since 1970.
    pub start: u64,
    /// How long it took, nanoseconds.
    pub duration: u64,
    /// Likewise, until the last byte was sent.
    pub last_byte: u64,
    /// Why it ended as it did.
    pub flags: Flags,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed or was ended.
    pub why: &'a [u8],
    /// Which text that is.
    pub cause: Cause,
    /// It goes on; another entry follows.
    pub is_intermediate: bool,
    /// When it was logged, and of what: `AccessLogType` of Envoy.
    pub log_type: u8,
    /// Method: `RequestMethod` of Envoy.
    pub method: u8,
    /// `HTTPVersion` of Envoy.
    pub version: u8,
    /// `Host`.
    pub authority: &'a [u8],
    /// With its query.
    pub path: &'a [u8],
    /// Status; 0: there was no answer.
    pub code: u16,
    /// Of gRPC, if logged.
    pub grpc_status: Option<u8>,
    /// Bytes of headers and body, or of the connection.
    pub request_bytes: u64,
    /// Likewise, of the answer.
    pub response_bytes: u64,
    /// Bytes of the body.
    pub request_body: u64,
    /// Likewise, of the answer.
    pub response_body: u64,
    /// Bytes on the wire to who answers, if known.
    pub upstream_sent: u64,
    /// Bytes on the wire from there, if known.
    pub upstream_received: u64,
    /// An encoded `HTTPRequestProperties`.
    pub request: &'a [u8],
    /// An encoded `HTTPResponseProperties`.
    pub response: &'a [u8],
}

impl Entry<'_> {
    /// When it ended, nanoseconds since 1970.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.took())
    }

    /// How long it took, nanoseconds.
    pub fn took(&self) -> u64 {
        if self.duration > 0 { self.duration } else { self.last_byte }
    }

    /// Whether the logger for HTTP says it of a connection, or that for TCP of a request. A proxy that has both, as Istio's have wherever
    /// both are named, logs everything with either, and the other one's entry says all.
    pub fn is_twin(&self) -> bool {
        let is_tcp = self.protocol == Protocol::Tcp;
        match self.log_type {
            // Neither listeners say it, nor Envoys before 1.26.
            0 => !is_tcp && [self.method, self.version] == [0; 2] && self.code == 0 && self.path.is_empty(),
            // TcpUpstreamConnected to TcpConnectionEnd, UdpTunnelUpstreamConnected to UdpSessionEnd.
            1..=3 | 11..=13 => !is_tcp,
            // DownstreamStart to DownstreamTunnelSuccessfullyEstablished.
            4..=10 => is_tcp,
            _ => false,
        }
    }
}

/// Field numbers of `envoy/als.proto` and `envoy/accesslog.proto`.
mod field {
    pub(super) const IDENTIFIER: u32 = 1;
    pub(super) const HTTP_LOGS: u32 = 2;
    pub(super) const TCP_LOGS: u32 = 3;
    pub(super) const LOG_ENTRY: u32 = 1;
}

/// Reads a `StreamAccessLogsMessage`.
pub fn read<'a>(message: &'a [u8], mut found: impl FnMut(Found<'_, 'a>)) {
    let mut fields = Fields::new(message);
    loop {
        match fields.next() {
            Ok(Some((field::IDENTIFIER, Value::Bytes(identifier)))) => found(Found::Identifier(identifier)),
            Ok(Some((field::HTTP_LOGS, Value::Bytes(entries)))) => read_all(entries, http, &mut found),
            Ok(Some((field::TCP_LOGS, Value::Bytes(entries)))) => read_all(entries, tcp, &mut found),
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(Malformed) => return found(Found::Malformed),
        }
    }
}

/// Who sends the stream, if the message says so.
pub fn identifier(message: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::new(message);
    while let Ok(Some((field, value))) = fields.next() {
        if let (field::IDENTIFIER, Value::Bytes(identifier)) = (field, value) {
            return Some(identifier);
        }
    }
    None
}

/// How many entries a message holds, without a look at them.
pub fn count(message: &[u8]) -> u64 {
    let (mut fields, mut entries) = (Fields::new(message), 0);
    while let Ok(Some((field, value))) = fields.next() {
        if matches!(field, field::HTTP_LOGS | field::TCP_LOGS) {
            let mut inner = Fields::new(value.bytes());
            while let Ok(Some((field, _))) = inner.next() {
                entries += u64::from(field == field::LOG_ENTRY);
            }
        }
    }
    entries
}

type Read<'a> = fn(&'a [u8], &mut Entry<'a>) -> Result<(), Malformed>;

fn read_all<'a>(entries: &'a [u8], read: Read<'a>, found: &mut impl FnMut(Found<'_, 'a>)) {
    let mut fields = Fields::new(entries);
    loop {
        match fields.next() {
            Ok(Some((field::LOG_ENTRY, Value::Bytes(bytes)))) => {
                let mut entry = Entry::default();
                match read(bytes, &mut entry) {
                    Ok(()) => found(Found::Entry(&entry)),
                    Err(Malformed) => found(Found::Malformed),
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(Malformed) => return found(Found::Malformed),
        }
    }
}

/// An `HTTPAccessLogEntry`.
fn http<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    entry.protocol = Protocol::Http;
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => common(value.bytes(), entry)?,
            2 => entry.version = small(value),
            3 => {
                entry.request = value.bytes();
                request(entry.request, entry)?;
            }
            4 => {
                entry.response = value.bytes();
                response(entry.response, entry)?;
            }
            _ => {}
        }
    }
    if entry.protocol == Protocol::Http && (entry.grpc_status.is_some() || looks_like_grpc(entry)) {
        entry.protocol = Protocol::Grpc;
    }
    Ok(())
}

/// A `TCPAccessLogEntry`.
fn tcp<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => common(value.bytes(), entry)?,
            2 => {
                let mut fields = Fields::new(value.bytes());
                while let Some((field, value)) = fields.next()? {
                    match field {
                        1 => entry.request_bytes = value.number(),
                        2 => entry.response_bytes = value.number(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// An `AccessLogCommon`.
fn common<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        match field {
            2 => address(value.bytes(), &mut entry.client_by_header)?,
            3 => address(value.bytes(), &mut entry.local)?,
            4 => tls(value.bytes(), entry)?,
            5 => entry.start = nanoseconds(value.bytes())?,
            12 => entry.last_byte = nanoseconds(value.bytes())?,
            13 => address(value.bytes(), &mut entry.upstream)?,
            15 => entry.cluster = value.bytes(),
            16 => flags(value.bytes(), &mut entry.flags)?,
            18 => explain(value.bytes(), Cause::Upstream, entry),
            20 => address(value.bytes(), &mut entry.client)?,
            23 => entry.duration = nanoseconds(value.bytes())?,
            24 => entry.attempts = value.number() as u32,
            25 => explain(value.bytes(), Cause::End, entry),
            27 => entry.is_intermediate = value.number() != 0,
            28 => explain(value.bytes(), Cause::Downstream, entry),
            31 => entry.upstream_sent = value.number(),
            32 => entry.upstream_received = value.number(),
            33 => entry.log_type = small(value),
            _ => {}
        }
    }
    Ok(())
}

/// What Envoy's filter for authorization begins its details with.
const DENIED: &[u8] = b"rbac_access_denied";

/// A text that says why; it may mean a flag by what it has in it.
fn explain<'a>(text: &'a [u8], cause: Cause, entry: &mut Entry<'a>) {
    let (flag, sign) = match cause {
        Cause::End => (Flags::DENIED, DENIED),
        Cause::Upstream | Cause::Downstream => (Flags::TLS, &b"TLS"[..]),
    };
    if !text.is_empty() {
        (entry.why, entry.cause) = (text, cause);
        if memmem::find(text, sign).is_some() {
            entry.flags.add(flag);
        }
    }
}

/// That of a socket, or of what is reached through a listener inside the proxy, such as a tunnel of an ambient mesh.
fn address<'a>(message: &'a [u8], address: &mut Address<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((kind, value)) = fields.next()? {
        let mut fields = Fields::new(if matches!(kind, 1 | 3) { value.bytes() } else { &[] });
        while let Some((field, value)) = fields.next()? {
            match (kind, field) {
                (1, 2) => address.ip = value.bytes(),
                (1, 3) => address.port = value.number() as u16,
                (3, 2) => endpoint(value.bytes(), address),
                _ => {}
            }
        }
    }
    Ok(())
}

/// `10.0.0.2:8080` or `[fd00::2]:8080`; another name of an endpoint is no address.
fn endpoint<'a>(name: &'a [u8], address: &mut Address<'a>) {
    let Some(socket) = str::from_utf8(name).ok().and_then(|name| name.parse::<SocketAddr>().ok()) else {
        return;
    };
    let ip = memrchr(b':', name).and_then(|end| name.get(..end)).unwrap_or_default();
    let ip = ip.strip_prefix(b"[").and_then(|ip| ip.strip_suffix(b"]")).unwrap_or(ip);
    *address = Address { ip, port: socket.port() };
}

/// The first URI of the peer's certificate, of `TLSProperties`.
fn tls<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        if field == 5 {
            let mut names = Fields::new(value.bytes());
            while let Some((field, value)) = names.next()? {
                if field == 1 && entry.principal.is_empty() {
                    let mut name = Fields::new(value.bytes());
                    while let Some((field, value)) = name.next()? {
                        if field == 1 {
                            entry.principal = value.bytes();
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// `ResponseFlags`.
fn flags(message: &[u8], flags: &mut Flags) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        let is_set = match value {
            Value::Number(number) => number != 0,
            Value::Bytes(_) => field == UNAUTHORIZED_FIELD,
            Value::Fixed => false,
        };
        if is_set {
            flags.set(field);
        }
    }
    Ok(())
}

/// A `Timestamp` or a `Duration`; a negative one is 0.
fn nanoseconds(message: &[u8]) -> Result<u64, Malformed> {
    let (mut fields, mut seconds, mut nanos) = (Fields::new(message), 0, 0);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => seconds = value.number(),
            2 => nanos = value.number(),
            _ => {}
        }
    }
    let (seconds, nanos) = (u64::try_from(seconds as i64), u64::from((nanos as i32).max(0) as u32));
    Ok(seconds.map_or(0, |seconds| seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

/// `HTTPRequestProperties`.
fn request<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    let (mut head, mut rewritten) = (0, &[][..]);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => entry.method = small(value),
            3 => entry.authority = value.bytes(),
            5 => entry.path = value.bytes(),
            10 => rewritten = value.bytes(),
            11 => head = value.number(),
            12 => entry.request_body = value.number(),
            13 => {
                let (key, value) = header(value.bytes())?;
                if key == b"content-type" && value.starts_with(b"application/grpc") {
                    entry.protocol = Protocol::Grpc;
                }
            }
            _ => {}
        }
    }
    // What the client asked for, before the proxy rewrote it.
    if !rewritten.is_empty() {
        entry.path = rewritten;
    }
    entry.request_bytes = head.saturating_add(entry.request_body);
    Ok(())
}

/// `HTTPResponseProperties`.
fn response<'a>(message: &'a [u8], entry: &mut Entry<'a>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    let mut head = 0;
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                let mut wrapper = Fields::new(value.bytes());
                while let Some((field, value)) = wrapper.next()? {
                    if field == 1 {
                        // No status has more digits.
                        entry.code =
                            u16::try_from(value.number()).ok().filter(|code| *code < 1000).unwrap_or(0);
                    }
                }
            }
            2 => head = value.number(),
            3 => entry.response_body = value.number(),
            4 | 5 => {
                let (key, value) = header(value.bytes())?;
                if key == b"grpc-status" {
                    entry.grpc_status = str::from_utf8(value).ok().and_then(|status| status.parse().ok());
                }
            }
            // Texts of success are names of filters.
            6 if memmem::find(value.bytes(), DENIED).is_some() => {
                (entry.why, entry.cause) = (value.bytes(), Cause::End);
                entry.flags.add(Flags::DENIED);
            }
            _ => {}
        }
    }
    entry.response_bytes = head.saturating_add(entry.response_body);
    Ok(())
}

/// `/package.Service/Method`, posted over HTTP/2: as a rule the content type is not logged.
fn looks_like_grpc(entry: &Entry<'_>) -> bool {
    const POST: u8 = 3;
    const HTTP2: u8 = 3;
    if entry.method != POST || entry.version != HTTP2 {
        return false;
    }
    let Some(path) = entry.path.strip_prefix(b"/") else { return false };
    let Some(slash) = path.iter().position(|byte| *byte == b'/') else { return false };
    let (service, method) = path.split_at(slash);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let method = method.get(1..).unwrap_or_default();
    service.contains(&b'.')
        && service.iter().all(|byte| is_name(byte) || *byte == b'.')
        && method.first().is_some_and(u8::is_ascii_uppercase)
        && method.iter().all(is_name)
}

/// An enum's number; one that is not known is 0.
fn small(value: Value<'_>) -> u8 {
    u8::try_from(value.number()).unwrap_or(0)
}
