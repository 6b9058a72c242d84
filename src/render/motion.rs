//! Moving pictures: every frame of a source, composed, brought to its size, and one animated WebP of them.
//!
//! Frames come and go one by one, so memory holds one canvas and what was encoded. All limits that the file itself can
//! tell are held before the first frame is decoded, the time after each.

mod canvas;
mod gif;
mod png;
#[cfg(test)]
mod tests;
mod webp;

use super::decode::colour::Conversion;
use super::decode::{admit, broken, recognise};
use super::encode::aim::Aim;
use super::encode::animation::{Animation, Reel};
use super::resize::resize;
use super::{DecodeError, Limits, MotionError};
use crate::source::SourceFormat;
use crate::variant::Recipe;
use canvas::{Canvas, Patch};
use image::metadata::Orientation;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What a frame takes in memory at most, in bytes for each pixel of the canvas and for each [`Limits::decoder_memory`]
/// that a render may take: the canvas, what is decoded of the frame, what it is to be restored to, its size, and above
/// all libwebp's three canvases and what it knows of them while it looks for repetition.
const COST: u64 = 27;

/// What no browser keeps to, in milliseconds: frames that are to be shown so shortly are shown for [`SHOWN`] instead.
const TOO_SHORT: u32 = 10;
const SHOWN: u32 = 100;

/// A moving picture, its container read and nothing decoded.
struct Film<'a> {
    width: u32,
    height: u32,
    frames: u32,
    /// How often it is played, 0 for without end.
    plays: u16,
    orientation: Orientation,
    /// What brings its colours to sRGB.
    conversion: Option<Conversion>,
    /// As many as there are frames.
    patches: Box<dyn Iterator<Item = Result<Patch, DecodeError>> + 'a>,
}

/// Renders every frame of `bytes` into one file, each to look about as alike as is aimed at.
pub(super) fn animate(bytes: &[u8], recipe: &Recipe, aim: Aim, limits: &Limits) -> Result<Vec<u8>, MotionError> {
    let started = processor_time();
    let film = film(bytes, limits)?;
    film.admit(limits)?;
    let mut canvas = Canvas::new(film.width, film.height);
    let mut animation = None;
    for patch in film.patches {
        if processor_time().saturating_sub(started) > limits.animation_time {
            return Err(DecodeError::OverLimit("animation time").into());
        }
        let mut patch = patch?;
        if let Some(conversion) = &film.conversion {
            patch.picture = patch.picture.map(|picture| conversion.apply(picture));
        }
        let whole = canvas.show(&patch).upright(film.orientation);
        let frame = resize(&whole, recipe.geometry)?;
        let animation = if let Some(animation) = &mut animation {
            animation
        } else {
            let reel = Reel { width: frame.width, height: frame.height, frames: film.frames, plays: film.plays };
            animation.insert(Animation::new(&reel, aim)?)
        };
        animation.add(frame.into_owned(), if patch.delay <= TOO_SHORT { SHOWN } else { patch.delay })?;
    }
    Ok(animation.ok_or_else(|| broken("no frames"))?.finish()?)
}

fn film<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Film<'a>, DecodeError> {
    match recognise(bytes) {
        Some(SourceFormat::Gif) => gif::film(bytes, limits),
        Some(SourceFormat::Png) => png::film(bytes, limits),
        Some(SourceFormat::Webp) => webp::film(bytes, limits),
        Some(SourceFormat::Jpeg) | None => Err(DecodeError::Unsupported),
    }
}

impl Film<'_> {
    fn admit(&self, limits: &Limits) -> Result<(), DecodeError> {
        admit(self.width, self.height, COST, limits)?;
        if self.frames > limits.frames {
            return Err(DecodeError::OverLimit("frames"));
        }
        if u64::from(self.width) * u64::from(self.height) * u64::from(self.frames) > limits.frame_pixels {
            return Err(DecodeError::OverLimit("frame pixels"));
        }
        Ok(())
    }
}

/// What this thread has spent of a processor's time: on a busy machine a render is not given up sooner.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(spent).expect("a clock that started at zero")
}
