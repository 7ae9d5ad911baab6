//! Label selectors (`metav1.LabelSelector`).

use kestrel_proto::cloud::v1;

/// Which sets of labels are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// None: the selector is absent where absence means that, or is not one
    /// that Kubernetes would accept.
    Nothing,
    /// Those that meet every requirement; without one, all.
    Every(Vec<Requirement>),
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label exists with one of the values.
    In(String, Vec<String>),
    /// The label does not exist with one of the values.
    NotIn(String, Vec<String>),
    /// The label exists.
    Exists(String),
    /// The label does not exist.
    DoesNotExist(String),
}

impl Selector {
    /// The selector that is written so.
    pub fn new(v1::LabelSelector { match_labels, match_expressions }: &v1::LabelSelector) -> Self {
        let equals = match_labels.iter().map(|(key, value)| Some(Requirement::equals(key, value)));
        let terms = match_expressions.iter().map(Requirement::new);
        equals.chain(terms).collect::<Option<_>>().map_or(Self::Nothing, Self::Every)
    }

    /// Whether it selects the labels that `value_of` looks up.
    pub fn selects<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        let meets = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) => value_of(key).is_some_and(|value| contains(values, value)),
            Requirement::NotIn(key, values) => !value_of(key).is_some_and(|value| contains(values, value)),
            Requirement::Exists(key) => value_of(key).is_some(),
            Requirement::DoesNotExist(key) => value_of(key).is_none(),
        };
        match self {
            Self::Nothing => false,
            Self::Every(requirements) => requirements.iter().all(meets),
        }
    }
}

impl Requirement {
    fn equals(key: &str, value: &str) -> Self {
        Self::In(key.to_owned(), vec![value.to_owned()])
    }

    /// `None`: Kubernetes would not accept it.
    fn new(term: &v1::LabelSelectorRequirement) -> Option<Self> {
        let (key, values) = (term.key.clone(), term.values.clone());
        match (term.operator.as_str(), values.is_empty()) {
            ("In", false) => Some(Self::In(key, values)),
            ("NotIn", false) => Some(Self::NotIn(key, values)),
            ("Exists", true) => Some(Self::Exists(key)),
            ("DoesNotExist", true) => Some(Self::DoesNotExist(key)),
            _ => None,
        }
    }
}

fn contains(values: &[String], value: &str) -> bool {
    values.iter().any(|of| of == value)
}

#[cfg(test)]
mod tests;
