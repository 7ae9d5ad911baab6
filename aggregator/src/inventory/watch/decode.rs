//! Objects out of what the API server sends.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{json, value::RawValue};

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    /// What happened.
    #[serde(rename = "type")]
    pub(super) change: Change,
    /// The object as it is now, or was last.
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
    /// Nothing; the object has a resource version and no more.
    Bookmark,
    /// The watch is over; the object is a `Status`.
    Error,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    pub(super) metadata: PageMeta,
    #[serde(borrow)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    pub(super) resource_version: Option<String>,
    #[serde(rename = "continue")]
    pub(super) token: Option<String>,
}

/// The object of a bookmark.
#[derive(Debug, Deserialize)]
pub(super) struct Bookmark {
    pub(super) metadata: BookmarkMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BookmarkMeta {
    /// Everything before it has been seen.
    pub(super) resource_version: String,
    annotations: BTreeMap<String, String>,
}

impl BookmarkMeta {
    /// All objects have been sent (KEP-3157).
    pub(super) fn ends_the_list(&self) -> bool {
        self.annotations.contains_key("k8s.io/initial-events-end")
    }
}

/// What is read of an object before the rest, and of one whose rest can't be read.
#[derive(Debug, Deserialize)]
pub(super) struct Outline<'a> {
    #[serde(borrow)]
    pub(super) metadata: Meta<'a>,
}

/// The part of an object's metadata that a watch needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta<'a> {
    pub(super) name: String,
    pub(super) namespace: String,
    uid: String,
    pub(super) resource_version: String,
    #[serde(borrow)]
    managed_fields: Option<&'a RawValue>,
}

impl Meta<'_> {
    /// The name that people use.
    pub(super) fn full_name(&self) -> String {
        let Self { namespace, name, .. } = self;
        if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
    }
}

impl Outline<'_> {
    /// No more of the object than says which it is.
    pub(super) fn identity<K: DeserializeOwned>(&self) -> serde_json::Result<K> {
        let Meta { name, namespace, uid, .. } = &self.metadata;
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": {}}),
        )
    }

    /// The object in `text`, of which this is the outline. Its `managedFields`
    /// are left out: they are as large as the rest, slow to decode, and nobody
    /// reads them.
    pub(super) fn object<K: DeserializeOwned>(&self, text: &str) -> serde_json::Result<K> {
        let around = self.metadata.managed_fields.and_then(|fields| {
            // It is a part of `text`.
            let at = (fields.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            Some((text.get(..at)?, text.get(at + fields.get().len()..)?))
        });
        match around {
            Some((before, after)) => serde_json::from_str(&[before, "null", after].concat()),
            None => serde_json::from_str(text),
        }
    }
}
