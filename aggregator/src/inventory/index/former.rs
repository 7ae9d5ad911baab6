//! Who had an address until a moment ago: what is heard of it now may have happened before.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;

use super::Resident;

/// What is heard later than this is of whoever has the address then.
const KEPT: Duration = Duration::from_mins(5);

/// More are not kept: of each about 100 bytes.
const MOST: usize = 50_000;

/// Former residents, by address.
#[derive(Default)]
pub(super) struct Former {
    /// Of each address the earliest first.
    residents: HashMap<IpAddr, VecDeque<(Timestamp, Resident)>>,
    /// In the order in which they left.
    left: VecDeque<(Timestamp, IpAddr)>,
}

impl Former {
    /// The resident has left its address.
    pub(super) fn leave(&mut self, address: IpAddr, resident: Resident, now: Timestamp) {
        let limit = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        while self.left.len() >= MOST || self.left.front().is_some_and(|(at, _)| *at < limit) {
            let Some((_, oldest)) = self.left.pop_front() else { break };
            if let Some(residents) = self.residents.get_mut(&oldest) {
                residents.pop_front();
                if residents.is_empty() {
                    self.residents.remove(&oldest);
                }
            }
        }
        self.residents.entry(address).or_default().push_back((now, resident));
        self.left.push_back((now, address));
    }

    /// Who had the address at that time and has left it since.
    pub(super) fn at(&self, address: IpAddr, time: Timestamp) -> Option<&Resident> {
        let residents = self.residents.get(&address)?;
        residents.iter().find(|(until, _)| time < *until).map(|(_, resident)| resident)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(workload: &str) -> Resident {
        Resident { workload: workload.into(), labels: [].into(), node: "n1".into() }
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_time_has_its_resident_and_old_ones_are_forgotten() {
        let [one, two] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut former = Former::default();
        let name = |former: &Former, address, second| {
            former.at(address, time(second)).map(|resident| resident.workload.to_string())
        };
        former.leave(one, resident("a"), time(100));
        former.leave(two, resident("b"), time(110));
        former.leave(one, resident("c"), time(120));
        assert_eq!(name(&former, one, 99).as_deref(), Some("a"));
        assert_eq!(name(&former, one, 100).as_deref(), Some("c"));
        assert_eq!(name(&former, one, 120), None);
        assert_eq!(name(&former, two, 5).as_deref(), Some("b"));
        former.leave(two, resident("d"), time(415));
        assert_eq!(name(&former, one, 99).as_deref(), Some("c"), "the first one was long ago");
        assert_eq!(name(&former, two, 5).as_deref(), Some("d"));
        assert_eq!((former.left.len(), former.residents.len()), (2, 2));
    }
}
