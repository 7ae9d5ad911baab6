//! Who owns the objects that this process makes in the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kestrel_runtime::service_account::ServiceAccount;

/// The chart's ServiceAccount owns what is made at run time, so that it goes
/// with it; nobody does outside a cluster.
pub(crate) fn owner() -> Option<OwnerReference> {
    ServiceAccount::own().map(|account| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: account.name,
        uid: account.uid,
        ..OwnerReference::default()
    })
}
