//! The name of a request in our own errors and in the log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Mattermost's alphabet for ids (`model.NewId` in `server/public/model/utils.go`), so that a support thread can treat
/// both alike.
const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// A number of this process, spelt only where it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestId(u64);

/// 26 characters: 13 drawn once a process, 13 counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spelt([u8; 26]);

impl RequestId {
    /// The next one of this process.
    pub(super) fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The id as Mattermost would write it.
    pub(super) fn spelt(self) -> Spelt {
        static DRAWN: OnceLock<u64> = OnceLock::new();
        let drawn = *DRAWN.get_or_init(|| getrandom::u64().unwrap_or(0));
        let mut id = [0; 26];
        spell(drawn, &mut id[..13]);
        spell(self.0, &mut id[13..]);
        Spelt(id)
    }
}

impl Spelt {
    /// The id as text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

/// Five bits a character, the lowest last.
fn spell(mut number: u64, into: &mut [u8]) {
    for place in into.iter_mut().rev() {
        *place = ALPHABET[usize::try_from(number % 32).expect("below 32")];
        number /= 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_apart_and_look_like_mattermosts() {
        let (one, two) = (RequestId::next().spelt(), RequestId::next().spelt());
        assert_ne!(one, two);
        assert!(one.as_str().bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
