//! Certificates as the PEM blocks that they are exchanged as.

use super::roots;

const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a PEM text, each without white space around it. What is
/// none is left out: an API server refuses a whole bundle for one bad block.
pub fn split(text: &str) -> Vec<String> {
    text.split_inclusive(END)
        .map(str::trim)
        .filter(|block| roots(block.as_bytes()).is_ok())
        .map(str::to_owned)
        .collect()
}

/// A bundle of certificates.
pub fn join(certificates: &[String]) -> String {
    certificates.iter().map(|certificate| format!("{certificate}\n")).collect()
}
