//! AVIF, by rav1e: far fewer bytes than WebP for a photograph that is not small, for many times the work. A picture takes
//! 240 bytes of boxes, so none of the smallest is worth it.

use super::aim::{self, Aim};
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use avif_serialize::Aviffy;
use rav1e::prelude::{
    BlockSize, ChromaSampling, ColorDescription, ColorPrimaries, Config, EncoderConfig, EncoderStatus,
    MatrixCoefficients, PartitionRange, PixelRange, SceneDetectionSpeed, SpeedSettings, TransferCharacteristics, Tune,
};

/// What brings photographs to 80 on the scale of SSIMULACRA2, in the median.
const USUAL_QUALITY: f64 = 80.0;

/// The coarsest of AV1's quantizers; 0 would be lossless.
pub(in crate::render) const COARSEST: u8 = 255;

/// Bytes of a sample as rav1e keeps it, whatever the depth.
const SAMPLE: usize = 2;

/// The unit with which rav1e begins a picture (AV1 specification, section 5.6).
const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0];

/// How much work is spent on the fewest bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::render) enum Effort {
    /// As little as pays: three milliseconds for each thousand pixels.
    Quick,
    /// A twelfth fewer bytes for eight times the work.
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
    let still = Still { width, height, depth, quantizer: quantizer.max(1), effort };
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
        let sampling = if PLANES == 1 { ChromaSampling::Cs400 } else { ChromaSampling::Cs444 };
        // In the calling thread: a render has one permit, that is one core. The same bytes everywhere, too.
        let config = Config::new().with_threads(1).with_encoder_config(self.config(sampling));
        let mut context = config.new_context::<u16>().map_err(refused)?;
        let mut frame = context.new_frame();
        for (target, plane) in frame.planes.iter_mut().zip(planes) {
            let bytes: Vec<u8> = plane.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            target.copy_from_raw_u8(&bytes, self.width * SAMPLE, SAMPLE);
        }
        context.send_frame(frame).map_err(refused)?;
        context.flush();
        let (mut data, mut seen) = (Vec::new(), None);
        loop {
            match context.receive_packet() {
                Ok(packet) => {
                    data.extend_from_slice(&packet.data);
                    seen = packet.rec;
                }
                Err(EncoderStatus::Encoded) => {}
                Err(EncoderStatus::LimitReached) => break,
                Err(status) => return Err(refused(status)),
            }
        }
        // A file needs no delimiter between moments (AV1 in ISOBMFF, section 2.4).
        if data.starts_with(&TEMPORAL_DELIMITER) {
            data.drain(..TEMPORAL_DELIMITER.len());
        }
        let seen = seen.ok_or_else(|| refused("no picture came out"))?;
        let decoded = std::array::from_fn(|plane| {
            let mut bytes = vec![0; self.width * self.height * SAMPLE];
            seen.planes[plane].copy_to_raw_u8(&mut bytes, self.width * SAMPLE, SAMPLE);
            bytes.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect()
        });
        Ok((data, decoded))
    }

    fn config(&self, chroma_sampling: ChromaSampling) -> EncoderConfig {
        EncoderConfig {
            width: self.width,
            height: self.height,
            bit_depth: self.depth.bits().into(),
            chroma_sampling,
            pixel_range: PixelRange::Full,
            color_description: Some(ColorDescription {
                color_primaries: ColorPrimaries::BT709,
                transfer_characteristics: TransferCharacteristics::SRGB,
                matrix_coefficients: MatrixCoefficients::BT601,
            }),
            still_picture: true,
            quantizer: self.quantizer.into(),
            min_quantizer: self.quantizer,
            tune: Tune::Psychovisual,
            tiles: 1,
            speed_settings: self.effort.settings(),
            ..EncoderConfig::default()
        }
    }
}

impl Effort {
    fn settings(self) -> SpeedSettings {
        let mut settings = SpeedSettings::from_preset(match self {
            Self::Quick => 8,
            Self::Thorough => 2,
        });
        // Larger blocks cost time and gain nothing at the size of an avatar.
        settings.partition.partition_range = PartitionRange::new(BlockSize::BLOCK_4X4, BlockSize::BLOCK_16X16);
        // There is one frame.
        settings.multiref = false;
        settings.rdo_lookahead_frames = 1;
        settings.scene_detection_mode = SceneDetectionSpeed::None;
        settings
    }
}

/// What suits a picture without a look at the outcome.
pub(super) fn usual_quantizer(aim: Aim) -> u8 {
    quantizer(aim.quality(USUAL_QUALITY, &aim::AVIF))
}

/// The quantizer for a quality of 1 to 100: AV1's scale runs the other way, and half of it are qualities that nobody wants.
fn quantizer(quality: f64) -> u8 {
    let share = quality.clamp(1.0, 100.0) / 100.0;
    let quantizer = (f64::from(COARSEST) * (1.0 - share * share * share)).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 1 to 255")]
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

    const USUAL: u8 = 124;

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
        let [coarse, usual, fine] =
            [220, USUAL, 40].map(|quantizer| encode(&raster, quantizer, Effort::Quick).expect("encodes"));
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
        let file = encode(&raster, 160, Effort::Quick).expect("encodes").file;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(encode(&raster, 160, Effort::Quick).expect("encodes").file, file));
            }
        });
    }

    #[test]
    fn the_whole_scale_of_quality_is_used() {
        for (quality, expected) in [(1.0, 255), (50.0, 223), (80.0, 124), (100.0, 1), (0.0, 255), (999.0, 1)] {
            assert_eq!(quantizer(quality), expected, "{quality}");
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
