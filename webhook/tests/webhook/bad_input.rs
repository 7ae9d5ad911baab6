//! Malformed input of every kind: each is answered clearly, and none becomes
//! a panic or a broken pod.

use std::{collections::BTreeMap, fs};

use kestrel_webhook::{
    admission, files,
    inject::{self, STATUS},
    offline,
    words::Serve,
};
use serde_json::{Value, json};

use crate::{offline::certificate, review};

fn pod(annotations: &[(&str, &str)]) -> Value {
    let mut all = json!({"kestrel.ai/inject": "true"});
    for (key, value) in annotations {
        all[*key] = json!(value);
    }
    json!({
        "metadata": {"name": "web", "annotations": all, "labels": {"app": "web"}},
        "spec": {
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "app", "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}],
        },
    })
}

/// Answered: allowed with a patch that is one, or refused in a sentence.
fn is_answered(body: &str, what: &str) {
    match admission::admit(body.as_bytes(), &review::cluster()) {
        Ok(answer) => {
            let answer: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(answer["response"]["allowed"], true, "{what}");
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.starts_with("the body is ") && sentence.len() < 300, "{what}: {sentence}");
        }
    }
}

#[test]
fn reviews_with_anything_in_any_place() {
    let paths = [
        "/apiVersion",
        "/kind",
        "/request",
        "/request/uid",
        "/request/operation",
        "/request/resource",
        "/request/resource/group",
        "/request/namespace",
        "/request/object",
        "/request/object/metadata",
        "/request/object/metadata/annotations",
        "/request/object/metadata/labels",
        "/request/object/spec",
        "/request/object/spec/volumes",
        "/request/object/spec/volumes/0",
        "/request/object/spec/containers",
        "/request/object/spec/containers/0",
        "/request/object/spec/containers/0/volumeMounts",
        "/request/object/spec/containers/0/resources/limits",
    ];
    let values =
        [json!(null), json!(7), json!(true), json!("text"), json!([]), json!([[]]), json!({}), json!(-1e300)];
    let question = review::question(&pod(&[]), "shop");
    let mut cases = 0;
    for path in paths {
        for value in &values {
            let mut question = question.clone();
            *question.pointer_mut(path).unwrap() = value.clone();
            is_answered(&question.to_string(), &format!("{path}: {value}"));
            cases += 1;
        }
    }
    let text = question.to_string();
    for end in (0..text.len()).step_by(text.len() / 20) {
        assert!(admission::admit(&text.as_bytes()[..end], &review::cluster()).is_err(), "cut at {end}");
        cases += 1;
    }
    for deep in ["[", "{\"a\":", "{\"request\":"] {
        is_answered(&deep.repeat(100_000), "deep");
        cases += 1;
    }
    assert!(admission::admit(b"\xff\xfe\x00", &review::cluster()).is_err());
    assert!(cases >= 170, "{cases}");
}

#[test]
fn annotations_that_mean_nothing() {
    let long = "9".repeat(100_000);
    let amounts =
        ["", " ", "-1", "0", "1.2.3", "1e99", "NaN", "64MB", "0x10", "1 Gi", "1Gi;", "\u{ff11}", &long];
    let keys = [
        "kestrel.ai/collector-cpu-request",
        "kestrel.ai/collector-cpu-limit",
        "kestrel.ai/collector-memory-request",
        "kestrel.ai/collector-memory-limit",
    ];
    for key in keys {
        for amount in amounts {
            let answer = review::admit(&pod(&[(key, amount)]), "shop");
            let patch = answer.patch.as_array().unwrap();
            assert_eq!(patch.len(), 1, "{key}={amount}: {patch:?}");
            let status = patch[0]["value"].as_str().unwrap();
            assert!(
                status.starts_with(&format!("skipped (bad-annotation): {key}: ")) && status.len() < 200,
                "{status}"
            );
            assert_eq!(answer.warnings.len(), 1);
        }
    }
    for (key, value) in [
        ("kestrel.ai/inject", "TRUE"),
        ("kestrel.ai/inject", ""),
        ("kestrel.ai/inject", &long),
        ("kestrel.ai/profile", ""),
        ("kestrel.ai/profile", "../x"),
        ("kestrel.ai/profile", &long),
    ] {
        let patch = review::admit(&pod(&[(key, value)]), "shop").patch;
        assert!(patch[0]["path"].as_str().unwrap().ends_with("kestrel.ai~1status"), "{key}={value}: {patch}");
        assert!(patch[0]["value"].as_str().unwrap().len() < 200, "{patch}");
    }
    for paths in [
        "",
        ",,,",
        "../../etc/passwd",
        "/data/../..",
        "relative",
        "/nowhere/*.log",
        "$(POD_UID)",
        "/data/\u{0}",
        &long,
    ] {
        let answer = review::admit(&pod(&[("kestrel.ai/log-paths", paths)]), "shop");
        let container = answer.patch.as_array().unwrap().last().unwrap();
        assert_eq!(
            container["value"][0]["name"],
            inject::CONTAINER,
            "{paths:.20}: the pod is injected all the same"
        );
        let status = answer
            .patch
            .as_array()
            .unwrap()
            .iter()
            .find(|add| add["path"].as_str().unwrap().ends_with(&STATUS.replace('/', "~1")));
        assert!(status.unwrap()["value"].as_str().unwrap().len() < 1000);
    }
}

#[test]
fn profiles_that_are_none() {
    let profile = |spec: &str| {
        format!(
            "apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {{name: p}}\nspec: {spec}"
        )
    };
    let mut texts: Vec<String> = [
        "{enabled: 1}",
        "{enabled: null}",
        "{namespaceSelector: []}",
        "{namespaceSelector: {matchLabels: {a: 1}}}",
        "{podSelector: {matchExpressions: [{key: a, operator: Like}]}}",
        "{podSelector: {matchExpressions: [{operator: In, values: [a]}]}}",
        "{podSelector: {matchExpressions: [{key: a, operator: In, values: []}]}}",
        "{podSelector: {matchLabels: [a]}}",
        "{image: 7}",
        "{image: 'a b'}",
        "{image: \"a\\nb\"}",
        "{resources: {limits: {cpu: -1}}}",
        "{resources: {limits: {cpu: '-1'}}}",
        "{resources: {limits: {memory: 4Mi}}}",
        "{resources: {limits: {gpu: '1'}}}",
        "{resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}}",
        "{env: {A: b}}",
        "{env: [A]}",
        "{env: [{value: x}]}",
        "{env: [{name: 'A B'}]}",
        "{env: [{name: POD_UID, value: x}]}",
        "{env: [{name: KESTREL_LINK_CA}]}",
        "{secretRef: x}",
        "{secretRef: {}}",
        "{secretRef: {name: ../x}}",
        "{secretRef: {name: ''}}",
        "{endpoint: link:8443}",
        "{endpoint: 'https://link'}",
        "{endpoint: 'https://link:99999'}",
        "{endpoint: 'https://a/b:1'}",
        "{collect: [x]}",
        "{collect: {logPaths: /x}}",
        "{collect: {logPaths: ['a']}}",
        "{collect: {logPaths: ['/a,/b']}}",
        "{collect: {als: true}}",
        "{rollout: {percent: 101}}",
        "{rollout: {percent: -1}}",
        "{rollout: 50}",
        "{unknown: 1}",
        "[]",
        "text",
        "",
    ]
    .map(profile)
    .to_vec();
    texts.push(profile(&format!("{{env: [{}]}}", "{name: A},".repeat(65))));
    texts.push(profile(&format!("{{collect: {{logPaths: [{}]}}}}", "/a,".repeat(65))));
    texts.push(profile(&format!("{{image: {}}}", "a".repeat(600))));
    texts.push(format!("a: &a [x]\nb: {}", "[*a, *a]".repeat(3)));
    texts.push("{".repeat(10_000));
    texts.push("\u{0}".to_owned());
    let anchors = (1..30).map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1));
    texts.push(format!("a0: &a0 [x]\n{}", anchors.collect::<String>()));
    for text in &texts {
        let problem = files::learn(text, &mut review::cluster()).expect_err(text);
        assert!(!problem.is_empty() && problem.lines().count() == 1 && problem.len() < 400, "{problem}");
    }
    assert!(texts.len() >= 45);
}

#[tokio::test]
async fn certificates_that_are_none() {
    let (folder, chain) = certificate();
    let file = |name: &str| folder.path().join(name);
    let key = fs::read_to_string(file("tls.key")).unwrap();
    let (other, _) = certificate();
    let other_key = fs::read_to_string(other.path().join("tls.key")).unwrap();
    let cut = &chain[..chain.len() / 2];
    let flipped = chain.replacen('M', "N", 1);
    let cases = [
        ("", key.as_str()),
        ("no PEM", &key),
        (cut, &key),
        (&key, &key),
        (&flipped, &key),
        ("\u{0}", &key),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", &key),
        ("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", &key),
        (&chain, ""),
        (&chain, "no PEM"),
        (&chain, &key[..40]),
        (&chain, &chain),
        (&chain, &other_key),
        (&chain, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"),
        (&chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ];
    let options =
        Serve { listen: ([127, 0, 0, 1], 0).into(), certificate: file("c"), key: file("k"), profiles: None };
    let source = BTreeMap::<&str, &str>::new();
    for (chain, key) in cases {
        fs::write(file("c"), chain).unwrap();
        fs::write(file("k"), key).unwrap();
        let problem = match offline::serve(&options, &source).await {
            Ok(_) => panic!("{chain} {key} is served"),
            Err(problem) => format!("{problem:#}"),
        };
        assert!(problem.starts_with(file("c").to_str().unwrap()) && problem.len() < 400, "{problem}");
    }
    for (missing, there) in [("c", "k"), ("k", "c")] {
        fs::write(file(there), if there == "c" { &chain } else { &key }).unwrap();
        _ = fs::remove_file(file(missing));
        let problem = offline::serve(&options, &source).await.err().unwrap();
        assert!(format!("{problem:#}").contains("cannot be read"), "{problem:#}");
    }
}
