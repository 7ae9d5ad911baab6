//! The engine on real files: rotation in every form, restarts, refusals.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

mod beginning;
mod bench;
mod gone;
mod many;
mod records;
mod rotation;
mod walk;
