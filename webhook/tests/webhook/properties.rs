//! What holds for every pod, whatever is in it.

use std::collections::BTreeSet;

use kestrel_webhook::{admission, files, inject::CONTAINER};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Map, Value, json};

use crate::review;

const LABEL: &str = "kestrel.ai/injected";
const RECEIVES: &str = "kestrel.ai/receives-access-logs";
const OURS: [&str; 3] = [
    "kestrel.ai/status",
    "kestrel.ai/injected-by",
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes",
];
const VOLUMES: [&str; 5] = ["a", "data", "log", "kestrel-state", "tmp"];

/// Any JSON, for fields that nobody knows.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z~/]{1,6}", inner, 0..4).prop_map(|map| Value::from(Map::from_iter(map))),
        ]
    })
}

/// `object` with a few fields that nobody knows.
fn with_unknown(object: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (object, btree_map("x[a-z~/]{1,6}", json_value(), 0..3)).prop_map(|(mut object, unknown)| {
        object.as_object_mut().unwrap().extend(unknown);
        object
    })
}

/// A list that is there, empty, `null` or absent (which `null` stands for here).
fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    option::of(vec(item, 0..4)).prop_map(|list| list.map_or(Value::Null, Value::from))
}

fn volumes() -> impl Strategy<Value = Value> {
    let kind = select(vec![
        json!({"emptyDir": {}}),
        json!({"emptyDir": {"medium": "Memory"}}),
        json!({"configMap": {"name": "c"}}),
    ]);
    let volume = move |name| {
        kind.clone().prop_map(move |mut volume| {
            volume["name"] = Value::from(name);
            volume
        })
    };
    let some = subsequence(VOLUMES.to_vec(), 0..=VOLUMES.len())
        .prop_flat_map(move |names| {
            names.into_iter().map(|name| with_unknown(volume(name))).collect::<Vec<_>>()
        })
        .prop_map(Value::from);
    prop_oneof![4 => some, 1 => Just(Value::Null)]
}

fn container() -> impl Strategy<Value = Value> {
    let path = select(vec!["/", "/data", "/data/deep", "/var/log/", "relative"]);
    let mount = (select(VOLUMES.to_vec()), path, any::<bool>(), select(vec!["", "sub/path", "./x/"]));
    let mount = mount.prop_map(|(name, path, read_only, sub_path)| {
        json!({"name": name, "mountPath": path, "readOnly": read_only, "subPath": sub_path})
    });
    let name =
        prop_oneof![8 => "[a-z]{1,3}", 1 => Just("istio-proxy".to_owned()), 1 => Just(CONTAINER.to_owned())];
    let quantity = select(vec!["1", "1000m", "1Gi", "junk", ""]);
    with_unknown((name, list(mount), option::of(quantity), option::of(0_i64..3)).prop_map(
        |(name, mounts, quantity, uid)| {
            json!({
                "name": name,
                "volumeMounts": mounts,
                "resources": {"limits": {"cpu": quantity.unwrap_or("2"), "memory": "1Gi"}},
                "securityContext": {"runAsUser": uid},
            })
        },
    ))
}

fn annotations() -> impl Strategy<Value = Value> {
    let log_paths =
        prop_oneof!["[ -~]{0,20}", "(/(data|deep|var|log|\\*|\\.\\.|x\\.log)){0,5}(,/[a-z*/]{0,9})?"];
    let wish = prop_oneof![6 => Just("true"), 1 => Just("yes"), 1 => Just("false")];
    (wish, option::of(log_paths), option::of("[a-z,]{0,6}"), btree_map("[a-z~/.]{1,8}", "[ -~]{0,8}", 0..3))
        .prop_map(|(wish, log_paths, evictable, others)| {
            let mut annotations = json!(others);
            annotations["kestrel.ai/inject"] = json!(wish);
            if let Some(log_paths) = log_paths {
                annotations["kestrel.ai/log-paths"] = json!(log_paths);
            }
            if let Some(evictable) = evictable {
                annotations[OURS[2]] = json!(evictable);
            }
            annotations
        })
}

fn pod() -> impl Strategy<Value = Value> {
    let spec = (volumes(), list(container()), list(container()), any::<bool>()).prop_map(
        |(volumes, init_containers, containers, absent)| {
            let mut spec =
                json!({"volumes": volumes, "initContainers": init_containers, "containers": containers});
            if absent {
                spec.as_object_mut().unwrap().retain(|_, list| !list.is_null());
            }
            spec
        },
    );
    let labels = option::of(btree_map("[a-z~/.]{1,8}", "[a-z]{0,3}", 0..3));
    let metadata = (annotations(), labels, any::<bool>()).prop_map(|(annotations, labels, absent)| {
        let mut metadata = json!({"generateName": "p-", "annotations": annotations, "labels": labels});
        if absent {
            metadata.as_object_mut().unwrap().retain(|_, map| !map.is_null());
        }
        metadata
    });
    with_unknown((with_unknown(metadata), with_unknown(spec)).prop_map(
        |(metadata, spec)| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
    ))
}

/// Clusters that have something to say about a pod of namespace `shop`.
fn cluster() -> impl Strategy<Value = &'static str> {
    let profile = |spec: &str| {
        format!(
            "apiVersion: kestrel.ai/v1alpha1\nkind: InjectionProfile\nmetadata: {{name: p}}\nspec: {spec}\n"
        )
    };
    let bound = |kind: &str, spec: &str| {
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: b, namespace: shop}}\nspec: {spec}\n")
    };
    let rich = profile(
        "{env: [{name: A, value: one}, {name: KESTREL_REDACT, value: two}, {name: A, value: three}], secretRef: {name: s}, \
         endpoint: 'https://other:1', collect: {accessLogs: true, logPaths: [/data/*.log, /nowhere]}, \
         resources: {limits: {memory: 96Mi}}, rollout: {percent: 50}}",
    );
    let tight =
        bound("LimitRange", "{limits: [{type: Container, min: {cpu: 20m}, max: {cpu: '2', memory: 1Gi}}]}");
    let full = bound("ResourceQuota", "{hard: {requests.cpu: '3', limits.memory: 2Gi}}");
    let leak = |text: String| -> &'static str { text.leak() };
    let clusters = [
        String::new(),
        rich.clone(),
        profile("{enabled: false}"),
        tight.clone(),
        full.clone(),
        rich + &tight + &full,
    ];
    select(clusters.map(leak).to_vec())
}

/// What another injector does, whichever of us comes first.
fn injected_by_another(mut pod: Value) -> Value {
    let additions = [
        ("volumes", json!({"name": "mesh", "emptyDir": {}})),
        ("initContainers", json!({"name": "mesh-init"})),
        (
            "containers",
            json!({"name": "mesh-proxy", "volumeMounts": [{"name": "mesh", "mountPath": "/mesh"}]}),
        ),
    ];
    for (list, addition) in additions {
        match &mut pod["spec"][list] {
            Value::Array(items) => items.push(addition),
            other => *other = json!([addition]),
        }
    }
    pod["metadata"]["annotations"]["mesh/injected"] = json!("true");
    pod
}

fn apply(pod: &Value, patch: Value) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}

/// The patched pod without what a patch may add, so that it must equal the original.
fn without_additions(mut patched: Value, original: &Value) -> Value {
    let annotations = patched["metadata"]["annotations"].as_object_mut().unwrap();
    for key in OURS {
        let before = original["metadata"]["annotations"].get(key);
        if let (Some(before), Some(after)) = (before.and_then(Value::as_str), annotations.get(key)) {
            assert!(after.as_str().unwrap().starts_with(before), "{key}: {after}");
            annotations.insert(key.to_owned(), Value::from(before));
        } else {
            annotations.remove(key);
        }
    }
    if let Some(labels) = patched["metadata"].get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(LABEL);
        labels.remove(RECEIVES);
    }
    match original["metadata"].get("labels") {
        None => _ = patched["metadata"].as_object_mut().unwrap().remove("labels"),
        Some(Value::Null) => patched["metadata"]["labels"] = Value::Null,
        Some(_) => {}
    }
    for list in ["volumes", "initContainers"] {
        match original["spec"].get(list) {
            Some(Value::Array(before)) => {
                patched["spec"][list].as_array_mut().unwrap().truncate(before.len())
            }
            Some(Value::Null) => patched["spec"][list] = Value::Null,
            _ => {
                patched["spec"].as_object_mut().unwrap().remove(list);
            }
        }
    }
    patched
}

proptest! {
    #[test]
    fn a_patch_only_adds_fits_the_pod_and_is_made_once(original in pod(), first in any::<bool>(), objects in cluster()) {
        let mut cluster = review::cluster();
        files::learn(objects, &mut cluster).unwrap();
        let original = if first { injected_by_another(original) } else { original };
        let patch = review::admit_in(&cluster, &original, "shop").patch;
        for operation in patch.as_array().unwrap() {
            prop_assert_eq!(&operation["op"], "add");
        }
        let patched = apply(&original, patch);
        prop_assert_eq!(&without_additions(patched.clone(), &original), &original);

        let again = if first { patched.clone() } else { injected_by_another(patched.clone()) };
        let second = review::admit_in(&cluster, &again, "shop").patch;
        if patched["metadata"]["labels"].get(LABEL).is_some() {
            prop_assert_eq!(second, json!([]), "a second pass changes nothing");
        } else {
            let third = review::admit_in(&cluster, &apply(&again, second), "shop").patch;
            prop_assert_eq!(third, json!([]), "a pod that is not changed in between is not changed again");
        }

        if patched["metadata"]["labels"].get(LABEL).is_some() {
            let collector = patched["spec"]["initContainers"].as_array().unwrap().last().unwrap();
            prop_assert_eq!(&collector["name"], CONTAINER);
            let names = collector["env"].as_array().unwrap().iter().map(|variable| variable["name"].to_string());
            let names: Vec<_> = names.collect();
            let receives = names.contains(&"\"KESTREL_ALS_PORT\"".to_owned());
            prop_assert_eq!(patched["metadata"]["labels"].get(RECEIVES).is_some(), receives);
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "each variable once");
            for mount in collector["volumeMounts"].as_array().unwrap() {
                let volumes = patched["spec"]["volumes"].as_array().unwrap();
                let named = volumes.iter().filter(|volume| volume["name"] == mount["name"]);
                prop_assert_eq!(named.count(), 1, "{}", mount);
            }
        }
    }

    #[test]
    fn no_text_makes_admission_panic(text in prop_oneof![any::<String>(), json_value().prop_map(|v| v.to_string())]) {
        prop_assert!(admission::admit(text.as_bytes(), &review::cluster()).is_err());
    }

    #[test]
    fn no_object_makes_admission_panic(object in json_value()) {
        let body = review::question(&object, "shop").to_string();
        let _either = admission::admit(body.as_bytes(), &review::cluster());
    }
}
