//! ResourceQuotas: what all pods of a namespace may use together.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::quantity::billionths;

/// One ResourceQuota.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    /// It counts the pods that match all of these.
    pub(crate) scopes: Vec<Scope>,
    /// By the quota's own names of resources, such as `requests.cpu`, in billionths.
    pub(crate) hard: BTreeMap<String, i128>,
    pub(crate) used: BTreeMap<String, i128>,
}

/// One condition on the pods that are counted.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scope {
    pub(crate) scope_name: String,
    #[serde(default)]
    pub(crate) operator: String,
    #[serde(default)]
    pub(crate) values: Vec<String>,
}

impl Quota {
    /// From the object without its metadata. The API server has checked it.
    pub(super) fn read(body: &Value) -> Self {
        let amounts = |field: &Value| -> BTreeMap<String, i128> {
            let entries = field.as_object().into_iter().flatten();
            entries.filter_map(|(name, amount)| Some((name.clone(), billionths(amount)?))).collect()
        };
        let (spec, status) = (&body["spec"], &body["status"]);
        let named = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let named = named.map(|name| Scope {
            scope_name: name.to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
        let scopes = named.chain(selected.filter_map(|scope| Scope::deserialize(scope).ok())).collect();
        Self { scopes, hard: amounts(&spec["hard"]), used: amounts(&status["used"]) }
    }
}
