//! PNG (W3C PNG, third edition): all colour types and depths, interlaced too; of an animation the default picture.

use super::colour::inflated;
use super::{DecodeError, Decoded, Limits, Walk, admit, broken, orientation};
use crate::render::raster::Raster;
use image::metadata::Orientation;
use png::{ColorType, DecodingError, OutputInfo, Reader, Transformations};
use std::borrow::Cow;
use std::io::Cursor;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The largest whole number of four bytes (section 7.1).
const MOST: u32 = (1 << 31) - 1;

pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let outline = outline(bytes)?;
    admit(outline.width, outline.height, 4, limits)?;
    Ok(Decoded {
        raster: pixels(&bytes[..outline.end], limits)?,
        animated: outline.animation.is_some_and(|animation| animation.frames > 1),
        orientation: outline.orientation,
        profile: outline.profile.and_then(inflated).map(Cow::Owned),
    })
}

/// What the chunks say without being decompressed.
pub(in crate::render) struct Outline<'a> {
    pub(in crate::render) width: u32,
    pub(in crate::render) height: u32,
    /// What is said of an animation.
    pub(in crate::render) animation: Option<Animation>,
    pub(in crate::render) orientation: Orientation,
    /// The chunk of the colour profile.
    pub(in crate::render) profile: Option<&'a [u8]>,
    /// Where the picture ends.
    pub(in crate::render) end: usize,
}

/// The animation control chunk (section 11.3.4.1), beside what there is.
#[derive(Clone, Copy)]
pub(in crate::render) struct Animation {
    /// How many frames it announces.
    pub(in crate::render) frames: u32,
    /// How often it is played, 0 for without end.
    pub(in crate::render) plays: u32,
    /// How many frame control chunks there are.
    pub(in crate::render) controls: u32,
    /// Whether the default picture is the first frame.
    pub(in crate::render) starts_with_default: bool,
}

pub(in crate::render) fn outline(bytes: &[u8]) -> Result<Outline<'_>, DecodeError> {
    let mut walk = Walk { bytes, at: SIGNATURE.len() };
    let mut outline = Outline {
        width: 0,
        height: 0,
        animation: None,
        orientation: Orientation::NoTransforms,
        profile: None,
        end: bytes.len(),
    };
    let (mut seen_data, mut controls, mut controls_before_data) = (false, 0, 0);
    loop {
        let first = walk.at == SIGNATURE.len();
        let length = walk.length(u32::from_be_bytes)?;
        let kind = walk.array::<4>()?;
        let data = walk.take(length)?;
        let _checksum = walk.array::<4>()?;
        // The decoder goes by the header that comes first, and meets a second one only behind what it has allocated for it.
        if (kind == *b"IHDR") != first {
            return Err(broken("not one header, and that the first chunk"));
        }
        match (&kind, data) {
            (b"IHDR", &[w0, w1, w2, w3, h0, h1, h2, h3, ..]) => {
                outline.width = u32::from_be_bytes([w0, w1, w2, w3]);
                outline.height = u32::from_be_bytes([h0, h1, h2, h3]);
            }
            // Behind the first data the chunk means nothing (section 11.3.6.1).
            (b"acTL", &[n0, n1, n2, n3, p0, p1, p2, p3]) if !seen_data => {
                let (frames, plays) = (u32::from_be_bytes([n0, n1, n2, n3]), u32::from_be_bytes([p0, p1, p2, p3]));
                // No whole number of the format is larger (section 7.1), and decoders count on it.
                if frames > MOST || plays > MOST {
                    return Err(broken("a number out of range"));
                }
                outline.animation = Some(Animation { frames, plays, controls: 0, starts_with_default: false });
            }
            (b"fcTL", _) => {
                controls += 1;
                controls_before_data += u32::from(!seen_data);
            }
            (b"eXIf", exif) => outline.orientation = orientation(exif),
            (b"iCCP", profile) if !seen_data => outline.profile = Some(profile),
            (b"IDAT", _) => seen_data = true,
            (b"IEND", _) => {
                outline.end = walk.at;
                if let Some(animation) = &mut outline.animation {
                    animation.controls = controls;
                    animation.starts_with_default = controls_before_data > 0;
                }
                return Ok(outline);
            }
            _ => {}
        }
    }
}

fn pixels(bytes: &[u8], limits: &Limits) -> Result<Raster, DecodeError> {
    let mut reader = reader(bytes, limits)?;
    let size = reader.output_buffer_size().ok_or(DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(|error| refused(&error))?;
    raster(&frame, samples)
}

/// Reads up to the first data; what it hands out are samples of 8 bits without palettes.
pub(in crate::render) fn reader<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Reader<Cursor<&'a [u8]>>, DecodeError> {
    let bytes_allowed = usize::try_from(limits.decoder_memory).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: bytes_allowed });
    // A compressed profile of a few kilobytes can inflate to the whole limit; it is read elsewhere, within bounds.
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_ignore_text_chunk(true);
    decoder.set_transformations(Transformations::normalize_to_color8());
    let reader = decoder.read_info().map_err(|error| refused(&error))?;
    // What it is about to make room for, in its own words.
    admit(reader.info().width, reader.info().height, 4, limits)?;
    Ok(reader)
}

/// What the reader gave for a frame.
pub(in crate::render) fn raster(frame: &OutputInfo, mut samples: Vec<u8>) -> Result<Raster, DecodeError> {
    samples.truncate(frame.buffer_size());
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

pub(in crate::render) fn refused(error: &DecodingError) -> DecodeError {
    match error {
        DecodingError::LimitsExceeded => DecodeError::OverLimit("decoder memory"),
        other => broken(other),
    }
}
