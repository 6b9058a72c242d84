//! While a picture changes, a real server sends empty and cut-off bodies under the old tag, and files with more behind
//! their end: nothing of it is kept, here or by a browser.

use crate::client::{Answer, Request};
use crate::mattermost::{looks_at, shows, town, uploads};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use avatar_proxy::demo::{Fault, Repeat, StandIn};

fn torn() -> [Fault; 3] {
    [Fault::Empty, Fault::CutOff(4096), Fault::Garbage]
}

fn of_nova(town: &StandIn) -> Request {
    looks_at(town, "alice", "nova", "size=32")
}

fn is_nova(answer: &Answer, seed: u32) -> bool {
    let kept = answer.header("cache-control") == Some("max-age=86400, private") && answer.header("etag").is_some();
    answer.status == 200 && kept && answer.dimensions() == (32, 32) && shows(answer, &photo(seed))
}

fn condition_of_last(town: &StandIn) -> Option<String> {
    town.received().last().expect("asked").header("if-none-match").map(str::to_owned)
}

#[actix_web::test]
async fn f13_a_torn_picture_is_asked_for_once_more() {
    for fault in torn() {
        let town = town();
        let proxy = Proxy::before(town.address());
        town.show("nova", png(&photo(1)));
        town.fail(fault.clone(), Repeat::Times(1));

        assert!(is_nova(&proxy.send(&of_nova(&town)).await, 1), "{fault:?}");

        assert_eq!(town.count().pictures, 2, "{fault:?}");
        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"retried\"}").await, 1);
        assert!(is_nova(&proxy.send(&of_nova(&town)).await, 1), "{fault:?}");
        assert_eq!(town.count().not_modified, 1, "the whole picture is kept");
    }
}

#[actix_web::test]
async fn f13_a_picture_that_stays_torn_is_relayed_and_kept_by_nobody() {
    for fault in torn() {
        let town = town();
        let proxy = Proxy::before(town.address());
        town.show("nova", png(&photo(1)));
        town.fail(fault.clone(), Repeat::Times(2));

        let answer = proxy.send(&of_nova(&town)).await;

        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private, no-cache")), "{fault:?}");
        assert_eq!(answer.header("etag"), None, "{fault:?}");
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        assert!(is_nova(&proxy.send(&of_nova(&town)).await, 1), "{fault:?}");
        assert_eq!((town.count().pictures, condition_of_last(&town)), (3, None), "{fault:?}");
    }
}

/// A file that is damaged for good costs one request for each look at it, and not two for ever.
#[actix_web::test]
async fn f13_what_upstream_has_nothing_better_for_is_asked_for_once() {
    for (fault, asked) in [(Fault::Empty, [2, 4, 6]), (Fault::CutOff(4096), [2, 3, 4]), (Fault::Garbage, [2, 3, 4])] {
        let town = town();
        let proxy = Proxy::before(town.address());
        town.show("nova", png(&photo(1)));
        town.fail(fault.clone(), Repeat::UntilCleared);

        for asked in asked {
            let answer = proxy.send(&of_nova(&town)).await;
            assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private, no-cache")), "{fault:?}");
            // Emptiness is no file's own: the next one may be so for a moment only.
            assert_eq!(town.count().pictures, asked, "{fault:?}");
        }
        town.clear_faults();
        assert!(is_nova(&proxy.send(&of_nova(&town)).await, 1), "{fault:?}");
    }
}

#[actix_web::test]
async fn f13_a_picture_torn_while_it_changes_does_not_replace_the_one_that_is_kept() {
    for fault in torn() {
        let town = town();
        let proxy = Proxy::before(town.address());
        town.show("nova", png(&photo(1)));
        let held = proxy.send(&of_nova(&town)).await;
        town.show("nova", png(&photo(60)));
        town.fail(fault.clone(), Repeat::Times(2));
        let condition = of_nova(&town).header("If-None-Match", held.header("etag").expect("a tag"));

        let answer = proxy.send(&condition).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("private, no-cache")), "{fault:?}");

        assert!(is_nova(&proxy.send(&condition).await, 60), "{fault:?}");
        proxy.send(&uploads(&town, "nova", &photo(120))).await;
        assert!(is_nova(&proxy.send(&condition).await, 120), "{fault:?}");
    }
}

#[actix_web::test]
async fn f14_what_stands_behind_the_end_of_a_picture_is_dropped() {
    let town = town();
    let (clean, behind) = (Proxy::before(town.address()), Proxy::before(town.address()));
    town.show("nova", png(&photo(1)));
    let expected = clean.send(&of_nova(&town)).await;
    let left = png(&photo(60));
    town.fail(Fault::TrailingBytes(left.into()), Repeat::Times(1));

    let answer = behind.send(&of_nova(&town)).await;

    assert!(is_nova(&answer, 1));
    assert_eq!((answer.header("etag"), &answer.body), (expected.header("etag"), &expected.body));
}
