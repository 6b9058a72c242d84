//! WebP (RFC 9649): still pictures, lossy and lossless, and the first frame of an animation.

use super::{DecodeError, Decoded, Limits, Walk, admit, broken, cut_off, image_limits, orientation, refused};
use crate::render::raster::Raster;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};
use std::borrow::Cow;
use std::io::Cursor;

/// What the decoder allocates for a pixel, in bytes: the result, the planes that it is made from, and a plane of alpha.
const COST: u64 = 7;

pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let outline = outline(bytes)?;
    let raster = pixels(&bytes[..outline.end], outline.frames, limits)?;
    let animated = outline.canvas.is_some_and(|canvas| canvas.moves) && outline.frames > 1;
    let profile = outline.profile.map(Cow::Borrowed);
    Ok(Decoded { raster, animated, orientation: outline.orientation, profile })
}

/// The picture of a file of so many frames, or the first of them.
pub(in crate::render) fn pixels(bytes: &[u8], frames: u32, limits: &Limits) -> Result<Raster, DecodeError> {
    // Reads the header and the list of chunks, and allocates nothing of the picture's size.
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions();
    admit(width, height, COST, limits)?;
    if decoder.has_animation() && frames == 0 {
        return Err(broken("an animation without frames"));
    }
    decoder.set_limits(image_limits(limits)).map_err(|error| refused(&error))?;
    let colour = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    decoder.read_image(&mut samples).map_err(|error| refused(&error))?;
    Ok(match colour {
        ColorType::Rgba8 => Raster::with_alpha(width, height, samples),
        _ => Raster::opaque(width, height, samples),
    })
}

/// What the chunks say without being decoded.
pub(in crate::render) struct Outline<'a> {
    /// What a file of more than one chunk says of the whole (section 2.7.1).
    pub(in crate::render) canvas: Option<Canvas>,
    /// Of an animation; a still picture has none.
    pub(in crate::render) frames: u32,
    /// How often an animation is played, 0 for without end.
    pub(in crate::render) plays: u16,
    pub(in crate::render) orientation: Orientation,
    /// The colour profile.
    pub(in crate::render) profile: Option<&'a [u8]>,
    /// Where the picture ends.
    pub(in crate::render) end: usize,
}

/// The header of the extended format.
#[derive(Clone, Copy)]
pub(in crate::render) struct Canvas {
    pub(in crate::render) width: u32,
    pub(in crate::render) height: u32,
    moves: bool,
}

pub(in crate::render) fn outline(bytes: &[u8]) -> Result<Outline<'_>, DecodeError> {
    let mut riff = Walk { bytes, at: 4 };
    let length = riff.length(u32::from_le_bytes)?;
    riff.take(length)?;
    let mut walk = Walk { bytes: &bytes[..riff.at], at: 12 };
    let mut outline = Outline {
        canvas: None,
        frames: 0,
        plays: 1,
        orientation: Orientation::NoTransforms,
        profile: None,
        end: riff.at,
    };
    while let Some(Chunk { kind, data }) = chunk(&mut walk)? {
        match (kind, data) {
            (b"VP8X", &[flags, _, _, _, w0, w1, w2, h0, h1, h2, ..]) if outline.canvas.is_none() => {
                let (width, height) = (int24([w0, w1, w2]) + 1, int24([h0, h1, h2]) + 1);
                outline.canvas = Some(Canvas { width, height, moves: flags & 0x02 != 0 });
            }
            (b"ANIM", &[_, _, _, _, low, high, ..]) => outline.plays = u16::from_le_bytes([low, high]),
            (b"ANMF", _) => outline.frames += 1,
            (b"ICCP", profile) => outline.profile = Some(profile),
            (b"EXIF", exif) => outline.orientation = orientation(exif),
            _ => {}
        }
    }
    if walk.at == 12 { Err(cut_off()) } else { Ok(outline) }
}

/// A part of a file (section 2.3).
pub(in crate::render) struct Chunk<'a> {
    pub(in crate::render) kind: &'a [u8],
    pub(in crate::render) data: &'a [u8],
}

/// The next chunk, unless there is none.
pub(in crate::render) fn chunk<'a>(walk: &mut Walk<'a>) -> Result<Option<Chunk<'a>>, DecodeError> {
    if walk.at == walk.bytes.len() {
        return Ok(None);
    }
    let kind = walk.take(4)?;
    let length = walk.length(u32::from_le_bytes)?;
    let data = walk.take(length)?;
    // Chunks are padded to even lengths; some writers leave the last one as it is.
    if length % 2 == 1 && walk.at < walk.bytes.len() {
        walk.byte()?;
    }
    Ok(Some(Chunk { kind, data }))
}

/// A number of three bytes, the least first.
pub(in crate::render) fn int24([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}
