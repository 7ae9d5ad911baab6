//! How long something may last before it is an incident.

use std::{fmt, str::FromStr, time::Duration};

use kestrel_runtime::config::duration;

/// Times after which what is usual for a moment becomes an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A started container is not ready (2 min).
    pub unready: Duration,
    /// A pod has no node (2 min): longer than an autoscaler needs for a new one, as a
    /// rule.
    pub unschedulable: Duration,
    /// A pod on a node has no running container (2 min).
    pub creating: Duration,
    /// A deleted pod is still there after its grace period (1 min).
    pub terminating: Duration,
    /// A roll-out makes no progress, if it names no deadline of its own (10 min).
    pub rollout: Duration,
    /// A container that crashed runs without another crash (10 min, after which
    /// also the kubelet forgets its back-off): the incident is over.
    pub stable: Duration,
    /// A node that says it is ready has not said so again (15 min): its kubelet
    /// does every five minutes.
    pub heartbeat: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            unready: Duration::from_mins(2),
            unschedulable: Duration::from_mins(2),
            creating: Duration::from_mins(2),
            terminating: Duration::from_mins(1),
            rollout: Duration::from_mins(10),
            stable: Duration::from_mins(10),
            heartbeat: Duration::from_mins(15),
        }
    }
}

impl Thresholds {
    fn named(&mut self, name: &str) -> Option<&mut Duration> {
        Some(match name {
            "unready" => &mut self.unready,
            "unschedulable" => &mut self.unschedulable,
            "creating" => &mut self.creating,
            "terminating" => &mut self.terminating,
            "rollout" => &mut self.rollout,
            "stable" => &mut self.stable,
            "heartbeat" => &mut self.heartbeat,
            _ => return None,
        })
    }
}

/// Why a text is no thresholds.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no threshold: it is a name (unready, unschedulable, creating, terminating, rollout, \
             stable, heartbeat), = and a time such as 90s or 2m",
            self.0
        )
    }
}

impl std::error::Error for Unreadable {}

/// Such as `unready=90s,stable=5m`; the defaults for what is not named.
impl FromStr for Thresholds {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut thresholds = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let unreadable = || Unreadable(part.to_owned());
            let (name, time) = part.split_once('=').ok_or_else(unreadable)?;
            let threshold = thresholds.named(name.trim()).ok_or_else(unreadable)?;
            *threshold = duration(time.trim()).ok_or_else(unreadable)?;
        }
        Ok(thresholds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let read = |text: &str| text.parse::<Thresholds>();
        assert_eq!(read(""), Ok(Thresholds::default()));
        let thresholds = read("unready=90s, stable=5m,rollout=1h").unwrap();
        assert_eq!(
            thresholds,
            Thresholds {
                unready: Duration::from_secs(90),
                stable: Duration::from_mins(5),
                rollout: Duration::from_hours(1),
                ..Thresholds::default()
            }
        );
        for mistake in ["unready", "other=1s", "unready=1", "unready=-1s", "unready=s", "unready=1ä", "=1s"]
        {
            assert_eq!(read(mistake), Err(Unreadable(mistake.to_owned())));
        }
    }
}
