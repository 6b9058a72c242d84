//! Pixels: source bytes in, encoded bytes out. The only room that names codecs; sync and pure.

mod decode;
mod encode;
mod motion;
mod raster;
mod resize;

use crate::source::SourceInfo;
use crate::variant::{Encoded, Format, Geometry, Recipe, Variant};
use raster::Raster;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// What a picture may cost before it is relayed as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest edge in pixels.
    pub edge: u32,
    /// Width times height.
    pub pixels: u64,
    /// Bytes that a decoder may allocate.
    pub decoder_memory: u64,
    /// How many frames of a moving picture are rendered.
    pub frames: u32,
    /// Width times height times frames of a moving picture.
    pub frame_pixels: u64,
    /// What rendering all frames of a moving picture may take of a processor's time.
    pub animation_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            edge: 4096,
            pixels: 8_000_000,
            decoder_memory: 32 << 20,
            frames: 500,
            frame_pixels: 32_000_000,
            animation_time: Duration::from_secs(2),
        }
    }
}

/// Why bytes did not become pixels.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// A picture that we leave alone: of a kind that is not decoded here (SVG, BMP, TIFF, AVIF and the like), or of one
    /// that is, in a form that is not (JPEG with four components).
    #[error("not a kind of picture that is decoded here")]
    Unsupported,
    /// Over a limit; named without decoding where the header tells.
    #[error("over a limit: {0}")]
    OverLimit(&'static str),
    /// A picture of a kind that we know, cut off or damaged; or nothing that looks like a picture, or nothing at all.
    #[error("does not decode: {0}")]
    Broken(String),
}

/// Why pixels did not become a file.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("does not encode: {0}")]
pub struct EncodeError(pub String);

/// Why a moving picture was not rendered, and is to be sent as it came.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum MotionError {
    /// A frame did not become pixels, or all of them are too much.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The frames did not become a file.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A decoded picture: the first frame, upright, 8 bits a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pixels {
    /// What is known of the source now that the pixels were seen.
    pub info: SourceInfo,
    raster: Raster,
}

impl Pixels {
    /// Bytes of memory that they take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.raster.samples.len()
    }
}

/// Decodes the first frame.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, DecodeError> {
    decode::decode(bytes, limits)
}

/// Resizes and encodes `pixels` as `recipe` says; `source_len` is the length of the source in bytes, which an answer
/// must stay below when the source itself would do.
///
/// # Errors
/// When the geometry has no pixels or more than any format holds, or the encoder refuses.
pub fn render(pixels: &Pixels, recipe: &Recipe, source_len: usize) -> Result<Variant, EncodeError> {
    encode(resize(pixels, recipe.geometry)?.as_ref(), recipe, source_len)
}

/// The first half of [`render`]: brings `pixels` to `geometry`.
///
/// # Errors
/// When the geometry has no pixels or more than any format holds.
pub fn resize(pixels: &Pixels, geometry: Geometry) -> Result<Cow<'_, Pixels>, EncodeError> {
    Ok(match resize::resize(&pixels.raster, geometry)? {
        Cow::Borrowed(_) => Cow::Borrowed(pixels),
        Cow::Owned(raster) => {
            let (width, height, has_alpha) = (raster.width, raster.height, raster.has_alpha());
            Cow::Owned(Pixels { info: SourceInfo { width, height, has_alpha, ..pixels.info }, raster })
        }
    })
}

/// The second half of [`render`]: encodes `resized` as it is, whatever geometry `recipe` names.
///
/// # Errors
/// When the encoder refuses.
pub fn encode(resized: &Pixels, recipe: &Recipe, source_len: usize) -> Result<Variant, EncodeError> {
    let (format, bytes) = encode::encode(&resized.raster, recipe)?;
    if recipe.source_may_serve && bytes.len() >= source_len {
        return Ok(Variant::SourceIsBest);
    }
    Ok(Variant::Encoded(Arc::new(Encoded::new(bytes, format))))
}

/// Renders every frame of a moving picture, from its file to one animated WebP. The frames keep their times but for what
/// no browser keeps to: a tenth of a second stands for 10 ms and less.
///
/// # Errors
/// When a frame does not decode or encode, or the whole is over a limit: [`Limits::frames`], [`Limits::frame_pixels`]
/// and [`Limits::animation_time`] count here beside those of a single picture.
pub fn animate(source: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Variant, MotionError> {
    let bytes = motion::animate(source, recipe, limits)?;
    if recipe.source_may_serve && bytes.len() >= source.len() {
        return Ok(Variant::SourceIsBest);
    }
    Ok(Variant::Encoded(Arc::new(Encoded::new(bytes, Format::Webp))))
}
