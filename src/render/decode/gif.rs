//! GIF (version 89a): the first frame on its screen; what the frame leaves uncovered is transparent, as in browsers.

use super::{DecodeError, Decoded, Limits, Walk, admit, broken, image_limits, refused};
use crate::render::raster::Raster;
use image::ImageDecoder;
use image::codecs::gif::GifDecoder;
use image::metadata::Orientation;
use std::io::Cursor;

pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let outline = outline(bytes)?;
    admit(outline.width, outline.height, 4, limits)?;
    // A frame may be larger than its screen, and is decoded beside it.
    let (width, height) = outline.first;
    if width > 0 && height > 0 {
        admit(width, height, 4, limits)?;
    }
    Ok(Decoded {
        raster: pixels(&bytes[..outline.end], limits)?,
        animated: outline.frames > 1,
        orientation: Orientation::NoTransforms,
        profile: None,
    })
}

/// What the blocks say without being decompressed.
pub(in crate::render) struct Outline {
    pub(in crate::render) width: u32,
    pub(in crate::render) height: u32,
    pub(in crate::render) frames: u32,
    /// How large the first of them is.
    first: (u32, u32),
    /// How often an animation is played, 0 for without end.
    pub(in crate::render) plays: u16,
    /// Where the picture ends.
    pub(in crate::render) end: usize,
}

pub(in crate::render) fn outline(bytes: &[u8]) -> Result<Outline, DecodeError> {
    let mut walk = Walk { bytes, at: b"GIF89a".len() };
    let [w0, w1, h0, h1, packed, _background, _aspect] = walk.array()?;
    walk.take(colour_table(packed))?;
    let (mut frames, mut plays, mut first) = (0, 1, (0, 0));
    loop {
        match walk.byte()? {
            0x21 => {
                let label = walk.byte()?;
                if label == 0xff {
                    plays = repetition(&walk.bytes[walk.at..]).map_or(plays, plays_of);
                }
                sub_blocks(&mut walk)?;
            }
            0x2c => {
                let [_, _, _, _, w0, w1, h0, h1, packed] = walk.array()?;
                if frames == 0 {
                    first = (u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into());
                }
                walk.take(colour_table(packed))?;
                let _code_size = walk.byte()?;
                sub_blocks(&mut walk)?;
                frames += 1;
            }
            0x3b if frames > 0 => {
                let (width, height) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
                let (width, height) = (width.into(), height.into());
                return Ok(Outline { width, height, frames, first, plays, end: walk.at });
            }
            0x3b => return Err(broken("an end without a picture")),
            _ => return Err(broken("an unknown block")),
        }
    }
}

/// What an application extension says of repetition, if it is the one of Netscape or its twin.
fn repetition(extension: &[u8]) -> Option<u16> {
    let rest = extension.strip_prefix(b"\x0bNETSCAPE2.0").or_else(|| extension.strip_prefix(b"\x0bANIMEXTS1.0"))?;
    match rest {
        &[3, 1, low, high, ..] => Some(u16::from_le_bytes([low, high])),
        _ => None,
    }
}

/// The file counts how often an animation is repeated once it was played; zero is without end.
fn plays_of(repetitions: u16) -> u16 {
    if repetitions == 0 { 0 } else { repetitions.saturating_add(1) }
}

/// The length of the colour table that a packed field announces, in bytes (sections 18 and 20).
fn colour_table(packed: u8) -> usize {
    if packed & 0x80 == 0 { 0 } else { 3 << ((packed & 0x07) + 1) }
}

fn sub_blocks(walk: &mut Walk<'_>) -> Result<(), DecodeError> {
    loop {
        match walk.byte()? {
            0 => return Ok(()),
            length => walk.take(length.into())?,
        };
    }
}

fn pixels(bytes: &[u8], limits: &Limits) -> Result<Raster, DecodeError> {
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(|error| refused(&error))?;
    decoder.set_limits(image_limits(limits)).map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions();
    // What it is about to make room for, in its own words.
    admit(width, height, 4, limits)?;
    let size = usize::try_from(decoder.total_bytes()).map_err(|_| DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    decoder.read_image(&mut samples).map_err(|error| refused(&error))?;
    Ok(Raster::with_alpha(width, height, samples))
}
