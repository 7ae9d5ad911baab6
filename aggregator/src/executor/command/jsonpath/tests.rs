use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn templates_show_what_kubectl_shows() {
    let object = json!({
        "kind": "List", "n": 1.5, "empty": [], "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "status": {"ready": true, "n": 1}},
            {"metadata": {"name": "b"}, "status": {"ready": false, "n": 2, "capacity": {"cpu": "4"}}},
        ],
    });
    for (template, expected) in [
        ("{.kind}", "List"),
        ("kind is {.kind}!", "kind is List!"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[0].metadata.name}", "a"),
        ("{.items[-1:].metadata.name}", "b"),
        ("{.items[0:1].metadata.name}", "a"),
        ("{.items[*]['metadata.name','status.n']}", "a b 1 2"),
        ("{.items[?(@.status.n>1)].metadata.name}", "b"),
        ("{.items[?(@.metadata.name==\"a\")].status.ready}", "true"),
        ("{.items[?(@.status.capacity)].metadata.name}", "b"),
        ("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.n}{\"\\n\"}{end}", "a\t1\nb\t2\n"),
        ("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}", "x"),
        ("{..name}", "a b"),
        ("{.items[*].status.capacity}", "{\"cpu\":\"4\"}"),
        ("{.n}", "1.5"),
        ("{.empty}", "[]"),
        ("{.nothing}", ""),
        ("{$.kind}", "List"),
        ("{@.kind}", "List"),
        ("{.items[0].status.*}", "1 true"),
    ] {
        let shown = Template::parse(template, true)
            .and_then(|it| it.show(&object).map_err(|why| Refused::new(Reason::Malformed, why)));
        assert_eq!(shown.as_deref().map_err(ToString::to_string), Ok(expected), "{template}");
    }
    assert!(Template::parse("{.items[5]}", true).unwrap().show(&object).is_err());
    let relaxed = |path: &str| Template::relaxed(path).unwrap().values(&object).unwrap().len();
    assert_eq!([relaxed(".kind"), relaxed("kind"), relaxed("{.items[*].metadata.name}")], [1, 1, 2]);
}

#[test]
fn what_is_no_template_is_refused() {
    for template in [
        "{.a",
        "{range .a}{.b}",
        "{end}",
        "{.a[}",
        "{.a[?(@.b}",
        "{.a[x]}",
        "{.}{",
        "{'a}",
        "{a.b}",
        "{.a[?(@.b=1)]}",
        "{template}",
    ] {
        assert!(Template::parse(template, true).is_err(), "{template}");
    }
    let deep = "[?(@".repeat(50) + &")]".repeat(50);
    assert!(Template::parse(&format!("{{.a{deep}}}"), true).is_err());
}

proptest! {
    #[test]
    fn whatever_the_template_it_ends(template in "([{}.\\[\\]@?()*'\"=:,a0-9 -]|\\.\\.|range |end|\\PC){0,30}") {
        if let Ok(template) = Template::parse(&template, true) {
            let _shown = template.show(&json!({"a": [{"a": 1}, {"a": {"a": [0]}}], "0": "x"}));
        }
    }
}
