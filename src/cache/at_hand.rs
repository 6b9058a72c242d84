//! The records that are asked for all the time, a step before the map that holds them all: half of what a hit costs is
//! looking things up.
//!
//! One place for each picture, so what is put down here for a newer record is what everybody finds. Nothing is found
//! here that the map does not hold: a record that it lets go of for want of room would hear of no change any more.

use super::sources::{Record, RecordKey};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many records there are places for. A record is about a kilobyte.
const PLACES: usize = 2048;
/// Every so many uses the map is asked nevertheless: it has to know what is popular.
const COUNTED: u8 = 64;

/// See the file.
pub(super) struct AtHand {
    places: Box<[Mutex<Option<Held>>]>,
}

struct Held {
    key: RecordKey,
    record: Arc<Record>,
    uses: u8,
}

impl AtHand {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::new(None)).collect() }
    }

    /// The record, if it is here and the map need not be asked.
    pub(super) fn find(&self, key: &RecordKey) -> Option<Arc<Record>> {
        let mut place = self.place(key);
        let held = place.as_mut().filter(|held| held.key == *key && !held.record.is_gone())?;
        held.uses = (held.uses + 1) % COUNTED;
        (held.uses > 0).then(|| held.record.clone())
    }

    /// Puts down what the map was found to hold, or holds from now on. Between the map and here somebody may have kept a
    /// newer one: that stays, whoever comes first.
    pub(super) fn put(&self, key: RecordKey, record: &Arc<Record>) {
        let mut place = self.place(&key);
        let held = place.as_ref().filter(|held| held.key == key && !held.record.is_gone());
        if !record.is_gone() && !held.is_some_and(|held| held.record.is_newer_than(record)) {
            *place = Some(Held { key, record: record.clone(), uses: 0 });
        }
    }

    /// The map holds no such record.
    pub(super) fn gone(&self, key: &RecordKey) {
        let mut place = self.place(key);
        if place.as_ref().is_some_and(|held| held.key == *key) {
            *place = None;
        }
    }

    fn place(&self, key: &RecordKey) -> MutexGuard<'_, Option<Held>> {
        self.places[key.place() % PLACES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
