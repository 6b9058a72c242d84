//! What one client can make others pay: strangers, the refused and the busy end nobody's grants and have no picture
//! forgotten, however often and however oddly they ask.

use crate::client::{ALICE, ALICES_TOKEN, BOB, BOBS_TOKEN, PATIENCE, Request};
use crate::mattermost::{costing, earns_grant, image_form, looks_at, picture_path, shows, town, uploads};
use crate::pictures::{BLUE, RED, letter, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, not_modified, picture_answer};
use avatar_proxy::config::Rate;
use avatar_proxy::demo::StandIn;
use serde_json::json;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HOUR: Duration = Duration::from_secs(3600);

/// A token of 26 characters that upstream has never answered.
const STRANGERS_TOKEN: &str = "strangerstrangerstranger00";

/// Ends all grants, if upstream agrees.
const ENDING: &str = "/api/v4/users/sessions/revoke/all";

/// Shows everybody one picture, and answers all that is no picture with `other`.
async fn showing_and(other: impl Fn(&Seen) -> Vec<u8> + 'static) -> Upstream {
    let picture = png(&solid(RED));
    Upstream::replying(move |_, seen| {
        let shows = seen.line.starts_with("GET ") && seen.target().contains("/image");
        match seen.header("if-none-match") {
            _ if !shows => other(seen),
            Some("1") => not_modified("1"),
            _ => picture_answer("1", &picture),
        }
    })
    .await
}

/// Bob's own, as he has looked at it.
fn bobs() -> Request {
    Request::picture_of(BOB, "size=32").cookie(BOBS_TOKEN)
}

/// How often upstream is asked for what has to be shown.
async fn cost(proxy: &Proxy, upstream: &Upstream, request: &Request) -> usize {
    let before = upstream.seen().len();
    assert_eq!(proxy.send(request).await.status, 200, "{request:?}");
    upstream.seen().len() - before
}

/// A proxy on which so many questions are left to each caller.
fn sparing(upstream: SocketAddr, ttl: Duration, count: u32) -> Proxy {
    Proxy::with(upstream, |config| {
        config.grants.ttl = ttl;
        config.limits.caller_misses = Some(Rate { count, per: HOUR });
    })
}

/// Finding 1: the router sends these on, and nothing has ended.
#[actix_web::test]
async fn a_path_that_the_router_redirects_ends_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    for path in ["users/sessions//x", "users/me/sessions//revoke", "groups/x/teams//x", "ldap//x", "license//x"] {
        let anonymous = Request::new("POST", &format!("/api/v4/{path}"));
        for request in [anonymous.clone(), anonymous.bearer(&town.token("bob"))] {
            assert_eq!(proxy.send(&request).await.status, 301, "{path}");
            assert_eq!(costing(&proxy, &town, &look).await.1, 0, "{path}");
        }
    }
}

/// Finding 1: whatever such a path is answered with, it is none of those that end something.
#[actix_web::test]
async fn a_path_that_the_router_redirects_is_no_ending() {
    let upstream = showing_and(|_| answer("200 OK", &[], b"{}")).await;
    let proxy = Proxy::granting(upstream.address);
    proxy.send(&bobs()).await;
    for path in ["users/sessions//x", "users/me/sessions//revoke", "groups/x/teams//x", "license//x"] {
        let request = Request::new("POST", &format!("/api/v4/{path}")).cookie(BOBS_TOKEN);
        assert_eq!(proxy.send(&request).await.status, 200);
        assert_eq!(cost(&proxy, &upstream, &bobs()).await, 0, "{path}");
    }
    assert_eq!(proxy.send(&Request::new("POST", ENDING).cookie(BOBS_TOKEN)).await.status, 200);
    assert_eq!(cost(&proxy, &upstream, &bobs()).await, 1);
}

/// Findings 1, 2 and 5: what upstream says decides, and where it says nothing of use, who asks.
#[actix_web::test]
async fn what_a_request_may_end_is_decided_by_what_upstream_says_and_to_whom() {
    let status = Rc::new(Cell::new(""));
    let says = status.clone();
    let upstream = showing_and(move |_| match says.get() {
        // It hangs up.
        "" => Vec::new(),
        status => answer(status, &[], b"{}"),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let alices = Request::picture("size=32");
    let ending = Request::new("POST", ENDING);
    let known = ending.clone().cookie(ALICES_TOKEN);
    for (said, by_strangers, by_alice) in [
        ("200 OK", 1, 1),
        ("301 Moved Permanently", 0, 0),
        ("308 Permanent Redirect", 0, 0),
        ("400 Bad Request", 0, 0),
        ("403 Forbidden", 0, 0),
        ("429 Too Many Requests", 0, 0),
        ("501 Not Implemented", 0, 0),
        ("500 Internal Server Error", 0, 1),
        ("502 Bad Gateway", 0, 1),
        ("", 0, 1),
    ] {
        let strangers = [
            ending.clone(),
            ending.clone().header("Authorization", "x"),
            ending.clone().header("Authorization", "Basic eDp5"),
            ending.clone().bearer(STRANGERS_TOKEN),
        ];
        let strangers = strangers.iter().map(|request| (request, by_strangers));
        for (request, asked) in strangers.chain([(&known, by_alice)]) {
            for look in [&alices, &bobs()] {
                proxy.send(look).await;
                assert_eq!(cost(&proxy, &upstream, look).await, 0);
            }
            status.set(said);
            let told = proxy.send(request).await.status;
            assert_eq!(told.to_string(), if said.is_empty() { "502" } else { &said[..3] });
            assert_eq!(cost(&proxy, &upstream, &bobs()).await, asked, "{said:?} to {request:?}");
        }
    }
}

/// Finding 2: of a body that breaks off nobody knows what upstream made.
#[actix_web::test]
async fn a_stranger_whose_body_breaks_off_ends_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    for n in 1..=3 {
        let cut = Request::new("POST", ENDING).header("Authorization", "x").header("Content-Length", "100").body("{");
        let mut stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        stream.write_all(&cut.bytes("chat.example")).await.expect("taken");
        stream.shutdown().await.expect("a socket");
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("an end");
        // It has been followed to its end.
        let followed = async {
            while proxy.metric("avatar_proxy_grants_ended_total{scope=\"session\"}").await < n {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, followed).await.expect("it is counted");
        assert_eq!(costing(&proxy, &town, &look).await.1, 0);
    }
}

/// Finding 2: what was never sent has ended nothing, and in an outage a grant is all there is.
#[actix_web::test]
async fn nobody_ends_anything_while_upstream_is_down() {
    let mut upstream = showing_and(|_| answer("200 OK", &[], b"{}")).await;
    let proxy = Proxy::granting(upstream.address);
    for look in [&Request::picture("size=32"), &bobs()] {
        assert_eq!(proxy.send(look).await.status, 200);
    }
    upstream.refuse().await;
    let ending = Request::new("POST", ENDING);
    for request in [
        ending.clone(),
        ending.clone().header("Authorization", "x"),
        ending.clone().cookie(ALICES_TOKEN),
        ending.clone().cookie(ALICES_TOKEN).body("{}"),
    ] {
        assert_eq!(proxy.send(&request).await.status, 502);
        assert_eq!(proxy.send(&bobs()).await.status, 200, "{request:?}");
    }
}

/// Finding 3: upstream fails over a token that nobody has, so whose record it is remains unknown.
#[actix_web::test]
async fn a_stranger_about_whom_nothing_is_known_has_nothing_forgotten() {
    let upstream = showing_and(|_| answer("500 Internal Server Error", &[], b"{}")).await;
    let (granting, strict) = (Proxy::granting(upstream.address), Proxy::before(upstream.address));
    let token = "t".repeat(2100);
    for proxy in [&granting, &strict] {
        assert_eq!(proxy.send(&bobs()).await.status, 200);
    }
    for (method, path) in [("PUT", "me"), ("PUT", "me/patch"), ("POST", "me/image"), ("DELETE", "me/image")] {
        let target = format!("/api/v4/users/{path}?access_token={token}");
        for request in [Request::new(method, &target), Request::new(method, &target).header("Authorization", "x")] {
            assert_eq!(granting.send(&request).await.status, 500);
            assert_eq!(cost(&granting, &upstream, &bobs()).await, 0, "{method} {path}");
            assert_eq!(strict.send(&request).await.status, 500);
            assert_eq!(cost(&strict, &upstream, &bobs()).await, 1, "{method} {path}");
            let seen = upstream.seen();
            let last = seen.last().expect("asked");
            assert_eq!(last.header("if-none-match"), Some("1"), "{method} {path}");
        }
    }
}

/// Finding 4: a version in a URL is heeded by whoever pays for the question.
#[actix_web::test]
async fn a_caller_whose_budget_is_spent_makes_nobody_else_ask() {
    let upstream = showing_and(|_| answer("404 Not Found", &[], b"{}")).await;
    let proxy = sparing(upstream.address, HOUR, 4);
    let bobs = Request::picture_of(ALICE, "size=32").cookie(BOBS_TOKEN);
    assert_eq!(cost(&proxy, &upstream, &bobs).await, 1);
    let mut statuses = Vec::new();
    for stamp in 0..12 {
        let query = if stamp == 0 { "size=32" } else { &format!("size=32&_={}", 1000 + stamp) };
        statuses.push(proxy.send(&Request::picture(query)).await.status);
        assert_eq!(cost(&proxy, &upstream, &bobs).await, 0, "after {statuses:?}");
    }
    assert_eq!(statuses, [[200; 4].as_slice(), [429; 8].as_slice()].concat());
}

/// Finding 5: an administrator's script may end everybody's grants now and then, not all the time.
#[actix_web::test]
async fn one_token_ends_everybodys_grants_a_few_times_a_minute_and_its_own_always() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let [alices, admins] = ["alice", "mmadmin"].map(|viewer| looks_at(&town, viewer, "nova", "size=32"));
    let ending = || {
        let path = format!("/api/v4/users/{}/active", town.id("bob"));
        let request = Request::new("PUT", &path).header("Content-Type", "application/json");
        request.body(json!({"active": true}).to_string()).bearer(&town.token("mmadmin"))
    };
    let ends = async |look: &Request| {
        proxy.send(look).await;
        assert_eq!(proxy.send(&ending()).await.status, 200);
        costing(&proxy, &town, look).await.1 == 1
    };
    let mut ended = 0;
    while ends(&alices).await {
        ended += 1;
        assert!(ended < 100, "it never stops");
    }
    assert!(ended >= 10, "{ended}");
    for _ in 0..3 {
        assert!(ends(&admins).await);
    }
}

/// Finding 6: Go drops a cookie with a backslash in its value, so the token behind it is looked at.
#[actix_web::test]
async fn a_cookie_that_upstream_drops_opens_no_new_budget() {
    for ttl in [Duration::ZERO, HOUR] {
        let upstream = showing_and(|_| answer("404 Not Found", &[], b"{}")).await;
        let proxy = sparing(upstream.address, ttl, 3);
        let bearer = || Request::picture_of(ALICE, "size=32").bearer(ALICES_TOKEN).header("Cache-Control", "no-cache");
        let mut statuses = Vec::new();
        for n in 0..6 {
            let odd = bearer().header("Cookie", &format!("MMAUTHTOKEN=\\{n}"));
            statuses.push(proxy.send(&odd).await.status);
        }
        assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
        assert_eq!(proxy.send(&bearer()).await.status, 429, "it is the same budget");
        assert_eq!(proxy.send(&bobs()).await.status, 200, "and nobody else's");
    }
}

/// Finding 7: where the stored file is missing, upstream draws a picture and gives it no tag.
#[actix_web::test]
async fn a_picture_that_upstream_has_lost_does_not_come_back() {
    for ttl in [Duration::ZERO, HOUR] {
        let lost = Rc::new(Cell::new(false));
        let is_lost = lost.clone();
        let (stored, drawn) = (png(&solid(RED)), png(&solid(BLUE)));
        let upstream = Upstream::replying(move |_, seen| match seen.header("if-none-match") {
            _ if is_lost.get() => answer("200 OK", &[("Content-Type", "image/png")], &drawn),
            Some("1") => not_modified("1"),
            _ => picture_answer("1", &stored),
        })
        .await;
        let proxy = Proxy::with(upstream.address, |config| config.grants.ttl = ttl);
        let by = |token: &str| Request::picture_of(ALICE, "size=32").cookie(token);
        for token in [ALICES_TOKEN, BOBS_TOKEN] {
            assert!(proxy.send(&by(token)).await.looks(RED));
        }
        lost.set(true);
        let reload = by(ALICES_TOKEN).header("Cache-Control", "no-cache");
        assert!(proxy.send(&reload).await.looks(BLUE));
        assert_eq!(upstream.seen().last().expect("asked").header("if-none-match"), Some("1"));
        for token in [BOBS_TOKEN, ALICES_TOKEN, BOBS_TOKEN] {
            assert!(proxy.send(&by(token)).await.looks(BLUE));
            assert_eq!(upstream.seen().last().expect("asked").header("if-none-match"), None);
        }
    }
}

/// Whether upstream has to send the whole picture again.
async fn is_forgotten(proxy: &Proxy, town: &StandIn, look: &Request) -> bool {
    let before = town.count();
    assert_eq!(proxy.send(look).await.status, 200);
    town.count().pictures > before.pictures
}

/// Finding 8: a stranger's attempt is believed when upstream says that it came to something.
#[actix_web::test]
async fn a_write_of_a_stranger_that_upstream_refuses_forgets_nothing() {
    let town = town();
    let path = picture_path(&town, "nova");
    let look = looks_at(&town, "alice", "nova", "size=32");
    for proxy in [Proxy::granting(town.address()), Proxy::before(town.address())] {
        assert!(is_forgotten(&proxy, &town, &look).await, "not known yet");
        for request in [
            Request::new("DELETE", &path),
            image_form(&path, &letter(RED)),
            Request::new("PUT", &format!("/api/v4/users/{}/patch", town.id("nova"))).body("{}"),
            Request::new("DELETE", "/api/v4/users/me/image"),
        ] {
            assert_eq!(proxy.send(&request).await.status, 401);
            assert!(!is_forgotten(&proxy, &town, &look).await, "{request:?}");
        }
    }
}

/// Finding 8: whoever is refused again and again is believed no more, but for what upstream says was done.
#[actix_web::test]
async fn one_token_has_pictures_forgotten_by_refused_writes_some_times_a_minute_and_by_done_ones_always() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let [novas, carols] = ["nova", "carol"].map(|user| looks_at(&town, "alice", user, "size=32"));
    proxy.send(&novas).await;
    let refused = Request::new("DELETE", &picture_path(&town, "nova")).bearer(&town.token("carol"));
    let mut forgotten = 0;
    loop {
        assert_eq!(proxy.send(&refused).await.status, 403);
        if !is_forgotten(&proxy, &town, &novas).await {
            break;
        }
        forgotten += 1;
        assert!(forgotten < 1000, "it never stops");
    }
    assert!(forgotten >= 60, "{forgotten}");
    for n in 3..6 {
        earns_grant_again(&proxy, &town, &carols).await;
        assert_eq!(proxy.send(&uploads(&town, "carol", &photo(n))).await.status, 200);
        assert!(shows(&proxy.send(&carols).await, &photo(n)));
    }
}

/// [`earns_grant`], whether or not there is one.
async fn earns_grant_again(proxy: &Proxy, town: &StandIn, look: &Request) {
    proxy.send(look).await;
    assert_eq!(costing(proxy, town, look).await.1, 0);
}
