//! WebP, by libwebp. It only ever encodes here, pixels that are ours; what strangers send is decoded in safe code.
#![expect(unsafe_code, reason = "libwebp is C; the two types that own its memory and the one call sequence are here")]

use super::PALETTE_PIXELS;
use super::aim::{self, Aim};
use super::colours::Content;
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use libwebp_sys::{
    WebPConfig, WebPConfigLosslessPreset, WebPDecodeRGBAInto, WebPDecodeRGBInto, WebPEncode, WebPMemoryWrite,
    WebPMemoryWriter, WebPMemoryWriterClear, WebPMemoryWriterInit, WebPPicture, WebPPictureFree, WebPPictureImportRGB,
    WebPPictureImportRGBA,
};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// What comes to 80 on the scale of SSIMULACRA2 on most photographs; on those between [`SMALL_PIXELS`] and [`LARGE_PIXELS`]; and
/// on the tiniest with the settings for them.
const QUALITY: f64 = 78.5;
const MIDDLE_QUALITY: f64 = 79.0;
const TINY_QUALITY: f64 = 75.0;
/// The same at [`Pace::Careful`] from [`LARGE_PIXELS`] on.
const CAREFUL_QUALITY: f64 = 77.0;

/// Up to this many pixels the settings for small pictures pay.
const SMALL_PIXELS: usize = 64 * 64;
const LARGE_PIXELS: usize = 128 * 128;

/// Up to this many pixels a render is mostly its decode, and time is worth more than the last bytes.
const TINY_PIXELS: usize = 32 * 32;

/// The level above which libwebp's lossless encoder takes several times longer and saves nothing.
const LOSSLESS_LEVEL: c_int = 6;

/// How much of the time of who waits a photograph may take, or a drawing that is encoded as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// As little as gives a good file.
    Quick,
    /// Twice as much, which is about what libwebp takes by itself, for 7 % fewer bytes.
    Careful,
}

/// The settings of a lossy encoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::render) struct Lossy {
    /// 0 to 100.
    pub(in crate::render) quality: f32,
    /// 0 to 6: how hard to try.
    pub(in crate::render) method: c_int,
    /// 1 to 4 kinds of areas with a quantiser of their own. The header that tells them apart is a tenth of a small file.
    pub(in crate::render) segments: c_int,
    /// 0 to 100: how far their quantisers may lie apart.
    pub(in crate::render) sns_strength: c_int,
    /// Whether the colour planes are halved with an eye to what will be seen.
    pub(in crate::render) sharp_yuv: bool,
    /// 0 to 100, 100 keeping alpha as it is.
    pub(in crate::render) alpha_quality: c_int,
    /// 0 to 100: how much the edges of blocks are smoothed.
    pub(in crate::render) filter_strength: c_int,
    /// 0 to 7: how much of that is spared where there is detail.
    pub(in crate::render) filter_sharpness: c_int,
}

impl Lossy {
    /// All effort for a picture as a whole, the smallest for tiny ones.
    pub(in crate::render) const PLAIN: Self = Self {
        quality: 78.0,
        method: 6,
        segments: 1,
        sns_strength: 0,
        sharp_yuv: false,
        alpha_quality: 100,
        filter_strength: 60,
        filter_sharpness: 0,
    };

    /// What suits a picture without a look at the outcome, and takes little time.
    pub(super) fn usual(raster: &Raster, content: Content, aim: Aim, pace: Pace) -> Self {
        let pixels = raster.len();
        let careful = content == Content::Photo && pace == Pace::Careful;
        // What pays for small pictures pays for larger ones too where there is time for it.
        let (small, tiny) = (careful || pixels <= SMALL_PIXELS, pixels <= TINY_PIXELS);
        let padded = !(raster.width.is_multiple_of(16) && raster.height.is_multiple_of(16));
        let usual = match pixels {
            ..=TINY_PIXELS => TINY_QUALITY,
            LARGE_PIXELS.. if careful => CAREFUL_QUALITY,
            ..=SMALL_PIXELS | LARGE_PIXELS.. => QUALITY,
            _ => MIDDLE_QUALITY,
        };
        // Method 2 does not weigh bits against looks, which takes half the time of method 4 for 3 (128 px) to 8 % (64 px) more
        // bytes, until the picture is improved. The tiniest are mostly their decode.
        let quick = content == Content::Photo && !tiny && !careful;
        // Method 5 quantises with an eye to the bits spent, for a seventh more time; without padding the other settings
        // save enough on the tiniest. Method 6 would take twice as long, and with alpha a hundred times.
        let frugal = small && (!tiny || padded);
        // Areas with quantisers of their own make up for some of what method 2 misses.
        let whole = small && !quick;
        // Halved colour planes blur the edges of flat areas.
        // It takes memory for each pixel several times over.
        let sharp_yuv = content != Content::Photo && raster.len() <= PALETTE_PIXELS;
        #[expect(clippy::cast_possible_truncation, reason = "a quality of 0 to 100, whose last digits do not matter")]
        let quality = aim.quality(usual, if sharp_yuv { &aim::SHARP } else { &aim::LOSSY }) as f32;
        Self {
            quality,
            method: match (quick, frugal) {
                (true, _) => 2,
                (false, true) => 5,
                (false, false) => 4,
            },
            segments: if whole { 1 } else { 4 },
            sns_strength: if whole { 0 } else { 50 },
            sharp_yuv,
            ..Self::PLAIN
        }
    }
}

/// Encodes with loss.
pub(in crate::render) fn lossy(raster: &Raster, settings: &Lossy) -> Result<Vec<u8>, EncodeError> {
    let mut config = WebPConfig::new().map_err(|()| refused("libwebp of another version"))?;
    config.quality = settings.quality;
    config.method = settings.method;
    config.segments = settings.segments;
    config.sns_strength = settings.sns_strength;
    config.use_sharp_yuv = c_int::from(settings.sharp_yuv);
    config.alpha_quality = settings.alpha_quality;
    config.filter_strength = settings.filter_strength;
    config.filter_sharpness = settings.filter_sharpness;
    // Everything that it finds is kept until it is written, which for noise is three times the pixels; without that it takes
    // a thousandth more bytes.
    config.low_memory = c_int::from(raster.len() > PALETTE_PIXELS);
    encode(raster, &config)
}

/// Encodes the pixels as they are. Few colours are found and kept as a palette.
pub(in crate::render) fn lossless(raster: &Raster) -> Result<Vec<u8>, EncodeError> {
    let mut config = WebPConfig::new().map_err(|()| refused("libwebp of another version"))?;
    // SAFETY: `config` is initialised and outlives the call.
    if unsafe { WebPConfigLosslessPreset(&raw mut config, LOSSLESS_LEVEL) } == 0 {
        return Err(refused("an unknown lossless level"));
    }
    encode(raster, &config)
}

/// About how many bytes [`lossless`] takes where nothing repeats, in a hundredth of its time: what is left to be told of each
/// sample when it is foretold from those beside it.
pub(in crate::render) fn lossless_estimate(raster: &Raster) -> usize {
    // libwebp too takes green off the others, and chooses among ways to foretell.
    let told: Vec<[u8; 4]> = raster.rgba().map(|[r, g, b, a]| [r.wrapping_sub(g), g, b.wrapping_sub(g), a]).collect();
    let width = raster.width as usize;
    let ways: [fn(u8, u8, u8) -> u8; 3] =
        [|left, above, corner| left.wrapping_add(above).wrapping_sub(corner), |left, _, _| left, |_, above, _| above];
    let bits = ways.map(|foretold| {
        let mut counts = [[0_u32; 256]; 4];
        for (row, above) in told.chunks_exact(width).skip(1).zip(told.chunks_exact(width)) {
            for x in 1..width {
                for (channel, counts) in counts.iter_mut().enumerate() {
                    let guess = foretold(row[x - 1][channel], above[x][channel], above[x - 1][channel]);
                    counts[usize::from(row[x][channel].wrapping_sub(guess))] += 1;
                }
            }
        }
        counts.iter().map(|counts| entropy(counts)).sum::<f64>()
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below eight times the samples")]
    let bytes = (bits.into_iter().fold(f64::INFINITY, f64::min) / 8.0) as usize;
    bytes
}

/// The bits that it takes to tell which of so many kinds each of so many things is.
fn entropy(counts: &[u32]) -> f64 {
    let all: f64 = counts.iter().copied().map(f64::from).sum();
    counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) * (all / f64::from(count)).log2()).sum()
}

fn encode(raster: &Raster, config: &WebPConfig) -> Result<Vec<u8>, EncodeError> {
    let mut picture = Picture::import(raster, config.lossless != 0 || config.use_sharp_yuv != 0)?;
    let mut file = File::new();
    picture.0.writer = Some(WebPMemoryWrite);
    picture.0.custom_ptr = (&raw mut file.0).cast();
    // SAFETY: both are initialised; `custom_ptr` is the writer that `WebPMemoryWrite` expects, and `file` outlives the
    // call, after which nothing writes any more.
    if unsafe { WebPEncode(config, &raw mut picture.0) } == 0 {
        return Err(refused(&format!("{:?}", picture.0.error_code)));
    }
    Ok(file.bytes().to_vec())
}

/// Decodes a file of ours as browsers do, which use libwebp too: `alike` is the raster that it was made of.
pub(in crate::render) fn decode(file: &[u8], alike: &Raster) -> Result<Raster, EncodeError> {
    let mut samples = vec![0; alike.samples.len()];
    let stride =
        c_int::try_from(samples.len() / alike.height as usize).map_err(|_| refused("a row over 2^31 bytes"))?;
    let into = match alike.layout {
        Layout::Rgb => WebPDecodeRGBInto,
        Layout::Rgba => WebPDecodeRGBAInto,
    };
    // SAFETY: both slices are announced with their lengths, and libwebp refuses a picture that does not fit.
    let decoded = unsafe { into(file.as_ptr(), file.len(), samples.as_mut_ptr(), samples.len(), stride) };
    if decoded.is_null() { Err(refused("does not decode again")) } else { Ok(Raster { samples, ..*alike }) }
}

fn refused(why: &str) -> EncodeError {
    EncodeError(format!("WebP: {why}"))
}

/// libwebp's copy of the pixels.
pub(super) struct Picture(WebPPicture);

impl Picture {
    /// Copies the pixels: as they are (`exact`), or at once as the planes of a lossy encoding.
    pub(super) fn import(raster: &Raster, exact: bool) -> Result<Self, EncodeError> {
        let edge = |pixels: u32| c_int::try_from(pixels).map_err(|_| refused("an edge over 2^31"));
        let mut picture = Self(WebPPicture::new().map_err(|()| refused("libwebp of another version"))?);
        picture.0.use_argb = c_int::from(exact);
        picture.0.width = edge(raster.width)?;
        picture.0.height = edge(raster.height)?;
        let samples = raster.samples.as_ptr();
        let (target, width) = (&raw mut picture.0, picture.0.width);
        // SAFETY: a raster holds `height` rows of `width` pixels without padding in its layout, which is what is
        // announced here; libwebp reads them and allocates its own.
        let imported = unsafe {
            match raster.layout {
                Layout::Rgb => WebPPictureImportRGB(target, samples, width * 3),
                Layout::Rgba => WebPPictureImportRGBA(target, samples, width * 4),
            }
        };
        if imported == 0 { Err(refused("out of memory")) } else { Ok(picture) }
    }

    pub(super) const fn as_mut_ptr(&mut self) -> *mut WebPPicture {
        &raw mut self.0
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: initialised by `WebPPicture::new`; freeing one without memory is allowed.
        unsafe { WebPPictureFree(&raw mut self.0) }
    }
}

/// The file that libwebp writes.
struct File(WebPMemoryWriter);

impl File {
    fn new() -> Self {
        let mut writer = MaybeUninit::uninit();
        // SAFETY: the call writes every field.
        unsafe {
            WebPMemoryWriterInit(writer.as_mut_ptr());
            Self(writer.assume_init())
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.0.mem.is_null() {
            return &[];
        }
        // SAFETY: `mem` holds `size` bytes that were written, until it is cleared.
        unsafe { std::slice::from_raw_parts(self.0.mem, self.0.size) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and dropped once.
        unsafe { WebPMemoryWriterClear(&raw mut self.0) }
    }
}
