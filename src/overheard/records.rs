//! User records directly in an answer, read for the few members that count; everything else is skipped unread.

use super::objects::{Fault, Keys, fail, parse};
use super::{Unreadable, UserSeen};
use crate::identity::ObjectId;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Far more than a page of upstream's holds; a bound for what one answer can make us remember.
const MOST_USERS: usize = 10_000;

/// The user of an answer that is one full record.
pub(super) fn one_record(json: &[u8]) -> Result<UserSeen, Unreadable> {
    let fault = Fault::default();
    let record = parse(json, &fault, RecordSeed(&mut Keys::new(&fault)))?;
    record.full_user().ok_or(Unreadable::NotARecord)
}

/// The users of an answer that is an array of full records. `null` is how Go writes an array that was never made.
pub(super) fn list(json: &[u8]) -> Result<Vec<UserSeen>, Unreadable> {
    let (fault, mut users) = (Fault::default(), Vec::new());
    parse(json, &fault, Users { keys: &mut Keys::new(&fault), users: &mut users })?;
    Ok(users)
}

/// The users of `model.UserAutocomplete`: its arrays `users` and `out_of_channel`, and nothing else that may be in it.
pub(super) fn autocomplete(json: &[u8]) -> Result<Vec<UserSeen>, Unreadable> {
    let (fault, mut users) = (Fault::default(), Vec::new());
    parse(json, &fault, Autocomplete { fault: &fault, users: &mut users })?;
    Ok(users)
}

/// An object with an id: a user, or what else an event tells of.
pub(super) struct Record {
    /// `id`
    pub(super) id: ObjectId,
    /// `last_picture_update`; Go leaves out a 0.
    pub(super) stamp: i64,
    full: bool,
}

impl Record {
    fn full_user(self) -> Option<UserSeen> {
        self.full.then_some(UserSeen { user: self.id, stamp: self.stamp })
    }
}

/// Reads a [`Record`]; the keys of an earlier object are forgotten first.
pub(super) struct RecordSeed<'k, 'f>(pub(super) &'k mut Keys<'f>);

impl<'de> DeserializeSeed<'de> for RecordSeed<'_, '_> {
    type Value = Record;

    fn deserialize<D: Deserializer<'de>>(self, record: D) -> Result<Record, D::Error> {
        record.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RecordSeed<'_, '_> {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        self.0.start_anew();
        let (mut id, mut stamp, mut marks) = (None, 0, 0);
        while let Some(member) = self.0.next(&mut map, Member::named)? {
            match member {
                Member::Id => id = Some(map.next_value_seed(Id)?),
                Member::Stamp => stamp = map.next_value()?,
                Member::TextOfFull => {
                    map.next_value_seed(Text)?;
                    marks += 1;
                }
                Member::NumberOfFull => {
                    map.next_value::<i64>()?;
                    marks += 1;
                }
                Member::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let id = id.ok_or_else(|| Error::missing_field("id"))?;
        Ok(Record { id, stamp, full: marks == MARKS_OF_FULL })
    }
}

/// How many members tell a full record from a status, a membership, or whatever else has an id. Every recorded record
/// has these four, a bot's and a deactivated user's too, and no other object in an answer of upstream's has them all.
const MARKS_OF_FULL: u32 = 4;

#[derive(Clone, Copy)]
enum Member {
    Id,
    Stamp,
    TextOfFull,
    NumberOfFull,
    Other,
}

impl Member {
    fn named(key: &str) -> Self {
        match key {
            "id" => Self::Id,
            "last_picture_update" => Self::Stamp,
            "username" | "roles" => Self::TextOfFull,
            "update_at" | "delete_at" => Self::NumberOfFull,
            _ => Self::Other,
        }
    }
}

struct Id;

impl<'de> DeserializeSeed<'de> for Id {
    type Value = ObjectId;

    fn deserialize<D: Deserializer<'de>>(self, id: D) -> Result<ObjectId, D::Error> {
        id.deserialize_str(self)
    }
}

impl Visitor<'_> for Id {
    type Value = ObjectId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<ObjectId, E> {
        ObjectId::parse(id.as_bytes()).ok_or_else(|| E::custom("an id that is none"))
    }
}

/// Any string, not kept.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        text.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// An array of full records, appended to `users`.
struct Users<'k, 'f> {
    keys: &'k mut Keys<'f>,
    users: &'k mut Vec<UserSeen>,
}

impl<'de> DeserializeSeed<'de> for Users<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Users<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of users, or null")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(record) = list.next_element_seed(RecordSeed(self.keys))? {
            if self.users.len() == MOST_USERS {
                return Err(fail(self.keys.fault(), Unreadable::TooManyUsers));
            }
            self.users.push(record.full_user().ok_or_else(|| A::Error::custom("not a full record"))?);
        }
        Ok(())
    }
}

struct Autocomplete<'u, 'f> {
    fault: &'f Fault,
    users: &'u mut Vec<UserSeen>,
}

impl<'de> DeserializeSeed<'de> for Autocomplete<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, answer: D) -> Result<(), D::Error> {
        answer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Autocomplete<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with users")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut of_root, mut of_records) = (Keys::new(self.fault), Keys::new(self.fault));
        let learned_from = |key: &str| matches!(key, "users" | "out_of_channel");
        while let Some(is_list) = of_root.next(&mut map, learned_from)? {
            if is_list {
                map.next_value_seed(Users { keys: &mut of_records, users: self.users })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
