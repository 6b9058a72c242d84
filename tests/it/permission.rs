//! Who may see what: upstream is asked in the caller's own name each time, and its answer to this very request decides.

use crate::client::{ALICE, ALICES_TOKEN, BOB, BOBS_TOKEN, Request};
use crate::pictures::{RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, not_modified, picture_answer};
use futures_util::future::join;

const REFUSAL: &[u8] = b"{\"id\":\"api.context.permissions.app_error\"}";

/// Alice may see every picture, everybody else is refused.
async fn only_alice() -> Upstream {
    let picture = png(&photo(1));
    Upstream::replying(move |_, seen| match (is_alices(seen), seen.header("if-none-match")) {
        (false, _) => answer("403 Forbidden", &[("Content-Type", "application/json")], REFUSAL),
        (true, Some("0")) => not_modified("0"),
        (true, _) => picture_answer("0", &picture),
    })
    .await
}

fn is_alices(seen: &Seen) -> bool {
    [seen.header("cookie"), seen.header("authorization")].iter().flatten().any(|value| value.contains(ALICES_TOKEN))
}

#[actix_web::test]
async fn every_request_asks_upstream_in_its_callers_name() {
    let upstream = only_alice().await;
    let proxy = Proxy::before(upstream.address);
    let by_cookie = Request::picture("size=32");
    let by_header = Request::picture_of(ALICE, "size=32").bearer(ALICES_TOKEN);

    for request in [&by_cookie, &by_header, &by_cookie] {
        assert_eq!(proxy.send(request).await.dimensions(), (32, 32));
    }

    let asked =
        |seen: &Seen| ["if-none-match", "cookie", "authorization"].map(|name| seen.header(name).map(str::to_owned));
    let (cookie, bearer) = (format!("MMAUTHTOKEN={ALICES_TOKEN}"), format!("Bearer {ALICES_TOKEN}"));
    let held = Some("0".to_owned());
    let expected = [[None, Some(cookie.clone()), None], [held.clone(), None, Some(bearer)], [held, Some(cookie), None]];
    assert_eq!(upstream.seen().iter().map(asked).collect::<Vec<_>>(), expected);
}

#[actix_web::test]
async fn a_stored_picture_is_not_shown_to_whom_upstream_refuses() {
    let upstream = only_alice().await;
    let proxy = Proxy::before(upstream.address);
    let variant = proxy.send(&Request::picture("size=32").accept("image/webp")).await;
    let tag = variant.header("etag").expect("a tag");
    let bobs = |query: &str| Request::picture_of(ALICE, query).cookie(BOBS_TOKEN);
    for request in [
        bobs("size=32").accept("image/webp"),
        bobs("size=32").accept("image/webp").header("If-None-Match", tag),
        bobs("size=32").header("If-None-Match", "*"),
        bobs("").header("If-None-Match", "0"),
        bobs("format=original").header("If-None-Match", "0"),
        bobs("format=original&_=1712345678901"),
        bobs("size=48").header("Range", "bytes=0-0"),
        bobs("size=32").header("X-HTTP-Method-Override", "HEAD"),
        bobs("size=32").header("X-Forwarded-For", "127.0.0.1").header("X-Forwarded-Host", "chat.example"),
        bobs("size=32").header("Cache-Control", "max-stale"),
        Request::picture_of(ALICE, "size=32").bearer(BOBS_TOKEN).header("If-None-Match", tag),
    ] {
        let refused = proxy.send(&request).await;
        assert_eq!((refused.status, &refused.body[..]), (403, REFUSAL), "{request:?}");
        let head = proxy.send(&request.clone().method("HEAD")).await;
        assert_eq!((head.status, head.header("etag")), (403, None), "{request:?}");
    }
}

#[actix_web::test]
async fn a_refused_caller_who_asks_at_the_same_time_is_refused() {
    for _ in 0..20 {
        let upstream = only_alice().await;
        let proxy = Proxy::before(upstream.address);
        let (alices, bobs) = (Request::picture("size=32"), Request::picture_of(ALICE, "size=32").cookie(BOBS_TOKEN));
        let (alice, bob) = join(proxy.send(&alices), proxy.send(&bobs)).await;
        assert_eq!((alice.status, bob.status), (200, 403));
    }
}

#[actix_web::test]
async fn a_caller_who_was_allowed_is_refused_at_once_when_upstream_says_so() {
    let picture = png(&photo(1));
    let upstream = Upstream::replying(move |n, _| match n {
        0 => picture_answer("1", &picture),
        1 => answer("401 Unauthorized", &[], b"expired"),
        _ => not_modified("1"),
    })
    .await;
    let proxy = Proxy::before(upstream.address);

    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(proxy.send(&Request::picture("size=32")).await.status);
    }
    assert_eq!(statuses, [200, 401, 200]);
}

#[actix_web::test]
async fn our_own_fetch_is_a_fixed_list_of_fields() {
    let upstream = only_alice().await;
    let proxy = Proxy::before(upstream.address);
    let request = Request::picture_of(ALICE, "size=32")
        .header("Cookie", &format!("theme=dark; MMAUTHTOKEN={ALICES_TOKEN}; MMUSERID=x"))
        .header("Host", "chat.example")
        .accept("image/webp")
        .header("Accept-Encoding", "gzip, br")
        .header("Accept-Language", "de")
        .header("If-None-Match", "\"held\"")
        .header("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")
        .header("Range", "bytes=0-1")
        .header("Origin", "https://chat.example")
        .header("User-Agent", "Browser/1")
        .header("X-HTTP-Method-Override", "DELETE")
        .header("X-Requested-With", "XMLHttpRequest")
        .header("X-CSRF-Token", "t")
        .header("Referer", "https://chat.example/x");

    assert_eq!(proxy.send(&request).await.status, 200);

    let seen = upstream.seen().pop().expect("asked");
    let mut fields = seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), &**value)).collect::<Vec<_>>();
    fields.retain(|(name, _)| name != "cdn-loop");
    fields.sort_unstable();
    let fields = fields.iter().map(|(name, value)| (&**name, *value)).collect::<Vec<_>>();
    let cookie = format!("MMAUTHTOKEN={ALICES_TOKEN}");
    let expected = [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("accept-language", "de"),
        ("cookie", &cookie),
        ("host", "chat.example"),
        ("origin", "https://chat.example"),
        ("user-agent", "Browser/1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "chat.example"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "127.0.0.1"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(seen.line, format!("GET /api/v4/users/{ALICE}/image HTTP/1.1"));
}

#[actix_web::test]
async fn credentials_go_upstream_as_they_came() {
    let upstream = only_alice().await;
    let proxy = Proxy::before(upstream.address);
    let request = Request::picture_of(ALICE, "")
        .header("Cookie", "MMAUTHTOKEN=; MMAUTHTOKEN=\"odd\"")
        .header("Cookie", "MMAUTHTOKEN=second")
        .bearer(ALICES_TOKEN)
        .header("X-Mattermost-Preauth-Secret", "s");

    proxy.send(&request).await;

    let seen = upstream.seen().pop().expect("asked");
    assert_eq!(seen.header("cookie"), Some("MMAUTHTOKEN=; MMAUTHTOKEN=\"odd\"; MMAUTHTOKEN=second"));
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {ALICES_TOKEN}")));
    assert_eq!(seen.header("x-mattermost-preauth-secret"), Some("s"));
}

#[actix_web::test]
async fn who_does_not_say_who_asks_passes_through_untouched() {
    let upstream = Upstream::showing("0", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    let (with_token, plain) = (format!("size=32&access_token={BOBS_TOKEN}"), "size=32");
    for (request, query) in [
        (Request::picture_of(ALICE, plain), plain),
        (Request::picture_of(ALICE, plain).header("Cookie", "theme=dark"), plain),
        (Request::picture(&with_token), &with_token),
        (Request::picture("size=32&access%5Ftoken=x"), "size=32&access%5Ftoken=x"),
        (Request::picture(plain).header("X-RemoteCluster-Token", "t").header("X-RemoteCluster-Id", "i"), plain),
        (Request::picture(plain).header("X-Cloud-Token", "t"), plain),
    ] {
        for _ in 0..2 {
            let request = request.clone().accept("image/webp").header("Accept-Encoding", "gzip").header("X-Own", "1");
            let answer = proxy.send(&request).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &png(&photo(1))[..]), "{request:?}");
            assert_eq!((answer.header("etag"), answer.header("vary")), (Some("0"), Some("Accept-Encoding")));
            let seen = upstream.seen().pop().expect("asked");
            assert_eq!(seen.target(), format!("/api/v4/users/{ALICE}/image?{query}"));
            let own = ["accept", "accept-encoding", "x-own", "if-none-match"].map(|name| seen.header(name));
            assert_eq!(own, [Some("image/webp"), Some("gzip"), Some("1"), None]);
        }
    }
}

#[actix_web::test]
async fn nothing_is_kept_under_me() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::before(upstream.address);
    let mine = Request::get("/api/v4/users/me/image?size=32").cookie(ALICES_TOKEN);

    let first = proxy.send(&mine).await;
    let again = proxy.send(&mine.clone().header("If-None-Match", first.header("etag").expect("a tag"))).await;

    assert_eq!((first.dimensions(), again.status), ((32, 32), 304));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!((seen.target(), seen.header("if-none-match")), ("/api/v4/users/me/image", None));
    }
}

#[actix_web::test]
async fn every_kind_of_picture_is_served_and_can_be_switched_off() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let (serving, passing) = (
        Proxy::before(upstream.address),
        Proxy::with(upstream.address, |config| {
            let kinds = &mut config.pictures;
            (kinds.users, kinds.defaults, kinds.teams, kinds.emoji) = (false, false, false, false);
        }),
    );
    for (path, conditional) in [
        (format!("/api/v4/users/{BOB}/image"), true),
        (format!("/api/v4/teams/{BOB}/image"), true),
        // Upstream gives these no tag, or none that can be relied on: each time in full.
        (format!("/api/v4/users/{BOB}/image/default"), false),
        (format!("/api/v4/emoji/{BOB}/image"), false),
    ] {
        let request = Request::get(&format!("{path}?size=32")).cookie(ALICES_TOKEN);
        for held in [None, conditional.then_some("1")] {
            assert_eq!(serving.send(&request).await.dimensions(), (32, 32), "{path}");
            let seen = upstream.seen().pop().expect("asked");
            assert_eq!((seen.target(), seen.header("if-none-match")), (&*path, held));
        }
        assert_eq!(passing.send(&request).await.dimensions(), (128, 128), "{path}");
        assert_eq!(upstream.seen().pop().expect("asked").target(), format!("{path}?size=32"));
    }
}

#[actix_web::test]
async fn forwarding_fields_of_strangers_are_replaced_and_of_trusted_proxies_extended() {
    let upstream = Upstream::showing("1", png(&solid(RED))).await;
    let (strict, trusting) = (
        Proxy::before(upstream.address),
        Proxy::with(upstream.address, |config| {
            config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        }),
    );
    let names = ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
    let given = ["203.0.113.9", "203.0.113.9", "https", "outer.example", "for=203.0.113.9"];
    let replaced = ["127.0.0.1", "127.0.0.1", "http", "chat.example", ""];
    let extended =
        ["203.0.113.9, 127.0.0.1", "203.0.113.9", "https", "outer.example", "for=203.0.113.9, for=127.0.0.1"];
    for (proxy, expected) in [(&strict, replaced), (&trusting, extended)] {
        for request in [Request::picture("size=32"), Request::get("/api/v4/users").cookie(ALICES_TOKEN)] {
            let request = names.iter().zip(given).fold(request, |request, (name, value)| request.header(name, value));
            proxy.send(&request.header("Host", "chat.example")).await;
            let seen = upstream.seen().pop().expect("asked");
            assert_eq!(names.map(|name| seen.header(name).unwrap_or_default()), expected);
        }
    }
}
