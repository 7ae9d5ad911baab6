use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Labels = BTreeMap<String, String>;

fn term(key: &str, operator: &str, values: &[&str]) -> v1::LabelSelectorRequirement {
    v1::LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

fn selects(selector: &v1::LabelSelector, labels: &Labels) -> bool {
    Selector::new(selector).selects(|key| labels.get(key).map(String::as_str))
}

#[test]
fn an_empty_selector_selects_everything_and_nothing_selects_nothing() {
    for labels in [Labels::new(), [("a".to_owned(), "1".to_owned())].into()] {
        assert!(selects(&v1::LabelSelector::default(), &labels));
        assert!(!Selector::Nothing.selects(|key| labels.get(key).map(String::as_str)));
    }
}

#[test]
fn what_kubernetes_would_not_accept_selects_nothing() {
    for wrong in [
        term("a", "In", &[]),
        term("a", "NotIn", &[]),
        term("a", "Exists", &["1"]),
        term("a", "DoesNotExist", &["1"]),
        term("a", "Gt", &["1"]),
        term("a", "", &[]),
    ] {
        let selector = v1::LabelSelector { match_expressions: vec![wrong.clone()], ..Default::default() };
        assert_eq!(Selector::new(&selector), Selector::Nothing, "{wrong:?}");
    }
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[ab]", "[12]?", 0..3)
}

fn terms() -> impl Strategy<Value = Vec<v1::LabelSelectorRequirement>> {
    let values = prop::collection::vec("[12]?", 1..3);
    let with_values = ("[abc]", prop::sample::select(vec!["In", "NotIn"]), values);
    let without = ("[abc]", prop::sample::select(vec!["Exists", "DoesNotExist"]), Just(Vec::new()));
    let term = prop_oneof![with_values, without].prop_map(|(key, operator, values)| {
        v1::LabelSelectorRequirement { key, operator: operator.to_owned(), values }
    });
    prop::collection::vec(term, 0..3)
}

/// All sets of labels over the keys and values of this test that one term
/// allows; a selector selects what all of its terms allow.
fn allowed(universe: &BTreeSet<Labels>, term: &v1::LabelSelectorRequirement) -> BTreeSet<Labels> {
    let with = |holds: &dyn Fn(&String) -> bool| -> BTreeSet<Labels> {
        let has = |labels: &&Labels| labels.iter().any(|(key, value)| *key == term.key && holds(value));
        universe.iter().filter(has).cloned().collect()
    };
    let (any, listed) = (with(&|_| true), with(&|value| term.values.contains(value)));
    match term.operator.as_str() {
        "In" => listed,
        "NotIn" => universe - &listed,
        "Exists" => any,
        _ => universe - &any,
    }
}

proptest! {
    #[test]
    fn a_selector_is_the_intersection_of_its_terms(labels in labels(), match_labels in labels(), terms in terms()) {
        let universe = BTreeSet::from([labels.clone()]);
        let equals = match_labels.iter().map(|(key, value)| term(key, "In", &[value]));
        let selected = equals.chain(terms.clone()).fold(universe.clone(), |left, term| &left & &allowed(&universe, &term));
        let selector = v1::LabelSelector { match_labels, match_expressions: terms };
        prop_assert_eq!(selects(&selector, &labels), selected.contains(&labels));
    }
}
