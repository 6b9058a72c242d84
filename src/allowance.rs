//! The budgets of misses: how many upstream picture requests and renders one token and one client address
//! may cause, in tables of a fixed size that no flood of made-up tokens makes larger.
//!
//! Each budget is a leaky bucket in the form of GCRA (ITU-T I.371, annex A): all that is kept of a payer is the instant
//! at which its budget will be full again, and whoever is not kept has a full one.

mod holds;

pub use holds::Holds;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Locks per table, each held for some tens of nanoseconds.
const SHARDS: usize = 8;
/// Sets per shard.
const SETS: usize = 1024;
/// Payers per set. With these, a table is 1 MiB and keeps 65,536 of them.
const WAYS: usize = 8;
/// Sets per table, for hashes.
const PLACES: u64 = (SHARDS * SETS) as u64;

/// So many at once, and then so many in each such time: `600/60s` is a burst of 600, then 10 a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 counts as 1.
    pub count: u32,
    /// The time. The pace is kept in whole nanoseconds, rounded to the slower side; a time of zero never refuses.
    pub per: Duration,
}

/// The budgets; `None` is no limit, and no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of one token.
    pub caller: Option<Rate>,
    /// Of one client address.
    pub address: Option<Rate>,
}

/// Who pays, as [`Allowances::payer`] names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payer {
    /// The token's name.
    pub token: u64,
    /// The address's name; `None` where it is not known, and no budget is drawn on.
    pub address: Option<u64>,
}

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The token's.
    Caller,
    /// The client address's.
    Address,
}

/// A budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the budget is spent for {retry_after:?}")]
pub struct Exhausted {
    /// When the same would be allowed, if nobody else spends meanwhile.
    pub retry_after: Duration,
    /// Which of both; when both are spent, the one that takes longer.
    pub whose: Whose,
}

/// The budgets of everybody.
pub struct Allowances {
    callers: Option<Table>,
    addresses: Option<Table>,
    // A keyed hash (SipHash, whose 128 bits the system draws at start) is good enough here: its values never leave the
    // process, so nobody can aim at the set or the name of somebody else, and two payers who share a name by chance
    // (one in 2^64 for each pair) only share a budget. It tells no token, either.
    token_names: RandomState,
    address_names: RandomState,
    /// The first instant that was heard of: the tables count from it.
    origin: OnceLock<Instant>,
}

impl Allowances {
    /// Full budgets for everybody.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            callers: settings.caller.map(Table::new),
            addresses: settings.address.map(Table::new),
            token_names: RandomState::new(),
            address_names: RandomState::new(),
            origin: OnceLock::new(),
        }
    }

    /// The names under which `token`, the one that upstream will look at, and the client's `address` pay. All of an
    /// IPv6 /64 is one address, because a client may take any of it; so is an IPv4 address and its form in IPv6.
    #[must_use]
    pub fn payer(&self, token: &[u8], address: Option<IpAddr>) -> Payer {
        let address = address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => self.address_names.hash_one(&address.octets()[..]),
            IpAddr::V6(address) => self.address_names.hash_one(&address.octets()[..8]),
        });
        // Who shows no token goes by the address: a budget of all of them together could be spent by any of them.
        let own = || self.token_names.hash_one(token);
        let token = if token.is_empty() { address.unwrap_or_else(own) } else { own() };
        Payer { token, address }
    }

    /// One upstream picture request, or one render. Both budgets have to allow it, and then both pay.
    ///
    /// # Errors
    /// A budget is spent; the refusal costs nothing of either.
    pub fn spend(&self, payer: Payer, now: Instant) -> Result<(), Exhausted> {
        let now = nanoseconds(now.saturating_duration_since(*self.origin.get_or_init(|| now)));
        // Always in this order, so that no two threads wait for each other, and both before either pays.
        let mut caller = self.callers.as_ref().map(|table| table.account(payer.token));
        let mut address = self.addresses.as_ref().zip(payer.address).map(|(table, address)| table.account(address));
        let refusal = |account: &Option<Account>, whose| {
            let retry_after = account.as_ref()?.wait(now)?;
            Some(Exhausted { retry_after, whose })
        };
        let refusals = [refusal(&caller, Whose::Caller), refusal(&address, Whose::Address)];
        if let Some(exhausted) = refusals.into_iter().flatten().max_by_key(|exhausted| exhausted.retry_after) {
            return Err(exhausted);
        }
        for account in [&mut caller, &mut address].into_iter().flatten() {
            account.pay(now);
        }
        Ok(())
    }
}

/// A payer's name and when its budget is full again. An array and no struct: an allocator hands out arrays of zeros as
/// pages that cost nothing until they are touched. Zeros are an entry that nobody uses, because its budget is full.
type Entry = [u64; 2];

/// The budgets of one kind: a cache with sets, as processors have them. Where a payer's set is full, the payer in it
/// whose budget is nearest to full is let go; that gives away less than any other choice, and never refuses a newcomer.
struct Table {
    pace: Pace,
    shards: [Mutex<Box<[[Entry; WAYS]]>>; SHARDS],
}

impl Table {
    fn new(rate: Rate) -> Self {
        let shard = |_| Mutex::new(vec![[[0; 2]; WAYS]; SETS].into_boxed_slice());
        Self { pace: Pace::of(rate), shards: std::array::from_fn(shard) }
    }

    fn account(&self, payer: u64) -> Account<'_> {
        let place = usize::try_from(payer % PLACES).expect("a table has fewer sets than a usize can count");
        let sets = self.shards[place % SHARDS].lock().expect("nothing panics that holds a shard");
        let (set, mut way, mut full_at) = (place / SHARDS, 0, 0);
        let mut nearest = u64::MAX;
        for (candidate, [name, its_full_at]) in sets[set].into_iter().enumerate() {
            if name == payer {
                (way, full_at) = (candidate, its_full_at);
                break;
            }
            if its_full_at < nearest {
                (way, nearest) = (candidate, its_full_at);
            }
        }
        Account { pace: self.pace, payer, full_at, sets, set, way }
    }
}

/// A payer's place in a table, locked.
struct Account<'table> {
    pace: Pace,
    payer: u64,
    /// When the budget is full again; in the past for one that is.
    full_at: u64,
    sets: MutexGuard<'table, Box<[[Entry; WAYS]]>>,
    set: usize,
    way: usize,
}

impl Account<'_> {
    /// How long until one more is allowed; `None` when it is.
    fn wait(&self, now: u64) -> Option<Duration> {
        let wait = self.full_at.saturating_sub(now).saturating_sub(self.pace.slack);
        (wait > 0).then_some(Duration::from_nanos(wait))
    }

    fn pay(&mut self, now: u64) {
        self.owe_until(self.full_at.max(now).saturating_add(self.pace.interval));
    }

    /// Makes the budget full again no sooner than then.
    fn owe_until(&mut self, full_at: u64) {
        self.full_at = self.full_at.max(full_at);
        self.sets[self.set][self.way] = [self.payer, self.full_at];
    }
}

/// A rate in nanoseconds.
#[derive(Clone, Copy)]
struct Pace {
    /// What one costs: after it, that much of the budget is there again.
    interval: u64,
    /// How far from full a budget may be and still pay for one.
    slack: u64,
}

impl Pace {
    fn of(rate: Rate) -> Self {
        let count = u64::from(rate.count.max(1));
        let interval = nanoseconds(rate.per).div_ceil(count);
        Self { interval, slack: interval.saturating_mul(count - 1) }
    }
}

/// As far as 584 years go.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn rate(count: u32, millis: u64) -> Rate {
        Rate { count, per: Duration::from_millis(millis) }
    }

    fn budgets(caller: Option<Rate>, address: Option<Rate>) -> Allowances {
        Allowances::new(Settings { caller, address })
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Spends at each of `steps` (milliseconds since the start) until it is refused, and tells how often it was not and
    /// how long it then has to wait.
    fn check(rate: Rate, steps: &[(u64, u32, u64)]) {
        let allowances = budgets(Some(rate), None);
        let (payer, start) = (allowances.payer(b"token", Some(HERE)), Instant::now());
        for (at, expected, wait) in steps {
            let mut spent = 0;
            let refused = loop {
                match allowances.spend(payer, start + millis(*at)) {
                    Ok(()) => spent += 1,
                    Err(refused) => break refused,
                }
            };
            assert_eq!((spent, refused.retry_after), (*expected, millis(*wait)), "{rate:?} at {at} ms");
            assert_eq!(refused.whose, Whose::Caller);
        }
    }

    #[test]
    fn a_burst_and_then_a_pace() {
        check(
            rate(600, 60_000),
            &[(0, 600, 100), (0, 0, 100), (99, 0, 1), (100, 1, 100), (1_100, 10, 100), (61_100, 600, 100)],
        );
        // Nothing is saved beyond a full budget.
        check(rate(600, 60_000), &[(0, 600, 100), (1_000_000, 600, 100)]);
        check(rate(1, 1_000), &[(0, 1, 1_000), (999, 0, 1), (1_000, 1, 1_000), (5_500, 1, 1_000)]);
        check(rate(0, 1_000), &[(0, 1, 1_000)]);
        check(rate(3, 1_500), &[(0, 3, 500), (250, 0, 250), (500, 1, 500), (1_000, 1, 500)]);
    }

    #[test]
    fn times_that_are_absurd_do_no_harm() {
        let start = Instant::now();
        let unlimited = budgets(Some(rate(1, 0)), None);
        let payer = unlimited.payer(b"token", Some(HERE));
        assert!((0..1_000).all(|_| unlimited.spend(payer, start).is_ok()));

        let never_again = budgets(Some(Rate { count: u32::MAX, per: Duration::MAX }), None);
        let payer = never_again.payer(b"token", Some(HERE));
        assert!((0..1_000).all(|_| never_again.spend(payer, start).is_ok()));

        // Threads take the time before they get the lock, so it may seem to go back: that only ever waits longer.
        let allowances = budgets(Some(rate(3, 1_500)), None);
        let [payer, other] = [b"one", b"two"].map(|token| allowances.payer(&token[..], Some(HERE)));
        let wait = |payer, at| allowances.spend(payer, start + millis(at)).map_err(|refused| refused.retry_after);
        assert_eq!(wait(other, 0), Ok(()));
        assert_eq!(wait(payer, 400), Ok(()));
        assert_eq!(wait(payer, 0), Ok(()));
        assert_eq!(wait(payer, 0), Err(millis(400)));
        assert_eq!(wait(payer, 400), Ok(()));
        assert_eq!(wait(payer, 400), Err(millis(500)));
        // Before the first instant that was heard of there is nothing.
        let past = start.checked_sub(millis(50)).expect("the system has been up for a moment");
        let whose = Whose::Caller;
        assert_eq!(allowances.spend(payer, past), Err(Exhausted { retry_after: millis(900), whose }));
    }

    #[test]
    fn everybody_has_a_budget_of_their_own() {
        let allowances = budgets(Some(rate(1, 1_000)), None);
        let now = Instant::now();
        let [one, other] = [b"one", b"two"].map(|token| allowances.payer(&token[..], Some(HERE)));
        assert_eq!(allowances.spend(one, now), Ok(()));
        assert!(allowances.spend(one, now).is_err());
        assert_eq!(allowances.spend(other, now), Ok(()));
    }

    #[test]
    fn both_pay_or_neither() {
        let allowances = budgets(Some(rate(2, 1_000)), Some(rate(3, 9_000)));
        let now = Instant::now();
        let [one, other] = [b"one", b"two"].map(|token| allowances.payer(&token[..], Some(HERE)));
        let elsewhere = allowances.payer(b"two", Some(Ipv4Addr::new(192, 0, 2, 7).into()));
        let refused = |millis, whose| Err(Exhausted { retry_after: Duration::from_millis(millis), whose });
        assert_eq!(allowances.spend(one, now), Ok(()));
        assert_eq!(allowances.spend(one, now), Ok(()));
        // The address paid for two and not for these refusals.
        for _ in 0..10 {
            assert_eq!(allowances.spend(one, now), refused(500, Whose::Caller));
        }
        assert_eq!(allowances.spend(other, now), Ok(()));
        // Nor does a token pay where its address is refused.
        for _ in 0..10 {
            assert_eq!(allowances.spend(other, now), refused(3_000, Whose::Address));
        }
        assert_eq!(allowances.spend(one, now), refused(3_000, Whose::Address), "both: the longer wait");
        assert_eq!(allowances.spend(elsewhere, now), Ok(()));
        assert_eq!(allowances.spend(elsewhere, now), refused(500, Whose::Caller));
    }

    #[test]
    fn no_limit_is_no_table() {
        let allowances = budgets(None, None);
        assert!(allowances.callers.is_none() && allowances.addresses.is_none());
        let payer = allowances.payer(b"token", Some(HERE));
        assert!((0..1_000).all(|_| allowances.spend(payer, Instant::now()).is_ok()));
    }

    #[test]
    fn what_counts_as_one_payer() {
        let allowances = budgets(None, None);
        let named = |token: &[u8], address: &str| allowances.payer(token, Some(address.parse().expect(address)));
        for (one, other, same) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.8", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("0.0.0.0", "::", false),
        ] {
            assert_eq!(named(b"a", one).address == named(b"a", other).address, same, "{one} {other}");
            assert_eq!(named(b"", one) == named(b"", other), same, "{one} {other} without a token");
            assert_eq!(named(b"a", one).token, named(b"a", other).token, "{one} {other}");
        }
        assert_ne!(named(b"a", "::1").token, named(b"b", "::1").token);
        // A token that spells an address is not that address without a token.
        assert_ne!(named(&[127, 0, 0, 1], "127.0.0.1").token, named(b"", "127.0.0.1").token);
        // Nobody can work out a name beforehand.
        assert_ne!(named(b"a", "::1").token, budgets(None, None).payer(b"a", Some(HERE)).token);
    }

    #[test]
    fn a_flood_of_tokens_takes_no_memory_frees_no_debtor_and_locks_nobody_out() {
        let allowances = budgets(Some(rate(600, 60_000)), Some(rate(u32::MAX, 1)));
        let table = |allowances: &Allowances| {
            let table = allowances.callers.as_ref().expect("a limit");
            let shards = table.shards.iter().map(|shard| size_of_val(&**shard.lock().expect("no test panics in it")));
            shards.sum::<usize>()
        };
        assert_eq!(table(&allowances), 1 << 20);
        let now = Instant::now();
        let debtor = allowances.payer(b"debtor", Some(HERE));
        while allowances.spend(debtor, now).is_ok() {}
        for token in 0..10 * SHARDS * SETS * WAYS {
            let payer = allowances.payer(&token.to_le_bytes(), Some(HERE));
            assert_eq!(allowances.spend(payer, now), Ok(()), "the first of {token}");
        }
        assert!(allowances.spend(debtor, now).is_err());
        assert_eq!(table(&allowances), 1 << 20);
    }

    #[test]
    fn a_full_set_lets_go_of_who_needs_it_least() {
        let allowances = budgets(Some(rate(10, 10_000)), None);
        let now = Instant::now();
        // These share a set; the first spends one, the second two, and so on.
        let payers: Vec<_> = (1..=9).map(|name| Payer { token: name * PLACES, address: Some(0) }).collect();
        for (payer, spent) in payers.iter().zip(1..=8) {
            assert!((0..spent).all(|_| allowances.spend(*payer, now).is_ok()));
        }
        let left = |payer: &Payer| (0..100).take_while(|_| allowances.spend(*payer, now).is_ok()).count();
        // The ninth takes the place of the first, who has a full budget again; everybody else is still known.
        assert_eq!(allowances.spend(payers[8], now), Ok(()));
        assert_eq!(payers[1..8].iter().map(left).collect::<Vec<_>>(), [8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(left(&payers[0]), 10);
    }

    #[test]
    fn the_name_of_an_unused_entry_may_be_a_payer_too() {
        let allowances = budgets(Some(rate(2, 1_000)), None);
        let now = Instant::now();
        let zero = Payer { token: 0, address: Some(0) };
        assert_eq!([0; 3].map(|_| allowances.spend(zero, now).is_ok()), [true, true, false]);
    }

    #[test]
    fn threads_together_spend_no_more_than_one() {
        let allowances = budgets(Some(rate(1_000, 60_000)), Some(rate(2_500, 60_000)));
        let now = Instant::now();
        let spent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0_u8..8)
                .map(|thread| {
                    let payer = allowances
                        .payer(&[thread % 4], Some([HERE, Ipv6Addr::LOCALHOST.into()][usize::from(thread % 2)]));
                    let allowances = &allowances;
                    scope.spawn(move || (0..2_000).filter(|_| allowances.spend(payer, now).is_ok()).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        // Two tokens at each address, a thousand each; an address would have allowed 2,500.
        assert_eq!(spent, 4_000);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_budget_and_the_pace(
            count in 1_u32..20,
            per_micros in 1_000_u64..5_000_000,
            gaps in prop::collection::vec(prop_oneof![Just(0_u64), 0_u64..2_000, 0_u64..2_000_000], 1..200),
        ) {
            let per = Duration::from_micros(per_micros);
            let allowances = budgets(Some(Rate { count, per }), None);
            let (payer, start) = (allowances.payer(b"token", Some(HERE)), Instant::now());
            let mut at = Duration::ZERO;
            let mut allowed = Vec::new();
            for gap in gaps {
                at += Duration::from_micros(gap);
                match allowances.spend(payer, start + at) {
                    Ok(()) => allowed.push(at),
                    // Who waits as told is not refused again, and a moment earlier would have been too early.
                    Err(Exhausted { retry_after, .. }) => {
                        let early = at + retry_after.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(allowances.spend(payer, start + early).is_err());
                        at += retry_after;
                        prop_assert_eq!(allowances.spend(payer, start + at), Ok(()));
                        allowed.push(at);
                    }
                }
            }
            for (first, from) in allowed.iter().enumerate() {
                for (last, to) in allowed.iter().enumerate().skip(first) {
                    let beyond = u32::try_from(last - first + 1).expect("at most 200").saturating_sub(count);
                    let window = to.checked_sub(*from).expect("time goes on");
                    prop_assert!(per * beyond <= window * count);
                }
            }
        }
    }
}
