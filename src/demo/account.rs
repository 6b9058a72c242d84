//! One account, one team: what is kept of them, and the picture that is in the store or drawn.

use bytes::Bytes;

use super::options::{Portrait, Resident, Role, Team};
use super::{illustrations, letters};

/// A stored picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoredFile {
    pub(super) bytes: Bytes,
    pub(super) content_type: String,
}

impl StoredFile {
    pub(super) fn png(bytes: Bytes) -> Self {
        Self { bytes, content_type: "image/png".to_owned() }
    }
}

/// A picture as one answer shows it.
pub(super) struct Shown {
    pub(super) file: StoredFile,
    /// Seconds of `max-age`.
    pub(super) fresh: u32,
    /// Absent where the server has none: a missing file, a default drawn for this answer, an emoji.
    pub(super) stamp: Option<i64>,
}

/// An account with what changes about it.
pub(super) struct Account {
    pub(super) resident: Resident,
    /// Mattermost's `roles` field: names with blanks between them.
    pub(super) roles: String,
    /// Keeps the first username: a rename does not touch it.
    pub(super) email: String,
    pub(super) nickname: String,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    pub(super) delete_at: i64,
    pub(super) failed_attempts: i64,
    /// `LastPictureUpdate`.
    pub(super) stamp: i64,
    /// What records and events say of it instead, where a test wants them to disagree with the `ETag`.
    pub(super) told_stamp: Option<i64>,
    pub(super) portrait: Stored,
}

/// What is in the file store for an account.
pub(super) enum Stored {
    Nothing,
    /// Drawn when it is first asked for.
    Later(Portrait),
    File(StoredFile),
}

impl Account {
    pub(super) fn is_bot(&self) -> bool {
        self.resident.role == Role::Bot
    }

    /// Another picture from now on; what a test made records say is over.
    pub(super) fn change_picture(&mut self, portrait: Stored, stamp: i64, now: i64) {
        self.portrait = portrait;
        self.stamp = stamp;
        self.told_stamp = None;
        self.update_at = now;
    }

    /// The picture of an account that has none of its own.
    pub(super) fn default_picture(&self) -> StoredFile {
        StoredFile::png(if self.is_bot() {
            illustrations::bot_picture()
        } else {
            letters::draw(&self.resident.id, &self.resident.username)
        })
    }

    /// The stored picture, drawn now if it has not been; `None` when there is no file.
    pub(super) fn stored(&mut self) -> Option<StoredFile> {
        let file = match &self.portrait {
            Stored::Nothing | Stored::Later(Portrait::Undrawn) => return None,
            Stored::File(file) => return Some(file.clone()),
            Stored::Later(Portrait::Default) => self.default_picture(),
            Stored::Later(Portrait::Illustration(style, seed)) => {
                StoredFile::png(illustrations::portrait(*style, *seed))
            }
            Stored::Later(Portrait::Png(bytes)) => StoredFile::png(bytes.clone()),
        };
        self.portrait = Stored::File(file.clone());
        Some(file)
    }
}

/// A team with what changes about it.
pub(super) struct TeamState {
    pub(super) team: Team,
    pub(super) create_at: i64,
    pub(super) update_at: i64,
    /// `LastTeamIconUpdate`; 0 after a removal, though the file stays.
    pub(super) stamp: i64,
    pub(super) icon: Option<Bytes>,
}

/// What a `PUT …/patch` may change here.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(super) struct Patch {
    pub(super) username: Option<String>,
    pub(super) nickname: Option<String>,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    pub(super) position: Option<String>,
}

/// What became of a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Right,
    Wrong,
}
