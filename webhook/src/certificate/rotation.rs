//! What to do next about authority, trust and certificate. Pure: the state of
//! the world and the time in, one step out.
//!
//! The bundle in the webhook configuration follows from the Secret alone, so
//! that replicas never disagree about it; the clock only decides when one of
//! them retires the previous authorities in the Secret. An authority that is
//! trusted and was not retired may be in use by another replica, and is
//! remembered rather than dropped.

use std::time::Duration;

use jiff::Timestamp;

/// Authorities are retired after this many trust delays: all replicas show
/// certificates of the new one after about one.
const RETIRE_AFTER: u32 = 12;
/// An authority's successor takes its place this long before it ends: nobody has
/// to have seen both before, so that this is not more than time to mend what keeps it from that.
const RENEW_BEFORE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Authorities that are remembered when one rotation follows another: far more
/// than a person makes in a minute, far less than an object can hold.
const MOST_PREVIOUS: usize = 32;

/// The world as it was just read.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// The Secret; `None` if there is none.
    pub(super) stored: Option<Stored>,
    /// The webhook configuration; `None` if it or its webhook is not there.
    pub(super) configured: Option<Configured>,
}

/// What the Secret says about authorities.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Signs new certificates.
    pub(super) current: String,
    /// When it is of no use any more.
    pub(super) ends: Timestamp,
    /// Signed certificates that replicas may still show.
    pub(super) previous: Vec<String>,
    /// How long [`Self::previous`] is trusted; `None` once it is retired.
    pub(super) until: Option<Timestamp>,
}

/// What the webhook configuration says.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    /// The authorities that API servers trust.
    pub(super) bundle: Vec<String>,
    /// The names by which API servers call us.
    pub(super) names: Vec<String>,
}

/// The certificate that is shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) authority: String,
    pub(super) names: Vec<String>,
    pub(super) renew_at: Timestamp,
}

/// What to do; the world is read again after each but [`Step::Wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the Secret, or the one that is there anew, with a new authority.
    Generate { previous: Vec<String>, until: Timestamp },
    /// Have the Secret say that these authorities may be in use until then.
    Remember { previous: Vec<String>, until: Timestamp },
    /// Have the Secret say that its previous authorities are not in use.
    Retire,
    /// Have the configuration trust exactly these.
    Trust { bundle: Vec<String> },
    /// Sign and show a certificate of the current authority for these names.
    Show { names: Vec<String> },
    /// Nothing before this time, or before the world changes.
    Wait { until: Option<Timestamp> },
}

/// What one replica knows beyond the world: what it shows, and since when it
/// has seen that the current authority is trusted.
#[derive(Debug)]
pub(super) struct Rotation {
    trust_delay: Duration,
    shown: Option<Shown>,
    trusted: Option<(String, Timestamp)>,
    /// The bundle was seen without the retired authorities. One that comes back
    /// is in use after all, by a replica whose certificate is not of our Secret:
    /// to drop it at once would be a quarrel without an end.
    rid: bool,
}

impl Rotation {
    /// `trust_delay` is how long an API server may take to notice that the
    /// configuration has changed.
    pub(super) fn new(trust_delay: Duration) -> Self {
        Self { trust_delay, shown: None, trusted: None, rid: false }
    }

    /// The certificate that was signed at [`Step::Show`] is shown.
    pub(super) fn show(&mut self, shown: Shown) {
        self.shown = Some(shown);
    }

    /// The next step.
    pub(super) fn next(&mut self, world: &World, now: Timestamp) -> Step {
        // Without a configuration nobody calls us, and nobody could trust us.
        let Some(configured) = &world.configured else {
            self.trusted = None;
            return Step::Wait { until: None };
        };
        let until = now + self.trust_delay * RETIRE_AFTER;
        let shown = self.shown.as_ref().map(|shown| &shown.authority);
        let stored = world.stored.as_ref();
        let remembered: &[String] =
            stored.filter(|stored| stored.until.is_some()).map_or(&[], |stored| &stored.previous);
        let Some(stored) = stored.filter(|stored| now + RENEW_BEFORE < stored.ends) else {
            let replaced = stored.map(|stored| &stored.current);
            let in_use = shown.into_iter().chain(replaced).chain(remembered).chain(&configured.bundle);
            return Step::Generate { previous: first(in_use), until };
        };

        // Ours is of another authority if someone has replaced the Secret, or
        // if we slept through a rotation.
        let ours = shown.filter(|&authority| *authority != stored.current);
        self.rid = stored.until.is_none() && (self.rid || configured.bundle == [stored.current.clone()]);
        let is_known = |authority| !self.rid && stored.previous.contains(authority);
        let unknown = configured
            .bundle
            .iter()
            .filter(|&authority| *authority != stored.current && !is_known(authority));
        let previous = first(ours.into_iter().chain(remembered).chain(unknown));
        if previous.iter().any(|authority| !remembered.contains(authority)) {
            return Step::Remember { previous, until };
        }
        if ours.is_none() && shown.is_some() && stored.until.is_some_and(|until| until <= now) {
            return Step::Retire;
        }

        if !configured.bundle.contains(&stored.current) {
            self.trusted = None;
        }
        let bundle: Vec<_> = [&stored.current].into_iter().chain(remembered).cloned().collect();
        if configured.bundle != bundle {
            return Step::Trust { bundle };
        }
        let since = match &self.trusted {
            Some((authority, since)) if *authority == stored.current => *since,
            _ => {
                self.trusted = Some((stored.current.clone(), now));
                now
            }
        };

        let up_to_date = self.shown.as_ref().filter(|shown| {
            shown.authority == stored.current && shown.names == configured.names && now < shown.renew_at
        });
        let due = match up_to_date {
            Some(shown) => shown.renew_at,
            None if since + self.trust_delay <= now => return Step::Show { names: configured.names.clone() },
            None => since + self.trust_delay,
        };
        let retire = stored.until.filter(|until| *until > now).unwrap_or(due);
        Step::Wait { until: Some(due.min(retire)) }
    }
}

/// The first few, each once.
fn first<'a>(authorities: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    for authority in authorities {
        if result.len() < MOST_PREVIOUS && !result.contains(authority) {
            result.push(authority.clone());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const DELAY: Duration = Duration::from_secs(5);
    const LEAF: Duration = Duration::from_secs(16 * 3600);
    const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// A Secret and a configuration, the API servers that believe any bundle
    /// of the last `DELAY`, and two replicas.
    struct Model {
        now: Timestamp,
        world: World,
        /// Bundles, and when they were replaced.
        believed: Vec<(Vec<String>, Option<Timestamp>)>,
        authorities: u32,
        replicas: [Rotation; 2],
    }

    impl Model {
        fn new() -> Self {
            let configured = Configured { bundle: Vec::new(), names: vec!["webhook".to_owned()] };
            let mut model = Self {
                now: Timestamp::UNIX_EPOCH,
                world: World { stored: None, configured: Some(configured) },
                believed: Vec::new(),
                authorities: 0,
                replicas: [Rotation::new(DELAY), Rotation::new(DELAY)],
            };
            model.settle(0);
            model.pass(DELAY);
            model.settle(0);
            model.settle(1);
            model.pass(DELAY);
            model.settle(1);
            model
        }

        fn bundle(&mut self) -> &mut Vec<String> {
            &mut self.world.configured.as_mut().unwrap().bundle
        }

        fn new_authority(&mut self) -> String {
            self.authorities += 1;
            format!("authority {}", self.authorities)
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        /// Takes a replica's steps until it waits.
        fn settle(&mut self, replica: usize) {
            for _ in 0..16 {
                match self.replicas[replica].next(&self.world, self.now) {
                    Step::Wait { until } => {
                        assert!(until.unwrap() > self.now, "a replica that waits does not spin");
                        return;
                    }
                    Step::Generate { previous, until } => {
                        let current = self.new_authority();
                        let ends = self.now + LIFETIME;
                        self.world.stored = Some(Stored { current, ends, previous, until: Some(until) });
                    }
                    Step::Remember { previous, until } => {
                        let stored = self.world.stored.as_mut().unwrap();
                        (stored.previous, stored.until) = (previous, Some(until));
                    }
                    Step::Retire => self.world.stored.as_mut().unwrap().until = None,
                    Step::Trust { bundle } => {
                        let (old, now) = (self.bundle().clone(), self.now);
                        self.believed.push((old, Some(now)));
                        *self.bundle() = bundle;
                    }
                    Step::Show { names } => {
                        let authority = self.world.stored.as_ref().unwrap().current.clone();
                        self.replicas[replica].show(Shown { authority, names, renew_at: self.now + LEAF });
                    }
                }
            }
            panic!("a replica does not come to rest: {:?}", self.replicas[replica]);
        }

        /// Whether every API server accepts what the replica shows, if it is
        /// called at all (it is ready once it shows something).
        fn accepted(&self, replica: usize) -> bool {
            let now = self.world.configured.iter().map(|configured| &configured.bundle);
            let before = self.believed.iter().filter(|(_, until)| until.unwrap() + DELAY > self.now);
            let mut believed = now.chain(before.map(|(bundle, _)| bundle));
            self.replicas[replica]
                .shown
                .as_ref()
                .is_none_or(|shown| believed.all(|b| b.contains(&shown.authority)))
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// The Secret is deleted.
        Delete,
        /// Someone puts a Secret of their own in its place.
        Replace,
        /// The authority's last year has come.
        Age,
        /// A replica starts anew.
        Restart(usize),
        /// Less than `DELAY` passes.
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => Just(Event::Delete),
            1 => Just(Event::Replace),
            1 => Just(Event::Age),
            1 => (0..2_usize).prop_map(Event::Restart),
            9 => (1..DELAY.as_secs()).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn no_call_fails_whatever_happens_to_the_secret(events in vec((event(), 0..2_usize), 0..60)) {
            let mut model = Model::new();
            for (event, first) in events {
                match event {
                    Event::Delete => model.world.stored = None,
                    Event::Replace => {
                        let current = model.new_authority();
                        let ends = model.now + LIFETIME;
                        let stored = Stored { current, ends, previous: Vec::new(), until: None };
                        model.world.stored = Some(stored);
                    }
                    Event::Age => model.world.stored.as_mut().unwrap().ends = model.now + RENEW_BEFORE,
                    Event::Restart(replica) => model.replicas[replica] = Rotation::new(DELAY),
                    Event::Pass(seconds) => model.pass(Duration::from_secs(seconds)),
                }
                // Watches wake both, in any order.
                for replica in [first, 1 - first] {
                    model.settle(replica);
                    prop_assert!(model.accepted(0) && model.accepted(1), "{:?}", event);
                }
            }

            // Left alone, all agree on one authority.
            for _ in 0..=RETIRE_AFTER * 2 {
                model.pass(DELAY);
                model.settle(0);
                model.settle(1);
            }
            let current = model.world.stored.clone().unwrap().current;
            prop_assert_eq!(&*model.bundle(), std::slice::from_ref(&current));
            for replica in &model.replicas {
                prop_assert_eq!(&replica.shown.as_ref().unwrap().authority, &current);
            }
        }
    }

    #[test]
    fn a_bundle_that_someone_removes_comes_back_at_once() {
        let mut model = Model::new();
        let bundle = model.bundle().clone();
        model.bundle().clear();
        model.settle(1);
        assert_eq!(*model.bundle(), bundle);
    }

    #[test]
    fn a_certificate_is_renewed_in_time_and_follows_the_names() {
        let mut model = Model::new();
        let renew_at = |model: &Model| model.replicas[0].shown.as_ref().unwrap().renew_at;
        let first = renew_at(&model);
        model.pass(LEAF);
        model.settle(0);
        assert!(renew_at(&model) > first);
        model.world.configured.as_mut().unwrap().names = vec!["elsewhere".to_owned()];
        model.settle(0);
        assert_eq!(model.replicas[0].shown.as_ref().unwrap().names, ["elsewhere"]);
    }

    #[test]
    fn an_authority_is_replaced_a_year_before_it_ends() {
        let mut model = Model::new();
        let authority = |model: &Model| model.world.stored.as_ref().unwrap().current.clone();
        let old = authority(&model);
        model.pass(LIFETIME - RENEW_BEFORE - DELAY * 4);
        model.settle(0);
        assert_eq!(authority(&model), old);
        model.pass(DELAY * 4);
        model.settle(0);
        model.settle(1);
        let new = authority(&model);
        assert_eq!(*model.bundle(), [new.clone(), old.clone()]);
        model.pass(DELAY);
        for replica in [0, 1] {
            model.settle(replica);
            assert_eq!(model.replicas[replica].shown.as_ref().unwrap().authority, new);
        }
        model.pass(DELAY * RETIRE_AFTER);
        model.settle(0);
        assert_eq!(*model.bundle(), [new]);
    }

    /// As a replica does that has its certificate from elsewhere, in a roll-out that changes the origin.
    #[test]
    fn an_authority_that_comes_back_is_kept_for_a_while_and_not_dropped_at_once() {
        let mut model = Model::new();
        for _ in 0..3 {
            model.bundle().push("elsewhere".to_owned());
            model.settle(0);
            assert!(model.bundle().contains(&"elsewhere".to_owned()));
            model.pass(DELAY * RETIRE_AFTER);
            model.settle(0);
            assert_eq!(model.bundle().len(), 1);
        }
    }

    #[test]
    fn without_a_configuration_there_is_nothing_to_do() {
        let mut rotation = Rotation::new(DELAY);
        assert_eq!(rotation.next(&World::default(), Timestamp::UNIX_EPOCH), Step::Wait { until: None });
    }
}
