//! How long the old picture is shown after a change: somebody who holds a grant asks again and again.

use crate::changes::{self, Change, PATHS, Place};
use crate::dice::Dice;
use crate::site::{Credentials, Site};
use futures_util::future::join_all;
use http::{StatusCode, header};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often is asked: within the first second after the change, and later.
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(100);

/// Who looks on.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    /// Changes by each path.
    pub(crate) changes: usize,
    /// The changes are spread over so much time, and grants are up to that old when they happen.
    pub(crate) spread: Duration,
}

/// What was seen of one path, sorted.
pub(crate) struct Seen {
    pub(crate) path: (Change, Place),
    pub(crate) after: Vec<Duration>,
}

/// Changes pictures by each path, each before the eyes of a watcher of its own. The times begin just before the change
/// is asked for, so they are rather too long.
pub(crate) async fn watch(site: &Site, watch: Watch) -> Vec<Seen> {
    let paths = PATHS.iter().enumerate().map(|(nth, path)| async move {
        let people = (nth..site.people.len()).step_by(PATHS.len()).take(watch.changes);
        let watching = people.map(|person| see(site, person, *path, watch.spread));
        let mut after = join_all(watching).await;
        after.sort_unstable();
        Seen { path: *path, after }
    });
    join_all(paths).await
}

/// The time from a change until a watcher is shown another picture.
async fn see(site: &Site, person: usize, path: (Change, Place), spread: Duration) -> Duration {
    let others = (person + 1..site.people.len()).chain(0..person);
    let watcher = others.into_iter().find(|other| !site.people[*other].is_guest).expect("not all are guests");
    let watcher = site.credentials(watcher, 0);
    let mut dice = Dice::seeded(person);
    let steps = usize::try_from(spread.as_millis()).expect("a short time");
    let wait = Duration::from_millis(dice.roll(steps) as u64);
    let old = shown(site, &watcher, person).await;
    sleep(wait).await;
    let changing = async {
        let asked = Instant::now();
        changes::apply(site, person, path, person).await;
        asked
    };
    let watching = async {
        let begun = Instant::now();
        while shown(site, &watcher, person).await == old {
            sleep(if begun.elapsed() < Duration::from_secs(1) { OFTEN } else { SELDOM }).await;
        }
        Instant::now()
    };
    let (asked, seen) = tokio::join!(changing, watching);
    seen - asked
}

/// The tag of what the watcher is shown, which names the bytes.
async fn shown(site: &Site, watcher: &Credentials, person: usize) -> Vec<u8> {
    let answer = site.picture(watcher, person, "").await;
    assert_eq!(answer.status, StatusCode::OK, "the watcher may look");
    answer.headers.get(header::ETAG).expect("a tag").as_bytes().to_vec()
}
