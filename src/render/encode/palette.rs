//! A picture with few colours as a palette and indices: the fewest colours that stay within a tolerance.

use super::colours::distinct;
use crate::render::raster::Raster;
use quantizr::{Histogram, Image, Options, QuantizeResult};

/// The palettes that are tried, from the smallest: a bit depth of PNG is used up, or half a step further.
const COLOURS: [i32; 10] = [4, 8, 12, 16, 24, 32, 48, 64, 128, 256];

/// A palette that is this many times over the tolerance at 16 colours does not come within it at 256.
const HOPELESS: f32 = 40.0;

/// A picture of at most 256 colours.
pub(super) struct Indexed {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Red, green, blue, alpha; the transparent ones first, no two equal, all of them used.
    pub(super) palette: Vec<[u8; 4]>,
    /// An index into the palette for each pixel, row by row.
    pub(super) indices: Vec<u8>,
}

impl Indexed {
    /// The picture with its palette applied.
    pub(super) fn raster(&self) -> Raster {
        let samples = self.indices.iter().flat_map(|&index| self.palette[usize::from(index)]).collect();
        Raster::with_alpha(self.width, self.height, samples)
    }
}

/// Reduces `raster` to the fewest colours whose mean squared distance stays within `tolerance`; `None` when 256 are not
/// enough. Nothing is dithered: the noise would cost more bytes than further colours.
pub(super) fn reduce(raster: &Raster, tolerance: f32) -> Option<Indexed> {
    let samples: Vec<u8> = raster.rgba().flatten().collect();
    let width = usize::try_from(raster.width).ok()?;
    let height = usize::try_from(raster.height).ok()?;
    let image = Image::new(&samples, width, height).ok()?;
    let mut histogram = Histogram::new();
    histogram.add_image(&image);
    let exact_at_last = distinct(raster, 256) <= 256;
    let mut quantised = fewest_colours(&histogram, tolerance, exact_at_last)?;
    quantised.set_dithering_level(0.0).ok()?;
    let mut indices = vec![0; raster.len()];
    quantised.remap_image(&image, &mut indices).ok()?;
    let palette = quantised.get_palette();
    let colours = indices.iter().map(|&index| {
        let colour = palette.entries[usize::from(index)];
        // What is under full transparency is not seen; one value for it compresses best.
        if colour.a == 0 { [0; 4] } else { [colour.r, colour.g, colour.b, colour.a] }
    });
    Some(index(raster.width, raster.height, &colours.collect::<Vec<_>>()))
}

fn fewest_colours(histogram: &Histogram, tolerance: f32, exact_at_last: bool) -> Option<QuantizeResult> {
    // The error falls with every colour more, near enough to search by halves: four palettes are made and not ten.
    let (mut from, mut to, mut fewest) = (0, COLOURS.len(), None);
    while from < to {
        let middle = from.midpoint(to);
        let mut options = Options::default();
        options.set_max_colors(COLOURS[middle]).ok()?;
        let quantised = QuantizeResult::quantize_histogram(histogram, &options);
        if quantised.get_error() <= tolerance {
            (to, fewest) = (middle, Some(quantised));
        } else if !exact_at_last && COLOURS[middle] >= 16 && quantised.get_error() > HOPELESS * tolerance {
            return None;
        } else {
            from = middle + 1;
        }
    }
    fewest
}

/// Builds the palette of `colours`, of which there are at most 256. Its order is a matter of the colours alone:
/// those with transparency come first, since PNG then stores no alpha for the rest.
fn index(width: u32, height: u32, colours: &[[u8; 4]]) -> Indexed {
    let mut palette = colours.to_vec();
    palette.sort_unstable_by_key(|&[r, g, b, a]| (a, [r, g, b].map(u16::from).iter().sum::<u16>(), r, g, b));
    palette.dedup();
    let positions: std::collections::HashMap<_, _> = palette.iter().copied().zip(0_u8..=u8::MAX).collect();
    let indices = colours.iter().map(|colour| positions[colour]).collect();
    Indexed { width, height, palette, indices }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_colours_stay_exact_and_in_order() {
        let raster = Raster::with_alpha(2, 2, vec![9, 9, 9, 255, 1, 2, 3, 0, 5, 5, 5, 100, 9, 9, 9, 255]);
        let indexed = reduce(&raster, 0.0).expect("three colours");
        assert_eq!(indexed.palette, [[0, 0, 0, 0], [5, 5, 5, 100], [9, 9, 9, 255]]);
        assert_eq!(indexed.indices, [2, 0, 1, 2]);
        assert_eq!(&indexed.raster().samples[8..], &raster.samples[8..]);
    }

    #[test]
    fn a_wider_tolerance_takes_fewer_colours() {
        let ramp = |i: u32| [(i % 64 * 4).to_le_bytes()[0]; 3];
        let raster = Raster::opaque(64, 64, (0..64 * 64).flat_map(ramp).collect());
        let colours = |tolerance| reduce(&raster, tolerance).map(|indexed| indexed.palette.len());
        assert_eq!(colours(0.0), Some(64));
        assert!(colours(2.0) < colours(0.0) && colours(60.0) < colours(2.0) && colours(60.0) >= Some(4));
    }

    #[test]
    fn too_many_colours_have_no_palette() {
        let noise = |i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes().into_iter().skip(1);
        let raster = Raster::opaque(64, 64, (0..64 * 64).flat_map(noise).collect());
        assert!(reduce(&raster, 4.0).is_none());
        assert!(reduce(&raster, 0.0).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_index_names_a_colour(
            samples in proptest::collection::vec(any::<u8>(), 4 * 48),
            tolerance in 0.0_f32..1e5,
        ) {
            let raster = Raster::with_alpha(8, 6, samples);
            if let Some(indexed) = reduce(&raster, tolerance) {
                prop_assert!(indexed.palette.len() <= 256);
                prop_assert!(indexed.indices.iter().all(|&i| usize::from(i) < indexed.palette.len()));
                prop_assert_eq!(indexed.indices.len(), raster.len());
            }
        }
    }
}
