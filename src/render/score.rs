//! How alike two pictures look: SSIMULACRA2, made steady for pictures as small as avatars.
//!
//! The measure sums over up to six scales and leaves out those under 8 pixels, so the same loss scores differently at
//! each size. On the picture and its mirror images side by side, at least 128 pixels a side, all scales count and one
//! pixel stays one pixel.

use super::raster::Raster;
use fast_ssim2::{PixelDescriptor, PixelSlice, Ssimulacra2Reference};

/// From this edge on every scale counts.
const LEAST_EDGE: u32 = 128;

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
    /// Prepares `original`; `None` when it has more pixels than the measure takes (2^28).
    pub(super) fn of(original: &Raster) -> Option<Self> {
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
        let (across, down) = (LEAST_EDGE.div_ceil(raster.width), LEAST_EDGE.div_ceil(raster.height));
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
