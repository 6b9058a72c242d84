//! The decisions: what to serve, and to whom.
//!
//! Every request asks upstream with its caller's own credentials, by a conditional GET where a validator is known, and
//! only upstream's 200 or 304 to *this* request releases pixels. What is shared is the work: bodies, pixels and
//! variants are kept by content hash, whoever they were fetched for.

mod examine;
pub mod render_pool;
#[cfg(test)]
mod tests;

use crate::cache::{Lookup, OnEviction, PixelCache, Record, RecordKey, Rejection, Sources, Usage, Variants};
use crate::identity::PictureId;
use crate::render::{self, DecodeError, EncodeError, Limits, Pixels};
use crate::source::{ContentHash, SourceFormat, SourceImage, Validator};
use crate::telemetry::{CacheName, Fault, Stage, Telemetry, UpstreamKind};
use crate::upstream::{Answer, PictureRequest, Upstream, UpstreamError};
use crate::variant::negotiation::OfferKind;
use crate::variant::transform::Transform;
use crate::variant::{Encoded, Format, Plan, Recipe, Variant, VariantKey};
use bytes::Bytes;
use examine::Examined;
use http::header::{self, HeaderMap, HeaderValue};
use render_pool::{PoolError, RenderPool};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that decides, with its limits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many bytes each cache may hold.
    pub cache: crate::cache::Settings,
    /// How much pixel work may run and wait.
    pub render: render_pool::Settings,
    /// What a picture may cost before it is relayed as it came.
    pub limits: Limits,
    /// The longest source in bytes that is read into memory.
    pub max_source: u64,
}

/// A request for a picture, with nothing left to parse.
#[derive(Clone, Debug)]
pub struct AvatarRequest {
    /// Its name; `None` for `me`, under which nothing is kept.
    pub picture: Option<PictureId>,
    /// How upstream is asked for it in the caller's name.
    pub upstream: PictureRequest,
    /// What the query asks.
    pub transform: Transform,
    /// What the client can show.
    pub offer: OfferKind,
}

/// What to send.
pub enum Served {
    /// A picture that upstream has just said this caller may see.
    Picture(Picture),
    /// Upstream's own answer: a refusal, a redirect, something that is not for us.
    Relayed(Relayed),
}

/// A picture that may be sent to the caller who asked.
pub struct Picture {
    /// The bytes.
    pub body: PictureBody,
    /// The header of upstream's answer to this request.
    pub headers: HeaderMap,
    /// Upstream's `Cache-Control` for the picture, also where its 304 said none.
    pub cache_control: Option<HeaderValue>,
    /// Upstream's validator of the picture.
    pub validator: Option<Validator>,
    /// The untouched picture's length in bytes: what the client would have got without us.
    pub source_len: usize,
    /// Bytes of bodies that upstream sent for this request.
    pub upstream_bytes: usize,
    /// How it was come by.
    pub outcome: PictureOutcome,
}

/// The bytes of a [`Picture`].
pub enum PictureBody {
    /// A variant of ours.
    Encoded(Encoded),
    /// The source as upstream sent it.
    Source(Arc<SourceImage>),
    /// The source as upstream sent it, because there was no capacity to render: good for this once.
    StopGap(Arc<SourceImage>),
}

/// How a picture was come by: what upstream said, and where the bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureOutcome {
    /// Whether upstream sent a body for this request, or a 304.
    pub fetched: bool,
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
    /// Not: a picture that there was no capacity to look at.
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
}

/// Why a variant was not rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum RenderError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Upstream's verdict on one request.
enum Admission {
    /// This caller may see this picture.
    Granted(Box<Granted>),
    /// Upstream's answer is the answer.
    Relayed(Relayed),
}

/// How many fetches of others a request waits for before it asks for itself.
const FLIGHTS_TO_JOIN: usize = 2;

/// A request on its way to upstream by one worker's connections.
#[derive(Clone, Copy)]
struct Errand<'a> {
    upstream: &'a Upstream,
    request: &'a AvatarRequest,
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
struct Granted {
    record: Arc<Record>,
    body: Option<Arc<SourceImage>>,
    headers: HeaderMap,
    upstream_bytes: usize,
}

/// The two calls into `render`, so that a test can put codecs in their place that panic or never end.
#[derive(Clone, Copy)]
struct Codecs {
    decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError>,
    render: fn(&Pixels, &Recipe, usize) -> Result<Variant, EncodeError>,
}

/// Serves and forgets pictures. Built once, shared by every worker.
pub struct Avatars {
    codecs: Codecs,
    telemetry: Arc<Telemetry>,
    sources: Sources,
    variants: Variants,
    pixels: PixelCache<Pixels>,
    pool: RenderPool,
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
            codecs: Codecs { decode: render::decode, render: render::render },
            sources: Sources::new(&settings.cache, evictions(&telemetry, CacheName::Sources)),
            variants: Variants::new(&settings.cache, evictions(&telemetry, CacheName::Variants)),
            pixels: PixelCache::new(&settings.cache, Pixels::memory, evictions(&telemetry, CacheName::Pixels)),
            pool: RenderPool::new(settings.render),
            settings,
            telemetry,
        }
    }

    /// Answers a request for a picture, asking upstream by this worker's connections.
    ///
    /// # Errors
    /// Upstream could not be asked, or there is no capacity.
    pub async fn serve(&self, upstream: &Upstream, request: &AvatarRequest) -> Result<Served, AvatarError> {
        let errand = Errand { upstream, request };
        let granted = match self.admit(errand).await? {
            Admission::Granted(granted) => granted,
            Admission::Relayed(relayed) => return relayed.shown_to(request).map(Served::Relayed),
        };
        if let Some(served) = self.compose(request, *granted).await? {
            return Ok(Served::Picture(served));
        }
        // Upstream said "not modified", but the bytes were let go in between: ask for them.
        self.telemetry.fault(Fault::EvictedRefetch);
        let key = request.picture.map(|picture| self.sources.key(picture));
        match self.fetch(errand, key).await? {
            Admission::Granted(granted) => {
                let served = self.compose(request, *granted).await?;
                Ok(Served::Picture(served.expect("a fetched picture has its bytes")))
            }
            Admission::Relayed(relayed) => relayed.shown_to(request).map(Served::Relayed),
        }
    }

    /// Forgets a picture that was, or may have been, changed.
    pub fn forget(&self, picture: PictureId) {
        self.sources.forget(picture);
    }

    /// Forgets what is known of every picture, when it cannot be told which one was changed.
    pub fn forget_all(&self) {
        self.sources.forget_all();
    }

    /// What each cache holds now.
    #[must_use]
    pub fn usage(&self) -> CacheUsage {
        CacheUsage { sources: self.sources.usage(), variants: self.variants.usage(), pixels: self.pixels.usage() }
    }

    /// Does the bookkeeping that the caches leave to the next access; to be called now and then.
    pub async fn tidy(&self) {
        self.sources.tidy().await;
        self.variants.tidy().await;
        self.pixels.tidy().await;
    }

    /// Asks upstream whether this caller may see this picture.
    async fn admit(&self, errand: Errand<'_>) -> Result<Admission, UpstreamError> {
        let Some(picture) = errand.request.picture.filter(|picture| picture.kind.has_validator()) else {
            return self.fetch(errand, None).await;
        };
        for _ in 0..FLIGHTS_TO_JOIN {
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
                Ok(record) => return self.revalidate(errand, key, record).await,
                // There is no permission in it, and asking after one another would take as long for each (F02).
                Err(Flight::NoAnswer(error)) => return Err(error),
                // Another caller was refused, or there was nothing to keep: that says nothing about this one.
                Err(Flight::NothingToKeep) => {}
            }
        }
        let key = self.sources.key(picture);
        self.fetch(errand, Some(key)).await
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

    async fn fetch(&self, errand: Errand<'_>, key: Option<RecordKey>) -> Result<Admission, UpstreamError> {
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

    /// Turns what the caller may see into what the caller asked for; `None` when the bytes would be needed and are gone.
    async fn compose(&self, request: &AvatarRequest, granted: Granted) -> Result<Option<Picture>, AvatarError> {
        let (hash, info) = (granted.record.source, granted.record.info);
        let untouched = self.sources.rejection(&hash).await.is_some();
        let plan = request.transform.plan(request.offer, &info);
        let rendered = match plan {
            Plan::Render(recipe) if !untouched => {
                let key = VariantKey { source: hash, recipe };
                if let Some(variant) = self.variants.get(&key).await {
                    Ok((variant, Lookup::Hit))
                } else {
                    let Some(body) = self.body_of(&granted).await else { return Ok(None) };
                    self.render(key, body).await
                }
            }
            Plan::Render(_) | Plan::Untouched => Ok((Arc::new(Variant::SourceIsBest), Lookup::Hit)),
        };
        let (body, lookup) = match rendered {
            Ok((variant, lookup)) => match &*variant {
                Variant::Encoded(encoded) => (PictureBody::Encoded(encoded.clone()), Some(lookup)),
                Variant::SourceIsBest => {
                    let Some(source) = self.body_of(&granted).await else { return Ok(None) };
                    (PictureBody::Source(source), None)
                }
            },
            Err(error) => {
                self.count_render_fault(&error);
                let Some(source) = self.body_of(&granted).await else { return Ok(None) };
                if !shows(request.offer, source.info.format) {
                    return Err(AvatarError::Overloaded);
                }
                (PictureBody::StopGap(source), None)
            }
        };
        Ok(Some(Picture {
            body,
            cache_control: granted.record.cache_control.clone(),
            validator: granted.record.validator.clone(),
            source_len: granted.record.source_len,
            outcome: PictureOutcome { fetched: granted.body.is_some(), variant: lookup },
            upstream_bytes: granted.upstream_bytes,
            headers: granted.headers,
        }))
    }

    async fn body_of(&self, granted: &Granted) -> Option<Arc<SourceImage>> {
        match &granted.body {
            Some(body) => Some(body.clone()),
            None => self.sources.body(&granted.record.source).await,
        }
    }

    async fn render(&self, key: VariantKey, source: Arc<SourceImage>) -> Result<(Arc<Variant>, Lookup), RenderError> {
        let (render, recipe, source_len) = (self.codecs.render, key.recipe, source.bytes.len());
        let rendered = async {
            let pixels = self.pixels(&source).await?;
            let timed = move || {
                let started = Instant::now();
                (render(&pixels, &recipe, source_len), started.elapsed())
            };
            let ((variant, took), waited) = self.fenced(source.hash, timed).await?;
            let variant = variant?;
            self.telemetry.render_stage(Stage::Queue, waited);
            self.telemetry.render_stage(Stage::ResizeEncode, took);
            if let Variant::Encoded(encoded) = &variant {
                self.telemetry.rendered(encoded.format);
            }
            Ok(Arc::new(variant))
        };
        // On the heap, like every step that a hit does not take: its state is many times that of a hit.
        self.variants.get_or_render(key, Box::pin(rendered)).await
    }

    /// The pixels of a source that is known to decode.
    async fn pixels(&self, source: &Arc<SourceImage>) -> Result<Arc<Pixels>, RenderError> {
        let decode = async { Ok(Arc::new(self.decode(source.hash, source.bytes.clone()).await?)) };
        self.pixels.get_or_decode(source.hash, decode).await
    }

    async fn decode(&self, hash: ContentHash, bytes: Bytes) -> Result<Pixels, RenderError> {
        let (decode, limits) = (self.codecs.decode, self.settings.limits);
        let timed = move || {
            let started = Instant::now();
            (decode(&bytes, &limits), started.elapsed())
        };
        let ((pixels, took), waited) = self.fenced(hash, timed).await?;
        self.telemetry.render_stage(Stage::Queue, waited);
        self.telemetry.render_stage(Stage::Decode, took);
        Ok(pixels?)
    }

    /// Runs pixel work in the pool; a source that makes a codec panic is not touched again.
    async fn fenced<T: Send + 'static>(
        &self,
        hash: ContentHash,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Duration), RenderError> {
        let done = self.pool.run(work).await;
        if done.as_ref().is_err_and(|error| *error == PoolError::Panicked) {
            self.sources.reject(hash, Rejection::Quarantined).await;
        }
        Ok(done?)
    }

    fn count_render_fault(&self, error: &RenderError) {
        self.telemetry.fault(match error {
            RenderError::Pool(PoolError::QueueFull) => Fault::QueueFull,
            RenderError::Pool(PoolError::QueueTimeout) => Fault::QueueTimeout,
            RenderError::Pool(PoolError::Panicked) => Fault::DecoderPanic,
            RenderError::Decode(_) | RenderError::Encode(_) => Fault::BrokenPicture,
        });
    }
}

fn evictions(telemetry: &Arc<Telemetry>, cache: CacheName) -> OnEviction {
    let telemetry = telemetry.clone();
    Arc::new(move || telemetry.evicted(cache))
}

/// Whether a client to whom `offer` may be made shows a source of this format as it is.
const fn shows(offer: OfferKind, source: SourceFormat) -> bool {
    !matches!(source, SourceFormat::Webp)
        || matches!(offer, OfferKind::Webp | OfferKind::Original | OfferKind::Only(Format::Webp))
}

impl Relayed {
    /// A picture that nobody looked at may be of a format that this client cannot show.
    fn shown_to(self, request: &AvatarRequest) -> Result<Self, AvatarError> {
        let webp = self.answer.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"image/webp");
        if self.keep == Keep::StopGap && webp && !shows(request.offer, SourceFormat::Webp) {
            return Err(AvatarError::Overloaded);
        }
        Ok(self)
    }
}
