//! Pixels and variants on demand: decoded and rendered in the pool, once for all who wait.

use super::Avatars;
use super::render_pool::{PoolError, Turn};
use crate::cache::{Lookup, Rejection};
use crate::render::{self, DecodeError, EncodeError, Limits, MotionError, Pixels, Targets};
use crate::source::{ContentHash, SourceImage};
use crate::telemetry::{Fault, Stage};
use crate::variant::{Offer, Recipe, Variant, VariantKey};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// [`render::improve`].
type Improve = fn(&Pixels, &Recipe, &Targets, usize, &dyn Fn() -> bool) -> Result<Option<Variant>, EncodeError>;

/// The calls into `render`, so that a test can put codecs in their place that panic or never end.
#[derive(Clone, Copy)]
pub(super) struct Codecs {
    pub(super) decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError>,
    pub(super) render: fn(&Pixels, &Recipe, &Targets, usize) -> Result<Variant, EncodeError>,
    pub(super) animate: fn(&[u8], &Recipe, &Targets, &Limits) -> Result<Variant, MotionError>,
    pub(super) improve: Improve,
}

impl Codecs {
    pub(super) const OURS: Self =
        Self { decode: render::decode, render: render::render, animate: render::animate, improve: resize_and_improve };
}

/// [`render::improve`] of a picture at the size that it is to have.
fn resize_and_improve(
    pixels: &Pixels,
    recipe: &Recipe,
    targets: &Targets,
    source_len: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Variant>, EncodeError> {
    render::improve(render::resize(pixels, recipe.geometry)?.as_ref(), recipe, targets, source_len, go_on)
}

/// Why a variant was not rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RenderError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Avatars {
    pub(super) async fn render(
        &self,
        key: VariantKey,
        source: Arc<SourceImage>,
    ) -> Result<(Variant, Lookup), RenderError> {
        let rendered = async {
            if key.recipe.offer == Offer::Moving {
                self.animate(key.recipe, &source).await
            } else {
                self.still(key.recipe, &source).await
            }
        };
        // On the heap, like every step that a hit does not take: its state is many times that of a hit.
        self.variants.get_or_render(key, Box::pin(rendered)).await
    }

    /// The picture, or its first frame. Whoever waits for a permit holds no pixels: they are found, or decoded anew, under
    /// the permit that renders them, so that there are never more of them than permits beside those in the cache.
    async fn still(&self, recipe: Recipe, source: &SourceImage) -> Result<Variant, RenderError> {
        if self.pixels.holds(source.info.pixel_bytes()) {
            // Once for all sizes of it that are asked for together.
            drop(self.pixels(source.hash, &source.bytes).await?);
        }
        let turn = self.pool.turn().await?;
        self.telemetry.render_stage(Stage::Queue, turn.waited);
        let pixels = match self.pixels.get(&source.hash).await {
            Some(pixels) => pixels,
            None => Arc::new(self.decode(&turn, source.hash, source.bytes.clone()).await?),
        };
        let (render, targets, source_len) = (self.codecs.render, self.settings.targets, source.bytes.len());
        let timed = move || {
            let started = Instant::now();
            (render(&pixels, &recipe, &targets, source_len), started.elapsed())
        };
        let (variant, took) = self.fenced(&turn, source.hash, timed).await?;
        let variant = variant?;
        self.telemetry.render_stage(Stage::ResizeEncode, took);
        if let Variant::Encoded(encoded) = &variant {
            self.telemetry.rendered(encoded.format);
        }
        Ok(variant)
    }

    /// All frames of a moving picture. One that is too much, or damaged behind its first frame, goes out as it came, now and
    /// ever after and at every size: to look at it for each request is what its limits are to keep from us. So does one that
    /// would come out too large to be kept, at this size.
    async fn animate(&self, recipe: Recipe, source: &Arc<SourceImage>) -> Result<Variant, RenderError> {
        let turn = self.pool.turn().await?;
        self.telemetry.render_stage(Stage::Queue, turn.waited);
        // Asked now and not before the wait: others may have found out meanwhile.
        if self.sources.is_too_much_to_move(&source.hash).await {
            return Ok(Variant::SourceIsBest);
        }
        let (animate, limits, bytes) = (self.codecs.animate, self.settings.limits, source.bytes.clone());
        let targets = self.settings.targets;
        let timed = move || {
            let started = Instant::now();
            (animate(&bytes, &recipe, &targets, &limits), started.elapsed())
        };
        let (variant, took) = self.fenced(&turn, source.hash, timed).await?;
        self.telemetry.render_stage(Stage::Animate, took);
        Ok(match variant {
            Ok(Variant::Encoded(encoded)) if encoded.bytes.len() as u64 <= self.settings.cache.max_entry => {
                self.telemetry.rendered(encoded.format);
                Variant::Encoded(encoded)
            }
            Ok(_) => Variant::SourceIsBest,
            Err(error) => {
                let too_much = matches!(error, MotionError::Decode(DecodeError::OverLimit(_)));
                self.telemetry.fault(if too_much { Fault::OverLimit } else { Fault::BrokenPicture });
                if matches!(error, MotionError::Decode(_)) {
                    self.sources.is_not_to_move(source.hash).await;
                }
                Variant::SourceIsBest
            }
        })
    }

    /// The pixels of the body of that name, decoded once for all who ask at the same time.
    pub(super) async fn pixels(&self, hash: ContentHash, bytes: &Bytes) -> Result<Arc<Pixels>, RenderError> {
        // Until the cache has them, or has let them go.
        let mut turn = None;
        let decode = async {
            let turn = turn.insert(self.pool.turn().await?);
            self.telemetry.render_stage(Stage::Queue, turn.waited);
            Ok(Arc::new(self.decode(turn, hash, bytes.clone()).await?))
        };
        self.pixels.get_or_decode(hash, decode).await
    }

    async fn decode(&self, turn: &Turn, hash: ContentHash, bytes: Bytes) -> Result<Pixels, RenderError> {
        let (decode, limits) = (self.codecs.decode, self.settings.limits);
        let timed = move || {
            let started = Instant::now();
            (decode(&bytes, &limits), started.elapsed())
        };
        let (pixels, took) = self.fenced(turn, hash, timed).await?;
        self.telemetry.render_stage(Stage::Decode, took);
        Ok(pixels?)
    }

    /// Runs pixel work in the pool; a source that makes a codec panic is not touched again.
    async fn fenced<T: Send + 'static>(
        &self,
        turn: &Turn,
        hash: ContentHash,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RenderError> {
        let done = turn.run(work).await;
        if done.is_err() {
            self.sources.reject(hash, Rejection::Quarantined).await;
        }
        Ok(done?)
    }

    pub(super) fn count_render_fault(&self, error: &RenderError) {
        self.telemetry.fault(match error {
            RenderError::Pool(PoolError::QueueTimeout) => Fault::QueueTimeout,
            RenderError::Pool(PoolError::Panicked) => Fault::DecoderPanic,
            RenderError::Pool(PoolError::QueueFull) | RenderError::Decode(DecodeError::NoThread) => Fault::QueueFull,
            RenderError::Decode(_) | RenderError::Encode(_) => Fault::BrokenPicture,
        });
    }
}
