//! The decisions: what to serve, and to whom.
//!
//! Pixels are released by upstream's 200 or 304 to *this* request, or by a grant: the same said to the very same
//! credentials a moment ago. What is shared is the work: bodies, pixels and variants are kept by content hash, whoever
//! they were fetched for.

mod admission;
mod examine;
mod flights;
mod hearsay;
mod improve;
pub mod render_pool;
mod rendering;
#[cfg(test)]
mod tests;

pub use admission::Proof;
pub use improve::{Improving, Settings as ImproveSettings};

use crate::allowance::{self, Allowances, Exhausted, Holds, Payer};
use crate::cache::grants;
use crate::cache::{Grants, Lookup, OnEviction, PixelCache, Record, Sources, Usage, Variants};
use crate::caller::Caller;
use crate::identity::PictureId;
use crate::render::{Limits, Pixels, Targets};
use crate::source::{ContentHash, SourceFormat, SourceImage};
use crate::telemetry::{CacheName, Fault, Telemetry};
use crate::upstream::headers::picture_vary;
use crate::upstream::{Answer, PictureRequest, Room, Upstream, UpstreamError};
use crate::variant::negotiation::OfferKind;
use crate::variant::transform::Transform;
use crate::variant::{Encoded, Format, Plan, Recipe, Variant, VariantKey};
use admission::{Admission, Errand, Granted, Need};
use bytes::Bytes;
use flights::Flights;
use hearsay::Throttle;
use http::StatusCode;
use http::header::{self, HeaderMap};
use improve::Improver;
use render_pool::RenderPool;
use rendering::Codecs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Everything that decides, with its limits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many bytes each cache may hold.
    pub cache: crate::cache::Settings,
    /// How long upstream's yes is remembered; `None`: not at all.
    pub grants: Option<grants::Settings>,
    /// How much may be asked of upstream and rendered for one token, and for one address.
    pub allowances: allowance::Settings,
    /// How much pixel work may run and wait.
    pub render: render_pool::Settings,
    /// How alike to their sources pictures are to look where nobody asks for a quality.
    pub targets: Targets,
    /// How variants are improved in idle time; `None`: not at all.
    pub improve: Option<ImproveSettings>,
    /// What a picture may cost before it is relayed as it came.
    pub limits: Limits,
    /// The longest source in bytes that is read into memory.
    pub max_source: u64,
    /// How many bytes of sources there may be in memory beside those that are kept: on their way in, in the queue, and on
    /// their way out.
    pub sources_in_hand: u64,
}

/// What is asked for and by whom, with nothing left to parse.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The picture's name; `None` for `me`, under which nothing is kept.
    pub picture: Option<PictureId>,
    /// Who asks; `None` where that cannot be told for certain, and then nothing is remembered.
    pub caller: Option<Caller>,
    /// Whether upstream has to be asked though there may be a grant: a reload, or the page of another site.
    pub must_ask: bool,
    /// How long ago upstream may have been asked.
    pub max_age: Option<Duration>,
    /// The version of the picture that the client has heard of.
    pub stamp: Option<i64>,
    /// What the query asks.
    pub transform: Transform,
    /// What the client can show.
    pub offer: OfferKind,
}

/// A request for a picture.
#[derive(Clone, Debug)]
pub struct AvatarRequest {
    /// What is asked for and by whom.
    pub wish: Wish,
    /// Whose budgets it draws on.
    pub payer: Payer,
    /// How upstream is asked for it in the caller's name.
    pub upstream: PictureRequest,
}

/// What to send.
pub enum Served {
    /// A picture that this caller may see.
    Picture(Picture),
    /// Upstream's own answer: a refusal, a redirect, something that is not for us.
    Relayed(Relayed),
}

/// A picture that may be sent to the caller who asked.
pub struct Picture {
    /// The bytes.
    pub body: PictureBody,
    /// The header of upstream's answer to this request; empty where a grant was enough.
    pub headers: HeaderMap,
    /// What is known of it.
    pub record: Arc<Record>,
    /// What upstream varies on by its answer to this request, where it was asked.
    pub vary: Option<Bytes>,
    /// Bytes of bodies that upstream sent for this request.
    pub upstream_bytes: usize,
    /// How it was come by.
    pub outcome: PictureOutcome,
}

/// The bytes of a [`Picture`].
pub enum PictureBody {
    /// A variant of ours.
    Encoded(Arc<Encoded>),
    /// The source as upstream sent it.
    Source(Arc<SourceImage>),
    /// The source as upstream sent it, because there was no capacity to render: good for this once.
    StopGap(Arc<SourceImage>),
}

/// How a picture was come by: what upstream said, and where the bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureOutcome {
    /// Why it may be seen: what upstream said, and when.
    pub proof: Proof,
    /// Where the variant came from; `None` where the source itself is sent.
    pub variant: Option<Lookup>,
}

/// Upstream's answer as it came.
pub struct Relayed {
    /// The answer.
    pub answer: Answer,
    /// Whether a browser may keep it.
    pub keep: Keep,
}

/// Whether an answer that is relayed may be kept by a browser.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// As upstream says.
    AsUpstreamSays,
    /// Not: a picture that does not decode, and still did not when asked for once more.
    Broken,
    /// Not: a picture that there was no capacity, or no room, to look at.
    StopGap,
}

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
pub enum AvatarError {
    /// Upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// There was no capacity to render, and the source is nothing this client can show.
    #[error("no capacity to render")]
    Overloaded,
    /// This token or this address has asked for too much.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Upstream has asked this caller for a pause, of which so much is left.
    #[error("upstream asked for a pause, {0:?} of which are left")]
    HeldBack(Duration),
}

/// Serves and forgets pictures. Built once, shared by every worker.
pub struct Avatars {
    codecs: Codecs,
    telemetry: Arc<Telemetry>,
    grants: Option<Grants>,
    flights: Flights,
    allowances: Allowances,
    holds: Holds,
    /// Whether upstream gave no answer when it was last asked.
    outage: AtomicBool,
    grants_end: Throttle,
    pictures_end: Throttle,
    sources: Sources,
    variants: Variants,
    pixels: PixelCache<Pixels>,
    pool: RenderPool,
    /// For sources, wherever they are.
    room: Room,
    improver: Option<Improver>,
    settings: Settings,
}

/// What each cache holds.
#[derive(Clone, Copy, Debug)]
pub struct CacheUsage {
    /// Source images, and the map from picture to hash.
    pub sources: Usage,
    /// Variants.
    pub variants: Usage,
    /// Decoded pixels.
    pub pixels: Usage,
}

impl Avatars {
    /// Empty caches.
    #[must_use]
    pub fn new(settings: Settings, telemetry: Arc<Telemetry>) -> Self {
        Self {
            codecs: Codecs::OURS,
            grants: settings.grants.map(Grants::new),
            flights: Flights::default(),
            allowances: Allowances::new(settings.allowances),
            holds: Holds::default(),
            outage: AtomicBool::new(false),
            grants_end: Throttle::default(),
            pictures_end: Throttle::default(),
            sources: Sources::new(&settings.cache, evictions(&telemetry, CacheName::Sources)),
            variants: Variants::new(&settings.cache, evictions(&telemetry, CacheName::Variants)),
            pixels: PixelCache::new(&settings.cache, Pixels::memory, evictions(&telemetry, CacheName::Pixels)),
            pool: RenderPool::new(settings.render),
            room: Room::new(settings.cache.for_bodies().saturating_add(settings.sources_in_hand)),
            improver: settings.improve.map(Improver::new),
            settings,
            telemetry,
        }
    }

    /// The picture as asked for, if the caller has a grant for it and all of it is in memory.
    pub async fn recall(&self, wish: &Wish, now: Instant) -> Option<Picture> {
        let granted = self.remembered(wish, now).await?;
        let source = granted.record.source;
        let encoded = match wish.transform.plan(wish.offer, &granted.record.info) {
            Plan::Untouched => None,
            Plan::Render(recipe) => {
                let variant = self.variants.get_by(&granted.record.shortcuts, &VariantKey { source, recipe }).await?;
                self.asked_again(source, recipe, &variant);
                variant.into_encoded()
            }
        };
        Some(match encoded {
            Some(encoded) => granted.shown_as(PictureBody::Encoded(encoded), Some(Lookup::Hit)),
            None => granted.shown_as(PictureBody::Source(self.sources.body(&source).await?), None),
        })
    }

    /// Answers a request for a picture, asking upstream by this worker's connections where it has to.
    ///
    /// # Errors
    /// Upstream could not be asked, or there is no capacity.
    pub async fn serve(&self, upstream: &Upstream, request: &AvatarRequest) -> Result<Served, AvatarError> {
        let errand = Errand { upstream, request };
        let admission = self.admit(errand, Need::Permission).await?;
        if let Some(served) = self.answer(request, admission).await? {
            return Ok(served);
        }
        // It may be seen, but the bytes were let go in between.
        self.telemetry.fault(Fault::EvictedRefetch);
        let admission = self.admit(errand, Need::Bytes).await?;
        if let Some(served) = self.answer(request, admission).await? {
            return Ok(served);
        }
        let alone = self.ask_alone(errand).await?;
        Ok(self.answer(request, alone).await?.expect("a fetched picture has its bytes"))
    }

    /// Answers a request without asking upstream, if the caller has a grant and the bytes are here.
    ///
    /// # Errors
    /// There is no capacity.
    pub async fn serve_kept(&self, request: &AvatarRequest) -> Result<Option<Picture>, AvatarError> {
        match self.remembered(&request.wish, Instant::now()).await {
            Some(granted) => self.compose(request, granted).await,
            None => Ok(None),
        }
    }

    /// What comes of upstream's verdict; `None` when the bytes would be needed and are gone.
    async fn answer(&self, request: &AvatarRequest, admission: Admission) -> Result<Option<Served>, AvatarError> {
        match admission {
            Admission::Granted(granted) => Ok(self.compose(request, *granted).await?.map(Served::Picture)),
            Admission::Relayed(relayed) => relayed.shown_to(&request.wish).map(Served::Relayed).map(Some),
        }
    }

    /// Whose budgets a request draws on, by its token and, where that is known, the client's address.
    #[must_use]
    pub fn payer(&self, token: &[u8], address: Option<IpAddr>) -> Payer {
        self.allowances.payer(token, address)
    }

    /// Forgets a picture that was, or may have been, changed.
    pub fn forget(&self, picture: PictureId) {
        self.sources.forget(picture);
    }

    /// Forgets what is known of every picture, when it cannot be told which one was changed.
    pub fn forget_all(&self) {
        self.sources.forget_all();
    }

    /// How many variants wait to be improved.
    #[must_use]
    pub fn waiting_for_improvement(&self) -> usize {
        self.improver.as_ref().map_or(0, Improver::waiting)
    }

    /// What each cache holds now.
    #[must_use]
    pub fn usage(&self) -> CacheUsage {
        CacheUsage { sources: self.sources.usage(), variants: self.variants.usage(), pixels: self.pixels.usage() }
    }

    /// Does the bookkeeping that the caches leave to the next access; to be called now and then.
    pub async fn tidy(&self) {
        self.catch_up();
        self.sources.tidy().await;
        self.variants.tidy().await;
        self.pixels.tidy().await;
    }

    /// Turns what the caller may see into what the caller asked for; `None` when the bytes would be needed and are gone.
    async fn compose(&self, request: &AvatarRequest, granted: Granted) -> Result<Option<Picture>, AvatarError> {
        let wish = &request.wish;
        let (source, info) = (granted.record.source, granted.record.info);
        let rendered = match wish.transform.plan(wish.offer, &info) {
            Plan::Untouched => Ok((Variant::SourceIsBest, Lookup::Hit)),
            Plan::Render(recipe) => {
                let key = VariantKey { source, recipe };
                if let Some(variant) = self.variants.get(&key).await {
                    self.asked_again(source, recipe, &variant);
                    Ok((variant, Lookup::Hit))
                } else if self.sources.rejection(&source).await.is_some() {
                    // Not touched again, whoever asks, and not everybody shows it as it is.
                    if !shows(wish.offer, info.format) {
                        return Err(AvatarError::Overloaded);
                    }
                    Ok((Variant::SourceIsBest, Lookup::Hit))
                } else {
                    let Some(body) = self.body_of(&granted).await else { return Ok(None) };
                    // Having been shown the picture pays for the first look at it.
                    if granted.proof.is_from_memory() {
                        self.spend(request)?;
                    }
                    Box::pin(self.render(key, body)).await
                }
            }
        };
        let error = match rendered {
            Ok((variant, lookup)) => {
                if let Some(encoded) = variant.into_encoded() {
                    return Ok(Some(granted.shown_as(PictureBody::Encoded(encoded), Some(lookup))));
                }
                None
            }
            Err(error) => Some(error),
        };
        let Some(body) = self.body_of(&granted).await else { return Ok(None) };
        let Some(error) = error else {
            return Ok(Some(granted.shown_as(PictureBody::Source(body), None)));
        };
        self.count_render_fault(&error);
        if !shows(wish.offer, body.info.format) {
            return Err(AvatarError::Overloaded);
        }
        Ok(Some(granted.shown_as(PictureBody::StopGap(body), None)))
    }

    /// Draws on the budgets of a request for a question upstream, unless upstream has asked its caller for a pause: it would
    /// only refuse, and perhaps take that for more of what it asked to stop.
    fn may_ask(&self, request: &AvatarRequest) -> Result<(), AvatarError> {
        let pause = request.wish.caller.and_then(|caller| self.holds.left(&caller, Instant::now()));
        pause.map_or(Ok(()), |left| Err(AvatarError::HeldBack(left)))?;
        self.spend(request)
    }

    /// Heeds an answer by which upstream asks the caller for a pause (RFC 6585 section 4). What is asked for in words of the
    /// calendar is not heeded: Mattermost says it in seconds.
    fn hold_back(&self, caller: Option<&Caller>, answer: &Answer) {
        if answer.status != StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        let seconds =
            answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let (Some(caller), Some(seconds)) = (caller, seconds) {
            self.holds.hold(caller, Instant::now(), Duration::from_secs(seconds));
        }
    }

    /// Draws on the budgets of a request for a question upstream or a render.
    fn spend(&self, request: &AvatarRequest) -> Result<(), AvatarError> {
        Ok(self.charge(request.payer)?)
    }

    /// Draws on the budgets of `payer` for a question upstream.
    ///
    /// # Errors
    /// One of them is spent.
    pub fn charge(&self, payer: Payer) -> Result<(), Exhausted> {
        self.allowances.spend(payer, Instant::now())
    }

    fn asked_again(&self, source: ContentHash, recipe: Recipe, variant: &Variant) {
        if let Some(improver) = &self.improver {
            improver.asked_again(source, recipe, variant);
        }
    }

    async fn body_of(&self, granted: &Granted) -> Option<Arc<SourceImage>> {
        match &granted.body {
            Some(body) => Some(body.clone()),
            None => self.sources.body(&granted.record.source).await,
        }
    }
}

impl Granted {
    fn shown_as(self, body: PictureBody, variant: Option<Lookup>) -> Picture {
        Picture {
            body,
            vary: (!self.proof.is_from_memory()).then(|| picture_vary(&self.headers)),
            outcome: PictureOutcome { proof: self.proof, variant },
            upstream_bytes: self.upstream_bytes,
            record: self.record,
            headers: self.headers,
        }
    }
}

fn evictions(telemetry: &Arc<Telemetry>, cache: CacheName) -> OnEviction {
    let telemetry = telemetry.clone();
    Arc::new(move || telemetry.evicted(cache))
}

/// Whether a client to whom `offer` may be made shows a source of this format as it is.
const fn shows(offer: OfferKind, source: SourceFormat) -> bool {
    !matches!(source, SourceFormat::Webp)
        || matches!(offer, OfferKind::Avif | OfferKind::Webp | OfferKind::Original | OfferKind::Only(Format::Webp))
}

impl Relayed {
    /// A picture that nobody looked at may be of a format that this client cannot show.
    fn shown_to(self, wish: &Wish) -> Result<Self, AvatarError> {
        let webp = self.answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"image/webp");
        if self.keep == Keep::StopGap && webp && !shows(wish.offer, SourceFormat::Webp) {
            return Err(AvatarError::Overloaded);
        }
        Ok(self)
    }
}
