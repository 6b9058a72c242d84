//! The palette of so many colours that shows a picture best: splits at the mean as in `quantise`, then Lloyd's algorithm.
//!
//! Slower than `quantise`, and smaller at the same likeness: how much what the eye sees better weighs is tried out, and so is whether
//! colours of few pixels weigh more.

use super::palette::Sticky;
use super::quantise::Colour;

/// What counts how much. Whole pictures differ in what suits them, so that several are worth a try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::render) struct Emphasis {
    /// A factor for each colour channel.
    pub(in crate::render) channels: [f64; 3],
    /// Whether the weight of a colour grows slower than the number of its pixels, with the power 3/4.
    pub(in crate::render) rare: bool,
    /// When a pixel takes the colour of one beside it.
    pub(in crate::render) sticky: Sticky,
}

/// A colour in the space where distances are measured: each channel times its factor and alpha.
pub(super) type Point = [f64; 4];

impl Emphasis {
    /// Of sixteen that were tried, those that gave the smallest file of the most pictures and sizes.
    pub(in crate::render) const ALL: [Self; 10] = [
        Self::new(SEEN, true, Sticky { factor: 1.0, more: 80.0, spares_runs: true }),
        Self::new([1.0; 3], false, Sticky { factor: 1.0, more: 40.0, spares_runs: true }),
        Self::new(SEEN, true, Sticky { factor: 1.5, more: 120.0, spares_runs: true }),
        Self::new([1.0; 3], false, Sticky { factor: 2.0, more: 40.0, spares_runs: true }),
        Self::new(SEEN, false, Sticky { factor: 3.0, more: 160.0, spares_runs: true }),
        Self::new(SEEN, true, Sticky { factor: 1.0, more: 500.0, spares_runs: true }),
        Self::new([1.0; 3], true, Sticky { factor: 6.0, more: 300.0, spares_runs: true }),
        Self::new([1.0; 3], true, Sticky { factor: 1.0, more: 0.0, spares_runs: true }),
        Self::new(SEEN, false, Sticky { factor: 3.0, more: 160.0, spares_runs: false }),
        Self::new([1.0; 3], true, Sticky { factor: 6.0, more: 300.0, spares_runs: false }),
    ];

    const fn new(channels: [f64; 3], rare: bool, sticky: Sticky) -> Self {
        Self { channels, rare, sticky }
    }

    /// The place of a colour.
    pub(super) fn point(&self, [r, g, b, a]: [u8; 4]) -> Point {
        let opacity = f64::from(a) / 255.0;
        let [red, green, blue] = self.channels;
        [
            f64::from(r) * red * opacity,
            f64::from(g) * green * opacity,
            f64::from(b) * blue * opacity,
            f64::from(a) * ALPHA,
        ]
    }

    /// The colour that is nearest to a place.
    fn colour(&self, [r, g, b, a]: Point) -> [u8; 4] {
        let alpha = byte(a / ALPHA);
        if alpha == 0 {
            return [0; 4];
        }
        let opacity = f64::from(alpha) / 255.0;
        let [red, green, blue] = self.channels;
        [byte(r / red / opacity), byte(g / green / opacity), byte(b / blue / opacity), alpha]
    }

    fn weight(&self, pixels: u32) -> f64 {
        let pixels = f64::from(pixels);
        if self.rare { (pixels * pixels.sqrt()).sqrt() } else { pixels }
    }
}

/// Green is seen best and blue least.
const SEEN: [f64; 3] = [1.2, 1.6, 0.5];

/// The factor of alpha: between those of red and green.
const ALPHA: f64 = 1.4;

/// Above this many distances to compute, a second round of Lloyd's algorithm is the last.
const CHEAP_DISTANCES: usize = 1 << 19;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte before")]
fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

/// The squared distance.
pub(super) fn distance(one: &Point, other: &Point) -> f64 {
    let mut sum = 0.0;
    for channel in 0..4 {
        let apart = one[channel] - other[channel];
        sum += apart * apart;
    }
    sum
}

/// The index of the one that is nearest to `point`, the first of equals.
pub(super) fn nearest(point: &Point, among: &[Point]) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (index, other) in among.iter().enumerate() {
        let apart = distance(point, other);
        if apart < best.0 {
            best = (apart, index);
        }
    }
    best.1
}

/// At most `most` colours (at least one) for a picture of `colours`.
pub(super) fn palette(colours: &[Colour], most: usize, emphasis: &Emphasis) -> Vec<[u8; 4]> {
    let mut members: Vec<Member> = colours
        .iter()
        .map(|colour| Member { point: emphasis.point(colour.rgba), weight: emphasis.weight(colour.pixels) })
        .collect();
    let mut means: Vec<Point> = split(&mut members, most).iter().map(|cluster| cluster.mean).collect();
    let rounds = if members.len() * means.len() > CHEAP_DISTANCES { 2 } else { 5 };
    for _ in 0..rounds {
        means = moved(&members, &means);
    }
    means.into_iter().map(|mean| emphasis.colour(mean)).collect()
}

#[derive(Clone, Copy)]
struct Member {
    point: Point,
    weight: f64,
}

/// Some of the members, which lie side by side.
struct Cluster {
    start: usize,
    end: usize,
    mean: Point,
    /// The sum of squared distances to the mean, for each channel.
    errors: Point,
    error: f64,
}

impl Cluster {
    fn of(all: &[Member], start: usize, end: usize) -> Self {
        let (mut weight, mut mean, mut errors) = (0.0, [0.0; 4], [0.0; 4]);
        for member in &all[start..end] {
            weight += member.weight;
            for (sum, value) in mean.iter_mut().zip(member.point) {
                *sum += member.weight * value;
            }
        }
        mean = mean.map(|sum| sum / weight);
        for member in &all[start..end] {
            for channel in 0..4 {
                let apart = member.point[channel] - mean[channel];
                errors[channel] += member.weight * apart * apart;
            }
        }
        Self { start, end, mean, errors, error: errors.iter().sum() }
    }

    /// Divides the members at their mean along the channel with the largest error; `None` when they are all alike.
    fn split(&self, all: &mut [Member]) -> Option<[Self; 2]> {
        let channel = (0..4).max_by(|&a, &b| self.errors[a].total_cmp(&self.errors[b]))?;
        let mut middle = self.start;
        for i in self.start..self.end {
            if all[i].point[channel] <= self.mean[channel] {
                all.swap(i, middle);
                middle += 1;
            }
        }
        let halves = || [Self::of(all, self.start, middle), Self::of(all, middle, self.end)];
        (self.start < middle && middle < self.end).then(halves)
    }
}

/// Splits the cluster with the largest error until there are `most`.
fn split(members: &mut [Member], most: usize) -> Vec<Cluster> {
    let mut clusters = vec![Cluster::of(members, 0, members.len())];
    while clusters.len() < most {
        let worst = (0..clusters.len()).max_by(|&a, &b| clusters[a].error.total_cmp(&clusters[b].error));
        let Some((worst, [one, other])) = worst.and_then(|worst| Some((worst, clusters[worst].split(members)?))) else {
            break;
        };
        clusters[worst] = one;
        clusters.push(other);
    }
    clusters
}

/// Each mean moved to the middle of the members that are nearest to it.
fn moved(members: &[Member], means: &[Point]) -> Vec<Point> {
    let mut sums = vec![([0.0; 4], 0.0); means.len()];
    for member in members {
        let (sum, weight) = &mut sums[nearest(&member.point, means)];
        for (sum, value) in sum.iter_mut().zip(member.point) {
            *sum += member.weight * value;
        }
        *weight += member.weight;
    }
    let middle = |((sum, weight), &mean): ((Point, f64), &Point)| {
        if weight > 0.0 { sum.map(|sum| sum / weight) } else { mean }
    };
    sums.into_iter().zip(means).map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVEN: Emphasis =
        Emphasis { channels: [1.0; 3], rare: false, sticky: Sticky { factor: 1.0, more: 0.0, spares_runs: true } };

    #[test]
    fn as_many_colours_as_there_are_stay_as_they_are() {
        let rgba = [[0, 0, 0, 0], [7, 8, 9, 100], [7, 8, 9, 255], [200, 10, 30, 255]];
        let colours = rgba.map(|rgba| Colour { rgba, pixels: 3 });
        for emphasis in [EVEN, Emphasis { channels: [1.2, 1.6, 0.5], rare: true, ..EVEN }] {
            let mut found = palette(&colours, 9, &emphasis);
            found.sort_unstable();
            assert_eq!(found, rgba);
        }
    }

    #[test]
    fn emphasis_decides_what_is_told_apart() {
        let reds_and_blues = [[0, 0, 0, 255], [90, 0, 0, 255], [0, 0, 90, 255], [90, 0, 90, 255]];
        let colours = reds_and_blues.map(|rgba| Colour { rgba, pixels: 1 });
        let found = |channels| {
            let mut found = palette(&colours, 2, &Emphasis { channels, ..EVEN });
            found.sort_unstable();
            found
        };
        assert_eq!(found([2.0, 1.0, 1.0]), [[0, 0, 45, 255], [90, 0, 45, 255]]);
        assert_eq!(found([1.0, 1.0, 2.0]), [[45, 0, 0, 255], [45, 0, 90, 255]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_palette_is_empty_or_too_long(
            colours in proptest::collection::btree_map(any::<[u8; 4]>(), 1_u32..50, 1..120),
            most in 1_usize..40,
            rare: bool,
        ) {
            let colours: Vec<_> = colours.into_iter().map(|(rgba, pixels)| Colour { rgba, pixels }).collect();
            let found = palette(&colours, most, &Emphasis { rare, ..EVEN });
            prop_assert!((1..=most).contains(&found.len()));
        }
    }
}
