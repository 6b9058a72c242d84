//! Source images by content hash, and the map from picture to hash: the one thing that a POST forgets.

use super::at_hand::AtHand;
use super::{OnEviction, Settings, Shortcuts, Usage, listener, weight};
use crate::identity::PictureId;
use crate::source::{ContentHash, SourceImage, SourceInfo, Validator};
use bytes::Bytes;
use foldhash::quality::RandomState as Fast;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};
use std::hash::BuildHasher;
use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Generations are counted per slot and not per picture, so that their memory is bounded: a write to one picture makes
/// the few that share its slot ask upstream once more, which costs a request and nothing else.
const GENERATION_SLOTS: usize = 4096;

/// How many bodies are remembered as not to be decoded again.
const REJECTIONS: u64 = 4096;

/// The share of the sources' budget that the map from picture to hash may take: one part in four.
pub(super) const RECORDS_SHARE: u64 = 4;

/// A picture as of one generation. Entries carry the generation they were begun under and are found only while it is the
/// current one, so a fetch that was already on its way when a picture was forgotten cannot put the old one back, and
/// nobody joins a flight of an older generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RecordKey {
    picture: PictureId,
    generation: u64,
    /// Follows from the picture.
    place: u16,
}

impl RecordKey {
    /// The picture.
    #[must_use]
    pub const fn picture(&self) -> PictureId {
        self.picture
    }

    /// Where it is held at hand: a number that nobody outside can aim at.
    pub(super) fn place(&self) -> usize {
        usize::from(self.place)
    }
}

/// What is known of a picture: the bytes it has, and what goes with them.
#[derive(Debug)]
pub struct Record {
    /// The validator upstream gave with it; without one it can be served on a grant, but never revalidated.
    pub validator: Option<Validator>,
    /// The bytes that came with it.
    pub source: ContentHash,
    /// What is known of them.
    pub info: SourceInfo,
    /// How many they are.
    pub source_len: usize,
    /// The `Cache-Control` that is sent with it.
    pub lifetime: Bytes,
    /// The names in upstream's `Vary` that are passed on; empty where there are none.
    pub vary: Bytes,
    /// Which version it is, among those that were heard of.
    pub version: Version,
    /// The way to its variants.
    pub shortcuts: Shortcuts,
    /// Whether the map from picture to hash holds it no more.
    pub gone: AtomicBool,
}

/// Which version of a picture a record holds, against what has been heard of it: in a user's record, in an event, in
/// the `_` of a URL. Newer means the greater absolute value, since a negative stamp marks a default picture.
///
/// A newer version that was heard of ends freshness for everybody, until upstream, asked *afterwards*, has answered.
/// Its answer wins, whatever it is: an absurd stamp costs one question.
#[derive(Debug)]
pub struct Version {
    stamp: u64,
    heard: Arc<Hearsay>,
    sent: Mutex<Instant>,
}

/// What has been heard of the versions of a picture, as absolute stamps in milliseconds.
#[derive(Debug, Default)]
pub struct Hearsay {
    newest: AtomicU64,
    /// The newest of those that were heard while one yet newer was.
    next: AtomicU64,
    /// Heard last of those that upstream then knew nothing of.
    refuted: AtomicU64,
}

impl Hearsay {
    /// Takes down a stamp.
    pub fn hear(&self, stamp: i64) {
        let stamp = stamp.unsigned_abs();
        if stamp == self.refuted.load(Ordering::SeqCst) || self.newest.fetch_max(stamp, Ordering::SeqCst) <= stamp {
            return;
        }
        // What it is less than may be taken back; and if that has just happened, nobody looks for it here any more.
        self.next.fetch_max(stamp, Ordering::SeqCst);
        self.newest.fetch_max(stamp, Ordering::SeqCst);
    }

    /// Upstream's version is `stamp`, though `newest` had been heard of when it was asked. That is heard of no more: it
    /// would drown every change to come.
    fn settle(&self, newest: u64, stamp: u64) {
        if newest > stamp {
            self.refuted.store(newest, Ordering::SeqCst);
            // Something newer yet, heard meanwhile, is left to the next question.
            let taken_back = self.newest.compare_exchange(newest, stamp, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if taken_back {
                self.newest.fetch_max(self.next.swap(0, Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }
}

/// A question about a version, as it was put: what had been heard by then is settled by its answer.
#[derive(Clone, Debug)]
pub struct Question {
    heard: Arc<Hearsay>,
    newest: u64,
    sent: Instant,
}

impl Question {
    /// A question about a picture of which `heard` was heard, put at `sent`.
    #[must_use]
    pub fn put(heard: Arc<Hearsay>, sent: Instant) -> Self {
        let newest = heard.newest.load(Ordering::SeqCst);
        Self { heard, newest, sent }
    }

    /// What upstream answered: the picture of this validator.
    #[must_use]
    pub fn answered(&self, validator: Option<&Validator>) -> Version {
        let stamp = validator.and_then(Validator::stamp).map_or(0, i64::unsigned_abs);
        self.heard.settle(self.newest, stamp);
        Version { stamp, heard: self.heard.clone(), sent: Mutex::new(self.sent) }
    }
}

impl Version {
    /// Whether nothing newer was heard of.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.heard.newest.load(Ordering::Acquire) <= self.stamp
    }

    /// Whether `stamp` would be news.
    #[must_use]
    pub fn is_older_than(&self, stamp: i64) -> bool {
        let stamp = stamp.unsigned_abs();
        stamp > self.stamp && stamp != self.heard.refuted.load(Ordering::Acquire)
    }

    /// What is heard of the picture.
    #[must_use]
    pub fn hearsay(&self) -> &Arc<Hearsay> {
        &self.heard
    }

    /// Upstream answered `question` with 304: it is this version.
    pub fn confirm(&self, question: &Question) {
        self.heard.settle(question.newest, self.stamp);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent = question.sent.max(*sent);
    }

    fn sent(&self) -> Instant {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a body is not decoded again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// Cut off or damaged.
    Broken,
    /// The same, and upstream sent it again when it was asked once more: that is what it has.
    StaysBroken,
    /// A kind of picture that is left alone, or one over a limit.
    LeftAlone,
    /// A codec panicked over it.
    Quarantined,
}

/// What was known of a picture when upstream was asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing that what is heard meanwhile could be told to, but for the flight itself.
    Nothing,
    /// A record.
    Before,
}

/// Source images and the records that name them.
pub struct Sources {
    records: Cache<RecordKey, Arc<Record>, Fast>,
    at_hand: AtHand,
    bodies: Cache<ContentHash, Arc<SourceImage>>,
    rejections: Cache<ContentHash, Rejection>,
    /// Moving pictures whose frames are too much, or damaged behind the first.
    stills: Cache<ContentHash, ()>,
    started: Instant,
    generations: Box<[Generation]>,
    all: Generation,
    slot_hasher: Fast,
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
                .eviction_listener({
                    let counted = listener(evicted.clone());
                    move |key, record: Arc<Record>, cause| {
                        record.goes();
                        counted(key, record, cause);
                    }
                })
                .build_with_hasher(Fast::default()),
            at_hand: AtHand::new(),
            bodies: Cache::builder()
                .max_capacity(settings.for_bodies())
                .weigher(|_, image: &Arc<SourceImage>| weight(size_of::<SourceImage>() + image.bytes.len()))
                .eviction_listener(listener(evicted))
                .build(),
            rejections: Cache::new(REJECTIONS),
            stills: Cache::new(REJECTIONS),
            started: Instant::now(),
            generations: (0..GENERATION_SLOTS).map(|_| Generation::default()).collect(),
            all: Generation::default(),
            slot_hasher: Fast::default(),
            max_entry: settings.max_entry,
        }
    }

    /// The name of `picture` as of now. To be taken before upstream is asked.
    #[must_use]
    pub fn key(&self, picture: PictureId) -> RecordKey {
        // Two counters that only ever grow: their sum changes whenever either does.
        let hash = self.hash(picture);
        let generation = self.slot_of(hash).count() + self.all.count();
        // Other bits than those that choose the slot.
        let place = u16::try_from((hash >> 32) & u64::from(u16::MAX)).expect("sixteen bits fit");
        RecordKey { picture, generation, place }
    }

    /// What is known of the picture under `key`.
    pub async fn record(&self, key: &RecordKey) -> Option<Arc<Record>> {
        if let Some(record) = self.at_hand.find(key) {
            return Some(record);
        }
        let record = self.records.get(key).await;
        match &record {
            Some(record) => self.at_hand.put(*key, record),
            None => self.at_hand.gone(key),
        }
        record
    }

    /// Keeps `record`, unless what is held under `key` answers a later question: an answer that was long on its way
    /// must not put an older picture back. What is held is returned.
    ///
    /// An answer about what was `known` takes its place and no other's: of a record that is gone since, nobody knows what
    /// was heard.
    pub async fn keep_record(&self, key: RecordKey, record: Arc<Record>, known: Known) -> Option<Arc<Record>> {
        let decide = |held: Option<moka::Entry<RecordKey, Arc<Record>>>| {
            let held = held.map(moka::Entry::into_value);
            let stays = match &held {
                Some(held) => held.is_newer_than(&record) || known == Known::Before && !held.is_heard_with(&record),
                None => known == Known::Before,
            };
            if let (false, Some(held)) = (stays, &held) {
                held.goes();
            }
            std::future::ready(if stays { Op::Nop } else { Op::Put(record.clone()) })
        };
        let held = match self.records.entry(key).and_compute_with(decide).await {
            CompResult::Inserted(held) | CompResult::ReplacedWith(held) | CompResult::Unchanged(held) => {
                held.into_value()
            }
            CompResult::StillNone(_) | CompResult::Removed(_) => return None,
        };
        self.at_hand.put(key, &held);
        Some(held)
    }

    /// Lets go of what is kept under `key`, whose bytes are gone.
    pub async fn let_go(&self, key: &RecordKey) {
        self.records.invalidate(key).await;
        self.at_hand.gone(key);
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

    /// Remembers that upstream has nothing better than the body of that name. Of an empty one nothing is remembered: it says
    /// nothing of whose it is, and every picture is empty for a moment while it changes.
    pub async fn stays_broken(&self, hash: ContentHash) {
        if hash != ContentHash::of(b"") {
            self.reject(hash, Rejection::StaysBroken).await;
        }
    }

    /// Whether the frames of the body of that name are not to be rendered, whatever their size.
    pub async fn is_too_much_to_move(&self, hash: &ContentHash) -> bool {
        self.stills.get(hash).await.is_some()
    }

    /// Remembers that the frames of the body of that name are not to be rendered.
    pub async fn is_not_to_move(&self, hash: ContentHash) {
        self.stills.insert(hash, ()).await;
    }

    /// Forgets what is known of `picture`. The pixels stay under their hash: a new picture has a new one.
    pub fn forget(&self, picture: PictureId) {
        self.slot(picture).end(self.started.elapsed());
    }

    /// Forgets what is known of every picture, when it cannot be told which one changed.
    pub fn forget_all(&self) {
        self.all.end(self.started.elapsed());
    }

    /// Whether `picture` was, or may have been, forgotten at or after `sent`.
    #[must_use]
    pub fn changed_since(&self, picture: PictureId, sent: Instant) -> bool {
        let sent = sent.saturating_duration_since(self.started);
        self.slot(picture).ended_since(sent) || self.all.ended_since(sent)
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

    fn slot(&self, picture: PictureId) -> &Generation {
        self.slot_of(self.hash(picture))
    }

    /// Not of the site: a server that is reached under two names has one picture for both.
    fn hash(&self, picture: PictureId) -> u64 {
        self.slot_hasher.hash_one((picture.kind, picture.object))
    }

    fn slot_of(&self, hash: u64) -> &Generation {
        // The low bits of a keyed hash: nobody outside can aim a write at another picture's slot.
        let slot = usize::try_from(hash & (GENERATION_SLOTS as u64 - 1)).expect("twelve bits fit");
        &self.generations[slot]
    }
}

/// Counts how often something was forgotten, and tells when it was last.
#[derive(Default)]
struct Generation {
    count: AtomicU64,
    /// Nanoseconds since the start, and one.
    last: AtomicU64,
}

impl Generation {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    fn end(&self, now: Duration) {
        self.last.fetch_max(nanos(now) + 1, Ordering::AcqRel);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn ended_since(&self, then: Duration) -> bool {
        self.last.load(Ordering::Acquire) > nanos(then)
    }
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1)
}

impl Record {
    /// The map holds it no more: there was no room, or another took its place. What is heard of the picture from now on does
    /// not reach it.
    fn goes(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the map holds it no more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether both are told the same news.
    fn is_heard_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.version.hearsay(), other.version.hearsay())
    }

    /// Whether it answers a later question than `other`.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.version.sent() > other.version.sent()
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.validator.as_ref().map_or(0, |validator| validator.as_bytes().len())
            + self.lifetime.len()
            + self.vary.len()
            + size_of::<Hearsay>()
            + Shortcuts::bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ObjectId, PictureKind, Site};
    use crate::source::SourceFormat;

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
        answer(stamp, &Question::put(Arc::default(), Instant::now()))
    }

    fn answer(stamp: &str, question: &Question) -> Arc<Record> {
        let validator = Validator::new(stamp.as_bytes());
        Arc::new(Record {
            version: question.answered(validator.as_ref()),
            validator,
            source: ContentHash::of(stamp.as_bytes()),
            info: info(),
            source_len: 1,
            lifetime: Bytes::new(),
            vary: Bytes::new(),
            shortcuts: Shortcuts::default(),
            gone: AtomicBool::new(false),
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
        sources.keep_record(begun, record("1"), Known::Nothing).await;
        assert!(sources.record(&sources.key(picture(1))).await.is_none());
    }

    #[actix_web::test]
    async fn forgetting_one_picture_leaves_the_others_and_forgetting_all_leaves_none() {
        let sources = sources(1 << 20);
        let other = (2..=255)
            .map(picture)
            .find(|other| !std::ptr::eq(sources.slot(*other), sources.slot(picture(1))))
            .expect("another slot");
        let begun = Instant::now();
        for each in [picture(1), other] {
            sources.keep_record(sources.key(each), record("1"), Known::Nothing).await;
        }
        sources.forget(picture(1));
        assert!(sources.record(&sources.key(picture(1))).await.is_none());
        assert!(sources.record(&sources.key(other)).await.is_some());
        assert!(sources.changed_since(picture(1), begun) && !sources.changed_since(other, begun));
        sources.forget_all();
        assert!(sources.changed_since(other, begun) && !sources.changed_since(other, Instant::now()));
        assert!(sources.record(&sources.key(other)).await.is_none());
    }

    #[actix_web::test]
    async fn an_answer_that_was_long_on_its_way_does_not_put_an_older_picture_back() {
        let sources = sources(1 << 20);
        let key = sources.key(picture(1));
        let (early, heard) = (Instant::now(), Arc::<Hearsay>::default());
        let [first, second] = [0, 1].map(|after| Question::put(heard.clone(), early + Duration::from_secs(after)));
        sources.keep_record(key, answer("200", &second), Known::Nothing).await;
        sources.keep_record(key, answer("100", &first), Known::Before).await;
        let kept = sources.record(&key).await.expect("kept");
        assert_eq!(kept.validator.as_ref().and_then(Validator::stamp), Some(200));
        // About a record that is gone, nobody knows what was heard since.
        let unheard = Question::put(Arc::default(), early + Duration::from_secs(5));
        sources.keep_record(key, answer("300", &unheard), Known::Before).await;
        let kept = sources.record(&key).await.expect("kept");
        assert_eq!(kept.validator.as_ref().and_then(Validator::stamp), Some(200));
        // Asked later, upstream's word counts, whatever stamp it gives.
        let third = Question::put(heard, early + Duration::from_secs(2));
        sources.keep_record(key, answer("100", &third), Known::Before).await;
        let kept = sources.record(&key).await.expect("kept");
        assert_eq!(kept.validator.as_ref().and_then(Validator::stamp), Some(100));
    }

    #[test]
    fn a_newer_version_that_was_heard_of_ends_freshness_until_upstream_asked_afterwards_has_answered() {
        let (heard, now) = (Arc::<Hearsay>::default(), Instant::now());
        let asked_before = Question::put(heard.clone(), now);
        let version = asked_before.answered(Validator::new(b"-100").as_ref());
        for (stamp, current) in [(0, true), (-99, true), (100, true), (-100, true), (101, false)] {
            heard.hear(stamp);
            assert_eq!(version.is_current(), current, "{stamp}");
        }
        version.confirm(&asked_before);
        assert!(!version.is_current());
        let asked_after = Question::put(heard.clone(), now);
        heard.hear(102);
        version.confirm(&asked_after);
        assert!(!version.is_current(), "102 was heard after the question was put");
        version.confirm(&Question::put(heard.clone(), now));
        assert!(version.is_current());
        // An absurd stamp costs one question, however often it is heard.
        heard.hear(i64::MIN);
        assert!(!version.is_current());
        let settled = Question::put(heard.clone(), now).answered(Validator::new(b"103").as_ref());
        heard.hear(i64::MIN);
        assert!(settled.is_current());
        // And it drowns nothing that is heard with it or later.
        heard.hear(104);
        assert!(!settled.is_current());
        heard.hear(i64::MAX);
        let asked = Question::put(heard.clone(), now);
        heard.hear(105);
        assert!(!asked.answered(Validator::new(b"104").as_ref()).is_current());
        assert!(Question::put(heard, now).answered(Validator::new(b"105").as_ref()).is_current());
    }

    #[actix_web::test]
    async fn what_there_is_no_room_for_is_found_no_more() {
        // Room for a few records.
        let sources = sources(32 << 10);
        for n in 0..50 {
            let key = sources.key(picture(n));
            sources.keep_record(key, record("1"), Known::Nothing).await;
            assert!(n > 0 || sources.record(&key).await.is_some());
        }
        sources.tidy().await;
        let mut found = 0;
        for n in 0..50 {
            let key = sources.key(picture(n));
            let record = sources.record(&key).await;
            assert_eq!(record.is_some(), sources.records.contains_key(&key), "{n}: no change would be heard of");
            found += usize::from(record.is_some());
        }
        assert!((1..50).contains(&found), "{found}");
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
        assert!(usage.weight <= 384 << 10, "{usage:?}");
        assert!(usage.entries > 8, "{usage:?}");
        assert!(sources.body(&huge.hash).await.is_none());
    }
}
