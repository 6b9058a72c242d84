//! Colour profiles: what is not sRGB becomes sRGB, and the profile is dropped (ICC.1:2022). A profile that is damaged,
//! too long, or not one of the picture's kind is ignored, as browsers do.

use crate::render::raster::{Layout, Raster};
use flate2::read::ZlibDecoder;
use moxcms::{ColorProfile, DataColorSpace, Layout as Samples, Transform8BitExecutor, TransformOptions};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;
use std::sync::Arc;

/// The longest profile that is read, in bytes; those of cameras and screens take some kilobytes.
const LONGEST: usize = 256 << 10;

/// How far apart two samples are that nobody tells apart; what a profile changes by less is left alone.
const SAME: u8 = 2;

/// Colours across the cube, by which sRGB is told from all others under whatever name.
const PROBES: [u8; 5] = [0, 64, 128, 192, 255];

/// Takes the profile out of a PNG's `iCCP` chunk (W3C PNG section 11.3.2.3).
pub(in crate::render) fn inflated(chunk: &[u8]) -> Option<Vec<u8>> {
    let name = chunk.iter().take(80).position(|byte| *byte == 0)?;
    let compressed = chunk.get(name + 1..)?.strip_prefix(&[0])?;
    let mut profile = Vec::new();
    let most = u64::try_from(LONGEST).expect("a small number") + 1;
    ZlibDecoder::new(compressed).take(most).read_to_end(&mut profile).ok()?;
    (profile.len() <= LONGEST).then_some(profile)
}

/// The parts of a profile in a JPEG's `APP2` segments (ICC.1:2022 section B.4), collected as they come.
#[derive(Default)]
pub(super) struct Parts<'a> {
    taken: Vec<&'a [u8]>,
    /// How many there are said to be.
    count: u8,
    refused: bool,
}

impl<'a> Parts<'a> {
    /// Takes a segment; what is none of a profile is passed over.
    pub(super) fn take(&mut self, segment: &'a [u8]) {
        let Some(&[number, count, ref part @ ..]) = segment.strip_prefix(b"ICC_PROFILE\0") else { return };
        // They come in order from all encoders; what does not is more likely somebody's trick than a picture.
        self.refused |= usize::from(number) != self.taken.len() + 1 || self.count != 0 && self.count != count;
        self.refused |= self.taken.iter().map(|part| part.len()).sum::<usize>() + part.len() > LONGEST;
        if !self.refused {
            self.count = count;
            self.taken.push(part);
        }
    }

    /// The whole profile.
    pub(super) fn whole(&self) -> Option<Cow<'a, [u8]>> {
        match self.taken[..] {
            _ if self.refused || self.taken.len() != usize::from(self.count) => None,
            [] => None,
            [part] => Some(Cow::Borrowed(part)),
            _ => Some(Cow::Owned(self.taken.concat())),
        }
    }
}

/// How many profiles each thread keeps understood: cameras, telephones and editors each write the same one over and over, and
/// to understand it takes longer than to decode an avatar.
const KEPT: usize = 4;

thread_local! {
    /// The one that was used last first.
    static UNDERSTOOD: RefCell<Vec<(blake3::Hash, Option<Conversion>)>> = const { RefCell::new(Vec::new()) };
}

/// What brings the colours of a profile to sRGB.
#[derive(Clone)]
pub(in crate::render) enum Conversion {
    Colour {
        rgb: Arc<Transform8BitExecutor>,
        rgba: Arc<Transform8BitExecutor>,
    },
    /// Every grey by its value.
    Grey(Arc<[[u8; 3]; 256]>),
}

impl Conversion {
    /// Understands a profile; `None` for one that says sRGB or nothing that can be understood.
    pub(in crate::render) fn from_profile(profile: &[u8]) -> Option<Self> {
        if profile.len() > LONGEST {
            return None;
        }
        let name = blake3::hash(profile);
        UNDERSTOOD.with_borrow_mut(|understood| {
            if let Some(at) = understood.iter().position(|(each, _)| *each == name) {
                understood[..=at].rotate_right(1);
            } else {
                let conversion = Self::made_of(profile);
                understood.truncate(KEPT - 1);
                understood.insert(0, (name, conversion));
            }
            understood[0].1.clone()
        })
    }

    fn made_of(profile: &[u8]) -> Option<Self> {
        let profile = ColorProfile::new_from_slice(profile).ok()?;
        let srgb = ColorProfile::new_srgb();
        let options = TransformOptions::default();
        match profile.color_space {
            DataColorSpace::Rgb => {
                let rgb = profile.create_transform_8bit(Samples::Rgb, &srgb, Samples::Rgb, options).ok()?;
                let rgba = profile.create_transform_8bit(Samples::Rgba, &srgb, Samples::Rgba, options).ok()?;
                (!is_srgb(&*rgb)?).then_some(Self::Colour { rgb, rgba })
            }
            DataColorSpace::Gray => {
                let grey = profile.create_transform_8bit(Samples::Gray, &srgb, Samples::Rgb, options).ok()?;
                let mut greys = [[0; 3]; 256];
                let all: Vec<u8> = (0..=255).collect();
                grey.transform(&all, greys.as_flattened_mut()).ok()?;
                let same = greys.iter().zip(&all).all(|(grey, own)| grey.iter().all(|s| s.abs_diff(*own) <= SAME));
                (!same).then(|| Self::Grey(Arc::new(greys)))
            }
            _ => None,
        }
    }

    /// The picture in sRGB; unchanged where the profile is of another kind of picture.
    pub(in crate::render) fn apply(&self, raster: Raster) -> Raster {
        let samples = match self {
            Self::Colour { rgb, rgba } => {
                let mut samples = vec![0; raster.samples.len()];
                let transform = if raster.layout == Layout::Rgba { rgba } else { rgb };
                if transform.transform(&raster.samples, &mut samples).is_err() {
                    return raster;
                }
                samples
            }
            Self::Grey(greys) => {
                if raster.rgba().any(|[r, g, b, _]| r != g || g != b) {
                    return raster;
                }
                let mut samples = raster.samples.clone();
                for pixel in samples.chunks_exact_mut(raster.layout.channels()) {
                    let grey = greys[usize::from(pixel[0])];
                    pixel[..3].copy_from_slice(&grey);
                }
                samples
            }
        };
        Raster { samples, ..raster }
    }
}

/// Whether colours stay what they are.
fn is_srgb(transform: &Transform8BitExecutor) -> Option<bool> {
    let colours: Vec<u8> = PROBES
        .iter()
        .flat_map(|r| PROBES.iter().flat_map(move |g| PROBES.iter().flat_map(move |b| [*r, *g, *b])))
        .collect();
    let mut shown = vec![0; colours.len()];
    transform.transform(&colours, &mut shown).ok()?;
    Some(colours.iter().zip(&shown).all(|(colour, shown)| colour.abs_diff(*shown) <= SAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn encoded(profile: &ColorProfile) -> Vec<u8> {
        profile.encode().expect("a profile of the library's own")
    }

    fn converted(profile: &ColorProfile, pixel: [u8; 3]) -> Option<Vec<u8>> {
        let conversion = Conversion::from_profile(&encoded(profile))?;
        Some(conversion.apply(Raster::opaque(1, 1, pixel.to_vec())).samples)
    }

    #[test]
    fn each_profile_is_itself_however_often_and_in_whatever_order_it_comes() {
        let profiles = [
            ColorProfile::new_srgb(),
            ColorProfile::new_display_p3(),
            ColorProfile::new_adobe_rgb(),
            ColorProfile::new_bt2020(),
            ColorProfile::new_gray_with_gamma(1.0),
            ColorProfile::new_pro_photo_rgb(),
        ];
        assert!(profiles.len() > KEPT, "more than are kept");
        let pixel = |conversion: Option<Conversion>| {
            conversion.map(|conversion| conversion.apply(Raster::opaque(1, 1, vec![90, 90, 90])).samples)
        };
        let own = |at: usize| pixel(Conversion::made_of(&encoded(&profiles[at])));
        let distinct = (0..profiles.len()).map(own).collect::<std::collections::HashSet<_>>();
        assert!(distinct.len() > 2, "they do not all do the same: {distinct:?}");
        for at in [0, 1, 1, 2, 0, 3, 4, 5, 0, 1, 4, 5, 5, 3, 2, 1, 0] {
            assert_eq!(pixel(Conversion::from_profile(&encoded(&profiles[at]))), own(at), "{at}");
        }
        assert_eq!(UNDERSTOOD.with_borrow(Vec::len), KEPT);
    }

    #[test]
    fn srgb_is_left_alone_and_other_colours_are_converted() {
        assert_eq!(converted(&ColorProfile::new_srgb(), [200, 90, 30]), None);
        // The same colours: https://www.w3.org/TR/css-color-4/#color-conversion gives 216, 86, 10 within rounding.
        let shown = converted(&ColorProfile::new_display_p3(), [200, 90, 30]).expect("another space");
        let near = shown.iter().zip([215, 85, 0]).all(|(a, b): (&u8, u8)| a.abs_diff(b) < 12);
        assert!(near && shown[0] > 205, "{shown:?}");
        let shown = converted(&ColorProfile::new_adobe_rgb(), [100, 200, 100]).expect("another space");
        assert!(shown[0] < 60 && shown[1].abs_diff(202) < 6, "{shown:?}");
    }

    #[test]
    fn alpha_stays_and_grey_profiles_are_for_grey() {
        let p3 = Conversion::from_profile(&encoded(&ColorProfile::new_display_p3())).expect("another space");
        let clear = p3.apply(Raster::with_alpha(2, 1, vec![200, 90, 30, 7, 1, 2, 3, 0]));
        assert_eq!((clear.samples[3], clear.samples[7]), (7, 0));
        let linear =
            Conversion::from_profile(&encoded(&ColorProfile::new_gray_with_gamma(1.0))).expect("another space");
        let grey = linear.apply(Raster::with_alpha(1, 1, vec![55, 55, 55, 9]));
        assert!(grey.samples[..3].iter().all(|sample| sample.abs_diff(128) < 4), "{grey:?}");
        assert_eq!(grey.samples[3], 9);
        let colour = Raster::opaque(1, 1, vec![55, 55, 56]);
        assert_eq!(linear.apply(colour.clone()), colour);
        assert!(
            Conversion::from_profile(&encoded(&ColorProfile::new_gray_with_gamma(2.2)))
                .is_none_or(|grey| { grey.apply(Raster::opaque(1, 1, vec![128; 3])).samples[0].abs_diff(128) < 4 })
        );
    }

    #[test]
    fn what_is_no_profile_is_ignored() {
        let p3 = encoded(&ColorProfile::new_display_p3());
        for end in (0..p3.len()).step_by(7) {
            // Whatever is still understood of it gives pixels.
            if let Some(conversion) = Conversion::from_profile(&p3[..end]) {
                conversion.apply(Raster::opaque(1, 1, vec![1, 2, 3]));
            }
        }
        assert!(Conversion::from_profile(&[]).is_none());
        assert!(Conversion::from_profile(&vec![0; LONGEST + 1]).is_none());
    }

    #[test]
    fn a_profile_that_inflates_beyond_bounds_is_ignored() {
        let chunk = |length: usize| {
            let mut zlib = ZlibEncoder::new(b"name\0\0".to_vec(), Compression::best());
            zlib.write_all(&vec![7; length]).expect("to memory");
            zlib.finish().expect("to memory")
        };
        assert_eq!(inflated(&chunk(LONGEST)).map(|profile| profile.len()), Some(LONGEST));
        assert_eq!(inflated(&chunk(LONGEST + 1)), None);
        assert_eq!(inflated(&chunk(64 << 20)), None);
        for (name, broken) in [("no name", &b"name"[..]), ("another method", b"n\0\x01x"), ("no stream", b"n\0\0no")] {
            assert_eq!(inflated(broken), None, "{name}");
        }
    }

    #[test]
    fn the_parts_of_a_profile_come_in_order_or_not_at_all() {
        let check = |segments: &[(u8, u8, &[u8])], whole: Option<&[u8]>| {
            let segments: Vec<Vec<u8>> = segments
                .iter()
                .map(|(number, count, part)| [b"ICC_PROFILE\0", &[*number, *count][..], part].concat())
                .collect();
            let mut parts = Parts::default();
            parts.take(b"Exif\0\0");
            for segment in &segments {
                parts.take(segment);
            }
            assert_eq!(parts.whole().as_deref(), whole, "{segments:?}");
        };
        check(&[], None);
        check(&[(1, 1, b"ab")], Some(b"ab"));
        check(&[(1, 2, b"ab"), (2, 2, b"cd")], Some(b"abcd"));
        check(&[(1, 2, b"ab")], None);
        check(&[(2, 2, b"cd"), (1, 2, b"ab")], None);
        check(&[(1, 2, b"ab"), (2, 3, b"cd")], None);
        check(&[(1, 1, b"ab"), (1, 1, b"ab")], None);
        check(&[(0, 0, b"")], None);
        check(&[(1, 1, &vec![0; LONGEST + 1])], None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_damage_panics(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            for profile in [ColorProfile::new_display_p3(), ColorProfile::new_gray_with_gamma(1.8)] {
                let mut bytes = encoded(&profile);
                for (place, byte) in &damage {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
                if let Some(conversion) = Conversion::from_profile(&bytes) {
                    conversion.apply(Raster::opaque(1, 1, vec![9; 3]));
                }
            }
        }
    }
}
