//! Requests about the operator itself: a new client certificate, a new start.

use std::time::Duration;

use jiff::Timestamp;
use kestrel_proto::cloud::v1::{
    CertificateRenewalRequest, CertificateRenewalResponse, OperatorRestartRequest, OperatorRestartResponse,
    stream_control_request::Request as Tool,
};
use tracing::info;

use super::{read::cut, refusal::refuse};
use crate::{
    inventory::convert::timestamp,
    uplink::{Answer, Request, credentials::Credentials},
};

/// Nobody who asks for a restart wants it later than this.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// Of the reason, the log shows so much.
const REASON_BYTES: usize = 200;

/// Takes a certificate that the server made.
pub(super) async fn renew_certificate(
    credentials: &Credentials,
    request: CertificateRenewalRequest,
) -> Answer {
    let CertificateRenewalRequest { request_id, client_cert, client_key, ca_cert, .. } = &request;
    match credentials.renew_certificate(client_cert, client_key, ca_cert).await {
        Ok(()) => Answer::Tool(Tool::CertificateRenewalResponse(CertificateRenewalResponse {
            request_id: request_id.clone(),
            success: true,
            applied_at: Some(timestamp(Timestamp::now())),
            ..Default::default()
        })),
        Err(problem) => refuse(&Request::CertificateRenewal(request), 422, &problem.to_string()),
    }
}

/// The answer to an order to restart, and how long after it the process ends
/// itself, if it does. The kubelet starts it again; `graceful` or not, it is
/// drained first, since nothing is won by losing what waits.
pub(super) fn restart(request: OperatorRestartRequest) -> (Answer, Option<Duration>) {
    let delay = Duration::from_secs(u64::try_from(request.delay_seconds).unwrap_or_default());
    if delay > LONGEST_DELAY {
        let why = format!("delay_seconds is at most {}", LONGEST_DELAY.as_secs());
        return (refuse(&Request::OperatorRestart(request), 400, &why), None);
    }
    let OperatorRestartRequest { request_id, mut reason, .. } = request;
    cut(&mut reason, REASON_BYTES);
    info!("the server asks for a restart in {} s: {reason:?}", delay.as_secs());
    let answer = OperatorRestartResponse {
        request_id,
        success: true,
        initiated_at: Some(timestamp(Timestamp::now())),
        ..Default::default()
    };
    (Answer::Tool(Tool::OperatorRestartResponse(answer)), Some(delay))
}
