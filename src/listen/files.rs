//! How many files the process may have open, and how many connections that is.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What each client connection may need: itself, and the one to upstream that its request goes over.
const A_CONNECTION: u64 = 2;
/// What the rest needs: listeners, logs, timers and wakers of each thread, the back office and whoever asks it.
const THE_REST: u64 = 64;
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

/// How many client connections there may be when so many files may be open, of which pictures take `pictures` towards
/// upstream.
#[must_use]
pub fn connections_for(files: Option<u64>, pictures: usize) -> usize {
    let Some(files) = files else { return WITHOUT_LIMIT };
    let taken = THE_REST.saturating_add(u64::try_from(pictures).unwrap_or(u64::MAX));
    // A limit this low serves badly, but it serves.
    let left = files.saturating_sub(taken).max(files / 4) / A_CONNECTION;
    usize::try_from(left).unwrap_or(WITHOUT_LIMIT).clamp(1, WITHOUT_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_room_for_one_to_upstream() {
        for (files, pictures, connections) in [
            (None, 64, WITHOUT_LIMIT),
            (Some(u64::MAX), 64, WITHOUT_LIMIT),
            (Some(65_536), 64, 32_704),
            (Some(1024), 64, 448),
            (Some(256), 64, 64),
            (Some(128), 64, 16),
            (Some(128), 65_536, 16),
            (Some(0), 1, 1),
        ] {
            assert_eq!(connections_for(files, pictures), connections, "{files:?} {pictures}");
        }
    }

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let raised = raise_file_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_file_limit(), raised);
    }
}
