//! All profiles, and which of them decides about a pod.

use std::collections::BTreeMap;

use super::{Labels, Profile};

/// The cluster's profiles.
#[derive(Clone, Debug)]
pub struct Profiles {
    by_name: BTreeMap<String, Profile>,
    /// What holds where none of them covers a pod.
    built_in: Option<Profile>,
}

/// Why no profile gives a pod a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProfile {
    /// None covers it, and there is no built-in one.
    Uncovered,
    /// The first that covers it is disabled, or the one that it names.
    Disabled(String),
    /// It names a profile that does not exist or can't be used.
    Unknown(String),
    /// It names a profile that does not cover it.
    Elsewhere(String),
}

/// Two profiles that cover the same pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The profile that is not asked.
    pub loser: String,
    /// The one whose name comes first.
    pub winner: String,
    /// A namespace where both may cover a pod.
    pub namespace: String,
}

impl Profiles {
    /// None yet; `has_built_in` says whether pods that none will cover get a
    /// collector by the defaults.
    pub fn new(has_built_in: bool) -> Self {
        Self { by_name: BTreeMap::new(), built_in: has_built_in.then(Profile::default) }
    }

    /// Puts a profile in, in place of that of its name.
    pub fn put(&mut self, profile: Profile) {
        self.by_name.insert(profile.name.clone(), profile);
    }

    /// Takes a profile out.
    pub fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Takes out all whose names are not wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| is_wanted(name));
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.by_name.get(name)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.by_name.values()
    }

    /// The profile that decides about a pod: the first that covers it, if that is disabled, whatever the
    /// pod names; else the one that it names, else that first one, else the built-in one.
    ///
    /// # Errors
    /// There is none, or it says that the pod gets no collector.
    pub fn choose(
        &self,
        namespace: &Labels,
        pod: &Labels,
        named: Option<&str>,
    ) -> Result<&Profile, NoProfile> {
        let first = self.iter().find(|profile| profile.covers(namespace, pod));
        if let Some(disabled) = first.filter(|profile| !profile.spec.enabled) {
            return Err(NoProfile::Disabled(disabled.name.clone()));
        }
        let chosen = match named {
            Some(name) => {
                let profile = self.get(name).ok_or_else(|| NoProfile::Unknown(name.to_owned()))?;
                if !profile.covers(namespace, pod) {
                    return Err(NoProfile::Elsewhere(name.to_owned()));
                }
                profile
            }
            None => first.or(self.built_in.as_ref()).ok_or(NoProfile::Uncovered)?,
        };
        if chosen.spec.enabled { Ok(chosen) } else { Err(NoProfile::Disabled(chosen.name.clone())) }
    }

    /// Profiles that another one may keep from deciding, each once, given the
    /// namespaces that there are.
    pub fn conflicts<'a>(
        &self,
        namespaces: impl Iterator<Item = (&'a String, &'a Labels)> + Clone,
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (place, loser) in self.iter().enumerate() {
            let conflict = self.iter().take(place).find_map(|winner| {
                if !winner.spec.pod_selector.may_overlap(&loser.spec.pod_selector) {
                    return None;
                }
                let selects = |profile: &Profile, labels| profile.spec.namespace_selector.matches(labels);
                let (namespace, _) = namespaces
                    .clone()
                    .find(|(_, labels)| selects(winner, labels) && selects(loser, labels))?;
                Some(Conflict {
                    loser: loser.name.clone(),
                    winner: winner.name.clone(),
                    namespace: namespace.clone(),
                })
            });
            conflicts.extend(conflict);
        }
        conflicts
    }
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { loser, winner, namespace } = self;
        write!(
            f,
            "pods of namespace {namespace} may be covered by {winner} too, which decides because its name comes \
             before {loser}"
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels(team: &str) -> Labels {
        Labels::from([("team".to_owned(), team.to_owned())])
    }

    fn profiles(specs: &[(&str, Value)]) -> Profiles {
        let mut profiles = Profiles::new(true);
        for (name, spec) in specs {
            profiles.put(Profile::read((*name).to_owned(), 1, spec).unwrap());
        }
        profiles
    }

    #[test]
    fn the_first_covering_profile_by_name_decides_even_if_it_is_disabled() {
        let of = |team: &str| json!({"matchLabels": {"team": team}});
        let mut profiles = profiles(&[
            ("b", json!({"namespaceSelector": of("shop")})),
            ("a", json!({"namespaceSelector": of("shop"), "podSelector": of("web"), "enabled": false})),
            ("c", json!({"namespaceSelector": of("bank")})),
        ]);
        let name = |name: &str| Ok(name.to_owned());
        let chosen = |profiles: &Profiles, namespace: &str, pod: &str, named: Option<&str>| {
            profiles.choose(&labels(namespace), &labels(pod), named).map(|profile| profile.name.clone())
        };
        assert_eq!(chosen(&profiles, "shop", "web", None), Err(NoProfile::Disabled("a".to_owned())));
        assert_eq!(chosen(&profiles, "shop", "db", None), name("b"));
        assert_eq!(chosen(&profiles, "bank", "web", None), name("c"));
        assert_eq!(chosen(&profiles, "home", "web", None), name(""), "the built-in one");

        // By name.
        profiles.put(Profile::read("d".to_owned(), 1, &json!({"namespaceSelector": of("shop")})).unwrap());
        profiles.put(Profile::read("e".to_owned(), 1, &json!({"enabled": false})).unwrap());
        let disabled = |name: &str| Err(NoProfile::Disabled(name.to_owned()));
        assert_eq!(chosen(&profiles, "shop", "db", Some("d")), name("d"));
        assert_eq!(chosen(&profiles, "shop", "web", Some("b")), disabled("a"), "no pod passes by it");
        assert_eq!(chosen(&profiles, "shop", "db", Some("e")), disabled("e"));
        assert_eq!(chosen(&profiles, "shop", "db", Some("c")), Err(NoProfile::Elsewhere("c".to_owned())));
        assert_eq!(chosen(&profiles, "shop", "db", Some("x")), Err(NoProfile::Unknown("x".to_owned())));
        profiles.remove("e");

        profiles.built_in = None;
        assert_eq!(chosen(&profiles, "home", "web", None), Err(NoProfile::Uncovered));
    }

    #[test]
    fn the_losing_profile_is_told_who_wins_and_where() {
        let profiles = profiles(&[
            ("all-web", json!({"podSelector": {"matchLabels": {"team": "web"}}})),
            ("shop", json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}})),
            (
                "shop-db",
                json!({"podSelector": {"matchLabels": {"team": "db"}},
                "namespaceSelector": {"matchLabels": {"team": "bank"}}}),
            ),
        ]);
        let namespaces =
            BTreeMap::from([("n1".to_owned(), labels("bank")), ("n2".to_owned(), labels("shop"))]);
        let conflicts = profiles.conflicts(namespaces.iter());
        assert_eq!(
            conflicts,
            [Conflict { loser: "shop".into(), winner: "all-web".into(), namespace: "n2".into() }]
        );
        assert_eq!(
            conflicts[0].to_string(),
            "pods of namespace n2 may be covered by all-web too, which decides because its name comes before shop"
        );
        assert!(profiles.conflicts(BTreeMap::new().iter()).is_empty(), "no namespace, no pod");
    }
}
