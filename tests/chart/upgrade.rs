//! From a release of chart 0.1 to this chart, in place.

use serde_json::Value;

use crate::helm::{self, Objects, text};

/// What an API server does not let an upgrade change.
fn fixed(object: &Value) -> [&Value; 4] {
    [&object["apiVersion"], &object["type"], &object["spec"]["selector"], &object["roleRef"]]
}

/// `tests/chart/release-0.1` makes the objects that chart 0.1 made; the cluster suite upgrades a release of it.
#[test]
fn what_both_charts_make_can_be_changed_in_place() {
    let values = helm::repository("tests/chart/values-0.1.yaml");
    let render = |chart: &str| {
        let arguments = ["--values", values.to_str().unwrap()];
        let folder = helm::repository(chart);
        Objects::parse(&helm::render_chart(&folder, helm::NEWEST, &arguments).expect("it renders"))
    };
    let (old, new) = (render("tests/chart/release-0.1"), render("charts/kestrel-operator"));
    let mut both = Vec::new();
    for before in &old.0 {
        let (kind, name) = (text(&before["kind"]), text(&before["metadata"]["name"]));
        if let Some(after) = new.find(kind, name) {
            assert_eq!(fixed(before), fixed(after), "{kind} {name}");
            both.push((kind, name));
        }
    }
    // The credentials stay where they are; all else of the old release goes.
    assert_eq!(both, [("Secret", "kestrel-operator-jwt"), ("Secret", "kestrel-operator-client-tls")]);
    for name in both {
        assert_eq!(old.get(name.0, name.1)["data"], new.get(name.0, name.1)["data"], "{name:?}");
    }
}
