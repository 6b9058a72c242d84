//! Variants by key: rendered once for all who wait, weighed in bytes.

use super::{OnEviction, Settings, Usage, listener, weight};
use crate::variant::{Encoded, Recipe, Variant, VariantKey};
use foldhash::quality::RandomState;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use smallvec::SmallVec;
use std::mem::size_of;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How a variant was come by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// It was in memory.
    Hit,
    /// This request rendered it.
    Rendered,
    /// This request waited for another's render.
    Coalesced,
}

/// How many variants of a record are found without the map.
const SHORTCUTS: usize = 6;
/// Every so many uses of a record's shortcuts the map is asked nevertheless: it has to know what is popular.
const COUNTED: u32 = 64;

/// Recipes and what was made by them, as long as somebody holds it.
type Ways = SmallVec<[(Recipe, Weak<Encoded>); SHORTCUTS]>;

/// The variants that were last made of one record, found by the record itself: half of what a hit costs is looking it up.
/// They hold no memory, and what the map has let go is gone here too.
#[derive(Debug, Default)]
pub struct Shortcuts {
    uses: AtomicU32,
    /// In the record itself: to follow one pointer more is a wait for memory more.
    variants: Mutex<Ways>,
}

impl Shortcuts {
    fn find(&self, recipe: &Recipe) -> Option<Arc<Encoded>> {
        if self.uses.fetch_add(1, Ordering::Relaxed).is_multiple_of(COUNTED) {
            return None;
        }
        // What another has taken the place of may live on for a while.
        self.lock().iter().find(|(each, _)| each == recipe)?.1.upgrade().filter(|held| !held.popularity.is_passed_on())
    }

    fn add(&self, recipe: Recipe, encoded: &Arc<Encoded>) {
        let mut variants = self.lock();
        variants.retain(|(each, variant): &mut (Recipe, Weak<Encoded>)| *each != recipe && variant.strong_count() > 0);
        variants.truncate(SHORTCUTS - 1);
        variants.insert(0, (recipe, Arc::downgrade(encoded)));
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that is left of what the map has let go, in bytes.
    pub(super) const fn bytes() -> usize {
        SHORTCUTS * (size_of::<Encoded>() + 2 * size_of::<usize>())
    }
}

/// Encoded variants.
pub struct Variants {
    cache: Cache<VariantKey, Variant, RandomState>,
    max_entry: u64,
}

fn content_len(variant: &Variant) -> usize {
    match variant {
        Variant::Encoded(encoded) => encoded.bytes.len() + encoded.etag.len(),
        Variant::SourceForNow(_) | Variant::SourceIsBest => 0,
    }
}

impl Variants {
    /// An empty cache within `settings.variants` bytes.
    #[must_use]
    pub fn new(settings: &Settings, evicted: OnEviction) -> Self {
        let cache = Cache::builder()
            .max_capacity(settings.variants)
            .weigher(|_, variant: &Variant| {
                let content = content_len(variant);
                weight(size_of::<VariantKey>() + size_of::<Encoded>() + content)
            })
            .eviction_listener(listener(evicted))
            .build_with_hasher(RandomState::default());
        Self { cache, max_entry: settings.max_entry }
    }

    /// The variant of that name, if it is here.
    pub async fn get(&self, key: &VariantKey) -> Option<Variant> {
        self.cache.get(key).await
    }

    /// [`Variants::get`] by way of the record that names the source.
    pub async fn get_by(&self, shortcuts: &Shortcuts, key: &VariantKey) -> Option<Variant> {
        if let Some(encoded) = shortcuts.find(&key.recipe) {
            return Some(Variant::Encoded(encoded));
        }
        let variant = self.get(key).await?;
        if let Variant::Encoded(encoded) = &variant {
            shortcuts.add(key.recipe, encoded);
        }
        Some(variant)
    }

    /// The variant of that name; `render` runs once for all who ask at the same time.
    ///
    /// # Errors
    /// `render`'s, to all who waited for it; the next to ask renders anew.
    pub async fn get_or_render<E: Clone + Send + Sync + 'static>(
        &self,
        key: VariantKey,
        render: impl Future<Output = Result<Variant, E>>,
    ) -> Result<(Variant, Lookup), E> {
        let entry = self.cache.entry(key).or_try_insert_with(render).await.map_err(|error| E::clone(&error))?;
        let lookup = if entry.is_fresh() { Lookup::Rendered } else { Lookup::Coalesced };
        let variant = entry.into_value();
        if content_len(&variant) as u64 > self.max_entry {
            self.cache.invalidate(&key).await;
        }
        Ok((variant, lookup))
    }

    /// Puts `better` in the place of `first`, if that is still there and it is not too large to be kept; whether it did.
    pub async fn replace(&self, key: VariantKey, first: &Variant, better: Variant) -> bool {
        let replaced = self.cache.entry(key).and_compute_with(|entry| {
            let is_first = entry.is_some_and(|held| held.value().is(first));
            let fits = content_len(&better) as u64 <= self.max_entry;
            std::future::ready(if is_first && fits { Op::Put(better) } else { Op::Nop })
        });
        let is_replaced = matches!(replaced.await, CompResult::ReplacedWith(_));
        if is_replaced && let Some(popularity) = first.popularity() {
            popularity.pass_on();
        }
        is_replaced
    }

    /// Does the bookkeeping that moka leaves to the next access.
    pub async fn tidy(&self) {
        self.cache.run_pending_tasks().await;
    }

    /// What the variants take.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { weight: self.cache.weighted_size(), entries: self.cache.entry_count() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ContentHash;
    use crate::variant::{Format, Geometry, Offer};
    use std::sync::atomic::{AtomicU32, Ordering};

    fn key(n: u32) -> VariantKey {
        let recipe = Recipe {
            geometry: Geometry::Scale { width: 32, height: 32 },
            offer: Offer::Webp,
            quality: None,
            background: [255; 3],
            source_may_serve: true,
        };
        VariantKey { source: ContentHash::of(&n.to_le_bytes()), recipe }
    }

    fn encoded(len: usize) -> Variant {
        Variant::Encoded(Arc::new(Encoded::new(&vec![1; len], Format::Webp)))
    }

    fn variants(budget: u64) -> Arc<Variants> {
        variants_telling(budget, Arc::new(|| ()))
    }

    fn variants_telling(budget: u64, evicted: OnEviction) -> Arc<Variants> {
        let settings = Settings { sources: 0, variants: budget, pixels: 0, max_entry: 64 << 10 };
        Arc::new(Variants::new(&settings, evicted))
    }

    #[actix_web::test]
    async fn a_variant_is_rendered_once_for_all_who_ask_at_once() {
        let (variants, runs) = (variants(1 << 20), Arc::new(AtomicU32::new(0)));
        let tasks = (0..50).map(|_| {
            let (variants, runs) = (variants.clone(), runs.clone());
            actix_web::rt::spawn(async move {
                let render = async {
                    runs.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok::<_, ()>(encoded(100))
                };
                variants.get_or_render(key(1), render).await.map(|(_, lookup)| lookup)
            })
        });
        let mut lookups = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            lookups.push(task.await.expect("no panic").expect("rendered"));
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(lookups.iter().filter(|lookup| **lookup == Lookup::Rendered).count(), 1);
    }

    #[actix_web::test]
    async fn a_failed_render_is_not_remembered() {
        let variants = variants(1 << 20);
        assert_eq!(variants.get_or_render(key(1), async { Err("busy") }).await.map(|(_, lookup)| lookup), Err("busy"));
        let again = variants.get_or_render(key(1), async { Ok::<_, &str>(encoded(10)) }).await;
        assert_eq!(again.map(|(_, lookup)| lookup), Ok(Lookup::Rendered));
    }

    #[actix_web::test]
    async fn f48_ten_times_the_budget_stays_within_it() {
        let evicted = Arc::new(AtomicU32::new(0));
        let count = evicted.clone();
        let variants = variants_telling(256 << 10, Arc::new(move || _ = count.fetch_add(1, Ordering::Relaxed)));
        for n in 0..2560 {
            variants.get_or_render(key(n), async { Ok::<_, ()>(encoded(1024)) }).await.expect("rendered");
        }
        variants.cache.run_pending_tasks().await;
        let usage = variants.usage();
        assert!(usage.weight <= 256 << 10, "{usage:?}");
        assert!(usage.entries > 100, "{usage:?}");
        assert!(evicted.load(Ordering::Relaxed) > 2000);
    }

    #[actix_web::test]
    async fn what_is_better_takes_the_place_of_the_first_unless_it_is_too_large() {
        let (variants, shortcuts) = (variants(1 << 20), Shortcuts::default());
        let _ = variants.get_or_render(key(1), async { Ok::<_, ()>(encoded(100)) }).await;
        let first = variants.get_by(&shortcuts, &key(1)).await.expect("it is there");
        for _ in 0..2 {
            assert_eq!(variants.get_by(&shortcuts, &key(1)).await, Some(encoded(100)));
        }
        assert!(!variants.replace(key(1), &first, encoded(65 << 10)).await, "over max_entry");
        assert!(variants.replace(key(1), &first, encoded(50)).await);
        // Though somebody still holds the first.
        assert_eq!(variants.get_by(&shortcuts, &key(1)).await, Some(encoded(50)));
        assert!(!variants.replace(key(1), &first, encoded(40)).await, "it is the first no more");
        assert_eq!(variants.get_by(&shortcuts, &key(1)).await, Some(encoded(50)));
    }

    #[actix_web::test]
    async fn what_is_better_takes_the_place_of_the_source() {
        let (variants, shortcuts) = (variants(1 << 20), Shortcuts::default());
        let source = || Variant::SourceForNow(Arc::default());
        let _ = variants.get_or_render(key(1), async { Ok::<_, ()>(source()) }).await;
        let first = variants.get_by(&shortcuts, &key(1)).await.expect("it is there");
        assert!(!variants.replace(key(1), &source(), encoded(50)).await, "another one");
        assert!(!variants.replace(key(1), &Variant::SourceIsBest, encoded(50)).await, "that is final");
        assert!(variants.replace(key(1), &first, encoded(50)).await);
        assert_eq!(variants.get_by(&shortcuts, &key(1)).await, Some(encoded(50)));
    }

    #[actix_web::test]
    async fn a_shortcut_leads_to_what_the_map_holds_and_holds_nothing_itself() {
        let (variants, shortcuts) = (variants(1 << 20), Shortcuts::default());
        for n in 0..20 {
            let _ = variants.get_or_render(key(n), async { Ok::<_, ()>(encoded(100)) }).await;
        }
        for _ in 0..3 * COUNTED {
            for n in 0..20 {
                assert!(matches!(variants.get_by(&shortcuts, &key(0)).await, Some(Variant::Encoded(_))), "{n}");
            }
        }
        assert_eq!(shortcuts.lock().len(), 1);
        variants.cache.invalidate(&key(0)).await;
        // moka lets go of it when no thread of the process is in the midst of a look any more, those of other tests included.
        for _ in 0..100_000 {
            variants.tidy().await;
            if shortcuts.lock()[0].1.strong_count() == 0 {
                break;
            }
            std::thread::yield_now();
        }
        for _ in 0..COUNTED {
            assert!(variants.get_by(&shortcuts, &key(0)).await.is_none());
        }
        for n in 0..50 {
            let recipe = Recipe { background: [n; 3], ..key(1).recipe };
            let Variant::Encoded(kept) = encoded(1) else { unreachable!("made above") };
            shortcuts.add(recipe, &kept);
            assert!(shortcuts.lock().len() <= SHORTCUTS);
        }
    }
}
