//! What a picture shows, told by how many colours it has and how often they change.

use crate::render::raster::{Layout, Raster};

/// A class of pictures that are encoded alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::render) enum Content {
    /// A letter on a ground, an icon: a handful of colours and the blends at their edges.
    Letter,
    /// A drawing: flat areas, and gradients at most in places.
    Drawing,
    /// A photograph, or what compresses like one.
    Photo,
}

/// Up to this many colours a palette suits whatever pattern they make.
const PATTERN: usize = 64;

/// Up to this many a palette holds: what a letter or an icon has before it is resized.
const PALETTE: usize = 256;

impl Content {
    /// Classifies by the number of distinct colours against the number of pixels. The larger a picture is, the more
    /// pixels share a colour, so the limits grow with the power 3/4: on pictures of 24 to 128 pixels a side
    /// photographs lie at 3.6 and above, most drawings at 2.9 and below, letters at 0.7 and below.
    pub(in crate::render) fn of(raster: &Raster) -> Self {
        Self::told(raster, || false)
    }

    /// Classifies `raster`, which was made of `source` by resizing. That adds the colours between two, at every edge: the
    /// smaller the result is, the more, so that a letter in a ring has as many as a drawing. Then the source decides.
    pub(in crate::render) fn of_resized(raster: &Raster, source: &Raster) -> Self {
        Self::told(raster, || distinct(source, PALETTE) <= PALETTE && !restless(source))
    }

    fn told(raster: &Raster, came_with_few: impl FnOnce() -> bool) -> Self {
        let pixels = raster.len();
        let scale = (pixels * pixels.isqrt()).isqrt();
        let most = 3 * scale;
        let colours = distinct(raster, most);
        // Not asked of most photographs, which are told by their colours alone.
        let patterned = || colours > PATTERN && restless(raster);
        if colours <= (3 * scale / 4).max(8) && !patterned() || colours <= 5 * scale / 4 && came_with_few() {
            Self::Letter
        } else if colours > most || patterned() {
            Self::Photo
        } else {
            Self::Drawing
        }
    }
}

/// Whether the colour changes from pixel to pixel as in a photograph, be it one that came with a palette. On drawings it
/// changes at edges only, of which a larger picture has fewer to the pixel: the limit is 2.2 divided by the cube root
/// of the edge, between 0.77 of the pixels at 24 and 0.44 at 128 a side.
fn restless(raster: &Raster) -> bool {
    let changes = match raster.layout {
        Layout::Rgb => changes::<3>(&raster.samples),
        Layout::Rgba => changes::<4>(&raster.samples),
    };
    let pixels = raster.len() as u128;
    (changes as u128).pow(3) * pixels.isqrt() > 11 * pixels.pow(3)
}

/// How many pixels are not as the one before. They are arrays, since slices are compared by a call for each.
fn changes<const CHANNELS: usize>(samples: &[u8]) -> usize {
    samples.as_chunks::<CHANNELS>().0.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// The number of distinct colours, counted up to `most + 1`; a few may be missed by collisions.
pub(super) fn distinct(raster: &Raster, most: usize) -> usize {
    const BITS: u32 = 16;
    let mut seen = [0_u64; 1 << (BITS - 6)];
    let mut count = 0;
    for pixel in raster.rgba() {
        // Fibonacci hashing: the high bits of the product depend on every bit of the colour.
        let hash = u32::from_le_bytes(pixel).wrapping_mul(0x9e37_79b1) >> (32 - BITS);
        let (word, bit) = ((hash >> 6) as usize, 1 << (hash & 63));
        if seen[word] & bit == 0 {
            seen[word] |= bit;
            count += 1;
            if count > most {
                break;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(side: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Raster {
        let pixels = (0..side * side).flat_map(|i| pixel(i % side, i / side));
        Raster::opaque(side, side, pixels.collect())
    }

    #[test]
    fn content_is_told_by_colours() {
        let noise =
            |x: u32, y: u32| (x.wrapping_mul(7919) ^ y.wrapping_mul(104_729)).wrapping_mul(0x9e37_79b1).to_le_bytes();
        for side in [16, 24, 32, 64, 128] {
            let of = |pixel: &dyn Fn(u32, u32) -> [u8; 3]| Content::of(&picture(side, pixel));
            assert_eq!(of(&|_, _| [1, 2, 3]), Content::Letter, "{side}");
            assert_eq!(of(&|x, y| if x > y { [255; 3] } else { [0, 90, 200] }), Content::Letter, "{side}");
            assert_eq!(of(&|x, y| noise(x, y)[..3].try_into().expect("three of four")), Content::Photo, "{side}");
            let flat_with_some_noise = |x, y| {
                let [r, g, b, _] = noise(x, y);
                if x < side / 4 { [r, g, b] } else { [80; 3] }
            };
            assert_eq!(of(&flat_with_some_noise), Content::Drawing, "{side}");
        }
    }

    #[test]
    fn a_letter_in_a_ring_is_one_at_every_size() {
        // Three colours and their blends.
        let ringed = |x: u32, y: u32| {
            let (x, y) = (f64::from(x) - 63.5, f64::from(y) - 63.5);
            let inside = |from_edge: f64| (from_edge + 0.5).clamp(0.0, 1.0);
            let ring = inside(7.0 - (x.hypot(y) - 52.0).abs());
            let letter = inside(9.0 - (x - y / 3.0).abs().min((x + y / 3.0).abs())) * inside(34.0 - y.abs());
            let mix = |ground: f64, colour: f64, share: f64| ground + (colour - ground) * share;
            let channel = |ground, on_ring, of_letter| mix(mix(ground, on_ring, ring), of_letter, letter).round();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
            [channel(255.0, 30.0, 120.0) as u8, channel(250.0, 90.0, 30.0) as u8, channel(240.0, 160.0, 40.0) as u8]
        };
        let drawing = include_bytes!("../../../benches/pictures/illu-dice-lorelei.png");
        let drawing = crate::render::decode(drawing, &crate::render::Limits::default()).expect("decodes").raster;
        let ringed = picture(128, ringed);
        for edge in [24, 32, 40, 64, 96] {
            let of = |source: &Raster| {
                let geometry = crate::variant::Geometry::Scale { width: edge, height: edge };
                let small = crate::render::resize::resize(source, geometry).expect("a size");
                (Content::of(&small), Content::of_resized(&small, source))
            };
            assert_eq!(of(&ringed).1, Content::Letter, "{edge}");
            // By its own colours alone it is none at the smallest sizes.
            assert!(edge > 24 || of(&ringed).0 != Content::Letter, "{edge}");
            assert!(edge > 64 || of(&drawing) == (Content::Drawing, Content::Drawing), "{edge}");
        }
    }

    #[test]
    fn the_count_stops_where_it_is_told() {
        let many = picture(64, |x, y| [x.to_le_bytes()[0], y.to_le_bytes()[0], 0]);
        assert_eq!(distinct(&many, 10), 11);
        assert!(distinct(&many, 10_000) > 3800, "{}", distinct(&many, 10_000));
        assert_eq!(distinct(&picture(8, |x, _| [x.to_le_bytes()[0]; 3]), 100), 8);
    }
}
