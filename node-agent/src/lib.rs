//! The agent of one node: pod logs and host conditions.
