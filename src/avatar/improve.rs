//! Better variants, later: what is asked for again is encoded anew in idle time, and the smallest encoding that looks the
//! same takes the place of the first under a tag of its own.
//!
//! One thread works from what was asked for most, and has another encode it, which gives way to whoever wakes. That one stands still
//! while a render waits for a permit or has taken the last, or the process has more to do than leaves a quarter of its
//! cores idle, and it rests so long after each step that it keeps to its share of a core. It may be left without a core for
//! long, so it holds no lock: what others share is left to the first.

use super::Avatars;
use super::render_pool::{Background, RenderPool, step_back};
use crate::render::EncodeError;
use crate::source::{ContentHash, SourceImage};
use crate::telemetry::Improvement;
use crate::variant::{Encoded, Popularity, Recipe, Variant, VariantKey};
use bytes::Bytes;
use foldhash::quality::RandomState;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// How many variants may wait. Of more, those that were asked for most.
const WAITING_AT_MOST: usize = 256;

/// How long it looks away when there is no capacity to spare.
const LOOK_AWAY: Duration = Duration::from_millis(2);

/// The part of its cores that the rest of the process may use before nothing of them counts as idle.
const BUSY: f64 = 2.0 / 3.0;

/// Over how long that is measured.
const MEASURED: Duration = Duration::from_millis(100);

/// How variants are improved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How often a variant is asked for again before it is worth it.
    pub after_hits: u32,
    /// The share of one core that may be spent, above 0 and at most 1; at 1 it is spent however busy the others are.
    pub cpu_share: f64,
}

/// What waits to be improved.
pub(super) struct Improver {
    settings: Settings,
    waiting: Mutex<Waiting>,
    news: Notify,
    ends: AtomicBool,
}

type Waiting = HashMap<VariantKey, First, RandomState>;

/// A first answer, as long as somebody holds it.
enum First {
    Encoded(Weak<Encoded>),
    Source(Weak<Popularity>),
}

impl First {
    /// `None` for an answer that stays as it is.
    fn of(variant: &Variant) -> Option<Self> {
        match variant {
            Variant::Encoded(encoded) => Some(Self::Encoded(Arc::downgrade(encoded))),
            Variant::SourceForNow(popularity) => Some(Self::Source(Arc::downgrade(popularity))),
            Variant::SourceIsBest => None,
        }
    }

    fn held(&self) -> Option<Variant> {
        match self {
            Self::Encoded(encoded) => encoded.upgrade().map(Variant::Encoded),
            Self::Source(popularity) => popularity.upgrade().map(Variant::SourceForNow),
        }
    }
}

/// How often a first answer was asked for again.
fn times(first: &Variant) -> u32 {
    first.popularity().map_or(0, Popularity::times)
}

impl Improver {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, waiting: Mutex::default(), news: Notify::new(), ends: AtomicBool::new(false) }
    }

    /// A variant was asked for again.
    pub(super) fn asked_again(&self, source: ContentHash, recipe: Recipe, variant: &Variant) {
        let Some(times) = variant.popularity().and_then(Popularity::once_more) else { return };
        let beyond = times.checked_sub(self.settings.after_hits);
        // Now and then once more: it may have found no room, or made way.
        if beyond.is_some_and(|beyond| beyond == 0 || beyond.is_power_of_two()) {
            self.offer(VariantKey { source, recipe }, variant);
        }
    }

    fn offer(&self, key: VariantKey, variant: &Variant) {
        let Some(first) = First::of(variant) else { return };
        let mut waiting = self.lock();
        // It may have been taken up since it was counted, by whoever had the lock before.
        if variant.popularity().is_some_and(Popularity::is_settled) {
            return;
        }
        if waiting.len() >= WAITING_AT_MOST && !waiting.contains_key(&key) {
            let asked = |first: &First| first.held().as_ref().map_or(0, times);
            let least = waiting.iter().map(|(key, first)| (asked(first), *key)).min_by_key(|(times, _)| *times);
            match least {
                Some((least_times, least)) if least_times < times(variant) => _ = waiting.remove(&least),
                _ => return,
            }
        }
        waiting.insert(key, first);
        drop(waiting);
        self.news.notify_one();
    }

    /// Takes up what was asked for most, of what is still in memory: from now on nobody offers it again, so that the work is
    /// done once.
    pub(super) fn most_wanted(&self) -> Option<(VariantKey, Variant)> {
        let mut waiting = self.lock();
        waiting.retain(|_, first| first.held().is_some());
        let living = waiting.iter().filter_map(|(key, first)| Some((*key, first.held()?)));
        let (key, wanted) = living.max_by_key(|(_, first)| times(first))?;
        waiting.remove(&key);
        wanted.popularity().inspect(|popularity| popularity.settle());
        Some((key, wanted))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.ends.store(true, Ordering::Release);
        self.news.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }
}

/// How much the rest of the process has to do: a thread that steps back still takes what others have in their caches.
struct Load {
    cores: f64,
    /// When it was measured last, and what the others had spent by then.
    measured: Cell<(Instant, Duration)>,
    is_high: Cell<bool>,
}

impl Load {
    /// To be made and asked on the thread that improves.
    #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
    fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { cores: cores as f64, measured: (Instant::now(), others()).into(), is_high: Cell::default() }
    }

    fn is_high(&self) -> bool {
        let (since, before) = self.measured.get();
        let elapsed = since.elapsed();
        if elapsed >= MEASURED {
            let spent = others();
            self.is_high.set(is_busy(elapsed, spent.saturating_sub(before), self.cores));
            self.measured.set((Instant::now(), spent));
        }
        self.is_high.get()
    }
}

/// Whether others who have spent so much processor time since then leave nothing idle. What was measured over a long time says
/// nothing of now, and passes for busy until it has been measured again.
fn is_busy(elapsed: Duration, spent: Duration, cores: f64) -> bool {
    elapsed >= 3 * MEASURED || spent.as_secs_f64() > BUSY * cores * elapsed.as_secs_f64()
}

/// The processor time that all other threads have spent so far.
fn others() -> Duration {
    let spent = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    spent(ClockId::ProcessCPUTime).saturating_sub(spent(ClockId::ThreadCPUTime))
}

/// The pace of the thread: between two steps it waits for idle capacity, and rests for what the last step took.
struct Pace<'a> {
    improver: &'a Improver,
    pool: &'a RenderPool,
    load: &'a Load,
    /// When the step that is being made began.
    since: Cell<Instant>,
}

impl<'a> Pace<'a> {
    fn of(improver: &'a Improver, pool: &'a RenderPool, load: &'a Load) -> Self {
        Self { improver, pool, load, since: Instant::now().into() }
    }

    /// A step is over; whether there may be another, as soon as this returns.
    fn go_on(&self) -> bool {
        let took = self.since.get().elapsed();
        // By the clock on the wall and not by that of the thread: whoever is kept waiting for a core rests longer, too.
        let rest = took.mul_f64(1.0 / self.improver.settings.cpu_share - 1.0);
        let rested = Instant::now() + rest;
        loop {
            if self.improver.has_ended() {
                return false;
            }
            let left = rested.saturating_duration_since(Instant::now());
            // Who gives it a whole core does not ask what the others do.
            let is_busy = self.improver.settings.cpu_share < 1.0 && self.load.is_high();
            if left.is_zero() && !is_busy && !self.pool.is_pressed() {
                self.since.set(Instant::now());
                return true;
            }
            let shortest = if is_busy { MEASURED / 2 } else { LOOK_AWAY };
            std::thread::sleep(left.clamp(shortest, MEASURED / 2));
        }
    }
}

/// The thread that improves. It is told to end when this is dropped, and ends after the encoding that it is at; whoever
/// stops does not wait for that.
pub struct Improving(Arc<Avatars>);

impl Improving {
    /// Begins, if variants are improved at all.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn begin(avatars: Arc<Avatars>) -> std::io::Result<Self> {
        if avatars.improver.is_none() {
            return Ok(Self(avatars));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (work, orders) = mpsc::channel();
        let (improves, encodes) = (avatars.clone(), avatars.clone());
        std::thread::Builder::new().name("improvements".to_owned()).spawn(move || {
            step_back(Background::Improvement);
            runtime.block_on(improves.improve(&work));
        })?;
        std::thread::Builder::new().name("improver".to_owned()).spawn(move || {
            step_back(Background::Encoder);
            encodes.encode_better(orders);
        })?;
        Ok(Self(avatars))
    }
}

impl Drop for Improving {
    fn drop(&mut self) {
        if let Some(improver) = &self.0.improver {
            improver.end();
        }
    }
}

/// A picture that is to be encoded anew.
struct Order {
    source: Arc<SourceImage>,
    recipe: Recipe,
    /// Where the outcome is waited for: `None` when a codec refused. Dropped when it was broken off.
    outcome: oneshot::Sender<Option<Variant>>,
}

impl Avatars {
    async fn improve(&self, work: &mpsc::Sender<Order>) {
        let Some(improver) = &self.improver else { return };
        while !improver.has_ended() {
            let Some((key, first)) = improver.most_wanted() else {
                improver.news.notified().await;
                continue;
            };
            if let Some(outcome) = self.improve_one(key, &first, work).await {
                self.telemetry.improved(outcome);
            }
        }
    }

    /// Encodes what is ordered, each at the pace that idle capacity allows, until that is to end.
    fn encode_better(&self, orders: mpsc::Receiver<Order>) {
        let Some(improver) = &self.improver else { return };
        let load = Load::begin();
        let (codecs, limits, targets) = (self.codecs, &self.settings.limits, &self.settings.targets);
        for Order { source, recipe, outcome } in orders {
            // Each has its own: waiting for an order is no step to rest for.
            let pace = Pace::of(improver, &self.pool, &load);
            // What is idle now is known only after the wait.
            if !pace.go_on() {
                return;
            }
            let found = catch_unwind(AssertUnwindSafe(|| {
                let pixels = (codecs.decode)(&source.bytes, limits).map_err(|error| EncodeError(error.to_string()))?;
                if !pace.go_on() {
                    return Ok(None);
                }
                (codecs.improve)(&pixels, &recipe, targets, source.bytes.len(), &|| pace.go_on())
            }));
            let better = match found {
                Ok(Ok(Some(better))) => Some(better),
                Ok(Ok(None)) => continue,
                // A codec that panics over it here has let its first answer pass: that goes on as it is.
                Ok(Err(_)) | Err(_) => None,
            };
            // Whoever ordered it may be gone.
            _ = outcome.send(better);
            pace.go_on();
        }
    }

    /// Looks for a smaller encoding in the place of `first`; `None` when it was broken off.
    async fn improve_one(&self, key: VariantKey, first: &Variant, work: &mpsc::Sender<Order>) -> Option<Improvement> {
        let Some(source) = self.sources.body(&key.source).await else {
            // It may come back. Of all other ends there is no second try, as long as this is in memory.
            first.popularity().inspect(|popularity| popularity.unsettle());
            return Some(Improvement::SourceGone);
        };
        let (outcome, found) = oneshot::channel();
        work.send(Order { source: source.clone(), recipe: key.recipe, outcome }).ok()?;
        let Some(better) = found.await.ok()? else { return Some(Improvement::Failed) };
        better.popularity().inspect(|popularity| popularity.settle());
        let (before, after) = (sent(first, &source), sent(&better, &source));
        if before == after {
            return Some(Improvement::Kept);
        }
        let saved = before.len().saturating_sub(after.len());
        if !self.variants.replace(key, first, better).await {
            return Some(Improvement::VariantGone);
        }
        self.telemetry.improvement_saved(saved as u64);
        Some(Improvement::Replaced)
    }
}

/// The bytes that go out for a variant.
fn sent<'a>(variant: &'a Variant, source: &'a SourceImage) -> &'a Bytes {
    match variant {
        Variant::Encoded(encoded) => &encoded.bytes,
        Variant::SourceForNow(_) | Variant::SourceIsBest => &source.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn what_counts_as_busy() {
        for (elapsed, spent, cores, busy) in [
            (100, 0, 1.0, false),
            (100, 66, 1.0, false),
            (100, 67, 1.0, true),
            (100, 100, 2.0, false),
            (100, 134, 2.0, true),
            (290, 190, 1.0, false),
            (300, 0, 1.0, true),
            (3_600_000, 0, 8.0, true),
        ] {
            let [elapsed, spent] = [elapsed, spent].map(Duration::from_millis);
            assert_eq!(is_busy(elapsed, spent, cores), busy, "{elapsed:?} {spent:?} {cores}");
        }
    }

    #[test]
    fn what_a_thread_does_itself_is_not_counted() {
        std::thread::spawn(|| {
            let own = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
            let all = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("a time");
            while own() < Duration::from_millis(20) {
                black_box(0);
            }
            assert!(others() + Duration::from_millis(20) <= all());
        })
        .join()
        .expect("no panic");
    }
}
