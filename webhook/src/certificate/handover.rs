//! When a mounted certificate is shown, and whom API servers trust meanwhile.
//! Pure: what is offered, what is configured and the time in, one step out.
//!
//! Replicas see a change of the Secret minutes apart, and nothing tells one
//! what the others show. So each only adds to the bundle what it needs itself,
//! and takes out what it does not know after longer than any of them may be
//! behind.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::rotation::Configured;

/// Authorities that are not in our files are taken out after this many trust
/// delays: ten minutes, where the kubelet needs one or two to bring new files.
const RETIRE_AFTER: u32 = 120;
/// Authorities in the bundle: far more than a rotation needs, far less than an
/// object can hold.
const MOST_AUTHORITIES: usize = 32;
/// Nothing is due before somebody changes something.
const IDLE: Duration = Duration::from_secs(3600);

/// A certificate, as far as the rule needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The certificate itself: two are the same if this is.
    pub(super) leaf: Vec<u8>,
    /// Who trusts one of these accepts it.
    pub(super) authorities: Vec<String>,
}

/// What to do; the world is read again after each but [`Step::Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make API servers trust exactly these.
    Trust { bundle: Vec<String> },
    /// Show what is offered.
    Show,
    /// Nothing before this time, or before the world changes.
    Wait { until: Timestamp },
}

/// What one replica knows beyond the world.
#[derive(Debug)]
pub(super) struct Handover {
    trust_delay: Duration,
    shown: Certificate,
    /// Authorities, and since when they are seen to be trusted.
    trusted: Option<(Vec<String>, Timestamp)>,
    /// Authorities in the bundle that are not ours, and since when.
    strangers: BTreeMap<String, Timestamp>,
}

impl Handover {
    /// `trust_delay` is how long an API server may take to notice that the
    /// configuration has changed.
    pub(super) fn new(trust_delay: Duration) -> Self {
        Self { trust_delay, shown: Certificate::default(), trusted: None, strangers: BTreeMap::new() }
    }

    /// What was offered at [`Step::Show`] is shown.
    pub(super) fn show(&mut self, certificate: Certificate) {
        self.shown = certificate;
    }

    /// The next step.
    pub(super) fn next(&mut self, offered: &Certificate, configured: &Configured, now: Timestamp) -> Step {
        let mut bundle = offered.authorities.clone();
        for authority in &self.shown.authorities {
            if !bundle.contains(authority) {
                bundle.push(authority.clone());
            }
        }
        self.strangers.retain(|known, _| configured.bundle.contains(known) && !bundle.contains(known));
        for stranger in configured.bundle.iter().filter(|authority| !bundle.contains(authority)) {
            self.strangers.entry(stranger.clone()).or_insert(now);
        }
        let retires = |since: &Timestamp| *since + self.trust_delay * RETIRE_AFTER;
        bundle.extend(
            self.strangers.iter().filter(|(_, since)| retires(since) > now).map(|(name, _)| name.clone()),
        );
        bundle.truncate(MOST_AUTHORITIES);

        let trusts = |authority| configured.bundle.contains(authority);
        if !offered.authorities.iter().all(trusts) {
            self.trusted = None;
        }
        // The order is of no account, and another replica's is as good.
        if configured.bundle.len() != bundle.len() || !bundle.iter().all(trusts) {
            return Step::Trust { bundle };
        }
        let since = match &self.trusted {
            Some((authorities, since)) if *authorities == offered.authorities => *since,
            _ => {
                self.trusted = Some((offered.authorities.clone(), now));
                now
            }
        };
        let next_retirement = self.strangers.values().map(retires).min();
        let due = if self.shown == *offered {
            now + IDLE
        } else if since + self.trust_delay <= now {
            return Step::Show;
        } else {
            since + self.trust_delay
        };
        Step::Wait { until: next_retirement.map_or(due, |retirement| retirement.min(due)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const DELAY: Duration = Duration::from_secs(5);
    /// Another replica's files are at most this far behind.
    const BEHIND: Duration = Duration::from_secs(120);

    /// A Secret, the API servers that believe any bundle of the last `DELAY`, and
    /// two replicas, whose files are a version of the Secret that may be old.
    struct Model {
        now: Timestamp,
        configured: Configured,
        /// Bundles, and when they were replaced.
        believed: Vec<(Vec<String>, Timestamp)>,
        /// All versions of the Secret, and when each was replaced by the next.
        versions: Vec<(Certificate, Option<Timestamp>)>,
        replicas: [(Handover, Certificate); 2],
    }

    impl Model {
        fn new() -> Self {
            let mut model = Self {
                now: Timestamp::UNIX_EPOCH,
                configured: Configured { bundle: Vec::new(), names: vec!["webhook".to_owned()] },
                believed: Vec::new(),
                versions: Vec::new(),
                replicas: [(); 2].map(|()| (Handover::new(DELAY), Certificate::default())),
            };
            model.renew(true);
            model.bring(0);
            model.bring(1);
            for _ in 0..2 {
                model.settle(0);
                model.settle(1);
                model.pass(DELAY);
            }
            model
        }

        /// A new certificate, of a new authority or of the same.
        fn renew(&mut self, of_another: bool) {
            let number = self.versions.len() as u8;
            let authorities = match self.versions.last_mut() {
                Some((last, replaced)) => {
                    *replaced = Some(self.now);
                    last.authorities.clone()
                }
                None => Vec::new(),
            };
            let authorities = if of_another { vec![format!("authority {number}")] } else { authorities };
            self.versions.push((Certificate { leaf: vec![number], authorities }, None));
        }

        /// The newest version comes to a replica.
        fn bring(&mut self, replica: usize) {
            self.replicas[replica].1 = self.versions.last().unwrap().0.clone();
        }

        /// Time passes; files that are too far behind come along.
        fn pass(&mut self, time: Duration) {
            self.now += time;
            for replica in 0..2 {
                let of_replica = &self.replicas[replica].1;
                let replaced = self.versions.iter().find(|(version, _)| version == of_replica);
                if replaced.and_then(|(_, replaced)| *replaced).is_some_and(|then| then + BEHIND <= self.now)
                {
                    self.bring(replica);
                }
            }
        }

        /// Takes a replica's steps until it waits.
        fn settle(&mut self, replica: usize) {
            for _ in 0..16 {
                let (handover, files) = &mut self.replicas[replica];
                match handover.next(files, &self.configured, self.now) {
                    Step::Wait { until } => {
                        assert!(until > self.now, "a replica that waits does not spin");
                        return;
                    }
                    Step::Trust { bundle } => {
                        let old = std::mem::replace(&mut self.configured.bundle, bundle);
                        self.believed.push((old, self.now));
                    }
                    Step::Show => handover.show(files.clone()),
                }
            }
            panic!("a replica does not come to rest: {:?}", self.replicas[replica]);
        }

        /// Whether every API server accepts what the replica shows.
        fn accepted(&self, replica: usize) -> bool {
            let before = self.believed.iter().filter(|(_, until)| *until + DELAY > self.now);
            let mut believed = before.map(|(bundle, _)| bundle).chain([&self.configured.bundle]);
            let shown = &self.replicas[replica].0.shown;
            shown.leaf.is_empty() || believed.all(|bundle| bundle.contains(&shown.authorities[0]))
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// The Secret changes; true: with its authority.
        Renew(bool),
        /// The newest files come to a replica.
        Bring(usize),
        /// A replica starts anew, with the newest files.
        Restart(usize),
        /// Seconds pass.
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => any::<bool>().prop_map(Event::Renew),
            2 => (0..2_usize).prop_map(Event::Bring),
            1 => (0..2_usize).prop_map(Event::Restart),
            9 => (1..60_u64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn no_call_fails_whenever_the_files_change(events in vec((event(), 0..2_usize), 0..60)) {
            let mut model = Model::new();
            for (event, first) in events {
                match event {
                    Event::Renew(of_another) => model.renew(of_another),
                    Event::Bring(replica) => model.bring(replica),
                    Event::Restart(replica) => {
                        model.replicas[replica].0 = Handover::new(DELAY);
                        model.bring(replica);
                    }
                    Event::Pass(seconds) => model.pass(Duration::from_secs(seconds)),
                }
                for replica in [first, 1 - first] {
                    model.settle(replica);
                    prop_assert!(model.accepted(0) && model.accepted(1), "{:?}", event);
                }
            }
            // Left alone, all show the newest, and nothing else is trusted.
            for _ in 0..4 {
                model.pass(DELAY * RETIRE_AFTER);
                model.settle(0);
                model.settle(1);
            }
            let newest = model.versions.last().unwrap().0.clone();
            prop_assert_eq!(&model.configured.bundle, &newest.authorities);
            for (handover, _) in &model.replicas {
                prop_assert_eq!(&handover.shown, &newest);
            }
        }
    }

    #[test]
    fn a_renewal_by_the_same_authority_is_shown_at_once() {
        let mut model = Model::new();
        model.renew(false);
        model.bring(0);
        model.settle(0);
        assert_eq!(model.replicas[0].0.shown.leaf, [1]);
    }

    #[test]
    fn a_bundle_stays_of_bounded_size() {
        let mut handover = Handover::new(DELAY);
        let offered = Certificate { leaf: vec![1], authorities: vec!["ours".to_owned()] };
        let bundle = (0..100).map(|number| format!("stranger {number}")).collect();
        let configured = Configured { bundle, names: Vec::new() };
        let Step::Trust { bundle } = handover.next(&offered, &configured, Timestamp::UNIX_EPOCH) else {
            panic!("it does not trust")
        };
        assert_eq!((bundle.len(), &*bundle[0]), (MOST_AUTHORITIES, "ours"));
    }
}
