//! WebP (RFC 9649): still pictures, lossy and lossless, and the first frame of an animation.

use super::lossless::codes;
use super::{DecodeError, Decoded, Limits, Walk, admit, broken, cut_off, image_limits, orientation, refused};
use crate::render::raster::Raster;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};
use std::borrow::Cow;
use std::io::Cursor;

pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let outline = outline(bytes, limits)?;
    let raster = pixels(bytes, &outline, limits)?;
    let animated = outline.canvas.is_some_and(|canvas| canvas.moves) && outline.frames > 1;
    let profile = outline.profile.map(Cow::Borrowed);
    Ok(Decoded { raster, animated, orientation: outline.orientation, profile })
}

/// The picture of a file, or the first of its frames.
pub(in crate::render) fn pixels(bytes: &[u8], outline: &Outline<'_>, limits: &Limits) -> Result<Raster, DecodeError> {
    let moves = outline.canvas.is_some_and(|canvas| canvas.moves);
    if moves && outline.frames == 0 {
        return Err(broken("an animation without frames"));
    }
    let picture = outline.picture.as_ref().ok_or_else(|| broken("no picture"))?;
    let size = outline.canvas.map_or(picture.size, |canvas| (canvas.width, canvas.height));
    admit(size.0, size.1, 4, limits)?;
    // What is handed out; an animation is laid on a canvas of the decoder's and has its frame beside that.
    let result = area(size) * if moves { 8 } else { 4 } + if moves { 4 * area(picture.size) } else { 0 };
    if picture.memory(result, limits)? > limits.decoder_memory {
        return Err(DecodeError::OverLimit("decoder memory"));
    }
    // Reads the header and the list of chunks, and allocates nothing of the picture's size.
    let mut decoder = WebPDecoder::new(Cursor::new(&bytes[..outline.end])).map_err(|error| refused(&error))?;
    if decoder.dimensions() != size || decoder.has_animation() != moves {
        return Err(broken("another picture than its chunks say"));
    }
    decoder.set_limits(image_limits(limits)).map_err(|error| refused(&error))?;
    let colour = decoder.color_type();
    let length = usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; length];
    decoder.read_image(&mut samples).map_err(|error| refused(&error))?;
    Ok(match colour {
        ColorType::Rgba8 => Raster::with_alpha(size.0, size.1, samples),
        _ => Raster::opaque(size.0, size.1, samples),
    })
}

fn area((width, height): (u32, u32)) -> u64 {
    u64::from(width) * u64::from(height)
}

/// What the chunks say without being decoded.
pub(in crate::render) struct Outline<'a> {
    /// What a file of more than one chunk says of the whole (section 2.7.1).
    pub(in crate::render) canvas: Option<Canvas>,
    /// The picture, or that of the first frame.
    picture: Option<Picture<'a>>,
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

/// The chunks that one picture is made of. Each has a size of its own, by which the decoder goes before it looks whether it
/// is the one that was announced.
#[derive(Clone, Copy)]
struct Picture<'a> {
    size: (u32, u32),
    data: &'a [u8],
    lossless: bool,
    alpha: Option<&'a [u8]>,
}

impl<'a> Picture<'a> {
    /// What the decoder allocates for it beside a result of so many bytes, and that, as far as it is within the limit.
    fn memory(&self, result: u64, limits: &Limits) -> Result<u64, DecodeError> {
        // Of transforms and groups there are three pictures of a sixteenth at most, and a list of the groups.
        let lossless = |data: &[u8], plane: u64| {
            let planes = result.saturating_add(plane * area(self.size));
            let left = limits.decoder_memory.checked_sub(planes).ok_or(DecodeError::OverLimit("decoder memory"))?;
            codes(data, self.size, left).map(|codes| planes + codes)
        };
        if self.lossless {
            // Behind a signature and the size.
            return lossless(self.data.get(5..).unwrap_or_default(), 4 + 1);
        }
        let whole = |edge: u32| u64::from(edge.next_multiple_of(16));
        let lossy = whole(self.size.0) * whole(self.size.1) * 3 / 2 + self.data.len() as u64;
        match self.alpha {
            // The two lowest bits say how it is compressed (section 2.7.1.2).
            Some([head, alpha @ ..]) if head & 3 == 1 => Ok(lossless(alpha, 4 + 1 + 1)? + lossy),
            Some(_) => Ok(result + lossy + area(self.size)),
            None => Ok(result + lossy),
        }
    }

    /// Takes a chunk that is a part of a picture; `announced` is the size that there has to be.
    fn take(
        picture: &mut Option<Self>,
        alpha: &mut Option<&'a [u8]>,
        chunk: &Chunk<'a>,
        announced: Option<(u32, u32)>,
    ) -> Result<(), DecodeError> {
        let (size, lossless) = match chunk.kind {
            b"ALPH" if alpha.is_none() && picture.is_none() => {
                *alpha = Some(chunk.data);
                return Ok(());
            }
            b"ALPH" => return Err(broken("an alpha channel too many")),
            b"VP8 " => (lossy_size(chunk.data)?, false),
            b"VP8L" => (lossless_size(chunk.data)?, true),
            _ => return Ok(()),
        };
        if picture.is_some() {
            return Err(broken("a picture too many"));
        }
        if announced.is_some_and(|announced| announced != size) {
            return Err(broken("a picture of another size than announced"));
        }
        *picture = Some(Self { size, data: chunk.data, lossless, alpha: *alpha });
        Ok(())
    }
}

/// The size in the header of a key frame (RFC 6386 section 9.1).
fn lossy_size(data: &[u8]) -> Result<(u32, u32), DecodeError> {
    match data {
        [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] => {
            let edge = |low: &u8, high: &u8| u32::from(u16::from_le_bytes([*low, *high]) & 0x3fff);
            Ok((edge(w0, w1), edge(h0, h1)))
        }
        _ => Err(broken("no key frame")),
    }
}

/// The size in the header of a lossless picture (section 3.4).
fn lossless_size(data: &[u8]) -> Result<(u32, u32), DecodeError> {
    match data {
        [0x2f, a, b, c, d, ..] => {
            let header = u32::from_le_bytes([*a, *b, *c, *d]);
            Ok(((header & 0x3fff) + 1, ((header >> 14) & 0x3fff) + 1))
        }
        _ => Err(broken("no lossless picture")),
    }
}

/// Reads all chunks. A canvas over a limit is refused before anything else is looked at, and so is a file in which two
/// readers could see different pictures.
pub(in crate::render) fn outline<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Outline<'a>, DecodeError> {
    let mut riff = Walk { bytes, at: 4 };
    let length = riff.length(u32::from_le_bytes)?;
    riff.take(length)?;
    let mut walk = Walk { bytes: &bytes[..riff.at], at: 12 };
    let mut outline = Outline {
        canvas: None,
        picture: None,
        frames: 0,
        plays: 1,
        orientation: Orientation::NoTransforms,
        profile: None,
        end: riff.at,
    };
    let (mut still, mut alpha, mut first) = (None, None, true);
    while let Some(chunk) = chunk(&mut walk)? {
        let canvas = outline.canvas.map(|canvas| (canvas.width, canvas.height));
        match (chunk.kind, chunk.data) {
            (b"VP8X", &[flags, _, _, _, w0, w1, w2, h0, h1, h2, ..]) if first => {
                let (width, height) = (int24([w0, w1, w2]) + 1, int24([h0, h1, h2]) + 1);
                admit(width, height, 4, limits)?;
                outline.canvas = Some(Canvas { width, height, moves: flags & 0x02 != 0 });
            }
            (b"VP8X", _) => return Err(broken("a header that is short, or not the first chunk")),
            (b"ANIM", &[_, _, _, _, low, high, ..]) => outline.plays = u16::from_le_bytes([low, high]),
            (b"ANMF", data) => {
                let canvas = outline.canvas.filter(|canvas| canvas.moves).ok_or_else(|| broken("no animation"))?;
                let frame = frame(data, &canvas)?;
                outline.picture = outline.picture.or(Some(frame.picture));
                outline.frames += 1;
            }
            (b"ICCP", profile) => outline.profile = Some(profile),
            (b"EXIF", exif) => outline.orientation = orientation(exif),
            _ => Picture::take(&mut still, &mut alpha, &chunk, canvas)?,
        }
        first = false;
    }
    match outline.canvas {
        // A picture beside the frames is shown by nobody.
        Some(Canvas { moves: true, .. }) => {}
        _ => outline.picture = still,
    }
    if first { Err(cut_off()) } else { Ok(outline) }
}

/// A frame of an animation (section 2.7.1.1).
pub(in crate::render) struct Frame<'a> {
    pub(in crate::render) left: u32,
    pub(in crate::render) top: u32,
    pub(in crate::render) width: u32,
    pub(in crate::render) height: u32,
    /// In milliseconds.
    pub(in crate::render) delay: u32,
    pub(in crate::render) flags: u8,
    /// The chunks of its picture.
    pub(in crate::render) chunks: &'a [u8],
    picture: Picture<'a>,
}

/// Reads a frame and its chunks.
pub(in crate::render) fn frame<'a>(data: &'a [u8], canvas: &Canvas) -> Result<Frame<'a>, DecodeError> {
    let mut walk = Walk { bytes: data, at: 0 };
    let (left, top) = (2 * int24(walk.array()?), 2 * int24(walk.array()?));
    let (width, height) = (int24(walk.array()?) + 1, int24(walk.array()?) + 1);
    let (delay, flags) = (int24(walk.array()?), walk.byte()?);
    if left + width > canvas.width || top + height > canvas.height {
        return Err(broken("a frame outside its canvas"));
    }
    let chunks = &data[walk.at..];
    let (mut picture, mut alpha) = (None, None);
    while let Some(chunk) = chunk(&mut walk)? {
        Picture::take(&mut picture, &mut alpha, &chunk, Some((width, height)))?;
    }
    let picture = picture.ok_or_else(|| broken("a frame without a picture"))?;
    Ok(Frame { left, top, width, height, delay, flags, chunks, picture })
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
