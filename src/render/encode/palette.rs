//! A picture with few colours as a palette and indices: the fewest colours that stay within a tolerance.

use super::quantise::{Colour, quantise};
use crate::render::raster::Raster;

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

/// Reduces `raster` to the fewest colours whose mean squared distance stays about within `tolerance`; `None` when 256 are
/// not enough. Nothing is dithered: the noise would cost more bytes than further colours.
pub(super) fn reduce(raster: &Raster, tolerance: f64) -> Option<Indexed> {
    let counted = Counted::of(raster);
    let chosen = quantise(&counted.colours, tolerance)?;
    let mut palette = chosen.clone();
    // The order is a matter of the colours alone: those with transparency come first, since PNG then stores no alpha for
    // the rest.
    let rank = |&[r, g, b, a]: &[u8; 4]| (a, u16::from(r) + u16::from(g) + u16::from(b), r, g, b);
    palette.sort_unstable_by_key(rank);
    palette.dedup();
    let place = |colour| u8::try_from(palette.partition_point(|other| rank(other) < rank(colour))).ok();
    let places: Vec<u8> = chosen.iter().map(place).collect::<Option<_>>()?;
    let indices = counted.indices.iter().map(|&index| places[index as usize]).collect();
    Some(Indexed { width: raster.width, height: raster.height, palette, indices })
}

/// The distinct colours of a picture, and which of them each pixel has.
struct Counted {
    colours: Vec<Colour>,
    indices: Vec<u32>,
}

impl Counted {
    fn of(raster: &Raster) -> Self {
        let mut counted = Self { colours: Vec::new(), indices: Vec::with_capacity(raster.len()) };
        // A hash table of indices by open addressing, at most half full.
        let mut slots = vec![VACANT; 1 << 10];
        for mut rgba in raster.rgba() {
            if rgba[3] == 0 {
                // What is under full transparency is not seen; one value for it compresses best.
                rgba = [0; 4];
            }
            if let Some(&last) = counted.indices.last()
                && counted.colours[last as usize].rgba == rgba
            {
                counted.add(last);
                continue;
            }
            let slot = counted.slot(&slots, rgba);
            if slots[slot] == VACANT {
                slots[slot] = u32::try_from(counted.colours.len()).expect("pictures with a palette are small");
                counted.colours.push(Colour { rgba, pixels: 0 });
            }
            counted.add(slots[slot]);
            if 2 * counted.colours.len() > slots.len() {
                slots = counted.rehashed(2 * slots.len());
            }
        }
        counted
    }

    fn add(&mut self, index: u32) {
        self.colours[index as usize].pixels += 1;
        self.indices.push(index);
    }

    /// The slot that holds the index of `rgba`, or else the vacant one where it belongs.
    fn slot(&self, slots: &[u32], rgba: [u8; 4]) -> usize {
        // Fibonacci hashing: the high bits of the product depend on every bit of the colour.
        let hash = u32::from_le_bytes(rgba).wrapping_mul(0x9e37_79b1) >> (32 - slots.len().ilog2());
        let mut slot = hash as usize;
        while slots[slot] != VACANT && self.colours[slots[slot] as usize].rgba != rgba {
            slot = (slot + 1) % slots.len();
        }
        slot
    }

    fn rehashed(&self, length: usize) -> Vec<u32> {
        let mut slots = vec![VACANT; length];
        for (index, colour) in (0..).zip(&self.colours) {
            let slot = self.slot(&slots, colour.rgba);
            slots[slot] = index;
        }
        slots
    }
}

/// A slot that holds no index.
const VACANT: u32 = u32::MAX;

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
            tolerance in 0.0_f64..1e5,
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
