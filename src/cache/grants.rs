//! Grants: upstream has said, to this very caller, that this picture may be seen, and when it was asked. A table of
//! fixed size, and the epochs that end grants before their time.
//!
//! A grant starts when the request that proves it was *sent*, never slides, and carries permission only. It is found
//! only while every epoch that concerns it stands where it stood at that moment.

use crate::caller::{Caller, PLACES};
use crate::identity::PictureId;
use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A grant's words: two of its name, when its request was sent, and the sum of the epochs then.
const WORDS: usize = 4;
/// Grants that share a set: a new one takes the place of the oldest.
const WAYS: usize = 8;
/// Sets that share a lock do so by their lowest bits.
const LOCKS: usize = 256;
/// Refusals of a pair are counted by a part of its name.
const REFUSALS: usize = 4096;

/// Callers that are remembered as known to upstream.
const KNOWN: usize = 1 << 16;

/// The bytes that one grant takes.
pub const GRANT_BYTES: usize = WORDS * size_of::<u64>();

/// How long a grant lasts and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From the moment that the request which proved it was sent.
    pub ttl: Duration,
    /// Bytes that all grants may take.
    pub memory: u64,
}

/// What upstream said, by caller and picture.
pub struct Grants {
    ttl: Duration,
    /// `SipHash`, keyed by the system.
    pictures: RandomState,
    started: Instant,
    /// Untouched pages of it cost nothing.
    table: Vec<AtomicU64>,
    sets: usize,
    locks: Box<[Mutex<()>]>,
    site_epoch: AtomicU64,
    caller_epochs: Vec<AtomicU32>,
    caller_refusals: Vec<AtomicU32>,
    pair_refusals: Vec<AtomicU32>,
    known: Vec<AtomicU64>,
}

/// A grant's name: the keyed hashes of caller and picture, one over the other; its first word chooses the set. Both are
/// of 128 bits under keys that nobody outside has, so two pairs have one name no sooner than two random numbers are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Name([u64; 2]);

/// How things stood when a request was sent upstream: what its answer may prove later on.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    at: Instant,
    epochs: u64,
    refusals: u32,
}

impl Asked {
    /// When the request was sent.
    #[must_use]
    pub const fn at(&self) -> Instant {
        self.at
    }
}

/// [`Asked`] about one picture.
#[derive(Clone, Copy, Debug)]
pub struct AskedFor {
    asked: Asked,
    name: Name,
    refusals: u32,
}

impl Grants {
    /// An empty table.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let grants = usize::try_from(settings.memory).unwrap_or(usize::MAX) / GRANT_BYTES;
        let sets = (grants / WAYS).max(1);
        Self {
            ttl: settings.ttl,
            pictures: RandomState::new(),
            started: Instant::now(),
            table: bytemuck::allocation::zeroed_vec(sets * WAYS * WORDS),
            sets,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            site_epoch: AtomicU64::new(0),
            caller_epochs: bytemuck::allocation::zeroed_vec(PLACES),
            caller_refusals: bytemuck::allocation::zeroed_vec(PLACES),
            pair_refusals: bytemuck::allocation::zeroed_vec(REFUSALS),
            known: bytemuck::allocation::zeroed_vec(KNOWN),
        }
    }

    /// When upstream was asked for what lets `caller` see `picture` now; `None` when it has to be asked.
    #[must_use]
    pub fn covers(&self, caller: &Caller, picture: PictureId, now: Instant) -> Option<Instant> {
        let name = self.name(caller, picture);
        let epochs = self.epochs(caller);
        let (set, _held) = self.set(name);
        let grant = set.chunks_exact(WORDS).find(|grant| is_named(grant, name))?;
        let (asked_at, granted_under) = (load(&grant[2]), load(&grant[3]));
        let at = self.started + Duration::from_nanos(asked_at - 1);
        (granted_under == epochs && now.saturating_duration_since(at) < self.ttl).then_some(at)
    }

    /// To be taken when a request of `caller` is about to be sent upstream at `now`.
    #[must_use]
    pub fn asking(&self, caller: &Caller, now: Instant) -> Asked {
        Asked { at: now, epochs: self.epochs(caller), refusals: load32(self.refusals_of_caller(caller)) }
    }

    /// [`Grants::asking`] for one picture.
    #[must_use]
    pub fn asking_for(&self, caller: &Caller, picture: PictureId, now: Instant) -> AskedFor {
        let name = self.name(caller, picture);
        AskedFor { asked: self.asking(caller, now), name, refusals: load32(self.refusals_of_pair(name)) }
    }

    /// Upstream answered the request with the picture, or with 304: it may be seen.
    pub fn allow(&self, caller: &Caller, asked: &AskedFor) {
        self.meet(caller, &asked.asked);
        let (set, _held) = self.set(asked.name);
        // Under the lock of the pair: a refusal either has been counted or will find what is put down here.
        if load32(self.refusals_of_pair(asked.name)) == asked.refusals {
            self.put(set, asked.name, &asked.asked, Room::Made);
        }
    }

    /// Upstream told the caller of the picture's owner in full: the picture may be seen. Not if it refused this caller
    /// any picture meanwhile: which of the two it said later is not known.
    ///
    /// It takes a free place or none: a list that nobody looks at must not push out what somebody was shown.
    pub fn learn(&self, caller: &Caller, picture: PictureId, asked: &Asked) {
        self.meet(caller, asked);
        let name = self.name(caller, picture);
        let (set, _held) = self.set(name);
        if load32(self.refusals_of_caller(caller)) == asked.refusals {
            self.put(set, name, asked, Room::Free);
        }
    }

    /// Upstream refused the caller this picture: 403 or 404.
    pub fn refuse(&self, caller: &Caller, picture: PictureId) {
        let name = self.name(caller, picture);
        let (set, _held) = self.set(name);
        self.refusals_of_pair(name).fetch_add(1, Ordering::AcqRel);
        self.refusals_of_caller(caller).fetch_add(1, Ordering::AcqRel);
        if let Some(grant) = set.chunks_exact(WORDS).find(|grant| is_named(grant, name)) {
            for word in grant {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Upstream does not know these credentials: 401. What they were granted ends.
    pub fn end_caller(&self, caller: &Caller) {
        self.bump(caller.places()[0]);
        self.known(caller).store(0, Ordering::Relaxed);
    }

    /// A session was ended: every set that holds one of the tokens of these places loses its grants.
    pub fn end_tokens(&self, places: &[u32]) {
        for place in places {
            self.bump(*place);
        }
    }

    /// Whether upstream has answered this caller as somebody it knows, within the time of a grant.
    #[must_use]
    pub fn knows(&self, caller: &Caller, now: Instant) -> bool {
        let known = load(self.known(caller));
        let since = self.started + Duration::from_secs(known & u64::from(u32::MAX));
        known >> 32 == fingerprint(caller) && now.saturating_duration_since(since) < self.ttl
    }

    /// Somebody's right or session may have ended, whoever's: all grants end.
    pub fn end_all(&self) {
        self.site_epoch.fetch_add(1, Ordering::AcqRel);
    }

    fn bump(&self, place: u32) {
        at(&self.caller_epochs, place).fetch_add(1, Ordering::AcqRel);
    }

    fn known(&self, caller: &Caller) -> &AtomicU64 {
        &self.known[usize::try_from(caller.places()[0]).expect("twenty bits fit") % KNOWN]
    }

    /// Takes down that upstream knows the caller: a fingerprint, and the second of the question.
    fn meet(&self, caller: &Caller, asked: &Asked) {
        let second = asked.at.saturating_duration_since(self.started).as_secs() & u64::from(u32::MAX);
        self.known(caller).store(fingerprint(caller) << 32 | second, Ordering::Relaxed);
    }

    /// Counters that only ever grow: their sum changes whenever one of them does.
    fn epochs(&self, caller: &Caller) -> u64 {
        let own = |place: u32| u64::from(load32(at(&self.caller_epochs, place)));
        caller.places().into_iter().map(own).sum::<u64>() + self.site_epoch.load(Ordering::Acquire)
    }

    /// The site is in the caller's digest.
    fn name(&self, caller: &Caller, picture: PictureId) -> Name {
        let word = |n: u8| {
            let at = 8 * usize::from(n);
            let caller = caller.digest()[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(caller) ^ self.pictures.hash_one((n, picture.kind, picture.object))
        };
        // Zero is what an empty place holds.
        Name([word(0), word(1).max(1)])
    }

    fn set(&self, name: Name) -> (&[AtomicU64], MutexGuard<'_, ()>) {
        let scaled = (u128::from(name.0[0]) * self.sets as u128) >> 64;
        let set = usize::try_from(scaled).expect("below the number of sets");
        let held = self.locks[set % LOCKS].lock().unwrap_or_else(PoisonError::into_inner);
        (&self.table[set * WAYS * WORDS..(set + 1) * WAYS * WORDS], held)
    }

    fn refusals_of_caller(&self, caller: &Caller) -> &AtomicU32 {
        at(&self.caller_refusals, caller.places()[0])
    }

    fn refusals_of_pair(&self, name: Name) -> &AtomicU32 {
        &self.pair_refusals[usize::try_from(name.0[1] % REFUSALS as u64).expect("below the number of places")]
    }

    fn put(&self, set: &[AtomicU64], name: Name, asked: &Asked, room: Room) {
        let nanos = asked.at.saturating_duration_since(self.started).as_nanos();
        let asked_at = u64::try_from(nanos).unwrap_or(u64::MAX - 1) + 1;
        let own = set.chunks_exact(WORDS).find(|grant| is_named(grant, name));
        if own.is_some_and(|own| load(&own[2]) > asked_at) {
            return;
        }
        // An empty place was sent at 0, and the oldest is the nearest to its end.
        let place = own.or_else(|| set.chunks_exact(WORDS).min_by_key(|grant| load(&grant[2])));
        let place = place.expect("a set has places");
        let ends = Duration::from_nanos(load(&place[2])).saturating_add(self.ttl);
        let is_free = own.is_some() || load(&place[2]) == 0 || ends <= Duration::from_nanos(asked_at);
        if room == Room::Free && !is_free {
            return;
        }
        for (word, value) in place.iter().zip([name.0[0], name.0[1], asked_at, asked.epochs]) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

fn is_named(grant: &[AtomicU64], name: Name) -> bool {
    load(&grant[1]) == name.0[1] && load(&grant[0]) == name.0[0]
}

/// Where a grant may go when its set is full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// In the place of the oldest.
    Made,
    /// Nowhere, unless one is over.
    Free,
}

fn at(counters: &[AtomicU32], place: u32) -> &AtomicU32 {
    &counters[usize::try_from(place).expect("twenty bits fit")]
}

fn fingerprint(caller: &Caller) -> u64 {
    u64::from(u32::from_le_bytes(caller.digest()[8..12].try_into().expect("four bytes")))
}

/// The table's words are read and written under their set's lock, which orders them.
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

fn load32(word: &AtomicU32) -> u32 {
    word.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{CallerKey, Credentials};
    use crate::identity::{ObjectId, PictureKind, Site};

    const TTL: Duration = Duration::from_secs(30);

    struct Stage {
        grants: Grants,
        key: CallerKey,
        start: Instant,
    }

    impl Stage {
        fn new(memory: u64) -> Self {
            let grants = Grants::new(Settings { ttl: TTL, memory });
            let start = grants.started;
            Self { grants, key: CallerKey::draw().expect("random numbers"), start }
        }

        fn caller(&self, fields: &[(&str, String)]) -> Caller {
            let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
            Credentials::of(fields).caller(&self.key, b"chat.example").expect("a caller")
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn sees(&self, caller: &Caller, n: u32, seconds: u64) -> bool {
            self.grants.covers(caller, picture(n), self.at(seconds)).is_some()
        }

        fn allow(&self, caller: &Caller, n: u32, seconds: u64) {
            self.grants.allow(caller, &self.grants.asking_for(caller, picture(n), self.at(seconds)));
        }
    }

    fn token(n: u32) -> String {
        format!("{n:026}")
    }

    fn cookie(n: u32) -> (&'static str, String) {
        ("cookie", format!("MMAUTHTOKEN={}", token(n)))
    }

    fn bearer(n: u32) -> (&'static str, String) {
        ("authorization", format!("Bearer {}", token(n)))
    }

    fn picture(n: u32) -> PictureId {
        let object = ObjectId::parse(token(n).as_bytes()).expect("26 digits");
        PictureId { site: Site::of(b"chat.example"), kind: PictureKind::User, object }
    }

    #[test]
    fn a_grant_is_for_one_caller_one_picture_and_one_kind_and_never_slides() {
        let stage = Stage::new(1 << 20);
        let (alice, bob) = (stage.caller(&[cookie(1)]), stage.caller(&[cookie(2)]));
        stage.allow(&alice, 7, 10);
        assert_eq!(stage.grants.covers(&alice, picture(7), stage.at(20)), Some(stage.at(10)));
        assert!(stage.sees(&alice, 7, 39) && !stage.sees(&alice, 7, 40));
        assert!(!stage.sees(&bob, 7, 10) && !stage.sees(&alice, 8, 10));
        let team = PictureId { kind: PictureKind::Team, ..picture(7) };
        assert!(stage.grants.covers(&alice, team, stage.at(10)).is_none());
        // An answer that arrives late proves no more than it did when it was asked for.
        stage.allow(&alice, 7, 5);
        assert_eq!(stage.grants.covers(&alice, picture(7), stage.at(20)), Some(stage.at(10)));
        stage.allow(&alice, 7, 30);
        assert!(stage.sees(&alice, 7, 59));
    }

    #[test]
    fn a_401_ends_the_set_a_403_the_pair_a_logout_the_token_and_a_lost_right_all() {
        let stage = Stage::new(1 << 20);
        let (alone, beside) = (stage.caller(&[cookie(1)]), stage.caller(&[cookie(1), bearer(2)]));
        let (by_header, stranger) = (stage.caller(&[bearer(1)]), stage.caller(&[cookie(3)]));
        let everybody = [alone, beside, by_header, stranger];
        let ends = |end: &dyn Fn(), left: [bool; 4]| {
            for caller in &everybody {
                stage.allow(caller, 7, 0);
            }
            stage.allow(&alone, 8, 0);
            end();
            assert_eq!(everybody.map(|caller| stage.sees(&caller, 7, 1)), left);
        };
        ends(&|| stage.grants.end_caller(&alone), [false, true, true, true]);
        assert!(!stage.sees(&alone, 8, 1));
        ends(&|| stage.grants.refuse(&alone, picture(7)), [false, true, true, true]);
        assert!(stage.sees(&alone, 8, 1));
        ends(&|| stage.grants.end_tokens(&alone.places()), [false, false, false, true]);
        ends(&|| stage.grants.end_tokens(&beside.places()), [false, false, false, true]);
        ends(&|| stage.grants.end_all(), [false; 4]);
    }

    #[test]
    fn what_ended_while_the_question_was_under_way_is_not_granted_by_its_answer() {
        let stage = Stage::new(1 << 20);
        let alice = stage.caller(&[cookie(1)]);
        let ends: [&dyn Fn(); 4] = [
            &|| stage.grants.end_caller(&alice),
            &|| stage.grants.end_tokens(&alice.places()),
            &|| stage.grants.end_all(),
            &|| stage.grants.refuse(&alice, picture(7)),
        ];
        for end in ends {
            let (asked, listed) =
                (stage.grants.asking_for(&alice, picture(7), stage.at(0)), stage.grants.asking(&alice, stage.at(0)));
            end();
            stage.grants.allow(&alice, &asked);
            stage.grants.learn(&alice, picture(7), &listed);
            assert!(!stage.sees(&alice, 7, 1));
        }
        stage.grants.learn(&alice, picture(7), &stage.grants.asking(&alice, stage.at(1)));
        assert!(stage.sees(&alice, 7, 1));
    }

    #[test]
    fn f48_the_table_is_as_large_as_it_was_said_to_be_and_lets_the_oldest_go() {
        let memory = 64 << 10;
        let stage = Stage::new(memory);
        let callers = (0..4).map(|n| stage.caller(&[cookie(n)])).collect::<Vec<_>>();
        let places = u32::try_from(memory / GRANT_BYTES as u64).expect("few");
        assert_eq!(stage.grants.table.len() * size_of::<u64>(), usize::try_from(memory).expect("few"));
        for second in 0..10 * places / 4 {
            for caller in &callers {
                let asked = stage.grants.asking_for(caller, picture(second), stage.start + MILLI * second);
                stage.grants.allow(caller, &asked);
            }
        }
        let last = 10 * places / 4;
        let now = stage.start + MILLI * last;
        let held = |range: std::ops::Range<u32>| {
            let pairs = range.flat_map(|n| callers.iter().map(move |caller| (caller, n)));
            pairs.filter(|(caller, n)| stage.grants.covers(caller, picture(*n), now).is_some()).count()
        };
        assert_eq!(stage.grants.table.len() * size_of::<u64>(), usize::try_from(memory).expect("few"));
        let all = held(0..last);
        assert!(all > places as usize * 9 / 10 && all <= places as usize, "{all} of {places}");
        // Of the newest tenth of what fits, next to nothing was let go for something older.
        let newest = held(last - places / 40..last);
        assert!(newest > places as usize / 10 * 9 / 10, "{newest}");
    }

    #[test]
    fn a_list_pushes_nothing_out_that_is_not_over() {
        let stage = Stage::new(WAYS as u64 * GRANT_BYTES as u64);
        let (alice, flood) = (stage.caller(&[cookie(1)]), stage.caller(&[cookie(2)]));
        let list = |seconds| {
            let asked = stage.grants.asking(&flood, stage.at(seconds));
            (100..200).for_each(|n| stage.grants.learn(&flood, picture(n), &asked));
        };
        stage.allow(&alice, 7, 10);
        list(10);
        assert!(stage.sees(&alice, 7, 11));
        list(39);
        assert!(stage.sees(&alice, 7, 39));
        list(40);
        assert_eq!((100..200).filter(|n| stage.sees(&flood, *n, 40)).count(), WAYS);
    }

    #[test]
    fn upstream_knows_whom_it_has_answered_lately() {
        let stage = Stage::new(1 << 20);
        let (alice, stranger) = (stage.caller(&[cookie(1)]), stage.caller(&[cookie(2)]));
        assert!(!stage.grants.knows(&alice, stage.at(0)));
        stage.allow(&alice, 7, 10);
        assert!(stage.grants.knows(&alice, stage.at(39)) && !stage.grants.knows(&alice, stage.at(40)));
        assert!(!stage.grants.knows(&stranger, stage.at(10)));
    }

    const MILLI: Duration = Duration::from_millis(1);
}
