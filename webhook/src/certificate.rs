//! The certificate that API servers see. It comes from an authority of our own,
//! or from a mounted Secret (cert-manager's, or a person's).
//!
//! An authority of our own lies in a Secret that all replicas share. Each
//! replica signs its own short-lived certificate, whose key never leaves the
//! process. A year before its end the authority gets a successor; deleting the
//! Secret does the same.
//!
//! In all cases the authority's certificate is put into the webhook
//! configuration (`caBundle`) by server-side apply, so that whoever manages the
//! rest of that object has no part in it. In a rotation API servers trust the
//! old and the new for a while, and a replica shows a certificate of the new
//! one only when they do, so that no call fails.

mod configuration;
mod handover;
mod keeper;
mod objects;
mod own;
mod provided;
mod rotation;

pub use self::keeper::{Keeper, Origin};
