//! Label selectors, as Kubernetes has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Requirements that labels must all meet; with none, everything matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    pub(super) match_labels: Labels,
    pub(super) match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Requirement {
    pub(super) key: String,
    pub(super) operator: Operator,
    #[serde(default)]
    pub(super) values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// What two selectors together ask of one label.
#[derive(Default)]
struct Wanted<'a> {
    /// Only these values; `None`: any.
    allowed: Option<BTreeSet<&'a str>>,
    forbidden: BTreeSet<&'a str>,
    present: bool,
    absent: bool,
}

impl Selector {
    /// Whether these labels meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.is_met_by(labels))
    }

    /// Whether some labels meet the requirements of both.
    pub(super) fn may_overlap(&self, other: &Self) -> bool {
        let mut labels: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
        for selector in [self, other] {
            for (key, value) in &selector.match_labels {
                labels.entry(key).or_default().only([value.as_str()].into());
            }
            for Requirement { key, operator, values } in &selector.match_expressions {
                let wanted = labels.entry(key).or_default();
                let values = values.iter().map(String::as_str);
                match operator {
                    Operator::In => wanted.only(values.collect()),
                    Operator::NotIn => wanted.forbidden.extend(values),
                    Operator::Exists => wanted.present = true,
                    Operator::DoesNotExist => wanted.absent = true,
                }
            }
        }
        labels.values().all(Wanted::is_possible)
    }
}

impl FromStr for Selector {
    type Err = serde_json::Error;

    /// From JSON.
    fn from_str(json: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(json)
    }
}

impl Requirement {
    fn is_met_by(&self, labels: &Labels) -> bool {
        let label = labels.get(&self.key);
        match self.operator {
            Operator::In => label.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => label.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

impl<'a> Wanted<'a> {
    fn only(&mut self, values: BTreeSet<&'a str>) {
        self.present = true;
        self.allowed = Some(match self.allowed.take() {
            None => values,
            Some(allowed) => allowed.intersection(&values).copied().collect(),
        });
    }

    fn is_possible(&self) -> bool {
        let has_a_value = self.allowed.as_ref().is_none_or(|allowed| !allowed.is_subset(&self.forbidden));
        has_a_value && !(self.present && self.absent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::json;

    use super::*;

    fn requirement() -> impl Strategy<Value = Requirement> {
        let operator = select(vec![Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist]);
        (select(vec!["a", "b"]), operator, vec("[xyz]", 1..3))
            .prop_map(|(key, operator, values)| Requirement { key: key.to_owned(), operator, values })
    }

    fn selector() -> impl Strategy<Value = Selector> {
        (proptest::collection::btree_map("[ab]", "[xyz]", 0..2), vec(requirement(), 0..3))
            .prop_map(|(match_labels, match_expressions)| Selector { match_labels, match_expressions })
    }

    /// All labels that can be told apart by these selectors.
    fn all_labels() -> Vec<Labels> {
        let values = [None, Some("x"), Some("y"), Some("z"), Some("other")];
        let label = |key: &str, value: Option<&str>| value.map(|value| (key.to_owned(), value.to_owned()));
        values
            .into_iter()
            .flat_map(|a| values.map(|b| label("a", a).into_iter().chain(label("b", b)).collect()))
            .collect()
    }

    proptest! {
        #[test]
        fn selectors_overlap_exactly_where_some_labels_meet_both(one in selector(), other in selector()) {
            let both = all_labels().iter().any(|labels| one.matches(labels) && other.matches(labels));
            prop_assert_eq!(one.may_overlap(&other), both);
        }
    }

    #[test]
    fn every_operator_means_what_kubernetes_means_by_it() {
        let labels = Labels::from([("tier".to_owned(), "web".to_owned())]);
        for (key, operator, values, expected) in [
            ("tier", "In", &["web", "db"][..], true),
            ("tier", "In", &["db"], false),
            ("team", "In", &["db"], false),
            ("tier", "NotIn", &["db"], true),
            ("tier", "NotIn", &["web"], false),
            ("team", "NotIn", &["web"], true),
            ("tier", "Exists", &[], true),
            ("team", "Exists", &[], false),
            ("tier", "DoesNotExist", &[], false),
            ("team", "DoesNotExist", &[], true),
        ] {
            let requirement = json!({"key": key, "operator": operator, "values": values});
            let selector: Selector =
                serde_json::from_value(json!({"matchExpressions": [requirement]})).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{requirement}");
        }
    }
}
