//! WebP (RFC 9649): still pictures, lossy and lossless, and the first frame of an animation.

use super::{DecodeError, Decoded, Limits, Walk, admit, broken, cut_off, image_limits, orientation, refused};
use crate::render::raster::Raster;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};
use std::io::Cursor;

/// What the decoder allocates for a pixel, in bytes: the result, the planes that it is made from, and a plane of alpha.
const COST: u64 = 7;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let outline = outline(bytes)?;
    // Reads the header and the list of chunks, and allocates nothing of the picture's size.
    let mut decoder = WebPDecoder::new(Cursor::new(&bytes[..outline.end])).map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions();
    admit(width, height, COST, limits)?;
    if decoder.has_animation() && outline.frames == 0 {
        return Err(broken("an animation without frames"));
    }
    decoder.set_limits(image_limits(limits)).map_err(|error| refused(&error))?;
    let colour = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    decoder.read_image(&mut samples).map_err(|error| refused(&error))?;
    let raster = match colour {
        ColorType::Rgba8 => Raster::with_alpha(width, height, samples),
        _ => Raster::opaque(width, height, samples),
    };
    Ok(Decoded { raster, animated: outline.frames > 1, orientation: outline.orientation })
}

/// What the chunks say without being decoded.
struct Outline {
    /// Of an animation; a still picture has none.
    frames: u32,
    orientation: Orientation,
    /// Where the picture ends.
    end: usize,
}

fn outline(bytes: &[u8]) -> Result<Outline, DecodeError> {
    let mut riff = Walk { bytes, at: 4 };
    let length = riff.length(u32::from_le_bytes)?;
    riff.take(length)?;
    let mut walk = Walk { bytes: &bytes[..riff.at], at: 12 };
    let mut outline = Outline { frames: 0, orientation: Orientation::NoTransforms, end: riff.at };
    while walk.at < walk.bytes.len() {
        let kind = walk.array::<4>()?;
        let length = walk.length(u32::from_le_bytes)?;
        let data = walk.take(length)?;
        match &kind {
            b"ANMF" => outline.frames += 1,
            b"EXIF" => outline.orientation = orientation(data),
            _ => {}
        }
        // Chunks are padded to even lengths; some writers leave the last one as it is.
        if length % 2 == 1 && walk.at < walk.bytes.len() {
            walk.byte()?;
        }
    }
    if walk.at == 12 { Err(cut_off()) } else { Ok(outline) }
}
