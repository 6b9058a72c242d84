//! Whom upstream has asked for a pause: questions of ours in the name of such a caller wait until it is over.
//! As many callers are kept as budgets are, in a table of the same fixed size.

use super::{Rate, Table, nanoseconds};
use crate::caller::Caller;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The longest pause that is heeded. Mattermost asks for seconds; a slip of somebody's should not shut a caller out for
/// the day.
const LONGEST: Duration = Duration::from_secs(60);

/// The callers of whom upstream wants to hear nothing for a while.
pub struct Holds {
    callers: Table,
    origin: OnceLock<Instant>,
}

impl Default for Holds {
    fn default() -> Self {
        Self { callers: Table::new(Rate { count: 1, per: Duration::ZERO }), origin: OnceLock::new() }
    }
}

impl Holds {
    /// Upstream has asked for a pause of this length.
    pub fn hold(&self, caller: &Caller, now: Instant, pause: Duration) {
        let until = self.elapsed(now).saturating_add(nanoseconds(pause.min(LONGEST)));
        self.callers.account(name(caller)).owe_until(until);
    }

    /// How much is left of the caller's pause; `None` when there is none.
    #[must_use]
    pub fn left(&self, caller: &Caller, now: Instant) -> Option<Duration> {
        self.callers.account(name(caller)).wait(self.elapsed(now))
    }

    fn elapsed(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(*self.origin.get_or_init(|| now)))
    }
}

/// Half of a digest under a key drawn at start: nobody can aim at another's.
fn name(caller: &Caller) -> u64 {
    u64::from_le_bytes(*caller.digest().first_chunk().expect("a digest is longer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{CallerKey, Credentials};

    fn callers<const N: usize>() -> [Caller; N] {
        let key = CallerKey::draw().expect("random numbers");
        std::array::from_fn(|n| {
            let header = format!("Bearer {n:026}");
            let fields = [("authorization", header.as_bytes())];
            Credentials::of(fields).caller(&key, b"chat.example").expect("a token")
        })
    }

    #[test]
    fn a_pause_is_the_callers_own_and_ends() {
        let (holds, [one, other], start) = (Holds::default(), callers(), Instant::now());
        let left = |caller, seconds| holds.left(caller, start + Duration::from_secs(seconds));
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!(left(&one, 0), None);
        holds.hold(&one, start + Duration::from_secs(10), Duration::from_secs(7));
        assert_eq!([10, 12, 16, 17, 100].map(|at| left(&one, at)), [seconds(7), seconds(5), seconds(1), None, None]);
        assert_eq!(left(&other, 12), None);
        // A shorter pause does not end a longer one, and a longer one goes on for its own time.
        holds.hold(&one, start + Duration::from_secs(11), Duration::from_secs(1));
        assert_eq!(left(&one, 12), seconds(5));
        holds.hold(&one, start + Duration::from_secs(12), Duration::from_secs(30));
        assert_eq!(left(&one, 12), seconds(30));
    }

    #[test]
    fn no_pause_is_longer_than_a_minute() {
        let (holds, [one], now) = (Holds::default(), callers(), Instant::now());
        holds.hold(&one, now, Duration::MAX);
        assert_eq!(holds.left(&one, now), Some(LONGEST));
    }
}
