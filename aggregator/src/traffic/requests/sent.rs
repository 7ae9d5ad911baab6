//! What nodes' agents and collectors have counted of proxies that send to them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{MutexGuard, PoisonError},
};

use jiff::Timestamp;
use kestrel_als::identity::Identity;
use kestrel_proto::node::v1::{RequestProxy, RequestReport, RequestsTold};
use tokio::sync::mpsc::UnboundedSender;

use super::{Requests, ends::reporter, metrics::LeftOut};

/// Senders whose last report is remembered. When there were more over the time, all are forgotten.
const MOST_SENDERS: usize = 20_000;

/// Who sends a report, by its token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender<'a> {
    /// The agent of this node.
    Agent(&'a str),
    /// The collector of a pod.
    Collector {
        namespace: &'a str,
        pod: &'a str,
        /// Of its connection.
        address: IpAddr,
    },
}

/// What is known of them.
#[derive(Default)]
pub(super) struct Senders {
    /// The last report of each, by its name: its run and its number.
    last: HashMap<String, (u64, u64)>,
    /// Who is told what, once a span has been told. One for each report of some seconds.
    waiting: Vec<(u64, UnboundedSender<RequestsTold>, RequestsTold)>,
}

impl Senders {
    /// Whether anybody has sent a report.
    pub(super) fn are_known(&self) -> bool {
        !self.last.is_empty()
    }

    /// A span has been told, and all before it.
    pub(super) fn told(&mut self, span: u64) {
        for (_, sender, told) in self.waiting.extract_if(.., |(of, ..)| *of <= span) {
            // It may be gone; then it sends again.
            let _gone = sender.send(told);
        }
    }
}

impl Requests {
    /// Takes what a sender counted, once. `told` hears when it has gone to the cloud.
    pub(crate) fn take(
        &self,
        name: &str,
        sender: Sender<'_>,
        report: &RequestReport,
        told: &UnboundedSender<RequestsTold>,
    ) {
        let &RequestReport { run, number, .. } = report;
        let metrics = &self.0.metrics;
        let mut senders = self.senders();
        let is_known = senders.last.get(name).is_some_and(|(of, last)| *of == run && *last >= number);
        let span = if is_known {
            let entries = report.rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count));
            metrics.left_out(LeftOut::Repeated, entries);
            self.0.counter.newest()
        } else {
            if senders.last.len() >= MOST_SENDERS {
                senders.last.clear();
            }
            senders.last.insert(name.to_owned(), (run, number));
            let (span, foreign) =
                self.0.counter.merge(report, &|proxy, last| self.identify(proxy, last, sender));
            metrics.left_out(LeftOut::Foreign, foreign);
            span
        };
        let news = RequestsTold { run, number };
        match span {
            Some(span) => senders.waiting.push((span, told.clone(), news)),
            // There is nothing to wait for.
            None => drop(told.send(news)),
        }
    }

    /// Who a proxy is, the last of whose entries ended then, if its sender may speak of it. Somebody else may have its address now.
    fn identify(&self, proxy: &RequestProxy, last: Option<u64>, sender: Sender<'_>) -> Option<Identity> {
        let said = Identity::of(proxy);
        match sender {
            Sender::Agent(node) => {
                // An agent of before does not say over which connection it was said.
                let said = Identity { peer: said.peer.or(said.address), ..said };
                let last = last.and_then(|last| Timestamp::from_nanosecond(last.into()).ok());
                let time = last.unwrap_or_else(Timestamp::now);
                let resident = |address: IpAddr| self.0.mirror.resident(address, time);
                let is_elsewhere = |address: IpAddr| {
                    resident(address).is_some_and(|found| !found.node.is_empty() && *found.node != *node)
                };
                let end = reporter(&said, time, |address, _| resident(address));
                (!said.peer.into_iter().chain(end.address).any(is_elsewhere)).then_some(said)
            }
            // Its token says all that there is to know.
            Sender::Collector { namespace, pod, address } => Some(Identity {
                id: said.id,
                address: Some(address.to_canonical()),
                pod: pod.to_owned(),
                namespace: namespace.to_owned(),
                ..Identity::default()
            }),
        }
    }

    /// Whole after every use, so a panic elsewhere has not harmed it.
    pub(super) fn senders(&self) -> MutexGuard<'_, Senders> {
        self.0.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
