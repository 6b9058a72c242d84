//! WebP, by libwebp. It only ever encodes here, pixels that are ours; what strangers send is decoded in safe code.
#![expect(unsafe_code, reason = "libwebp is C; the two types that own its memory and the one call sequence are here")]

use super::colours::Content;
use crate::render::EncodeError;
use crate::render::raster::{Layout, Raster};
use libwebp_sys::{
    WebPConfig, WebPConfigLosslessPreset, WebPEncode, WebPMemoryWrite, WebPMemoryWriter, WebPMemoryWriterClear,
    WebPMemoryWriterInit, WebPPicture, WebPPictureFree, WebPPictureImportRGB, WebPPictureImportRGBA,
};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// libwebp's customary setting, 80 on the scale of SSIMULACRA2 on photographs.
const QUALITY: f32 = 80.0;

/// What comes to the same with the settings for small pictures when their edges are no whole macroblocks: there the
/// usual quality is a little better than it need be.
const PADDED_QUALITY: f32 = 79.5;

/// Up to this many pixels the settings for small pictures pay.
const SMALL_PIXELS: usize = 64 * 64;

/// Up to this many pixels a render is mostly its decode, and time is worth more than the last bytes.
const TINY_PIXELS: usize = 32 * 32;

/// The level above which libwebp's lossless encoder takes several times longer and saves nothing.
const LOSSLESS_LEVEL: c_int = 6;

/// Encodes with loss, with the alpha channel as it is.
pub(super) fn lossy(raster: &Raster, content: Content, quality: Option<u8>) -> Result<Vec<u8>, EncodeError> {
    let mut config = WebPConfig::new().map_err(|()| refused("libwebp of another version"))?;
    let small = raster.len() <= SMALL_PIXELS;
    let padded = !(raster.width.is_multiple_of(16) && raster.height.is_multiple_of(16));
    let usual = if small && padded { PADDED_QUALITY } else { QUALITY };
    config.quality = quality.map_or(usual, f32::from);
    config.method = 4;
    if small {
        // One segment: the header that tells segments apart is a tenth of a small file.
        config.segments = 1;
        config.sns_strength = 0;
        // Method 5 quantises with an eye to the bits spent, for a seventh more time; without padding the other settings
        // save enough on the tiniest. Method 6 would take twice as long, and with alpha a hundred times.
        config.method = if raster.len() <= TINY_PIXELS && !padded { 4 } else { 5 };
    }
    // Halved colour planes blur the edges of flat areas; this way of halving them looks at what the eye will see.
    config.use_sharp_yuv = c_int::from(content != Content::Photo);
    encode(raster, &config)
}

/// Encodes the pixels as they are. Few colours are found and kept as a palette.
pub(super) fn lossless(raster: &Raster) -> Result<Vec<u8>, EncodeError> {
    let mut config = WebPConfig::new().map_err(|()| refused("libwebp of another version"))?;
    // SAFETY: `config` is initialised and outlives the call.
    if unsafe { WebPConfigLosslessPreset(&raw mut config, LOSSLESS_LEVEL) } == 0 {
        return Err(refused("an unknown lossless level"));
    }
    encode(raster, &config)
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
