//! PNG: a palette with as few bits as it needs, or the exact pixels in the narrowest colour type that holds them.

use super::palette::Indexed;
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use png::{BitDepth, ColorType, Compression, Encoder, Filter};

/// Up to this many pixels the best compression is cheap; above, it takes seconds for a few per cent.
const BEST_PIXELS: usize = 1 << 16;

/// Encodes a palette picture.
pub(in crate::render) fn indexed(picture: &Indexed) -> Result<Vec<u8>, EncodeError> {
    let (depth, per_byte) = match picture.palette.len() {
        ..=2 => (BitDepth::One, 8),
        3..=4 => (BitDepth::Two, 4),
        5..=16 => (BitDepth::Four, 2),
        _ => (BitDepth::Eight, 1),
    };
    let packed = packed(picture, per_byte);
    // Filters predict brightness, and an index is none.
    write(picture.width, picture.height, picture.indices.len(), &packed, |encoder| {
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(depth);
        encoder.set_filter(Filter::NoFilter);
        encoder.set_palette(picture.palette.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect::<Vec<_>>());
        let transparency: Vec<u8> = picture.palette.iter().map(|colour| colour[3]).take_while(|&a| a < 255).collect();
        if !transparency.is_empty() {
            encoder.set_trns(transparency);
        }
    })
}

/// The indices, `per_byte` to a byte from its high bits down; each row begins a byte (section 7.2).
fn packed(picture: &Indexed, per_byte: usize) -> Vec<u8> {
    if per_byte == 1 {
        return picture.indices.clone();
    }
    let bits = 8 / per_byte;
    let width = usize::try_from(picture.width).expect("an edge is a usize");
    let pack = |chunk: &[u8]| chunk.iter().enumerate().fold(0, |byte, (i, index)| byte | index << (8 - bits * (i + 1)));
    picture.indices.chunks_exact(width).flat_map(|row| row.chunks(per_byte).map(pack)).collect()
}

/// Encodes the pixels as they are.
pub(in crate::render) fn exact(raster: &Raster) -> Result<Vec<u8>, EncodeError> {
    let grey = raster.rgba().all(|[r, g, b, _]| r == g && g == b);
    let (colour, samples): (_, Vec<u8>) = match (raster.layout, grey) {
        (Layout::Rgb, false) => (ColorType::Rgb, raster.samples.clone()),
        (Layout::Rgb, true) => (ColorType::Grayscale, raster.rgba().map(|[grey, ..]| grey).collect()),
        (Layout::Rgba, false) => (ColorType::Rgba, raster.samples.clone()),
        (Layout::Rgba, true) => {
            (ColorType::GrayscaleAlpha, raster.rgba().flat_map(|[grey, _, _, alpha]| [grey, alpha]).collect())
        }
    };
    write(raster.width, raster.height, raster.len(), &samples, |encoder| {
        encoder.set_color(colour);
        encoder.set_filter(Filter::Adaptive);
    })
}

fn write(
    width: u32,
    height: u32,
    pixels: usize,
    data: &[u8],
    describe: impl FnOnce(&mut Encoder<'_, &mut Vec<u8>>),
) -> Result<Vec<u8>, EncodeError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_compression(if pixels <= BEST_PIXELS { Compression::High } else { Compression::Balanced });
    describe(&mut encoder);
    let mut writer = encoder.write_header().map_err(refused)?;
    writer.write_image_data(data).map_err(refused)?;
    writer.finish().map_err(refused)?;
    Ok(file)
}

fn refused(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Limits, decode};

    fn colour_type(file: &[u8]) -> (u8, u8) {
        (file[24], file[25])
    }

    #[test]
    fn a_palette_takes_as_few_bits_as_it_needs() {
        for (colours, depth) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (16, 4), (17, 8), (256, 8)] {
            let palette: Vec<_> =
                (0..=255_u8).take(colours).map(|i| [i, 0, 255 - i, if i == 0 { 7 } else { 255 }]).collect();
            let indices = (0..13 * 21).map(|i| u8::try_from(i % colours).expect("a byte")).collect();
            let picture = Indexed { width: 13, height: 21, palette, indices };
            let file = indexed(&picture).expect("encodes");
            assert_eq!(colour_type(&file), (depth, 3), "{colours}");
            assert_eq!(decode(&file, &Limits::default()).expect("decodes").raster, picture.raster(), "{colours}");
        }
    }

    #[test]
    fn exact_pixels_take_the_narrowest_colour_type() {
        for (pixel, colour) in [([5, 5, 5, 255], 0), ([5, 6, 5, 255], 2), ([5, 5, 5, 9], 4), ([5, 6, 5, 9], 6)] {
            let raster = Raster::with_alpha(3, 2, [pixel; 6].concat());
            let file = exact(&raster).expect("encodes");
            assert_eq!(colour_type(&file), (8, colour), "{pixel:?}");
            assert_eq!(decode(&file, &Limits::default()).expect("decodes").raster, raster);
        }
    }
}
