//! What the server asks for.

use std::fmt;

use kestrel_proto::cloud::v1::{
    CertificateRenewalRequest, DatadogQueryRequest, KubernetesApiRequest, MetricsQueryRequest,
    NetworkPolicyWithError, OperatorRestartRequest, ShellCommandRequest, StreamControlResponse,
    StreamDataResponse, StreamEventsResponse, StreamFlowsResponse, StreamLogsResponse, YamlApplyRequest,
    YamlDryRunRequest, YamlManifest, stream_control_response as control, stream_data_response as data,
};

use prost::Message as _;

use super::lanes::Over;

/// A request of the server, whichever stream it came on.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "named like the contract's messages")]
pub enum Request {
    KubernetesApi(KubernetesApiRequest),
    ShellCommand(ShellCommandRequest),
    YamlDryRun(YamlDryRunRequest),
    YamlApply(YamlApplyRequest),
    CertificateRenewal(CertificateRenewalRequest),
    OperatorRestart(OperatorRestartRequest),
    MetricsQuery(MetricsQueryRequest),
    DatadogQuery(DatadogQueryRequest),
    NetworkPolicy(NetworkPolicyWithError),
}

impl Request {
    /// The stream for the answer to what came `over` one: a verdict on a policy has
    /// a place on the data stream alone.
    pub(crate) fn answered_over(&self, over: Over) -> Over {
        if matches!(self, Self::NetworkPolicy(_)) { Over::Data } else { over }
    }

    /// Bytes of memory that it takes, about: what has no text at all still has a place in its list.
    pub(crate) fn bytes(&self) -> usize {
        let texts = |texts: &Vec<String>| texts.len() * size_of::<String>();
        let manifests = |manifests: &Vec<YamlManifest>| manifests.len() * size_of::<YamlManifest>();
        match self {
            Self::KubernetesApi(it) => it.encoded_len() + texts(&it.api_paths),
            Self::ShellCommand(it) => it.encoded_len() + texts(&it.commands),
            Self::YamlDryRun(it) => it.encoded_len() + manifests(&it.yaml_manifests),
            Self::YamlApply(it) => it.encoded_len() + manifests(&it.yaml_manifests),
            Self::MetricsQuery(it) => it.encoded_len() + texts(&it.metric_names),
            Self::CertificateRenewal(it) => it.encoded_len(),
            Self::OperatorRestart(it) => it.encoded_len(),
            Self::DatadogQuery(it) => it.encoded_len(),
            Self::NetworkPolicy(it) => it.encoded_len(),
        }
    }
}

/// Kind and id: a pushed certificate comes with its key.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = match self {
            Self::KubernetesApi(it) => ("KubernetesApi", &it.request_id),
            Self::ShellCommand(it) => ("ShellCommand", &it.request_id),
            Self::YamlDryRun(it) => ("YamlDryRun", &it.request_id),
            Self::YamlApply(it) => ("YamlApply", &it.request_id),
            Self::CertificateRenewal(it) => ("CertificateRenewal", &it.request_id),
            Self::OperatorRestart(it) => ("OperatorRestart", &it.request_id),
            Self::MetricsQuery(it) => ("MetricsQuery", &it.request_id),
            Self::DatadogQuery(it) => ("DatadogQuery", &it.request_id),
            Self::NetworkPolicy(it) => ("NetworkPolicy", &it.policy_id),
        };
        f.debug_tuple(kind).field(id).finish()
    }
}

/// What comes on a stream.
pub(crate) trait Response: prost::Message + Default + 'static {
    /// Whether it is a sign of life, which comes again and again.
    fn is_heartbeat(&self) -> bool;

    /// The request in it; acks and heartbeats are none.
    fn request(self) -> Option<Request>;
}

impl Response for StreamDataResponse {
    fn is_heartbeat(&self) -> bool {
        matches!(self.response, Some(data::Response::Heartbeat(_)))
    }

    fn request(self) -> Option<Request> {
        use data::Response as Data;
        Some(match self.response? {
            Data::Ack(_) | Data::Heartbeat(_) => return None,
            Data::NetworkPolicy(policy) => Request::NetworkPolicy(policy),
            Data::KubernetesApiRequest(request) => Request::KubernetesApi(request),
            Data::ShellCommandRequest(request) => Request::ShellCommand(request),
            Data::YamlDryRunRequest(request) => Request::YamlDryRun(request),
            Data::YamlApplyRequest(request) => Request::YamlApply(request),
            Data::CertificateRenewalRequest(request) => Request::CertificateRenewal(request),
            Data::OperatorRestartRequest(request) => Request::OperatorRestart(request),
            Data::MetricsQueryRequest(request) => Request::MetricsQuery(request),
            Data::DatadogQueryRequest(request) => Request::DatadogQuery(request),
        })
    }
}

impl Response for StreamControlResponse {
    fn is_heartbeat(&self) -> bool {
        matches!(self.response, Some(control::Response::Heartbeat(_)))
    }

    fn request(self) -> Option<Request> {
        use control::Response as Control;
        Some(match self.response? {
            Control::Heartbeat(_) => return None,
            Control::NetworkPolicy(policy) => Request::NetworkPolicy(policy),
            Control::KubernetesApiRequest(request) => Request::KubernetesApi(request),
            Control::ShellCommandRequest(request) => Request::ShellCommand(request),
            Control::YamlDryRunRequest(request) => Request::YamlDryRun(request),
            Control::YamlApplyRequest(request) => Request::YamlApply(request),
            Control::CertificateRenewalRequest(request) => Request::CertificateRenewal(request),
            Control::OperatorRestartRequest(request) => Request::OperatorRestart(request),
            Control::MetricsQueryRequest(request) => Request::MetricsQuery(request),
            Control::DatadogQueryRequest(request) => Request::DatadogQuery(request),
        })
    }
}

macro_rules! only_heartbeats {
    ($($message:ty),*) => {$(
        impl Response for $message {
            fn is_heartbeat(&self) -> bool {
                self.response.is_some()
            }

            fn request(self) -> Option<Request> {
                None
            }
        }
    )*};
}

only_heartbeats!(StreamFlowsResponse, StreamEventsResponse, StreamLogsResponse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_on_both_streams_and_is_answered_on_the_data_stream() {
        let policy = NetworkPolicyWithError { policy_id: "p-1".to_owned(), ..Default::default() };
        let response = Some(control::Response::NetworkPolicy(policy.clone()));
        let from_control = StreamControlResponse { response }.request().unwrap();
        let response = Some(data::Response::NetworkPolicy(policy));
        assert!(StreamDataResponse { response }.request().unwrap() == from_control);
        assert_eq!(from_control.answered_over(Over::Control), Over::Data);
        let other = Request::OperatorRestart(OperatorRestartRequest::default());
        assert_eq!(other.answered_over(Over::Control), Over::Control);
    }

    #[test]
    fn a_request_prints_its_kind_and_id_and_nothing_else() {
        let renewal = CertificateRenewalRequest {
            request_id: "r-1".to_owned(),
            client_key: "s3cret".to_owned(),
            ..Default::default()
        };
        assert_eq!(format!("{:?}", Request::CertificateRenewal(renewal)), r#"CertificateRenewal("r-1")"#);
    }
}
