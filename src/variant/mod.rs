//! Variants: what a source image may be turned into, and the key that names the result. Sync and pure.

pub mod hints;
pub mod negotiation;
mod parameters;
pub mod query;
mod resolve;
mod sizes;
pub mod transform;
pub mod validators;

use crate::source::ContentHash;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A format that we encode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// AVIF, lossy.
    Avif,
    /// WebP, lossy or lossless, whichever suits the picture.
    Webp,
    /// PNG.
    Png,
    /// JPEG; what is transparent is flattened.
    Jpeg,
}

impl Format {
    /// The media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Avif => "image/avif",
            Self::Webp => "image/webp",
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// The word for logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avif => "avif",
            Self::Webp => "webp",
            Self::Png => "png",
            Self::Jpeg => "jpeg",
        }
    }
}

/// The formats that every client shows, as far as this one takes them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Plain {
    /// PNG, and JPEG where nothing is transparent.
    Both,
    /// PNG alone.
    Png,
    /// JPEG alone.
    Jpeg,
}

impl Plain {
    /// What may be made of a picture for a client that takes nothing else.
    #[must_use]
    pub const fn offer(self) -> Offer {
        match self {
            Self::Both => Offer::Basic,
            Self::Png => Offer::Only(Format::Png),
            Self::Jpeg => Offer::Only(Format::Jpeg),
        }
    }
}

/// The formats among which the render may choose: everything that `Accept`, the User-Agent table and `format=` say,
/// reduced to a few values before any key is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Offer {
    /// The client named AVIF and WebP, and the picture is of a kind and size that AVIF suits: AVIF, WebP, PNG or the
    /// source, whichever is smallest.
    Avif,
    /// The client named AVIF and not WebP, and the picture is likewise: AVIF, what is shown by all, or the source, whichever
    /// is smallest.
    AvifBeside(Plain),
    /// The client named WebP: WebP, PNG or the source, whichever is smallest.
    Webp,
    /// The client named nothing that helps: PNG, JPEG (only without alpha) or the source, whichever is smallest.
    Basic,
    /// `format=` named one.
    Only(Format),
    /// All frames of a moving source, as animated WebP, or the source, whichever is smaller.
    Moving,
}

/// The size and shape of a variant, resolved against its source: never larger than it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Geometry {
    /// The pixels of the source.
    Keep,
    /// The whole picture at this size.
    Scale {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The centre of the picture, filling this size (`cover`).
    Crop {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The whole picture inside this size, centred between transparent bars (`contain`).
    Pad {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// All that decides the bytes of a variant beside those of its source. Equal recipes give equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recipe {
    /// Size and shape.
    pub geometry: Geometry,
    /// The formats to choose from.
    pub offer: Offer,
    /// The score that is aimed at on the scale of SSIMULACRA2, 5 to 100 in steps of 5; `None` leaves it to the configured
    /// target.
    pub quality: Option<u8>,
    /// What transparency is flattened on where the format has none. White unless that matters and was asked for.
    pub background: [u8; 3],
    /// Whether the source itself may be sent when no encoding is smaller: it shows the same picture to the same client.
    pub source_may_serve: bool,
}

/// What to send of a source image to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// The source as upstream sent it.
    Untouched,
    /// A variant.
    Render(Recipe),
}

/// The name of a variant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VariantKey {
    /// The source.
    pub source: ContentHash,
    /// What was made of it.
    pub recipe: Recipe,
}

/// What a render came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Variant {
    /// A picture of our own.
    Encoded(Arc<Encoded>),
    /// Nothing smaller was found at once: the source itself is the answer, until a better one is looked for.
    SourceForNow(Arc<Popularity>),
    /// Nothing smaller was found: the source itself is the answer.
    SourceIsBest,
}

impl Variant {
    /// The picture of our own, if it is one.
    #[must_use]
    pub fn into_encoded(self) -> Option<Arc<Encoded>> {
        match self {
            Self::Encoded(encoded) => Some(encoded),
            Self::SourceForNow(_) | Self::SourceIsBest => None,
        }
    }

    /// How often it was asked for again, where that is of interest.
    #[must_use]
    pub fn popularity(&self) -> Option<&Popularity> {
        match self {
            Self::Encoded(encoded) => Some(&encoded.popularity),
            Self::SourceForNow(popularity) => Some(popularity),
            Self::SourceIsBest => None,
        }
    }

    /// Whether both are one and the same, and not only equal.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Encoded(one), Self::Encoded(other)) => Arc::ptr_eq(one, other),
            (Self::SourceForNow(one), Self::SourceForNow(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// An encoded picture.
#[derive(Debug)]
pub struct Encoded {
    /// The file.
    pub bytes: Bytes,
    /// Its format.
    pub format: Format,
    /// Its strong entity tag, quotes included: it names the bytes, so equal tags are equal bytes on every replica and
    /// after every restart (RFC 9110 section 8.8.3).
    pub etag: Bytes,
    /// How often it was asked for again.
    pub popularity: Popularity,
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        (&self.bytes, self.format) == (&other.bytes, other.format)
    }
}

impl Eq for Encoded {}

impl Encoded {
    /// Names the bytes of `file`.
    #[must_use]
    pub fn new(file: &[u8], format: Format) -> Self {
        let name = ContentHash::of(file).entity_tag();
        // One piece of memory for both, no longer than they are: sending a picture touches one counter and not two, and an
        // encoder's buffer may be half empty.
        let mut bytes = Bytes::from([file, name.as_bytes()].concat());
        let etag = bytes.split_off(file.len());
        Self { bytes, format, etag, popularity: Popularity::default() }
    }
}

/// How often a variant was asked for again, as long as that is of interest.
#[derive(Debug, Default)]
pub struct Popularity {
    times: AtomicU32,
    is_settled: AtomicBool,
    is_replaced: AtomicBool,
}

/// It is no part of what a variant is.
impl PartialEq for Popularity {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Popularity {}

impl Popularity {
    /// It was asked for once more; how often by now, unless nobody wants to know. Two at once may count as one: a hit is to
    /// cost next to nothing, and the number is never shown.
    pub fn once_more(&self) -> Option<u32> {
        if self.is_settled() {
            return None;
        }
        let times = self.times().saturating_add(1);
        self.times.store(times, Ordering::Relaxed);
        Some(times)
    }

    /// How often it was asked for again.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }

    /// Another has taken its place.
    pub fn pass_on(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Whether another has taken its place.
    #[must_use]
    pub fn is_passed_on(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// It stays as it is, or somebody looks for a better one already: counting ends.
    pub fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    /// Nothing came of it: counting goes on.
    pub fn unsettle(&self) {
        self.is_settled.store(false, Ordering::Relaxed);
    }

    /// Whether counting has ended.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }
}
