//! The decisions: what to serve, and to whom.
//!
//! Every request asks upstream with its caller's own credentials, by a conditional GET where a validator is known, and
//! only upstream's 200 or 304 to *this* request releases pixels. What is shared is the work: bodies, pixels and
//! variants are kept by content hash, whoever they were fetched for.

mod examine;
pub mod render_pool;

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
    /// It is a picture that does not decode, and still did not when asked for once more: no browser may keep it.
    pub broken: bool,
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

/// What upstream has just shown this caller.
struct Granted {
    record: Arc<Record>,
    body: Option<Arc<SourceImage>>,
    headers: HeaderMap,
    upstream_bytes: usize,
}

/// Serves and forgets pictures. Built once, shared by every worker.
pub struct Avatars {
    upstream: Arc<Upstream>,
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
    /// Empty caches before `upstream`.
    #[must_use]
    pub fn new(settings: Settings, upstream: Arc<Upstream>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            upstream,
            sources: Sources::new(&settings.cache, evictions(&telemetry, CacheName::Sources)),
            variants: Variants::new(&settings.cache, evictions(&telemetry, CacheName::Variants)),
            pixels: PixelCache::new(&settings.cache, Pixels::memory, evictions(&telemetry, CacheName::Pixels)),
            pool: RenderPool::new(settings.render),
            settings,
            telemetry,
        }
    }

    /// Answers a request for a picture.
    ///
    /// # Errors
    /// Upstream could not be asked, or there is no capacity.
    pub async fn serve(&self, request: &AvatarRequest) -> Result<Served, AvatarError> {
        let granted = match self.within_time(self.admit(request)).await? {
            Admission::Granted(granted) => granted,
            Admission::Relayed(relayed) => return Ok(Served::Relayed(relayed)),
        };
        if let Some(served) = self.compose(request, *granted).await? {
            return Ok(Served::Picture(served));
        }
        // Upstream said "not modified", but the bytes were let go in between: ask for them.
        self.telemetry.fault(Fault::EvictedRefetch);
        let key = request.picture.map(|picture| self.sources.key(picture));
        match self.within_time(self.fetch(request, key)).await? {
            Admission::Granted(granted) => {
                let served = self.compose(request, *granted).await?;
                Ok(Served::Picture(served.expect("a fetched picture has its bytes")))
            }
            Admission::Relayed(relayed) => Ok(Served::Relayed(relayed)),
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
        CacheUsage {
            sources: self.sources.usage(),
            variants: self.variants.usage(),
            pixels: self.pixels.usage(),
        }
    }

    /// A picture that trickles in would keep every other time-out from firing (F11).
    async fn within_time<T>(&self, asked: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UpstreamError> {
        let whole = tokio::time::timeout(self.upstream.picture_timeout(), asked);
        whole.await.unwrap_or(Err(UpstreamError::TimedOut))
    }

    /// Asks upstream whether this caller may see this picture.
    async fn admit(&self, request: &AvatarRequest) -> Result<Admission, UpstreamError> {
        let Some(picture) = request.picture.filter(|picture| picture.kind.has_validator()) else {
            return self.fetch(request, None).await;
        };
        // Taken before upstream is asked: what is fetched under it is found only while nothing was forgotten since.
        let key = self.sources.key(picture);
        if let Some(record) = self.sources.record(&key).await {
            return self.revalidate(request, key, record).await;
        }
        let mut ours = None;
        let fetch = async {
            let admission = self.fetch(request, None).await;
            let record = admission.as_ref().ok().and_then(Admission::record);
            ours = Some(admission);
            record
        };
        let joined = self.sources.join_fetch(key, fetch).await;
        match (ours, joined) {
            (Some(ours), _) => ours,
            // Another caller's fetch brought the validator: now upstream is asked about this one.
            (None, Some(record)) => self.revalidate(request, key, record).await,
            (None, None) => self.fetch(request, Some(key)).await,
        }
    }

    async fn revalidate(&self, request: &AvatarRequest, key: RecordKey, record: Arc<Record>) -> Result<Admission, UpstreamError> {
        let answer = self.ask(request, record.validator.as_ref()).await?;
        if answer.status != http::StatusCode::NOT_MODIFIED {
            return self.examine(request, Some(key), answer).await;
        }
        let named = answer.headers.get(header::ETAG).and_then(|tag| Validator::new(tag.as_bytes()));
        if named.is_some() && named != record.validator {
            self.telemetry.fault(Fault::ValidatorMismatch);
            return self.fetch(request, Some(key)).await;
        }
        Ok(Admission::Granted(Box::new(Granted {
            record,
            body: None,
            headers: answer.headers,
            upstream_bytes: 0,
        })))
    }

    async fn fetch(&self, request: &AvatarRequest, key: Option<RecordKey>) -> Result<Admission, UpstreamError> {
        let answer = self.ask(request, None).await?;
        self.examine(request, key, answer).await
    }

    async fn ask(&self, request: &AvatarRequest, validator: Option<&Validator>) -> Result<Answer, UpstreamError> {
        let asked = Instant::now();
        let answer = self.upstream.picture(&request.upstream, validator).await?;
        self.telemetry.upstream_answered(UpstreamKind::Picture, answer.status, asked.elapsed());
        Ok(answer)
    }

    /// Takes upstream's answer apart. A picture that does not decode is asked for once more: a real server sends empty
    /// and cut-off bodies while a picture changes (mattermost.md, fact 13).
    async fn examine(&self, request: &AvatarRequest, key: Option<RecordKey>, answer: Answer) -> Result<Admission, UpstreamError> {
        let first = match self.examine_once(answer).await? {
            Examined::Picture(granted) => return Ok(self.keep(key, granted).await),
            Examined::Relay(answer) => return Ok(Admission::Relayed(Relayed { answer, broken: false })),
            Examined::Broken(answer) => answer,
        };
        self.telemetry.fault(Fault::Retried);
        let again = match self.ask(request, None).await {
            Ok(answer) => self.examine_once(answer).await,
            Err(error) => Err(error),
        };
        Ok(match again {
            Ok(Examined::Picture(granted)) => self.keep(key, granted).await,
            Ok(Examined::Relay(answer)) => Admission::Relayed(Relayed { answer, broken: false }),
            Ok(Examined::Broken(answer)) => Admission::Relayed(Relayed { answer, broken: true }),
            Err(_) => Admission::Relayed(Relayed { answer: first, broken: true }),
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
                match self.variants.get(&key).await {
                    Some(variant) => Ok((variant, Lookup::Hit)),
                    None => {
                        let Some(body) = self.body_of(&granted).await else { return Ok(None) };
                        self.render(key, body).await
                    }
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
        let render = async {
            let pixels = self.pixels(&source).await?;
            let (recipe, source_len): (Recipe, usize) = (key.recipe, source.bytes.len());
            let timed = move || {
                let started = Instant::now();
                (render::render(&pixels, &recipe, source_len), started.elapsed())
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
        self.variants.get_or_render(key, render).await
    }

    /// The pixels of a source that is known to decode.
    async fn pixels(&self, source: &Arc<SourceImage>) -> Result<Arc<Pixels>, RenderError> {
        let decode = async { Ok(Arc::new(self.decode(source.hash, source.bytes.clone()).await?)) };
        self.pixels.get_or_decode(source.hash, decode).await
    }

    async fn decode(&self, hash: ContentHash, bytes: Bytes) -> Result<Pixels, RenderError> {
        let limits = self.settings.limits;
        let timed = move || {
            let started = Instant::now();
            (render::decode(&bytes, &limits), started.elapsed())
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
    !matches!(source, SourceFormat::Webp) || matches!(offer, OfferKind::Webp | OfferKind::Original | OfferKind::Only(Format::Webp))
}

impl Admission {
    fn record(&self) -> Option<Arc<Record>> {
        match self {
            Self::Granted(granted) => granted.record.validator.is_some().then(|| granted.record.clone()),
            Self::Relayed(_) => None,
        }
    }
}
