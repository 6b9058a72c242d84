//! F22: an upstream that is slow but alive, while many look at many: it is asked for no more at once than it may be, each
//! picture is fetched and decoded once, and what is in memory is shown as ever.

use crate::client::{Answer, Connection, PATIENCE, Request};
use crate::mattermost::{Work, portrait, work};
use crate::pictures::{RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Kept, Seen, kept_answer};
use futures_util::future::{join, join_all};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

const VIEWERS: usize = 200;
const AVATARS: usize = 50;
/// How many picture requests upstream may be asked at once.
const AT_ONCE: usize = 64;
/// Looks at a picture that is in memory, while upstream answers nothing.
const HITS: usize = 200;
/// A hit takes well below a millisecond; a busy machine may be a hundred times as slow.
const NO_WAIT: Duration = Duration::from_millis(100);
/// Whose picture is in memory.
const KNOWN: usize = 99;

/// Upstream, which says everything in two parts: a pause lies between them.
struct Slow {
    address: SocketAddr,
    count: Rc<RefCell<Count>>,
    held: watch::Sender<bool>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    open: usize,
    most_open: usize,
    bodies: usize,
    not_modified: usize,
}

impl Slow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let count = Rc::<RefCell<Count>>::default();
        let (held, told) = watch::channel(false);
        let counted = count.clone();
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                actix_web::rt::spawn(answer_slowly(Kept::new(stream), counted.clone(), told.clone()));
            }
        });
        Self { address, count, held }
    }

    fn count(&self) -> Count {
        *self.count.borrow()
    }

    /// Waits until so many requests are open at once.
    async fn has_open(&self, requests: usize) {
        let opened = async {
            while self.count().open < requests {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, opened).await.expect("requests in time");
    }
}

async fn answer_slowly(mut connection: Kept, count: Rc<RefCell<Count>>, mut held: watch::Receiver<bool>) {
    while let Some(seen) = connection.next().await {
        {
            let mut count = count.borrow_mut();
            count.open += 1;
            count.most_open = count.most_open.max(count.open);
        }
        let answer = answer_to(&seen, &count);
        // All but the last bytes: whoever waits for the body has been told its validator.
        let (first, rest) = answer.split_at(answer.len() - 1);
        connection.send(first).await;
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        // Before the last byte: the place is free as soon as that has come.
        count.borrow_mut().open -= 1;
        connection.send(rest).await;
    }
}

fn answer_to(seen: &Seen, count: &RefCell<Count>) -> Vec<u8> {
    let user: usize = seen.target().split('/').nth(4).and_then(|id| id.parse().ok()).expect("a user's id");
    let lifetime = ("Cache-Control", "max-age=86400, private");
    let mut count = count.borrow_mut();
    if seen.header("if-none-match") == Some("7") {
        count.not_modified += 1;
        return kept_answer("304 Not Modified", &[("Etag", "7"), lifetime], b"");
    }
    count.bodies += 1;
    let picture = if user == KNOWN { solid(RED) } else { portrait(u32::try_from(user).expect("few")) };
    kept_answer("200 OK", &[("Content-Type", "image/png"), ("Etag", "7"), lifetime], &png(&picture))
}

fn look(viewer: usize, user: usize) -> Request {
    Request::picture_of(&format!("{user:026}"), "size=32").cookie(&format!("{viewer:026}")).accept("image/webp")
}

#[actix_web::test]
async fn f22_a_slow_upstream_is_asked_no_more_than_it_may_be_and_hits_do_not_wait_for_it() {
    let upstream = Slow::start().await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.upstream.max_picture_requests = AT_ONCE;
        // Nothing of this is about giving up.
        (config.upstream.head_timeout, config.upstream.picture_timeout) = (3 * PATIENCE, 3 * PATIENCE);
        config.render.queue_timeout = PATIENCE;
    });
    let mut hitter = Connection::to(proxy.address).await;
    assert_eq!(hitter.send(&look(0, KNOWN)).await.status, 200);

    // All of them look at once, and upstream has begun as many answers as it may.
    upstream.held.send_replace(true);
    let crowd = join_all((0..VIEWERS).map(async |viewer| {
        let mut connection = Connection::to(proxy.address).await;
        let mut shown = Vec::new();
        for n in 0..AVATARS {
            shown.push(connection.send(&look(viewer, (viewer + n) % AVATARS)).await);
        }
        shown
    }));
    let waiting = Cell::new(Vec::new());
    let hits = async {
        upstream.has_open(AT_ONCE).await;
        proxy.has_in_flight(u64::try_from(VIEWERS).expect("few")).await;
        let mut took = Vec::new();
        for _ in 0..HITS {
            let began = Instant::now();
            let hit = hitter.send(&look(0, KNOWN)).await;
            took.push(began.elapsed());
            assert!(hit.status == 200 && hit.header("age").is_some());
        }
        assert_eq!(upstream.count().open, AT_ONCE, "nobody was answered meanwhile, and nobody else was asked for");
        waiting.set(took);
        upstream.held.send_replace(false);
    };
    let (shown, ()) = join(crowd, hits).await;

    let mut took = waiting.into_inner();
    took.sort_unstable();
    assert!(took[HITS / 2] < NO_WAIT, "half of the hits took longer than {:?}", took[HITS / 2]);
    check_all_alike(&shown);
    let count = upstream.count();
    assert_eq!((count.open, count.most_open), (0, AT_ONCE));
    // One body for each picture, and one question for each who looks at it.
    let pictures = AVATARS + 1;
    assert_eq!((count.bodies, count.not_modified), (pictures, (VIEWERS - 1) * AVATARS));
    let pictures = u64::try_from(pictures).expect("few");
    assert_eq!(work(&proxy).await, Work { decodes: pictures, encodes: pictures, renders: pictures });
}

/// Everybody was shown the same of each user, and no two users are shown alike.
fn check_all_alike(shown: &[Vec<Answer>]) {
    let of = |viewer: usize, user: usize| &shown[viewer][(user + AVATARS - viewer % AVATARS) % AVATARS];
    for user in 0..AVATARS {
        assert!((0..VIEWERS).all(|viewer| of(viewer, user).status == 200 && of(viewer, user).body == of(0, user).body));
        assert!((0..user).all(|other| of(0, other).body != of(0, user).body), "{user}");
    }
}
