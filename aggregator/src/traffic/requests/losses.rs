//! What proxies themselves count of the entries that they logged: only they know of those that they dropped.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// Proxies that are asked. Those of more are not.
const MOST_PROXIES: usize = 20_000;
/// A proxy that was not heard of for so many windows is not asked any more: two minutes.
const SILENT: u32 = 12;
/// Workloads whose losses are known apart, as of [`Tally`](super::Tally).
const MOST_WORKLOADS: usize = 5_000;

/// What a proxy has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Entries that it handed to a stream.
    pub written: u64,
    /// Entries for which its buffer had no room.
    pub dropped: u64,
}

/// What the proxies of a workload have counted since they are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Entries that they wrote or dropped.
    pub logged: u64,
    /// Those of them that they dropped.
    pub dropped: u64,
    /// Entries of theirs that had come before that.
    pub before: u64,
}

impl Loss {
    /// How many of what they logged have not come, if so many have come in all. What a proxy logs until it is first asked is not known, so
    /// it may be more.
    pub fn missing(self, received: u64) -> u64 {
        self.logged.saturating_sub(received.saturating_sub(self.before))
    }
}

/// The proxies that are asked, and what they said.
#[derive(Debug, Default)]
pub struct Losses {
    proxies: HashMap<IpAddr, Proxy>,
    workloads: BTreeMap<String, Loss>,
    window: u32,
    /// Somebody asks them.
    are_asked: bool,
}

#[derive(Debug)]
struct Proxy {
    workload: String,
    last: Option<Counted>,
    heard: u32,
}

impl Losses {
    /// Proxies that were heard of in a window: their addresses, and the workloads by whose names their entries are counted.
    pub fn heard(&mut self, proxies: impl Iterator<Item = (IpAddr, String)>) {
        self.window = self.window.wrapping_add(1);
        let window = self.window;
        for (address, workload) in proxies {
            if let Some(known) = self.proxies.get_mut(&address).filter(|known| known.workload == workload) {
                known.heard = window;
            } else if self.proxies.len() < MOST_PROXIES || self.proxies.contains_key(&address) {
                self.proxies.insert(address, Proxy { workload, last: None, heard: window });
            }
        }
        self.proxies.retain(|_, proxy| window.wrapping_sub(proxy.heard) < SILENT);
    }

    /// Workloads whose entries are not counted apart any more are forgotten: nobody can say what of theirs has come.
    pub fn keep(&mut self, is_counted: impl Fn(&str) -> bool) {
        self.workloads.retain(|name, _| is_counted(name));
    }

    /// Those that are to be asked.
    pub fn addresses(&mut self) -> Vec<IpAddr> {
        self.are_asked = true;
        self.proxies.keys().copied().collect()
    }

    /// Whether anybody wants to know which there are.
    pub fn are_asked(&self) -> bool {
        self.are_asked
    }

    /// What a proxy said. The first time nobody knows since when it counts. `received` is how many entries of a workload have come.
    pub fn said(&mut self, address: IpAddr, counted: Counted, received: impl FnOnce(&str) -> u64) {
        let Some(proxy) = self.proxies.get_mut(&address) else { return };
        let Some(last) = proxy.last.replace(counted) else {
            if !self.workloads.contains_key(&proxy.workload) && self.workloads.len() < MOST_WORKLOADS {
                let loss = Loss { before: received(&proxy.workload), ..Loss::default() };
                self.workloads.insert(proxy.workload.clone(), loss);
            }
            return;
        };
        // It began anew.
        let since = |now: u64, then: u64| if now < then { now } else { now - then };
        let dropped = since(counted.dropped, last.dropped);
        if let Some(loss) = self.workloads.get_mut(&proxy.workload) {
            loss.logged =
                loss.logged.saturating_add(since(counted.written, last.written)).saturating_add(dropped);
            loss.dropped = loss.dropped.saturating_add(dropped);
        }
    }

    /// By workload.
    pub fn workloads(&self) -> &BTreeMap<String, Loss> {
        &self.workloads
    }
}

/// Reads metrics in Prometheus' text form; `None`: those of access logs are not among them.
pub fn read(text: &str) -> Option<Counted> {
    const WRITTEN: &str = "envoy_access_logs_grpc_access_log_logs_written";
    const DROPPED: &str = "envoy_access_logs_grpc_access_log_logs_dropped";
    let sum = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.as_bytes().first()? {
                b'{' => rest.rsplit_once('}')?.1,
                b' ' => rest,
                _ => return None,
            };
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        values.reduce(u64::saturating_add)
    };
    Some(Counted { written: sum(WRITTEN)?, dropped: sum(DROPPED).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_envoy_counts_is_read_and_other_metrics_are_none() {
        let text = "# TYPE envoy_access_logs_grpc_access_log_logs_written counter
envoy_access_logs_grpc_access_log_logs_written{} 1200
envoy_access_logs_grpc_access_log_logs_written{listener=\"a}b\"} 34
envoy_access_logs_grpc_access_log_logs_written_more{} 9
# TYPE envoy_access_logs_grpc_access_log_logs_dropped counter
envoy_access_logs_grpc_access_log_logs_dropped 5
";
        assert_eq!(read(text), Some(Counted { written: 1234, dropped: 5 }));
        assert_eq!(read("envoy_access_logs_grpc_access_log_logs_written{} x\nup 1\n"), None);
        assert_eq!(
            read("envoy_access_logs_grpc_access_log_logs_written{} 7\n"),
            Some(Counted { written: 7, dropped: 0 })
        );
    }

    #[test]
    fn what_is_lost_is_added_up_from_one_answer_to_the_next_also_across_a_restart() {
        let mut losses = Losses::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        losses.heard([(one, "shop/web".to_owned()), (other, "shop/web".to_owned())].into_iter());
        let counted = |written, dropped| Counted { written, dropped };
        losses.said(one, counted(1000, 50), |_| 900);
        losses.said(other, counted(0, 0), |_| 950);
        let loss = |logged, dropped| Loss { logged, dropped, before: 900 };
        assert_eq!(losses.workloads()["shop/web"], loss(0, 0), "nobody knows since when it counts");
        losses.said(one, counted(1090, 60), |_| 0);
        losses.said(other, counted(100, 0), |_| 0);
        assert_eq!(losses.workloads()["shop/web"], loss(200, 10));
        assert_eq!([900, 1085, 1100, 2000].map(|all| loss(200, 10).missing(all)), [200, 15, 0, 0]);
        losses.said(one, counted(7, 3), |_| 0);
        assert_eq!(losses.workloads()["shop/web"], loss(210, 13));
        losses.said([10, 9, 9, 9].into(), counted(5, 5), |_| 0);
        losses.heard([(one, "shop/api".to_owned())].into_iter());
        losses.said(one, counted(500, 500), |_| 900);
        assert_eq!(losses.workloads()["shop/api"], loss(0, 0), "the address is somebody else's now");
        (0..SILENT).for_each(|_| losses.heard(std::iter::empty()));
        assert!(losses.addresses().is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "(envoy_access_logs_grpc_access_log_logs_(written|dropped)|[ {}\\n0-9a-z\"]){0,60}") {
            let _counted = read(&text);
        }
    }
}
