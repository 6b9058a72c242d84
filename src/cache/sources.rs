//! Source images by content hash, and the map from picture to hash: the one thing that a POST forgets.

use super::{OnEviction, Settings, Usage, listener, weight};
use crate::identity::PictureId;
use crate::source::{ContentHash, SourceImage, SourceInfo, Validator};
use moka::future::Cache;
use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Generations are counted per slot and not per picture, so that their memory is bounded: a write to one picture makes
/// the few that share its slot ask upstream once more, which costs a request and nothing else.
const GENERATION_SLOTS: usize = 4096;

/// How many bodies are remembered as not to be decoded again.
const REJECTIONS: u64 = 4096;

/// The share of the sources' budget that the map from picture to hash may take: one part in eight.
const RECORDS_SHARE: u64 = 8;

/// A picture as of one generation. Entries carry the generation they were begun under and are found only while it is the
/// current one, so a fetch that was already on its way when a picture was forgotten cannot put the old one back, and
/// nobody joins a flight of an older generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordKey {
    picture: PictureId,
    generation: u64,
}

/// What is known of a picture under its validator.
#[derive(Debug)]
pub struct Record {
    /// The validator upstream gave with it; without one the record is of use to its own request only.
    pub validator: Option<Validator>,
    /// The bytes that came with it.
    pub source: ContentHash,
    /// What is known of them.
    pub info: SourceInfo,
    /// How many they are.
    pub source_len: usize,
    /// The `Cache-Control` that upstream's 200 said; its 304 says none.
    pub cache_control: Option<http::HeaderValue>,
}

/// Why a body is not decoded again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// Cut off or damaged.
    Broken,
    /// A kind of picture that is left alone, or one over a limit.
    LeftAlone,
    /// A codec panicked over it.
    Quarantined,
}

/// Source images and the records that name them.
pub struct Sources {
    records: Cache<RecordKey, Arc<Record>>,
    bodies: Cache<ContentHash, Arc<SourceImage>>,
    rejections: Cache<ContentHash, Rejection>,
    generations: Box<[AtomicU64]>,
    epoch: AtomicU64,
    slot_hasher: RandomState,
    max_entry: u64,
}

impl Sources {
    /// Empty caches within `settings.sources` bytes.
    #[must_use]
    pub fn new(settings: &Settings, evicted: OnEviction) -> Self {
        let for_records = settings.sources / RECORDS_SHARE;
        Self {
            records: Cache::builder()
                .max_capacity(for_records)
                .weigher(|_, record: &Arc<Record>| weight(size_of::<RecordKey>() + record.bytes()))
                .eviction_listener(listener(evicted.clone()))
                .build(),
            bodies: Cache::builder()
                .max_capacity(settings.sources - for_records)
                .weigher(|_, image: &Arc<SourceImage>| weight(size_of::<SourceImage>() + image.bytes.len()))
                .eviction_listener(listener(evicted))
                .build(),
            rejections: Cache::new(REJECTIONS),
            generations: (0..GENERATION_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU64::new(0),
            slot_hasher: RandomState::new(),
            max_entry: settings.max_entry,
        }
    }

    /// The name of `picture` as of now. To be taken before upstream is asked.
    #[must_use]
    pub fn key(&self, picture: PictureId) -> RecordKey {
        // Two counters that only ever grow: their sum changes whenever either does.
        let generation = self.slot(picture).load(Ordering::Acquire) + self.epoch.load(Ordering::Acquire);
        RecordKey { picture, generation }
    }

    /// What is known of the picture under `key`.
    pub async fn record(&self, key: &RecordKey) -> Option<Arc<Record>> {
        self.records.get(key).await
    }

    /// Runs `fetch` unless a fetch for the same key is under way already, and waits for whichever it is.
    ///
    /// # Errors
    /// Why the fetch brought nothing that can be kept, to all who waited for it.
    pub async fn join_fetch<E: Clone + Send + Sync + 'static>(
        &self,
        key: RecordKey,
        fetch: impl Future<Output = Result<Arc<Record>, E>>,
    ) -> Result<Arc<Record>, E> {
        self.records.try_get_with(key, fetch).await.map_err(|error| E::clone(&error))
    }

    /// Keeps `record`.
    pub async fn keep_record(&self, key: RecordKey, record: Arc<Record>) {
        self.records.insert(key, record).await;
    }

    /// The source image of that name, if it is still here.
    pub async fn body(&self, hash: &ContentHash) -> Option<Arc<SourceImage>> {
        self.bodies.get(hash).await
    }

    /// Keeps `image` under its name, unless it is too long to be kept at all.
    pub async fn keep_body(&self, image: Arc<SourceImage>) {
        if image.bytes.len() as u64 <= self.max_entry {
            self.bodies.insert(image.hash, image).await;
        }
    }

    /// Whether the body of that name is not to be decoded.
    pub async fn rejection(&self, hash: &ContentHash) -> Option<Rejection> {
        self.rejections.get(hash).await
    }

    /// Remembers that the body of that name is not to be decoded.
    pub async fn reject(&self, hash: ContentHash, why: Rejection) {
        self.rejections.insert(hash, why).await;
    }

    /// Forgets what is known of `picture`. The pixels stay under their hash: a new picture has a new one.
    pub fn forget(&self, picture: PictureId) {
        self.slot(picture).fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what is known of every picture, when it cannot be told which one changed.
    pub fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// What the source images and the map from picture to hash take.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            weight: self.records.weighted_size() + self.bodies.weighted_size(),
            entries: self.records.entry_count() + self.bodies.entry_count(),
        }
    }

    /// Does the bookkeeping that moka leaves to the next access.
    pub async fn tidy(&self) {
        self.records.run_pending_tasks().await;
        self.bodies.run_pending_tasks().await;
    }

    fn slot(&self, picture: PictureId) -> &AtomicU64 {
        // The low bits of a keyed hash: nobody outside can aim a write at another picture's slot.
        let hash = usize::try_from(self.slot_hasher.hash_one(picture) & (GENERATION_SLOTS as u64 - 1));
        &self.generations[hash.expect("twelve bits fit")]
    }
}

impl Record {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.validator.as_ref().map_or(0, |validator| validator.as_bytes().len())
            + self.cache_control.as_ref().map_or(0, http::HeaderValue::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ObjectId, PictureKind, Site};
    use crate::source::SourceFormat;
    use bytes::Bytes;

    fn picture(n: u8) -> PictureId {
        let object = ObjectId::parse(format!("{n:026}").as_bytes()).expect("26 digits");
        PictureId { site: Site::of(b"chat.example"), kind: PictureKind::User, object }
    }

    fn image(byte: u8, len: usize) -> Arc<SourceImage> {
        let bytes = Bytes::from(vec![byte; len]);
        Arc::new(SourceImage { hash: ContentHash::of(&bytes), bytes, info: info() })
    }

    fn info() -> SourceInfo {
        SourceInfo { format: SourceFormat::Png, width: 1, height: 1, has_alpha: false, animated: false }
    }

    fn record(stamp: &str) -> Arc<Record> {
        let validator = Validator::new(stamp.as_bytes());
        Arc::new(Record {
            validator,
            source: ContentHash::of(stamp.as_bytes()),
            info: info(),
            source_len: 1,
            cache_control: None,
        })
    }

    fn sources(budget: u64) -> Sources {
        Sources::new(&Settings { sources: budget, variants: 0, pixels: 0, max_entry: 64 << 10 }, Arc::new(|| ()))
    }

    #[actix_web::test]
    async fn f45_a_fetch_begun_before_a_change_cannot_put_the_old_picture_back() {
        let sources = sources(1 << 20);
        let begun = sources.key(picture(1));
        sources.forget(picture(1));
        sources.keep_record(begun, record("1")).await;
        assert!(sources.record(&sources.key(picture(1))).await.is_none());
    }

    #[actix_web::test]
    async fn forgetting_one_picture_leaves_the_others_and_forgetting_all_leaves_none() {
        let sources = sources(1 << 20);
        let other = (2..=255)
            .map(picture)
            .find(|other| !std::ptr::eq(sources.slot(*other), sources.slot(picture(1))))
            .expect("another slot");
        for each in [picture(1), other] {
            sources.keep_record(sources.key(each), record("1")).await;
        }
        sources.forget(picture(1));
        assert!(sources.record(&sources.key(picture(1))).await.is_none());
        assert!(sources.record(&sources.key(other)).await.is_some());
        sources.forget_all();
        assert!(sources.record(&sources.key(other)).await.is_none());
    }

    #[actix_web::test]
    async fn one_fetch_runs_for_all_who_wait_and_a_failure_is_told_to_them() {
        let sources = Arc::new(sources(1 << 20));
        let (key, runs) = (sources.key(picture(1)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..20).map(|_| {
            let (sources, runs) = (sources.clone(), runs.clone());
            actix_web::rt::spawn(async move {
                let fetch = async {
                    runs.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok::<_, ()>(record("7"))
                };
                sources.join_fetch(key, fetch).await.is_ok()
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert!(task.await.expect("no panic"));
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        let other = sources.key(picture(2));
        assert!(matches!(sources.join_fetch(other, async { Err("refused") }).await, Err("refused")));
        assert!(sources.join_fetch(other, async { Ok::<_, &str>(record("8")) }).await.is_ok());
    }

    #[actix_web::test]
    async fn f48_the_weight_stays_within_the_budget_and_a_huge_body_is_not_kept() {
        let sources = sources(512 << 10);
        let huge = image(0, 65 << 10);
        sources.keep_body(huge.clone()).await;
        for n in 0..200_u16 {
            let bytes = Bytes::from(vec![u8::try_from(n % 256).expect("a byte"); 32 << 10]);
            sources
                .keep_body(Arc::new(SourceImage { hash: ContentHash::of(&n.to_le_bytes()), bytes, info: info() }))
                .await;
        }
        sources.bodies.run_pending_tasks().await;
        let usage = sources.usage();
        assert!(usage.weight <= 448 << 10, "{usage:?}");
        assert!(usage.entries > 8, "{usage:?}");
        assert!(sources.body(&huge.hash).await.is_none());
    }
}
