//! What is said in the log of those who were refused: once a minute each.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

/// The same is said again of the same address after this time.
const QUIET: Duration = Duration::from_secs(60);
/// Sentences that are remembered. Beyond it some are said too often.
const MOST: usize = 1024;
/// What a peer has made long is cut after so many bytes.
const MOST_BYTES: usize = 512;

/// What was said lately.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<(IpAddr, String), Said>>);

struct Said {
    at: Instant,
    hidden: u64,
}

impl Refusals {
    /// Says why `address` was refused, if that was not said a moment ago. `why`
    /// follows the address in the sentence.
    pub(super) fn tell(&self, address: IpAddr, why: &str) {
        let why = cut(why, MOST_BYTES);
        if let Some(hidden) = self.should_tell(address, why, Instant::now()) {
            let again = if hidden > 0 { format!(" (and {hidden} times more)") } else { String::new() };
            warn!("refused at the agent link: {address} {why}{again}");
        }
    }

    /// How often this was kept back since it was last said, if it is to be said.
    fn should_tell(&self, address: IpAddr, why: &str, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address, why.to_owned());
        let hidden = match said.get_mut(&key) {
            Some(last) if now.duration_since(last.at) < QUIET => {
                last.hidden += 1;
                return None;
            }
            last => last.map_or(0, |last| last.hidden),
        };
        if said.len() >= MOST {
            said.retain(|_, last| now.duration_since(last.at) < QUIET);
        }
        if said.len() >= MOST {
            said.clear();
        }
        said.insert(key, Said { at: now, hidden: 0 });
        Some(hidden)
    }
}

/// The beginning of `text`, at most `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sentence_is_said_once_a_minute_for_each_address() {
        let refusals = Refusals::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let start = Instant::now();
        assert_eq!(refusals.should_tell(one, "has no token", start), Some(0));
        assert_eq!(refusals.should_tell(one, "has no token", start + QUIET / 2), None);
        assert_eq!(refusals.should_tell(one, "speaks for another", start), Some(0));
        assert_eq!(refusals.should_tell(other, "has no token", start), Some(0));
        assert_eq!(refusals.should_tell(one, "has no token", start + QUIET), Some(1));
        refusals.tell(one, &"é".repeat(MOST_BYTES));
        assert!(refusals.0.lock().unwrap().keys().all(|(_, why)| why.len() <= MOST_BYTES));
        for number in 0..3 * MOST {
            refusals.should_tell(one, &number.to_string(), start + QUIET);
        }
        assert!(refusals.0.lock().unwrap().len() <= MOST);
    }
}
