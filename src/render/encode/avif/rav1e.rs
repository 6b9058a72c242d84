//! AV1 pictures by rav1e, which comes with this program and has no C in it.

use super::{Effort, Still, refused};
use crate::render::EncodeError;
use rav1e::prelude::{
    BlockSize, ChromaSampling, ColorDescription, ColorPrimaries, Config, EncoderConfig, EncoderStatus,
    MatrixCoefficients, PartitionRange, PixelRange, SceneDetectionSpeed, SpeedSettings, TransferCharacteristics, Tune,
};

/// The coarsest of the quantizers, which are AV1's own; 0 would be lossless.
pub(in crate::render) const COARSEST: u8 = 255;

/// Where a search for 80 begins.
pub(in crate::render) const USUAL: u8 = 124;

/// About what a quantizer takes from the score, and which share of the bytes.
pub(in crate::render) const SLOPES: (f64, f64) = (0.3, 0.012);

/// What brings photographs to 80 on the scale of SSIMULACRA2 without a look, in the median.
pub(super) const USUAL_QUALITY: f64 = 80.0;

/// Bytes of a sample as rav1e keeps it, whatever the depth.
const SAMPLE: usize = 2;

/// Encodes one plane or three; gives the AV1 data, and the planes as a decoder will see them.
pub(super) fn encode<const PLANES: usize>(
    still: &Still,
    planes: &[Vec<u16>; PLANES],
) -> Result<(Vec<u8>, [Vec<u16>; PLANES]), EncodeError> {
    let sampling = if PLANES == 1 { ChromaSampling::Cs400 } else { ChromaSampling::Cs444 };
    // In the calling thread: a render has one permit, that is one core. The same bytes everywhere, too.
    let config = Config::new().with_threads(1).with_encoder_config(still.config(sampling));
    let mut context = config.new_context::<u16>().map_err(refused)?;
    let mut frame = context.new_frame();
    for (target, plane) in frame.planes.iter_mut().zip(planes) {
        let bytes: Vec<u8> = plane.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        target.copy_from_raw_u8(&bytes, still.width * SAMPLE, SAMPLE);
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
    let seen = seen.ok_or_else(|| refused("no picture came out"))?;
    let decoded = std::array::from_fn(|plane| {
        let mut bytes = vec![0; still.width * still.height * SAMPLE];
        seen.planes[plane].copy_to_raw_u8(&mut bytes, still.width * SAMPLE, SAMPLE);
        bytes.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect()
    });
    Ok((data, decoded))
}

impl Still {
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
        // Three milliseconds for each thousand pixels, and a twelfth fewer bytes for eight times the work.
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
