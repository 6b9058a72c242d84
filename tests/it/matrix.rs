//! Whoever is refused stays refused, whatever else the request says, while another's grant keeps the picture at hand.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOB, BOBS_TOKEN, Request};
use crate::mattermost::{BROWSER, costing, earns_grant, looks_at, picture_path, town};
use crate::pictures::{BLUE, RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, not_modified, picture_answer};
use avatar_proxy::demo::StandIn;

const QUERIES: [&str; 9] = [
    "",
    "size=32",
    "size=64&format=png",
    "format=original",
    "format=webp&quality=50",
    "size=32&_=0",
    "_=1712345678901",
    "size=32&_=9223372036854775807",
    "_=-9223372036854775808&lastPictureUpdate=1",
];

const ACCEPTS: [&str; 4] = [BROWSER, "*/*", "image/png", ""];

/// Fields by which a request may want to be taken for another.
const FIELDS: [&[(&str, &str)]; 22] = [
    &[],
    &[("Range", "bytes=0-0")],
    &[("If-Range", "0"), ("Range", "bytes=0-0")],
    &[("If-Match", "*")],
    &[("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")],
    &[("X-HTTP-Method-Override", "HEAD")],
    &[("X-HTTP-Method", "OPTIONS")],
    &[("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1")],
    &[("X-Forwarded-Host", "chat.example"), ("X-Forwarded-Proto", "https")],
    &[("Forwarded", "for=127.0.0.1;host=chat.example")],
    &[("X-Original-URL", "/api/v4/system/ping"), ("X-Rewrite-URL", "/")],
    &[("Cache-Control", "max-stale")],
    &[("Cache-Control", "no-cache")],
    &[("Cache-Control", "no-store")],
    &[("Cache-Control", "no-transform")],
    &[("Pragma", "no-cache")],
    &[("Origin", "https://elsewhere.example")],
    &[("User-Agent", "Mattermost Mobile/2.20.0+1 (iOS)")],
    &[("X-Requested-With", "XMLHttpRequest")],
    &[("Connection", "X-Nothing")],
    &[("Save-Data", "on"), ("DPR", "2"), ("Width", "64")],
    &[("Cookie", "theme=dark"), ("X-Mattermost-Preauth-Secret", "s")],
];

/// Mallory may not see Nova, whom Alice was just shown in every way that is kept.
struct Stage {
    town: StandIn,
    proxy: Proxy,
    /// What Alice's answers were named by.
    tags: Vec<String>,
}

impl Stage {
    async fn new() -> Self {
        let town = town();
        let proxy = Proxy::granting(town.address());
        earns_grant(&proxy, &town, &looks_at(&town, "alice", "nova", "")).await;
        let mut tags = vec![direct(&town).await, "*".to_owned(), "0".to_owned(), "\"0\"".to_owned()];
        for query in &QUERIES[..5] {
            let shown = proxy.send(&looks_at(&town, "alice", "nova", query)).await;
            tags.extend(shown.header("etag").map(str::to_owned));
        }
        tags.push(tags[4..].join(", "));
        Self { town, proxy, tags }
    }

    fn mallorys(&self, query: &str) -> Request {
        Request::picture_of(&self.town.id("nova"), query).bearer(&self.town.token("mallory"))
    }

    /// Asks as Mallory, with GET and with HEAD.
    async fn refuses(&self, request: &Request) {
        for method in ["GET", "HEAD"] {
            let answer = self.proxy.send(&request.clone().method(method)).await;
            // Upstream has no HEAD for pictures; what passes through is answered by itself.
            let statuses = if method == "HEAD" { &[403, 404][..] } else { &[403] };
            assert!(statuses.contains(&answer.status), "{} for {method} {request:?}", answer.status);
            assert!(tells_nothing(&answer), "{answer:?} for {method} {request:?}");
            if method == "GET" {
                assert_eq!(answer.json()["id"], "api.context.permissions.app_error", "{request:?}");
            }
        }
    }

    async fn alice_still_has_her_grant(&self) {
        let (shown, asked) = costing(&self.proxy, &self.town, &looks_at(&self.town, "alice", "nova", "size=32")).await;
        assert_eq!((shown.status, asked), (200, 0));
    }
}

/// Upstream's own tag of Nova's picture.
async fn direct(town: &StandIn) -> String {
    let shown = looks_at(town, "alice", "nova", "").send(town.address()).await;
    shown.header("etag").expect("a tag").to_owned()
}

fn tells_nothing(answer: &Answer) -> bool {
    ["etag", "age", "cache-status", "content-security-policy", "last-modified"]
        .iter()
        .all(|name| answer.header(name).is_none())
        && !answer.header("content-type").is_some_and(|kind| kind.starts_with("image/"))
}

#[actix_web::test]
async fn a_refused_caller_is_refused_whatever_size_format_and_tag_is_asked_for() {
    let stage = Stage::new().await;
    let mut accepts = ACCEPTS.iter().cycle();
    for query in QUERIES {
        let plain = stage.mallorys(query);
        let conditional = stage.tags.iter().map(|tag| plain.clone().header("If-None-Match", tag));
        for request in conditional.chain([plain.clone()]) {
            stage.refuses(&request.accept(accepts.next().expect("a cycle"))).await;
        }
    }
    stage.alice_still_has_her_grant().await;
}

#[actix_web::test]
async fn a_refused_caller_is_refused_whatever_else_the_request_says() {
    let stage = Stage::new().await;
    for fields in FIELDS {
        let with = |request: Request| fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        for query in ["size=32", "format=original"] {
            stage.refuses(&with(stage.mallorys(query)).accept(BROWSER)).await;
            stage.refuses(&with(stage.mallorys(query)).header("If-None-Match", &stage.tags[4])).await;
        }
    }
    stage.alice_still_has_her_grant().await;
}

#[actix_web::test]
async fn a_refused_caller_is_refused_however_the_target_is_written() {
    let stage = Stage::new().await;
    let (path, token) = (picture_path(&stage.town, "nova"), stage.town.token("mallory"));
    let host = stage.proxy.address.to_string();
    for target in [
        format!("http://{host}{path}?size=32"),
        format!("{path}?size=32&size=32"),
        format!("{path}?%73ize=32"),
        path.replacen("image", "imag%65", 1),
        path.replacen("users/", "users%2F", 1),
    ] {
        stage.refuses(&Request::get(&target).bearer(&token)).await;
        stage.refuses(&Request::get(&target).cookie(&token)).await;
    }
    // Not a picture's spelling, or another site's: upstream's business, or nobody's, and a picture to nobody.
    for target in [
        format!("/{path}"),
        format!("{path}/"),
        path.to_uppercase(),
        format!("{path}/../image"),
        format!("http://chat.example{path}?size=32"),
    ] {
        let answer = stage.proxy.send(&Request::get(&target).bearer(&token)).await;
        assert!(answer.status != 200 && answer.status != 304 && tells_nothing(&answer), "{target}: {answer:?}");
    }
    stage.alice_still_has_her_grant().await;
}

#[actix_web::test]
async fn only_if_cached_says_the_same_of_a_picture_that_is_there_and_of_one_that_is_not() {
    let stage = Stage::new().await;
    let ask = |user: &str| {
        let request = Request::picture_of(&stage.town.id(user), "size=32").bearer(&stage.town.token("mallory"));
        request.header("Cache-Control", "only-if-cached").header("If-None-Match", "*")
    };
    let ((there, asked), (not_there, _)) = (
        costing(&stage.proxy, &stage.town, &ask("nova")).await,
        costing(&stage.proxy, &stage.town, &ask("erin")).await,
    );
    assert_eq!((there.status, not_there.status, asked), (504, 504, 0));
    assert_eq!(there.json()["id"], not_there.json()["id"]);
    assert!(tells_nothing(&there));
}

/// Everybody may see everybody, and every picture has the validator 0.
#[actix_web::test]
async fn two_pictures_with_one_validator_are_not_taken_for_each_other() {
    let (red, blue) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |_, seen| {
        let picture = if seen.target().contains(ALICE) { &red } else { &blue };
        if seen.header("if-none-match") == Some("0") { not_modified("0") } else { picture_answer("0", picture) }
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    for query in ["size=32", "size=16", "format=original"] {
        for token in [ALICES_TOKEN, BOBS_TOKEN, ALICES_TOKEN] {
            for (user, colour) in [(ALICE, RED), (BOB, BLUE)] {
                let shown = proxy.send(&Request::picture_of(user, query).cookie(token)).await;
                assert!(shown.status == 200 && shown.looks(colour), "{query} {user}");
                // A tag of the one is not that of the other, but where upstream itself says so.
                let held = Request::picture_of(user, query).cookie(token);
                let others = if user == ALICE { BOB } else { ALICE };
                let others = proxy.send(&Request::picture_of(others, query).cookie(token)).await;
                let answer = proxy.send(&held.header("If-None-Match", others.header("etag").expect("a tag"))).await;
                assert_eq!(answer.status, if query == "format=original" { 304 } else { 200 }, "{query} {user}");
            }
        }
    }
    // One question for each pair of a caller and a picture.
    assert_eq!(upstream.seen().len(), 4);
}

/// Two sites behind one address, where the same id and the same token mean different people.
#[actix_web::test]
async fn one_id_at_two_hosts_is_two_pictures() {
    let (red, blue) = (png(&solid(RED)), png(&solid(BLUE)));
    let upstream = Upstream::replying(move |_, seen| match (seen.header("host"), seen.header("if-none-match")) {
        (Some("red.example" | "blue.example"), Some("0")) => not_modified("0"),
        (Some("red.example"), _) => picture_answer("0", &red),
        (Some("blue.example"), _) => picture_answer("0", &blue),
        _ => answer("403 Forbidden", &[("Content-Type", "application/json")], b"{\"id\":\"refused\"}"),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let at = |host: &str| Request::picture("size=32").header("Host", host);
    let (red, blue, third) = (at("red.example"), at("blue.example"), at("other.example"));
    for round in 0..3 {
        let (red, blue, third) = (proxy.send(&red).await, proxy.send(&blue).await, proxy.send(&third).await);
        assert!(red.looks(RED) && blue.looks(BLUE), "round {round}");
        assert_eq!((third.status, tells_nothing(&third)), (403, true));
        let theirs = at("other.example").header("If-None-Match", red.header("etag").expect("a tag"));
        assert_eq!(proxy.send(&theirs).await.status, 403);
    }
    let from = |host: &str| upstream.seen().iter().filter(|seen| seen.header("host") == Some(host)).count();
    assert_eq!((from("red.example"), from("blue.example"), from("other.example")), (1, 1, 6));
}
