//! Workloads for which injection is stopped: a collector that does not start
//! keeps its pod from starting.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::inject::Workload;

/// How long after the last trouble pods get collectors again. Longer than the
/// kubelet waits between two starts of a container.
pub(super) const STOP: SignedDuration = SignedDuration::from_mins(10);
/// More workloads are not kept in mind; those with the oldest trouble go first.
const MOST: usize = 1000;

/// Where injection is stopped, and why.
#[derive(Debug, Default)]
pub struct Stops(BTreeMap<Workload, Vec<Stop>>);

#[derive(Debug)]
struct Stop {
    /// The version of the pod template that it is about; `None`: all.
    template: Option<String>,
    why: String,
    /// The last trouble.
    at: Timestamp,
}

impl Stops {
    /// Stops injection for pods of a workload with this template: what was wrong may be right in the
    /// next one. Or goes on with it; true if it was not stopped before.
    pub fn hold(&mut self, workload: &Workload, template: Option<&str>, why: &str, at: Timestamp) -> bool {
        let stops = self.0.entry(workload.clone()).or_default();
        if let Some(stop) = stops.iter_mut().find(|stop| stop.template.as_deref() == template) {
            if stop.at < at {
                (stop.at, stop.why) = (at, why.to_owned());
            }
            return false;
        }
        stops.push(Stop { template: template.map(str::to_owned), why: why.to_owned(), at });
        if self.0.len() > MOST {
            let last = |stops: &Vec<Stop>| stops.iter().map(|stop| stop.at).max();
            let oldest =
                self.0.iter().min_by_key(|(_, stops)| last(stops)).map(|(workload, _)| workload.clone());
            oldest.map(|workload| self.0.remove(&workload));
        }
        true
    }

    /// Why a new pod with this template is left alone.
    pub(crate) fn why(&self, workload: &Workload, template: Option<&str>) -> Option<&str> {
        let is_meant = |stop: &&Stop| stop.template.is_none() || stop.template.as_deref() == template;
        self.0.get(workload)?.iter().find(is_meant).map(|stop| stop.why.as_str())
    }

    /// Ends what has lasted long enough.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.0.retain(|_, stops| {
            stops.retain(|stop| now.duration_since(stop.at) < STOP);
            !stops.is_empty()
        });
    }

    /// How many workloads there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Labels;

    fn workload(name: &str) -> Workload {
        Workload::of("shop", "Deployment", name, &Labels::new())
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    #[test]
    fn a_stop_ends_with_the_template_or_with_time() {
        let (web, mut stops) = (workload("web"), Stops::default());
        assert!(stops.hold(&web, Some("a"), "killed", at(0)));
        assert!(!stops.hold(&web, Some("a"), "killed again", at(5)));
        assert!(stops.hold(&web, Some("b"), "no image", at(6)));
        stops.expire(at(14));
        assert_eq!(stops.why(&web, Some("a")), Some("killed again"));
        assert_eq!(stops.why(&web, Some("b")), Some("no image"));
        assert_eq!(stops.why(&web, Some("c")), None);
        assert_eq!(stops.why(&workload("db"), Some("a")), None);
        stops.expire(at(15));
        assert_eq!((stops.why(&web, Some("a")), stops.count()), (None, 1));
        stops.expire(at(16));
        assert_eq!(stops.count(), 0);
        // What names no template is about all.
        stops.hold(&web, None, "exceeded quota", at(20));
        assert_eq!(stops.why(&web, Some("c")), Some("exceeded quota"));
    }

    #[test]
    fn the_oldest_trouble_goes_where_there_is_too_much() {
        let mut stops = Stops::default();
        for number in 0..=MOST {
            stops.hold(&workload(&number.to_string()), None, "x", at(i64::try_from(number).unwrap()));
        }
        assert_eq!(stops.count(), MOST);
        assert_eq!(stops.why(&workload("0"), None), None);
    }
}
