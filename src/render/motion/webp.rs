//! The frames of an animated WebP (RFC 9649 section 2.7.1.1). Each is a picture of its own that its chunk wraps: it is
//! taken out and decoded like one.

use super::Film;
use super::canvas::{Blend, Disposal, Patch};
use crate::render::decode::colour::Conversion;
use crate::render::decode::webp::{Canvas, Chunk, chunk, frame, outline, pixels};
use crate::render::decode::{Walk, broken};
use crate::render::{DecodeError, Limits};

pub(super) fn film<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Film<'a>, DecodeError> {
    let outline = outline(bytes, limits)?;
    let canvas = outline.canvas.ok_or_else(|| broken("no animation"))?;
    let mut walk = Walk { bytes: &bytes[..outline.end], at: 12 };
    let mut next = move || loop {
        let chunk = chunk(&mut walk)?.ok_or_else(|| broken("fewer frames than chunks"))?;
        if chunk.kind == b"ANMF" {
            return patch(chunk.data, &canvas, limits);
        }
    };
    Ok(Film {
        width: canvas.width,
        height: canvas.height,
        frames: outline.frames,
        plays: outline.plays,
        orientation: outline.orientation,
        conversion: outline.profile.and_then(Conversion::from_profile),
        patches: Box::new((0..outline.frames).map(move |_| next())),
    })
}

fn patch(data: &[u8], canvas: &Canvas, limits: &Limits) -> Result<Patch, DecodeError> {
    let frame = frame(data, canvas)?;
    let file = still(frame.chunks, frame.width, frame.height)?;
    let picture = pixels(&file, &outline(&file, limits)?, limits)?;
    if (picture.width, picture.height) != (frame.width, frame.height) {
        return Err(broken("a frame of another size than announced"));
    }
    Ok(Patch {
        left: frame.left,
        top: frame.top,
        picture: Some(picture),
        blend: if frame.flags & 0x02 == 0 { Blend::Over } else { Blend::Source },
        disposal: if frame.flags & 0x01 == 0 { Disposal::Keep } else { Disposal::Clear },
        delay: frame.delay,
    })
}

/// A file of its own around the chunks of a frame.
fn still(chunks: &[u8], width: u32, height: u32) -> Result<Vec<u8>, DecodeError> {
    let mut walk = Walk { bytes: chunks, at: 0 };
    let mut alpha = None;
    while let Some(Chunk { kind, data }) = chunk(&mut walk)? {
        match kind {
            b"ALPH" => alpha = Some(data),
            b"VP8L" => return Ok(riff(&[(b"VP8L", data)])),
            b"VP8 " => {
                let Some(alpha) = alpha else { return Ok(riff(&[(b"VP8 ", data)])) };
                let ([w, h], mut header) = ([width - 1, height - 1].map(u32::to_le_bytes), [0; 10]);
                header[0] = 0x10;
                header[4..7].copy_from_slice(&w[..3]);
                header[7..].copy_from_slice(&h[..3]);
                return Ok(riff(&[(b"VP8X", &header), (b"ALPH", alpha), (b"VP8 ", data)]));
            }
            _ => {}
        }
    }
    Err(broken("a frame without a picture"))
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let length =
        |bytes: usize| u32::try_from(bytes).expect("a part of a RIFF file, whose length is a u32").to_le_bytes();
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    for (kind, data) in chunks {
        file.extend_from_slice(*kind);
        file.extend_from_slice(&length(data.len()));
        file.extend_from_slice(data);
        file.resize(file.len().next_multiple_of(2), 0);
    }
    let rest = length(file.len() - 8);
    file[4..8].copy_from_slice(&rest);
    file
}
