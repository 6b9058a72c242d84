//! What is heard of pictures and permissions while other things pass through. News only ever make upstream be asked;
//! permission is learned from nothing but upstream's own words to the very caller.

use super::Avatars;
use crate::cache::grants::Asked;
use crate::caller::Caller;
use crate::identity::{ObjectId, PictureId, PictureKind, Site};
use http::StatusCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two times that events end everything.
const PAUSE: Duration = Duration::from_secs(1);

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

    /// What upstream's refusal of any request takes from its caller: a 401 everything, a 403 or 404 the picture that was
    /// asked for.
    pub fn heed(&self, caller: Option<&Caller>, picture: Option<PictureId>, status: StatusCode) {
        let (Some(grants), Some(caller)) = (&self.grants, caller) else { return };
        match (status, picture) {
            (StatusCode::UNAUTHORIZED, _) => grants.end_caller(caller),
            (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, Some(picture)) => grants.refuse(caller, picture),
            _ => {}
        }
    }

    /// The sessions of the tokens at these places were, or may have been, ended.
    pub fn end_tokens(&self, places: &[u32]) {
        if let Some(grants) = &self.grants {
            grants.end_tokens(places);
        }
    }

    /// A session or a right may have ended, whoever's it was.
    pub fn end_grants(&self) {
        if let Some(grants) = &self.grants {
            grants.end_all();
        }
    }

    /// [`Avatars::end_grants`] for what each of thousands of sockets tells anew: at once, and then once more for all that
    /// is heard within a second.
    pub fn end_grants_once(&self) {
        if self.grants_end.may_act(Instant::now()) {
            self.end_grants();
        }
    }

    /// [`Avatars::forget_all`] in the same way.
    pub fn forget_all_once(&self) {
        if self.pictures_end.may_act(Instant::now()) {
            self.forget_all();
        }
    }

    /// Does what was put off.
    pub(super) fn catch_up(&self) {
        if self.grants_end.is_due() {
            self.end_grants();
        }
        if self.pictures_end.is_due() {
            self.forget_all();
        }
    }

    /// Whether upstream has answered `caller` lately as somebody it knows.
    #[must_use]
    pub fn knows(&self, caller: &Caller, now: Instant) -> bool {
        self.grants.as_ref().is_some_and(|grants| grants.knows(caller, now))
    }

    /// Whether upstream gave no answer when it was last asked.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage.load(Ordering::Relaxed)
    }
}

/// Lets something happen at once, and puts off what follows within a second.
#[derive(Default)]
pub(super) struct Throttle {
    last: Mutex<Option<Instant>>,
    put_off: AtomicBool,
}

impl Throttle {
    /// Whether it may be done now; if not, it will be due.
    fn may_act(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        if soon {
            self.put_off.store(true, Ordering::Release);
        } else {
            *last = Some(now);
        }
        !soon
    }

    fn is_due(&self) -> bool {
        self.put_off.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_a_thousand_times_is_done_twice() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let done = (0..1000).filter(|n| throttle.may_act(start + PAUSE * *n / 1001)).count();
        assert_eq!(done, 1);
        assert!(throttle.is_due() && !throttle.is_due());
        assert!(throttle.may_act(start + PAUSE));
        assert!(!throttle.is_due());
    }
}
