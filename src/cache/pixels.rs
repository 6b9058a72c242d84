//! Decoded pixels for a moment: several sizes of one picture asked for at once decode it once.

use super::{OnEviction, Settings, Usage, listener, weight};
use crate::source::ContentHash;
use moka::future::Cache;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the requests of one page, short enough to hold nothing that nobody asks for.
const MOMENT: Duration = Duration::from_secs(5);

/// Decoded pictures by the hash of their source. What they are made of is the caller's business.
pub struct PixelCache<P> {
    cache: Cache<ContentHash, Arc<P>>,
    size: fn(&P) -> usize,
    capacity: u64,
}

impl<P: Send + Sync + 'static> PixelCache<P> {
    /// An empty cache within `settings.pixels` bytes, of values that take `size` bytes each.
    #[must_use]
    pub fn new(settings: &Settings, size: fn(&P) -> usize, evicted: OnEviction) -> Self {
        let cache = Cache::builder()
            .max_capacity(settings.pixels)
            .weigher(move |_, pixels: &Arc<P>| weight(size(pixels)))
            .time_to_idle(MOMENT)
            .eviction_listener(listener(evicted))
            .build();
        Self { cache, size, capacity: settings.pixels }
    }

    /// Whether it would keep pixels of so many bytes.
    #[must_use]
    pub fn holds(&self, bytes: u64) -> bool {
        bytes <= self.capacity
    }

    /// The pixels of that source, if they are here.
    pub async fn get(&self, source: &ContentHash) -> Option<Arc<P>> {
        self.cache.get(source).await
    }

    /// The pixels of that source; `decode` runs once for all who ask at the same time.
    ///
    /// # Errors
    /// `decode`'s, to all who waited for it.
    pub async fn get_or_decode<E: Clone + Send + Sync + 'static>(
        &self,
        source: ContentHash,
        decode: impl Future<Output = Result<Arc<P>, E>>,
    ) -> Result<Arc<P>, E> {
        let pixels = self.cache.try_get_with(source, decode).await.map_err(|error| E::clone(&error))?;
        // moka would let go of it too, but only in its own time.
        if !self.holds((self.size)(&pixels) as u64) {
            self.cache.invalidate(&source).await;
        }
        Ok(pixels)
    }

    /// Does the bookkeeping that moka leaves to the next access, letting go of what nobody asked for.
    pub async fn tidy(&self) {
        self.cache.run_pending_tasks().await;
    }

    /// What the pixels take.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { weight: self.cache.weighted_size(), entries: self.cache.entry_count() }
    }
}
