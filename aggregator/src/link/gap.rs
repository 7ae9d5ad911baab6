//! From a gap in a container's log to a line of that log which says so: whoever
//! reads the log must not take it for whole.

use jiff::Timestamp;
use kestrel_proto::node::v1::{LogChunk, LogGap, LogGapReason, LogLevel};

use super::columns::Line;

/// Whose log `gap` is in, and the text of the line that tells it.
pub(super) fn told(gap: LogGap) -> (LogChunk, String) {
    let why = match gap.reason() {
        LogGapReason::Emptied => "their file was emptied before they were read",
        LogGapReason::Removed => "their file was removed before they were read",
        LogGapReason::Damaged => "their file is damaged",
        LogGapReason::Unattended => {
            "their file was removed while no node agent was there to read it, and some of them may have arrived before"
        }
        LogGapReason::Ended => "the pod ended before they were read",
        LogGapReason::Unspecified => "they were gone before they were read",
    };
    let LogGap { bytes, lines, uncounted_bytes, .. } = gap;
    let chunk = LogChunk {
        pod_namespace: gap.pod_namespace,
        pod_name: gap.pod_name,
        pod_uid: gap.pod_uid,
        container_name: gap.container_name,
        ..LogChunk::default()
    };
    let much = match (lines, uncounted_bytes) {
        (0, 0) if bytes == 0 => {
            let text = "kestrel: what this pod wrote last into its log files may be missing: it ended without a word of its collector";
            return (chunk, text.to_owned());
        }
        (0, _) => format!("{bytes} bytes"),
        (lines, 0) => format!("{lines} lines ({bytes} bytes)"),
        (lines, more) => format!("{lines} lines and {more} bytes more"),
    };
    (chunk, format!("kestrel: {much} of this log are missing: {why}"))
}

/// That line, as a warning of ours.
pub(super) fn line(text: &str, now: Timestamp) -> Line<'_> {
    let nanoseconds = u64::try_from(now.as_nanosecond()).unwrap_or_default();
    Line { nanoseconds, text, class: "", end: 0, level: LogLevel::Warn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_says_how_much_is_missing_and_why() {
        let told = |lines, uncounted_bytes, reason: LogGapReason| {
            let gap = LogGap {
                pod_name: "web-1".to_owned(),
                reason: reason.into(),
                bytes: 100,
                lines,
                uncounted_bytes,
                ..LogGap::default()
            };
            let (chunk, text) = told(gap);
            assert_eq!(chunk.pod_name, "web-1");
            text
        };
        assert_eq!(
            told(0, 100, LogGapReason::Emptied),
            "kestrel: 100 bytes of this log are missing: their file was emptied before they were read"
        );
        assert!(told(3, 0, LogGapReason::Removed).contains("3 lines (100 bytes) of this log"));
        assert!(told(3, 40, LogGapReason::Unspecified).contains("3 lines and 40 bytes more of this log"));
    }
}
