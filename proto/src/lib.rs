//! Wire types of Kestrel Cloud ([`cloud`], [`server`]), of the agent link
//! ([`node`]), of Hubble ([`hubble`]) and of Envoy's access logs ([`envoy`]), generated from the `.proto` files beside this crate.
//!
//! Maps are `BTreeMap`s, so that equal messages have equal bytes.

// The generated code carries the protocol files' comments, which describe
// every field but not every item that the generator adds.
#![allow(missing_docs, clippy::all, unreachable_pub)]

pub mod body;
pub mod codec;

/// Kestrel Cloud: the five streams.
pub mod cloud {
    /// Package `cloud.v1`.
    pub mod v1 {
        tonic::include_proto!("cloud.v1");
    }
}

/// Kestrel Cloud: token renewal and onboarding.
pub mod server {
    /// Package `server.v1`.
    pub mod v1 {
        tonic::include_proto!("server.v1");
    }
}

/// The agent link.
pub mod node {
    /// Flows are counted together between two multiples of so many nanoseconds, by the clock of their node.
    /// Only so do the counts of both ends of a conversation mean the same time.
    pub const FLOW_SPAN: u64 = 10_000_000_000;

    /// Package `node.v1`.
    pub mod v1 {
        tonic::include_proto!("node.v1");
    }
}

/// What is read of Hubble, the flow log of Cilium.
pub mod hubble {
    /// Package `flow`.
    pub mod flow {
        tonic::include_proto!("flow");
    }
    /// Package `observer`.
    pub mod observer {
        tonic::include_proto!("observer");
    }
}

/// What is read of Envoy's access log service.
pub mod envoy {
    /// Addresses, and who an Envoy is.
    pub mod config {
        /// Core types.
        pub mod core {
            /// Package `envoy.config.core.v3`.
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    /// Entries.
    pub mod data {
        /// Access logs.
        pub mod accesslog {
            /// Package `envoy.data.accesslog.v3`.
            pub mod v3 {
                tonic::include_proto!("envoy.data.accesslog.v3");
            }
        }
    }
    /// Messages and the service.
    pub mod service {
        /// Access logs.
        pub mod accesslog {
            /// Package `envoy.service.accesslog.v3`.
            pub mod v3 {
                tonic::include_proto!("envoy.service.accesslog.v3");
            }
        }
    }
}

/// The compiled `FileDescriptorSet` of everything above.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
