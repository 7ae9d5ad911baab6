//! The sidecar: file logs of one pod.
