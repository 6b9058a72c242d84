//! The frames of an animated PNG (W3C PNG, third edition, section 4.9).

use super::Film;
use super::canvas::{Blend, Disposal, Patch};
use crate::render::decode::broken;
use crate::render::decode::colour::{Conversion, inflated};
use crate::render::decode::png::{outline, raster, reader, refused};
use crate::render::raster::Raster;
use crate::render::{DecodeError, Limits};
use png::{BlendOp, DisposeOp, FrameControl, InterlaceInfo, OutputInfo, Reader, expand_interlaced_row};
use std::io::Cursor;
use std::mem::replace;

pub(super) fn film<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Film<'a>, DecodeError> {
    let outline = outline(bytes)?;
    let animation = outline.animation.ok_or_else(|| broken("no animation"))?;
    if animation.controls != animation.frames {
        return Err(broken("not as many frames as announced"));
    }
    let mut reader = reader(&bytes[..outline.end], limits)?;
    let mut at = if animation.starts_with_default { At::Frame } else { At::Behind };
    if at == At::Behind {
        next(&mut reader, At::Frame)?;
    }
    Ok(Film {
        width: outline.width,
        height: outline.height,
        frames: animation.frames,
        plays: u16::try_from(animation.plays).unwrap_or(u16::MAX),
        orientation: outline.orientation,
        conversion: outline.profile.and_then(inflated).and_then(|profile| Conversion::from_profile(&profile)),
        patches: Box::new((0..animation.frames).map(move |_| patch(&mut reader, replace(&mut at, At::Behind)))),
    })
}

/// Where a reader stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the data of the frame that is to be read.
    Frame,
    /// Behind the frame before that.
    Behind,
}

fn patch(reader: &mut Reader<Cursor<&[u8]>>, at: At) -> Result<Patch, DecodeError> {
    let picture = next(reader, at)?;
    let control = reader.info().frame_control.ok_or_else(|| broken("a frame without a control"))?;
    Ok(Patch {
        left: control.x_offset,
        top: control.y_offset,
        picture: Some(picture),
        blend: match control.blend_op {
            BlendOp::Source => Blend::Source,
            BlendOp::Over => Blend::Over,
        },
        disposal: match control.dispose_op {
            DisposeOp::None => Disposal::Keep,
            DisposeOp::Background => Disposal::Clear,
            DisposeOp::Previous => Disposal::Restore,
        },
        delay: milliseconds(&control),
    })
}

fn next(reader: &mut Reader<Cursor<&[u8]>>, at: At) -> Result<Raster, DecodeError> {
    if reader.info().interlaced {
        return interlaced(reader, at);
    }
    let size = reader.output_buffer_size().ok_or(DecodeError::OverLimit("decoder memory"))?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(|error| refused(&error))?;
    raster(&frame, samples)
}

/// A frame in seven passes, put together row by row: the decoder itself lays the rows of a smaller frame out as if it were a
/// whole one.
fn interlaced(reader: &mut Reader<Cursor<&[u8]>>, at: At) -> Result<Raster, DecodeError> {
    if at == At::Behind {
        reader.next_frame_info().map_err(|error| refused(&error))?;
    }
    let info = reader.info();
    let (width, height) = info.frame_control.as_ref().map_or_else(|| info.size(), |own| (own.width, own.height));
    let (color_type, bit_depth) = reader.output_color_type();
    let line_size = reader.output_line_size(width).ok_or(DecodeError::OverLimit("decoder memory"))?;
    let frame = OutputInfo { width, height, color_type, bit_depth, line_size };
    let mut samples = vec![0; frame.buffer_size()];
    let bits = u8::try_from(8 * color_type.samples()).expect("four samples at most, of eight bits");
    while let Some(row) = reader.next_interlaced_row().map_err(|error| refused(&error))? {
        let InterlaceInfo::Adam7(pass) = row.interlace() else { return Err(broken("a row of no pass")) };
        expand_interlaced_row(&mut samples, line_size, row.data(), pass, bits);
    }
    raster(&frame, samples)
}

/// A denominator of zero stands for hundredths (section 11.3.4.2).
fn milliseconds(control: &FrameControl) -> u32 {
    let denominator = if control.delay_den == 0 { 100 } else { u32::from(control.delay_den) };
    (1000 * u32::from(control.delay_num) + denominator / 2) / denominator
}
