//! Pictures that move: who gets what of them, and what happens to those that are too much.

use crate::client::{ALICE, Answer, Request};
use crate::pictures::{BLUE, RED, moving_gif, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, picture_answer};
use avatar_proxy::config::ByteSize;
use image::AnimationDecoder;
use image::codecs::webp::WebPDecoder;
use std::io::Cursor;
use std::time::Duration;

const WEBP: &str = "image/webp,*/*";

/// Light and grain that move, each frame with another grain: long as a GIF.
fn reel() -> Vec<u8> {
    moving_gif(&[photo(1), photo(40), photo(80)])
}

fn emoji(query: &str) -> Request {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Request::get(&format!("/api/v4/emoji/{ALICE}/image{query}")).bearer(crate::client::ALICES_TOKEN)
}

/// How many frames of a WebP there are.
fn frames(answer: &Answer) -> usize {
    let decoder = WebPDecoder::new(Cursor::new(&answer.body[..])).expect("a WebP");
    if decoder.has_animation() { decoder.into_frames().collect_frames().expect("whole frames").len() } else { 1 }
}

fn kind(answer: &Answer) -> &str {
    answer.header("content-type").expect("a type")
}

#[actix_web::test]
async fn an_emoji_moves_in_the_format_that_its_client_shows() {
    let gif = reel();
    let upstream = Upstream::showing("1", gif.clone()).await;
    let proxy = Proxy::before(upstream.address);

    for (query, edge) in [("", 128), ("size=32", 32), ("format=webp&size=64", 64), ("animated=1&q=40", 128)] {
        let moving = proxy.send(&emoji(query).accept(WEBP)).await;
        assert_eq!((moving.status, kind(&moving), moving.dimensions()), (200, "image/webp", (edge, edge)), "{query}");
        assert_eq!(frames(&moving), 3, "{query}");
        assert!(moving.body.len() < gif.len() / 2, "{query}: {} of {}", moving.body.len(), gif.len());
    }
    for (query, accept) in [("", "*/*"), ("size=32", "*/*"), ("format=original", WEBP), ("size=32", "image/png")] {
        let original = proxy.send(&emoji(query).accept(accept)).await;
        assert_eq!((kind(&original), &original.body[..]), ("image/gif", &gif[..]), "{query} {accept}");
    }
    for (query, wanted) in [
        ("animated=0", "image/webp"),
        ("animated=false&size=32", "image/webp"),
        ("format=png", "image/png"),
        ("format=jpeg&size=32", "image/jpeg"),
    ] {
        let stilled = proxy.send(&emoji(query).accept(WEBP)).await;
        assert_eq!(kind(&stilled), wanted, "{query}");
        assert!(wanted != "image/webp" || frames(&stilled) == 1, "{query}");
    }
}

#[actix_web::test]
async fn every_other_picture_moves_when_it_is_asked_to() {
    let upstream = Upstream::showing("1", reel()).await;
    let proxy = Proxy::before(upstream.address);
    for (query, moving) in [("", 1), ("size=32", 1), ("animated=1", 3), ("size=32&animated=true", 3)] {
        let answer = proxy.send(&Request::picture(query).accept(WEBP)).await;
        assert_eq!((kind(&answer), frames(&answer)), ("image/webp", moving), "{query}");
    }
}

#[actix_web::test]
async fn what_moves_and_what_does_not_have_tags_of_their_own() {
    let upstream = Upstream::showing("1", reel()).await;
    let proxy = Proxy::granting(upstream.address);
    let moving = proxy.send(&emoji("size=32").accept(WEBP)).await;
    let stilled = proxy.send(&emoji("size=32&animated=0").accept(WEBP)).await;

    let (one, other) = (moving.header("etag").expect("a tag"), stilled.header("etag").expect("a tag"));
    assert_ne!(one, other);
    assert_eq!(moving.header("vary"), Some("Accept"));
    for (query, status) in [("size=32", 304), ("size=32&animated=1", 304), ("size=32&animated=0", 200)] {
        let again = proxy.send(&emoji(query).accept(WEBP).header("If-None-Match", one)).await;
        assert_eq!(again.status, status, "{query}");
    }
    // The same bytes in another process.
    let replica = Proxy::granting(upstream.address);
    assert_eq!(replica.send(&emoji("size=32").accept(WEBP)).await.header("etag"), Some(one));
}

#[actix_web::test]
async fn f41_what_is_too_much_goes_out_as_it_came_and_is_looked_at_once() {
    let gif = reel();
    for (name, limit) in [("frames", 0), ("pixels", 1), ("time", 2), ("kept", 3)] {
        let upstream = Upstream::showing("1", gif.clone()).await;
        let proxy = Proxy::with(upstream.address, |config| match limit {
            0 => config.limits.frames = 2,
            1 => config.limits.frame_pixels = 3 * 128 * 128 - 1,
            2 => config.limits.animation_time = Duration::from_nanos(1),
            _ => config.cache.max_entry = ByteSize::new(1024),
        });
        for query in ["", "", "size=128&format=webp"] {
            let answer = proxy.send(&emoji(query).accept(WEBP)).await;
            assert_eq!((answer.status, kind(&answer), &answer.body[..]), (200, "image/gif", &gif[..]), "{name}");
            assert_ne!(answer.header("cache-control"), Some("private, no-cache"), "{name}");
        }
        // That the frames are too much is true at every size, and found out once; whether what comes out of them is too large to
        // be kept is a matter of each recipe.
        let name = "avatar_proxy_render_duration_seconds_count{stage=\"animate\"}";
        assert_eq!(proxy.metric(name).await, if limit == 3 { 2 } else { 1 }, "{limit}");
        let still = proxy.send(&emoji("size=32&animated=0").accept(WEBP)).await;
        assert_eq!((kind(&still), still.dimensions()), ("image/webp", (32, 32)), "{limit}");
    }
}

#[actix_web::test]
async fn f07_a_later_frame_that_is_broken_leaves_the_original() {
    // Codes that no table holds, where the second frame has its data.
    let mut gif = moving_gif(&[solid(RED), solid(BLUE)]);
    let middle = gif.len() * 3 / 4;
    let end = gif.len() - 12;
    gif[middle..end].fill(0xff);
    let upstream = Upstream::answering(picture_answer("1", &gif)).await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&emoji("size=32").accept(WEBP)).await;

    assert_eq!((answer.status, &answer.body[..]), (200, &gif[..]));
    assert_eq!(Request::get("/healthz").send(proxy.admin).await.status, 200);
}

#[actix_web::test]
async fn f07_what_is_cut_off_anywhere_is_relayed_and_kept_by_nobody() {
    for whole in [reel(), png(&photo(1)), crate::pictures::jpeg(&photo(1)), crate::pictures::webp(&photo(1))] {
        // A few places of each: what happens at every place is tested where pictures are decoded.
        for part in 1..8 {
            let cut = &whole[..whole.len() * part / 8];
            let upstream = Upstream::answering(picture_answer("1", cut)).await;
            let proxy = Proxy::before(upstream.address);
            let answer = proxy.send(&emoji("size=32").accept(WEBP)).await;
            assert_eq!((answer.status, &answer.body[..]), (200, cut), "{part} of 8");
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"), "{part} of 8");
            assert_eq!(answer.header("etag"), None, "{part} of 8");
        }
    }
}
