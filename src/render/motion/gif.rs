//! The frames of a GIF (version 89a).

use super::Film;
use super::canvas::{Blend, Disposal, Patch};
use crate::render::decode::gif::outline;
use crate::render::decode::{admit, broken};
use crate::render::raster::Raster;
use crate::render::{DecodeError, Limits};
use gif::{ColorOutput, DecodeOptions, Decoder, DisposalMethod, MemoryLimit};
use image::metadata::Orientation;
use std::num::NonZeroU64;

pub(super) fn film<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Film<'a>, DecodeError> {
    let outline = outline(bytes)?;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    if let Some(most) = NonZeroU64::new(limits.decoder_memory) {
        options.set_memory_limit(MemoryLimit::Bytes(most));
    }
    let mut decoder = options.read_info(&bytes[..outline.end]).map_err(broken)?;
    Ok(Film {
        width: outline.width,
        height: outline.height,
        frames: outline.frames,
        plays: outline.plays,
        orientation: Orientation::NoTransforms,
        conversion: None,
        patches: Box::new((0..outline.frames).map(move |_| patch(&mut decoder, limits))),
    })
}

fn patch(decoder: &mut Decoder<&[u8]>, limits: &Limits) -> Result<Patch, DecodeError> {
    let frame = decoder.next_frame_info().map_err(broken)?.ok_or_else(|| broken("fewer frames than blocks"))?;
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let mut patch = Patch {
        left: frame.left.into(),
        top: frame.top.into(),
        picture: None,
        blend: Blend::Over,
        disposal: match frame.dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Disposal::Keep,
            DisposalMethod::Background => Disposal::Clear,
            DisposalMethod::Previous => Disposal::Restore,
        },
        delay: 10 * u32::from(frame.delay),
    };
    if width > 0 && height > 0 {
        // A frame may be larger than its screen.
        admit(width, height, 4, limits)?;
        let mut samples = vec![0; decoder.buffer_size()];
        decoder.read_into_buffer(&mut samples).map_err(broken)?;
        patch.picture = Some(Raster::with_alpha(width, height, samples));
    }
    Ok(patch)
}
