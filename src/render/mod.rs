//! Pixels: source bytes in, encoded bytes out. The only room that names codecs; sync and pure.

use crate::source::SourceInfo;
use crate::variant::{Recipe, Variant};

/// What a picture may cost before it is relayed as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest edge in pixels.
    pub edge: u32,
    /// Width times height.
    pub pixels: u64,
    /// Bytes that a decoder may allocate.
    pub decoder_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { edge: 4096, pixels: 8_000_000, decoder_memory: 32 << 20 }
    }
}

/// Why bytes did not become pixels.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// A kind of picture that we leave alone, or no picture at all that we know of.
    #[error("not a kind of picture that is decoded here")]
    Unsupported,
    /// Over a limit; named without decoding where the header tells.
    #[error("over a limit: {0}")]
    OverLimit(&'static str),
    /// A picture of a kind that we know, cut off or damaged, or nothing at all.
    #[error("does not decode: {0}")]
    Broken(String),
}

/// Why pixels did not become a file.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("does not encode: {0}")]
pub struct EncodeError(pub String);

/// A decoded picture: the first frame, upright, 8 bits a channel.
pub struct Pixels {
    /// What is known of the source now that the pixels were seen.
    pub info: SourceInfo,
}

/// Decodes the first frame.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(_bytes: &[u8], _limits: &Limits) -> Result<Pixels, DecodeError> {
    unimplemented!()
}

/// Resizes and encodes `pixels` as `recipe` says; `source_len` is the length of the source in bytes, which an answer
/// must stay below when the source itself would do.
///
/// # Errors
/// When the encoder refuses.
pub fn render(_pixels: &Pixels, _recipe: &Recipe, _source_len: usize) -> Result<Variant, EncodeError> {
    unimplemented!()
}
