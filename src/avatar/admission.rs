//! Who may see what. A request is served from memory on its caller's grant; everybody else asks upstream with the
//! caller's own credentials. Bodies are fetched once for all who wait, permission is everybody's own: whoever waited for
//! another's fetch still needs a grant, or asks.

use super::examine::{Examined, names_picture};
use super::flights::{FlightName, Passenger, Phase, Pilot, Place};
use super::{AvatarError, AvatarRequest, Avatars, Keep, Relayed, Wish};
use crate::cache::grants::AskedFor;
use crate::cache::{self, Hearsay, Question, Record, RecordKey};
use crate::caller::Caller;
use crate::source::{SourceImage, Validator};
use crate::telemetry::{Fault, ProofKind, UpstreamKind};
use crate::upstream::headers::validator;
use crate::upstream::{Answer, Upstream, UpstreamError};
use http::StatusCode;
use http::header::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    /// A picture that trickles in would keep every other time-out from firing.
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

impl Granted {
    /// By a grant: upstream's answer to a request that was sent at `sent`.
    fn before(sent: Instant, record: Arc<Record>, body: Option<Arc<SourceImage>>) -> Self {
        Self { record, body, headers: HeaderMap::new(), upstream_bytes: 0, proof: Proof::Granted(sent) }
    }
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
    kept_under: Option<(RecordKey, cache::Known)>,
    question: Question,
    proves: Option<(Caller, AskedFor)>,
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

    /// How the answer may be kept.
    const fn keeps(&self) -> cache::Known {
        match self {
            Self::Nothing | Self::Coming(..) => cache::Known::Nothing,
            Self::Kept(..) => cache::Known::Before,
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

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be allowed.
    Permission,
    /// The bytes too: they were let go.
    Bytes,
}

/// What waiting for another's fetch came to.
enum Ride {
    /// There is something to ask with.
    Asking(Known),
    /// The same credentials were shown the picture.
    Arrived(Box<Granted>),
    /// Nothing came of it.
    ForNothing,
}

impl Avatars {
    /// What of the picture this caller may be shown without asking upstream: there is a grant, and nothing newer than
    /// what is kept was heard of.
    pub(super) async fn remembered(&self, wish: &Wish, now: Instant) -> Option<Granted> {
        // The grant first: it may be younger than what was found before it, and make that look fresher than it is.
        let sent = self.granted_since(wish, now)?;
        let record = self.sources.record(&self.sources.key(wish.picture?)).await?;
        if !is_fresh(&record, wish) {
            return None;
        }
        Some(Granted::before(sent, record, None))
    }

    /// When upstream was asked for what lets this caller see the picture, if that is not too long ago.
    fn granted_since(&self, wish: &Wish, now: Instant) -> Option<Instant> {
        let (picture, caller) = (wish.picture?, self.sharing(wish)?);
        let sent = self.grants.as_ref()?.covers(&caller, picture, now)?;
        let young = wish.max_age.is_none_or(|max_age| now.saturating_duration_since(sent) <= max_age);
        young.then_some(sent)
    }

    fn granted_now(&self, wish: &Wish) -> Option<Instant> {
        self.granted_since(wish, Instant::now())
    }

    /// The caller, if what upstream says to it may be remembered and used for this request.
    fn sharing(&self, wish: &Wish) -> Option<Caller> {
        wish.caller.filter(|_| self.grants.is_some() && !wish.must_ask)
    }

    /// Decides whether this caller may see this picture, asking upstream unless a grant says so. With [`Need::Bytes`] the
    /// bytes come with it.
    pub(super) async fn admit(&self, errand: Errand<'_>, need: Need) -> Result<Admission, AvatarError> {
        let wish = &errand.request.wish;
        let Some(picture) = wish.picture else {
            return self.ask_alone(errand).await;
        };
        for _ in 0..PATIENCE {
            if need == Need::Permission
                && let Some(granted) = self.remembered(wish, Instant::now()).await
            {
                return Ok(Admission::Granted(Box::new(granted)));
            }
            // Taken before upstream is asked: what is fetched under it is found only while nothing was forgotten since.
            let key = self.sources.key(picture);
            // A tag that upstream gives by chance proves nothing later on.
            let kept = match need {
                Need::Permission if picture.kind.has_validator() => self.sources.record(&key).await,
                Need::Permission | Need::Bytes => None,
            };
            let known = match kept {
                Some(record) => Known::Kept(record, None),
                None if !picture.kind.has_validator() => Known::Nothing,
                None => match self.flights.board(FlightName::Body(key), wish.caller) {
                    Place::Pilot(pilot) => return Box::pin(self.fly(errand, key, pilot)).await,
                    Place::Passenger(passenger) => match self.ride(wish, passenger).await? {
                        Ride::Asking(known) => known,
                        Ride::Arrived(granted) => return Ok(Admission::Granted(granted)),
                        Ride::ForNothing => continue,
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
        self.may_ask(errand.request)?;
        self.fetch(errand, &self.inquiry(&errand.request.wish, None, Arc::default())).await
    }

    /// Fetches a picture that nobody has, for all who wait.
    async fn fly(&self, errand: Errand<'_>, key: RecordKey, pilot: Pilot<'_>) -> Result<Admission, AvatarError> {
        self.may_ask(errand.request)?;
        let inquiry = self.inquiry(&errand.request.wish, Some((key, cache::Known::Nothing)), pilot.hearsay());
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
            Ok(_) => Phase::Empty,
            Err(error) => phase_after(error),
        });
        admission
    }

    /// Waits for another's fetch, as long as it takes to know what to ask, or to need not ask.
    async fn ride(&self, wish: &Wish, mut passenger: Passenger) -> Result<Ride, AvatarError> {
        // Who has a grant, or will have the pilot's, waits for the picture; others can ask as soon as there is a
        // validator to ask with.
        let own = self.sharing(wish);
        let waits = own.is_some_and(|caller| passenger.pilot() == Some(caller)) || self.granted_now(wish).is_some();
        let phase = if waits { passenger.end().await } else { passenger.beyond_asking().await };
        Ok(match phase {
            Phase::Named(validator) => Ride::Asking(Known::Coming(validator, passenger)),
            Phase::Landed(record, body) => match self.granted_now(wish).filter(|_| is_fresh(&record, wish)) {
                Some(sent) => Ride::Arrived(Box::new(Granted::before(sent, record, Some(body)))),
                None => Ride::Asking(Known::Kept(record, Some(body))),
            },
            Phase::NoAnswer(error) => return Err(error.into()),
            Phase::Asked | Phase::Granted | Phase::Empty | Phase::Abandoned => Ride::ForNothing,
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
            Ok(Admission::Relayed(_)) => Phase::Empty,
            Err(error) => phase_after(error),
        });
        admission.map(Some)
    }

    /// Asks upstream in this caller's name, on the condition that the picture is not the known one.
    async fn inquire(&self, errand: Errand<'_>, key: RecordKey, known: Known) -> Result<Admission, AvatarError> {
        self.may_ask(errand.request)?;
        self.hear_from(&errand.request.wish, &known.hearsay());
        let inquiry = self.inquiry(&errand.request.wish, Some((key, known.keeps())), known.hearsay());
        let asked = errand.within_time(async {
            let answer = self.ask(errand, known.validator()).await?;
            if answer.status != StatusCode::NOT_MODIFIED {
                return Box::pin(self.examine(errand, &inquiry, answer)).await.map(Some);
            }
            let named = validator(&answer.headers);
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

    /// Heeds the version in a request's URL, now that it has paid for the question that settles it. Only from somebody who
    /// may see the picture: a stranger's word would make everybody ask.
    fn hear_from(&self, wish: &Wish, heard: &Hearsay) {
        if let (Some(_), Some(stamp)) = (self.granted_now(wish), wish.stamp) {
            heard.hear(stamp);
        }
    }

    /// To be made before upstream is asked.
    fn inquiry(&self, wish: &Wish, kept_under: Option<(RecordKey, cache::Known)>, heard: Arc<Hearsay>) -> Inquiry {
        let now = Instant::now();
        let pair = self.grants.as_ref().zip(wish.caller).zip(wish.picture);
        let proves = pair.map(|((grants, caller), picture)| (caller, grants.asking_for(&caller, picture, now)));
        Inquiry { kept_under, question: Question::put(heard, now), proves }
    }

    async fn ask(&self, errand: Errand<'_>, validator: Option<&Validator>) -> Result<Answer, AvatarError> {
        let asked = Instant::now();
        let answer = errand.upstream.picture(&errand.request.upstream, validator).await;
        self.outage
            .store(matches!(answer, Err(UpstreamError::Unreachable(_) | UpstreamError::TimedOut)), Ordering::Relaxed);
        let answer = answer?;
        self.telemetry.upstream_answered(UpstreamKind::Picture, answer.status, asked.elapsed());
        let wish = &errand.request.wish;
        self.heed(wish.caller.as_ref(), wish.picture, answer.status);
        self.hold_back(wish.caller.as_ref(), &answer);
        Ok(answer)
    }

    /// Takes upstream's answer apart. A picture that does not decode is asked for once more: a real server sends empty
    /// and cut-off bodies while a picture changes, because the old file is emptied before the new one is in it. One that stays
    /// so is asked for twice but once.
    async fn examine(&self, errand: Errand<'_>, inquiry: &Inquiry, answer: Answer) -> Result<Admission, AvatarError> {
        let wish = &errand.request.wish;
        let first = match self.examine_once(inquiry, answer).await? {
            Examined::Picture(granted) => return Ok(self.keep(inquiry, wish, granted).await),
            Examined::Relay(relayed) => return Ok(self.relay(wish, relayed).await),
            Examined::Broken(broken) => broken,
        };
        if first.stays {
            return Ok(self.relay(wish, Relayed { answer: first.answer, keep: Keep::Broken }).await);
        }
        self.telemetry.fault(Fault::Retried);
        let again = match self.ask(errand, None).await {
            Ok(answer) => self.examine_once(inquiry, answer).await.map_err(AvatarError::from),
            Err(error) => Err(error),
        };
        Ok(match again {
            Ok(Examined::Picture(granted)) => self.keep(inquiry, wish, granted).await,
            Ok(Examined::Relay(relayed)) => self.relay(wish, relayed).await,
            Ok(Examined::Broken(second)) => {
                if second.hash == first.hash {
                    self.sources.stays_broken(first.hash).await;
                }
                self.relay(wish, Relayed { answer: second.answer, keep: Keep::Broken }).await
            }
            Err(_) => self.relay(wish, Relayed { answer: first.answer, keep: Keep::Broken }).await,
        })
    }

    /// Hands on what is not ours. Where upstream showed it instead of the picture that is kept, it is that no longer.
    async fn relay(&self, wish: &Wish, relayed: Relayed) -> Admission {
        if let (StatusCode::OK, Some(picture)) = (relayed.answer.status, wish.picture) {
            self.sources.let_go(&self.sources.key(picture)).await;
        }
        Admission::Relayed(relayed)
    }

    /// Keeps what upstream has shown, and that it has shown it to this caller. What has no validator though its kind has
    /// one (a stored file is missing) is good for this once; kinds that never have one are kept for those with a grant.
    async fn keep(&self, inquiry: &Inquiry, wish: &Wish, granted: Box<Granted>) -> Admission {
        let is_of_use = wish.picture.is_some_and(|picture| {
            if picture.kind.has_validator() { granted.record.validator.is_some() } else { self.grants.is_some() }
        });
        match inquiry.kept_under {
            Some((key, known)) if is_of_use => {
                let held = self.sources.keep_record(key, granted.record.clone(), known).await;
                if let Some(held) = held.filter(|held| held.source != granted.record.source) {
                    // Another answer came first. If this is the newer version after all, that is to be asked about.
                    if let Some(stamp) = granted.record.validator.as_ref().and_then(Validator::stamp) {
                        held.version.hearsay().hear(stamp);
                    }
                }
            }
            _ => self.let_go_of_another(wish, &granted.record).await,
        }
        self.allow(inquiry);
        Admission::Granted(granted)
    }

    /// Upstream has just shown another picture than the one that is kept: that one must not come back.
    async fn let_go_of_another(&self, wish: &Wish, shown: &Record) {
        let Some(picture) = wish.picture else { return };
        let key = self.sources.key(picture);
        if self.sources.record(&key).await.is_some_and(|kept| kept.source != shown.source) {
            self.sources.let_go(&key).await;
        }
    }

    fn allow(&self, inquiry: &Inquiry) {
        if let (Some(grants), Some((caller, asked))) = (&self.grants, &inquiry.proves) {
            grants.allow(caller, asked);
        }
    }
}

/// Whether nothing newer than the record was heard of, by anybody or in this request.
fn is_fresh(record: &Record, wish: &Wish) -> bool {
    let has_versions = wish.picture.is_some_and(|picture| picture.kind.has_validator());
    let outdated = |stamp| has_versions && record.version.is_older_than(stamp);
    record.version.is_current() && !wish.stamp.is_some_and(outdated)
}

/// What those who wait are told of a failure. That upstream cannot be reached or does not answer is true for all, and to
/// ask one after another would take as long for each; everything else is this request's own.
fn phase_after(error: &AvatarError) -> Phase {
    match error {
        AvatarError::Upstream(error @ (UpstreamError::Unreachable(_) | UpstreamError::TimedOut)) => {
            Phase::NoAnswer(error.clone())
        }
        _ => Phase::Empty,
    }
}
