//! Queries, ids, paths and targets that a hostile client may send: what is refused, what is clamped, and what goes
//! upstream byte for byte.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOB, Request};
use crate::pictures::{BLUE, RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, not_modified, picture_answer};

/// A 400 of ours in Mattermost's shape (`model.AppError` in `server/public/model/utils.go`).
fn check_bad_request(answer: &Answer, id: &str, what: &str) {
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")), "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let error = answer.json();
    let mut fields = error.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>();
    fields.sort_unstable();
    assert_eq!(fields, ["detailed_error", "id", "message", "request_id", "status_code"], "{what}");
    assert_eq!((&error["id"], &error["status_code"]), (&id.into(), &400.into()), "{what}");
    assert_eq!(error["request_id"].as_str().map(str::len), Some(26), "{what}");
}

#[actix_web::test]
async fn f33_a_value_that_cannot_be_understood_is_400_and_costs_upstream_nothing() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    let long = format!("size={}", "x".repeat(7000));
    for query in [
        "size=",
        "size",
        "size=0",
        "size=-1",
        "size=1e9",
        "size=NaN",
        "size=3.5",
        "size=abc",
        "size=+32",
        "size=%00",
        "size=32%00",
        "size=%D9%A3%D9%A2",
        "size=%EF%BC%93%EF%BC%92",
        "s=",
        "w=0",
        "h=none",
        "dpr=inf",
        "dpr=nan",
        "dpr=",
        "dpr=-1",
        "dpr=1e1",
        "format=exe",
        "format=",
        "fit=banana",
        "method=thumbnail",
        "q=0",
        "quality=1.5",
        "animated=yes",
        "bg=red",
        "bg=12345",
        &long,
    ] {
        let answer = proxy.send(&Request::picture(query)).await;
        check_bad_request(&answer, "avatar_proxy.query.value", query);
        assert_eq!(answer.header("vary"), Some("Accept"));
    }
    for query in ["size=32&size=64", "size=32&s=64", "%73ize=32&size=64", "f=webp&output=png", "fit=cover&method=scale"]
    {
        check_bad_request(&proxy.send(&Request::picture(query)).await, "avatar_proxy.query.repeated", query);
    }
    let endless = format!("size={}", "3".repeat(10_000));
    check_bad_request(&proxy.send(&Request::picture(&endless)).await, "avatar_proxy.query.too_long", "10 kB");
    let crowded = "a=1&".repeat(101);
    check_bad_request(&proxy.send(&Request::picture(&crowded)).await, "avatar_proxy.query.too_many", "101 pairs");

    // Raw bytes beyond ASCII are no request target: actix refuses them before anybody reads the query.
    assert_eq!(proxy.send(&Request::picture("size=\u{663}\u{662}")).await.status, 400);

    assert!(upstream.seen().is_empty());
    assert_eq!(proxy.metric("avatar_proxy_render_duration_seconds_count{stage=\"decode\"}").await, 0);
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"query\"}").await, 38);
}

#[actix_web::test]
async fn f33_what_becomes_the_same_is_the_same() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    for (query, canonical) in [
        ("size=032", "size=32"),
        ("size=32&size=32", "size=32"),
        ("size=32&s=32", "size=32"),
        ("%73ize=3%32", "size=32"),
        ("size=30", "size=32"),
        ("w=32&h=32", "size=32"),
        ("size=16&dpr=2", "size=32"),
        ("size=32&SIZE=64&size[]=9&size%5B%5D=x", "size=32"),
        ("size=32&_=17&lastPictureUpdate=5&v=2", "size=32"),
        ("size=32&fit=cover&format=auto", "size=32"),
        ("size=9999999", "size=4096"),
        ("size=99999999999999999999", "size=4096"),
        ("q=101&size=32", "q=100&size=32"),
        ("quality=78&size=32", "q=80&size=32"),
        ("size=16&dpr=9", "size=16&dpr=4"),
        ("size=64&dpr=0.1", "size=64&dpr=0.5"),
        ("size[]=5", ""),
        ("f=jpg&size=48", "output=jpeg&s=48"),
        ("method=crop&w=24&h=40", "fit=cover&width=24&height=40"),
        ("method=scale&w=24&h=40", "fit=inside&width=24&height=40"),
        ("background=fFaA00&size=32&format=jpeg", "bg=FFAA00&size=32&format=jpeg"),
    ] {
        let [answer, canonical] = [query, canonical].map(Request::picture);
        let (answer, canonical) = (proxy.send(&answer).await, proxy.send(&canonical).await);
        assert_eq!((answer.status, canonical.status), (200, 200), "{query}");
        assert_eq!(answer.header("etag"), canonical.header("etag"), "{query}");
        assert_eq!(answer.body, canonical.body, "{query}");
    }
}

#[actix_web::test]
async fn our_parameters_stay_here_and_the_others_go_upstream_in_order() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    for (query, forwarded) in [
        ("size=32&w=1&h=2&dpr=1&fit=cover&format=png&q=80&animated=0&bg=ffffff", ""),
        ("z=1&size=32&a=%2F%20+&_=1712345678901&f=webp&z=2", "?z=1&a=%2F%20+&_=1712345678901&z=2"),
        ("%73ize=32&x", "?x"),
        ("lastPictureUpdate=5&s=32&size[]=3", "?lastPictureUpdate=5&size[]=3"),
    ] {
        assert_eq!(proxy.send(&Request::picture(query)).await.status, 200, "{query}");
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!(seen.target(), format!("/api/v4/users/{ALICE}/image{forwarded}"), "{query}");
    }
}

#[actix_web::test]
async fn f34_every_other_spelling_passes_through_byte_for_byte_and_is_never_kept() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    for path in [
        "/api/v4/users/{id}/image/",
        "/api/v4/users/{id}%2fimage",
        "/api/v4/users/{id}%2Fimage",
        "/api/v4/users/%67e45wmpse3g8umtziei4q749th/image",
        "/api/v4/users/GE45WMPSE3G8UMTZIEI4Q749TH/image",
        "/api/v4/users/ge45wmpse3g8umtziei4q749t/image",
        "/api/v4/users/ge45wmpse3g8umtziei4q749thh/image",
        "/api/v4/users/ge45wmpse3g8umtziei4q749t%C3%BC/image",
        "/api/v4/users/{id};x=1/image",
        "/api/v4/users/{id}/image;.png",
        "/api/v4/users/{id}/image.png",
        "/api/v4/users/{id}/image%00",
        "/api/v4/users/{id}/image/x.css",
        "/api/v4/users//{id}/image",
        "//api/v4/users/{id}/image",
    ] {
        let target = path.replace("{id}", ALICE);
        for _ in 0..2 {
            let target = format!("{target}?size=abc&a=%2f");
            let answer = proxy.send(&Request::get(&target).cookie(ALICES_TOKEN).header("X-Own", "1")).await;
            assert_eq!(answer.status, 200, "{target}");
            let seen = upstream.seen().pop().expect("asked");
            assert_eq!((seen.target(), seen.header("x-own")), (&*target, Some("1")));
            assert_eq!(seen.header("if-none-match"), None, "{target}");
        }
    }
    assert_eq!(proxy.metric("avatar_proxy_cache_entries{cache=\"sources\"}").await, 0);
}

#[actix_web::test]
async fn f34_a_path_that_two_parsers_read_differently_is_400() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    for path in [
        "/api/v4/users/../x",
        "/api/v4/users/%2e%2e/y",
        "/api/v4/users/.%2E/y",
        "/api/v4/users/me/%2e/image",
        "/..",
        "/a\\b",
        "/\\evil.example/x",
    ] {
        for method in ["GET", "POST"] {
            let answer = proxy.send(&Request::get(path).method(method).cookie(ALICES_TOKEN)).await;
            assert_eq!(answer.status, 400, "{method} {path}");
        }
    }
    assert!(upstream.seen().is_empty());
}

#[actix_web::test]
async fn f35_only_the_configured_upstream_is_ever_dialled() {
    let (upstream, evil) = (Upstream::showing("1", png(&photo(1))).await, Upstream::answering(Vec::new()).await);
    let proxy = Proxy::before(upstream.address);
    let evil_host = evil.address.to_string();
    for (target, path) in [
        (format!("http://{evil_host}/api/v4/users/{ALICE}/image"), format!("/api/v4/users/{ALICE}/image")),
        (format!("http://{evil_host}/api/v4/config"), "/api/v4/config".to_owned()),
        (format!("//{evil_host}/x"), format!("//{evil_host}/x")),
        (format!("/@{evil_host}/x"), format!("/@{evil_host}/x")),
        (format!("/x?url=http://{evil_host}/"), format!("/x?url=http://{evil_host}/")),
    ] {
        for host in [&evil_host, "chat.example"] {
            let earlier = upstream.seen().len();
            let answer = proxy.send(&Request::get(&target).header("Host", host).cookie(ALICES_TOKEN)).await;
            // Whose site is meant has to be said in one way.
            let disagrees = target.starts_with("http://") && host != evil_host;
            assert_eq!(answer.status, if disagrees { 400 } else { 200 }, "{target}");
            let seen = &upstream.seen()[earlier..];
            assert_eq!(seen.len(), usize::from(!disagrees), "{target}");
            assert!(seen.iter().all(|seen| seen.target() == path), "{seen:?}");
        }
    }
    for request in [
        Request::get(&format!("@{evil_host}/x")),
        Request::get(&format!("/\\{evil_host}/x")),
        Request::get("/x").header("Host", "a.example").header("Host", &evil_host),
    ] {
        assert_eq!(proxy.send(&request).await.status, 400, "{request:?}");
    }
    assert_eq!(upstream.seen().len(), 8);
    assert!(evil.seen().is_empty());
}

#[actix_web::test]
async fn f35_two_sites_share_no_validator() {
    let upstream = Upstream::replying(|_, seen| match (seen.header("host"), seen.header("if-none-match")) {
        (_, Some(_)) => not_modified("0"),
        (Some("red.example"), None) => picture_answer("0", &png(&solid(RED))),
        _ => picture_answer("0", &png(&solid(BLUE))),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    for _ in 0..2 {
        for (host, colour) in [("red.example", RED), ("blue.example", BLUE)] {
            assert!(proxy.send(&Request::picture("").header("Host", host)).await.looks(colour), "{host}");
        }
    }
    let conditional = upstream.seen().iter().filter(|seen| seen.header("if-none-match").is_some()).count();
    assert_eq!((upstream.seen().len(), conditional), (4, 2));
}

#[actix_web::test]
async fn two_users_under_one_tag_keep_their_own_pictures() {
    let upstream = Upstream::replying(|_, seen| match seen.header("if-none-match") {
        Some(_) => not_modified("0"),
        None => picture_answer("0", &png(&solid(if seen.target().contains(ALICE) { RED } else { BLUE }))),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    for _ in 0..2 {
        for (user, colour) in [(ALICE, RED), (BOB, BLUE)] {
            assert!(proxy.send(&Request::picture_of(user, "").cookie(ALICES_TOKEN)).await.looks(colour));
        }
    }
}

#[actix_web::test]
async fn f36_connection_may_not_name_who_asks() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    for named in
        ["Authorization", "Cookie", "close, cookie", "X-Forwarded-For", "Authorization, Cookie, X-Forwarded-For"]
    {
        for request in [Request::picture(""), Request::get("/api/v4/users").cookie(ALICES_TOKEN)] {
            let answer = proxy.send(&request.header("Connection", named)).await;
            check_bad_request(&answer, "avatar_proxy.header.connection", named);
        }
    }
    assert!(upstream.seen().is_empty());

    proxy
        .send(&Request::get("/x").header("Connection", "close, X-Hop").header("X-Hop", "1").header("X-Own", "1"))
        .await;
    let seen = upstream.seen().pop().expect("asked");
    assert_eq!((seen.header("x-hop"), seen.header("x-own")), (None, Some("1")));
}
