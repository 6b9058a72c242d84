//! Animated WebP, by libwebp: of every frame the part that changed, each lossy or lossless, whichever is smaller.
#![expect(unsafe_code, reason = "libwebp is C; the type that owns its encoder and every call of it are here")]

use super::aim::{self, Aim};
use super::webp::Picture;
use crate::render::EncodeError;
use crate::render::raster::Raster;
use libwebp_sys::{
    WEBP_MUX_ABI_VERSION, WebPAnimEncoder, WebPAnimEncoderAdd, WebPAnimEncoderAssemble, WebPAnimEncoderDelete,
    WebPAnimEncoderNewInternal, WebPAnimEncoderOptions, WebPAnimEncoderOptionsInitInternal, WebPConfig, WebPData,
    WebPFree,
};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// The version of libwebp's interface that is linked.
const VERSION: c_int = WEBP_MUX_ABI_VERSION.cast_signed();

/// The longest that one frame can be shown, in milliseconds (RFC 9649 section 2.7.1.1).
const LONGEST: u32 = (1 << 24) - 1;

/// libwebp's usual setting; each frame is seen for a moment only.
const QUALITY: f64 = 75.0;

/// The outlines of what is cut out bear this loss, and take a fifth of the bytes of such a picture less.
const ALPHA_QUALITY: c_int = 50;

/// Up to this many pixels in all frames, each frame is tried in every way there is, for four times the time: some second
/// at most, and up to a third of the bytes of a drawing.
const FEW_PIXELS: u64 = 1 << 20;

/// Above this many the frames are encoded in half the time, for a few per cent more bytes.
const MANY_PIXELS: u64 = 1 << 22;

/// What is known of an animation before its first frame.
#[derive(Clone, Copy, Debug)]
pub(in crate::render) struct Reel {
    pub(in crate::render) width: u32,
    pub(in crate::render) height: u32,
    /// How many frames there will be at most.
    pub(in crate::render) frames: u32,
    /// How often it is played, 0 for without end.
    pub(in crate::render) plays: u16,
}

impl Reel {
    /// Of all frames.
    fn pixels(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(self.frames.into())
    }
}

/// An animation that is being encoded.
pub(in crate::render) struct Animation {
    encoder: Encoder,
    config: WebPConfig,
    /// When the frame that was added last is first seen, and when no more, in milliseconds.
    shown: (u32, u32),
    last: Option<Raster>,
}

impl Animation {
    /// Begins an animation whose frames look about as alike as is aimed at.
    pub(in crate::render) fn new(reel: &Reel, aim: Aim) -> Result<Self, EncodeError> {
        let mut config = WebPConfig::new().map_err(|()| refused("libwebp of another version"))?;
        #[expect(clippy::cast_possible_truncation, reason = "a quality of 0 to 100, whose last digits do not matter")]
        let quality = aim.quality(QUALITY, &aim::LOSSY) as f32;
        config.quality = quality;
        config.alpha_quality = ALPHA_QUALITY;
        config.method = if reel.pixels() <= MANY_PIXELS { 4 } else { 2 };
        Ok(Self { encoder: Encoder::new(reel)?, config, shown: (0, 0), last: None })
    }

    /// Shows `frame` for `delay` milliseconds after all others.
    pub(in crate::render) fn add(&mut self, frame: Raster, delay: u32) -> Result<(), EncodeError> {
        let delay = delay.min(LONGEST);
        let (from, until) = self.shown;
        let end = until.checked_add(delay).filter(|end| c_int::try_from(*end).is_ok());
        let end = end.ok_or_else(|| refused("it plays for longer than three weeks"))?;
        let seen_longer = self.last.as_ref() == Some(&frame) && end - from <= LONGEST;
        if !seen_longer {
            self.encoder.add(&mut Picture::import(&frame, true)?, until, &self.config)?;
            self.last = Some(frame);
        }
        self.shown = (if seen_longer { from } else { until }, end);
        Ok(())
    }

    /// The file.
    pub(in crate::render) fn finish(self) -> Result<Vec<u8>, EncodeError> {
        self.encoder.finish(self.shown.1)
    }
}

fn refused(why: &str) -> EncodeError {
    EncodeError(format!("animated WebP: {why}"))
}

/// libwebp's encoder.
struct Encoder(NonNull<WebPAnimEncoder>);

impl Encoder {
    fn new(reel: &Reel) -> Result<Self, EncodeError> {
        let edge = |pixels: u32| c_int::try_from(pixels).map_err(|_| refused("an edge over 2^31"));
        let mut options = MaybeUninit::<WebPAnimEncoderOptions>::uninit();
        // SAFETY: the call writes every field, unless it refuses.
        let mut options = unsafe {
            if WebPAnimEncoderOptionsInitInternal(options.as_mut_ptr(), VERSION) == 0 {
                return Err(refused("libwebp of another version"));
            }
            options.assume_init()
        };
        options.anim_params.loop_count = reel.plays.into();
        // Browsers show through what is not painted, whatever is said here; other readers take it at its word.
        options.anim_params.bgcolor = 0;
        // Nobody seeks in an emoji, so no frame but the first need stand alone: that is the default.
        options.allow_mixed = 1;
        options.minimize_size = c_int::from(reel.pixels() <= FEW_PIXELS);
        // SAFETY: `options` is initialised and is only read.
        let encoder =
            unsafe { WebPAnimEncoderNewInternal(edge(reel.width)?, edge(reel.height)?, &raw const options, VERSION) };
        NonNull::new(encoder).map(Self).ok_or_else(|| refused("out of memory"))
    }

    /// Adds a frame that is seen from `at` on.
    fn add(&mut self, picture: &mut Picture, at: u32, config: &WebPConfig) -> Result<(), EncodeError> {
        let at = c_int::try_from(at).map_err(|_| refused("a time over 2^31"))?;
        // SAFETY: all three are initialised and outlive the call, after which libwebp holds none of them.
        let added = unsafe { WebPAnimEncoderAdd(self.0.as_ptr(), picture.as_mut_ptr(), at, config) };
        if added == 0 { Err(refused("a frame")) } else { Ok(()) }
    }

    /// The file of all frames, of which the last is seen until `end`.
    fn finish(self, end: u32) -> Result<Vec<u8>, EncodeError> {
        let end = c_int::try_from(end).map_err(|_| refused("a time over 2^31"))?;
        let mut file = File(WebPData { bytes: ptr::null(), size: 0 });
        // SAFETY: the encoder is initialised; no frame and no settings say that there are no more.
        let assembled = unsafe {
            WebPAnimEncoderAdd(self.0.as_ptr(), ptr::null_mut(), end, ptr::null()) != 0
                && WebPAnimEncoderAssemble(self.0.as_ptr(), &raw mut file.0) != 0
        };
        if assembled { Ok(file.bytes().to_vec()) } else { Err(refused("the frames do not go together")) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and dropped once.
        unsafe { WebPAnimEncoderDelete(self.0.as_ptr()) }
    }
}

/// The file that libwebp hands over.
struct File(WebPData);

impl File {
    fn bytes(&self) -> &[u8] {
        if self.0.bytes.is_null() {
            return &[];
        }
        // SAFETY: `bytes` holds `size` bytes that were written, until it is freed.
        unsafe { std::slice::from_raw_parts(self.0.bytes, self.0.size) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: it is libwebp's memory and freed once; freeing nothing is allowed.
        unsafe { WebPFree(self.0.bytes.cast_mut().cast()) }
    }
}
