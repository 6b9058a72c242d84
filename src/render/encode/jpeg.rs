//! JPEG, for clients that name no better format.

use super::aim::{self, Aim};
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, QuantizationTableType, SamplingFactor};

/// What becomes of the two planes of colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::render) enum Planes {
    /// Half as many samples in both directions, 4:2:0: saves a tenth on photographs, and blurs the edges of flat areas.
    Halved,
    /// All samples, 4:4:4.
    Whole,
}

/// What suits a picture without a look at the outcome. It brings photographs to about 80 on the scale of SSIMULACRA2 where
/// that is aimed at: the smaller the picture, the finer its detail.
pub(super) fn usual_quality(pixels: usize, planes: Planes, aim: Aim) -> u8 {
    let usual = match pixels {
        ..=2304 => 84.0,
        2305..=5184 => 81.0,
        5185..=12_544 => 79.0,
        _ => 77.0,
    };
    let row = match planes {
        Planes::Halved => &aim::JPEG_HALVED,
        Planes::Whole => &aim::JPEG_WHOLE,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 1 to 100")]
    let quality = aim.quality(usual, row).round().max(1.0) as u8;
    quality
}

/// Encodes the pixels of an opaque picture; flatten what is not.
pub(in crate::render) fn encode(raster: &Raster, planes: Planes, quality: u8) -> Result<Vec<u8>, EncodeError> {
    assert_eq!(raster.layout, Layout::Rgb, "JPEG has no alpha");
    let edge = |pixels: u32| u16::try_from(pixels).map_err(|_| refused("an edge over 65535"));
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality);
    // Fewer bytes for the same score than the tables of the standard, by a twentieth at 64 pixels.
    let tables = QuantizationTableType::CustomMsSsim;
    encoder.set_quantization_tables(tables.clone(), tables);
    encoder.set_sampling_factor(match planes {
        Planes::Halved => SamplingFactor::F_2_2,
        Planes::Whole => SamplingFactor::F_1_1,
    });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    // A second pass over the coefficients; on small pictures it saves a tenth.
    encoder.set_optimized_huffman_tables(true);
    encoder.encode(&raster.samples, edge(raster.width)?, edge(raster.height)?, ColorType::Rgb).map_err(refused)?;
    Ok(file)
}

fn refused(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}
