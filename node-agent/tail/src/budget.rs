//! How many bytes of lines may be sent, and who comes first when there are more.
//!
//! Each limit is a bucket that fills at its rate and is full after two seconds. Lines that
//! are no warnings may use its upper half alone, so that there is room for errors when the
//! rest has to wait. Of a namespace's and of the node's limit every pod that sends has an equal share for
//! itself; what the others leave of theirs is for whoever comes first. So a pod that keeps
//! within its share never waits for one that does not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::discover::Origin;

/// How long a bucket fills.
const FULL: Duration = Duration::from_secs(2);

/// What is left to errors: what a bucket gains in this time.
const RESERVE: Duration = Duration::from_secs(1);

/// Bytes of lines a second; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of one pod.
    pub pod: u64,
    /// Of all pods of a namespace.
    pub namespace: u64,
    /// Of all pods.
    pub node: u64,
}

/// Bytes that may be sent of a pod now. A line may be longer: then it is in debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of warnings and errors.
    pub errors: i64,
    /// Of all else.
    pub others: i64,
}

impl Room {
    /// Where there is no limit.
    const ENDLESS: Self = Self { errors: i64::MAX, others: i64::MAX };

    /// Bytes were sent.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.errors = self.errors.saturating_sub(bytes);
        self.others = self.others.saturating_sub(bytes);
    }

    fn least(self, other: Self) -> Self {
        Self { errors: self.errors.min(other.errors), others: self.others.min(other.others) }
    }

    fn most(self, other: Self) -> Self {
        Self { errors: self.errors.max(other.errors), others: self.others.max(other.others) }
    }
}

/// What fills with a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    bytes: i64,
    /// Until when it was filled; `None` until it is asked, and then it is full.
    at: Option<Instant>,
}

impl Bucket {
    fn fill(&mut self, rate: u64, now: Instant) {
        let gained = gain(rate, self.at.map_or(FULL, |at| now.saturating_duration_since(at)));
        if gained > 0 {
            self.bytes = self.bytes.saturating_add(gained).min(gain(rate, FULL));
            self.at = Some(now);
        }
    }

    fn room(&self, rate: u64) -> Room {
        Room { errors: self.bytes, others: self.bytes.saturating_sub(gain(rate, RESERVE)) }
    }

    fn take(&mut self, bytes: i64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

fn gain(rate: u64, time: Duration) -> i64 {
    i64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(i64::MAX)
}

/// Pods that share a limit.
#[derive(Debug, Default)]
struct Group {
    all: Bucket,
    /// How many of them sent something of late.
    pods: u64,
}

impl Group {
    /// What each of its pods has for itself.
    fn share(&self, rate: u64) -> u64 {
        rate / self.pods.max(1)
    }

    /// What a pod with this bucket of its own may send.
    fn room(&mut self, own: &mut Bucket, rate: u64, now: Instant) -> Room {
        if rate == 0 {
            return Room::ENDLESS;
        }
        let share = self.share(rate);
        self.all.fill(rate, now);
        own.fill(share, now);
        self.all.room(rate).most(own.room(share))
    }
}

/// A pod that sent something of late.
#[derive(Debug)]
struct Pod {
    namespace: String,
    own: Bucket,
    of_namespace: Bucket,
    of_node: Bucket,
    /// When it last had something to send.
    asked: Instant,
}

/// The buckets of a node.
#[derive(Debug, Default)]
pub struct Budget {
    limits: Limits,
    node: Group,
    namespaces: BTreeMap<String, Group>,
    /// By UID.
    pods: BTreeMap<String, Pod>,
}

impl Budget {
    /// All buckets are full.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What may be sent of a pod now.
    pub fn room(&mut self, origin: &Origin, now: Instant) -> Room {
        let limits = self.limits;
        if limits == Limits::default() {
            return Room::ENDLESS;
        }
        if !self.pods.contains_key(&origin.uid) {
            self.enter(origin, now);
        }
        let (Some(pod), Some(namespace)) =
            (self.pods.get_mut(&origin.uid), self.namespaces.get_mut(&origin.namespace))
        else {
            return Room::ENDLESS;
        };
        pod.asked = now;
        pod.own.fill(limits.pod, now);
        let own = if limits.pod == 0 { Room::ENDLESS } else { pod.own.room(limits.pod) };
        let in_namespace = namespace.room(&mut pod.of_namespace, limits.namespace, now);
        own.least(in_namespace).least(self.node.room(&mut pod.of_node, limits.node, now))
    }

    /// Bytes of a pod were sent, for which there was [`Budget::room`].
    pub fn spend(&mut self, origin: &Origin, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let Some(pod) = self.pods.get_mut(&origin.uid) else { return };
        for bucket in [&mut pod.own, &mut pod.of_namespace, &mut pod.of_node, &mut self.node.all] {
            bucket.take(bytes);
        }
        if let Some(namespace) = self.namespaces.get_mut(&pod.namespace) {
            namespace.all.take(bytes);
        }
    }

    /// Forgets pods that have not asked for room of late: the others then have more.
    pub fn forget(&mut self, now: Instant) {
        let Self { limits, node, namespaces, pods } = self;
        let is_full = |bucket: &mut Bucket, rate| {
            bucket.fill(rate, now);
            rate == 0 || bucket.bytes == gain(rate, FULL)
        };
        pods.retain(|_, pod| {
            let idle = now.saturating_duration_since(pod.asked) >= FULL && is_full(&mut pod.own, limits.pod);
            if idle {
                node.pods -= 1;
                if let Some(namespace) = namespaces.get_mut(&pod.namespace) {
                    namespace.pods -= 1;
                }
            }
            !idle
        });
        namespaces.retain(|_, group| group.pods > 0 || !is_full(&mut group.all, limits.namespace));
    }

    fn enter(&mut self, origin: &Origin, now: Instant) {
        self.node.pods += 1;
        self.namespaces.entry(origin.namespace.clone()).or_default().pods += 1;
        let pod = Pod {
            namespace: origin.namespace.clone(),
            own: Bucket::default(),
            of_namespace: Bucket::default(),
            of_node: Bucket::default(),
            asked: now,
        };
        self.pods.insert(origin.uid.clone(), pod);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn pod(namespace: &str, uid: &str) -> Origin {
        Origin { namespace: namespace.into(), uid: uid.into(), ..Origin::default() }
    }

    #[test]
    fn without_a_limit_there_is_always_room_and_nothing_is_kept() {
        let now = Instant::now();
        let mut budget = Budget::new(Limits::default());
        assert_eq!(budget.room(&pod("a", "1"), now), Room::ENDLESS);
        budget.spend(&pod("a", "1"), u64::MAX);
        assert!(budget.room(&pod("a", "1"), now) == Room::ENDLESS && budget.pods.is_empty());
    }

    #[test]
    fn a_pod_that_sent_too_much_has_room_for_errors_and_gets_more_with_time() {
        let now = Instant::now();
        let mut budget = Budget::new(Limits { pod: 1000, ..Limits::default() });
        let (noisy, other) = (pod("a", "1"), pod("a", "2"));
        assert_eq!(budget.room(&noisy, now), Room { errors: 2000, others: 1000 });
        budget.spend(&noisy, 1500);
        assert_eq!(budget.room(&noisy, now), Room { errors: 500, others: -500 });
        assert_eq!(budget.room(&other, now).others, 1000);
        let later = now + Duration::from_millis(600);
        assert_eq!(budget.room(&noisy, later), Room { errors: 1100, others: 100 });
        budget.forget(later + FULL);
        assert!(budget.pods.is_empty() && budget.namespaces.is_empty() && budget.node.pods == 0);
    }

    #[test]
    fn debt_outlives_silence() {
        let now = Instant::now();
        let mut budget = Budget::new(Limits { pod: 1000, ..Limits::default() });
        let pod = pod("a", "1");
        budget.room(&pod, now);
        budget.spend(&pod, 12_000);
        budget.forget(now + 2 * FULL);
        assert_eq!(budget.room(&pod, now + 2 * FULL).errors, -6000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        /// Over a minute, with pods that send all they may and one that keeps within its share.
        #[test]
        fn who_keeps_within_the_share_never_waits_and_the_rest_is_used(
            noisy in 1_u64..20, rate in 10_000_u64..1_000_000, by_namespace in any::<bool>(), line in 1_u64..5_000,
        ) {
            let start = Instant::now();
            let limits = if by_namespace {
                Limits { namespace: rate, ..Limits::default() }
            } else {
                Limits { node: rate, ..Limits::default() }
            };
            let mut budget = Budget::new(limits);
            let quiet = pod("a", "quiet");
            let share = rate / (noisy + 1) / 2;
            let (mut sent, mut by_quiet) = (0_u64, 0_u64);
            let steps = 6000_u64;
            for step in 0..steps {
                let now = start + STEP * step as u32;
                for number in 0..noisy {
                    // Who comes first is none of its business.
                    let pod = pod("a", &((number + step) % noisy).to_string());
                    while budget.room(&pod, now).others > 0 {
                        budget.spend(&pod, line);
                        sent += line;
                    }
                }
                if by_quiet < share * step / 100 {
                    prop_assert!(budget.room(&quiet, now).others > 0, "at step {step}");
                    budget.spend(&quiet, line.min(share / 10));
                    by_quiet += line.min(share / 10);
                }
                if step % 100 == 0 {
                    budget.forget(now);
                }
            }
            let least = rate * 60 * 8 / 10;
            let most = rate * 63 + (noisy + 1) * (line + 2 * rate / noisy);
            prop_assert!((least..most).contains(&(sent + by_quiet)), "{} of {}", sent + by_quiet, rate * 60);
        }
    }
}
