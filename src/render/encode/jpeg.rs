//! JPEG, for clients that name no better format.

use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use jpeg_encoder::{ColorType, Encoder, QuantizationTableType, SamplingFactor};

/// Up to this many pixels the settings for small pictures pay.
const SMALL_PIXELS: usize = 40 * 40;

/// Encodes the pixels of an opaque picture; flatten what is not.
pub(super) fn encode(raster: &Raster, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
    assert_eq!(raster.layout, Layout::Rgb, "JPEG has no alpha");
    let edge = |pixels: u32| u16::try_from(pixels).map_err(|_| refused("an edge over 65535"));
    // Photographs come to about 80 on the scale of SSIMULACRA2 with these. The tables of the standard were made for
    // pictures many times as large, where fine detail is finer.
    let (tables, usual) = if raster.len() <= SMALL_PIXELS {
        (QuantizationTableType::CustomMsSsim, 79)
    } else {
        (QuantizationTableType::Default, 74)
    };
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality.unwrap_or(usual));
    encoder.set_quantization_tables(tables.clone(), tables);
    // With halved colour planes small pictures do not come to 80 at any quality.
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    // A second pass over the coefficients; on small pictures it saves a tenth.
    encoder.set_optimized_huffman_tables(true);
    encoder
        .encode(
            &raster.samples,
            edge(raster.width)?,
            edge(raster.height)?,
            ColorType::Rgb,
        )
        .map_err(refused)?;
    Ok(file)
}

fn refused(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}
