//! What an operator shows to a development cloud.

use jiff::Timestamp;
use kestrel_dev_cloud::{Claims, Cloud};
use tempfile::TempDir;

/// A folder with `client.crt`, `client.key`, `ca.crt` and `token`.
pub(crate) fn credentials(cloud: &Cloud) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    cloud.authority().write_client(folder.path(), &cloud.authority().client("cluster").unwrap()).unwrap();
    let claims = Claims::new("acme", "cluster", Timestamp::now(), 24 * 3600);
    std::fs::write(folder.path().join("token"), cloud.authority().tokens().mint(&claims).unwrap()).unwrap();
    folder
}
