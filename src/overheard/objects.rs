//! JSON texts and objects, read strictly and without a tree.
//!
//! A text is one value and nothing after it. A key is compared after its escapes are undone, and one that comes twice
//! voids the text in every object that is looked at, whichever key it is: upstream's encoder never says a thing twice.
//! What is skipped costs no memory but a byte for each level it nests, and whatever repeats in there changes nothing.

use super::Unreadable;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A user's full record has about thirty members.
pub(super) const MOST_MEMBERS: usize = 128;

/// What a visitor found wrong, which the parser's own error cannot carry.
pub(super) type Fault = Cell<Option<Unreadable>>;

/// Reads one JSON text and nothing after it.
pub(super) fn parse<'de, S>(json: &'de [u8], fault: &Fault, seed: S) -> Result<S::Value, Unreadable>
where
    S: DeserializeSeed<'de>,
{
    let mut json = serde_json::Deserializer::from_slice(json);
    let parsed = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| {
        let unnamed = if error.is_data() { Unreadable::NotARecord } else { Unreadable::NotJson };
        fault.take().unwrap_or(unnamed)
    })
}

/// The error that carries `why` out of the parser.
pub(super) fn fail<E: Error>(fault: &Fault, why: Unreadable) -> E {
    fault.set(Some(why));
    E::custom(why)
}

/// The keys of an object so far, by hash. Two keys of one hash count as one key: that can only void an answer.
pub(super) struct Keys<'f> {
    fault: &'f Fault,
    seen: Vec<u64>,
}

impl<'f> Keys<'f> {
    pub(super) const fn new(fault: &'f Fault) -> Self {
        Self { fault, seen: Vec::new() }
    }

    pub(super) const fn fault(&self) -> &'f Fault {
        self.fault
    }

    /// Forgets them: another object begins.
    pub(super) fn start_anew(&mut self) {
        self.seen.clear();
    }

    /// The next member of the object, as `member` knows it by its key.
    pub(super) fn next<'de, A: MapAccess<'de>, T>(
        &mut self,
        map: &mut A,
        member: impl FnOnce(&str) -> T,
    ) -> Result<Option<T>, A::Error> {
        map.next_key_seed(Key { keys: self, member })
    }

    fn note<E: Error>(&mut self, key: &str) -> Result<(), E> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.contains(&hash) {
            return Err(fail(self.fault, Unreadable::DuplicateKey));
        }
        if self.seen.len() == MOST_MEMBERS {
            return Err(fail(self.fault, Unreadable::TooManyMembers));
        }
        self.seen.push(hash);
        Ok(())
    }
}

struct Key<'k, 'f, M> {
    keys: &'k mut Keys<'f>,
    member: M,
}

impl<'de, T, M: FnOnce(&str) -> T> DeserializeSeed<'de> for Key<'_, '_, M> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<T, D::Error> {
        key.deserialize_str(self)
    }
}

impl<T, M: FnOnce(&str) -> T> Visitor<'_> for Key<'_, '_, M> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<T, E> {
        self.keys.note(key)?;
        Ok((self.member)(key))
    }
}
