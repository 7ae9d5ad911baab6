//! Malformed input of every kind: each is answered clearly, and none becomes
//! a panic or a broken pod. First what people get wrong, then valid input with any of its bytes changed.

use std::{collections::BTreeMap, fs, sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kestrel_runtime::tls::{self, authority::Authority};
use kestrel_webhook::{
    admission, files,
    inject::{self, STATUS},
    offline,
    words::Serve,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
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
        ("kestrel.ai/access-logs", ""),
        ("kestrel.ai/access-logs", &long),
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

/// What signs with it would write the name again, and panic.
#[test]
fn an_authority_whose_name_has_a_part_of_no_kind_is_refused() {
    tls::install_provider();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n");
    let body: String = CERTIFICATE.certificate_pem().lines().filter(|line| !line.starts_with("--")).collect();
    let mut der = STANDARD.decode(body).unwrap();
    // The identifier of a common name, 2.5.4.3.
    let name = [6, 3, 0x55, 4, 3];
    let places: Vec<_> =
        der.windows(5).enumerate().filter(|(_, part)| *part == name).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "issuer and subject");
    for at in places {
        der[at + 2] = 0x7d;
    }
    let lines: Vec<_> = STANDARD.encode(der).into_bytes().chunks(64).map(<[u8]>::to_vec).collect();
    let text = format!("{begin}{}\n{end}", String::from_utf8(lines.join(&b'\n')).unwrap());
    let problem = Authority::from_pem(&text, CERTIFICATE.key_pem()).err().unwrap().to_string();
    assert!(problem.contains("its subject has a part of kind 3.5.4.3, which is none"), "{problem}");
}

/// What is done to some bytes.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// A part comes twice.
    Repeat(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    // Most of what has a meaning is in these.
    let byte = || prop_oneof![any::<u8>(), select(b"[]{}\",:'\\ \n09eE.*&$/-".to_vec())];
    prop_oneof![
        (index(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (index(), vec(byte(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), index()).prop_map(|(from, to)| Change::Remove(from, to)),
        (index(), index()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 1..6)
}

fn changed(text: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for change in changes {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match change {
            Change::Set(at, byte) => {
                let at = place(at, &bytes);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Change::Insert(at, inserted) => {
                let at = place(at, &bytes);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Change::Remove(from, to) | Change::Repeat(from, to) => {
                let (from, to) = (place(from, &bytes), place(to, &bytes));
                let range = from.min(to)..from.max(to);
                if matches!(change, Change::Remove(..)) {
                    bytes.drain(range);
                } else {
                    bytes.extend_from_within(range);
                }
            }
        }
    }
    bytes
}

const DAY: Duration = Duration::from_secs(24 * 3600);
static CERTIFICATE: LazyLock<Authority> = LazyLock::new(|| Authority::generate("test").unwrap());

const PROFILE: &str = "apiVersion: kestrel.ai/v1alpha1
kind: InjectionProfile
metadata: {name: p}
spec:
  enabled: true
  namespaceSelector: {matchLabels: {team: shop}}
  podSelector: {matchExpressions: [{key: app, operator: In, values: [web, \"api\"]}]}
  image: registry.test/collector:1
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: '0.1', memory: 64Mi}}
  env: [{name: KESTREL_LOG, value: debug}]
  secretRef: {name: key}
  endpoint: https://link.example:8443
  collect: {logPaths: [/data/*.log, '/data/**/x']}
  rollout: {percent: 50}
";

proptest! {
    #[test]
    fn a_review_with_any_bytes_changed_is_answered(changes in changes()) {
        let annotations = [("kestrel.ai/collector-cpu-limit", "100m"), ("kestrel.ai/log-paths", "/data/*.log")];
        let body = changed(&review::question(&pod(&annotations), "shop").to_string(), &changes);
        match admission::admit(&body, &review::cluster()) {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer.body).unwrap();
                prop_assert_eq!(&answer["response"]["allowed"], true);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("the body is "), "{}", error),
        }
    }

    #[test]
    fn an_annotation_with_any_text_harms_no_pod(which in 0_usize..8, text in ".{0,40}", changes in changes()) {
        let (key, value) = [
            ("kestrel.ai/inject", "true"),
            ("kestrel.ai/profile", "shop"),
            ("kestrel.ai/log-paths", "/data/*.log,/data/**/x"),
            ("kestrel.ai/access-logs", "true"),
            ("kestrel.ai/collector-cpu-request", "10m"),
            ("kestrel.ai/collector-cpu-limit", "100m"),
            ("kestrel.ai/collector-memory-request", "16Mi"),
            ("kestrel.ai/collector-memory-limit", "64Mi"),
        ][which];
        let near = String::from_utf8_lossy(&changed(value, &changes)).into_owned();
        for value in [text, near] {
            let before = pod(&[(key, &value)]);
            let answer = review::admit(&before, "shop");
            let mut after = before.clone();
            let patch: json_patch::Patch = serde_json::from_value(answer.patch).unwrap();
            json_patch::patch(&mut after, &patch).unwrap();
            prop_assert_eq!(&after["spec"]["containers"], &before["spec"]["containers"], "{}: {}", key, value);
        }
    }

    #[test]
    fn a_profile_with_any_bytes_changed_is_taken_or_refused_in_a_sentence(changes in changes()) {
        let text = String::from_utf8_lossy(&changed(PROFILE, &changes)).into_owned();
        if let Err(problem) = files::learn(&text, &mut review::cluster()) {
            prop_assert!(!problem.is_empty() && problem.lines().count() == 1, "{}", problem);
        }
    }

    #[test]
    fn a_certificate_with_any_bytes_changed_is_used_or_refused(of_key in any::<bool>(), changes in changes()) {
        tls::install_provider();
        let (chain, key) = (CERTIFICATE.certificate_pem(), CERTIFICATE.key_pem());
        let bytes = changed(if of_key { key } else { chain }, &changes);
        let (chain, key) = if of_key { (chain.as_bytes(), &*bytes) } else { (&*bytes, key.as_bytes()) };
        if let Err(problem) = tls::certified_key(chain, key) {
            prop_assert!(!problem.to_string().is_empty());
        }
        if let (Ok(chain), Ok(key)) = (str::from_utf8(chain), str::from_utf8(key)) {
            // What is usable also signs.
            if let Ok(authority) = Authority::from_pem(chain, key) {
                prop_assert!(authority.server_certificate(&["a.test".to_owned()], DAY).is_ok());
            }
        }
    }
}
