//! What is heard of pictures and permissions while other things pass through. News only ever make upstream be asked;
//! permission is learned from nothing but upstream's own words to the very caller.

use super::Avatars;
use crate::cache::grants::Asked;
use crate::caller::Caller;
use crate::identity::{ObjectId, PictureId, PictureKind, Site};
use std::time::Instant;

impl Avatars {
    /// Whether anything may be served without asking upstream.
    #[must_use]
    pub const fn remembers(&self) -> bool {
        self.grants.is_some()
    }

    /// To be taken before a request is sent upstream whose answer may teach something; `None` when nothing is
    /// remembered.
    #[must_use]
    pub fn asking(&self, caller: &Caller, now: Instant) -> Option<Asked> {
        self.grants.as_ref().map(|grants| grants.asking(caller, now))
    }

    /// Upstream answered `caller` with the full record of a user: the caller may see that user's picture, and its
    /// version is `stamp`.
    pub async fn learn(&self, site: Site, caller: &Caller, asked: &Asked, user: ObjectId, stamp: i64) {
        let picture = PictureId { site, kind: PictureKind::User, object: user };
        // First the version, so that no grant shows an older one. What was on its way while the picture was changed tells
        // of the old one.
        if !self.sources.changed_since(picture, asked.at()) {
            self.hear(picture, stamp).await;
        }
        if let Some(grants) = &self.grants {
            grants.learn(caller, picture, asked);
        }
    }

    /// Somebody says that `picture` is of the version `stamp`.
    pub async fn hear(&self, picture: PictureId, stamp: i64) {
        let key = self.sources.key(picture);
        // First what is under way, then what is kept: a fetch keeps what it brought before it is over.
        if let Some(hearsay) = self.flights.hearsay(key) {
            hearsay.hear(stamp);
        }
        if let Some(record) = self.sources.record(&key).await {
            record.version.hearsay().hear(stamp);
        }
    }

    /// Upstream answered a request of `caller` with 401, whatever it was for.
    pub fn disown(&self, caller: &Caller) {
        if let Some(grants) = &self.grants {
            grants.end_caller(caller);
        }
    }

    /// `caller` ended its own session.
    pub fn end_session(&self, caller: &Caller) {
        if let Some(grants) = &self.grants {
            grants.end_tokens(caller);
        }
    }

    /// A session or a right may have ended, whoever's it was.
    pub fn end_grants(&self) {
        if let Some(grants) = &self.grants {
            grants.end_all();
        }
    }
}
