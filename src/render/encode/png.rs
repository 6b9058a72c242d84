//! PNG: a palette at the depth that takes the fewest bytes, or the exact pixels in the narrowest colour type that holds them.

use super::palette::Indexed;
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use libdeflater::{CompressionLvl, Compressor};
use png::{BitDepth, ColorType, Compression, Encoder, Filter};
use std::num::NonZeroU64;

/// Up to this many pixels the best compression is cheap; above, it takes seconds for a few per cent.
const BEST_PIXELS: usize = 1 << 16;

/// How much work is spent on the shortest zlib stream of a palette picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::render) enum Packing {
    /// At once, for somebody who waits.
    Quick,
    /// A few per cent fewer bytes for many times the work, which are milliseconds: by zopfli, and at every depth.
    Thorough,
}

/// Above this many bytes of rows zopfli could take seconds; a picture of 128 x 128 has no more.
const MANY_BYTES: usize = 129 * 128;

/// Up to this many, those of 256 x 256 pixels, libdeflate may look at every match without weighing them.
const LARGE_BYTES: usize = 257 * 256;

/// How often zopfli goes over its choice: more saves nothing on so little.
const ROUNDS: NonZeroU64 = NonZeroU64::new(3).expect("not 0");

/// The depths that a palette may have, with how many indices are in a byte (section 11.2.1).
const DEPTHS: [(BitDepth, usize); 4] =
    [(BitDepth::One, 8), (BitDepth::Two, 4), (BitDepth::Four, 2), (BitDepth::Eight, 1)];

/// From this many colours on rows of whole bytes are usually shorter once compressed: what repeats does so at whole bytes only.
const COLOURS_FOR_BYTES: usize = 9;

/// Encodes a palette picture.
pub(in crate::render) fn indexed(picture: &Indexed, packing: Packing) -> Result<Vec<u8>, EncodeError> {
    let narrowest = match picture.palette.len() {
        ..=2 => 0,
        3..=4 => 1,
        5..=16 => 2,
        _ => 3,
    };
    let (depth, per_byte) = DEPTHS[if picture.palette.len() < COLOURS_FOR_BYTES { narrowest } else { 3 }];
    let at_once = (depth, quick(&packed(picture, per_byte)));
    let (depth, stream) = match packing {
        Packing::Quick => at_once,
        Packing::Thorough => thorough(picture, &DEPTHS[narrowest..], at_once).map_err(refused)?,
    };
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, picture.width, picture.height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette(picture.palette.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect::<Vec<_>>());
    let transparency: Vec<u8> = picture.palette.iter().map(|colour| colour[3]).take_while(|&a| a < 255).collect();
    if !transparency.is_empty() {
        encoder.set_trns(transparency);
    }
    let mut writer = encoder.write_header().map_err(refused)?;
    // Its own way to compress takes some ten bytes more, which is much of a letter.
    writer.write_chunk(png::chunk::IDAT, &stream).map_err(refused)?;
    writer.finish().map_err(refused)?;
    Ok(file)
}

/// The rows of a palette picture, each behind its filter type, with `per_byte` indices to a byte from its high bits down; each
/// row begins a byte (section 7.2). No filter: those predict brightness, and an index is none.
fn packed(picture: &Indexed, per_byte: usize) -> Vec<u8> {
    let bits = 8 / per_byte;
    let width = usize::try_from(picture.width).expect("an edge is a usize");
    let pack = |chunk: &[u8]| chunk.iter().enumerate().fold(0, |byte, (i, index)| byte | index << (8 - bits * (i + 1)));
    let mut rows = Vec::with_capacity((width.div_ceil(per_byte) + 1) * picture.indices.len() / width);
    for row in picture.indices.chunks_exact(width) {
        rows.push(0);
        rows.extend(row.chunks(per_byte).map(pack));
    }
    rows
}

/// A short zlib stream of `rows`, in the time that libwebp would take.
fn quick(rows: &[u8]) -> Vec<u8> {
    // From 10 on libdeflate weighs all matches against each other.
    let level = match rows.len() {
        ..=5_000 => 11,
        5_001..=10_000 => 10,
        10_001..=LARGE_BYTES => 9,
        _ => 6,
    };
    let mut compressor = Compressor::new(CompressionLvl::new(level).expect("levels go to 12"));
    let mut stream = vec![0; compressor.zlib_compress_bound(rows.len())];
    let length = compressor.zlib_compress(rows, &mut stream).expect("the bound holds");
    stream.truncate(length);
    stream
}

/// The shortest of `at_once` and the zlib streams that zopfli finds at `depths`, which go from narrow to wide.
fn thorough(
    picture: &Indexed,
    depths: &[(BitDepth, usize)],
    at_once: (BitDepth, Vec<u8>),
) -> std::io::Result<(BitDepth, Vec<u8>)> {
    let mut best = at_once;
    let mut most = MANY_BYTES;
    for &(depth, per_byte) in depths {
        let rows = packed(picture, per_byte);
        if rows.len() > most {
            break;
        }
        let stream = squeezed(&rows)?;
        // Narrow indices are fewer bytes to begin with; but what repeats does so at whole bytes only. In noise nothing does, and
        // it takes longest.
        if stream.len() > rows.len() / 2 {
            most = MANY_BYTES / 8;
        }
        if stream.len() < best.1.len() {
            best = (depth, stream);
        }
    }
    Ok(best)
}

/// The zlib stream of `rows` by zopfli.
fn squeezed(rows: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = Vec::new();
    // There is one kind of content: a second block would be all header.
    let options = zopfli::Options { iteration_count: ROUNDS, maximum_block_splits: 1, ..zopfli::Options::default() };
    zopfli::compress(options, zopfli::Format::Zlib, rows, &mut stream)?;
    Ok(stream)
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
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, raster.width, raster.height);
    encoder.set_compression(if raster.len() <= BEST_PIXELS { Compression::High } else { Compression::Balanced });
    encoder.set_color(colour);
    encoder.set_filter(Filter::Adaptive);
    let mut writer = encoder.write_header().map_err(refused)?;
    writer.write_image_data(&samples).map_err(refused)?;
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
    fn the_depth_suits_the_number_of_colours() {
        for (colours, depth) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (16, 8), (17, 8), (256, 8)] {
            let palette: Vec<_> =
                (0..=255_u8).take(colours).map(|i| [i, 0, 255 - i, if i == 0 { 7 } else { 255 }]).collect();
            let indices = (0..13 * 21).map(|i| u8::try_from(i % colours).expect("a byte")).collect();
            let picture = Indexed { width: 13, height: 21, palette, indices };
            let file = indexed(&picture, Packing::Quick).expect("encodes");
            assert_eq!(colour_type(&file), (depth, 3), "{colours}");
            let thorough = indexed(&picture, Packing::Thorough).expect("encodes");
            assert!(thorough.len() <= file.len(), "{colours}");
            for file in [file, thorough] {
                assert_eq!(decode(&file, &Limits::default()).expect("decodes").raster, picture.raster(), "{colours}");
            }
        }
    }

    #[test]
    fn pictures_of_every_size_and_kind_come_back() {
        // Up to each level of libdeflate, to zopfli's end, and above all of them.
        for edge in [60_u32, 90, 128, 160, 256, 300] {
            let noise = |i: u32| i.wrapping_mul(0x9e37_79b1).to_be_bytes()[0] % 12;
            let flat = |i: u32| u8::try_from(i / 700 % 12).expect("below 12");
            for (kind, index) in [("noise", &noise as &dyn Fn(u32) -> u8), ("flat", &flat)] {
                let palette = (0..12).map(|i| [20 * i, 255 - 20 * i, 9, 255]).collect();
                let picture =
                    Indexed { width: edge, height: edge, palette, indices: (0..edge * edge).map(index).collect() };
                let made =
                    [Packing::Quick, Packing::Thorough].map(|packing| indexed(&picture, packing).expect("encodes"));
                for file in &made {
                    let again = decode(file, &Limits::default()).expect("decodes").raster;
                    assert!(again == picture.raster(), "{kind} at {edge}");
                }
                assert!(made[1].len() <= made[0].len(), "{kind} at {edge}: {} {}", made[0].len(), made[1].len());
            }
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
