//! Many colours to few: clusters that are split at their mean along the channel that varies most, as in "Variance-based
//! color image quantization for frame buffer display" (Wan, Prusinkiewicz and Wong, 1990).
//!
//! The error is known after each split, so that the fewest colours within a tolerance are found in one go.

use std::ops::Range;

/// What an index of one byte can tell apart.
const MOST_COLOURS: usize = 256;

/// How much a channel counts, in parts of which [`UNIT`] are one: green is seen best and blue least.
const WEIGHTS: [u32; 4] = [8, 11, 5, 8];
pub(super) const UNIT: f64 = 8.0;

/// A picture that is this many times over the tolerance at `EARLY` clusters does not come within it at 256.
const HOPELESS: f64 = 40.0;
const EARLY: usize = 16;

/// Moving colours to the nearest cluster takes away this share of the error that the splits leave behind.
const REFINED: f64 = 0.87;

/// A colour, and how many pixels have it.
#[derive(Clone, Copy)]
pub(in crate::render) struct Colour {
    pub(super) rgba: [u8; 4],
    pub(super) pixels: u32,
}

/// Finds for each of `colours` (no two equal) the one that stands for it, so that the mean of squared distances over the
/// pixels stays about within `tolerance`; `None` when 256 colours are not enough.
pub(super) fn quantise(colours: &[Colour], tolerance: f64) -> Option<Vec<[u8; 4]>> {
    let mut members: Vec<Member> = (0..).zip(colours).map(|(place, &colour)| Member { colour, place }).collect();
    let clusters = split(&mut members, tolerance)?;
    let means: Vec<[u8; 4]> = clusters.iter().map(|cluster| cluster.sums.mean()).collect();
    let mut refined = vec![Sums::default(); means.len()];
    let mut nearest = vec![0_u8; colours.len()];
    for (own, cluster) in (0_u8..=u8::MAX).zip(&clusters) {
        let members = &members[cluster.members.clone()];
        let near = neighbours(own, members, &means);
        for member in members {
            let (_, index) = near
                .iter()
                .map(|&i| (distance(means[usize::from(i)], member.colour.rgba), i))
                .min()
                .unwrap_or((0, own));
            refined[usize::from(index)].add(member.colour);
            nearest[member.place] = index;
        }
    }
    Some(nearest.iter().map(|&index| refined[usize::from(index)].mean()).collect())
}

/// The mean squared distance of the pixels that are seen from their mean colour.
pub(super) fn variance(colours: &[Colour]) -> f64 {
    let mut sums = Sums::default();
    for &colour in colours.iter().filter(|colour| colour.rgba[3] > 0) {
        sums.add(colour);
    }
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer than 2^53 pixels")]
    let pixels = sums.pixels.max(1) as f64;
    // Where nothing is seen, the sum is no number.
    sums.errors().iter().sum::<f64>().max(0.0) / pixels / UNIT
}

/// A colour on its way between the clusters.
#[derive(Clone, Copy)]
struct Member {
    colour: Colour,
    /// Its place among the colours that were given.
    place: usize,
}

/// Some of the members, which lie side by side.
struct Cluster {
    members: Range<usize>,
    sums: Sums,
    /// The sum of squared distances to the mean, for each channel, in parts of which [`UNIT`] are one.
    errors: [f64; 4],
    error: f64,
}

impl Cluster {
    fn new(all: &[Member], members: Range<usize>) -> Self {
        let mut sums = Sums::default();
        for member in &all[members.clone()] {
            sums.add(member.colour);
        }
        let errors = sums.errors();
        Self { members, sums, errors, error: errors.iter().sum() }
    }

    /// Divides the members at their mean along the channel with the largest error, which must not be 0.
    fn split(&self, all: &mut [Member]) -> [Self; 2] {
        let channel = (0..4).max_by(|&a, &b| self.errors[a].total_cmp(&self.errors[b])).expect("four channels");
        let mean = self.sums.first[channel] / self.sums.pixels;
        let Range { start, end } = self.members;
        let mut middle = start;
        for i in start..end {
            // The mean is rounded down, so neither side is empty where there are two values.
            if u64::from(all[i].colour.rgba[channel]) <= mean {
                all.swap(i, middle);
                middle += 1;
            }
        }
        [Self::new(all, start..middle), Self::new(all, middle..end)]
    }
}

/// What means and errors are made of; whole numbers, so that no order of summing matters.
#[derive(Clone, Copy, Default)]
struct Sums {
    pixels: u64,
    first: [u64; 4],
    second: [u64; 4],
}

impl Sums {
    fn add(&mut self, colour: Colour) {
        let pixels = u64::from(colour.pixels);
        self.pixels += pixels;
        for ((first, second), value) in self.first.iter_mut().zip(&mut self.second).zip(colour.rgba) {
            let weighted = pixels * u64::from(value);
            *first += weighted;
            *second += weighted * u64::from(value);
        }
    }

    fn mean(&self) -> [u8; 4] {
        self.first
            .map(|sum| u8::try_from((sum + self.pixels / 2) / self.pixels.max(1)).expect("a mean of bytes is a byte"))
    }

    /// The sum of squared distances to the mean, for each channel, in parts of which [`UNIT`] are one.
    #[expect(clippy::cast_precision_loss, reason = "the rasters that take a palette have sums below 2^53")]
    fn errors(&self) -> [f64; 4] {
        let of = |channel: usize| {
            let first = self.first[channel] as f64;
            f64::from(WEIGHTS[channel]) * (self.second[channel] as f64 - first * first / self.pixels as f64)
        };
        [of(0), of(1), of(2), of(3)]
    }
}

/// Splits the cluster with the largest error until the error of all is within `tolerance`.
fn split(members: &mut [Member], tolerance: f64) -> Option<Vec<Cluster>> {
    let everything = Cluster::new(members, 0..members.len());
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer than 2^53 pixels")]
    let allowed = UNIT * tolerance * everything.sums.pixels as f64 / REFINED;
    let exact_at_last = members.len() <= MOST_COLOURS;
    let mut error = everything.error;
    let mut clusters = vec![everything];
    while error > allowed && clusters.len() < members.len() {
        if !exact_at_last && (clusters.len() == MOST_COLOURS || clusters.len() == EARLY && error > HOPELESS * allowed) {
            return None;
        }
        let worst = (0..clusters.len()).max_by(|&a, &b| clusters[a].error.total_cmp(&clusters[b].error))?;
        let halves = clusters[worst].split(members);
        error += halves[0].error + halves[1].error - clusters[worst].error;
        let [one, other] = halves;
        clusters[worst] = one;
        clusters.push(other);
    }
    Some(clusters)
}

/// The clusters whose mean may be the nearest to some member of the `own` one: no other is closer to a member than half
/// the distance between the means tells.
fn neighbours(own: u8, members: &[Member], means: &[[u8; 4]]) -> Vec<u8> {
    let mean = means[usize::from(own)];
    let radius = members.iter().map(|member| distance(mean, member.colour.rgba)).max().unwrap_or(0);
    (0..=u8::MAX)
        .zip(means)
        .filter(|&(i, &other)| i == own || distance(mean, other) < 4 * radius)
        .map(|(i, _)| i)
        .collect()
}

/// The squared distance, in parts of which [`UNIT`] are one.
pub(super) fn distance(one: [u8; 4], other: [u8; 4]) -> u32 {
    let mut sum = 0;
    for channel in 0..4 {
        let apart = u32::from(one[channel].abs_diff(other[channel]));
        sum += WEIGHTS[channel] * apart * apart;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(colours: &[([u8; 4], u32)]) -> Vec<Colour> {
        colours.iter().map(|&(rgba, pixels)| Colour { rgba, pixels }).collect()
    }

    /// The mean of squared distances over the pixels.
    fn error(colours: &[Colour], chosen: &[[u8; 4]]) -> f64 {
        let pixels: u32 = colours.iter().map(|colour| colour.pixels).sum();
        let sum: u32 = colours.iter().zip(chosen).map(|(colour, &to)| colour.pixels * distance(colour.rgba, to)).sum();
        f64::from(sum) / f64::from(pixels) / UNIT
    }

    #[test]
    fn what_is_rare_joins_what_is_common() {
        let colours = counted(&[([0, 0, 0, 255], 1000), ([4, 0, 0, 255], 1), ([200, 200, 200, 255], 500)]);
        assert_eq!(
            quantise(&colours, 1.0).expect("two colours"),
            [[0, 0, 0, 255], [0, 0, 0, 255], [200, 200, 200, 255]]
        );
        assert_eq!(quantise(&colours, 0.0).expect("three colours"), colours.iter().map(|c| c.rgba).collect::<Vec<_>>());
    }

    #[test]
    fn too_many_colours_for_a_palette_are_told_from_a_few_exact_ones() {
        let grid = |n: u8, step: u8| {
            let edge = |i: u8| (0..n).map(move |j| ([i * step, j * step, 0, 255], 1));
            counted(&(0..n).flat_map(edge).collect::<Vec<_>>())
        };
        assert!(quantise(&grid(16, 16), 0.0).is_some(), "256 colours");
        assert!(quantise(&grid(17, 15), 0.0).is_none(), "289 colours");
    }

    #[test]
    fn what_is_seen_better_counts_more() {
        assert!(distance([0, 9, 0, 255], [0; 4]) > distance([9, 0, 0, 255], [0; 4]));
        assert!(distance([9, 0, 0, 255], [0; 4]) > distance([0, 0, 9, 255], [0; 4]));
        let of = |rgba| variance(&counted(&[([0, 0, 0, 255], 3), (rgba, 1)]));
        // A quarter and three quarters of the way from the mean.
        assert!((of([0, 80, 0, 255]) - 11.0 / UNIT * (3.0 * 400.0 + 3600.0) / 4.0).abs() < 1e-9);
        assert!(of([0, 0, 80, 255]) < of([80, 0, 0, 255]) && of([80, 0, 0, 255]) < of([0, 80, 0, 255]));
        // What is not seen neither adds to it nor takes from it.
        let barred = counted(&[([0, 0, 0, 255], 3), ([0, 80, 0, 255], 1), ([0, 0, 0, 0], 40)]);
        assert_eq!(variance(&barred).to_bits(), of([0, 80, 0, 255]).to_bits());
        assert_eq!(variance(&counted(&[([0, 0, 0, 0], 9)])).to_bits(), 0.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn the_error_stays_about_within_the_tolerance(
            colours in proptest::collection::btree_map(any::<[u8; 4]>(), 1_u32..50, 1..120),
            tolerance in 0.0_f64..2000.0,
        ) {
            let colours = counted(&colours.into_iter().collect::<Vec<_>>());
            let chosen = quantise(&colours, tolerance).expect("few enough to be exact at last");
            prop_assert_eq!(chosen.len(), colours.len());
            // Moving colours to the nearest cluster takes away less than it usually does from some; and means are rounded.
            prop_assert!(error(&colours, &chosen) <= tolerance / REFINED + 1.0);
        }
    }
}
