//! Pixels to the smallest file that looks the same, among the formats on offer.
//!
//! What suits a picture is told by its colours. A letter or a drawing has few, and takes a palette and a lossless
//! encoding, which is several times smaller than a lossy one and keeps the edges clean. A photograph has almost as many
//! colours as pixels and takes exactly one lossy encoding.

mod colours;
mod jpeg;
mod palette;
mod png;
mod webp;

use super::EncodeError;
use super::raster::Raster;
use crate::variant::{Format, Offer, Recipe};
use colours::Content;
use palette::Indexed;

/// Above this many pixels a palette is not looked for: it costs far more time there than a lossy encoding.
const PALETTE_PIXELS: usize = 1 << 18;

/// Up to this many pixels a palette can undercut JPEG even on a photograph, whose headers alone are some 300 bytes.
const PALETTE_BEATS_JPEG_PIXELS: usize = 40 * 40;

/// Encodes `raster` in the format among those on offer that takes the fewest bytes.
pub(super) fn encode(raster: &Raster, recipe: &Recipe) -> Result<(Format, Vec<u8>), EncodeError> {
    let quality = recipe.quality.map(|quality| quality.clamp(1, 100));
    let content = Content::of(raster);
    match recipe.offer {
        // PNG has nothing to add: its palette pictures are always the larger ones.
        Offer::Webp | Offer::Only(Format::Webp) => Ok((Format::Webp, webp(raster, content, quality)?)),
        Offer::Only(Format::Png) => Ok((Format::Png, png(raster, content, quality)?)),
        Offer::Only(Format::Jpeg) => Ok((Format::Jpeg, jpeg::encode(&raster.flattened(recipe.background), quality)?)),
        Offer::Basic if raster.has_alpha() => Ok((Format::Png, png(raster, content, quality)?)),
        Offer::Basic => basic(raster, content, quality),
    }
}

fn webp(raster: &Raster, content: Content, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
    let indexed = if content == Content::Photo { None } else { indexed(raster, content, quality) };
    let Some(indexed) = indexed else { return webp::lossy(raster, content, quality) };
    let lossless = webp::lossless(&indexed.raster())?;
    if content == Content::Letter {
        return Ok(lossless);
    }
    let lossy = webp::lossy(raster, content, quality)?;
    // The palette looks better at this size, so the lossy one has to be smaller by more than chance.
    Ok(if lossy.len() * 10 < lossless.len() * 9 { lossy } else { lossless })
}

fn png(raster: &Raster, content: Content, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
    match indexed(raster, content, quality) {
        Some(indexed) => png::indexed(&indexed),
        None => png::exact(raster),
    }
}

fn basic(raster: &Raster, content: Content, quality: Option<u8>) -> Result<(Format, Vec<u8>), EncodeError> {
    let worth_trying = content != Content::Photo || raster.len() <= PALETTE_BEATS_JPEG_PIXELS;
    let indexed = if worth_trying { indexed(raster, content, quality) } else { None };
    let Some(indexed) = indexed else { return Ok((Format::Jpeg, jpeg::encode(raster, quality)?)) };
    let png = png::indexed(&indexed)?;
    if content == Content::Letter {
        return Ok((Format::Png, png));
    }
    let jpeg = jpeg::encode(raster, quality)?;
    Ok(if jpeg.len() < png.len() { (Format::Jpeg, jpeg) } else { (Format::Png, png) })
}

fn indexed(raster: &Raster, content: Content, quality: Option<u8>) -> Option<Indexed> {
    (raster.len() <= PALETTE_PIXELS).then(|| palette::reduce(raster, tolerance(content, quality))).flatten()
}

/// How far a palette may be off: the mean of squared distances in RGBA. The defaults bring letters to about 90 and the
/// others to about 80 on the scale of SSIMULACRA2; an asked quality of 100 takes exact colours only.
fn tolerance(content: Content, quality: Option<u8>) -> f32 {
    let drawing = quality.map_or(20.0, |quality| f32::from(100 - quality).powi(2) / 20.0);
    match content {
        Content::Letter => drawing / 5.0,
        Content::Drawing => drawing,
        Content::Photo => drawing * 2.0,
    }
}
