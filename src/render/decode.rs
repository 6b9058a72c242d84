//! Bytes to pixels: which decoder, what it may cost, and which way is up. What a picture is called elsewhere does not
//! matter here, its first bytes decide.
//!
//! Every decoder first walks its container without decoding anything. The walk finds the end of the picture (what
//! follows is ignored), the size, the orientation and whether there are more frames, and it refuses a file that was
//! cut off: some of the decoders below are lenient and would hand out half a picture.

pub(super) mod colour;
pub(super) mod gif;
mod jpeg;
mod lossless;
pub(super) mod png;
pub(super) mod webp;

use super::raster::Raster;
use super::{DecodeError, Limits, Pixels};
use crate::source::{SourceFormat, SourceInfo};
use colour::Conversion;
use image::ImageError;
use image::metadata::Orientation;
use std::borrow::Cow;

/// What a decoder found.
struct Decoded<'a> {
    raster: Raster,
    animated: bool,
    orientation: Orientation,
    /// The colour profile.
    profile: Option<Cow<'a, [u8]>>,
}

/// Decodes the first frame, upright and in sRGB.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Pixels, DecodeError> {
    let Some(format) = recognise(bytes) else {
        let other = is_other_picture(bytes);
        return Err(if other { DecodeError::Unsupported } else { broken("no picture that we know of") });
    };
    let decoded = match format {
        SourceFormat::Png => png::decode(bytes, limits)?,
        SourceFormat::Jpeg => jpeg::decode(bytes, limits)?,
        SourceFormat::Gif => gif::decode(bytes, limits)?,
        SourceFormat::Webp => webp::decode(bytes, limits)?,
    };
    let conversion = decoded.profile.and_then(|profile| Conversion::from_profile(&profile));
    let raster = match conversion {
        Some(conversion) => conversion.apply(decoded.raster),
        None => decoded.raster,
    };
    let raster = raster.upright(decoded.orientation);
    let info = SourceInfo {
        format,
        width: raster.width,
        height: raster.height,
        has_alpha: raster.has_alpha(),
        animated: decoded.animated,
    };
    Ok(Pixels { info, raster, content: None })
}

pub(super) fn recognise(bytes: &[u8]) -> Option<SourceFormat> {
    if bytes.starts_with(png::SIGNATURE) {
        Some(SourceFormat::Png)
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some(SourceFormat::Jpeg)
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some(SourceFormat::Gif)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some(SourceFormat::Webp)
    } else {
        None
    }
}

/// Whether `bytes` begin like a picture of a kind that is not decoded here: BMP, TIFF, AVIF and HEIC, ICO, JPEG XL,
/// JPEG 2000, PSD or SVG. Anything else, a page of HTML included, is no picture at all.
fn is_other_picture(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 9] = [
        b"II*\0",
        b"MM\0*",
        b"\0\0\x01\0",
        b"\0\0\x02\0",
        b"\xff\x0a",
        b"\0\0\0\x0cJXL ",
        b"\0\0\0\x0cjP  ",
        b"\xff\x4f\xff\x51",
        b"8BPS",
    ];
    let bitmap = bytes.starts_with(b"BM") && bytes.get(6..10) == Some(&[0; 4]);
    let iso_media = bytes.get(4..8) == Some(b"ftyp");
    let drawing = bytes[..bytes.len().min(1024)].windows(4).any(|tag| tag.eq_ignore_ascii_case(b"<svg"));
    bitmap || iso_media || drawing || starts.iter().any(|start| bytes.starts_with(start))
}

/// Refuses a size over a limit; `cost` is what the decoder allocates for a pixel, in bytes.
pub(super) fn admit(width: u32, height: u32, cost: u64, limits: &Limits) -> Result<(), DecodeError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(broken("no pixels"));
    }
    if width.max(height) > limits.edge {
        return Err(DecodeError::OverLimit("edge"));
    }
    if pixels > limits.pixels {
        return Err(DecodeError::OverLimit("pixels"));
    }
    if pixels.saturating_mul(cost) > limits.decoder_memory {
        return Err(DecodeError::OverLimit("decoder memory"));
    }
    Ok(())
}

/// The limits for `image`'s decoders, which count their own allocations.
fn image_limits(limits: &Limits) -> image::Limits {
    let mut counted = image::Limits::no_limits();
    counted.max_image_width = Some(limits.edge);
    counted.max_image_height = Some(limits.edge);
    counted.max_alloc = Some(limits.decoder_memory);
    counted
}

pub(super) fn refused(error: &ImageError) -> DecodeError {
    match error {
        ImageError::Limits(_) => DecodeError::OverLimit("decoder memory"),
        ImageError::Unsupported(_) => DecodeError::Unsupported,
        other => broken(other),
    }
}

pub(super) fn broken(why: impl std::fmt::Display) -> DecodeError {
    DecodeError::Broken(why.to_string())
}

fn cut_off() -> DecodeError {
    broken("cut off")
}

/// The orientation that an EXIF block asks for; what cannot be read asks for none.
fn orientation(exif: &[u8]) -> Orientation {
    // In JPEG the block has a prefix, in PNG and WebP it should have none but sometimes does.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

/// A byte string read from its front; every read that would pass the end says that the picture is cut off.
pub(super) struct Walk<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(count).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn length(&mut self, read: fn([u8; 4]) -> u32) -> Result<usize, DecodeError> {
        usize::try_from(read(self.array()?)).map_err(|_| cut_off())
    }
}

#[cfg(test)]
mod tests;
