//! Answers that say no: every request gets one, so that the cloud never waits
//! for an answer that will not come.

use kestrel_proto::cloud::v1::{
    CertificateRenewalResponse, DatadogQueryResponse, KubernetesApiResponse, KubernetesApiResult,
    MetricsQueryResponse, NetworkPoliciesWithErrors, NetworkPolicyWithError, OperatorRestartResponse,
    ShellCommandResponse, ShellCommandResult, YamlApplyRequest, YamlApplyResponse, YamlApplyResult,
    YamlDryRunRequest, YamlDryRunResponse, YamlValidationResult, stream_control_request::Request as Tool,
};

use super::read::{PATHS, TEXT_BYTES, cut};
use crate::uplink::{Answer, Request};

/// The exit code of a shell for a command that it may not run.
pub(super) const NOT_EXECUTED: i32 = 126;
/// A refusal is about as large: 256 of them at once push out no answer that waits to be sent.
const REFUSAL_BYTES: usize = 4 * 1024;
/// Of it, an id or a part has so much.
const ECHO_BYTES: usize = 1024;
/// What etcd stores of one object; no policy is larger.
pub(super) const MANIFEST_BYTES: usize = 1536 * 1024;

/// The answer to `request` that says `why` in each place where a reader may look, for as many of its parts as
/// there is room for. `status` is an HTTP code.
pub(crate) fn refuse(request: &Request, status: i32, why: &str) -> Answer {
    let echo = |text: &str| text[..text.floor_char_boundary(ECHO_BYTES)].to_owned();
    let mut room = REFUSAL_BYTES;
    let parts = parts_of(request).into_iter().map(echo).take_while(|part| {
        let left = room.checked_sub(part.len() + why.len());
        room = left.unwrap_or_default();
        left.is_some()
    });
    let why = || why.to_owned();
    Answer::Tool(match request {
        Request::NetworkPolicy(policy) => {
            // A manifest that is cut would be another manifest.
            let whole = Some(&policy.network_policy).filter(|text| text.len() <= REFUSAL_BYTES);
            let network_policy = whole.cloned().unwrap_or_default();
            let policy_id = echo(&policy.policy_id);
            return verdict(
                NetworkPolicyWithError { network_policy, policy_id, ..Default::default() },
                why(),
            );
        }
        Request::KubernetesApi(request) => {
            let result = |api_path| KubernetesApiResult {
                api_path,
                error_message: why(),
                status_code: status,
                ..Default::default()
            };
            Tool::KubernetesApiResponse(KubernetesApiResponse {
                request_id: echo(&request.request_id),
                results: parts.map(result).collect(),
                global_error_message: why(),
            })
        }
        Request::ShellCommand(request) => {
            let result = |command| ShellCommandResult {
                command,
                stderr: why(),
                exit_code: NOT_EXECUTED,
                ..Default::default()
            };
            Tool::ShellCommandResponse(ShellCommandResponse {
                request_id: echo(&request.request_id),
                results: parts.map(result).collect(),
                global_error_message: why(),
            })
        }
        Request::YamlDryRun(request) => {
            let result = |manifest_id| YamlValidationResult {
                manifest_id,
                error_message: why(),
                status_code: status,
                ..Default::default()
            };
            Tool::YamlDryRunResponse(YamlDryRunResponse {
                request_id: echo(&request.request_id),
                results: parts.map(result).collect(),
                global_error_message: why(),
            })
        }
        Request::YamlApply(request) => {
            let result = |manifest_id| YamlApplyResult {
                manifest_id,
                error_message: why(),
                status_code: status,
                ..Default::default()
            };
            Tool::YamlApplyResponse(YamlApplyResponse {
                request_id: echo(&request.request_id),
                results: parts.map(result).collect(),
                global_error_message: why(),
            })
        }
        Request::CertificateRenewal(request) => {
            Tool::CertificateRenewalResponse(CertificateRenewalResponse {
                request_id: echo(&request.request_id),
                error_message: why(),
                ..Default::default()
            })
        }
        Request::OperatorRestart(request) => Tool::OperatorRestartResponse(OperatorRestartResponse {
            request_id: echo(&request.request_id),
            error_message: why(),
            ..Default::default()
        }),
        Request::MetricsQuery(request) => Tool::MetricsQueryResponse(MetricsQueryResponse {
            request_id: echo(&request.request_id),
            error_message: why(),
            ..Default::default()
        }),
        Request::DatadogQuery(request) => Tool::DatadogQueryResponse(DatadogQueryResponse {
            request_id: echo(&request.request_id),
            error_message: why(),
            status_code: status,
            ..Default::default()
        }),
    })
}

/// What a request asks for, one by one, as far as an answer would echo it.
pub(super) fn parts_of(request: &Request) -> Vec<&str> {
    fn first(parts: &[String]) -> Vec<&str> {
        parts.iter().take(PATHS).map(String::as_str).collect()
    }
    match request {
        Request::KubernetesApi(request) => first(&request.api_paths),
        Request::ShellCommand(request) => first(&request.commands),
        Request::YamlDryRun(YamlDryRunRequest { yaml_manifests, .. })
        | Request::YamlApply(YamlApplyRequest { yaml_manifests, .. }) => {
            yaml_manifests.iter().take(PATHS).map(|manifest| manifest.manifest_id.as_str()).collect()
        }
        _ => vec![""],
    }
}

/// What became of a proposed policy; it is accepted if there is no `error_message`.
pub(super) fn verdict(policy: NetworkPolicyWithError, mut error_message: String) -> Answer {
    let NetworkPolicyWithError { mut network_policy, mut policy_id, .. } = policy;
    // A manifest that is cut would be another manifest.
    if network_policy.len() > MANIFEST_BYTES {
        network_policy = String::new();
    }
    cut(&mut policy_id, TEXT_BYTES);
    cut(&mut error_message, TEXT_BYTES);
    let verdict = NetworkPolicyWithError { network_policy, error_message, policy_id };
    Answer::Policy(NetworkPoliciesWithErrors { policies: vec![verdict] })
}

#[cfg(test)]
mod tests {
    use kestrel_proto::cloud::v1::{KubernetesApiRequest, ShellCommandRequest, YamlManifest};
    use prost::Message as _;

    use super::*;

    #[test]
    fn each_part_of_a_request_is_refused_by_name() {
        let commands = vec!["rm -rf /".to_owned(), "id".to_owned()];
        let request = ShellCommandRequest { request_id: "r1".to_owned(), commands, timeout_seconds: 0 };
        let Answer::Tool(Tool::ShellCommandResponse(answer)) =
            refuse(&Request::ShellCommand(request), 501, "no shell")
        else {
            panic!("another answer");
        };
        assert_eq!((answer.request_id.as_str(), answer.global_error_message.as_str()), ("r1", "no shell"));
        let [first, second] = &answer.results[..] else { panic!("{answer:?}") };
        assert_eq!((first.command.as_str(), second.command.as_str()), ("rm -rf /", "id"));
        assert!(!first.success && first.exit_code == 126 && first.stderr == "no shell");

        let manifest = YamlManifest { manifest_id: "m1".to_owned(), ..Default::default() };
        let request = YamlApplyRequest { yaml_manifests: vec![manifest], ..Default::default() };
        let Answer::Tool(Tool::YamlApplyResponse(answer)) = refuse(&Request::YamlApply(request), 501, "no")
        else {
            panic!("another answer");
        };
        assert_eq!((answer.results[0].manifest_id.as_str(), answer.results[0].status_code), ("m1", 501));
    }

    #[test]
    fn a_pushed_policy_comes_back_with_the_reason() {
        let policy = NetworkPolicyWithError { policy_id: "p".to_owned(), ..Default::default() };
        let Answer::Policy(verdict) = refuse(&Request::NetworkPolicy(policy), 501, "no") else {
            panic!("another answer")
        };
        assert_eq!(
            (verdict.policies[0].policy_id.as_str(), verdict.policies[0].error_message.as_str()),
            ("p", "no")
        );
    }

    #[test]
    fn the_refusal_of_a_huge_request_is_small() {
        let api_paths = vec!["x".repeat(8 * 1024); 1000];
        let request =
            KubernetesApiRequest { request_id: "x".repeat(9 << 10), api_paths, ..Default::default() };
        let policy = NetworkPolicyWithError { network_policy: "x".repeat(9 << 20), ..Default::default() };
        let Answer::Tool(Tool::KubernetesApiResponse(answer)) =
            refuse(&Request::KubernetesApi(request), 429, "no")
        else {
            panic!("another answer");
        };
        assert!(answer.encoded_len() < 6 * 1024 && answer.results.len() == 3, "{}", answer.results.len());
        let Answer::Policy(verdict) = refuse(&Request::NetworkPolicy(policy), 501, "no") else {
            panic!("another answer")
        };
        assert!(verdict.encoded_len() < 6 * 1024);
    }
}
