use serde_json::json;

use super::*;

fn record(spec: Value) -> serde_json::Result<v1::AuthorizationPolicy> {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "42", "annotations": {"note": "n"}},
        "spec": spec,
    });
    Ok(authorization_policy(&serde_json::from_value(object)?))
}

fn typed(spec: Value) -> v1::AuthorizationPolicySpec {
    record(spec).unwrap().spec.unwrap()
}

/// The annotation that holds what the typed fields do not.
fn rest(spec: Value) -> Option<Value> {
    let record = record(spec).unwrap();
    record.metadata.unwrap().annotations.get(SPEC).map(|text| serde_json::from_str(text).unwrap())
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn an_authorization_policy_in_full() {
    let spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "action": "DENY",
        "rules": [{
            "from": [{"source": {
                "principals": ["b", "a"], "requestPrincipals": ["r"], "namespaces": ["n"],
                "ipBlocks": ["10.0.0.0/8"], "remoteIpBlocks": ["192.0.2.0/24"],
            }}],
            "to": [{"operation": {"methods": ["POST", "GET"], "paths": ["/x"], "ports": ["80"], "hosts": ["h"]}}],
            "when": [{"key": "source.ip", "values": ["1"], "notValues": ["2"]}],
        }],
    });
    let source = v1::AuthorizationPolicySource {
        principals: texts(&["a", "b"]),
        request_principals: texts(&["r"]),
        namespaces: texts(&["n"]),
        ip_blocks: texts(&["10.0.0.0/8"]),
        remote_ip_blocks: texts(&["192.0.2.0/24"]),
    };
    let operation = v1::AuthorizationPolicyOperation {
        methods: texts(&["GET", "POST"]),
        paths: texts(&["/x"]),
        ports: texts(&["80"]),
        hosts: texts(&["h"]),
    };
    let when = v1::AuthorizationPolicyCondition {
        key: "source.ip".into(),
        values: texts(&["1"]),
        not_values: texts(&["2"]),
    };
    let rule = v1::AuthorizationPolicyRule {
        from: vec![v1::AuthorizationPolicyRuleFrom { source: Some(source) }],
        to: vec![v1::AuthorizationPolicyRuleTo { operation: Some(operation) }],
        when: vec![when],
    };
    let selector = v1::LabelSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        match_expressions: vec![],
    };
    let metadata = v1::ObjectMeta {
        name: "p".into(),
        namespace: "shop".into(),
        annotations: [("note".to_owned(), "n".to_owned())].into(),
        uid: "u".into(),
        ..Default::default()
    };
    let expected = v1::AuthorizationPolicy {
        api_version: "security.istio.io/v1".into(),
        kind: "AuthorizationPolicy".into(),
        metadata: Some(metadata),
        spec: Some(v1::AuthorizationPolicySpec {
            selector: Some(selector),
            rules: vec![rule],
            action: Action::Deny.into(),
        }),
        target_workloads: vec![],
        action: 0,
    };
    assert_eq!(record(spec).unwrap(), expected);
}

#[test]
fn an_absent_action_is_allow() {
    for (action, expected) in [
        (json!(null), Action::Allow),
        (json!("ALLOW"), Action::Allow),
        (json!("AUDIT"), Action::Audit),
        (json!("CUSTOM"), Action::Custom),
        (json!("LATER"), Action::Unspecified),
    ] {
        assert_eq!(typed(json!({"action": action})).action(), expected);
    }
    assert_eq!(typed(json!({})).action(), Action::Allow);
    assert_eq!(typed(json!(null)).action(), Action::Allow);
}

#[test]
fn what_the_typed_fields_lack_is_in_an_annotation() {
    for spec in [
        json!({"action": "DENY", "rules": [{"from": [{"source": {"notNamespaces": ["b", "a"]}}]}]}),
        json!({"rules": [{"to": [{"operation": {"paths": ["/x"], "notMethods": ["GET"]}}]}]}),
        json!({"targetRefs": [{"kind": "Gateway", "name": "g", "group": "gateway.networking.k8s.io"}]}),
        json!({"action": "CUSTOM", "provider": {"name": "oauth"}}),
        json!({"rules": [{"from": [{"source": {"serviceAccounts": ["a"]}}]}]}),
    ] {
        assert_eq!(rest(spec.clone()), Some(canonical(spec)));
    }
    for spec in [json!({}), json!(null), json!({"rules": [{}]}), json!({"rules": null, "selector": {}})] {
        assert_eq!(rest(spec), None, "nothing is missing");
    }
}

#[test]
fn an_empty_rule_is_kept_it_matches_everything() {
    assert_eq!(typed(json!({"rules": [{}]})).rules, [v1::AuthorizationPolicyRule::default()]);
}

#[test]
fn a_policy_without_a_spec_allows_nothing() {
    let object = json!({"metadata": {"name": "p"}});
    let record = authorization_policy(&serde_json::from_value(object).unwrap());
    assert_eq!(
        record.spec,
        Some(v1::AuthorizationPolicySpec { action: Action::Allow.into(), ..Default::default() })
    );
}

#[test]
fn a_spec_that_is_none_is_an_error() {
    for spec in [json!("text"), json!({"rules": {"from": 7}}), json!({"rules": [{"when": [{}]}]})] {
        assert!(record(spec).is_err());
    }
}

#[test]
fn a_policy_is_for_its_namespace_or_for_the_mesh_or_for_what_it_names() {
    let selection = |namespace: &str, spec: Value| {
        let object = json!({"metadata": {"name": "p", "namespace": namespace}, "spec": spec});
        authorization_policy_selection(&serde_json::from_value(object).unwrap(), "istio-system")
    };
    let all = Selector::new(&v1::LabelSelector::default());
    for spec in [json!({}), json!(null), json!({"selector": {}}), json!({"targetRefs": []})] {
        let of_shop = Selection { namespace: Some("shop".into()), selector: all.clone() };
        assert_eq!(selection("shop", spec.clone()), of_shop);
        assert_eq!(selection("istio-system", spec), Selection { namespace: None, ..of_shop });
    }
    for spec in [json!({"targetRefs": [{"kind": "Gateway"}]}), json!({"targetRef": {"kind": "Gateway"}})] {
        assert_eq!(selection("shop", spec).selector, Selector::Nothing);
    }
    let selector = selection("shop", json!({"selector": {"matchLabels": {"a": "1"}}})).selector;
    assert!(selector.selects(|key| (key == "a").then_some("1")) && !selector.selects(|_| None));
}
