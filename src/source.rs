//! Source images: upstream's bytes for a picture, the content hash that names them, and the validator they came under.

use bytes::Bytes;

/// The blake3 hash of a body: the name of a source image, whoever it was shown for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 16 bytes in lower-case hex: enough to name bytes in an entity tag.
    #[must_use]
    pub fn short_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex()[..32].to_owned()
    }

    /// The strong entity tag of the bytes, quotes included (RFC 9110 section 8.8.3).
    #[must_use]
    pub fn entity_tag(&self) -> String {
        format!("\"{}\"", self.short_hex())
    }
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.short_hex())
    }
}

/// Upstream's `ETag` as it came, compared byte for byte.
///
/// Mattermost sends a bare decimal (`Context.HandleEtag` in `server/channels/web/context.go`), which is no entity tag
/// of RFC 9110, so it is never parsed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Validator(Bytes);

impl Validator {
    /// Takes the raw field value; an empty one is no validator.
    #[must_use]
    pub fn new(raw: &[u8]) -> Option<Self> {
        let raw = raw.trim_ascii();
        (!raw.is_empty()).then(|| Self(Bytes::copy_from_slice(raw)))
    }

    /// The raw field value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The stamp in milliseconds that Mattermost's bare decimal stands for; `None` for any other tag.
    /// A negative stamp marks a default picture, so the age of a picture is the absolute value.
    #[must_use]
    pub fn stamp(&self) -> Option<i64> {
        std::str::from_utf8(&self.0).ok()?.parse().ok()
    }
}

/// A picture format that we decode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceFormat {
    /// PNG; an APNG counts as animated.
    Png,
    /// JPEG.
    Jpeg,
    /// GIF.
    Gif,
    /// WebP.
    Webp,
}

impl SourceFormat {
    /// The media type of the untouched source.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
        }
    }
}

/// What is known of a source image without its pixels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceInfo {
    /// The format of its bytes, by their first bytes and not by what upstream called them.
    pub format: SourceFormat,
    /// Width in pixels as shown, that is after the EXIF orientation.
    pub width: u32,
    /// Height in pixels as shown, that is after the EXIF orientation.
    pub height: u32,
    /// Whether any pixel is not fully opaque. Known only once the pixels were seen.
    pub has_alpha: bool,
    /// Whether it has more than one frame.
    pub animated: bool,
}

impl SourceInfo {
    /// The bytes that its pixels take, decoded: three for each, four with an alpha channel.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * if self.has_alpha { 4 } else { 3 }
    }
}

/// Upstream's bytes for a picture, proved to decode.
#[derive(Debug)]
pub struct SourceImage {
    /// The name of the bytes.
    pub hash: ContentHash,
    /// The bytes as upstream sent them.
    pub bytes: Bytes,
    /// What is known of them.
    pub info: SourceInfo,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validator_is_raw_and_never_empty() {
        assert_eq!(Validator::new(b""), None);
        assert_eq!(Validator::new(b"  "), None);
        for (raw, stamp) in [
            (&b"0"[..], Some(0)),
            (b"1712345678901", Some(1_712_345_678_901)),
            (b"-1712345678901", Some(-1_712_345_678_901)),
            (b"\"abc\"", None),
            (b"W/\"1\"", None),
            (b"99999999999999999999", None),
        ] {
            let validator = Validator::new(raw).expect("not empty");
            assert_eq!(validator.as_bytes(), raw);
            assert_eq!(validator.stamp(), stamp);
        }
    }

    #[test]
    fn equal_bytes_have_one_name() {
        assert_eq!(ContentHash::of(b"a"), ContentHash::of(b"a"));
        assert_ne!(ContentHash::of(b"a"), ContentHash::of(b"b"));
        assert_eq!(ContentHash::of(b"").short_hex(), "af1349b9f5f9a1a6a0404dea36dcc949");
    }
}
