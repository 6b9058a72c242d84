//! Grants: upstream's yes is remembered for a while, for the very caller and picture it was said to and of, and only
//! for requests that may be answered by it.

use crate::client::{Answer, PATIENCE, Request};
use crate::mattermost::{BROWSER, costing, decoded, earns_grant, looks_at, picture_path, shows, town};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::Upstream;
use avatar_proxy::demo::{Options, StandIn};
use futures_util::future::join_all;
use std::time::Duration;

/// A browser asks for a user's picture with the cookie of a session.
fn by_cookie(town: &StandIn, viewer: &str, user: &str, query: &str) -> Request {
    Request::picture_of(&town.id(user), query).cookie(&town.token(viewer)).accept(BROWSER)
}

/// The ids of the town's emoji, the still one first.
fn emoji() -> Vec<String> {
    Options::default().emoji.into_iter().map(|emoji| emoji.id).collect()
}

#[actix_web::test]
async fn a_thousand_hits_within_the_time_of_a_grant_ask_upstream_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let sizes = ["size=16", "size=32", "size=64&format=png", "", "format=original"];
    for query in sizes {
        proxy.send(&looks_at(&town, "alice", "nova", query)).await;
    }
    let requests = town.count().requests;
    for batch in 0..20 {
        let looks = (0..50).map(|n| looks_at(&town, "alice", "nova", sizes[(batch + n) % sizes.len()]));
        let answers = join_all(looks.map(async |look| proxy.send(&look).await)).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
    }
    assert_eq!((requests, town.count().requests), (1, 1));
}

#[actix_web::test]
async fn a_grant_is_for_one_set_of_credentials() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let (path, token) = (format!("{}?size=32", picture_path(&town, "nova")), town.token("alice"));
    let (second, bobs) = (town.sign_in("alice").token, town.token("bob"));
    let ask = || Request::get(&path).accept(BROWSER);
    for request in [
        ask().cookie(&token),
        ask().bearer(&token),
        ask().header("Authorization", &format!("Token {token}")),
        ask().cookie(&token).bearer(&token),
        ask().cookie(&token).bearer(&bobs),
        ask().cookie(&token).header("X-Mattermost-Preauth-Secret", "s"),
        ask().cookie(&token).header("X-Mattermost-Preauth-Secret", "t"),
        ask().cookie(&second),
        ask().cookie(&bobs),
        ask().cookie(&token).header("Host", "chat.example"),
        ask().cookie(&token).header("Host", "chat.example:8066"),
    ] {
        earns_grant(&proxy, &town, &request).await;
    }
    // What upstream does not look at does not count.
    for request in [
        ask().header("Cookie", &format!("theme=dark; MMAUTHTOKEN={token}; MMUSERID=x")),
        ask().cookie(&token).header("X-Anything", "1").header("User-Agent", "Browser/2"),
    ] {
        assert_eq!(costing(&proxy, &town, &request).await.1, 0, "{request:?}");
    }
}

#[actix_web::test]
async fn a_grant_is_for_one_picture_of_one_kind() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let nova = picture_path(&town, "nova");
    let team = &Options::default().teams[0].id;
    for path in [
        nova.clone(),
        format!("{nova}/default"),
        picture_path(&town, "erin"),
        format!("{}/default", picture_path(&town, "erin")),
        format!("/api/v4/teams/{team}/image"),
        format!("/api/v4/emoji/{}/image", emoji()[0]),
        format!("/api/v4/emoji/{}/image", emoji()[1]),
    ] {
        earns_grant(&proxy, &town, &Request::get(&path).bearer(&town.token("alice")).accept(BROWSER)).await;
    }
    // A picture's id is another thing's under another kind: asked for, and not there.
    let crossed = Request::get(&format!("/api/v4/teams/{}/image", town.id("nova"))).bearer(&town.token("alice"));
    assert_eq!(costing(&proxy, &town, &crossed).await.0.status, 404);
}

/// Asked without a pause, so that a grant that slid would never end.
#[actix_web::test]
async fn a_grant_ends_with_its_time_and_never_slides() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| config.grants.ttl = Duration::from_secs(1));
    let look = looks_at(&town, "alice", "nova", "size=32");
    proxy.send(&look).await;
    let mut served = 0;
    let ends = async {
        while costing(&proxy, &town, &look).await.1 == 0 {
            served += 1;
        }
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
    assert!(served > 0);
    let count = town.count();
    assert_eq!((count.pictures, count.not_modified), (1, 1));
}

/// The time of a grant begins with the question, however late the answer comes.
#[actix_web::test]
async fn a_grant_starts_when_the_question_was_put() {
    let town = town();
    let ttl = Duration::from_millis(200);
    let proxy = Proxy::with(town.address(), |config| config.grants.ttl = ttl);
    town.delay(ttl);
    let look = looks_at(&town, "alice", "nova", "size=32");
    for _ in 0..3 {
        assert_eq!(costing(&proxy, &town, &look).await.1, 1);
    }
}

#[actix_web::test]
async fn without_time_every_request_is_asked() {
    let town = town();
    let proxy = Proxy::before(town.address());
    for _ in 0..3 {
        assert_eq!(costing(&proxy, &town, &looks_at(&town, "alice", "nova", "size=32")).await.1, 1);
    }
}

#[actix_web::test]
async fn what_may_not_be_answered_from_memory_is_asked_though_there_is_a_grant() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = |query: &str| by_cookie(&town, "alice", "nova", query);
    let plain = look("size=32");
    earns_grant(&proxy, &town, &plain).await;
    let me = Request::get("/api/v4/users/me/image?size=32").cookie(&town.token("alice")).accept(BROWSER);
    assert_eq!(proxy.send(&me).await.status, 200);
    let with = |name: &str, value: &str| plain.clone().header(name, value);
    for request in [
        me,
        with("Cache-Control", "no-cache"),
        with("Cache-Control", "max-age=0"),
        with("Cache-Control", "private, No-Cache"),
        with("Cache-Control", "no-store"),
        with("Cache-Control", "no-transform"),
        with("Pragma", "no-cache"),
        with("Origin", "https://chat.example"),
        with("Origin", "null"),
        with("X-RemoteCluster-Id", "i"),
        with("X-RemoteCluster-Token", "t"),
        with("X-Cloud-Token", "t"),
        look(&format!("size=32&access_token={}", town.token("alice"))),
        look("size=32&access%5Ftoken=x"),
        Request::picture_of(&town.id("nova"), "size=32"),
        Request::picture_of(&town.id("nova"), "size=32").header("Cookie", "theme=dark"),
    ] {
        for _ in 0..2 {
            assert_eq!(costing(&proxy, &town, &request).await.1, 1, "{request:?}");
        }
    }
    assert_eq!(costing(&proxy, &town, &plain).await.1, 0, "her grant is still there");
}

#[actix_web::test]
async fn a_reload_is_upstreams_answer_of_now() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = by_cookie(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    town.show("nova", png(&photo(3)));
    assert!(!shows(&proxy.send(&look).await, &photo(3)), "nobody was heard to say so");
    assert!(shows(&proxy.send(&look.clone().header("Cache-Control", "no-cache")).await, &photo(3)));
    let (after, asked) = costing(&proxy, &town, &look).await;
    assert!(asked == 0 && shows(&after, &photo(3)));
    town.deny("alice", "nova");
    assert_eq!(proxy.send(&look.clone().header("Pragma", "no-cache")).await.status, 403);
    assert_eq!(costing(&proxy, &town, &look).await.0.status, 403);
}

/// RFC 9111 section 5.2.1.1: counted from when upstream was asked.
#[actix_web::test]
async fn max_age_says_how_old_a_grant_may_be() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = by_cookie(&town, "alice", "nova", "size=32");
    let within = |seconds: &str| look.clone().header("Cache-Control", &format!("max-age={seconds}"));
    earns_grant(&proxy, &town, &look).await;
    for (seconds, asked) in [("3600", 0), ("\"3600\"", 0), ("0", 1), ("x", 1), ("3600, max-age=0", 1), ("3600", 0)] {
        assert_eq!(costing(&proxy, &town, &within(seconds)).await.1, asked, "{seconds}");
    }
    let one_second = async {
        loop {
            let (answer, asked) = costing(&proxy, &town, &within("1").header("Accept", "*/*")).await;
            if asked == 1 {
                return answer;
            }
            assert_eq!(answer.status, 200);
        }
    };
    let asked_anew = tokio::time::timeout(PATIENCE, one_second).await.expect("it grows too old");
    assert_eq!((asked_anew.status, asked_anew.header("age")), (200, None));
    assert_eq!(costing(&proxy, &town, &within("3600")).await.1, 0);
}

#[actix_web::test]
async fn only_if_cached_is_answered_by_a_grant_or_not_at_all() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = by_cookie(&town, "alice", "nova", "size=32");
    let cached = look.clone().header("Cache-Control", "only-if-cached");
    let (none, asked) = costing(&proxy, &town, &cached).await;
    assert_eq!((none.status, asked, none.header("cache-control")), (504, 0, Some("no-store")));
    let shown = earns_grant(&proxy, &town, &look).await;
    let (hit, asked) = costing(&proxy, &town, &cached).await;
    assert_eq!((hit.status, asked, &hit.body), (200, 0, &shown.body));
    // Another's grant is no grant, and a reload cannot be had from memory.
    let bobs = by_cookie(&town, "bob", "nova", "size=32").header("Cache-Control", "only-if-cached");
    for request in [bobs, cached.header("Pragma", "no-cache")] {
        let (answer, asked) = costing(&proxy, &town, &request).await;
        assert_eq!((answer.status, asked), (504, 0));
    }
}

#[actix_web::test]
async fn age_is_the_time_since_upstream_was_asked() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = by_cookie(&town, "alice", "nova", "size=32");
    assert_eq!(proxy.send(&look).await.header("age"), None);
    assert_eq!(proxy.send(&look).await.header("age"), Some("0"));
    let grows = async { while proxy.send(&look).await.header("age") != Some("1") {} };
    tokio::time::timeout(PATIENCE, grows).await.expect("it grows");
    let not_modified = look.clone().header("If-None-Match", "*");
    let not_modified = proxy.send(&not_modified).await;
    assert_eq!((not_modified.status, not_modified.header("age").is_some()), (304, true));
    let reload = proxy.send(&look.clone().header("Cache-Control", "no-cache")).await;
    assert_eq!(reload.header("age"), None);
    assert_eq!(proxy.send(&look).await.header("age"), Some("0"));
    assert_eq!(town.count().picture_requests, 2);
}

#[actix_web::test]
async fn cache_status_says_what_the_cache_did_and_why_upstream_was_asked() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.headers.cache_status = true;
    });
    let look = |viewer: &str, query: &str| by_cookie(&town, viewer, "nova", query);
    let reload = look("alice", "size=32").header("Cache-Control", "no-cache");
    for (request, status) in [
        (look("alice", "size=32"), "avatar-proxy; fwd=miss; fwd-status=200; detail=rendered"),
        (look("alice", "size=32"), "avatar-proxy; hit; detail=hit"),
        (look("alice", "size=16"), "avatar-proxy; hit; detail=rendered"),
        (look("alice", "format=original"), "avatar-proxy; hit; detail=original"),
        (look("bob", "size=32"), "avatar-proxy; fwd=stale; fwd-status=304; detail=hit"),
        (reload.clone(), "avatar-proxy; fwd=request; fwd-status=304; detail=hit"),
    ] {
        assert_eq!(proxy.send(&request).await.header("cache-status"), Some(status), "{request:?}");
    }
    town.show("nova", png(&photo(3)));
    let status = "avatar-proxy; fwd=request; fwd-status=200; detail=rendered";
    assert_eq!(proxy.send(&reload).await.header("cache-status"), Some(status));
    town.deny("bob", "nova");
    let refused = proxy.send(&look("bob", "size=32").header("Cache-Control", "no-cache")).await;
    assert_eq!((refused.status, refused.header("cache-status")), (403, None));
}

#[actix_web::test]
async fn cache_status_tells_of_an_outage_once_upstream_has_not_answered() {
    let mut upstream = Upstream::showing("1", png(&photo(1))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.headers.cache_status = true;
    });
    let look = Request::picture("size=32");
    let reload = look.clone().header("Cache-Control", "no-cache");
    let status = async |request: &Request| proxy.send(request).await.header("cache-status").map(str::to_owned);
    assert_eq!(proxy.send(&look).await.status, 200);
    assert_eq!(status(&look).await.as_deref(), Some("avatar-proxy; hit; detail=hit"));
    upstream.refuse().await;
    // Nobody has asked since.
    assert_eq!(status(&look).await.as_deref(), Some("avatar-proxy; hit; detail=hit"));
    assert_eq!(proxy.send(&reload).await.status, 502);
    assert_eq!(status(&look).await.as_deref(), Some("avatar-proxy; hit; detail=outage"));
}

#[actix_web::test]
async fn a_hit_says_all_that_an_asked_answer_says() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    for query in ["size=32", "size=64&format=png", "", "format=original", "size=32&_=1"] {
        let look = by_cookie(&town, "alice", "nova", query);
        proxy.send(&look).await;
        let asked = proxy.send(&look.clone().header("Cache-Control", "no-cache")).await;
        let (hit, cost) = costing(&proxy, &town, &look).await;
        assert_eq!((hit.status, cost, &hit.body), (200, 0, &asked.body), "{query}");
        for name in [
            "content-type",
            "content-length",
            "etag",
            "vary",
            "cache-control",
            "x-content-type-options",
            "content-security-policy",
        ] {
            assert_eq!(hit.header(name), asked.header(name), "{query} {name}");
        }
        assert!(hit.header("date").is_some() && hit.header("set-cookie").is_none());
        let (head, cost) = costing(&proxy, &town, &look.clone().method("HEAD")).await;
        assert_eq!((head.status, cost, head.body.len()), (200, 0, 0), "{query}");
        let tag = hit.header("etag").expect("a tag");
        let (not_modified, cost) = costing(&proxy, &town, &look.clone().header("If-None-Match", tag)).await;
        assert_eq!((not_modified.status, cost, not_modified.body.len()), (304, 0, 0), "{query}");
        for name in ["etag", "vary", "cache-control", "content-type", "content-length"] {
            assert_eq!(head.header(name), hit.header(name), "{query} {name}");
            let expected = hit.header(name).filter(|_| !name.starts_with("content-"));
            assert_eq!(not_modified.header(name), expected, "{query} {name}");
        }
        let other = look.header("If-None-Match", "\"another\"");
        assert_eq!(costing(&proxy, &town, &other).await.0.status, 200, "{query}");
    }
}

#[actix_web::test]
async fn pictures_without_a_validator_are_kept_for_those_with_a_grant_alone() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let default = format!("{}/default", picture_path(&town, "nova"));
    for path in [default, format!("/api/v4/emoji/{}/image", emoji()[0]), format!("/api/v4/emoji/{}/image", emoji()[1])]
    {
        let by = |viewer: &str| Request::get(&format!("{path}?size=32")).bearer(&town.token(viewer)).accept(BROWSER);
        let bodies = town.count().pictures;
        let first = earns_grant(&proxy, &town, &by("alice")).await;
        let second = earns_grant(&proxy, &town, &by("bob")).await;
        assert_eq!(first.body, second.body, "{path}");
        assert_eq!(town.count().pictures, bodies + 2, "each was sent the whole of {path}");
        let held = by("alice").header("If-None-Match", first.header("etag").expect("a tag of ours"));
        let (not_modified, asked) = costing(&proxy, &town, &held).await;
        assert_eq!((not_modified.status, asked), (304, 0), "{path}");
        assert!(town.received().iter().all(|seen| seen.header("if-none-match").is_none()));
    }
}

#[actix_web::test]
async fn an_emoji_that_is_deleted_through_us_is_gone_for_everybody_with_a_grant() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let path = format!("/api/v4/emoji/{}", emoji()[0]);
    let by = |viewer: &str| Request::get(&format!("{path}/image?size=20")).bearer(&town.token(viewer)).accept(BROWSER);
    for viewer in ["alice", "bob"] {
        earns_grant(&proxy, &town, &by(viewer)).await;
    }
    let refused = Request::new("DELETE", &path).bearer(&town.token("gus"));
    assert_eq!(proxy.send(&refused).await.status, 403);
    assert_eq!(costing(&proxy, &town, &by("bob")).await.0.status, 200);
    assert_eq!(proxy.send(&Request::new("DELETE", &path).bearer(&town.token("mmadmin"))).await.status, 200);
    for viewer in ["alice", "bob", "alice"] {
        let (gone, asked) = costing(&proxy, &town, &by(viewer)).await;
        assert_eq!((gone.status, asked), (404, 1), "{viewer}");
    }
}

/// The shapes in which credentials come, by `a`'s token and `b`'s.
fn shapes(a: &str, b: &str) -> Vec<Vec<(&'static str, String)>> {
    let cookie = |value: &str| ("Cookie", format!("MMAUTHTOKEN={value}"));
    let authorization = |value: String| ("Authorization", value);
    vec![
        vec![cookie(a)],
        vec![authorization(format!("Bearer {a}"))],
        vec![authorization(format!("BEARER {a}"))],
        vec![authorization(format!("bearer {a}"))],
        vec![authorization(format!("Token {a}"))],
        vec![authorization(format!("Bearer  {a}"))],
        vec![authorization(format!("Bearer:{a}"))],
        vec![authorization(format!("Basic {a}"))],
        vec![authorization(a.to_owned())],
        vec![authorization(format!("Bearer {a}")), authorization(format!("Bearer {b}"))],
        vec![cookie(a), authorization(format!("Bearer {b}"))],
        vec![cookie(a), authorization("Basic eDp5".to_owned())],
        vec![cookie(a), cookie(b)],
        vec![("Cookie", format!("MMAUTHTOKEN={a}; MMAUTHTOKEN={b}"))],
        vec![("Cookie", format!("MMAUTHTOKEN={a} ; MMUSERID=x"))],
        vec![cookie(""), authorization(format!("Bearer {a}"))],
        vec![cookie(&format!("\"{a}\""))],
        vec![cookie(&format!("\"{a}\"")), authorization(format!("Bearer {b}"))],
        vec![cookie("x,y"), cookie(a)],
        vec![cookie(&a.to_uppercase())],
        vec![cookie(&a[1..]), authorization(format!("Bearer {a}"))],
        vec![cookie(&format!("{a}{b}"))],
        vec![("cookie", format!("mmauthtoken={a}")), authorization(format!("Bearer {b}"))],
        vec![("Cookie", format!("MMAUTHTOKENS={a}; MMAUTHTOKEN={b}"))],
    ]
}

/// Alice may see Nova, Mallory may not; whichever token a request is read by, it is upstream that reads it.
#[actix_web::test]
async fn whichever_credentials_come_together_the_decision_is_upstreams_before_and_after_there_are_grants() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let (path, picture) = (picture_path(&town, "nova"), decoded(&direct(&town).await.body));
    let (alice, mallory) = (town.token("alice"), town.token("mallory"));
    let mut all = shapes(&alice, &mallory);
    all.extend(shapes(&mallory, &alice));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3 {
        for shape in &all {
            let credentials =
                |request: Request| shape.iter().fold(request, |request, (name, value)| request.header(name, value));
            let upstreams = credentials(Request::get(&path)).send(town.address()).await;
            let ours = proxy.send(&credentials(Request::get(&format!("{path}?size=32"))).accept(BROWSER)).await;
            seen.insert(ours.status);
            assert_eq!(ours.status, upstreams.status, "round {round}: {shape:?}");
            assert!(ours.status != 200 || shows(&ours, &picture), "round {round}: {shape:?}");
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 401, 403]);
}

async fn direct(town: &StandIn) -> Answer {
    looks_at(town, "alice", "nova", "").send(town.address()).await
}

/// Go reads `MMAUTHTOKEN=a` where the value is framed by blanks, and a trailing one may not make another caller of it.
#[actix_web::test]
async fn a_token_that_ends_in_a_blank_is_read_by_upstream_each_time() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    let path = format!("{}?size=32", picture_path(&town, "nova"));
    for value in [format!("Bearer {} x", town.token("alice")), format!("Bearer {}\t0", town.token("alice"))] {
        let odd = Request::get(&path).header("Authorization", &value);
        for _ in 0..2 {
            let (answer, asked) = costing(&proxy, &town, &odd).await;
            assert_eq!((answer.status, asked), (401, 1), "{value:?}");
        }
    }
}

#[actix_web::test]
async fn a_401_takes_all_grants_of_the_set_and_a_403_or_404_that_of_the_pair() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = |viewer: &str, user: &str| looks_at(&town, viewer, user, "size=32");
    let reload = |request: &Request| request.clone().header("Cache-Control", "no-cache");
    for (viewer, user) in [("alice", "nova"), ("alice", "erin"), ("bob", "nova")] {
        earns_grant(&proxy, &town, &look(viewer, user)).await;
    }
    town.deny("alice", "nova");
    assert_eq!(costing(&proxy, &town, &look("alice", "nova")).await.1, 0, "nobody has told us");
    assert_eq!(proxy.send(&reload(&look("alice", "nova"))).await.status, 403);
    for (viewer, user, status, asked) in [("alice", "nova", 403, 1), ("alice", "erin", 200, 0), ("bob", "nova", 200, 0)]
    {
        let (answer, cost) = costing(&proxy, &town, &look(viewer, user)).await;
        assert_eq!((answer.status, cost), (status, asked), "{viewer} {user}");
    }
    let erins = look("alice", "erin");
    let token = town.token("alice");
    town.revoke(&token);
    assert_eq!(costing(&proxy, &town, &erins).await.1, 0, "nobody has told us");
    // Any 401 will do, whatever it was asked for.
    assert_eq!(proxy.send(&Request::get("/api/v4/users/me").bearer(&token)).await.status, 401);
    let (answer, cost) = costing(&proxy, &town, &erins).await;
    assert_eq!((answer.status, cost), (401, 1));
    assert_eq!(costing(&proxy, &town, &look("bob", "nova")).await.1, 0);
}

#[actix_web::test]
async fn a_stamp_that_is_newer_is_asked_about_and_an_older_or_absurd_one_costs_no_more_than_that() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = |viewer: &str, query: &str| looks_at(&town, viewer, "nova", query);
    let held = earns_grant(&proxy, &town, &look("alice", "size=32")).await;
    let stamp = direct(&town).await.header("etag").expect("a tag").parse::<i64>().expect("a stamp");
    let stamped = |stamp: i64| format!("size=32&_={stamp}");
    for older in [stamp, stamp - 1, -stamp, 0, 1] {
        assert_eq!(costing(&proxy, &town, &look("alice", &stamped(older))).await.1, 0, "{older}");
    }
    // Not by one who has no grant: a stranger's word would make everybody ask.
    proxy.send(&look("mallory", &stamped(stamp + 1))).await;
    assert_eq!(costing(&proxy, &town, &look("alice", "size=32")).await.1, 0);
    for newer in [stamp + 1, stamp + 2, i64::MAX, i64::MIN] {
        for (query, cost) in [(&*stamped(newer), 1), ("size=32", 0)] {
            let (answer, asked) = costing(&proxy, &town, &look("alice", query)).await;
            assert_eq!((answer.status, asked, &answer.body), (200, cost, &held.body), "{newer} {query}");
        }
    }
    assert_eq!(costing(&proxy, &town, &look("alice", &stamped(i64::MIN))).await.1, 0);
    town.show("nova", png(&photo(3)));
    let now = direct(&town).await.header("etag").expect("a tag").to_owned();
    let (shown, _) =
        costing(&proxy, &town, &look("alice", &format!("size=32&_={now}")).header("Pragma", "no-cache")).await;
    assert!(shows(&shown, &photo(3)));
}

/// F47: nobody tells of the change, so that it is seen when the grant has ended and not before it was asked for.
#[actix_web::test]
async fn f47_a_change_that_nobody_tells_of_is_seen_within_the_time_of_a_grant() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| config.grants.ttl = Duration::from_millis(300));
    for (n, viewer) in (3..).zip(["alice", "bob", "alice"]) {
        let look = looks_at(&town, viewer, "nova", "size=32");
        proxy.send(&look).await;
        town.show("nova", png(&photo(n)));
        let seen = async { while !shows(&proxy.send(&look).await, &photo(n)) {} };
        tokio::time::timeout(PATIENCE, seen).await.expect("it is seen");
    }
}
