//! A picture with few colours as a palette and indices: the fewest colours that stay within a tolerance.

use super::kmeans::{Emphasis, distance, nearest, palette};
use super::quantise::{self, Colour, quantise};
use crate::render::raster::Raster;

/// A picture of at most 256 colours.
pub(in crate::render) struct Indexed {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Red, green, blue, alpha; the transparent ones first, no two equal, all of them used.
    pub(super) palette: Vec<[u8; 4]>,
    /// An index into the palette for each pixel, row by row.
    pub(super) indices: Vec<u8>,
}

impl Indexed {
    /// Takes what of `palette` is used, in its order; `taken` are indices into it.
    fn of(raster: &Raster, palette: &[[u8; 4]], taken: &[u8]) -> Self {
        let mut used = [false; 256];
        for &index in taken {
            used[usize::from(index)] = true;
        }
        let mut places = [0_u8; 256];
        let mut next = 0_u8..=u8::MAX;
        for (place, _) in places.iter_mut().zip(used).filter(|&(_, used)| used) {
            *place = next.next().expect("256 places");
        }
        let palette = palette.iter().zip(used).filter(|&(_, used)| used).map(|(&colour, _)| colour).collect();
        let indices = taken.iter().map(|&index| places[usize::from(index)]).collect();
        Self { width: raster.width, height: raster.height, palette, indices }
    }

    /// The picture with its palette applied.
    pub(in crate::render) fn raster(&self) -> Raster {
        let samples = self.indices.iter().flat_map(|&index| self.palette[usize::from(index)]).collect();
        Raster::with_alpha(self.width, self.height, samples)
    }
}

/// When a pixel takes the colour of one beside it instead of that which is usual for its own: runs compress.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::render) struct Sticky {
    /// How much farther than the usual one it may be, in squared distances: a factor, and what is added to it then.
    pub(in crate::render) factor: f64,
    pub(in crate::render) more: f64,
    /// Whether only a pixel does so that has none beside it with its own usual colour.
    pub(in crate::render) spares_runs: bool,
}

/// Puts the colours of a palette in an order that is a matter of the colours alone: those with transparency come first,
/// since PNG then stores no alpha for the rest.
fn ordered(mut palette: Vec<[u8; 4]>) -> Vec<[u8; 4]> {
    palette.sort_unstable_by_key(|&colour| rank(colour));
    palette.dedup();
    palette
}

fn rank([r, g, b, a]: [u8; 4]) -> (u8, u16, u8, u8, u8) {
    (a, u16::from(r) + u16::from(g) + u16::from(b), r, g, b)
}

/// The distinct colours of a picture, and which of them each pixel has.
pub(in crate::render) struct Counted {
    colours: Vec<Colour>,
    indices: Vec<u32>,
}

impl Counted {
    /// The mean squared distance of the pixels that are seen from their mean colour.
    pub(super) fn variance(&self) -> f64 {
        quantise::variance(&self.colours)
    }

    /// Reduces `raster`, the picture that was counted, to the fewest colours whose mean squared distance stays about within
    /// `tolerance`; `None` when 256 are not enough. Nothing is dithered: the noise would cost more bytes than further
    /// colours. What is `sticky` adds to the distance.
    pub(super) fn fewest(&self, raster: &Raster, tolerance: f64, sticky: Option<Sticky>) -> Option<Indexed> {
        let chosen = quantise(&self.colours, tolerance)?;
        let palette = ordered(chosen.clone());
        let place = |&colour| u8::try_from(palette.partition_point(|&other| rank(other) < rank(colour))).ok();
        let usual: Vec<u8> = chosen.iter().map(place).collect::<Option<_>>()?;
        let taken = match sticky {
            None => self.indices.iter().map(|&colour| usual[colour as usize]).collect(),
            Some(sticky) => {
                let apart = |colour: usize, place: u8| {
                    let distance = quantise::distance(self.colours[colour].rgba, palette[usize::from(place)]);
                    f64::from(distance) / quantise::UNIT
                };
                self.taken(raster.width, &usual, apart, sticky)
            }
        };
        Some(Indexed::of(raster, &palette, &taken))
    }

    /// Reduces `raster`, the picture that was counted, to at most `most` colours (at least one).
    pub(in crate::render) fn reduce(&self, raster: &Raster, most: u8, emphasis: &Emphasis) -> Indexed {
        let palette = ordered(palette(&self.colours, usize::from(most).max(1), emphasis));
        let places: Vec<_> = palette.iter().map(|&colour| emphasis.point(colour)).collect();
        let points: Vec<_> = self.colours.iter().map(|colour| emphasis.point(colour.rgba)).collect();
        let place = |point| u8::try_from(nearest(point, &places)).expect("at most 255 colours");
        let usual: Vec<_> = points.iter().map(place).collect();
        let apart = |colour: usize, place: u8| distance(&points[colour], &places[usize::from(place)]);
        let taken = self.taken(raster.width, &usual, apart, emphasis.sticky);
        Indexed::of(raster, &palette, &taken)
    }

    /// Which colour of a palette each pixel takes: that which is `usual` for its own colour, or one of a pixel beside it. `apart`
    /// is the squared distance between a colour of the picture and one of the palette.
    fn taken(&self, width: u32, usual: &[u8], apart: impl Fn(usize, u8) -> f64, sticky: Sticky) -> Vec<u8> {
        let width = width as usize;
        let mut taken: Vec<u8> = Vec::with_capacity(self.indices.len());
        for (i, &colour) in self.indices.iter().enumerate() {
            let colour = colour as usize;
            let (usual, column) = (usual[colour], i % width);
            let beside = [
                (column > 0).then(|| i - 1),
                i.checked_sub(width),
                i.checked_sub(width - 1).filter(|_| column + 1 < width),
                i.checked_sub(width + 1).filter(|_| column > 0),
            ];
            let beside = beside.map(|beside| beside.map(|beside| taken[beside]));
            if beside.iter().flatten().all(|&place| place == usual)
                || sticky.spares_runs && beside.contains(&Some(usual))
            {
                taken.push(usual);
                continue;
            }
            let mut best = (apart(colour, usual) * sticky.factor + sticky.more, usual);
            for place in beside.into_iter().flatten().filter(|&place| place != usual) {
                let apart = apart(colour, place);
                if apart < best.0 {
                    best = (apart, place);
                }
            }
            taken.push(best.1);
        }
        taken
    }

    pub(in crate::render) fn of(raster: &Raster) -> Self {
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

    fn reduce(raster: &Raster, tolerance: f64, sticky: Option<Sticky>) -> Option<Indexed> {
        Counted::of(raster).fewest(raster, tolerance, sticky)
    }

    #[test]
    fn few_colours_stay_exact_and_in_order() {
        let raster = Raster::with_alpha(2, 2, vec![9, 9, 9, 255, 1, 2, 3, 0, 5, 5, 5, 100, 9, 9, 9, 255]);
        let indexed = reduce(&raster, 0.0, None).expect("three colours");
        assert_eq!(indexed.palette, [[0, 0, 0, 0], [5, 5, 5, 100], [9, 9, 9, 255]]);
        assert_eq!(indexed.indices, [2, 0, 1, 2]);
        assert_eq!(&indexed.raster().samples[8..], &raster.samples[8..]);
    }

    #[test]
    fn a_pixel_takes_the_colour_beside_it_where_that_is_near_enough() {
        // Three greys of a palette, and in the last row one that is nearest to the second and not much farther from the first.
        let greys = [10, 10, 90, 10, 50, 50, 10, 32, 50];
        let raster = Raster::opaque(3, 3, greys.iter().flat_map(|&grey| [grey; 3]).collect());
        let counted = Counted::of(&raster);
        let palette = [10, 50, 90].map(|grey| [grey, grey, grey, 255]);
        let usual: Vec<_> = counted.colours.iter().map(|colour| (colour.rgba[0] + 16) / 40).collect();
        let apart = |colour: usize, place: u8| {
            f64::from(quantise::distance(counted.colours[colour].rgba, palette[usize::from(place)])) / quantise::UNIT
        };
        let last_row = |more: f64, spares_runs| {
            counted.taken(3, &usual, apart, Sticky { factor: 1.0, more, spares_runs })[6..].to_vec()
        };
        // 18 * 18 * 3 from the second, 22 * 22 * 3 from the first.
        assert_eq!(last_row(479.0, false), [0, 1, 1]);
        assert_eq!(last_row(481.0, false), [0, 0, 1]);
        // There is the second above it.
        assert_eq!(last_row(481.0, true), [0, 1, 1]);
    }

    #[test]
    fn a_wider_tolerance_takes_fewer_colours() {
        let ramp = |i: u32| [(i % 64 * 4).to_le_bytes()[0]; 3];
        let raster = Raster::opaque(64, 64, (0..64 * 64).flat_map(ramp).collect());
        let colours = |tolerance| reduce(&raster, tolerance, None).map(|indexed| indexed.palette.len());
        assert_eq!(colours(0.0), Some(64));
        assert!(colours(2.0) < colours(0.0) && colours(60.0) < colours(2.0) && colours(60.0) >= Some(4));
    }

    #[test]
    fn too_many_colours_have_no_palette() {
        let noise = |i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes().into_iter().skip(1);
        let raster = Raster::opaque(64, 64, (0..64 * 64).flat_map(noise).collect());
        assert!(reduce(&raster, 4.0, None).is_none());
        assert!(reduce(&raster, 0.0, None).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_index_names_a_colour(
            samples in proptest::collection::vec(any::<u8>(), 4 * 48),
            tolerance in 0.0_f64..1e5,
        ) {
            let raster = Raster::with_alpha(8, 6, samples);
            if let Some(indexed) = reduce(&raster, tolerance, Some(Sticky { factor: 1.0, more: tolerance, spares_runs: false })) {
                prop_assert!(indexed.palette.len() <= 256);
                prop_assert!(indexed.indices.iter().all(|&i| usize::from(i) < indexed.palette.len()));
                prop_assert_eq!(indexed.indices.len(), raster.len());
            }
        }
    }
}
