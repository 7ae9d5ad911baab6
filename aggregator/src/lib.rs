//! The one connection between a cluster and Kestrel Cloud.
