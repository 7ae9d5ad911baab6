//! Questions for names that a server could not answer, counted by who asked whom.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use kestrel_proto::node::{FLOW_SPAN, v1};

use super::{bits, bytes, names::peer_of};
use crate::flow::{NameFailure, Peer};

/// Different ones of a window, which are told in one report. Each takes about a KiB.
const MOST: usize = 256;

/// Bytes of a name that are told; longer ones are none of DNS.
const MOST_NAME_BYTES: usize = 255;

/// Those since the last report.
#[derive(Default)]
pub(super) struct Failures {
    all: HashMap<Vec<u8>, v1::NameFailure, RandomState>,
    /// What the last one has in common with others.
    key: Vec<u8>,
}

impl Failures {
    /// Counts one; false if there is no room for it.
    pub(super) fn add(&mut self, failure: &NameFailure<'_>) -> bool {
        let NameFailure { client, server, code, name, time } = *failure;
        self.key.clear();
        self.key.extend_from_slice(&(time / FLOW_SPAN).to_be_bytes());
        self.key.extend_from_slice(&code.to_be_bytes());
        for end in [client, server] {
            self.key.extend_from_slice(&end.address.map_or(0, bits).to_be_bytes());
            self.key.extend_from_slice(&end.endpoint.len().to_be_bytes());
            self.key.extend_from_slice(end.endpoint);
        }
        if let Some(known) = self.all.get_mut(&self.key) {
            known.count += 1;
            known.first_seen = known.first_seen.min(time);
            known.last_seen = known.last_seen.max(time);
            return true;
        }
        if self.all.len() >= MOST {
            return false;
        }
        let peer = |end: Peer<'_>| {
            let address = bytes(end.address.map_or(0, bits)).into();
            Some(v1::FlowPeer { address, ..peer_of(end.endpoint) })
        };
        let told = v1::NameFailure {
            client: peer(client),
            server: peer(server),
            code,
            name: name[..name.floor_char_boundary(MOST_NAME_BYTES)].to_owned(),
            count: 1,
            first_seen: time,
            last_seen: time,
        };
        self.all.insert(self.key.clone(), told);
        true
    }

    /// All of them. There are none then.
    pub(super) fn take(&mut self) -> Vec<v1::NameFailure> {
        std::mem::take(&mut self.all).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_a_client_and_a_code_are_one_and_their_number_is_bounded() {
        let mut failures = Failures::default();
        let failure = |last: u8, code, time| NameFailure {
            client: Peer { address: Some([10, 0, 0, last].into()), ..Peer::default() },
            server: Peer { address: Some([10, 96, 0, 10].into()), ..Peer::default() },
            code,
            name: "api.example.com.",
            time,
        };
        for time in [5, 3, 9] {
            assert!(failures.add(&failure(1, 2, time)));
        }
        assert!(failures.add(&failure(1, 5, 4)) && failures.add(&failure(2, 2, 4)));
        assert!(failures.add(&failure(1, 2, FLOW_SPAN)), "another ten seconds");
        let mut told = failures.take();
        told.sort_by_key(|told| (told.last_seen, told.code));
        let of = |told: &v1::NameFailure| (told.code, told.count, told.first_seen, told.last_seen);
        let expected = [(2, 1, 4, 4), (5, 1, 4, 4), (2, 3, 3, 9), (2, 1, FLOW_SPAN, FLOW_SPAN)];
        assert_eq!(told.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(told[0].client.as_ref().unwrap().address, [10, 0, 0, 2].as_slice());
        assert!(failures.take().is_empty());
        let added = (0..=MOST as u32).filter(|code| failures.add(&failure(1, *code, 1))).count();
        assert_eq!(added, MOST);
    }
}
