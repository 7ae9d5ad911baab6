//! What happened on the host and is over.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use kestrel_proto::node::v1::HostEvent;

use super::condition::cut;

/// What happened so long ago is not told again to an aggregator that comes.
pub(super) const KEPT: Duration = Duration::from_mins(10);
/// More than these are not kept, and of a sentence not more bytes: a report of all of them must not be
/// larger than the aggregator takes.
const MOST: usize = 32;
const MOST_BYTES: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A word for what it is.
    pub kind: &'static str,
    /// Its own among those of the kind on this node, also after a restart of the agent.
    pub id: String,
    /// When.
    pub time: SystemTime,
    /// A sentence with the evidence.
    pub message: String,
    /// The UID of the pod that it happened to; none: the node.
    pub pod: Option<String>,
}

/// What happened in the last minutes, told to each aggregator that is attached to.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<Event>,
    /// How many of them the present aggregator was told, the oldest first.
    told: usize,
    dropped: u64,
}

impl Events {
    /// More happened.
    pub fn add(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.kept.len() == MOST {
                self.kept.pop_front();
                self.dropped += u64::from(self.told == 0);
                self.told = self.told.saturating_sub(1);
            }
            self.kept.push_back(Event { message: cut(event.message, MOST_BYTES), ..event });
        }
    }

    /// Another aggregator may know nothing of them.
    pub fn connected(&mut self) {
        self.told = 0;
    }

    /// Those that are to be told.
    pub fn due(&mut self, now: SystemTime) -> Vec<HostEvent> {
        let is_old = |event: &Event| now.duration_since(event.time).is_ok_and(|age| age > KEPT);
        while self.kept.front().is_some_and(is_old) {
            // What nobody could be told in all that time is told late rather than never.
            if self.told == 0 {
                break;
            }
            self.kept.pop_front();
            self.told -= 1;
        }
        self.kept.iter().skip(self.told).map(Event::to_wire).collect()
    }

    /// Whether there are any to tell.
    pub fn are_due(&self) -> bool {
        self.told < self.kept.len()
    }

    /// All of them are under way.
    pub fn sent(&mut self) {
        self.told = self.kept.len();
    }

    /// How many went untold, for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Event {
    fn to_wire(&self) -> HostEvent {
        HostEvent {
            kind: self.kind.to_owned(),
            id: self.id.clone(),
            time: Some(self.time.into()),
            message: self.message.clone(),
            pod_uid: self.pod.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize, time: SystemTime) -> Event {
        Event { kind: "OOMKilled", id: number.to_string(), time, message: String::new(), pod: None }
    }

    fn ids(events: &mut Events, now: SystemTime) -> Vec<String> {
        events.due(now).into_iter().map(|event| event.id).collect()
    }

    #[test]
    fn each_aggregator_is_told_of_the_last_minutes_once() {
        let (mut events, start) = (Events::default(), SystemTime::now());
        events.add([event(1, start)]);
        assert_eq!(ids(&mut events, start + 2 * KEPT), ["1"], "late rather than never");
        events.sent();
        assert!(!events.are_due());
        events.add([event(2, start + KEPT)]);
        assert_eq!(ids(&mut events, start + KEPT), ["2"]);
        events.connected();
        assert_eq!(ids(&mut events, start + KEPT), ["1", "2"]);
        events.sent();
        events.due(start + KEPT + Duration::from_secs(1));
        events.connected();
        assert_eq!(ids(&mut events, start + KEPT), ["2"]);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let (mut events, now) = (Events::default(), SystemTime::now());
        events.add((0..MOST).map(|number| event(number, now)));
        events.sent();
        events.add([event(MOST, now)]);
        assert_eq!((ids(&mut events, now), events.dropped()), (vec![MOST.to_string()], 0));
        events.connected();
        events.add([event(0, now), event(1, now)]);
        assert_eq!((events.due(now).len(), events.dropped()), (MOST, 2));
    }
}
