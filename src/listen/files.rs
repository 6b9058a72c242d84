//! How many files the process may have open, and how many connections that is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What each thread that serves needs for itself: what it waits by, is woken by and hears signals by, and one to spare.
const A_THREAD: u64 = 4;
/// What the rest needs: listeners, logs, looking up names, the question whether upstream is there.
const THE_REST: u64 = 32;
/// Where no limit is set: about ten gigabytes of idle connections.
const WITHOUT_LIMIT: usize = 1_000_000;

/// Raises the limit of open files as far as this process may, and tells what it is now; `None` for none at all.
#[must_use]
pub fn raise_file_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    // Where that is refused, the limit stays as it was.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }
}

/// What would be wanted of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Connections of clients; 0 for as many as there is room for.
    pub clients: usize,
    /// Connections to upstream.
    pub upstream: usize,
    /// Those of them that there are beside one for each client.
    pub pictures: usize,
    /// Connections to the back office.
    pub back_office: usize,
    /// Threads that serve.
    pub threads: usize,
}

/// How many connections there may be at once, so that there is a file for each: a client over HTTP/2 may have a hundred of
/// upstream's for its one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Connections of clients.
    pub clients: usize,
    /// Connections to upstream, tunnels and idle ones included.
    pub upstream: usize,
}

impl Room {
    /// What there is room for when so many files may be open; `None` for any number.
    #[must_use]
    pub fn within(files: Option<u64>, wanted: &Wanted) -> Self {
        let Some(files) = files else {
            let clients = if wanted.clients == 0 { WITHOUT_LIMIT } else { wanted.clients };
            return Self { clients, upstream: wanted.upstream };
        };
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let taken = A_THREAD.saturating_mul(count(wanted.threads)).saturating_add(count(wanted.back_office));
        // A limit this low serves badly, but it serves.
        let left = files.saturating_sub(taken.saturating_add(THE_REST)).max(files / 4).max(2);
        let pictures = count(wanted.pictures).min(left / 2);
        let most = match wanted.clients {
            0 => (left - pictures) / 2,
            clients => count(clients).min(left - pictures),
        };
        let clients = usize::try_from(most).unwrap_or(WITHOUT_LIMIT).clamp(1, WITHOUT_LIMIT);
        let upstream = usize::try_from(left - count(clients)).unwrap_or(usize::MAX);
        Self { clients, upstream: upstream.clamp(1, wanted.upstream) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is wanted where nothing is configured, on two cores.
    const USUAL: Wanted = Wanted { clients: 0, upstream: 16_384, pictures: 64, back_office: 32, threads: 4 };

    fn check(files: Option<u64>, wanted: Wanted, clients: usize, upstream: usize) {
        assert_eq!(Room::within(files, &wanted), Room { clients, upstream }, "{files:?} {wanted:?}");
    }

    #[test]
    fn every_connection_has_a_file() {
        check(None, USUAL, WITHOUT_LIMIT, 16_384);
        check(Some(u64::MAX), USUAL, WITHOUT_LIMIT, 16_384);
        check(Some(65_536), USUAL, 32_696, 16_384);
        check(Some(65_536), Wanted { upstream: 1_000_000, ..USUAL }, 32_696, 32_760);
        check(Some(1024), USUAL, 440, 504);
        check(Some(256), USUAL, 56, 120);
        // More threads than files, or hardly any.
        check(Some(256), Wanted { threads: 512, ..USUAL }, 16, 48);
        check(Some(0), USUAL, 1, 1);
        // So many as are asked for, if there is room.
        check(Some(1024), Wanted { clients: 100, ..USUAL }, 100, 844);
        check(Some(1024), Wanted { clients: 10_000, ..USUAL }, 880, 64);
        check(None, Wanted { clients: 10_000, ..USUAL }, 10_000, 16_384);
        check(Some(1024), Wanted { upstream: 1, ..USUAL }, 440, 1);
    }

    proptest! {
        #[test]
        fn all_together_stay_within_the_limit(
            files in 256_u64..200_000,
            clients in 0_usize..200_000,
            upstream in 1_usize..200_000,
            pictures in 1_usize..=65_536,
            threads in 1_usize..=8,
        ) {
            let wanted = Wanted { clients, upstream, pictures, back_office: 32, threads };
            let room = Room::within(Some(files), &wanted);
            prop_assert!(room.clients > 0 && room.upstream > 0);
            let others = A_THREAD * threads as u64 + 32 + THE_REST;
            prop_assert!((room.clients + room.upstream) as u64 + others <= files);
        }
    }

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let raised = raise_file_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_file_limit(), raised);
    }
}
