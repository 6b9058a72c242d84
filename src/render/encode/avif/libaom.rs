//! AV1 pictures by the libaom of the system, tuned for stills: `AOM_TUNE_IQ`, which came with 3.12, aims at SSIMULACRA2 itself.
#![expect(unsafe_code, reason = "libaom is C; the types that own its memory and the one call sequence are here")]

use super::{Depth, Effort, Still, refused};
use crate::render::EncodeError;
use aom_sys::{
    AOM_CODEC_USE_HIGHBITDEPTH, AOM_ENCODER_ABI_VERSION, AOM_IMG_FMT_HIGHBITDEPTH, AOM_USAGE_ALL_INTRA, aom_bit_depth,
    aom_codec_av1_cx, aom_codec_control, aom_codec_ctx_t, aom_codec_cx_pkt_kind, aom_codec_destroy,
    aom_codec_enc_cfg_t, aom_codec_enc_config_default, aom_codec_enc_init_ver, aom_codec_encode, aom_codec_err_t,
    aom_codec_get_cx_data, aom_color_primaries, aom_color_range, aom_com_control_id, aom_image_t, aom_img_alloc,
    aom_img_fmt, aom_img_free, aom_matrix_coefficients, aom_rc_mode, aom_transfer_characteristics, aom_tune_metric,
    aome_enc_control_id,
};
use std::ffi::{c_int, c_uint};
use std::mem::MaybeUninit;
use std::ptr;

/// Its quantizers are AV1's by fours.
pub(super) const COARSEST: u8 = 63;
/// That which comes to 80 in a search, and what a step takes from the score and the bytes.
pub(super) const USUAL: u8 = 30;
pub(super) const SLOPES: (f64, f64) = (1.2, 0.05);

/// What brings photographs to 80 on the scale of SSIMULACRA2 without a look, in the median.
pub(super) const USUAL_QUALITY: f64 = 82.0;

/// Encodes one plane or three; gives the AV1 data, and the planes as a decoder will see them.
pub(super) fn encode<const PLANES: usize>(
    still: &Still,
    planes: &[Vec<u16>; PLANES],
) -> Result<(Vec<u8>, [Vec<u16>; PLANES]), EncodeError> {
    let picture = Picture::of(still, planes)?;
    let mut encoder = Encoder::new(still, PLANES == 1)?;
    encoder.configure(still)?;
    let mut data = Vec::new();
    encoder.send(Some(&picture))?;
    encoder.receive(&mut data);
    let seen = encoder.seen(still)?;
    encoder.send(None)?;
    encoder.receive(&mut data);
    Ok((data, seen))
}

/// An image that is ours.
struct Picture(*mut aom_image_t);

impl Picture {
    fn of(still: &Still, planes: &[Vec<u16>]) -> Result<Self, EncodeError> {
        let format = match (planes.len(), still.depth) {
            // Shades of grey come with colour planes that are not looked at.
            (1, Depth::Eight) => aom_img_fmt::AOM_IMG_FMT_I420,
            (1, Depth::Ten) => aom_img_fmt::AOM_IMG_FMT_I42016,
            (_, Depth::Eight) => aom_img_fmt::AOM_IMG_FMT_I444,
            (_, Depth::Ten) => aom_img_fmt::AOM_IMG_FMT_I44416,
        };
        let size = |edge: usize| c_uint::try_from(edge).map_err(refused);
        let (width, height) = (size(still.width)?, size(still.height)?);
        // SAFETY: with no image given it allocates one, or gives null.
        let image = unsafe { aom_img_alloc(ptr::null_mut(), format, width, height, 32) };
        let picture = Self(image);
        // SAFETY: what is not null is initialised, and nobody else knows of it.
        let image = unsafe { image.as_mut() }.ok_or_else(|| refused("no memory"))?;
        image.monochrome = c_int::from(planes.len() == 1);
        image.range = aom_color_range::AOM_CR_FULL_RANGE;
        image.bit_depth = still.depth.bits().into();
        let middle = u16::try_from(still.depth.middle()).map_err(refused)?;
        let grey = vec![middle; still.width.div_ceil(2) * still.height.div_ceil(2)];
        for (at, &start) in image.planes.iter().enumerate() {
            let (samples, width) = match planes.get(at) {
                Some(plane) => (plane, still.width),
                None => (&grey, still.width.div_ceil(2)),
            };
            let stride = usize::try_from(image.stride[at]).map_err(refused)?;
            for (y, row) in samples.chunks_exact(width).enumerate() {
                let bytes: Vec<u8> = match still.depth {
                    Depth::Eight => row.iter().map(|sample| sample.to_le_bytes()[0]).collect(),
                    Depth::Ten => row.iter().flat_map(|sample| sample.to_ne_bytes()).collect(),
                };
                // SAFETY: a plane has so many rows of `stride` bytes each, which hold so many samples of one byte, or of two where
                // the format says so.
                unsafe { start.add(y * stride).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
            }
        }
        Ok(picture)
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: it came of `aom_img_alloc`, and null is let be.
        unsafe { aom_img_free(self.0) }
    }
}

/// An encoder of one picture.
struct Encoder(Box<aom_codec_ctx_t>);

impl Encoder {
    fn new(still: &Still, grey: bool) -> Result<Self, EncodeError> {
        // SAFETY: every call is given what is initialised, or what it initialises itself; the interface is static.
        let encoder = unsafe {
            let interface = aom_codec_av1_cx();
            let mut config = MaybeUninit::<aom_codec_enc_cfg_t>::zeroed();
            checked(aom_codec_enc_config_default(interface, config.as_mut_ptr(), AOM_USAGE_ALL_INTRA))?;
            let mut config = config.assume_init();
            config.g_w = c_uint::try_from(still.width).map_err(refused)?;
            config.g_h = c_uint::try_from(still.height).map_err(refused)?;
            // In the calling thread: a render has one permit, that is one core.
            config.g_threads = 1;
            config.g_limit = 1;
            config.g_lag_in_frames = 0;
            config.g_profile = c_uint::from(!grey);
            config.monochrome = c_uint::from(grey);
            config.g_bit_depth = match still.depth {
                Depth::Eight => aom_bit_depth::AOM_BITS_8,
                Depth::Ten => aom_bit_depth::AOM_BITS_10,
            };
            config.g_input_bit_depth = still.depth.bits().into();
            config.rc_end_usage = aom_rc_mode::AOM_Q;
            let flags = if still.depth == Depth::Ten { AOM_CODEC_USE_HIGHBITDEPTH } else { 0 };
            let version = c_int::try_from(AOM_ENCODER_ABI_VERSION).map_err(refused)?;
            let mut context = Box::new(MaybeUninit::<aom_codec_ctx_t>::zeroed());
            checked(aom_codec_enc_init_ver(context.as_mut_ptr(), interface, &raw const config, flags.into(), version))?;
            Self(context.assume_init())
        };
        Ok(encoder)
    }

    /// Sets what is told by a number.
    fn set(&mut self, control: aome_enc_control_id::Type, value: c_int) -> Result<(), EncodeError> {
        // SAFETY: the context is initialised; all controls that are named here take an integer of the size of this one.
        checked(unsafe { aom_codec_control(&raw mut *self.0, c_int::try_from(control).map_err(refused)?, value) })
    }

    fn configure(&mut self, still: &Still) -> Result<(), EncodeError> {
        use aome_enc_control_id as id;
        let (speed, quantizer) = (still.effort.speed(), still.quantizer.min(COARSEST));
        for (control, value) in [
            (id::AV1E_SET_COLOR_RANGE, aom_color_range::AOM_CR_FULL_RANGE.cast_signed()),
            (id::AV1E_SET_COLOR_PRIMARIES, aom_color_primaries::AOM_CICP_CP_BT_709.cast_signed()),
            (id::AV1E_SET_TRANSFER_CHARACTERISTICS, aom_transfer_characteristics::AOM_CICP_TC_SRGB.cast_signed()),
            (id::AV1E_SET_MATRIX_COEFFICIENTS, aom_matrix_coefficients::AOM_CICP_MC_BT_601.cast_signed()),
            (id::AOME_SET_CPUUSED, speed),
            (id::AOME_SET_CQ_LEVEL, quantizer.into()),
            (id::AOME_SET_TUNING, aom_tune_metric::AOM_TUNE_IQ.cast_signed()),
        ] {
            self.set(control, value)?;
        }
        Ok(())
    }

    fn send(&mut self, picture: Option<&Picture>) -> Result<(), EncodeError> {
        let image = picture.map_or(ptr::null(), |picture| picture.0.cast_const());
        // SAFETY: the context is initialised; null ends the stream, and the image outlives the call, which copies it.
        checked(unsafe { aom_codec_encode(&raw mut *self.0, image, 0, 1, 0) })
    }

    fn receive(&mut self, data: &mut Vec<u8>) {
        let mut place = ptr::null();
        // SAFETY: the context is initialised; a packet and its data live until the next call of the encoder.
        while let Some(packet) = unsafe { aom_codec_get_cx_data(&raw mut *self.0, &raw mut place).as_ref() } {
            if packet.kind == aom_codec_cx_pkt_kind::AOM_CODEC_CX_FRAME_PKT {
                // SAFETY: of this kind it is a frame, of so many bytes.
                data.extend_from_slice(unsafe {
                    std::slice::from_raw_parts(packet.data.frame.buf.cast(), packet.data.frame.sz)
                });
            }
        }
    }

    /// The picture as a decoder will see it.
    fn seen<const PLANES: usize>(&mut self, still: &Still) -> Result<[Vec<u16>; PLANES], EncodeError> {
        let mut image = MaybeUninit::<aom_image_t>::zeroed();
        let control = c_int::try_from(aom_com_control_id::AV1_GET_NEW_FRAME_IMAGE).map_err(refused)?;
        // SAFETY: the control writes an image that borrows from the context.
        let image = unsafe {
            checked(aom_codec_control(&raw mut *self.0, control, image.as_mut_ptr()))?;
            image.assume_init()
        };
        if (image.d_w as usize, image.d_h as usize) != (still.width, still.height) {
            return Err(refused("another size came out"));
        }
        let is_wide = image.fmt & AOM_IMG_FMT_HIGHBITDEPTH != 0;
        let row_len = if is_wide { 2 * still.width } else { still.width };
        let strides = image.stride.map(|stride| usize::try_from(stride).unwrap_or(0));
        Ok(std::array::from_fn(|at| {
            let mut plane = Vec::with_capacity(still.width * still.height);
            for y in 0..still.height {
                // SAFETY: a plane has so many rows of `stride` bytes, which hold so many samples of one byte or of two.
                let row =
                    unsafe { std::slice::from_raw_parts(image.planes[at].add(y * strides[at]).cast_const(), row_len) };
                if is_wide {
                    plane.extend(row.as_chunks().0.iter().copied().map(u16::from_ne_bytes));
                } else {
                    plane.extend(row.iter().copied().map(u16::from));
                }
            }
            plane
        }))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and dropped once.
        unsafe { aom_codec_destroy(&raw mut *self.0) };
    }
}

impl Effort {
    /// From 0, all care, to 9.
    fn speed(self) -> c_int {
        match self {
            Self::Quick => 6,
            Self::Thorough => 2,
        }
    }
}

fn checked(answer: aom_codec_err_t::Type) -> Result<(), EncodeError> {
    if answer == aom_codec_err_t::AOM_CODEC_OK { Ok(()) } else { Err(refused(format!("libaom says {answer}"))) }
}
