//! Who may see what: each request asks upstream with its caller's own credentials. Fetches of one picture are joined,
//! answers are not: whoever waited for another's fetch then asks about itself.

use super::examine::Examined;
use super::{AvatarRequest, Avatars, Keep, Relayed};
use crate::cache::{Record, RecordKey};
use crate::source::{SourceImage, Validator};
use crate::telemetry::{Fault, UpstreamKind};
use crate::upstream::{Answer, Upstream, UpstreamError};
use http::header::{self, HeaderMap};
use std::sync::Arc;
use std::time::Instant;

/// Upstream's verdict on one request.
pub(super) enum Admission {
    /// This caller may see this picture.
    Granted(Box<Granted>),
    /// Upstream's answer is the answer.
    Relayed(Relayed),
}

/// A request on its way to upstream by one worker's connections.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) request: &'a AvatarRequest,
}

impl Errand<'_> {
    /// A picture that trickles in would keep every other time-out from firing (F11).
    async fn within_time<T>(&self, asked: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        let whole = tokio::time::timeout(self.upstream.picture_timeout(), asked);
        whole.await.unwrap_or(Err(UpstreamError::TimedOut))
    }
}

/// What those who waited for another's fetch are told when it brought no record.
#[derive(Clone)]
enum Flight {
    NoAnswer(UpstreamError),
    NothingToKeep,
}

/// What a fetch brings those who waited for it: a record under which each can ask for itself.
fn landing(admission: &Result<Admission, UpstreamError>) -> Result<Arc<Record>, Flight> {
    match admission {
        Ok(Admission::Granted(granted)) if granted.record.validator.is_some() => Ok(granted.record.clone()),
        Ok(_) => Err(Flight::NothingToKeep),
        Err(error) => Err(Flight::NoAnswer(error.clone())),
    }
}

/// What upstream has just shown this caller.
pub(super) struct Granted {
    pub(super) record: Arc<Record>,
    pub(super) body: Option<Arc<SourceImage>>,
    pub(super) headers: HeaderMap,
    pub(super) upstream_bytes: usize,
}

impl Avatars {
    /// Asks upstream whether this caller may see this picture.
    pub(super) async fn admit(&self, errand: Errand<'_>) -> Result<Admission, UpstreamError> {
        let Some(picture) = errand.request.picture.filter(|picture| picture.kind.has_validator()) else {
            return self.fetch(errand, None).await;
        };
        // Taken before upstream is asked: what is fetched under it is found only while nothing was forgotten since.
        let key = self.sources.key(picture);
        if let Some(record) = self.sources.record(&key).await {
            return self.revalidate(errand, key, record).await;
        }
        let mut ours = None;
        let fetch = async {
            let admission = self.fetch(errand, None).await;
            let landed = landing(&admission);
            ours = Some(admission);
            landed
        };
        let joined = Box::pin(self.sources.join_fetch(key, fetch)).await;
        if let Some(ours) = ours {
            return ours;
        }
        match joined {
            // Another caller's fetch brought the validator: now upstream is asked about this one.
            Ok(record) => self.revalidate(errand, key, record).await,
            // There is no permission in it, and asking after one another would take as long for each (F02).
            Err(Flight::NoAnswer(error)) => Err(error),
            // Another caller was refused, or there was nothing to keep: that says nothing about this one.
            Err(Flight::NothingToKeep) => self.fetch(errand, Some(self.sources.key(picture))).await,
        }
    }

    async fn revalidate(
        &self,
        errand: Errand<'_>,
        key: RecordKey,
        record: Arc<Record>,
    ) -> Result<Admission, UpstreamError> {
        let asked = errand.within_time(async {
            let answer = self.ask(errand, record.validator.as_ref()).await?;
            if answer.status != http::StatusCode::NOT_MODIFIED {
                return Box::pin(self.examine(errand, Some(key), answer)).await.map(Some);
            }
            let named = answer.headers.get(header::ETAG).and_then(|tag| Validator::new(tag.as_bytes()));
            if named.is_some() && named != record.validator {
                return Ok(None);
            }
            let granted = Granted { record, body: None, headers: answer.headers, upstream_bytes: 0 };
            Ok(Some(Admission::Granted(Box::new(granted))))
        });
        if let Some(admission) = asked.await? {
            return Ok(admission);
        }
        self.telemetry.fault(Fault::ValidatorMismatch);
        self.fetch(errand, Some(key)).await
    }

    pub(super) async fn fetch(&self, errand: Errand<'_>, key: Option<RecordKey>) -> Result<Admission, UpstreamError> {
        let asked = async {
            let answer = self.ask(errand, None).await?;
            Box::pin(self.examine(errand, key, answer)).await
        };
        errand.within_time(asked).await
    }

    async fn ask(&self, errand: Errand<'_>, validator: Option<&Validator>) -> Result<Answer, UpstreamError> {
        let asked = Instant::now();
        let answer = errand.upstream.picture(&errand.request.upstream, validator).await?;
        self.telemetry.upstream_answered(UpstreamKind::Picture, answer.status, asked.elapsed());
        Ok(answer)
    }

    /// Takes upstream's answer apart. A picture that does not decode is asked for once more: a real server sends empty
    /// and cut-off bodies while a picture changes (mattermost.md, fact 13).
    async fn examine(
        &self,
        errand: Errand<'_>,
        key: Option<RecordKey>,
        answer: Answer,
    ) -> Result<Admission, UpstreamError> {
        let first = match self.examine_once(answer).await? {
            Examined::Picture(granted) => return Ok(self.keep(key, granted).await),
            Examined::Relay(relayed) => return Ok(Admission::Relayed(relayed)),
            Examined::Broken(answer) => answer,
        };
        self.telemetry.fault(Fault::Retried);
        let again = match self.ask(errand, None).await {
            Ok(answer) => self.examine_once(answer).await,
            Err(error) => Err(error),
        };
        Ok(match again {
            Ok(Examined::Picture(granted)) => self.keep(key, granted).await,
            Ok(Examined::Relay(relayed)) => Admission::Relayed(relayed),
            Ok(Examined::Broken(answer)) => Admission::Relayed(Relayed { answer, keep: Keep::Broken }),
            Err(_) => Admission::Relayed(Relayed { answer: first, keep: Keep::Broken }),
        })
    }

    async fn keep(&self, key: Option<RecordKey>, granted: Box<Granted>) -> Admission {
        if let Some(key) = key.filter(|_| granted.record.validator.is_some()) {
            self.sources.keep_record(key, granted.record.clone()).await;
        }
        Admission::Granted(granted)
    }
}
