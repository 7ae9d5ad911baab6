use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::executor::command::work::Stop;

fn work() -> Work {
    Work::until(Stop::default())
}

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
            .and_then(|it| it.show(&object, &work()).map_err(|why| Refused::new(Reason::Malformed, why)));
        assert_eq!(shown.as_deref().map_err(ToString::to_string), Ok(expected), "{template}");
    }
    assert!(Template::parse("{.items[5]}", true).unwrap().show(&object, &work()).is_err());
    let relaxed = |path: &str| Template::relaxed(path).unwrap().values(&object, &work()).unwrap().len();
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

/// What a template costs is what it looks at, whether it finds anything or not.
#[test]
fn what_is_looked_at_is_counted() {
    let object =
        json!({"items": (0..1000).map(|n| json!({"n": n, "m": "x".repeat(6400)})).collect::<Vec<_>>()});
    for (template, at_least) in [
        ("{.items[*].q}", 2000),
        ("{..q}", 4000),
        (&format!("{{.items[*]['q'{}]}}", ",'q'".repeat(99))[..], 200_000),
        ("{.items[?(@.q)].n}", 2000),
        ("{.items[?(@.m>@.m)]}", 100_000),
    ] {
        let work = work();
        Template::parse(template, true).unwrap().show(&object, &work).unwrap();
        assert!((at_least..at_least * 3).contains(&work.taken()), "{template}: {}", work.taken());
    }
}

#[test]
fn a_step_finds_so_many_values_and_nobody_waits_for_what_was_stopped() {
    let object = json!({"items": (0..1000).map(|n| json!({"n": [n, "x"]})).collect::<Vec<_>>()});
    let shown = |template: &str, stop| {
        Template::parse(template, true).unwrap().show(&object, &Work::until(stop)).map_err(|why| why.len())
    };
    for template in ["{range .items[*]}{..*..*['q','q']}{end}", "{..*..*..*.q}", "{.items[?(@.n[?(@..n)])]}"]
    {
        assert!(shown(template, Stop::default()).is_ok(), "{template}");
        assert!(shown(template, Stop::at_look(500)).is_err(), "{template}");
    }
    let many = format!("{{.items['n'{}]}}", ",'n'".repeat(300)).replace(".items", ".items[*]");
    let found = Template::parse(&many, true).unwrap().values(&object, &work());
    assert_eq!(found.unwrap_err(), "the path finds more than 200000 values");
}

proptest! {
    #[test]
    fn whatever_the_template_it_ends(template in "([{}.\\[\\]@?()*'\"=:,a0-9 -]|\\.\\.|range |end|\\PC){0,30}") {
        if let Ok(template) = Template::parse(&template, true) {
            let _shown = template.show(&json!({"a": [{"a": 1}, {"a": {"a": [0]}}], "0": "x"}), &work());
        }
    }
}
