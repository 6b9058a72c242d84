//! HTTP correctness towards clients on the picture route: what names the bytes, how long they may be kept, and when
//! the client is told that it has them.

use crate::client::{Answer, Request};
use crate::pictures::{BLUE, RED, gif, jpeg, letter, moving_gif, photo, png, solid, webp};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, picture_answer};

const WEBP: &str = "image/avif,image/webp,*/*;q=0.8";

async fn photo_upstream() -> Upstream {
    Upstream::showing("1712345678901", png(&photo(1))).await
}

/// Upstream's 200 with these fields beside the usual ones of a picture.
fn with_fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [("Content-Type", "image/png"), ("Etag", "1712345678901")];
    answer("200 OK", &[&usual, fields].concat(), &png(&photo(1)))
}

fn etag(answer: &Answer) -> &str {
    answer.header("etag").expect("a tag")
}

#[actix_web::test]
async fn the_format_is_negotiated_and_vary_says_so() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let mobile = ("User-Agent", "Mattermost Mobile/2.20.0+1 (iOS)");
    let browser = ("User-Agent", "Mozilla/5.0");
    for (query, accept, agent, media_type, vary) in [
        ("size=32", WEBP, browser, "image/webp", Some("Accept")),
        ("size=32", "image/*", browser, "image/png", Some("Accept, User-Agent")),
        ("size=32", "image/webp;q=0, */*", browser, "image/png", Some("Accept")),
        ("size=32", "*/*", mobile, "image/webp", Some("Accept, User-Agent")),
        ("size=32", "image/png", mobile, "image/png", Some("Accept")),
        ("size=96", WEBP, browser, "image/webp", Some("Accept")),
        ("size=32&format=avif", WEBP, browser, "image/avif", None),
        ("size=32&format=webp", "*/*", mobile, "image/webp", None),
        ("size=32&format=jpeg", WEBP, browser, "image/jpeg", None),
        ("format=original", WEBP, browser, "image/png", None),
    ] {
        let request = Request::picture(query).accept(accept).header(agent.0, agent.1);
        let got = proxy.send(&request).await;
        let kind = got.header("content-type").expect("a type");
        // Who names nothing gets the smaller of PNG and JPEG.
        let basic = media_type == "image/png" && query == "size=32" && kind == "image/jpeg";
        assert!(kind == media_type || basic, "{query} {accept} {agent:?}: {kind}");
        assert_eq!(got.header("vary"), vary, "{query} {accept} {agent:?}");
        let again = proxy.send(&request.header("If-None-Match", etag(&got))).await;
        assert_eq!((again.status, again.header("vary")), (304, vary), "{query} {accept} {agent:?}");
    }
}

#[actix_web::test]
async fn client_hints_are_heeded_where_they_are_switched_on_and_vary_says_so() {
    const HINTS: &str = "Sec-CH-DPR, DPR, Sec-CH-Width, Width, Save-Data";
    let upstream = photo_upstream().await;
    let (off, on) =
        (Proxy::before(upstream.address), Proxy::with(upstream.address, |config| config.pictures.client_hints = true));
    let plain = Request::picture("size=16").accept(WEBP);
    let twice = off.send(&Request::picture("size=32").accept(WEBP)).await;
    let once = off.send(&plain).await;
    assert_ne!(once.body, twice.body);
    for (field, value, like) in
        [("Sec-CH-DPR", "2", &twice), ("DPR", "1.75", &twice), ("DPR", "inf", &once), ("Sec-CH-Width", "32", &once)]
    {
        let request = plain.clone().header(field, value);
        let (ignored, heeded) = (off.send(&request).await, on.send(&request).await);
        assert_eq!((&ignored.body, ignored.header("vary")), (&once.body, Some("Accept")), "{field}: {value}");
        assert_eq!(heeded.body, like.body, "{field}: {value}");
        assert_eq!(heeded.header("vary"), Some(&*format!("Accept, {HINTS}")), "{field}: {value}");
        let again = on.send(&request.header("If-None-Match", etag(&heeded))).await;
        assert_eq!((again.status, again.header("vary")), (304, heeded.header("vary")), "{field}: {value}");
    }
    let named = on.send(&Request::picture("size=16&format=webp").header("DPR", "1")).await;
    assert_eq!(named.header("vary"), Some(HINTS));
    let width = on.send(&Request::picture("").accept(WEBP).header("Sec-CH-Width", "30")).await;
    assert_eq!(width.body, twice.body);
    let saving = on.send(&Request::picture("size=32").accept(WEBP).header("Save-Data", "on")).await;
    let coarse = off.send(&Request::picture("size=32&quality=70").accept(WEBP)).await;
    assert_eq!(saving.body, coarse.body);
}

#[actix_web::test]
async fn vary_is_merged_with_upstreams() {
    for (upstreams, merged) in [
        (&[("Vary", "Origin")][..], "Origin, Accept"),
        (&[("Vary", "Accept-Encoding")], "Accept"),
        (&[("Vary", "Origin, accept-encoding"), ("Vary", "accept")], "Origin, accept"),
        (&[], "Accept"),
    ] {
        let upstream = Upstream::answering(with_fields(upstreams)).await;
        let proxy = Proxy::before(upstream.address);
        let answer = proxy.send(&Request::picture("size=32").accept(WEBP)).await;
        assert_eq!(answer.all("vary"), [merged]);
        assert_eq!(answer.header("content-encoding"), None);
    }
}

#[actix_web::test]
async fn a_variant_is_named_by_a_strong_tag_that_two_proxies_agree_on() {
    let (one, other) = (photo_upstream().await, Upstream::showing("77", png(&photo(1))).await);
    let (one, other) = (Proxy::before(one.address), Proxy::before(other.address));
    let mut tags = Vec::new();
    for query in ["size=32", "size=64", "size=32&format=webp", "size=32&q=50", "format=jpeg"] {
        let request = Request::picture(query).accept(WEBP);
        let (one, other) = (one.send(&request).await, other.send(&request).await);
        assert!(etag(&one).starts_with('"') && etag(&one).ends_with('"') && etag(&one).len() > 10, "{}", etag(&one));
        assert_eq!((etag(&one), &one.body), (etag(&other), &other.body), "{query}");
        tags.push((etag(&one).to_owned(), one.body));
    }
    for (tag, body) in &tags {
        assert!(tags.iter().all(|(other, bytes)| (tag == other) == (body == bytes)), "{tag} names one thing");
    }
}

#[actix_web::test]
async fn an_answer_says_all_that_it_should() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let got = proxy.send(&Request::picture("size=32").accept(WEBP)).await;
    assert_eq!(got.header("content-length"), Some(&*got.body.len().to_string()));
    for (name, value) in [
        ("content-type", Some("image/webp")),
        ("cache-control", Some("max-age=86400, private")),
        ("expires", Some("0")),
        ("x-content-type-options", Some("nosniff")),
        ("content-security-policy", Some("default-src 'none'")),
        ("accept-ranges", None),
        ("last-modified", None),
        ("age", None),
        ("cache-status", None),
        ("server-timing", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert!(got.header("date").is_some());
}

#[actix_web::test]
async fn not_modified_says_tag_lifetime_and_vary_and_nothing_of_a_body() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let request = Request::picture("size=32").accept(WEBP);
    let whole = proxy.send(&request).await;

    let again = proxy.send(&request.clone().header("If-None-Match", etag(&whole))).await;

    assert_eq!(again.status, 304);
    for name in ["etag", "cache-control", "vary", "x-content-type-options"] {
        assert_eq!(again.header(name), whole.header(name), "{name}");
    }
    for name in ["content-length", "content-type", "transfer-encoding"] {
        assert_eq!(again.header(name), None, "{name}");
    }
}

#[actix_web::test]
async fn if_none_match_is_read_as_rfc_9110_wants_it() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let request = Request::picture("size=32").accept(WEBP);
    let tag = etag(&proxy.send(&request).await).to_owned();
    for (lines, status) in [
        (&[tag.clone()][..], 304),
        (&[format!("W/{tag}")], 304),
        (&[format!("\"a,b\", {tag}, \"c\"")], 304),
        (&["\"a\"".to_owned(), tag.clone()], 304),
        (&["*".to_owned()], 304),
        (&["\"other\"".to_owned()], 200),
        (&[tag.trim_matches('"').to_owned()], 200),
        (&["1712345678901".to_owned()], 200),
        (&[format!("{tag}, junk")], 200),
    ] {
        let asked = lines.iter().fold(request.clone(), |request, line| request.header("If-None-Match", line));
        assert_eq!(proxy.send(&asked).await.status, status, "{lines:?}");
    }
    // If-Modified-Since has nothing to be compared with, and If-None-Match wins.
    let dated = request.header("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT");
    assert_eq!(proxy.send(&dated).await.status, 200);
}

#[actix_web::test]
async fn a_bare_decimal_matches_only_the_untouched_original() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let bare = |query: &str| Request::picture(query).accept(WEBP).header("If-None-Match", "1712345678901");

    let original = proxy.send(&Request::picture("format=original")).await;
    assert_eq!((etag(&original), &original.body[..]), ("1712345678901", &png(&photo(1))[..]));
    let untouched = proxy.send(&bare("format=original")).await;
    assert_eq!((untouched.status, untouched.header("etag")), (304, Some("1712345678901")));
    assert_eq!(untouched.header("cache-control"), Some("max-age=86400, private"));
    for query in ["", "size=32", "format=webp"] {
        assert_eq!(proxy.send(&bare(query)).await.status, 200, "{query}");
    }
}

#[actix_web::test]
async fn head_is_get_without_body() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    for query in ["size=32", "size=64&format=jpeg", "format=original"] {
        let get = Request::picture(query).accept(WEBP);
        let head = get.clone().method("HEAD");
        let (get, head, conditional) =
            (proxy.send(&get).await, proxy.send(&head).await, proxy.send(&head.header("If-None-Match", "*")).await);
        let named = |answer: &Answer| {
            let mut fields = answer.headers.clone();
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
            fields.sort_unstable();
            fields
        };
        assert_eq!((head.status, named(&head)), (200, named(&get)), "{query}");
        assert!(head.header("content-length").is_some(), "{query}");
        assert_eq!(conditional.status, 304, "{query}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.line.starts_with("GET ")), "upstream answers 404 to HEAD");
}

#[actix_web::test]
async fn ranges_are_ignored() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let whole = proxy.send(&Request::picture("size=32")).await;

    let ranged = Request::picture("size=32").header("Range", "bytes=0-9").header("If-Range", etag(&whole));
    let ranged = proxy.send(&ranged).await;

    assert_eq!((ranged.status, &ranged.body), (200, &whole.body));
    assert_eq!((ranged.header("content-range"), ranged.header("accept-ranges")), (None, None));
    assert!(upstream.seen().iter().all(|seen| seen.header("range").is_none()));
}

#[actix_web::test]
async fn a_lifetime_is_upstreams_but_always_private_and_never_for_good() {
    for (upstreams, sent) in [
        ("max-age=300, private", "max-age=300, private"),
        ("public, max-age=60, immutable", "max-age=60, private"),
        ("max-age=5, s-maxage=9", "max-age=5, private"),
    ] {
        let upstream = Upstream::answering(with_fields(&[("Cache-Control", upstreams), ("Age", "100")])).await;
        let proxy = Proxy::before(upstream.address);
        let answer = proxy.send(&Request::picture("size=32")).await;
        assert_eq!((answer.header("cache-control"), answer.header("age")), (Some(sent), None));
    }
}

#[actix_web::test]
async fn a_url_that_is_newer_than_the_picture_is_not_kept() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    let (kept, not_kept) = ("max-age=86400, private", "private, no-cache");
    for (query, lifetime) in [
        ("_=1712345678901", kept),
        ("_=1712345678900", kept),
        ("_=0", kept),
        ("_=abc", kept),
        ("_=1712345678902", not_kept),
        ("_=-1712345678902", not_kept),
        ("size=32&lastPictureUpdate=1712345678902", not_kept),
        ("format=original&_=1712345678902", not_kept),
    ] {
        let answer = proxy.send(&Request::picture(query)).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some(lifetime)), "{query}");
        let again = proxy.send(&Request::picture(query).header("If-None-Match", etag(&answer))).await;
        assert_eq!((again.status, again.header("cache-control")), (304, Some(lifetime)), "{query}");
    }
}

#[actix_web::test]
async fn only_if_cached_is_504_and_asks_nobody() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);

    let answer = proxy.send(&Request::picture("size=32").header("Cache-Control", "max-age=60, only-if-cached")).await;

    assert_eq!((answer.status, answer.header("cache-control")), (504, Some("no-store")));
    assert_eq!(answer.json()["id"], "avatar_proxy.only_if_cached");
    assert!(upstream.seen().is_empty());
}

#[actix_web::test]
async fn no_transform_and_no_store_pass_through() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);
    for directive in ["no-transform", "max-age=0, No-Store"] {
        let request = Request::picture("size=32").accept(WEBP).header("Cache-Control", directive);
        let answer = proxy.send(&request).await;
        assert_eq!((answer.status, answer.header("vary")), (200, Some("Accept-Encoding")));
        assert_eq!(answer.body, png(&photo(1)));
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!((seen.header("cache-control"), seen.header("accept")), (Some(directive), Some(WEBP)));
        assert!(seen.target().ends_with("/image?size=32"), "all of the query is upstream's");
    }
}

#[actix_web::test]
async fn upstreams_no_transform_is_kept_to() {
    for directive in ["private, no-transform", "no-store"] {
        let upstream = Upstream::answering(with_fields(&[("Cache-Control", directive)])).await;
        let proxy = Proxy::before(upstream.address);
        for _ in 0..2 {
            let answer = proxy.send(&Request::picture("size=32")).await;
            assert_eq!((&answer.body[..], answer.header("cache-control")), (&png(&photo(1))[..], Some(directive)));
        }
        assert_eq!(upstream.seen()[1].header("if-none-match"), None);
    }
}

#[actix_web::test]
async fn every_format_is_read_and_no_variant_is_longer_than_its_source() {
    for source in [png(&photo(1)), jpeg(&photo(2)), gif(&letter(BLUE)), webp(&photo(3)), png(&letter(RED))] {
        let upstream = Upstream::showing("1", source.clone()).await;
        let proxy = Proxy::before(upstream.address);
        for accept in [WEBP, "*/*"] {
            let whole = proxy.send(&Request::picture("").accept(accept)).await;
            assert_eq!(whole.dimensions(), (128, 128));
            let shows_webp = accept == WEBP || !source.starts_with(b"RIFF");
            assert!(!shows_webp || whole.body.len() <= source.len(), "{} of {}", whole.body.len(), source.len());
            assert!(accept == WEBP || whole.header("content-type") != Some("image/webp"));
        }
        let small = proxy.send(&Request::picture("size=32&format=webp")).await;
        assert_eq!((small.header("content-type"), small.dimensions()), (Some("image/webp"), (32, 32)));
    }
}

#[actix_web::test]
async fn a_moving_picture_is_shown_by_its_first_frame_unless_it_is_to_move() {
    let moving = moving_gif(&[solid(RED), solid(BLUE)]);
    let upstream = Upstream::showing("1", moving.clone()).await;
    let proxy = Proxy::before(upstream.address);

    for (query, edge) in [("", 128), ("size=32", 32), ("size=32&animated=0", 32)] {
        let stilled = proxy.send(&Request::picture(query).accept(WEBP)).await;
        assert_eq!((stilled.header("content-type"), stilled.dimensions()), (Some("image/webp"), (edge, edge)));
        assert!(stilled.looks(RED), "{query}");
    }
    let original = proxy.send(&Request::picture("format=original").accept(WEBP)).await;
    assert_eq!((original.header("content-type"), &original.body[..]), (Some("image/gif"), &moving[..]));
}

#[actix_web::test]
async fn many_requests_for_one_variant_render_once() {
    let upstream = photo_upstream().await;
    let proxy = Proxy::before(upstream.address);

    let sent = (0..40).map(|_| async { proxy.send(&Request::picture("size=32")).await });
    let answers = futures_util::future::join_all(sent).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let bodies = upstream.seen().iter().filter(|seen| seen.header("if-none-match").is_none()).count();
    assert_eq!(bodies, 1);
    for stage in ["decode", "resize_encode"] {
        let name = format!("avatar_proxy_render_duration_seconds_count{{stage=\"{stage}\"}}");
        assert_eq!(proxy.metric(&name).await, 1, "{stage}");
    }
}

#[actix_web::test]
async fn what_the_cache_did_is_told_only_where_configured() {
    let upstream = Upstream::answering(picture_answer("1", &png(&photo(1)))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.headers.cache_status = true;
        config.headers.server_timing = true;
    });
    for detail in ["rendered", "hit"] {
        let answer = proxy.send(&Request::picture("size=32")).await;
        let told = answer.header("cache-status").expect("configured");
        assert_eq!(told, format!("avatar-proxy; fwd=miss; fwd-status=200; detail={detail}"));
        assert!(answer.header("server-timing").is_some_and(|timing| timing.starts_with("total;dur=")));
    }
}
