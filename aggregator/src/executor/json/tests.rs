use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::executor::hidden::{Hashes, MARK};

fn hashed() -> Hide<'static> {
    Hide::Hashed(Box::leak(Box::new(Hashes::new().unwrap())))
}

fn cleaned(mut object: Value) -> (Value, Hide<'static>) {
    let hashes = hashed();
    clean(&mut object, Holds::Nothing, hashes);
    (object, hashes)
}

#[test]
fn lists_are_hidden_by_their_name_and_registries_by_their_pairs() {
    let (object, hashes) = cleaned(json!({"spec": {
        "tokens": ["x", {"name": "n"}], "imagePullSecrets": ["regcred"], "auth": "bWU6aHVudGVyMg==", "mode": {"auth": "basic"},
    }}));
    let spec = &object["spec"];
    assert_eq!(spec["tokens"], json!([hashes.of(b"x"), {"name": "n"}]));
    assert_eq!(spec["imagePullSecrets"], json!(["regcred"]));
    assert_eq!(
        (&spec["auth"], &spec["mode"]["auth"]),
        (&json!(hashes.of(b"bWU6aHVudGVyMg==")), &json!("basic"))
    );
}

#[test]
fn numbers_are_hidden_where_they_are_the_secret_and_not_where_they_are_about_one() {
    let about = json!({
        "tokenTTL": 3600, "maxTokens": 4096, "passwordHistory": 5, "token": true, "secret": 0.5,
        "tokenPorts": [8080], "summary": {"pass": 12}, "serviceAccountToken": {"expirationSeconds": 3600},
    });
    let embedded = about.to_string();
    let mut object = json!({"spec": about, "data": {"config.json": embedded}});
    let kept = object.clone();
    object["spec"]["adminPassword"] = 12_345_678.into();
    object["spec"]["passwords"] = json!([12_345_678, "12345678"]);
    object["data"]["other.json"] = r#"{"db": {"password": 12345678, "port": 5432}}"#.into();
    let (mut object, hashes) = cleaned(object);
    let hash = hashes.of(b"12345678");
    let (mut spec, mut data) = (object["spec"].take(), object["data"].take());
    let (spec, data) = (spec.as_object_mut().unwrap(), data.as_object_mut().unwrap());
    assert_eq!(spec.remove("adminPassword").unwrap(), json!(hash));
    assert_eq!(spec.remove("passwords").unwrap(), json!([hash, hash]));
    let shown = format!(r#"{{"db":{{"password":"{MARK}","port":5432}}}}"#);
    assert_eq!(data.remove("other.json").unwrap(), json!(shown));
    assert_eq!(json!({"spec": spec, "data": data}), kept);
}

#[test]
fn what_is_below_the_name_of_a_secret_is_hidden_but_for_what_is_about_it() {
    let kept = json!({
        "volumes": [
            {"name": "a", "secret": {"secretName": "tls", "defaultMode": 420, "items": [{"key": "tls.crt", "path": "crt"}]}},
            {"name": "b", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"secret": {"name": "s"}}]}},
        ],
        "privateKey": {"algorithm": "RSA", "encoding": "PKCS1", "rotationPolicy": "Always"},
        "openAPIV3Schema": {"properties": {"password": {"type": "string", "description": "Of the user."}}},
        "terminatingTLS": {"secret": {"namespace": "a", "name": "b"}},
        "env": [{"name": "DB_PASSWORD", "value": "$(PASSWORD)"}],
    });
    let mut object = kept.clone();
    object["values"] = json!({"secrets": {"db": "x", "more": [{"value": "x", "name": "n"}]}, "credentials": {"list": ["x"], "key": "x"}});
    object["env"].as_array_mut().unwrap().push(json!({"name": "A_TOKEN", "value": "$(x"}));
    let (mut object, hashes) = cleaned(object);
    let (x, open) = (hashes.of(b"x"), hashes.of(b"$(x"));
    assert_eq!(
        object.as_object_mut().unwrap().remove("values").unwrap(),
        json!({"secrets": {"db": x, "more": [{"value": x, "name": "n"}]}, "credentials": {"list": [x], "key": x}})
    );
    assert_eq!(object["env"].as_array_mut().unwrap().pop().unwrap()["value"], open);
    assert_eq!(object, kept);
}

#[test]
fn an_object_in_a_text_is_cleaned_as_one() {
    let of = |value: &str| json!({"kind": "Deployment", "spec": {"env": [{"name": "DB_PASSWORD", "value": value}], "args": ["--token", value]}});
    let secret = json!({"kind": "Secret", "data": {"a": "aHVudGVyMg=="}}).to_string();
    let pretty = |value| serde_json::to_string_pretty(&of(value)).unwrap();
    let deep = |text: &str| json!({"copy": text}).to_string();
    let (object, _) = cleaned(json!({"metadata": {"annotations": {
        "kapp.k14s.io/original": of("hunter2").to_string(), "deep": deep(&of("hunter2").to_string()), "secret": secret, "status": "[1, 2]",
    }}, "data": {"a.json": pretty("hunter2"), "b.json": "{ \"a\":1}", "c": "{no json password=hunter2"}}));
    let annotations = &object["metadata"]["annotations"];
    assert_eq!(annotations["kapp.k14s.io/original"], of(MARK).to_string());
    assert_eq!(annotations["deep"], deep(&of(MARK).to_string()));
    assert_eq!(annotations["status"], "[1, 2]");
    assert_eq!(
        object["data"],
        json!({"a.json": pretty(MARK), "b.json": "{ \"a\":1}", "c": format!("{{no json password={MARK}")})
    );
    assert!(!object.to_string().contains("aHVudGVy"), "{object}");
}

proptest! {
    #[test]
    fn nothing_below_the_name_of_a_secret_is_shown_wherever_it_stands(
        secret in "password|DB_TOKEN|secrets|apiKey|credentials", below in prop::collection::vec("[a-h]{2}|value|data|spec|0", 0..5),
        above in prop::collection::vec("[a-h]{2}|value|spec|0", 0..4), texts in 0..3,
    ) {
        let nested = |inner: Value, names: &[String]| names.iter().rev().fold(inner, |inner, name| match name.as_str() {
            "0" => json!([{"a": 1}, inner]),
            name => json!({name: inner}),
        });
        let inner = nested(json!({"x": "hunter2"}), &below);
        let mut object = json!({"metadata": {"name": "n"}, "spec": nested(json!({secret: inner}), &above)});
        for _ in 0..texts {
            object = json!({"metadata": {"annotations": {"copy": object.to_string()}}});
        }
        let (object, _) = cleaned(object);
        prop_assert!(!object.to_string().contains("hunter2"), "{}", object);
        let text = text_of(&object.to_string());
        prop_assert!(text.is_none_or(|text| !text.contains("hunter2")));
    }
}

/// The items of the API server's lists have no kind.
#[test]
fn an_item_of_a_list_is_cleaned_as_what_the_list_has() {
    let release = "H4sIAAAAAAAA".repeat(6) + "9z";
    let hashes = hashed();
    let mut map =
        json!({"metadata": {"name": "m"}, "binaryData": {"keystore": "AAEC"}, "data": {"release": release}});
    let mut embedded = json!({"spec": {"manifests": [
        {"kind": "Secret", "data": {"a": "aHVudGVyMg=="}}, {"kind": "ConfigMap", "binaryData": {"k": "AAEC"}},
    ]}});
    clean(&mut map, Holds::of_resource("configmaps"), hashes);
    assert_eq!(map["binaryData"]["keystore"], hashes.of(&[0, 1, 2]));
    assert_eq!(map["data"]["release"], hashes.of(release.as_bytes()));
    clean(&mut embedded, Holds::of_resource("manifestworks"), hashes);
    let manifests = &embedded["spec"]["manifests"];
    assert_eq!(manifests[0]["data"]["a"], hashes.of(b"hunter2"));
    assert_eq!(manifests[1]["binaryData"]["k"], hashes.of(&[0, 1, 2]));
}

#[test]
fn copies_of_an_object_in_its_annotations_are_hidden() {
    let hashes = hashed();
    let copy = r#"{"apiVersion":"v1","data":{"x":"aHVudGVyMg=="}}"#;
    let object =
        || json!({"metadata": {"annotations": {"kapp.k14s.io/original": copy, "note": "of shop", "n": "5"}}});
    for (resource, is_hidden) in [("secrets", true), ("configmaps", true), ("pods", false)] {
        let mut object = object();
        clean(&mut object, Holds::of_resource(resource), hashes);
        let annotations = &object["metadata"]["annotations"];
        let expected = if is_hidden { hashes.of(copy.as_bytes()) } else { copy.to_owned() };
        assert_eq!(annotations["kapp.k14s.io/original"], expected, "{resource}");
        assert_eq!((&annotations["note"], &annotations["n"]), (&json!("of shop"), &json!("5")));
    }
}

#[test]
fn the_bloat_goes_and_nothing_else_does() {
    let object = |bloat: bool| {
        let mut object = json!({
            "kind": "Pod", "apiVersion": "v1", "spec": {"metadata": {"managedFields": "kept"}, "n": 1.50},
            "metadata": {"name": "p", "annotations": {"a": "\"b\""}, "labels": null},
        });
        if bloat {
            object["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
            object["metadata"]["annotations"][LAST_APPLIED] = json!("{}");
        }
        object
    };
    assert_eq!(cleaned(object(true)).0, object(false));
    for odd in [json!({"metadata": 3}), json!("odd"), json!([1]), json!({"kind": "Secret", "data": 5})] {
        assert_eq!(cleaned(odd.clone()).0, odd);
    }
}

#[test]
fn values_of_secrets_are_hashes_wherever_they_stand() {
    let (secret, hashes) =
        cleaned(json!({"kind": "Secret", "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter2"},
        "metadata": {"annotations": {"api-token": "hunter2", "note": "password=hunter2", "n": "5"}}}));
    let hash = hashes.of(b"hunter2");
    assert_eq!(secret["data"]["a"], *hash);
    assert_eq!(secret["stringData"]["b"], *hash);
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!((&annotations["api-token"], &annotations["n"]), (&json!(hash), &json!("5")));
    assert_eq!(annotations["note"], format!("password={MARK}"));

    let (pod, hashes) = cleaned(json!({"kind": "Pod", "spec": {"containers": [{
        "env": [
            {"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "DB_HOST", "value": "db"},
            {"name": "URL", "value": "redis://u:hunter2@redis"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
        ],
        "args": ["--password", "hunter2", "--token=hunter2", "--verbose", "x"],
    }], "automountServiceAccountToken": false, "volumes": [{"secret": {"secretName": "s"}}]}}));
    let text = pod.to_string();
    assert!(!text.contains("hunter2"), "{text}");
    let hash = hashes.of(b"hunter2");
    let container = &pod["spec"]["containers"][0];
    assert_eq!((&container["env"][0]["value"], &container["env"][1]["value"]), (&json!(hash), &json!("db")));
    assert_eq!(container["env"][3]["valueFrom"]["secretKeyRef"], json!({"name": "token", "key": "token"}));
    assert_eq!(container["args"], json!(["--password", hash, format!("--token={MARK}"), "--verbose", "x"]));
    assert_eq!(pod["spec"]["volumes"], json!([{"secret": {"secretName": "s"}}]));
}

#[test]
fn a_config_map_is_shown_but_for_what_looks_like_a_key() {
    let release = "H4sIAAAAAAAA".repeat(6) + "9z";
    let (map, hashes) = cleaned(json!({"kind": "ConfigMap", "binaryData": {"keystore": "AAEC"}, "data": {
        "release": release, "app.yaml": "user: me\npassword: hunter2\nport: 5\n", "api_key": "k", "color": "blue",
        "escape": "\u{1b}[31mred",
    }}));
    assert_eq!(map["data"]["release"], hashes.of(release.as_bytes()));
    assert_eq!(map["data"]["app.yaml"], format!("user: me\npassword: {MARK}\nport: 5\n"));
    assert_eq!(map["data"]["api_key"], hashes.of(b"k"));
    assert_eq!((&map["data"]["color"], &map["data"]["escape"]), (&json!("blue"), &json!("red")));
    assert_eq!(map["binaryData"]["keystore"], hashes.of(&[0, 1, 2]));
}

#[test]
fn a_page_without_items_is_an_empty_one_and_an_object_is_no_page() {
    let page = |text| serde_json::from_str::<Page<'_>>(text).map(|page| page.items.len()).ok();
    assert_eq!(page(r#"{"kind":"PodList","items":null,"metadata":{"continue":"x"}}"#), Some(0));
    assert_eq!(page(r#"{"items":[1,{}]}"#), Some(2));
    assert_eq!(page(r#"{"kind":"Pod"}"#), None);
}
