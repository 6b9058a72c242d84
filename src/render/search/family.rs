//! Families of encodings: each differs in one number, a step from fine to coarse.

use crate::render::EncodeError;
use crate::render::encode::avif::{self, Effort};
use crate::render::encode::jpeg::{self, Planes};
use crate::render::encode::kmeans::Emphasis;
use crate::render::encode::palette::Counted;
use crate::render::encode::png::{self, Packing};
use crate::render::encode::webp::{self, Lossy};
use crate::render::raster::Raster;
use crate::variant::Format;

/// Encodings that differ in one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::render) enum Family {
    /// Lossy WebP; a step is one of libwebp's 128 quantisers, or half of one where segments differ.
    Lossy(Lossy),
    /// A palette in lossless WebP; a step is an entry of [`COLOURS`].
    WebpPalette(Emphasis),
    /// A palette in PNG; likewise.
    PngPalette(Emphasis, Packing),
    /// JPEG; a step is a quality, 100 down to 1.
    Jpeg(Planes),
    /// AVIF; a step is one of the encoder's quantizers.
    Avif(Effort),
}

/// How many colours are tried.
const COLOURS: [u8; 45] = [
    255, 232, 210, 190, 172, 156, 142, 129, 117, 106, 96, 87, 79, 72, 65, 59, 54, 49, 44, 40, 36, 33, 30, 27, 25, 23,
    21, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2,
];

impl Family {
    /// The step of AVIF that comes to 80 on most photographs.
    pub(super) const USUAL_AVIF: usize = avif::USUAL as usize - 1;

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Lossy(_) | Self::WebpPalette(_) => Format::Webp,
            Self::PngPalette(..) => Format::Png,
            Self::Jpeg(_) => Format::Jpeg,
            Self::Avif(_) => Format::Avif,
        }
    }

    pub(super) fn is_palette(&self) -> bool {
        matches!(self, Self::WebpPalette(_) | Self::PngPalette(..))
    }

    /// The coarsest step; 0 is the finest.
    pub(super) fn coarsest(&self) -> usize {
        match self {
            Self::Lossy(settings) => QUANTISERS * steps_a_quantiser(settings) - 1,
            Self::WebpPalette(_) | Self::PngPalette(..) => COLOURS.len() - 1,
            Self::Jpeg(_) => 99,
            Self::Avif(_) => usize::from(avif::COARSEST) - 1,
        }
    }

    /// About what a step takes from the score, and which share of the bytes. Only the number of tries depends on them.
    pub(super) fn slopes(&self) -> (f64, f64) {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "1 or 2")]
            Self::Lossy(settings) => {
                let steps = steps_a_quantiser(settings) as f64;
                (0.8 / steps, 0.035 / steps)
            }
            Self::WebpPalette(_) | Self::PngPalette(..) => (1.2, 0.06),
            Self::Jpeg(_) => (0.8, 0.025),
            Self::Avif(_) => avif::SLOPES,
        }
    }

    /// Encodes `raster`, whose colours are `counted`; gives also what it will look like, where that is known by the way.
    pub(super) fn encode(
        &self,
        raster: &Raster,
        counted: &Counted,
        step: usize,
    ) -> Result<(Vec<u8>, Option<Raster>), EncodeError> {
        let file = match self {
            Self::Lossy(settings) => webp::lossy(raster, &Lossy { quality: quality(settings, step), ..*settings }),
            Self::WebpPalette(emphasis) => webp::lossless(&counted.reduce(raster, COLOURS[step], emphasis).raster()),
            Self::PngPalette(emphasis, packing) => {
                png::indexed(&counted.reduce(raster, COLOURS[step], emphasis), *packing)
            }
            Self::Jpeg(planes) => jpeg::encode(raster, *planes, percent(step)),
            Self::Avif(effort) => {
                let avif::Encoding { file, shown } = avif::encode(raster, quantizer(step), *effort)?;
                return Ok((file, Some(shown)));
            }
        };
        Ok((file?, None))
    }

    /// In words, for people.
    pub(super) fn describe(&self, step: usize) -> String {
        match self {
            Self::Lossy(settings) => {
                let sharp = if settings.sharp_yuv { ", sharp" } else { "" };
                let (quality, segments) = (quality(settings, step), settings.segments);
                format!("quality {quality:.1}, {segments} segments, shaping {}{sharp}", settings.sns_strength)
            }
            Self::WebpPalette(_) | Self::PngPalette(_, Packing::Quick) => format!("{} colours", COLOURS[step]),
            Self::PngPalette(_, Packing::Thorough) => format!("{} colours, packed tightly", COLOURS[step]),
            Self::Jpeg(Planes::Halved) => format!("quality {}, 4:2:0", percent(step)),
            Self::Jpeg(Planes::Whole) => format!("quality {}, 4:4:4", percent(step)),
            Self::Avif(Effort::Quick) => format!("quantizer {}, quick", quantizer(step)),
            Self::Avif(Effort::Thorough) => format!("quantizer {}, thorough", quantizer(step)),
        }
    }

    /// The step of so many colours, or the next above.
    pub(super) fn step_of_colours(colours: u8) -> usize {
        COLOURS.iter().rposition(|&count| count >= colours).unwrap_or(0)
    }
}

/// libwebp's quantisers.
const QUANTISERS: usize = 128;

/// With one segment there is nothing between two quantisers.
fn steps_a_quantiser(settings: &Lossy) -> usize {
    if settings.segments == 1 { 1 } else { 2 }
}

/// The quality in whose middle the step's quantiser lies: `QualityToCompression` and `VP8SetSegmentParams` of libwebp's
/// `src/enc/quant_enc.c`, backwards.
fn quality(settings: &Lossy, step: usize) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "at most 256")]
    let quantiser = if settings.segments == 1 { step as f32 + 0.5 } else { step as f32 / 2.0 };
    let compression = 1.0 - (quantiser / 127.0).min(1.0);
    let linear = compression * compression * compression;
    100.0 * if linear < 0.5 { linear * 1.5 } else { f32::midpoint(linear, 1.0) }
}

/// A quality of 100 down to 1.
fn percent(step: usize) -> u8 {
    100 - u8::try_from(step).unwrap_or(99).min(99)
}

/// One of the quantizers of AVIF, from 1 on: 0 would be lossless.
fn quantizer(step: usize) -> u8 {
    u8::try_from(step + 1).unwrap_or(avif::COARSEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_from_fine_to_coarse() {
        assert!(COLOURS.is_sorted_by(|fine, coarse| fine > coarse));
        for settings in [Lossy::PLAIN, Lossy { segments: 4, ..Lossy::PLAIN }] {
            let qualities: Vec<f32> =
                (0..=Family::Lossy(settings).coarsest()).map(|step| quality(&settings, step)).collect();
            assert!(qualities.is_sorted_by(|fine, coarse| fine >= coarse) && qualities[0] > 98.0, "{qualities:?}");
            assert!(qualities.last().is_some_and(|last| (0.0..1.0).contains(last)), "{qualities:?}");
        }
        assert_eq!((percent(0), percent(99)), (100, 1));
        assert_eq!((quantizer(0), quantizer(Family::Avif(Effort::Quick).coarsest())), (1, avif::COARSEST));
        assert_eq!(COLOURS[Family::step_of_colours(24)], 25);
        assert_eq!((Family::step_of_colours(255), COLOURS[Family::step_of_colours(1)]), (0, 2));
    }
}
