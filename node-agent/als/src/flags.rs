//! Why a request or connection ended as it did.

/// Short codes of Envoy's response flags, by their field number less one in `ResponseFlags`.
const CODES: [&str; 28] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DR",
];

/// Which field of `ResponseFlags` says that a request was not authorized.
pub(crate) const UNAUTHORIZED_FIELD: u32 = 13;

/// A set of flags: Envoy's, and two that the texts beside them mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub(crate) u32);

impl Flags {
    /// An authorization policy refused it.
    pub const DENIED: Self = Self(1 << 31);
    /// A TLS handshake failed.
    pub const TLS: Self = Self(1 << 30);
    /// No host to send it to was healthy.
    pub const NO_HEALTHY_UPSTREAM: Self = Self::of(2);
    /// The server did not answer in time.
    pub const UPSTREAM_TIMEOUT: Self = Self::of(3);
    /// The server could not be connected to.
    pub const UPSTREAM_FAILURE: Self = Self::of(6);
    /// The server ended the connection.
    pub const UPSTREAM_TERMINATION: Self = Self::of(7);
    /// No route was found.
    pub const NO_ROUTE: Self = Self::of(9);
    /// An external service did not authorize it.
    pub const UNAUTHORIZED: Self = Self::of(UNAUTHORIZED_FIELD);
    /// The client went away.
    pub const CLIENT_GONE: Self = Self::of(15).or(Self::of(28));
    /// It was tried as often as allowed.
    pub const RETRIES_EXHAUSTED: Self = Self::of(16);
    /// No cluster of that name is known to the proxy.
    pub const NO_CLUSTER: Self = Self::of(25);
    /// The server's name could not be resolved.
    pub const DNS_FAILURE: Self = Self::of(27);

    const fn of(field: u32) -> Self {
        Self(1 << (field - 1))
    }

    /// Adds the flag of a field of `ResponseFlags`; those that came later than these are not known.
    pub(crate) fn set(&mut self, field: u32) {
        if field >= 1 && field as usize <= CODES.len() {
            self.0 |= 1 << (field - 1);
        }
    }

    /// These and `others`.
    pub const fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Adds all of `others`.
    pub fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Whether any of `others` is there.
    pub fn any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// The short codes of Envoy's own flags.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        CODES.iter().enumerate().filter(move |(at, _)| self.0 >> at & 1 == 1).map(|(_, code)| *code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_fields() {
        let mut flags = Flags::TLS;
        [2, 6, 13, 27, 28, 29, 0, 77].into_iter().for_each(|field| flags.set(field));
        assert_eq!(flags.codes().collect::<Vec<_>>(), ["UH", "UF", "UAEX", "DF", "DR"]);
        assert!(flags.any(Flags::UPSTREAM_FAILURE) && !flags.any(Flags::DENIED));
    }
}
