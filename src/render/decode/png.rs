//! PNG (W3C PNG, third edition): all colour types and depths, interlaced too; of an animation the default picture.

use super::{DecodeError, Decoded, Limits, Walk, admit, broken, orientation};
use crate::render::raster::Raster;
use image::metadata::Orientation;
use png::{ColorType, DecodingError, Transformations};
use std::io::Cursor;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    let outline = outline(bytes)?;
    admit(outline.width, outline.height, 4, limits)?;
    Ok(Decoded {
        raster: pixels(&bytes[..outline.end], limits)?,
        animated: outline.animated,
        orientation: outline.orientation,
    })
}

/// What the chunks say without being decompressed.
struct Outline {
    width: u32,
    height: u32,
    animated: bool,
    orientation: Orientation,
    /// Where the picture ends.
    end: usize,
}

fn outline(bytes: &[u8]) -> Result<Outline, DecodeError> {
    let mut walk = Walk { bytes, at: SIGNATURE.len() };
    let mut outline =
        Outline { width: 0, height: 0, animated: false, orientation: Orientation::NoTransforms, end: bytes.len() };
    let mut seen_data = false;
    loop {
        let length = walk.length(u32::from_be_bytes)?;
        let kind = walk.array::<4>()?;
        let data = walk.take(length)?;
        let _checksum = walk.array::<4>()?;
        match (&kind, data) {
            (b"IHDR", &[w0, w1, w2, w3, h0, h1, h2, h3, ..]) => {
                outline.width = u32::from_be_bytes([w0, w1, w2, w3]);
                outline.height = u32::from_be_bytes([h0, h1, h2, h3]);
            }
            // Behind the first data the chunk means nothing (section 11.3.6.1).
            (b"acTL", &[n0, n1, n2, n3, ..]) if !seen_data => {
                outline.animated = u32::from_be_bytes([n0, n1, n2, n3]) > 1;
            }
            (b"eXIf", exif) => outline.orientation = orientation(exif),
            (b"IDAT", _) => seen_data = true,
            (b"IEND", _) => {
                outline.end = walk.at;
                return Ok(outline);
            }
            _ => {}
        }
    }
}

fn pixels(bytes: &[u8], limits: &Limits) -> Result<Raster, DecodeError> {
    let bytes_allowed = usize::try_from(limits.decoder_memory).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: bytes_allowed });
    // A compressed profile of a few kilobytes can inflate to the whole limit, and nothing here reads it.
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| refused(&error))?;
    let size = reader.output_buffer_size().ok_or(DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(|error| refused(&error))?;
    let grey = |samples: &[u8]| samples.iter().flat_map(|&grey| [grey; 3]).collect();
    let grey_alpha =
        |samples: &[u8]| samples.as_chunks().0.iter().flat_map(|&[grey, a]| [grey, grey, grey, a]).collect();
    Ok(match frame.color_type {
        ColorType::Rgb => Raster::opaque(frame.width, frame.height, samples),
        ColorType::Rgba => Raster::with_alpha(frame.width, frame.height, samples),
        ColorType::Grayscale => Raster::opaque(frame.width, frame.height, grey(&samples)),
        ColorType::GrayscaleAlpha => Raster::with_alpha(frame.width, frame.height, grey_alpha(&samples)),
        ColorType::Indexed => return Err(broken("a palette that was not expanded")),
    })
}

fn refused(error: &DecodingError) -> DecodeError {
    match error {
        DecodingError::LimitsExceeded => DecodeError::OverLimit("decoder memory"),
        other => broken(other),
    }
}
