//! How alike two pictures look: SSIMULACRA2, made steady for pictures as small as avatars.
//!
//! The measure sums over up to six scales and leaves out those under 8 pixels, so the same loss scores differently at
//! each size. On the picture and its mirror images side by side, at least 128 pixels a side, all scales count and one
//! pixel stays one pixel.

use super::raster::Raster;
use fast_ssim2::{PixelDescriptor, PixelSlice, Ssimulacra2Reference};

/// From this edge on every scale counts.
const LEAST_EDGE: u32 = 128;

/// The most pixels that are compared, mirror images and all: some 8 MiB while they are, and half as much again with alpha.
const MOST_PIXELS: u64 = 1 << 16;

/// What transparent pictures are shown on: the lightest theme, and a dark one.
const GROUNDS: [[u8; 3]; 2] = [[255; 3], [34; 3]];

/// An original, prepared once to be compared with many others.
pub(super) struct Judge {
    width: u32,
    height: u32,
    /// The grounds on which it is looked at; what they are does not matter to an opaque one.
    views: Vec<([u8; 3], Ssimulacra2Reference)>,
}

impl Judge {
    /// Prepares `original`; `None` when it and its mirror images have more than 2^16 pixels.
    pub(super) fn of(original: &Raster) -> Option<Self> {
        if !is_comparable(original) {
            return None;
        }
        let grounds = if original.has_alpha() { &GROUNDS[..] } else { &GROUNDS[..1] };
        let view = |&ground| Some((ground, Tiled::of(original, ground).reference()?));
        let views = grounds.iter().map(view).collect::<Option<_>>()?;
        Some(Self { width: original.width, height: original.height, views })
    }

    /// The score of `other`: 100 when it is the same, 90 when hardly anybody could tell, below 0 when it is another
    /// picture. On the ground where it looks worst, when there is alpha; infinitely low when the sizes differ.
    pub(super) fn score(&self, other: &Raster) -> f64 {
        if (other.width, other.height) != (self.width, self.height) {
            return f64::NEG_INFINITY;
        }
        let on = |(ground, reference): &([u8; 3], _)| Tiled::of(other, *ground).score(reference);
        self.views.iter().map(on).fold(f64::INFINITY, f64::min)
    }
}

/// Whether there is a judge of `raster`.
pub(super) fn is_comparable(raster: &Raster) -> bool {
    let [across, down] = tiles(raster).map(u64::from);
    across * u64::from(raster.width) * down * u64::from(raster.height) <= MOST_PIXELS
}

/// How many images there are side by side and below each other, the picture itself included.
fn tiles(raster: &Raster) -> [u32; 2] {
    [raster.width, raster.height].map(|edge| LEAST_EDGE.div_ceil(edge))
}

/// A picture and its mirror images, opaque.
struct Tiled {
    width: u32,
    height: u32,
    samples: Vec<u8>,
}

impl Tiled {
    fn of(raster: &Raster, ground: [u8; 3]) -> Self {
        let flattened = raster.has_alpha().then(|| raster.flattened(ground));
        let raster = flattened.as_ref().unwrap_or(raster);
        let [across, down] = tiles(raster);
        let row = raster.samples.len() / raster.height as usize;
        let mut strip = Vec::with_capacity(raster.samples.len() * across as usize);
        for row in raster.samples.chunks_exact(row) {
            for tile in 0..across {
                if tile % 2 == 0 {
                    strip.extend_from_slice(row);
                } else {
                    strip.extend(row.chunks_exact(3).rev().flatten());
                }
            }
        }
        let mut samples = Vec::with_capacity(strip.len() * down as usize);
        for tile in 0..down {
            if tile % 2 == 0 {
                samples.extend_from_slice(&strip);
            } else {
                samples.extend(strip.chunks_exact(row * across as usize).rev().flatten());
            }
        }
        Self { width: raster.width * across, height: raster.height * down, samples }
    }

    fn slice(&self) -> PixelSlice<'_> {
        let stride = self.samples.len() / self.height as usize;
        PixelSlice::new(&self.samples, self.width, self.height, stride, PixelDescriptor::RGB8_SRGB)
            .expect("rows of three bytes a pixel without padding")
    }

    fn reference(&self) -> Option<Ssimulacra2Reference> {
        Ssimulacra2Reference::new(&self.slice()).ok()
    }

    fn score(&self, reference: &Ssimulacra2Reference) -> f64 {
        reference.compare(&self.slice()).unwrap_or(f64::NEG_INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::encode::webp::{self, Lossy};
    use crate::render::{Limits, decode, resize};
    use crate::variant::Geometry;

    fn picture(edge: u32) -> Raster {
        let file = include_bytes!("../../benches/pictures/photo-ski-astronaut.png");
        let pixels = decode(file, &Limits::default()).expect("decodes");
        resize(&pixels, Geometry::Scale { width: edge, height: edge }).expect("a size").into_owned().raster
    }

    fn judge(raster: &Raster) -> Judge {
        Judge::of(raster).expect("a small picture")
    }

    #[test]
    fn mirror_images_lie_side_by_side() {
        let tiled = Tiled::of(&Raster::opaque(2, 1, vec![1, 1, 1, 2, 2, 2]), [0; 3]);
        assert_eq!((tiled.width, tiled.height, tiled.samples.len()), (128, 128, 128 * 128 * 3));
        assert_eq!(tiled.samples[..15], [1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
        let tall = Tiled::of(&Raster::opaque(100, 200, (0..60_000_u32).map(|i| i.to_le_bytes()[1]).collect()), [0; 3]);
        assert_eq!((tall.width, tall.height), (200, 200));
        let tall = Tiled::of(&Raster::opaque(1, 2, vec![1, 1, 1, 2, 2, 2]), [0; 3]);
        let column: Vec<u8> = tall.samples.iter().step_by(128 * 3).copied().take(5).collect();
        assert_eq!(column, [1, 2, 2, 1, 1]);
    }

    #[test]
    fn the_same_scores_a_hundred_and_loss_takes_from_it() {
        for edge in [1, 16, 40, 128] {
            let original = picture(edge);
            assert!(judge(&original).score(&original) > 99.9, "{edge}");
        }
        for edge in [24, 32, 64, 128] {
            let original = picture(edge);
            let score = |quality| {
                let file = webp::lossy(&original, &Lossy { quality, ..Lossy::PLAIN }).expect("encodes");
                judge(&original).score(&webp::decode(&file, &original).expect("decodes"))
            };
            let scores = [score(10.0), score(50.0), score(78.0), score(95.0)];
            assert!(scores.is_sorted() && scores[0] < 60.0 && scores[3] > 80.0, "{edge}: {scores:?}");
            // The point of mirror images: about the same at all sizes.
            assert!((70.0..90.0).contains(&scores[2]), "{edge}: {scores:?}");
        }
    }

    #[test]
    fn transparent_pictures_are_looked_at_on_light_and_on_dark() {
        let dots = |on: [u8; 4]| {
            let pixels = (0..32 * 32_u32).flat_map(|i| if (i / 4 + i / 128) % 2 == 0 { on } else { [0; 4] });
            Raster::with_alpha(32, 32, pixels.collect())
        };
        let white = dots([255; 4]);
        // On white nothing is to be seen of either; on dark, of one.
        assert!(judge(&white).score(&dots([255, 255, 255, 0])) < 50.0);
        let dark = dots([34, 34, 34, 255]);
        assert!(judge(&dark).score(&dots([34, 34, 34, 0])) < 50.0);
        assert!(judge(&dark).score(&dark) > 99.9);
    }

    #[test]
    fn what_cannot_be_compared_is_said_so() {
        let flat = |width: u32, height: u32| Raster::opaque(width, height, vec![9; (width * height * 3) as usize]);
        assert!(judge(&flat(32, 32)).score(&flat(32, 31)).is_infinite());
        for (width, height, judged) in [(256, 256, true), (257, 256, false), (1, 512, true), (1, 513, false)] {
            assert_eq!(Judge::of(&flat(width, height)).is_some(), judged, "{width} x {height}");
        }
    }
}
