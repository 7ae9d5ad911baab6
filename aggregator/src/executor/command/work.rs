//! What a command may do with what it read: so much, and only as long as somebody waits for it.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Steps of one command: values that its templates look at, and fields of a schema. Ranges within ranges multiply.
const STEPS: usize = 10_000_000;
/// Bytes that are compared or written in the time of a step.
const BYTES: usize = 64;
const TOO_MUCH: &str = "it looks at too many values: ask for fewer objects or fields";

/// Tells what runs apart that nobody waits for it any more. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    is_set: Arc<AtomicBool>,
    #[cfg(test)]
    looks: Option<Arc<std::sync::atomic::AtomicUsize>>,
}

impl Stop {
    /// From now on.
    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        #[cfg(test)]
        if let Some(looks) = &self.looks
            && looks.fetch_sub(1, Ordering::Relaxed) <= 1
        {
            looks.store(1, Ordering::Relaxed);
            self.set();
        }
        self.is_set.load(Ordering::Relaxed)
    }

    /// One that is found set at the look of this number, and from then on.
    #[cfg(test)]
    pub(crate) fn at_look(number: usize) -> Self {
        Self { looks: Some(Arc::new(number.into())), ..Self::default() }
    }
}

/// Sets it at its end: whoever stops waiting drops it.
pub(crate) struct Waits(pub Stop);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What one command may still do.
pub(crate) struct Work {
    /// Nothing once it was too much.
    left: Cell<Option<usize>>,
    pub stop: Stop,
}

impl Work {
    pub(crate) fn until(stop: Stop) -> Self {
        Self { left: Cell::new(Some(STEPS)), stop }
    }

    /// Takes so many steps.
    ///
    /// # Errors
    /// There are not so many left, or nobody waits any more. From then on there are none.
    pub(crate) fn take(&self, steps: usize) -> Result<(), String> {
        let left = if self.stop.is_set() { None } else { self.left.get() };
        self.left.set(left.and_then(|left| left.checked_sub(steps)));
        self.left.get().map(drop).ok_or_else(|| TOO_MUCH.to_owned())
    }

    /// The same for what looks at so many bytes.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Result<(), String> {
        self.take(bytes / BYTES)
    }

    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        STEPS - self.left.get().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_once_stays_so() {
        let work = Work::until(Stop::default());
        assert!(work.take(STEPS).is_ok() && work.take(0).is_ok() && work.take(1).is_err());
        assert!(work.take(0).is_err(), "also where somebody passes over an error");
        let work = Work::until(Stop::at_look(3));
        let taken: Vec<bool> = (0..4).map(|_| work.take(1).is_ok()).collect();
        assert_eq!(taken, [true, true, false, false]);
    }
}
