//! AVIF: far fewer bytes than WebP for a photograph that is not small, for many times the work. A picture takes
//! 240 bytes of boxes, so none of the smallest is worth it.

use super::aim::{self, Aim};
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use avif_serialize::Aviffy;

#[cfg(feature = "libaom")]
mod libaom;
#[cfg(not(feature = "libaom"))]
mod rav1e;

#[cfg(feature = "libaom")]
use libaom as engine;
#[cfg(not(feature = "libaom"))]
use rav1e as engine;

pub(in crate::render) use engine::{COARSEST, SLOPES, USUAL};

/// The unit with which encoders begin a picture (AV1 specification, section 5.6).
const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0];

/// How much work is spent on the fewest bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::render) enum Effort {
    /// As little as pays.
    Quick,
    /// Fewer bytes for many times the work.
    Thorough,
}

/// A file, and what a decoder will make of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::render) struct Encoding {
    pub(in crate::render) file: Vec<u8>,
    pub(in crate::render) shown: Raster,
}

/// Encodes with loss; `quantizer` is 1, the finest, to [`COARSEST`]. An alpha channel becomes a picture of its own.
pub(in crate::render) fn encode(raster: &Raster, quantizer: u8, effort: Effort) -> Result<Encoding, EncodeError> {
    let depth = if raster.has_alpha() { Depth::Eight } else { Depth::Ten };
    let (width, height) = (raster.width as usize, raster.height as usize);
    let still = Still { width, height, depth, quantizer: quantizer.clamp(1, COARSEST), effort };
    let (colour, planes) = still.encode(&colour_planes(raster, depth))?;
    let alpha = raster.has_alpha().then(|| still.encode(&[alpha_plane(raster)])).transpose()?;
    let (alpha, alpha_plane) = alpha.map(|(alpha, [plane])| (alpha, plane)).unzip();
    let mut file = Vec::new();
    // Full colour planes, the primaries and curve of sRGB, the matrix of BT.601: what is assumed when no box says
    // otherwise, and it is said in the AV1 picture itself too.
    Aviffy::new()
        .set_seq_profile(1)
        .set_width(raster.width)
        .set_height(raster.height)
        .set_bit_depth(depth.bits())
        .write_slice(&mut file, &colour, alpha.as_deref())
        .map_err(refused)?;
    Ok(Encoding { file, shown: shown(raster, depth, &planes, alpha_plane.as_deref()) })
}

/// How fine the samples of a plane are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Depth {
    /// Those of a transparent picture: Safari before 16.4 shows garbage where it is finer.
    Eight,
    /// The encoder rounds less on its way, which saves a fiftieth of the bytes for nothing.
    Ten,
}

impl Depth {
    const fn bits(self) -> u8 {
        match self {
            Self::Eight => 8,
            Self::Ten => 10,
        }
    }

    /// The greatest sample.
    fn most(self) -> i64 {
        (1 << self.bits()) - 1
    }

    /// The sample of a colour difference where there is none.
    fn middle(self) -> i64 {
        1 << (self.bits() - 1)
    }
}

/// One AV1 picture: the colours, or the alpha channel in shades of grey.
struct Still {
    width: usize,
    height: usize,
    depth: Depth,
    quantizer: u8,
    effort: Effort,
}

impl Still {
    /// Encodes one plane or three; gives the AV1 data, and the planes as a decoder will see them.
    fn encode<const PLANES: usize>(
        &self,
        planes: &[Vec<u16>; PLANES],
    ) -> Result<(Vec<u8>, [Vec<u16>; PLANES]), EncodeError> {
        let (mut data, seen) = engine::encode(self, planes)?;
        // A file needs no delimiter between moments (AV1 in ISOBMFF, section 2.4).
        if data.starts_with(&TEMPORAL_DELIMITER) {
            data.drain(..TEMPORAL_DELIMITER.len());
        }
        Ok((data, seen))
    }
}

/// What suits a picture without a look at the outcome.
pub(super) fn usual_quantizer(aim: Aim) -> u8 {
    quantizer(aim.quality(engine::USUAL_QUALITY, &aim::AVIF))
}

/// The quantizer for a quality of 1 to 100: AV1's scale runs the other way, and half of it are qualities that nobody wants.
fn quantizer(quality: f64) -> u8 {
    let share = quality.clamp(1.0, 100.0) / 100.0;
    let quantizer = (f64::from(COARSEST) * (1.0 - share * share * share)).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number up to `COARSEST`")]
    let quantizer = quantizer.max(1.0) as u8;
    quantizer
}

/// Luma and two colour differences after BT.601, over the full range of a sample.
fn colour_planes(raster: &Raster, depth: Depth) -> [Vec<u16>; 3] {
    let mut planes = std::array::from_fn(|_| Vec::with_capacity(raster.len()));
    let middle = depth.middle();
    for [r, g, b, _] in raster.rgba() {
        let pixel = [[19595, 38470, 7471, 0], [-11059, -21709, 32768, middle], [32768, -27439, -5329, middle]].map(
            |[of_r, of_g, of_b, base]| {
                let products = [(of_r, r.into()), (of_g, g.into()), (of_b, b.into())];
                weighed(products, Depth::Eight, depth, base)
            },
        );
        for (plane, sample) in planes.iter_mut().zip(pixel) {
            plane.push(sample);
        }
    }
    planes
}

fn alpha_plane(raster: &Raster) -> Vec<u16> {
    raster.rgba().map(|[_, _, _, a]| a.into()).collect()
}

/// The way back of [`colour_planes`]; `alpha` is of eight bits.
fn shown(raster: &Raster, depth: Depth, [y, u, v]: &[Vec<u16>; 3], alpha: Option<&[u16]>) -> Raster {
    let byte = |sample: u16| u8::try_from(sample).expect("eight bits");
    let mut samples = Vec::with_capacity(raster.samples.len());
    for (at, ((y, u), v)) in y.iter().zip(u).zip(v).enumerate() {
        let (y, u, v) = (i64::from(*y), i64::from(*u) - depth.middle(), i64::from(*v) - depth.middle());
        for [of_u, of_v] in [[0, 91881], [-22554, -46802], [116_130, 0]] {
            samples.push(byte(weighed([(65536, y), (of_u, u), (of_v, v)], depth, Depth::Eight, 0)));
        }
        samples.extend(alpha.map(|alpha| byte(alpha[at])));
    }
    match raster.layout {
        Layout::Rgb => Raster::opaque(raster.width, raster.height, samples),
        Layout::Rgba => Raster::with_alpha(raster.width, raster.height, samples),
    }
}

/// A sum of products of fractions of 65536 and samples of one depth, as a sample of another over `base`: rounded, and cut
/// off where it leaves the range.
fn weighed(products: [(i64, i64); 3], from: Depth, to: Depth, base: i64) -> u16 {
    let sum: i64 = products.iter().map(|(share, value)| share * value).sum();
    let whole = from.most() << 16;
    let sample = (sum * to.most() + whole / 2).div_euclid(whole) + base;
    u16::try_from(sample.clamp(0, to.most())).expect("at most ten bits")
}

fn refused(why: impl std::fmt::Display) -> EncodeError {
    EncodeError(format!("AVIF: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A soft slope with some detail.
    fn slope(width: u32, height: u32, alpha: bool) -> Raster {
        let byte = |value: u32| u8::try_from(value % 256).expect("a byte");
        let at = |x: u32, y: u32| [byte(x * 3 + y), byte(200 + x / 2), byte(y * 2 + (x % 5) * 3)];
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        if alpha {
            let samples = pixels.flat_map(|(x, y)| at(x, y).into_iter().chain([byte(255 - (x + y) % 200)]));
            return Raster::with_alpha(width, height, samples.collect());
        }
        Raster::opaque(width, height, pixels.flat_map(|(x, y)| at(x, y)).collect())
    }

    /// The mean of the squared differences of samples.
    fn distance(one: &Raster, other: &Raster) -> f64 {
        let square = |(a, b): (&u8, &u8)| u32::from(a.abs_diff(*b)).pow(2);
        let sum: u32 = one.samples.iter().zip(&other.samples).map(square).sum();
        f64::from(sum) / f64::from(u32::try_from(one.samples.len()).expect("a small picture"))
    }

    /// The boxes that stand one after the other in `bytes`: kind and content (ISO/IEC 14496-12 section 4.2).
    fn boxes(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
        let mut found = Vec::new();
        while let Some((head, _)) = bytes.split_at_checked(8) {
            let len = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
            found.push((&head[4..], &bytes[8..len]));
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty(), "{} bytes after the last box", bytes.len());
        found
    }

    fn content<'a>(boxes: &[(&'a [u8], &'a [u8])], kind: &[u8]) -> &'a [u8] {
        boxes.iter().find(|(found, _)| *found == kind).unwrap_or_else(|| panic!("no {}", kind.escape_ascii())).1
    }

    #[test]
    fn the_file_says_what_it_holds() {
        for alpha in [false, true] {
            let file = encode(&slope(40, 23, alpha), USUAL, Effort::Quick).expect("encodes").file;
            let outer = boxes(&file);
            assert_eq!(outer.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [b"ftyp", b"meta", b"mdat"]);
            assert!(content(&outer, b"ftyp").starts_with(b"avif"));
            // The AV1 data begin with a sequence header.
            assert_eq!(content(&outer, b"mdat")[0] >> 3 & 15, 1);
            let meta = boxes(&content(&outer, b"meta")[4..]);
            let properties = boxes(content(&boxes(content(&meta, b"iprp")), b"ipco"));
            assert_eq!(content(&properties, b"ispe"), [0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 23]);
            // Profile 1 is that of full colour planes in 8 or 10 bits (AV1 specification, section 6.4.1).
            let [version, profile, planes, _] = content(&properties, b"av1C") else { panic!("av1C has four bytes") };
            let (ten_bits, bits) = if alpha { (0, 8) } else { (0b0100_0000, 10) };
            assert_eq!((*version, profile >> 5, planes & 0b0111_1100), (0x81, 1, ten_bits));
            assert_eq!(content(&properties, b"pixi"), [0, 0, 0, 0, 3, bits, bits, bits]);
            let pictures = properties.iter().filter(|(kind, _)| *kind == b"av1C").count();
            assert_eq!(
                (pictures, properties.iter().any(|(kind, _)| *kind == b"auxC")),
                if alpha { (2, true) } else { (1, false) }
            );
        }
    }

    #[test]
    fn any_size_keeps_its_look() {
        for (width, height) in [(1, 1), (1, 40), (40, 1), (7, 9), (16, 16), (33, 17), (48, 65)] {
            for alpha in [false, true] {
                let raster = slope(width, height, alpha);
                let encoding = encode(&raster, quantizer(90.0), Effort::Quick).expect("encodes");
                let distance = distance(&encoding.shown, &raster);
                assert!(distance < 40.0, "{width}x{height} alpha {alpha}: {distance}");
            }
        }
    }

    #[test]
    fn quality_and_effort_buy_what_they_cost() {
        let raster = slope(40, 40, false);
        let [coarse, usual, fine] = [quantizer(50.0), USUAL, quantizer(95.0)]
            .map(|quantizer| encode(&raster, quantizer, Effort::Quick).expect("encodes"));
        let lengths = [&coarse, &usual, &fine].map(|encoding| encoding.file.len());
        let distances = [&fine, &usual, &coarse].map(|encoding| distance(&encoding.shown, &raster));
        assert!(lengths.is_sorted() && lengths[0] < lengths[2], "{lengths:?}");
        assert!(distances.is_sorted() && distances[0] < distances[2], "{distances:?}");
        let thorough = encode(&raster, USUAL, Effort::Thorough).expect("encodes");
        assert!(thorough.file.len() < usual.file.len(), "{} {}", thorough.file.len(), usual.file.len());
    }

    #[test]
    fn equal_pixels_give_equal_bytes_in_every_thread() {
        let raster = slope(20, 20, true);
        let file = encode(&raster, USUAL, Effort::Quick).expect("encodes").file;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(encode(&raster, USUAL, Effort::Quick).expect("encodes").file, file));
            }
        });
    }

    #[test]
    fn the_whole_scale_of_quality_is_used() {
        for (quality, share) in [(1.0, 1.0), (50.0, 0.875), (80.0, 0.488), (100.0, 0.0), (0.0, 1.0), (999.0, 0.0)] {
            let expected = (share * f64::from(COARSEST)).round().max(1.0);
            assert!((f64::from(quantizer(quality)) - expected).abs() < 0.1, "{quality}: {}", quantizer(quality));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn colours_survive_their_planes(pixel: [u8; 3]) {
            let raster = Raster::opaque(1, 1, pixel.to_vec());
            for (depth, most) in [(Depth::Eight, 2), (Depth::Ten, 1)] {
                let back = shown(&raster, depth, &colour_planes(&raster, depth), None);
                for (ours, theirs) in back.samples.iter().zip(pixel) {
                    prop_assert!(ours.abs_diff(theirs) <= most, "{depth:?}: {:?} {pixel:?}", back.samples);
                }
            }
        }

        #[test]
        fn noise_is_encoded(samples in proptest::collection::vec(any::<u8>(), 4 * 13 * 9), quantizer: u8) {
            let raster = Raster::with_alpha(13, 9, samples);
            let encoding = encode(&raster, quantizer, Effort::Quick).expect("encodes");
            prop_assert_eq!((encoding.shown.width, encoding.shown.height), (13, 9));
        }
    }
}
