//! Memory: sources, variants and, for a moment, decoded pixels. The only room that names moka.
//!
//! Every cache weighs what it really holds, keys and bookkeeping included, against a budget in bytes; `TinyLFU` decides
//! what stays. Nothing here knows who may see what: that is decided before anybody asks.

mod at_hand;
pub mod grants;
mod pixels;
mod sources;
mod variants;

pub use grants::Grants;
pub use pixels::PixelCache;
pub use sources::{Hearsay, Known, Question, Record, RecordKey, Rejection, Sources, Version};
pub use variants::{Lookup, Shortcuts, Variants};

use moka::notification::RemovalCause;
use std::sync::Arc;

/// How many bytes each cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Source images and what is known of each picture.
    pub sources: u64,
    /// Encoded variants.
    pub variants: u64,
    /// Decoded pixels, for a moment.
    pub pixels: u64,
    /// The longest body that is kept at all.
    pub max_entry: u64,
}

impl Settings {
    /// The share of `sources` that source images may take: the map from picture to hash has the rest.
    #[must_use]
    pub const fn for_bodies(&self) -> u64 {
        self.sources - self.sources / sources::RECORDS_SHARE
    }
}

/// What moka keeps beside key and value for each entry, measured on a 64-bit target: the bucket, the shared key, the
/// entry's record and its nodes in the access order and frequency structures.
const ENTRY_OVERHEAD: u64 = 256;

/// What a cache holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, keys and bookkeeping included.
    pub weight: u64,
    /// Entries.
    pub entries: u64,
}

/// Called for every entry that was let go for want of room; on any thread.
pub type OnEviction = Arc<dyn Fn() + Send + Sync>;

/// `moka` tells of every removal; only those for want of room are evictions.
fn listener<K, V>(evicted: OnEviction) -> impl Fn(Arc<K>, V, RemovalCause) + Send + Sync + 'static {
    move |_, _, cause| {
        if cause == RemovalCause::Size {
            evicted();
        }
    }
}

/// The weight that moka is told: `bytes` and the bookkeeping.
fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes as u64 + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
}
