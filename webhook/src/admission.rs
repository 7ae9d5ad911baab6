//! Admission: the API server asks about a pod that is being created, and gets
//! a patch, or nothing and the reason.

mod body;
mod metrics;
mod places;
mod review;
mod router;
pub mod server;

pub use self::{
    metrics::Metrics,
    review::{Admission, AdmitError, admit},
    router::router,
};
