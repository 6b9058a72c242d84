//! Validators that lie, are missing, or outlive the bytes they stood for.

use crate::client::{ALICE, BOBS_TOKEN, Request};
use crate::pictures::{BLUE, RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, not_modified, picture_answer};
use avatar_proxy::config::ByteSize;
use std::time::Duration;

#[actix_web::test]
async fn f16_a_source_that_was_evicted_is_asked_for_again() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        // Room for what is known of a picture, but not for its bytes.
        config.cache.sources = ByteSize::new(8 << 10);
        config.cache.variants = ByteSize::new(0);
    });
    let evicted_and_fetched = async {
        // moka lets go in its own time.
        while proxy.metric("avatar_proxy_faults_total{fault=\"evicted_refetch\"}").await < 1 {
            let answer = proxy.send(&Request::picture("size=32")).await;
            assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), evicted_and_fetched).await.expect("the source is let go");

    let seen = upstream.seen();
    let [.., asked, again] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((asked.header("if-none-match"), again.header("if-none-match")), (Some("1"), None));
    assert_eq!(asked.header("cookie"), again.header("cookie"));
}

/// The sizes that are in memory are not taken from those who may see them by a size that is not.
#[actix_web::test]
async fn f16_a_source_that_was_evicted_and_cannot_be_had_again_takes_nothing_else_along() {
    let picture = png(&photo(1));
    let mut upstream = Upstream::showing("1", picture.clone()).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        // Neither its bytes nor its pixels are kept.
        config.cache.max_entry = ByteSize::new(picture.len() as u64 / 2);
        config.cache.pixels = ByteSize::new(0);
    });
    let (held, wanted) = (Request::picture("size=32&format=jpeg"), Request::picture("size=96&format=jpeg"));
    let bobs = Request::picture_of(ALICE, "size=32&format=jpeg").cookie(BOBS_TOKEN);
    for look in [&held, &bobs] {
        assert_eq!(proxy.send(look).await.status, 200);
    }
    upstream.refuse().await;
    for _ in 0..3 {
        assert_eq!(proxy.send(&wanted).await.status, 502);
        for look in [&held, &bobs] {
            let answer = proxy.send(look).await;
            assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
        }
    }
}

#[actix_web::test]
async fn f17_a_304_under_another_tag_releases_nothing() {
    let (old, new) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |n, _| match n {
        0 => picture_answer("1", &old),
        1 => not_modified("2"),
        _ => picture_answer("2", &new),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    assert!(proxy.send(&Request::picture("")).await.looks(RED));
    assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    assert_eq!(upstream.seen()[2].header("if-none-match"), None);
    assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"validator_mismatch\"}").await, 1);
}

#[actix_web::test]
async fn f17_new_bytes_under_the_same_tag_win() {
    let (old, new) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |n, _| match n {
        0 => picture_answer("1", &old),
        1 => picture_answer("1", &new),
        _ => not_modified("1"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    assert!(proxy.send(&Request::picture("")).await.looks(RED));
    for _ in 0..2 {
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    }
}

#[actix_web::test]
async fn f18_a_picture_without_tag_is_asked_for_in_full_and_rendered_once() {
    let fields = [("Content-Type", "image/png"), ("Cache-Control", "max-age=300, private")];
    let upstream = Upstream::answering(answer("200 OK", &fields, &png(&photo(1)))).await;
    let proxy = Proxy::before(upstream.address);

    let first = proxy.send(&Request::picture("size=32")).await;
    let second = proxy.send(&Request::picture("size=32")).await;

    assert_eq!((first.dimensions(), &first.body), ((32, 32), &second.body));
    assert_eq!(first.header("cache-control"), Some("max-age=300, private"));
    assert!(upstream.seen().iter().all(|seen| seen.header("if-none-match").is_none()));
    assert_eq!(proxy.metric("avatar_proxy_render_duration_seconds_count{stage=\"resize_encode\"}").await, 1);
}

#[actix_web::test]
async fn f16_what_was_let_go_is_fetched_again_for_whoever_has_a_grant() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.cache.sources = ByteSize::new(8 << 10);
        config.cache.variants = ByteSize::new(0);
    });
    let evicted_and_fetched = async {
        while proxy.metric("avatar_proxy_faults_total{fault=\"evicted_refetch\"}").await < 1 {
            let answer = proxy.send(&Request::picture("size=32").header("If-None-Match", "\"other\"")).await;
            assert_eq!((answer.status, answer.dimensions()), (200, (32, 32)));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), evicted_and_fetched).await.expect("the source is let go");
    assert!(upstream.seen().iter().all(|seen| seen.header("if-none-match").is_none()));
}

/// A file that is missing under a new stamp: upstream shows something, and says neither what it is nor for how long.
#[actix_web::test]
async fn f18_a_picture_without_tag_takes_the_place_of_the_one_before_it() {
    let (old, new) = (png(&solid(RED)), png(&solid(BLUE)));
    let fields = [("Content-Type", "image/png"), ("Cache-Control", "max-age=300, private")];
    let upstream = Upstream::replying(
        move |n, _| if n == 0 { picture_answer("1", &old) } else { answer("200 OK", &fields, &new) },
    )
    .await;
    let proxy = Proxy::granting(upstream.address);
    for _ in 0..2 {
        assert!(proxy.send(&Request::picture("")).await.looks(RED));
    }
    assert!(proxy.send(&Request::picture("").header("Cache-Control", "no-cache")).await.looks(BLUE));
    for _ in 0..2 {
        assert!(proxy.send(&Request::picture("")).await.looks(BLUE));
    }
    assert_eq!(upstream.seen().len(), 4);
}

/// Whatever upstream shows instead of the picture that is kept, it is that picture no longer.
#[actix_web::test]
async fn what_is_shown_instead_of_a_picture_takes_its_place_though_it_is_not_kept() {
    let cut = {
        let whole = png(&photo(1));
        whole[..whole.len() / 2].to_vec()
    };
    for (kind, body) in [
        ("image/png", cut),
        ("image/png", Vec::new()),
        ("image/svg+xml", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec()),
        ("text/html", b"<html>".to_vec()),
    ] {
        let (old, instead) = (png(&solid(RED)), body.clone());
        let upstream = Upstream::replying(move |n, _| match n {
            0 => picture_answer("1", &old),
            _ => answer("200 OK", &[("Content-Type", kind), ("Etag", "2")], &instead),
        })
        .await;
        let proxy = Proxy::granting(upstream.address);
        for _ in 0..2 {
            assert!(proxy.send(&Request::picture("")).await.looks(RED));
        }
        assert!(proxy.send(&Request::picture("").header("Pragma", "no-cache")).await.body == body, "{kind}");
        assert!(proxy.send(&Request::picture("")).await.body == body, "{kind}");
    }
}
