//! The decisions: what to serve, and to whom.
//!
//! Every request asks upstream with its caller's own credentials, by a conditional GET where a validator is known, and
//! only upstream's 200 or 304 to *this* request releases pixels. What is shared is the work: bodies, pixels and
//! variants are kept by content hash, whoever they were fetched for.

mod admission;
mod examine;
pub mod render_pool;
mod rendering;
#[cfg(test)]
mod tests;

use crate::cache::{Lookup, OnEviction, PixelCache, Sources, Usage, Variants};
use crate::identity::PictureId;
use crate::render::{self, Limits, Pixels};
use crate::source::{SourceFormat, SourceImage, Validator};
use crate::telemetry::{CacheName, Fault, Telemetry};
use crate::upstream::{Answer, PictureRequest, Upstream, UpstreamError};
use crate::variant::negotiation::OfferKind;
use crate::variant::transform::Transform;
use crate::variant::{Encoded, Format, Plan, Variant, VariantKey};
use admission::{Admission, Errand, Granted};
use http::header::{self, HeaderMap, HeaderValue};
use render_pool::RenderPool;
use rendering::Codecs;
use std::sync::Arc;

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
