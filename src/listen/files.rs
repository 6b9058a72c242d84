//! How many files the process may have open, and how many connections that is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What each thread that serves needs for itself: what it waits by, is woken by and hears signals by, and one to spare.
const A_THREAD: usize = 4;
/// What the rest needs: listeners, logs, looking up names, the question whether upstream is there.
const THE_REST: usize = 32;
/// How many idle connections a worker needs for pictures at most.
const PICTURES_KEPT: usize = 64;
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
    /// Connections to upstream for what passes through.
    pub upstream: usize,
    /// Picture requests at once.
    pub pictures: usize,
    /// Threads that serve.
    pub workers: usize,
    /// Other threads that wait for something.
    pub others: usize,
    /// Connections to the back office.
    pub back_office: usize,
}

/// How many connections there may be at once, so that there is a file for each: a client over HTTP/2 may have a hundred of
/// upstream's for its one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Connections of clients.
    pub clients: usize,
    /// Connections to upstream for what passes through, tunnels and idle ones included.
    pub upstream: usize,
    /// Picture requests.
    pub pictures: usize,
    /// Idle connections that each worker keeps for pictures.
    pub pictures_kept: usize,
}

impl Room {
    /// What there is room for when so many files may be open; `None` for any number.
    #[must_use]
    pub fn within(files: Option<u64>, wanted: &Wanted) -> Self {
        let workers = wanted.workers.max(1);
        let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        let taken = A_THREAD.saturating_mul(workers.saturating_add(wanted.others));
        let taken = taken.saturating_add(wanted.back_office).saturating_add(THE_REST);
        // A limit this low serves badly, but it serves.
        let left = files.saturating_sub(taken).max(files / 4).max(8);
        let pictures = wanted.pictures.clamp(1, (left / 8).max(1));
        let pictures_kept = (pictures / workers).clamp(1, PICTURES_KEPT);
        // While some of these requests are under way on one worker, others may keep theirs.
        let left = left.saturating_sub(pictures + pictures_kept.saturating_mul(workers)).max(2);
        let clients = match wanted.clients {
            0 => (left / 2).min(WITHOUT_LIMIT),
            clients => clients.min(left - left / 8),
        };
        let clients = clients.clamp(1, left - 1);
        Self { clients, upstream: wanted.upstream.clamp(1, left - clients), pictures, pictures_kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is wanted where nothing is configured, on two cores.
    const USUAL: Wanted = Wanted { clients: 0, upstream: 16_384, pictures: 64, workers: 2, others: 4, back_office: 32 };

    /// Clients, connections to upstream, picture requests, and connections that each worker keeps for those.
    fn check(files: Option<u64>, wanted: Wanted, expected: [usize; 4]) {
        let Room { clients, upstream, pictures, pictures_kept } = Room::within(files, &wanted);
        assert_eq!([clients, upstream, pictures, pictures_kept], expected, "{files:?} {wanted:?}");
    }

    #[test]
    fn every_connection_has_a_file() {
        check(None, USUAL, [WITHOUT_LIMIT, 16_384, 64, 32]);
        check(Some(u64::MAX), USUAL, [WITHOUT_LIMIT, 16_384, 64, 32]);
        check(Some(65_536), USUAL, [32_660, 16_384, 64, 32]);
        check(Some(65_536), Wanted { upstream: 1_000_000, ..USUAL }, [32_660, 32_660, 64, 32]);
        check(Some(65_536), Wanted { workers: 64, ..USUAL }, [32_536, 16_384, 64, 1]);
        check(Some(1024), USUAL, [404, 404, 64, 32]);
        check(Some(256), USUAL, [63, 64, 21, 10]);
        // More threads than files, or hardly any.
        check(Some(256), Wanted { workers: 512, ..USUAL }, [1, 1, 8, 1]);
        check(Some(0), USUAL, [2, 3, 1, 1]);
        // So many as are asked for, if there is room.
        check(Some(1024), Wanted { clients: 100, ..USUAL }, [100, 708, 64, 32]);
        check(Some(1024), Wanted { clients: 10_000, ..USUAL }, [707, 101, 64, 32]);
        check(None, Wanted { clients: 10_000, ..USUAL }, [10_000, 16_384, 64, 32]);
        check(Some(1024), Wanted { upstream: 1, ..USUAL }, [404, 1, 64, 32]);
    }

    proptest! {
        #[test]
        fn all_together_stay_within_the_limit(
            files in 256_usize..200_000,
            clients in 0_usize..200_000,
            upstream in 1_usize..200_000,
            pictures in 1_usize..=65_536,
            workers in 1_usize..=8,
        ) {
            let wanted = Wanted { clients, upstream, pictures, workers, ..USUAL };
            let room = Room::within(Some(files as u64), &wanted);
            prop_assert!(room.clients > 0 && room.upstream > 0 && room.pictures > 0 && room.pictures_kept > 0);
            let connections = room.clients + room.upstream + room.pictures + room.pictures_kept * workers;
            prop_assert!(connections + A_THREAD * (workers + wanted.others) + wanted.back_office + THE_REST <= files);
        }
    }

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let raised = raise_file_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_file_limit(), raised);
    }
}
