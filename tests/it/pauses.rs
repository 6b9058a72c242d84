//! F10: upstream asks somebody for a pause, and is not asked for pictures in that one's name until it is over.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOB, BOBS_TOKEN, Request};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, picture_answer};

const BUSY: &str = "429 Too Many Requests";

fn of_alice(user: &str) -> Request {
    Request::picture_of(user, "size=32").bearer(ALICES_TOKEN)
}

/// An upstream that asks whoever `is_asked` says for a long pause, and shows all others a picture.
async fn asking_for_a_pause(is_asked: impl Fn(&Seen) -> bool + 'static) -> Upstream {
    let picture = png(&photo(1));
    Upstream::replying(move |_, seen| {
        if is_asked(seen) {
            answer(BUSY, &[("Retry-After", "1000"), ("X-Ratelimit-Remaining", "0")], b"limit exceeded")
        } else {
            picture_answer("1", &picture)
        }
    })
    .await
}

/// Upstream's own words.
fn check_relayed(answer: &Answer) {
    assert_eq!((answer.status, &answer.body[..]), (429, &b"limit exceeded"[..]), "{answer:?}");
    assert_eq!((answer.header("retry-after"), answer.header("x-ratelimit-remaining")), (Some("1000"), Some("0")));
}

/// Ours, in Mattermost's shape, with what is left of the pause; no pause is longer than a minute.
fn check_held_back(answer: &Answer) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!((&answer.json()["id"], &answer.json()["status_code"]), (&"avatar_proxy.held_back".into(), &429.into()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let left: u64 = answer.header("retry-after").expect("a pause").parse().expect("seconds");
    assert!((1..=60).contains(&left), "{left}");
}

#[actix_web::test]
async fn f10_a_pause_is_relayed_and_kept_and_nobody_elses() {
    let upstream =
        asking_for_a_pause(|seen| seen.header("authorization").is_some_and(|it| it.contains(ALICES_TOKEN))).await;
    let proxy = Proxy::before(upstream.address);

    check_relayed(&proxy.send(&of_alice(ALICE)).await);
    for user in [ALICE, BOB] {
        check_held_back(&proxy.send(&of_alice(user)).await);
    }
    assert_eq!(upstream.seen().len(), 1);

    // Others go on, and so does whatever else the client asks for.
    assert_eq!(proxy.send(&Request::picture_of(ALICE, "size=32").bearer(BOBS_TOKEN)).await.status, 200);
    check_relayed(&proxy.send(&Request::get("/api/v4/users/me").bearer(ALICES_TOKEN)).await);
    assert_eq!(upstream.seen().len(), 3);
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"held_back\"}").await, 2);
}

#[actix_web::test]
async fn f10_a_grant_outlasts_a_pause() {
    let upstream = asking_for_a_pause(|seen| seen.target().contains(BOB)).await;
    let proxy = Proxy::granting(upstream.address);
    assert_eq!(proxy.send(&of_alice(ALICE)).await.status, 200);
    check_relayed(&proxy.send(&of_alice(BOB)).await);

    assert_eq!(proxy.send(&of_alice(ALICE)).await.status, 200);
    // What may not be answered from memory has to wait.
    check_held_back(&proxy.send(&of_alice(ALICE).header("Cache-Control", "no-cache")).await);
    assert_eq!(upstream.seen().len(), 2);
}

/// A plugin, or the limiter of the login, may have reasons that are no concern of pictures.
#[actix_web::test]
async fn f10_a_pause_that_is_not_about_pictures_holds_none_back() {
    let upstream = asking_for_a_pause(|seen| seen.target() == "/plugins/a").await;
    let proxy = Proxy::granting(upstream.address);

    check_relayed(&proxy.send(&Request::get("/plugins/a").bearer(ALICES_TOKEN)).await);

    assert_eq!(proxy.send(&of_alice(ALICE)).await.status, 200);
}
