//! Coverage, from objects as watches bring them to what is written.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::Owner,
    inject::{Settings, Workload},
    profile::{Condition, Labels, Status},
};

const IMAGE: &str = "elsewhere/collector:1";

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

fn pod(name: &str, annotations: &[(&str, &str)]) -> Object {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Object {
        key: Key { namespace: "shop".to_owned(), name: name.to_owned() },
        labels: Labels::from([("pod-template-hash".to_owned(), "5d8f".to_owned())]),
        annotations: annotations.iter().map(text).collect(),
        uid: format!("uid-{name}"),
        controller: Some(Owner {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: "web-5d8f".to_owned(),
            uid: "uid-web".to_owned(),
        }),
        created: Some(at(0)),
        seen: at(0),
        ..Object::default()
    }
}

/// A pod whose collector is in this state.
fn carrier(name: &str, status: &Value) -> Object {
    let mut status = status.clone();
    status["name"] = json!("kestrel-collector");
    let body = json!({
        "spec": {"initContainers": [{"name": "kestrel-collector", "image": IMAGE}], "containers": [{"name": "app"}]},
        "status": {"initContainerStatuses": [status], "containerStatuses": [{"name": "app", "state": {}}]},
    });
    Object { body, ..pod(name, &[("kestrel.ai/injected-by", "a")]) }
}

fn profile(name: &str, spec: &Value, status: &Value) -> Object {
    Object {
        key: Key::of_cluster(name),
        generation: 3,
        version: "7".to_owned(),
        body: json!({"spec": spec, "status": status}),
        ..Object::default()
    }
}

/// A cluster in which everything has been listed.
fn cluster(profiles: &[(&str, Value)]) -> Cluster {
    let mut cluster = Cluster::new(Settings { namespace: "kestrel-ai".to_owned(), ..Settings::default() });
    cluster.coverage.namespaces = r#"{"matchExpressions": [{"key": "kubernetes.io/metadata.name",
        "operator": "NotIn", "values": ["kube-system"]}]}"#
        .parse()
        .unwrap();
    for kind in [Kind::Namespace, Kind::InjectionProfile, Kind::InjectedPod, Kind::OtherPod] {
        assert_eq!(cluster.reports(at(0)), None);
        cluster.retain(kind, &BTreeSet::new());
    }
    let shop = Object { key: Key::of_cluster("shop"), ..Object::default() };
    cluster.put(Kind::Namespace, shop).unwrap();
    for (name, spec) in profiles {
        let _problem = cluster.put(Kind::InjectionProfile, profile(name, spec, &json!(null)));
    }
    cluster
}

fn status(cluster: &Cluster, name: &str, minute: i64) -> Status {
    let mut reports = cluster.reports(at(minute)).unwrap();
    reports.retain(|report| report.profile == name);
    reports.remove(0).status
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: "1970-01-01T00:00:00Z".to_owned(),
        observed_generation: 3,
    }
}

#[test]
fn a_status_counts_pods_that_carry_a_collector_lack_it_or_were_left_alone() {
    let mut cluster = cluster(&[("a", json!({}))]);
    cluster.put(Kind::InjectedPod, carrier("one", &json!({}))).unwrap();
    cluster.put(Kind::InjectedPod, carrier("two", &json!({}))).unwrap();
    let full = "skipped (quota): ResourceQuota x: limits.cpu has no room";
    let mirror = ("kubernetes.io/config.mirror", "hash");
    for (name, annotations) in [
        ("missed", &[("kestrel.ai/inject", "true")][..]),
        ("full", &[("kestrel.ai/inject", "true"), ("kestrel.ai/status", full)]),
        ("unclear", &[("kestrel.ai/inject", "yes"), ("kestrel.ai/status", "skipped (unclear-wish): x")]),
        ("static", &[("kestrel.ai/inject", "true"), mirror]),
        ("odd", &[("kestrel.ai/inject", "true"), ("kestrel.ai/status", "skipped (<b>): x")]),
        ("no", &[("kestrel.ai/inject", "false"), ("kestrel.ai/status", full)]),
        ("perhaps", &[("kestrel.ai/inject", "perhaps")]),
    ] {
        cluster.put(Kind::OtherPod, pod(name, annotations)).unwrap();
    }
    let mut system = pod("dns", &[("kestrel.ai/inject", "true")]);
    system.key.namespace = "kube-system".to_owned();
    cluster.put(Kind::OtherPod, system).unwrap();
    cluster.coverage.pods =
        r#"{"matchExpressions": [{"key": "batch", "operator": "DoesNotExist"}]}"#.parse().unwrap();
    let mut batch = pod("batch", &[("kestrel.ai/inject", "true")]);
    batch.labels.insert("batch".to_owned(), String::new());
    cluster.put(Kind::OtherPod, batch).unwrap();
    assert!(
        cluster.coverage.tell(9).iter().any(|telling| telling.note.ends_with("(webhook.objectSelector)"))
    );

    let found = status(&cluster, "a", 0);
    assert_eq!((found.observed_generation, found.injected, found.pending), (3, 2, 2));
    let skipped = [("labels", 1), ("mirror-pod", 1), ("namespace", 1), ("quota", 1), ("unclear-wish", 1)];
    assert_eq!(found.skipped, skipped.map(|(label, count)| (label.to_owned(), count)).into());

    let key = |name: &str| Key { namespace: "shop".to_owned(), name: name.to_owned() };
    let revision = cluster.coverage.revision();
    cluster.remove(Kind::OtherPod, &key("never-there"));
    assert_eq!(cluster.coverage.revision(), revision);
    cluster.remove(Kind::InjectedPod, &key("one"));
    cluster.retain(Kind::OtherPod, &[key("missed")].into());
    let found = status(&cluster, "a", 0);
    assert_eq!((found.injected, found.pending, found.skipped.len()), (1, 1, 0));
    assert!(cluster.coverage.revision() > revision);
}

#[test]
fn conditions_say_what_keeps_a_profile_from_working_and_since_when() {
    let ready = condition("Ready", "True", "Ready", "Annotated pods that it covers get a collector.");
    let disabled = condition("Ready", "False", "Disabled", "The pods that it covers get no collector.");
    let untried = format!("The image {IMAGE} has not run on any node yet.");
    let untried = condition("Ready", "False", "UntriedImage", &untried);
    let invalid = condition("Ready", "False", "Invalid", "spec.image: \"\" is no image");
    let overlap =
        "pods of namespace shop may be covered by a too, which decides because its name comes before z";
    let overlap = condition("Conflict", "True", "Overlap", overlap);
    let elsewhere = json!({"matchLabels": {"kubernetes.io/metadata.name": "bank"}});
    for (name, spec, expected) in [
        ("a", json!({}), vec![ready.clone()]),
        ("z", json!({}), vec![ready.clone(), overlap]),
        ("z", json!({"enabled": false, "namespaceSelector": elsewhere}), vec![disabled]),
        ("z", json!({"image": IMAGE, "namespaceSelector": elsewhere}), vec![untried]),
        ("z", json!({"image": ""}), vec![invalid]),
    ] {
        let cluster = cluster(&[("a", json!({})), (name, spec)]);
        assert_eq!(status(&cluster, name, 0).conditions, expected);
    }

    let mut cluster = cluster(&[]);
    let earlier = serde_json::to_value(Status { conditions: vec![ready], ..Status::default() }).unwrap();
    cluster.put(Kind::InjectionProfile, profile("a", &json!({}), &earlier)).unwrap();
    assert_eq!(status(&cluster, "a", 5).conditions[0].last_transition_time, "1970-01-01T00:00:00Z");
    cluster.put(Kind::InjectionProfile, profile("a", &json!({"enabled": false}), &earlier)).unwrap();
    assert_eq!(status(&cluster, "a", 5).conditions[0].last_transition_time, "1970-01-01T00:05:00Z");
    cluster.remove(Kind::InjectionProfile, &Key::of_cluster("a"));
    assert_eq!(cluster.reports(at(0)), Some(vec![]));
}

#[test]
fn an_image_counts_as_tried_once_a_collector_has_run_with_it() {
    let mut cluster = cluster(&[]);
    cluster
        .put(Kind::InjectedPod, carrier("new", &json!({"state": {"waiting": {"reason": "ErrImagePull"}}})))
        .unwrap();
    assert!(!cluster.images.run(IMAGE));
    cluster.put(Kind::InjectedPod, carrier("new", &json!({"state": {"running": {}}}))).unwrap();
    assert!(cluster.images.run(IMAGE));
}

#[test]
fn images_that_no_profile_names_make_room_for_others() {
    let mut cluster = cluster(&[("a", json!({"image": IMAGE}))]);
    let mut run = |image: &str| {
        let mut pod = carrier("x", &json!({"state": {"running": {}}}));
        pod.body["spec"]["initContainers"][0]["image"] = json!(image);
        cluster.put(Kind::InjectedPod, pod).unwrap();
    };
    run(IMAGE);
    for number in 0..1000 {
        run(&format!("image:{number}"));
    }
    assert!(cluster.images.run(IMAGE) && cluster.images.run("image:999") && !cluster.images.run("image:0"));
}

/// What is told of trouble with a collector in this state.
fn trouble(status: &Value, minute: i64) -> Option<String> {
    let mut cluster = cluster(&[]);
    cluster.put(Kind::InjectedPod, carrier("web-5d8f-x", status)).unwrap();
    cluster.look_for_trouble(at(minute));
    let web = Workload::of("shop", "ReplicaSet", "web-5d8f", &pod("", &[]).labels);
    let why = cluster.stops.why(&web, Some("5d8f")).map(str::to_owned);
    assert_eq!(cluster.stops.why(&web, Some("next")), None, "another template may be better");
    let told = cluster.coverage.tell(9);
    assert_eq!(told.len(), usize::from(why.is_some()));
    if let (Some(telling), Some(why)) = (told.first(), &why) {
        assert_eq!((telling.subject.uid.as_str(), telling.reason), ("uid-web", "InjectionStopped"));
        assert!(
            telling.note.contains("Deployment shop/web") && telling.note.ends_with(why),
            "{}",
            telling.note
        );
    }
    cluster.look_for_trouble(at(minute));
    assert!(cluster.coverage.tell(9).is_empty(), "once");
    why
}

#[test]
fn a_collector_that_does_not_start_or_ends_again_and_again_stops_injection_for_its_workload() {
    let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason, "message": "m"}}});
    for healthy in [
        json!({}),
        json!({"state": {"running": {}}}),
        waiting("PodInitializing"),
        waiting("ContainerCreating"),
    ] {
        assert_eq!(trouble(&healthy, 0), None);
    }
    for reason in ["ErrImagePull", "ImagePullBackOff", "CreateContainerError", "RunContainerError"] {
        let expected = format!("the collector does not start: {reason} m");
        assert_eq!(trouble(&waiting(reason), 0), Some(expected));
    }
    let ended = |reason: &str, restarts: u32, state: Value| {
        let terminated = json!({"reason": reason, "exitCode": 137, "finishedAt": "1970-01-01T00:00:00Z"});
        json!({"restartCount": restarts, "state": state, "lastState": {"terminated": terminated}})
    };
    let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let running = json!({"running": {}});
    let again = "the collector ended (OOMKilled, exit code 137) again and again";
    assert_eq!(trouble(&ended("OOMKilled", 2, back_off), 0).as_deref(), Some(again));
    assert_eq!(trouble(&ended("OOMKilled", 2, running.clone()), 0), None);
    let thrice = "the collector ended with exit code 137 3 times";
    assert_eq!(trouble(&ended("Error", 3, running.clone()), 9).as_deref(), Some(thrice));
    assert_eq!(trouble(&ended("Error", 3, running), 10), None);
}

#[test]
fn trouble_that_lasts_keeps_injection_stopped_and_what_is_over_lets_it_go_on() {
    let mut cluster = cluster(&[]);
    let stuck = carrier("stuck", &json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}));
    cluster.put(Kind::InjectedPod, stuck.clone()).unwrap();
    for minute in 0..30 {
        cluster.look_for_trouble(at(minute));
        assert_eq!(cluster.stops.count(), 1);
    }
    cluster.remove(Kind::InjectedPod, &stuck.key);
    cluster.look_for_trouble(at(38));
    assert_eq!(cluster.stops.count(), 1);
    cluster.look_for_trouble(at(39));
    assert_eq!(cluster.stops.count(), 0);
}

#[test]
fn a_pod_that_was_refused_for_its_collector_perhaps_stops_injection_for_what_makes_it() {
    let mut cluster = cluster(&[]);
    let failed = |note: &str| Object {
        body: json!({
            "involvedObject": {"kind": "ReplicaSet", "namespace": "shop", "name": "web-5d8f"},
            "message": note, "lastTimestamp": "1970-01-01T00:01:00Z", "eventTime": null,
        }),
        ..Object::default()
    };
    let maker = Workload { namespace: "shop".into(), kind: "ReplicaSet".into(), name: "web-5d8f".into() };
    cluster.put(Kind::FailedCreation, failed("pods \"x\" is forbidden: violates PodSecurity")).unwrap();
    assert_eq!(cluster.stops.count(), 0);
    let note = "Error creating: pods \"x\" is forbidden: exceeded quota: all, requested: limits.cpu=1";
    cluster.put(Kind::FailedCreation, failed(note)).unwrap();
    assert!(cluster.stops.why(&maker, Some("5d8f")).unwrap().contains(note));
    for why in [
        "failed quota: all: must specify limits.cpu",
        "maximum memory usage per Container is 1Mi, but limit is 64Mi",
        "unable to validate against any security context constraint: [.initContainers[0].runAsUser: 65532]",
        "admission webhook \"policy\" denied the request: container kestrel-collector has no probes",
        "violates PodSecurity: volume \"kestrel-state\" is of a type that is not allowed",
    ] {
        cluster.look_for_trouble(at(11));
        assert_eq!(cluster.stops.count(), 0, "the Event is old");
        cluster.put(Kind::FailedCreation, failed(why)).unwrap();
        assert_eq!(cluster.stops.count(), 1, "{why}");
    }
}

#[test]
fn whoever_made_a_pod_hears_once_why_it_has_no_collector() {
    let mut cluster = cluster(&[]);
    let skipped = |name: &str| {
        pod(name, &[("kestrel.ai/inject", "true"), ("kestrel.ai/status", "skipped (windows): the reason")])
    };
    cluster.put(Kind::OtherPod, skipped("one")).unwrap();
    cluster.put(Kind::OtherPod, skipped("two")).unwrap();
    let told = cluster.coverage.tell(9);
    let [telling] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(telling.note, "Pod one asks for a collector and has none: the reason");
    assert_eq!((telling.subject.kind.as_str(), telling.reason), ("ReplicaSet", "CollectorSkipped"));

    let asks = [("kestrel.ai/inject", "true")];
    let mut system = Object { controller: None, ..pod("dns", &asks) };
    system.key.namespace = "kube-system".to_owned();
    cluster.put(Kind::OtherPod, system).unwrap();
    cluster.put(Kind::OtherPod, pod("missed", &asks)).unwrap();
    cluster.put(Kind::OtherPod, Object { seen: at(60), ..pod("old", &asks) }).unwrap();
    let told = cluster.coverage.tell(9);
    let notes: Vec<_> = told.iter().map(|telling| (telling.subject.kind.as_str(), telling.reason)).collect();
    assert_eq!(notes, [("Pod", "CollectorSkipped"), ("ReplicaSet", "CollectorMissing")]);
    assert!(told[0].note.contains(": pods of namespace kube-system are not changed"), "{}", told[0].note);
}

#[test]
fn whoever_made_a_pod_hears_once_what_was_asked_for_with_it_in_vain() {
    let mut cluster = cluster(&[]);
    let with = |name: &str, annotations: &[(&str, &str)]| Object {
        annotations: pod(name, annotations).annotations,
        ..carrier(name, &json!({}))
    };
    let status = ("kestrel.ai/status", "injected: reads log files in data; not read: /x: no volume holds it");
    let (paths, logs) = (("kestrel.ai/log-paths", "/data,/x"), ("kestrel.ai/logs", "everything"));
    for name in ["one", "two"] {
        cluster.put(Kind::InjectedPod, with(name, &[status, paths, logs])).unwrap();
        cluster.put(Kind::InjectedPod, with(name, &[status, paths, logs])).unwrap();
    }
    let told = cluster.coverage.tell(9);
    let notes: Vec<_> = told.iter().map(|telling| telling.note.as_str()).collect();
    assert_eq!(
        notes,
        [
            "Pod one has a collector, but not all that kestrel.ai/log-paths names is read: /x: no volume holds it",
            "Pod one has a collector, but kestrel.ai/logs is \"everything\" and counts as if it was not there; it has \
             to be all, errors or off",
        ]
    );
    assert!(told.iter().all(|telling| telling.reason == "AnnotationIgnored"));
    // What a profile names for all of its pods is no pod's own mistake.
    let mut other = with("three", &[status, ("kestrel.ai/logs", "all")]);
    other.controller = None;
    cluster.put(Kind::InjectedPod, other).unwrap();
    assert!(cluster.coverage.tell(9).is_empty());
}

#[test]
fn a_label_without_a_collector_covers_nothing() {
    let mut cluster = cluster(&[("a", json!({}))]);
    // As a copied template makes it.
    let copied = |name: &str| {
        let asks = pod(
            name,
            &[("kestrel.ai/inject", "true"), ("kestrel.ai/status", "injected: reads log files in x")],
        );
        Object { body: json!({"spec": {"containers": [{"name": "app"}]}}), ..asks }
    };
    let key = |name: &str| copied(name).key;
    cluster.put(Kind::InjectedPod, copied("one")).unwrap();
    cluster.put(Kind::InjectedPod, copied("two")).unwrap();
    cluster.put(Kind::InjectedPod, carrier("three", &json!({}))).unwrap();
    cluster.put(Kind::OtherPod, pod("four", &[("kestrel.ai/inject", "true")])).unwrap();
    let counts = |cluster: &Cluster| {
        let found = status(cluster, "a", 0);
        (found.injected, found.pending)
    };
    assert_eq!(counts(&cluster), (1, 3));
    assert_eq!(cluster.coverage.tell(9)[0].reason, "CollectorMissing");
    // What one watch does not list is not for it to forget.
    cluster.retain(Kind::OtherPod, &BTreeSet::new());
    assert_eq!(counts(&cluster), (1, 2));
    cluster.remove(Kind::InjectedPod, &key("one"));
    assert_eq!(counts(&cluster), (1, 1));
    cluster.put(Kind::InjectedPod, Object { key: key("two"), ..carrier("two", &json!({})) }).unwrap();
    assert_eq!(counts(&cluster), (2, 0), "another pod of that name");
    cluster.put(Kind::InjectedPod, copied("three")).unwrap();
    assert_eq!(counts(&cluster), (1, 1));
    cluster.retain(Kind::InjectedPod, &BTreeSet::new());
    assert_eq!(counts(&cluster), (0, 0));
}

#[test]
fn who_made_a_pod_that_nobody_looked_at_hears_how_to_make_one_that_is_looked_at() {
    let mut cluster = cluster(&[]);
    let asks = [("kestrel.ai/inject", "true")];
    cluster.put(Kind::OtherPod, pod("missed", &asks)).unwrap();
    cluster.put(Kind::OtherPod, Object { controller: None, ..pod("bare", &asks) }).unwrap();
    let told = cluster.coverage.tell(9);
    let [of_deployment, bare] = told.as_slice() else { panic!("{told:?}") };
    let patch = r#"kubectl patch -n shop deployment/web -p '{"spec":{"template":{"metadata":{"annotations":{"kestrel.ai/inject":"true"}}}}}'"#;
    assert!(of_deployment.note.contains(patch), "{}", of_deployment.note);
    assert!(
        of_deployment.note.ends_with("kubectl rollout restart -n shop deployment/web"),
        "{}",
        of_deployment.note
    );
    assert!(bare.note.ends_with("a pod is looked at when it is created"), "{}", bare.note);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut cluster = cluster(&[("a", json!({}))]);
    let many = MOST_UNCOVERED + 10;
    for number in 0..many {
        cluster.put(Kind::OtherPod, pod(&number.to_string(), &[("kestrel.ai/inject", "true")])).unwrap();
    }
    assert_eq!(status(&cluster, "a", 0).pending as usize, MOST_UNCOVERED);
    let reasons = ('a'..='z').flat_map(|one| ["x", "y"].map(|other| format!("{one}{other}")));
    for (number, reason) in reasons.enumerate() {
        let status = format!("skipped ({reason}): x");
        let annotations = [("kestrel.ai/inject", "true"), ("kestrel.ai/status", status.as_str())];
        cluster.put(Kind::OtherPod, pod(&number.to_string(), &annotations)).unwrap();
    }
    let skipped = status(&cluster, "a", 0).skipped;
    assert_eq!((skipped.len(), skipped["other"]), (33, 20));
}
