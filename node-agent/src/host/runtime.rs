//! Asks the container runtime for its version, as the kubelet does, to see
//! that it answers.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use http::uri::PathAndQuery;
use tokio::{net::UnixStream, time::timeout};
use tonic::Request;
use tonic_prost::ProstCodec;

use super::{
    condition::{Finding, Status},
    sample::Seen,
};
use crate::unix_grpc;

/// The condition's type.
pub(super) const KIND: &str = "kestrel.ai/RuntimeReady";

/// The runtime is not ready after this many unanswered questions in a row: one that is started
/// again misses one.
const UNANSWERED: u32 = 2;

/// The kubelet's own limit is two minutes; a version takes a runtime that is
/// well some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `runtime.v1.VersionRequest` of the Container Runtime Interface.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionRequest {
    #[prost(string, tag = "1")]
    version: String,
}

/// `runtime.v1.VersionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

/// Whether it answers, and since when it does not.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    unanswered: u32,
    answered: Option<Instant>,
    /// As it was found last.
    state: Option<(Status, &'static str)>,
}

impl Runtime {
    pub(super) fn judge(&mut self, answer: &Seen<String>, now: Instant) -> Finding {
        let (state, message) = match answer {
            Ok(version) => {
                (self.unanswered, self.answered) = (0, Some(now));
                ((Status::True, "RuntimeAnswers"), format!("{version} answers"))
            }
            Err(problem) => {
                self.unanswered = self.unanswered.saturating_add(1);
                let state = match self.state {
                    _ if self.unanswered >= UNANSWERED => (Status::False, "RuntimeSilent"),
                    before => before.unwrap_or((Status::Unknown, "RuntimeNotSeenYet")),
                };
                let since = self.answered.map(|at| now.saturating_duration_since(at).as_secs());
                let since = since.map_or("since this agent started".to_owned(), |age| format!("for {age} s"));
                (state, format!("the container runtime has not answered {since}: {problem}"))
            }
        };
        self.state = Some(state);
        Finding { kind: KIND, status: state.0, reason: state.1.into(), message }
    }
}

/// The runtime's name and version.
///
/// # Errors
/// Why it did not answer.
pub(crate) async fn version(socket: &Path) -> Result<String, String> {
    timeout(TIMEOUT, ask(socket)).await.map_err(|_| format!("no answer in {} s", TIMEOUT.as_secs()))?
}

async fn ask(socket: &Path) -> Result<String, String> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| format!("{} (KESTREL_RUNTIME_SOCKET): {error}", socket.display()))?;
    let mut client = unix_grpc::client(stream).await?;
    let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/Version");
    let codec = ProstCodec::<VersionRequest, VersionResponse>::default();
    let answer = client
        .unary(Request::new(VersionRequest::default()), path, codec)
        .await
        .map_err(|status| format!("{} ({:?})", status.message(), status.code()))?
        .into_inner();
    Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::condition;

    #[test]
    fn one_unanswered_question_is_no_failure_of_the_runtime() {
        let (mut runtime, start) = (super::Runtime::default(), Instant::now());
        let mut ask = |second, answer: Result<&str, &str>| {
            let answer = answer.map(str::to_owned).map_err(str::to_owned);
            let finding = runtime.judge(&answer, start + Duration::from_secs(second));
            (finding.status, finding.message)
        };
        let (is, is_not) = (condition::Status::True, condition::Status::False);
        assert_eq!(ask(0, Err("no")).0, condition::Status::Unknown);
        assert_eq!(ask(10, Ok("containerd 2.1")), (is, "containerd 2.1 answers".to_owned()));
        assert_eq!(ask(20, Err("no")).0, is);
        let silent = (is_not, "the container runtime has not answered for 20 s: no".to_owned());
        assert_eq!(ask(30, Err("no")), silent);
        assert_eq!(ask(40, Ok("containerd 2.1")).0, is);
        assert_eq!(ask(50, Err("no")).0, is);
    }
}
