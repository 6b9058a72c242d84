//! Who may see what. A request is served from memory on its caller's grant; everybody else asks upstream with the
//! caller's own credentials. Bodies are fetched once for all who wait, permission is everybody's own: whoever waited for
//! another's fetch still needs a grant, or asks.

use super::examine::{Examined, names_picture};
use super::flights::{FlightName, Passenger, Phase, Pilot, Place};
use super::{AvatarError, AvatarRequest, Avatars, Keep, Relayed, Wish};
use crate::cache::grants::AskedFor;
use crate::cache::{Hearsay, Question, Record, RecordKey};
use crate::caller::Caller;
use crate::source::{SourceImage, Validator};
use crate::telemetry::{Fault, ProofKind, UpstreamKind};
use crate::upstream::{Answer, Upstream, UpstreamError};
use http::StatusCode;
use http::header::{self, HeaderMap};
use std::sync::Arc;
use std::time::Instant;

/// How often a request waits for another's question before it asks on its own.
const PATIENCE: usize = 3;

/// Upstream's verdict on one request, given to it or within the time of a grant.
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
    async fn within_time<T>(&self, asked: impl Future<Output = Result<T, AvatarError>>) -> Result<T, AvatarError> {
        let whole = tokio::time::timeout(self.upstream.picture_timeout(), asked);
        whole.await.unwrap_or(Err(AvatarError::Upstream(UpstreamError::TimedOut)))
    }
}

/// What this caller may be shown.
pub(super) struct Granted {
    pub(super) record: Arc<Record>,
    pub(super) body: Option<Arc<SourceImage>>,
    /// The header of upstream's answer to this request; empty where none was asked for.
    pub(super) headers: HeaderMap,
    pub(super) upstream_bytes: usize,
    pub(super) proof: Proof,
}

/// What proves that a caller may see a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Upstream's 200 to this request.
    Fetched,
    /// Upstream's 304 to this request.
    Revalidated,
    /// A grant: upstream's answer to a request that was sent then.
    Granted(Instant),
}

impl Proof {
    /// Whether upstream was not asked for this request.
    pub(super) const fn is_from_memory(self) -> bool {
        matches!(self, Self::Granted(_))
    }
}

impl From<Proof> for ProofKind {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Fetched => Self::Fetched,
            Proof::Revalidated => Self::Revalidated,
            Proof::Granted(_) => Self::Grant,
        }
    }
}

/// A question that is put to upstream: where the answer is kept, and what it settles and proves.
pub(super) struct Inquiry {
    kept_under: Option<RecordKey>,
    question: Question,
    proves: Option<AskedFor>,
}

impl Inquiry {
    pub(super) fn question(&self) -> &Question {
        &self.question
    }
}

/// What there is of a picture when a caller's own question is put.
enum Known {
    Nothing,
    Kept(Arc<Record>, Option<Arc<SourceImage>>),
    /// Another's fetch has brought its validator, and will bring the rest.
    Coming(Validator, Passenger),
}

impl Known {
    fn validator(&self) -> Option<&Validator> {
        match self {
            Self::Nothing => None,
            Self::Kept(record, _) => record.validator.as_ref(),
            Self::Coming(validator, _) => Some(validator),
        }
    }

    fn hearsay(&self) -> Arc<Hearsay> {
        match self {
            Self::Nothing => Arc::default(),
            Self::Kept(record, _) => record.version.hearsay().clone(),
            Self::Coming(_, passenger) => passenger.hearsay(),
        }
    }
}

impl Avatars {
    /// What of the picture this caller may be shown without asking upstream: there is a grant, and nothing newer than
    /// what is kept was heard of.
    pub(super) async fn remembered(&self, wish: &Wish, now: Instant) -> Option<Granted> {
        let (picture, caller) = (wish.picture?, self.sharing(wish)?);
        let sent = self.grants.as_ref()?.covers(&caller, picture, now)?;
        let record = self.sources.record(&self.sources.key(picture)).await?;
        if let Some(stamp) = wish.stamp.filter(|_| picture.kind.has_validator()) {
            // From somebody who may see the picture: a stranger's word would make everybody ask.
            record.version.hearsay().hear(stamp);
        }
        if !record.version.is_current() {
            return None;
        }
        Some(Granted { record, body: None, headers: HeaderMap::new(), upstream_bytes: 0, proof: Proof::Granted(sent) })
    }

    /// The caller, if what upstream says to it may be remembered and used for this request.
    fn sharing(&self, wish: &Wish) -> Option<Caller> {
        wish.caller.filter(|_| self.grants.is_some() && !wish.must_ask)
    }

    /// Decides whether this caller may see this picture, asking upstream unless a grant says so.
    pub(super) async fn admit(&self, errand: Errand<'_>) -> Result<Admission, AvatarError> {
        let wish = &errand.request.wish;
        let Some(picture) = wish.picture else {
            return self.ask_alone(errand).await;
        };
        for _ in 0..PATIENCE {
            if let Some(granted) = self.remembered(wish, Instant::now()).await {
                return Ok(Admission::Granted(Box::new(granted)));
            }
            // Taken before upstream is asked: what is fetched under it is found only while nothing was forgotten since.
            let key = self.sources.key(picture);
            let record = self.sources.record(&key).await;
            let known = match record.filter(|record| record.validator.is_some()) {
                // A tag that upstream gives by chance proves nothing later on.
                _ if !picture.kind.has_validator() => Known::Nothing,
                Some(record) => Known::Kept(record, None),
                None => match self.flights.board(FlightName::Body(key), wish.caller) {
                    Place::Pilot(pilot) => return Box::pin(self.fly(errand, key, pilot)).await,
                    Place::Passenger(passenger) => match self.ride(wish, passenger).await? {
                        Some(known) => known,
                        None => continue,
                    },
                },
            };
            if let Some(admission) = Box::pin(self.check(errand, key, known)).await? {
                return Ok(admission);
            }
        }
        // Others were refused or gave up again and again.
        self.ask_alone(errand).await
    }

    /// Asks for nobody else. What is not known to be under way is not told of news, so it is not kept.
    pub(super) async fn ask_alone(&self, errand: Errand<'_>) -> Result<Admission, AvatarError> {
        self.fetch(errand, &self.inquiry(&errand.request.wish, None, Arc::default())).await
    }

    /// Fetches a picture that nobody has, for all who wait.
    async fn fly(&self, errand: Errand<'_>, key: RecordKey, pilot: Pilot<'_>) -> Result<Admission, AvatarError> {
        let inquiry = self.inquiry(&errand.request.wish, Some(key), pilot.hearsay());
        let asked = async {
            let answer = self.ask(errand, None).await?;
            if let Some(validator) = names_picture(&answer) {
                pilot.name(validator);
            }
            self.examine(errand, &inquiry, answer).await
        };
        let admission = errand.within_time(asked).await;
        pilot.land(match &admission {
            Ok(Admission::Granted(granted)) if granted.record.validator.is_some() => {
                let body = granted.body.clone().expect("a fetched picture has its bytes");
                Phase::Landed(granted.record.clone(), body)
            }
            Err(AvatarError::Upstream(error)) => Phase::NoAnswer(error.clone()),
            Ok(_) | Err(_) => Phase::Empty,
        });
        admission
    }

    /// Waits for another's fetch, as long as it takes to know what to ask; `None` where it brought nothing.
    async fn ride(&self, wish: &Wish, mut passenger: Passenger) -> Result<Option<Known>, AvatarError> {
        // The same credentials will have the same grant; others can ask as soon as there is a validator to ask with.
        let own = self.sharing(wish).filter(|caller| passenger.pilot() == Some(*caller));
        let phase = if own.is_some() { passenger.end().await } else { passenger.beyond_asking().await };
        Ok(match phase {
            Phase::Named(validator) => Some(Known::Coming(validator, passenger)),
            Phase::Landed(..) if own.is_some() => None,
            Phase::Landed(record, body) => Some(Known::Kept(record, Some(body))),
            Phase::NoAnswer(error) => return Err(error.into()),
            Phase::Asked | Phase::Granted | Phase::Empty | Phase::Abandoned => None,
        })
    }

    /// Puts this caller's own question, once for all of its requests that wait; `None` when another of them was
    /// answered: there is a grant now, or it is no use waiting.
    async fn check(&self, errand: Errand<'_>, key: RecordKey, known: Known) -> Result<Option<Admission>, AvatarError> {
        let Some(caller) = self.sharing(&errand.request.wish) else {
            return self.inquire(errand, key, known).await.map(Some);
        };
        let pilot = match self.flights.board(FlightName::Check(key, caller), Some(caller)) {
            Place::Pilot(pilot) => pilot,
            Place::Passenger(mut passenger) => {
                return match passenger.end().await {
                    Phase::NoAnswer(error) => Err(error.into()),
                    // A refusal says nothing about the next answer.
                    Phase::Empty => self.inquire(errand, key, known).await.map(Some),
                    _ => Ok(None),
                };
            }
        };
        let admission = self.inquire(errand, key, known).await;
        pilot.land(match &admission {
            Ok(Admission::Granted(_)) => Phase::Granted,
            Err(AvatarError::Upstream(error)) => Phase::NoAnswer(error.clone()),
            Ok(Admission::Relayed(_)) | Err(_) => Phase::Empty,
        });
        admission.map(Some)
    }

    /// Asks upstream in this caller's name, on the condition that the picture is not the known one.
    async fn inquire(&self, errand: Errand<'_>, key: RecordKey, known: Known) -> Result<Admission, AvatarError> {
        let inquiry = self.inquiry(&errand.request.wish, Some(key), known.hearsay());
        let asked = errand.within_time(async {
            let answer = self.ask(errand, known.validator()).await?;
            if answer.status != StatusCode::NOT_MODIFIED {
                return Box::pin(self.examine(errand, &inquiry, answer)).await.map(Some);
            }
            let named = answer.headers.get(header::ETAG).and_then(|tag| Validator::new(tag.as_bytes()));
            if named.is_some() && named.as_ref() != known.validator() {
                self.telemetry.fault(Fault::ValidatorMismatch);
                return Ok(None);
            }
            // The place among those who ask is free again: whoever flies may need it, while this one waits.
            let headers = answer.into_headers();
            let asked_for = known.validator().cloned();
            let (record, body) = match known {
                Known::Kept(record, body) => (record, body),
                Known::Coming(_, mut passenger) => match passenger.end().await {
                    Phase::Landed(record, body) if record.validator == asked_for => (record, Some(body)),
                    // It may be seen, but what was under way is not here: it has to be fetched after all.
                    _ => return Ok(None),
                },
                Known::Nothing => return Err(UpstreamError::Broken("a 304 without a validator".to_owned()).into()),
            };
            record.version.confirm(&inquiry.question);
            self.allow(&inquiry);
            let proof = Proof::Revalidated;
            let granted = Granted { record, body, headers, upstream_bytes: 0, proof };
            Ok(Some(Admission::Granted(Box::new(granted))))
        });
        match asked.await? {
            Some(admission) => Ok(admission),
            None => self.fetch(errand, &inquiry).await,
        }
    }

    /// Asks upstream in this caller's name, without a condition.
    async fn fetch(&self, errand: Errand<'_>, inquiry: &Inquiry) -> Result<Admission, AvatarError> {
        let asked = async {
            let answer = self.ask(errand, None).await?;
            Box::pin(self.examine(errand, inquiry, answer)).await
        };
        errand.within_time(asked).await
    }

    /// To be made before upstream is asked.
    fn inquiry(&self, wish: &Wish, kept_under: Option<RecordKey>, heard: Arc<Hearsay>) -> Inquiry {
        let now = Instant::now();
        let pair = self.grants.as_ref().zip(wish.caller).zip(wish.picture);
        let proves = pair.map(|((grants, caller), picture)| grants.asking_for(&caller, picture, now));
        Inquiry { kept_under, question: Question::put(heard, now), proves }
    }

    async fn ask(&self, errand: Errand<'_>, validator: Option<&Validator>) -> Result<Answer, AvatarError> {
        self.spend(errand.request)?;
        let asked = Instant::now();
        let answer = errand.upstream.picture(&errand.request.upstream, validator).await?;
        self.telemetry.upstream_answered(UpstreamKind::Picture, answer.status, asked.elapsed());
        self.take_back(&errand.request.wish, answer.status);
        Ok(answer)
    }

    /// What upstream's refusal takes from a caller: a 401 everything, a 403 or 404 this picture.
    fn take_back(&self, wish: &Wish, status: StatusCode) {
        let Some((grants, caller)) = self.grants.as_ref().zip(wish.caller) else { return };
        match (status, wish.picture) {
            (StatusCode::UNAUTHORIZED, _) => grants.end_caller(&caller),
            (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, Some(picture)) => grants.refuse(&caller, picture),
            _ => {}
        }
    }

    /// Takes upstream's answer apart. A picture that does not decode is asked for once more: a real server sends empty
    /// and cut-off bodies while a picture changes (mattermost.md, fact 13).
    async fn examine(&self, errand: Errand<'_>, inquiry: &Inquiry, answer: Answer) -> Result<Admission, AvatarError> {
        let first = match self.examine_once(inquiry, answer).await? {
            Examined::Picture(granted) => return Ok(self.keep(inquiry, granted).await),
            Examined::Relay(relayed) => return Ok(self.relay(inquiry, relayed).await),
            Examined::Broken(answer) => answer,
        };
        self.telemetry.fault(Fault::Retried);
        let again = match self.ask(errand, None).await {
            Ok(answer) => self.examine_once(inquiry, answer).await.map_err(AvatarError::from),
            Err(error) => Err(error),
        };
        Ok(match again {
            Ok(Examined::Picture(granted)) => self.keep(inquiry, granted).await,
            Ok(Examined::Relay(relayed)) => self.relay(inquiry, relayed).await,
            Ok(Examined::Broken(answer)) => self.relay(inquiry, Relayed { answer, keep: Keep::Broken }).await,
            Err(_) => self.relay(inquiry, Relayed { answer: first, keep: Keep::Broken }).await,
        })
    }

    /// Hands on what is not ours. Where upstream showed it instead of the picture that is kept, it is that no longer.
    async fn relay(&self, inquiry: &Inquiry, relayed: Relayed) -> Admission {
        if let (StatusCode::OK, Some(key)) = (relayed.answer.status, inquiry.kept_under) {
            self.sources.let_go(&key).await;
        }
        Admission::Relayed(relayed)
    }

    /// Keeps what upstream has shown, and that it has shown it to this caller. What has no validator though its kind has
    /// one (a stored file is missing) is good for this once, and yet takes the place of what was there; kinds that never
    /// have one are kept for those with a grant.
    async fn keep(&self, inquiry: &Inquiry, granted: Box<Granted>) -> Admission {
        if let Some(key) = inquiry.kept_under {
            let kind = key.picture().kind;
            let on_grants_alone = !kind.has_validator() && self.grants.is_some();
            if granted.record.validator.is_some() || on_grants_alone {
                self.sources.keep_record(key, granted.record.clone()).await;
            } else {
                self.sources.let_go(&key).await;
            }
        }
        self.allow(inquiry);
        Admission::Granted(granted)
    }

    fn allow(&self, inquiry: &Inquiry) {
        if let Some((grants, asked)) = self.grants.as_ref().zip(inquiry.proves.as_ref()) {
            grants.allow(asked);
        }
    }
}
