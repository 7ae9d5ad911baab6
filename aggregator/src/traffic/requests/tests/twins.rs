//! What proxies log that have a logger for HTTP and one for TCP, as Istio's have.

use super::*;

/// `AccessLogType` of Envoy.
const NOT_SET: i32 = 0;
const TCP_UPSTREAM_CONNECTED: i32 = 1;
const TCP_CONNECTION_END: i32 = 3;
const DOWNSTREAM_END: i32 = 6;

/// What the proxy of either end logs of a request, of a connection and of one that its listener knew nothing to do with.
fn logged(side: Side) -> [Vec<u8>; 2] {
    let request = entry(1, 3, side, "/a", 503);
    let common = |log_type| {
        Some(AccessLogCommon {
            access_log_type: log_type,
            intermediate_log_entry: log_type == TCP_UPSTREAM_CONNECTED,
            ..request.common_properties.clone().unwrap()
        })
    };
    let connection = [TCP_UPSTREAM_CONNECTED, TCP_CONNECTION_END, NOT_SET];
    let of_http = connection.map(|log_type| HttpAccessLogEntry {
        common_properties: common(log_type),
        request: Some(HttpRequestProperties { request_body_bytes: 7, ..Default::default() }),
        response: Some(HttpResponseProperties { response_body_bytes: 9, ..Default::default() }),
        ..HttpAccessLogEntry::default()
    });
    let connection_properties = Some(ConnectionProperties { received_bytes: 7, sent_bytes: 9 });
    let of_tcp = connection
        .into_iter()
        .chain([DOWNSTREAM_END])
        .map(|log_type| TcpAccessLogEntry { common_properties: common(log_type), connection_properties });
    let tcp = Some(LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: of_tcp.collect() }));
    let request = HttpAccessLogEntry { common_properties: common(DOWNSTREAM_END), ..request };
    [
        message(of_http.into_iter().chain([request]).collect()),
        StreamAccessLogsMessage { identifier: None, log_entries: tcp }.encode_to_vec(),
    ]
}

/// Scenario: both loggers of the proxies of both ends log everything, and the client's proxy says how many entries it wrote.
/// Guarantee: the request and the connections are told once, what became of every entry is known, and nothing is missing.
#[tokio::test]
async fn what_both_loggers_of_a_proxy_log_is_counted_once() {
    let world = World::new();
    let web = IpAddr::from([10, 0, 0, 1]);
    assert!(world.requests.proxies().is_empty());
    for written in [100, 108] {
        for (last, side) in [(1, Side::Client), (3, Side::Server)] {
            let mut proxy = world.proxy(last);
            logged(side).iter().for_each(|message| proxy.take(message));
        }
        let told = world.told().await;
        let mut told: Vec<_> = told.iter().map(|log| (log.http_data.is_some(), log.count)).collect();
        told.sort();
        assert_eq!(told, [(false, 2), (true, 1)]);
        world.requests.counted(vec![(web, Counted { written, dropped: 0 })]);
    }
    let tally = Tally { aggregated: 6, unfinished: 2, twins: 8, ..Tally::default() };
    assert_eq!(world.requests.tallies()["shop/web"], tally);
    let loss = Loss { logged: 8, dropped: 0, before: 8 };
    assert_eq!(world.requests.losses()["shop/web"], (loss, 0));
    assert!(world.metrics().contains(r#"refused_total{reason="Twin"} 16"#), "{}", world.metrics());
}
