//! The certificate that API servers see, without cert-manager or Helm.
//!
//! An authority of our own lies in a Secret that all replicas share. Each
//! replica signs its own short-lived certificate, whose key never leaves the
//! process. The authority's certificate is put into the webhook configuration
//! (`caBundle`) by server-side apply, so that whoever manages the rest of that
//! object has no part in it.
//!
//! Deleting the Secret rotates the authority. API servers then trust both
//! authorities for a while, and a replica shows a certificate of the new one
//! only when they do, so that no call fails.

mod keeper;
mod objects;
mod pem;
mod rotation;

pub use self::keeper::{Keeper, Names};
