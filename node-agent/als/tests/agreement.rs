//! The walk over the wire against full decoding.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use kestrel_als::{
    Reporter, Window,
    entry::{self, Cause, Entry, Found, Protocol},
    flags::Flags,
};
use kestrel_proto::envoy::{
    config::core::v3::{self as core, SocketAddress},
    data::accesslog::v3::{
        AccessLogCommon, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
        HttpResponseProperties, ResponseFlags, TcpAccessLogEntry, TlsProperties,
        response_flags::Unauthorized,
        tls_properties::{
            CertificateProperties,
            certificate_properties::{SubjectAltName, subject_alt_name::San},
        },
    },
    service::accesslog::v3::{
        StreamAccessLogsMessage,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries},
    },
};
use proptest::{collection::vec, option::of, prelude::*};
use prost::Message as _;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "\\PC{0,20}", Just(String::new())]
}

fn address() -> impl Strategy<Value = Option<core::Address>> {
    let socket = (text(), 0..65_536u32).prop_map(|(address, port_value)| {
        core::address::Address::SocketAddress(SocketAddress {
            address,
            port_value,
            ..SocketAddress::default()
        })
    });
    let pipe = text().prop_map(|path| core::address::Address::Pipe(core::Pipe { path, mode: 0 }));
    let socket_text = any::<(IpAddr, u16)>().prop_map(|socket| SocketAddr::from(socket).to_string());
    let endpoint = prop_oneof![text(), socket_text];
    let internal = (text(), endpoint).prop_map(|(server_listener_name, endpoint_id)| {
        core::address::Address::EnvoyInternalAddress(core::EnvoyInternalAddress {
            server_listener_name,
            endpoint_id,
        })
    });
    // On the heap: an entry has four of them, and a test's thread 2 MiB.
    of(of(prop_oneof![socket, pipe, internal]).prop_map(|address| core::Address { address })).boxed()
}

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }))
}

fn tls() -> impl Strategy<Value = Option<TlsProperties>> {
    let name = of(prop_oneof![text().prop_map(San::Uri), text().prop_map(San::Dns)]);
    let names = vec(name.prop_map(|san| SubjectAltName { san }), 0..3);
    let certificate = of(names.prop_map(|subject_alt_name| CertificateProperties {
        subject_alt_name,
        issuer: "passed over".to_owned(),
        ..CertificateProperties::default()
    }));
    of(certificate.prop_map(|certificate| TlsProperties {
        local_certificate_properties: certificate.clone(),
        peer_certificate_properties: certificate,
        ..TlsProperties::default()
    }))
}

fn flags() -> impl Strategy<Value = Option<ResponseFlags>> {
    let flags = (any::<[bool; 6]>(), of(any::<u32>())).prop_map(|(some, reason)| ResponseFlags {
        failed_local_healthcheck: some[0],
        no_healthy_upstream: some[1],
        upstream_request_timeout: some[2],
        no_route_found: some[3],
        upstream_retry_limit_exceeded: some[4],
        downstream_remote_reset: some[5],
        unauthorized_details: reason.map(|reason| Unauthorized { reason }),
        ..ResponseFlags::default()
    });
    of(flags)
}

fn why() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        Just("rbac_access_denied_matched_policy[none]".to_owned()),
        Just("TLS_error: x".to_owned())
    ]
}

fn common() -> impl Strategy<Value = AccessLogCommon> {
    let who = (address(), address(), address(), address(), tls(), text());
    let when = (of(any::<(i64, i32)>()), duration(), duration());
    let how = (flags(), why(), why(), why(), any::<bool>(), any::<[u64; 2]>(), any::<u32>(), 0..20);
    (who, when, how).prop_map(|((remote, local, upstream, direct, tls_properties, cluster), when, how)| {
        AccessLogCommon {
            downstream_local_address: local,
            upstream_remote_address: upstream,
            downstream_direct_remote_address: direct,
            tls_properties,
            upstream_cluster: cluster,
            start_time: when.0.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
            duration: when.1,
            time_to_last_downstream_tx_byte: when.2,
            response_flags: how.0,
            upstream_transport_failure_reason: how.1,
            downstream_transport_failure_reason: how.2,
            connection_termination_details: how.3,
            intermediate_log_entry: how.4,
            upstream_wire_bytes_sent: how.5[0],
            upstream_wire_bytes_received: how.5[1],
            upstream_request_attempt_count: how.6,
            // Passed over.
            sample_rate: 0.5,
            upstream_local_address: remote.clone(),
            downstream_remote_address: remote,
            time_to_last_rx_byte: Some(prost_types::Duration { seconds: 1, nanos: 2 }),
            stream_id: "id".to_owned(),
            custom_tags: [("tag".to_owned(), "value".to_owned())].into(),
            access_log_type: how.7,
            ..AccessLogCommon::default()
        }
    })
}

fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![text(), Just("content-type".to_owned()), Just("grpc-status".to_owned())];
    let value = prop_oneof![text(), Just("application/grpc+proto".to_owned()), Just("14".to_owned())];
    prop::collection::btree_map(key, value, 0..3)
}

fn http() -> impl Strategy<Value = HttpAccessLogEntry> {
    let path = prop_oneof![text(), Just("/shop.v1.Orders/Get".to_owned())];
    let request = (0..12i32, text(), path, text(), any::<[u64; 2]>(), headers()).prop_map(
        |(request_method, authority, path, original_path, bytes, request_headers)| HttpRequestProperties {
            request_method,
            authority,
            path,
            original_path,
            request_headers_bytes: bytes[0],
            request_body_bytes: bytes[1],
            request_headers,
            user_agent: "passed over".to_owned(),
            port: Some(80),
            ..HttpRequestProperties::default()
        },
    );
    let response = (of(any::<u32>()), any::<[u64; 2]>(), headers(), headers(), why()).prop_map(
        |(response_code, bytes, response_headers, response_trailers, response_code_details)| {
            HttpResponseProperties {
                response_code,
                response_headers_bytes: bytes[0],
                response_body_bytes: bytes[1],
                response_headers,
                response_trailers,
                response_code_details,
                upstream_header_bytes_received: 9,
                ..HttpResponseProperties::default()
            }
        },
    );
    (of(common()), 0..6i32, of(request), of(response)).prop_map(
        |(common_properties, protocol_version, request, response)| HttpAccessLogEntry {
            common_properties,
            protocol_version,
            request,
            response,
        },
    )
}

fn tcp() -> impl Strategy<Value = TcpAccessLogEntry> {
    let bytes = any::<(u64, u64)>()
        .prop_map(|(received_bytes, sent_bytes)| ConnectionProperties { received_bytes, sent_bytes });
    (of(common()), of(bytes)).prop_map(|(common_properties, connection_properties)| TcpAccessLogEntry {
        common_properties,
        connection_properties,
    })
}

fn message() -> impl Strategy<Value = StreamAccessLogsMessage> {
    let http =
        vec(http(), 0..4).prop_map(|log_entry| LogEntries::HttpLogs(HttpAccessLogEntries { log_entry }));
    let tcp = vec(tcp(), 0..4).prop_map(|log_entry| LogEntries::TcpLogs(TcpAccessLogEntries { log_entry }));
    let identifier = text().prop_map(|log_name| Identifier { node: None, log_name });
    (of(identifier), of(prop_oneof![http, tcp]))
        .prop_map(|(identifier, log_entries)| StreamAccessLogsMessage { identifier, log_entries })
}

/// An address, as the walk tells it.
type Socket = (String, u16);

fn socket(address: &Option<core::Address>) -> Socket {
    match address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(core::address::Address::SocketAddress(socket)) => {
            (socket.address.clone(), socket.port_value as u16)
        }
        Some(core::address::Address::EnvoyInternalAddress(internal)) => {
            let socket = internal.endpoint_id.parse::<SocketAddr>();
            socket.map_or_else(|_| Socket::default(), |socket| (socket.ip().to_string(), socket.port()))
        }
        _ => Socket::default(),
    }
}

fn time(seconds: i64, nanos: i32) -> u64 {
    let Ok(seconds) = u64::try_from(seconds) else { return 0 };
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos.max(0) as u64)
}

/// What is to be found of an entry. All of it is compared in this form.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    protocol: Protocol,
    sockets: [Socket; 4],
    texts: [String; 5],
    times: [u64; 3],
    codes: Vec<&'static str>,
    denied: bool,
    tls: bool,
    numbers: [u64; 11],
    grpc_status: Option<u8>,
    is_intermediate: bool,
    cause: Cause,
}

impl Expected {
    fn of_common(common: AccessLogCommon) -> Self {
        let set = common.response_flags.unwrap_or_default();
        let codes = [
            ("LH", set.failed_local_healthcheck),
            ("UH", set.no_healthy_upstream),
            ("UT", set.upstream_request_timeout),
            ("NR", set.no_route_found),
            ("UAEX", set.unauthorized_details.is_some()),
            ("URX", set.upstream_retry_limit_exceeded),
            ("DR", set.downstream_remote_reset),
        ];
        let names = common.tls_properties.and_then(|tls| tls.peer_certificate_properties).unwrap_or_default();
        let uri = names.subject_alt_name.into_iter().find_map(|name| match name.san {
            Some(San::Uri(uri)) if !uri.is_empty() => Some(uri),
            _ => None,
        });
        let failures = [common.upstream_transport_failure_reason, common.downstream_transport_failure_reason];
        let ended = common.connection_termination_details;
        // In the order of the fields' numbers.
        let reasons =
            [(&failures[0], Cause::Upstream), (&ended, Cause::End), (&failures[1], Cause::Downstream)];
        let why = reasons.into_iter().rfind(|(text, _)| !text.is_empty());
        let (why, cause) = why.map(|(text, cause)| (text.clone(), cause)).unwrap_or_default();
        let duration =
            |duration: Option<prost_types::Duration>| duration.map_or(0, |of| time(of.seconds, of.nanos));
        Self {
            sockets: [
                socket(&common.downstream_direct_remote_address),
                socket(&common.downstream_remote_address),
                socket(&common.downstream_local_address),
                socket(&common.upstream_remote_address),
            ],
            texts: [common.upstream_cluster, uri.unwrap_or_default(), why, String::new(), String::new()],
            times: [
                common.start_time.map_or(0, |of| time(of.seconds, of.nanos)),
                duration(common.duration),
                duration(common.time_to_last_downstream_tx_byte),
            ],
            codes: codes.into_iter().filter(|(_, set)| *set).map(|(code, _)| code).collect(),
            denied: ended.contains("rbac_access_denied"),
            tls: failures.iter().any(|text| text.contains("TLS")),
            numbers: [
                common.upstream_request_attempt_count.into(),
                common.upstream_wire_bytes_sent,
                common.upstream_wire_bytes_received,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                common.access_log_type as u64,
            ],
            is_intermediate: common.intermediate_log_entry,
            cause,
            ..Self::default()
        }
    }

    fn of_tcp(entry: TcpAccessLogEntry) -> Self {
        let mut expected = Self::of_common(entry.common_properties.unwrap_or_default());
        let bytes = entry.connection_properties.unwrap_or_default();
        (expected.numbers[3], expected.numbers[4]) = (bytes.received_bytes, bytes.sent_bytes);
        expected
    }

    fn of_http(entry: HttpAccessLogEntry) -> Self {
        let mut expected = Self::of_common(entry.common_properties.unwrap_or_default());
        let request = entry.request.unwrap_or_default();
        let response = entry.response.unwrap_or_default();
        let path = if request.original_path.is_empty() { request.path } else { request.original_path };
        let code = response.response_code.unwrap_or_default();
        if response.response_code_details.contains("rbac_access_denied") {
            expected.denied = true;
            (expected.texts[2], expected.cause) = (response.response_code_details, Cause::End);
        }
        let is_grpc =
            request.request_headers.get("content-type").is_some_and(|of| of.starts_with("application/grpc"));
        let posted =
            request.request_method == 3 && entry.protocol_version == 3 && path == "/shop.v1.Orders/Get";
        let status = |of: &BTreeMap<String, String>| of.get("grpc-status").map(|status| status.parse().ok());
        // The later field wins.
        expected.grpc_status =
            status(&response.response_trailers).or(status(&response.response_headers)).unwrap_or_default();
        expected.protocol =
            if is_grpc || posted || expected.grpc_status.is_some() { Protocol::Grpc } else { Protocol::Http };
        (expected.texts[3], expected.texts[4]) = (request.authority, path);
        let [head, body] = [request.request_headers_bytes, request.request_body_bytes];
        let [response_head, response_body] = [response.response_headers_bytes, response.response_body_bytes];
        expected.numbers[3..10].copy_from_slice(&[
            head.saturating_add(body),
            response_head.saturating_add(response_body),
            request.request_method as u64,
            entry.protocol_version as u64,
            if code < 1000 { code.into() } else { 0 },
            body,
            response_body,
        ]);
        expected
    }

    fn found(entry: &Entry<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let socket = |address: entry::Address<'_>| (text(address.ip), address.port);
        Self {
            protocol: entry.protocol,
            sockets: [entry.client, entry.client_by_header, entry.local, entry.upstream].map(socket),
            texts: [entry.cluster, entry.principal, entry.why, entry.authority, entry.path].map(text),
            times: [entry.start, entry.duration, entry.last_byte],
            codes: entry.flags.codes().collect(),
            denied: entry.flags.any(Flags::DENIED),
            tls: entry.flags.any(Flags::TLS),
            numbers: [
                entry.attempts.into(),
                entry.upstream_sent,
                entry.upstream_received,
                entry.request_bytes,
                entry.response_bytes,
                entry.method.into(),
                entry.version.into(),
                entry.code.into(),
                entry.request_body,
                entry.response_body,
                entry.log_type.into(),
            ],
            grpc_status: entry.grpc_status,
            is_intermediate: entry.is_intermediate,
            cause: entry.cause,
        }
    }
}

/// Entries that were found, and how often something was malformed.
fn walk(bytes: &[u8]) -> (Vec<Expected>, u64) {
    let (mut found, mut malformed) = (Vec::new(), 0);
    entry::read(bytes, |next| match next {
        Found::Entry(entry) => found.push(Expected::found(entry)),
        Found::Malformed => malformed += 1,
        Found::Identifier(_) => {}
    });
    (found, malformed)
}

proptest! {
    #[test]
    fn the_walk_finds_what_decoding_finds(message in message()) {
        let bytes = message.encode_to_vec();
        let expected: Vec<_> = match message.log_entries {
            Some(LogEntries::HttpLogs(entries)) => entries.log_entry.into_iter().map(Expected::of_http).collect(),
            Some(LogEntries::TcpLogs(entries)) => entries.log_entry.into_iter().map(Expected::of_tcp).collect(),
            None => Vec::new(),
        };
        prop_assert_eq!(entry::count(&bytes), expected.len() as u64);
        prop_assert_eq!(walk(&bytes), (expected, 0));
    }

    /// Scenario: bytes of a good message are changed, cut or replaced.
    /// Guarantee: nothing panics, and what was not touched is found.
    #[test]
    fn hostile_bytes_cost_their_entry(
        entries in prop_oneof![
            vec(http(), 1..5).prop_map(|entries| (2, entries.into_iter().map(|of| (of.encode_to_vec(), Expected::of_http(of))).collect::<Vec<_>>())),
            vec(tcp(), 1..5).prop_map(|entries| (3, entries.into_iter().map(|of| (of.encode_to_vec(), Expected::of_tcp(of))).collect::<Vec<_>>())),
        ],
        hit: prop::sample::Index,
        garbage in vec(any::<u8>(), 1..60),
    ) {
        let (field, entries) = entries;
        // A string of which there are more bytes than it has.
        let mut bad = vec![0x7a, 0xff, 0x7f];
        bad.extend(garbage);
        let hit = hit.index(entries.len());
        let mut list = Vec::new();
        for (at, (bytes, _)) in entries.iter().enumerate() {
            prost::encoding::bytes::encode(1, if at == hit { &bad } else { bytes }, &mut list);
        }
        let mut message = Vec::new();
        prost::encoding::bytes::encode(field, &list, &mut message);
        let others = entries.into_iter().enumerate().filter(|(at, _)| *at != hit);
        let expected: Vec<_> = others.map(|(_, (_, expected))| expected).collect();
        prop_assert_eq!(walk(&message), (expected, 1));
    }

    #[test]
    fn any_bytes_are_counted_and_nothing_panics(
        message in message(), cut: prop::sample::Index, at: prop::sample::Index, byte: u8, noise in vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = message.encode_to_vec();
        if !bytes.is_empty() {
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        for bytes in [&bytes, &noise] {
            let reporter = Reporter { number: 0, address: (*b"10.0.0.1").into() };
            let (mut window, mut read) = (Window::default(), 0);
            entry::read(bytes, |next| {
                if let Found::Entry(entry) = next {
                    read += 1;
                    window.add(&reporter, entry, 1 << 20);
                }
            });
            prop_assert_eq!(window.rows().map(|(_, counts)| counts.count).sum::<u64>(), read);
            prop_assert!(entry::count(bytes) >= read);
        }
    }
}
