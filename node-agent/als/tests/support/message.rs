//! What an Envoy sends, as tests need it.

use kestrel_proto::envoy::{
    data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties},
    service::accesslog::v3::{
        StreamAccessLogsMessage,
        stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries},
    },
};

/// Requests to a Service, one for each path.
pub(crate) fn message(
    identifier: Option<Identifier>,
    service: &str,
    paths: impl IntoIterator<Item = impl Into<String>>,
) -> StreamAccessLogsMessage {
    let entry = |path| HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("outbound|80||{service}.shop.svc.cluster.local"),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties { path, ..HttpRequestProperties::default() }),
        ..HttpAccessLogEntry::default()
    };
    let log_entry = paths.into_iter().map(|path| entry(path.into())).collect();
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry }));
    StreamAccessLogsMessage { identifier, log_entries }
}
