//! JPEG (ITU-T T.81): grey and colour, baseline and progressive. Four components are left alone: without their colour
//! profile CMYK is a guess.

use super::colour::Parts;
use super::{DecodeError, Decoded, Limits, Walk, admit, broken, orientation};
use crate::render::raster::Raster;
use image::metadata::Orientation;
use jpeg_decoder::{Decoder, Error, PixelFormat};
use std::borrow::Cow;
use std::io::ErrorKind;

/// A scan may take a few bytes and be felt in every block of the picture. The finest script in use has about ten.
const SCANS_AT_MOST: u32 = 64;

pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Decoded<'a>, DecodeError> {
    let outline = outline(bytes)?;
    let frame = outline.frame;
    // The samples; a progressive picture also keeps 2 bytes of every coefficient until its last scan.
    let cost = if frame.progressive { 3 + 2 * u64::from(frame.components) } else { 3 };
    admit(frame.width, frame.height, cost, limits)?;
    if !matches!(frame.components, 1 | 3) {
        return Err(DecodeError::Unsupported);
    }
    Ok(Decoded {
        raster: pixels(&bytes[..outline.end], frame, limits)?,
        animated: false,
        orientation: outline.orientation,
        profile: outline.profile,
    })
}

/// What the segments say without being decoded.
struct Outline<'a> {
    frame: Frame,
    orientation: Orientation,
    profile: Option<Cow<'a, [u8]>>,
    /// Where the picture ends; behind it cameras keep previews and depth maps.
    end: usize,
}

/// The start of frame (section B.2.2).
#[derive(Clone, Copy)]
struct Frame {
    width: u32,
    height: u32,
    components: u8,
    progressive: bool,
}

fn outline(bytes: &[u8]) -> Result<Outline<'_>, DecodeError> {
    let mut walk = Walk { bytes, at: 2 };
    let mut frame = None;
    let mut upright = None;
    let mut profile = Parts::default();
    let mut scans = 0_u32;
    loop {
        match next_marker(&mut walk)? {
            0xd9 => {
                let frame = frame.filter(|_| scans > 0).ok_or_else(|| broken("an end without a picture"))?;
                let orientation = upright.unwrap_or(Orientation::NoTransforms);
                return Ok(Outline { frame, orientation, profile: profile.whole(), end: walk.at });
            }
            // Restarts, TEM and SOI stand alone.
            0x01 | 0xd0..=0xd8 => {}
            marker => {
                let length = usize::from(u16::from_be_bytes(walk.array()?));
                let segment = walk.take(length.checked_sub(2).ok_or_else(|| broken("a segment without a length"))?)?;
                match (marker, segment) {
                    // C4, C8 and CC lie in the range but are no frames.
                    (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, &[_, h0, h1, w0, w1, components, ..]) => {
                        frame = frame.or(Some(Frame {
                            width: u32::from(u16::from_be_bytes([w0, w1])),
                            height: u32::from(u16::from_be_bytes([h0, h1])),
                            components,
                            progressive: matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce),
                        }));
                    }
                    (0xe1, exif) if exif.starts_with(b"Exif\0\0") => {
                        upright = upright.or_else(|| Some(orientation(exif)));
                    }
                    (0xe2, part) => profile.take(part),
                    (0xda, _) => {
                        scans += 1;
                        if scans > SCANS_AT_MOST {
                            return Err(DecodeError::OverLimit("scans"));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The next marker; what lies between is compressed data, where `FF 00` stands for a byte `FF` and `FF FF` is padding
/// (sections B.1.1.2 and B.1.1.5).
fn next_marker(walk: &mut Walk<'_>) -> Result<u8, DecodeError> {
    loop {
        while walk.byte()? != 0xff {}
        let mut code = walk.byte()?;
        while code == 0xff {
            code = walk.byte()?;
        }
        if code != 0 {
            return Ok(code);
        }
    }
}

/// Wider pictures are decoded with the help of a thread for each component, so that a permit of the pool may keep more than
/// one core busy for that long.
fn pixels(bytes: &[u8], frame: Frame, limits: &Limits) -> Result<Raster, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(usize::try_from(limits.decoder_memory).unwrap_or(usize::MAX));
    // Up to the start of frame, for which nothing is allocated yet: it has to be the one that was admitted.
    decoder.read_info().map_err(|error| refused(&error))?;
    let size = decoder.info().map(|info| (info.width.into(), info.height.into()));
    if size != Some((frame.width, frame.height)) {
        return Err(broken("another picture than its segments say"));
    }
    let samples = decoder.decode().map_err(|error| refused(&error))?;
    let info = decoder.info().ok_or_else(|| broken("no frame"))?;
    let (width, height) = (info.width.into(), info.height.into());
    match info.pixel_format {
        PixelFormat::L8 => Ok(Raster::opaque(width, height, samples.iter().flat_map(|&grey| [grey; 3]).collect())),
        PixelFormat::RGB24 => Ok(Raster::opaque(width, height, samples)),
        PixelFormat::L16 | PixelFormat::CMYK32 => Err(DecodeError::Unsupported),
    }
}

fn refused(error: &Error) -> DecodeError {
    match error {
        Error::Unsupported(_) => DecodeError::Unsupported,
        // The file is in memory and can only end too soon: it was a thread that could not be had.
        Error::Io(error) if error.kind() != ErrorKind::UnexpectedEof => DecodeError::NoThread,
        other => broken(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_no_thread_says_nothing_of_the_picture() {
        let failed = |kind: ErrorKind| refused(&Error::Io(kind.into()));
        for kind in [ErrorKind::WouldBlock, ErrorKind::OutOfMemory, ErrorKind::Other] {
            assert_eq!(failed(kind), DecodeError::NoThread, "{kind}");
        }
        assert!(matches!(failed(ErrorKind::UnexpectedEof), DecodeError::Broken(_)));
    }
}
