//! LimitRanges: what each container and each pod of a namespace may use.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::quantity::Quantity;

/// The items of one LimitRange that speak of pods and containers.
#[derive(Clone, Debug, Default)]
pub struct LimitRange(pub(crate) Vec<Limits>);

/// One item, by resource.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) scope: Scope,
    pub(crate) least: BTreeMap<String, Quantity>,
    pub(crate) most: BTreeMap<String, Quantity>,
    /// Of the limit to the request.
    pub(crate) ratio: BTreeMap<String, Quantity>,
    /// Resources that containers get a request or limit of if they have none.
    pub(crate) defaults: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Container,
    Pod,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Item {
    r#type: String,
    min: BTreeMap<String, Value>,
    max: BTreeMap<String, Value>,
    default: BTreeMap<String, Value>,
    default_request: BTreeMap<String, Value>,
    max_limit_request_ratio: BTreeMap<String, Value>,
}

impl LimitRange {
    /// From the object without its metadata. The API server has checked it.
    pub(super) fn read(body: &Value) -> Self {
        let items = body["spec"]["limits"].as_array().into_iter().flatten();
        Self(items.filter_map(|item| Item::deserialize(item).ok()).filter_map(Item::limits).collect())
    }
}

impl Item {
    fn limits(self) -> Option<Limits> {
        let scope = match self.r#type.as_str() {
            "Container" => Scope::Container,
            "Pod" => Scope::Pod,
            _ => return None,
        };
        let quantities = |amounts: &BTreeMap<String, Value>| {
            let known =
                amounts.iter().filter_map(|(name, amount)| Some((name.clone(), Quantity::read(amount)?)));
            known.collect::<BTreeMap<_, _>>()
        };
        let given = [&self.min, &self.max, &self.default, &self.default_request];
        Some(Limits {
            scope,
            least: quantities(&self.min),
            most: quantities(&self.max),
            ratio: quantities(&self.max_limit_request_ratio),
            defaults: given.into_iter().flat_map(BTreeMap::keys).cloned().collect(),
        })
    }
}
