//! What passes through the proxy anyway and tells of pictures and permissions: answers with user records, requests that
//! end a right, events on a WebSocket. Sync and pure: bytes in, facts out; what a fact changes is decided elsewhere.
//!
//! Three rules hold the room together. Only a [`Lesson`] can lead to a grant, and only for users that stand directly in
//! the answer; an event never does, because a real server sends events about users whose picture it refuses
//! (`recordings`: `ev-upload`). What cannot be read teaches nothing. What cannot be read but may have been a change is
//! [`News::Unclear`], so that it makes us forget too much and never too little.

mod boundary;
mod budget;
mod endings;
mod events;
mod frames;
mod inflate;
mod lessons;
mod listener;
mod objects;
mod path;
mod records;

pub use boundary::Boundary;
pub use budget::{ListenBudget, Reservation};
pub use endings::Ending;
pub use inflate::inflate;
pub use lessons::Lesson;
pub use listener::{Listener, News, is_event_socket};
pub use path::as_routed;

use crate::identity::ObjectId;
use thiserror::Error;

/// A user as a record of upstream's told of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserSeen {
    /// Who.
    pub user: ObjectId,
    /// `last_picture_update` in milliseconds since 1970; 0 where absent, negative for a default picture. As upstream
    /// wrote it, so any number at all: `i64::MIN` has no absolute value.
    pub stamp: i64,
}

/// Why nothing may be learned from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Unreadable {
    /// It decodes to more bytes than allowed.
    #[error("it decodes to more bytes than allowed")]
    TooLong,
    /// The gzip stream ends before its end.
    #[error("the gzip stream ends before its end")]
    Truncated,
    /// It is not one gzip member and nothing else, or its checksum is wrong.
    #[error("it is not one whole gzip member")]
    NotGzip,
    /// It is not one JSON text and nothing else.
    #[error("it is not one JSON text")]
    NotJson,
    /// A key comes twice in an object that is looked at: which of the two counts is anybody's guess.
    #[error("a key comes twice in one object")]
    DuplicateKey,
    /// An object that is looked at has more members than any record of upstream's.
    #[error("an object has too many members")]
    TooManyMembers,
    /// More users than any page of upstream's.
    #[error("too many users in one answer")]
    TooManyUsers,
    /// Something stands in the place of a user's full record that is none, or none of the user asked for.
    #[error("it holds something else than full user records")]
    NotARecord,
}

impl Unreadable {
    /// Every value, for tables.
    pub const ALL: [Self; 8] = [
        Self::TooLong,
        Self::Truncated,
        Self::NotGzip,
        Self::NotJson,
        Self::DuplicateKey,
        Self::TooManyMembers,
        Self::TooManyUsers,
        Self::NotARecord,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Truncated => "truncated",
            Self::NotGzip => "not_gzip",
            Self::NotJson => "not_json",
            Self::DuplicateKey => "duplicate_key",
            Self::TooManyMembers => "too_many_members",
            Self::TooManyUsers => "too_many_users",
            Self::NotARecord => "not_a_record",
        }
    }
}

#[cfg(test)]
mod recordings;
