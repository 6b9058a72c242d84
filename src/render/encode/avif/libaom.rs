//! AV1 pictures by the libaom of the system, tuned for stills: `AOM_TUNE_IQ`, which came with 3.12, aims at SSIMULACRA2 itself.
#![expect(unsafe_code, reason = "libaom is C; the types that own its memory and the one call sequence are here")]

use super::{Depth, Effort, Still, refused};
use crate::render::EncodeError;
use aom_sys::{
    AOM_CODEC_USE_HIGHBITDEPTH, AOM_ENCODER_ABI_VERSION, AOM_IMG_FMT_HIGHBITDEPTH, AOM_USAGE_ALL_INTRA, aom_bit_depth,
    aom_codec_av1_cx, aom_codec_control, aom_codec_ctx_t, aom_codec_cx_pkt_kind, aom_codec_destroy,
    aom_codec_enc_cfg_t, aom_codec_enc_config_default, aom_codec_enc_init_ver, aom_codec_encode, aom_codec_err_t,
    aom_codec_get_cx_data, aom_codec_version, aom_color_primaries, aom_color_range, aom_com_control_id, aom_image_t,
    aom_img_alloc, aom_img_fmt, aom_img_free, aom_matrix_coefficients, aom_rc_mode, aom_transfer_characteristics,
    aom_tune_metric, aome_enc_control_id,
};
use std::ffi::{c_int, c_uint};
use std::mem::MaybeUninit;
use std::ptr;

/// The coarsest of the quantizers, which are AV1's by fours; 0 would be lossless.
pub(in crate::render) const COARSEST: u8 = 63;

/// Where a search for 80 begins; most photographs of 128 px and larger end near it, smaller ones two below.
pub(in crate::render) const USUAL: u8 = 30;

/// About what a quantizer takes from the score, and which share of the bytes.
pub(in crate::render) const SLOPES: (f64, f64) = (1.2, 0.05);

/// The first version that has the tuning; an older library passes for a newer one until it is asked for that.
const OLDEST: c_int = 3 << 16 | 12 << 8;

/// What brings photographs to 80 on the scale of SSIMULACRA2 without a look, in the median of all sizes.
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
        // Of shades of grey there is one plane; the others are not looked at.
        for (at, plane) in planes.iter().enumerate() {
            let (start, stride) = (image.planes[at], usize::try_from(image.stride[at]).map_err(refused)?);
            for (y, row) in plane.chunks_exact(still.width).take(still.height).enumerate() {
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

/// An encoder of one picture. It stays where it is: whoever is called may keep its address.
struct Encoder(Box<aom_codec_ctx_t>);

impl Encoder {
    fn new(still: &Still, grey: bool) -> Result<Self, EncodeError> {
        // SAFETY: it reads a constant.
        if unsafe { aom_codec_version() } < OLDEST {
            return Err(refused("libaom is older than 3.12"));
        }
        let mut config = MaybeUninit::<aom_codec_enc_cfg_t>::zeroed();
        // SAFETY: the interface is static, and the call writes every field of what consists of numbers only.
        let (interface, mut config) = unsafe {
            let interface = aom_codec_av1_cx();
            checked(aom_codec_enc_config_default(interface, config.as_mut_ptr(), AOM_USAGE_ALL_INTRA))?;
            (interface, config.assume_init())
        };
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
        // SAFETY: the call copies the configuration, and initialises the context or destroys it itself.
        unsafe {
            checked(aom_codec_enc_init_ver(context.as_mut_ptr(), interface, &raw const config, flags.into(), version))?;
            Ok(Self(context.assume_init()))
        }
    }

    fn configure(&mut self, still: &Still) -> Result<(), EncodeError> {
        use aome_enc_control_id as id;
        for (control, value) in [
            (id::AV1E_SET_COLOR_RANGE, aom_color_range::AOM_CR_FULL_RANGE.cast_signed()),
            (id::AV1E_SET_COLOR_PRIMARIES, aom_color_primaries::AOM_CICP_CP_BT_709.cast_signed()),
            (id::AV1E_SET_TRANSFER_CHARACTERISTICS, aom_transfer_characteristics::AOM_CICP_TC_SRGB.cast_signed()),
            (id::AV1E_SET_MATRIX_COEFFICIENTS, aom_matrix_coefficients::AOM_CICP_MC_BT_601.cast_signed()),
            (id::AOME_SET_CPUUSED, still.effort.speed()),
            (id::AOME_SET_CQ_LEVEL, still.quantizer.into()),
            (id::AOME_SET_TUNING, aom_tune_metric::AOM_TUNE_IQ.cast_signed()),
        ] {
            let control = c_int::try_from(control).map_err(refused)?;
            // SAFETY: the context is initialised, and each of these controls takes an integer of the size of this one.
            checked(unsafe { aom_codec_control(&raw mut *self.0, control, value) })?;
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
        copied(&image, still)
    }
}

/// The planes of an image that libaom has made.
fn copied<const PLANES: usize>(image: &aom_image_t, still: &Still) -> Result<[Vec<u16>; PLANES], EncodeError> {
    let whole = PLANES == 1 || (image.x_chroma_shift, image.y_chroma_shift) == (0, 0);
    if (image.d_w as usize, image.d_h as usize) != (still.width, still.height)
        || !whole
        || image.planes.iter().take(PLANES).any(|plane| plane.is_null())
    {
        return Err(refused("another picture came out"));
    }
    let is_wide = image.fmt & AOM_IMG_FMT_HIGHBITDEPTH != 0;
    let row_len = if is_wide { 2 * still.width } else { still.width };
    let mut planes = std::array::from_fn(|_| Vec::with_capacity(still.width * still.height));
    for (at, plane) in planes.iter_mut().enumerate() {
        let (start, stride) = (image.planes[at].cast_const(), usize::try_from(image.stride[at]).map_err(refused)?);
        for y in 0..still.height {
            // SAFETY: a plane has so many rows of `stride` bytes, which hold so many samples of one byte or of two.
            let row = unsafe { std::slice::from_raw_parts(start.add(y * stride), row_len) };
            if is_wide {
                plane.extend(row.as_chunks().0.iter().copied().map(u16::from_ne_bytes));
            } else {
                plane.extend(row.iter().copied().map(u16::from));
            }
        }
    }
    Ok(planes)
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, and dropped once.
        unsafe { aom_codec_destroy(&raw mut *self.0) };
    }
}

impl Effort {
    /// From 0, all care, to 9: two milliseconds for each thousand pixels, and a tenth fewer bytes for twelve times the work.
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

#[cfg(test)]
mod tests {
    use super::*;
    use aom_sys::{
        AOM_DECODER_ABI_VERSION, aom_codec_av1_dx, aom_codec_dec_init_ver, aom_codec_decode, aom_codec_get_frame,
    };

    /// What libaom's own decoder makes of it.
    fn decoded<const PLANES: usize>(data: &[u8], still: &Still) -> [Vec<u16>; PLANES] {
        let version = AOM_DECODER_ABI_VERSION.cast_signed();
        let mut context = Box::new(MaybeUninit::<aom_codec_ctx_t>::zeroed());
        // SAFETY: the interface is static, and no configuration is the usual one; the context is initialised from the first call
        // until it is dropped, and an image is read while it lives.
        unsafe {
            checked(aom_codec_dec_init_ver(context.as_mut_ptr(), aom_codec_av1_dx(), ptr::null(), 0, version))
                .expect("a decoder");
            let mut decoder = Encoder(context.assume_init());
            checked(aom_codec_decode(&raw mut *decoder.0, data.as_ptr(), data.len(), ptr::null_mut())).expect("AV1");
            let mut place = ptr::null();
            let image = aom_codec_get_frame(&raw mut *decoder.0, &raw mut place).as_ref().expect("a picture");
            copied(image, still).expect("of that size")
        }
    }

    #[test]
    fn what_is_said_to_be_seen_is_what_a_decoder_shows() {
        for (width, height) in [(1, 1), (1, 9), (9, 1), (33, 17), (64, 65)] {
            for effort in [Effort::Quick, Effort::Thorough] {
                let plane =
                    |most: usize| (0..width * height).map(move |i| u16::try_from(i * i * 7 % most).expect("small"));
                let still = |depth| Still { width, height, depth, quantizer: USUAL, effort };
                let (colours, greys) = (still(Depth::Ten), still(Depth::Eight));
                let (data, seen) =
                    encode(&colours, &[1024, 400, 700].map(|most| plane(most).collect())).expect("encodes");
                assert_eq!(decoded::<3>(&data, &colours), seen, "{width}x{height}");
                let (data, seen) = encode(&greys, &[plane(256).collect()]).expect("encodes");
                assert_eq!(decoded::<1>(&data, &greys), seen, "{width}x{height}");
            }
        }
    }
}
