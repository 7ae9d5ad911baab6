//! Who answers behind a Service: of a request that reached nobody, no address says it.

use std::collections::HashMap;

use kestrel_als::{Side, names_somebody};

use super::{super::resolve::Named, ends::Ends};

/// Names that are remembered. When there are more, all are forgotten.
const MOST: usize = 20_000;
/// A name that no request was answered behind for so many windows is forgotten: three hours.
const KEPT: u32 = 1080;

/// Workloads, by who asks and by the Service that it calls.
#[derive(Debug, Default)]
pub(super) struct Behind {
    known: HashMap<(Named, Named), Known>,
    window: u32,
}

#[derive(Debug)]
struct Known {
    /// `None`: several workloads answer.
    workload: Option<Named>,
    window: u32,
}

impl Behind {
    /// Learns who answers; of a request that reached nobody, names who has answered before.
    pub(super) fn name(&mut self, ends: &mut Ends, side: Side, cluster: &[u8]) {
        let Ends { source, destination, service } = ends;
        if side == Side::Server || service.name.is_empty() {
            return;
        }
        let is_workload = !matches!(&*destination.named.kind, "Service" | "Unmanaged" | "Unknown");
        // Without a cluster the address is the one that was called.
        if (destination.address.is_none() || cluster.is_empty()) && !is_workload {
            let known = self.known.get(&(source.named.clone(), service.clone()));
            if let Some(workload) = known.and_then(|known| known.workload.as_ref()) {
                destination.named = workload.clone();
            }
        } else if is_workload && names_somebody(cluster) {
            self.learn(&source.named, service, &destination.named);
        }
    }

    fn learn(&mut self, source: &Named, service: &Named, workload: &Named) {
        let window = self.window;
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let known = self.known.entry((source.clone(), service.clone()));
        let known = known.or_insert_with(|| Known { workload: Some(workload.clone()), window });
        if known.window != window {
            *known = Known { workload: Some(workload.clone()), window };
        } else if known.workload.as_ref() != Some(workload) {
            known.workload = None;
        }
    }

    /// A window has been told.
    pub(super) fn turn(&mut self) {
        self.window = self.window.wrapping_add(1);
        let window = self.window;
        self.known.retain(|_, known| window.wrapping_sub(known.window) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ends::End, *};

    fn named(kind: &str, name: &str) -> Named {
        Named { ns: "shop".to_owned(), kind: kind.to_owned(), name: name.to_owned(), ..Named::default() }
    }

    fn ask(behind: &mut Behind, address: Option<u8>, kind: &str, name: &str) -> Named {
        let end =
            |address: Option<u8>, named| End { address: address.map(|last| [10, 0, 0, last].into()), named };
        let mut ends = Ends {
            source: end(Some(1), named("Deployment", "web")),
            destination: end(address, named(kind, name)),
            service: named("Service", "db"),
        };
        behind.name(&mut ends, Side::Client, b"outbound|80||db.shop.svc.cluster.local");
        ends.destination.named
    }

    #[test]
    fn who_answered_before_is_named_as_long_as_it_is_one() {
        let mut behind = Behind::default();
        let service = named("Service", "db");
        assert_eq!(ask(&mut behind, None, "Service", "db"), service);
        ask(&mut behind, Some(2), "Deployment", "db");
        assert_eq!(ask(&mut behind, None, "Service", "db"), named("Deployment", "db"));
        assert_eq!(ask(&mut behind, Some(9), "Service", "db"), service, "it has an address");
        ask(&mut behind, Some(3), "Deployment", "db-canary");
        assert_eq!(ask(&mut behind, None, "Service", "db"), service, "it may be either");
        behind.turn();
        ask(&mut behind, Some(3), "Deployment", "db-canary");
        assert_eq!(ask(&mut behind, None, "Service", "db"), named("Deployment", "db-canary"));
        (0..KEPT).for_each(|_| behind.turn());
        assert_eq!(ask(&mut behind, None, "Service", "db"), service);
    }
}
