//! Pixels: source bytes in, encoded bytes out. The only room that names codecs; sync and pure.

mod decode;
mod encode;
mod motion;
mod raster;
mod resize;
mod score;
mod search;

use crate::source::SourceInfo;
use crate::variant::{Encoded, Format, Geometry, Recipe, Variant};
use encode::aim::Aim;
use encode::colours::Content;
use raster::Raster;
use score::Judge;
use search::{Made, Try};
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

/// The score that an encoding must reach, on the scale of SSIMULACRA2: 100 is the same, at 90 hardly anybody can tell,
/// at 80 nobody would mind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Targets {
    /// For photographs and drawings.
    pub photo: f64,
    /// For letters and icons, whose flat areas show everything.
    pub flat: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self { photo: 80.0, flat: 90.0 }
    }
}

/// By how much more an asked quality stands for in flat pictures.
const FLAT_MORE: f64 = 10.0;

impl Targets {
    /// What is asked of `resized`, which is to become what `recipe` says: less of a photograph than of a letter.
    #[must_use]
    pub fn asked(&self, resized: &Pixels, recipe: &Recipe) -> f64 {
        self.of(resized.shown_content(recipe), recipe.quality)
    }

    /// What a first answer to `content` aims at, which nobody measures.
    fn aim(&self, content: Content, quality: Option<u8>) -> Aim {
        Aim::at(match (content, quality.map(f64::from)) {
            (_, Some(quality)) => quality,
            (Content::Letter, None) if self.flat < 100.0 => self.flat - FLAT_MORE,
            (Content::Letter, None) => self.flat,
            (_, None) => self.photo,
        })
    }

    /// What is asked of a picture: an asked quality is the target itself, and 10 more for flat pictures. 100 asks for
    /// the very pixels.
    fn of(&self, content: Content, quality: Option<u8>) -> f64 {
        match (content, quality.map(f64::from)) {
            (Content::Letter, None) => self.flat,
            (Content::Letter, Some(quality)) => (quality + FLAT_MORE).min(100.0),
            (_, None) => self.photo,
            (_, Some(quality)) => quality,
        }
    }
}

/// An encoding that was tried, for people to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// How it was made, in words.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its score; `None` where that was of no interest: it is longer than something that reaches the target, or the
    /// picture is too large.
    pub score: Option<f64>,
    /// How long it took to encode and to score.
    pub took: Duration,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the first answer, sent until the improvement is there.
    First,
    /// It is the improvement.
    Improved,
    /// The first answer, of which there is no improvement.
    FirstAndLast,
    /// It is not sent.
    Passed,
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
    /// The system gave no thread to decode it with, which says nothing of the picture.
    #[error("no thread to decode with")]
    NoThread,
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
    /// What they show, once they were brought to a size: the source tells it better than they do.
    content: Option<Content>,
}

impl Pixels {
    /// Bytes of memory that they take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.raster.samples.len()
    }

    /// What they show as `recipe` has them: what is flattened may show something else.
    fn shown_content(&self, recipe: &Recipe) -> Content {
        let flattened = encode::flattened(&self.raster, recipe);
        flattened.as_ref().map_or_else(|| self.content(), Content::of)
    }

    fn content(&self) -> Content {
        self.content.unwrap_or_else(|| Content::of(&self.raster))
    }
}

/// Decodes the first frame.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, DecodeError> {
    decode::decode(bytes, limits)
}

/// Resizes and encodes `pixels` as `recipe` says, to look about as alike as `targets` or an asked quality have it; `source_len` is the length of the source in bytes, which an answer
/// must stay below when the source itself would do.
///
/// # Errors
/// When the geometry has no pixels or more than any format holds, or the encoder refuses.
pub fn render(pixels: &Pixels, recipe: &Recipe, targets: &Targets, source_len: usize) -> Result<Variant, EncodeError> {
    encode(resize(pixels, recipe.geometry)?.as_ref(), recipe, targets, source_len)
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
            let content = Some(Content::of_resized(&raster, &pixels.raster));
            Cow::Owned(Pixels { info: SourceInfo { width, height, has_alpha, ..pixels.info }, raster, content })
        }
    })
}

/// The second half of [`render`]: encodes `resized` as it is, whatever geometry `recipe` names. One of which there will be
/// no improvement, for it is too large to be judged, is settled, and so is the source as an answer.
///
/// # Errors
/// When the encoder refuses.
pub fn encode(resized: &Pixels, recipe: &Recipe, targets: &Targets, source_len: usize) -> Result<Variant, EncodeError> {
    let aim = targets.aim(resized.shown_content(recipe), recipe.quality);
    let (format, bytes) = encode::encode(&resized.raster, resized.content(), recipe, aim)?;
    let variant = variant(format, &bytes, recipe, source_len);
    if score::is_comparable(&resized.raster) {
        // What takes no time may have found nothing smaller than the source where the search will.
        let may_be_better = variant == Variant::SourceIsBest;
        return Ok(if may_be_better { Variant::SourceForNow(Arc::default()) } else { variant });
    }
    variant.popularity().inspect(|popularity| popularity.settle());
    Ok(variant)
}

/// The better answer, for some hundred times the work of [`encode()`]: the smallest candidate that reaches the target, or
/// the source when that is smaller and may serve. `None` when `go_on`, which is asked between candidates, said no. A
/// picture of which more than 2^16 pixels would be compared (see `score`) keeps its first answer.
///
/// # Errors
/// When an encoder refuses.
pub fn improve(
    resized: &Pixels,
    recipe: &Recipe,
    targets: &Targets,
    source_len: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Variant>, EncodeError> {
    let tries = search::search(&resized.raster, resized.content(), recipe, targets, go_on)?;
    Ok(tries.map(|mut tries| {
        let best = tries.all.swap_remove(tries.best);
        variant(best.format, &best.file, recipe, source_len)
    }))
}

/// Everything that [`improve`] tries, in its order.
///
/// # Errors
/// When an encoder refuses.
pub fn candidates(resized: &Pixels, recipe: &Recipe, targets: &Targets) -> Result<Vec<Candidate>, EncodeError> {
    let tries = search::search(&resized.raster, resized.content(), recipe, targets, &|| true)?.expect("nobody cancels");
    let best = tries.best;
    let candidate = |(place, tried): (usize, Try)| Candidate {
        name: tried.made.describe(),
        format: tried.format,
        bytes: tried.file,
        score: tried.score,
        took: tried.took,
        fate: match (tried.made == Made::First, place == best) {
            (true, true) => Fate::FirstAndLast,
            (true, false) => Fate::First,
            (false, true) => Fate::Improved,
            (false, false) => Fate::Passed,
        },
    };
    Ok(tries.all.into_iter().enumerate().map(candidate).collect())
}

/// How alike `other` looks to `original`, on the scale of [`Targets`]; infinitely low when the sizes differ, `None` when
/// more than 2^16 pixels would be compared.
#[must_use]
pub fn score(original: &Pixels, other: &Pixels) -> Option<f64> {
    Judge::of(&original.raster).map(|judge| judge.score(&other.raster))
}

fn variant(format: Format, file: &[u8], recipe: &Recipe, source_len: usize) -> Variant {
    if recipe.source_may_serve && file.len() >= source_len {
        return Variant::SourceIsBest;
    }
    Variant::Encoded(Arc::new(Encoded::new(file, format)))
}

/// Renders every frame of a moving picture, from its file to one animated WebP. The frames keep their times but for what
/// no browser keeps to: a tenth of a second stands for 10 ms and less.
///
/// # Errors
/// When a frame does not decode or encode, or the whole is over a limit: [`Limits::frames`], [`Limits::frame_pixels`]
/// and [`Limits::animation_time`] count here beside those of a single picture.
pub fn animate(source: &[u8], recipe: &Recipe, targets: &Targets, limits: &Limits) -> Result<Variant, MotionError> {
    // What moves counts as no flat picture: nobody looks at one frame.
    let aim = targets.aim(Content::Drawing, recipe.quality);
    let bytes = motion::animate(source, recipe, aim, limits)?;
    if recipe.source_may_serve && bytes.len() >= source.len() {
        return Ok(Variant::SourceIsBest);
    }
    let encoded = Encoded::new(&bytes, Format::Webp);
    // Nobody has a measure for how alike two moving pictures look.
    encoded.popularity.settle();
    Ok(Variant::Encoded(Arc::new(encoded)))
}
