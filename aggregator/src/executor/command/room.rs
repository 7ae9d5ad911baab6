//! How much a command holds: what it reads, of all that commands hold together.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use crate::executor::cluster::READ_BYTES;

/// Of objects that all commands of the process hold at one time, in KiB. Pods take twelve times the bytes of their
/// JSON, so that is room for two commands that read the most, and half a third; the worst of nesting takes ninety times.
const TREES: usize = 256 * 1024;
static ALL: Semaphore = Semaphore::const_new(TREES);
/// What stands in the memory for an entry of an array, for entries of an object by sevens, and for a text beside its bytes.
const ENTRY: usize = size_of::<Value>();
const FIELDS: usize = 640;
const TEXT: usize = 32;

/// What one command holds, as long as the command lives, or what runs apart for it.
pub(crate) struct Room {
    /// Bytes of objects, as they are shown, that it may still hold, of whatever number of kinds and names.
    bytes: AtomicUsize,
    all: &'static Semaphore,
    held: Mutex<Option<SemaphorePermit<'static>>>,
    /// What runs apart.
    pub threads: TaskTracker,
}

impl Room {
    /// For one command.
    pub(crate) fn new() -> Self {
        Self::of(&ALL)
    }

    fn of(all: &'static Semaphore) -> Self {
        Self { bytes: AtomicUsize::new(READ_BYTES), all, held: Mutex::default(), threads: TaskTracker::new() }
    }

    /// Whether it may hold an object of so many bytes, which are taken.
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    /// Whether there is room for an object beside those that all commands hold. Nobody waits for it: who holds some and
    /// waits for more would wait for who does the same.
    pub(crate) fn holds(&self, object: &Value) -> bool {
        let weight = u32::try_from(weight(object) / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(more) = self.all.try_acquire_many(weight) else { return false };
        // It is whole after every one of its operations.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        true
    }
}

/// Bytes of a value's JSON.
pub(crate) fn written(value: &Value) -> usize {
    value.to_string().len()
}

/// Bytes of memory that a value takes beside itself.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + TEXT,
        Value::Array(items) => items.capacity() * ENTRY + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            let inner = fields.iter().map(|(name, value)| name.len() + TEXT + weight(value));
            fields.len().div_ceil(7) * FIELDS + inner.sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_weighed_as_they_stand_in_the_memory() {
        // 1 MiB of JSON.
        let small: Value = serde_json::from_str(&format!("[{}0]", "{\"\":1},".repeat(131_072))).unwrap();
        let large = json!({"a": "x".repeat(1 << 20)});
        assert!(weight(&small) > 80 << 20 && weight(&large) < (1 << 20) + 1024, "{}", weight(&small));
    }

    #[test]
    fn commands_share_one_room_and_give_back_what_they_took() {
        let all: &'static Semaphore = Box::leak(Box::new(Semaphore::new(2048)));
        let object = json!({"a": "x".repeat(700 << 10)});
        let (one, other) = (Room::of(all), Room::of(all));
        assert!(one.holds(&object) && one.holds(&object));
        assert!(!other.holds(&object) && other.holds(&json!({})));
        drop(one);
        assert!(other.holds(&object) && other.holds(&object) && !other.holds(&object));
        drop(other);
        assert_eq!(all.available_permits(), 2048);
    }

    #[test]
    fn a_command_reads_so_much_and_no_more() {
        let room = Room::new();
        assert!(room.takes(READ_BYTES - 1) && !room.takes(2) && room.takes(1) && !room.takes(1));
    }
}
