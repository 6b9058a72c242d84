//! JPEG, for clients that name no better format.

use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

/// Photographs come to about 80 on the scale of SSIMULACRA2 with it.
const QUALITY: u8 = 82;

/// Encodes the pixels of an opaque picture; flatten what is not.
pub(super) fn encode(raster: &Raster, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
    assert_eq!(raster.layout, Layout::Rgb, "JPEG has no alpha");
    let edge = |pixels: u32| u16::try_from(pixels).map_err(|_| refused("an edge over 65535"));
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, quality.unwrap_or(QUALITY));
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    // A second pass over the coefficients; on small pictures it saves a tenth.
    encoder.set_optimized_huffman_tables(true);
    encoder.encode(&raster.samples, edge(raster.width)?, edge(raster.height)?, ColorType::Rgb).map_err(refused)?;
    Ok(file)
}

fn refused(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}
