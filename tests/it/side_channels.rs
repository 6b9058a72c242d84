//! What a refused caller could find out from the side: the answer for a picture that is in memory, looked at by others and
//! rendered, is that for one which nobody has ever asked for, and upstream is asked the same.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOB, Connection, Request};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, not_modified, picture_answer};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Paths of pictures of every kind.
const KINDS: [&str; 4] = [
    "/api/v4/users/{id}/image",
    "/api/v4/users/{id}/image/default",
    "/api/v4/teams/{id}/image",
    "/api/v4/emoji/{id}/image",
];

/// Alice sees everything, and what is in memory is what she has looked at: things of the id `ALICE`. Nobody else sees
/// anything, and of things of the id `BOB` nobody has heard.
struct Stage {
    upstream: Upstream,
    /// What upstream says to others; nothing: it hangs up.
    refusal: Rc<RefCell<Vec<u8>>>,
    proxy: Proxy,
    strangers: Cell<usize>,
}

/// An answer, and what upstream was asked for it.
#[derive(PartialEq, Debug)]
struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    complete: bool,
    asked: Vec<(String, Vec<(String, String)>)>,
}

impl Stage {
    async fn new(ttl: Duration) -> Self {
        let picture = png(&photo(1));
        let refusal = Rc::<RefCell<Vec<u8>>>::default();
        let said = refusal.clone();
        let upstream = Upstream::replying(move |_, seen| {
            let alices = seen.header("cookie").is_some_and(|cookie| cookie.contains(ALICES_TOKEN));
            match (alices, seen.header("if-none-match")) {
                (false, _) => said.borrow().clone(),
                (true, Some("7")) => not_modified("7"),
                (true, _) => picture_answer("7", &picture),
            }
        })
        .await;
        let proxy = Proxy::with(upstream.address, |config| {
            config.grants.ttl = ttl;
            (config.headers.cache_status, config.headers.server_timing) = (true, true);
        });
        Self { upstream, refusal, proxy, strangers: Cell::new(0) }
    }

    /// Alice looks, at the size and format that others ask for too.
    async fn alice_looks(&self, kind: &str) -> Answer {
        let look = Request::get(&format!("{}?size=32", kind.replace("{id}", ALICE))).cookie(ALICES_TOKEN);
        let shown = Connection::to(self.proxy.address).await.send(&look).await;
        assert_eq!(shown.status, 200, "{kind}");
        shown
    }

    /// What a stranger is told, who is another one each time.
    async fn told(&self, request: &Request, id: &str) -> Told {
        self.strangers.set(self.strangers.get() + 1);
        let token = format!("{:026}", self.strangers.get());
        let before = self.upstream.seen().len();
        let request = request.clone().about(id).cookie(&token);
        let Answer { status, mut headers, body, complete } =
            Connection::to(self.proxy.address).await.send(&request).await;
        headers.retain(|(name, _)| !["date", "x-request-id"].contains(&&*name.to_ascii_lowercase()));
        // Their order is by chance.
        headers.sort_unstable();
        let mut body = String::from_utf8(body.to_vec()).expect("text");
        // Each error of ours has an id of its own.
        if let Some((start, rest)) = body.split_once("\"request_id\":\"") {
            body = format!("{start}{}", rest.split_once('"').expect("a closed string").1);
        }
        let seen = self.upstream.seen().split_off(before);
        Told { status, headers, body, complete, asked: seen.iter().map(|seen| of_nobody(seen, id, &token)).collect() }
    }
}

/// A request without what tells whom it is about, who asks, and what we hold: Mattermost decides before it looks at that.
fn of_nobody(seen: &Seen, id: &str, token: &str) -> (String, Vec<(String, String)>) {
    let fields = seen.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("if-none-match"));
    let anonymous = |text: &str| text.replace(id, "{id}").replace(token, "{token}");
    (anonymous(&seen.line), fields.map(|(name, value)| (name.clone(), anonymous(value))).collect())
}

/// What somebody may send who wants to find out.
fn probes(path: &str, tag: &str) -> Vec<Request> {
    let small = || Request::get(&format!("{path}?size=32"));
    vec![
        small(),
        small().method("HEAD"),
        small().accept("image/webp"),
        small().header("If-None-Match", tag),
        small().header("If-None-Match", "*"),
        Request::get(path).header("If-None-Match", "7"),
        Request::get(&format!("{path}?format=original")).header("If-None-Match", "7"),
        Request::get(&format!("{path}?size=48")),
        Request::get(&format!("{path}?size=32&_=1712345678901")),
        Request::get(&format!("{path}?size=banana")),
        small().header("Range", "bytes=0-0"),
        small().header("Cache-Control", "no-cache"),
        small().header("Cache-Control", "only-if-cached"),
        small().header("Cache-Control", "max-stale"),
        small().header("Origin", "https://elsewhere.example"),
        small().header("X-HTTP-Method-Override", "HEAD"),
    ]
}

#[actix_web::test]
async fn a_refusal_does_not_tell_whether_the_picture_is_in_memory() {
    for ttl in [Duration::from_secs(3600), Duration::ZERO] {
        let stage = Stage::new(ttl).await;
        let json = [("Content-Type", "application/json"), ("Set-Cookie", "MMAUTHTOKEN=; Max-Age=0")];
        for refusal in [
            answer("403 Forbidden", &json, b"{\"id\":\"api.context.permissions.app_error\"}"),
            answer("404 Not Found", &json, b"{}"),
            answer("401 Unauthorized", &json, b"{}"),
            answer("429 Too Many Requests", &[("Retry-After", "1")], b"limit"),
            answer("503 Service Unavailable", &[], b"busy"),
            answer("302 Found", &[("Location", "/login")], b""),
            Vec::new(),
        ] {
            stage.refusal.borrow_mut().clone_from(&refusal);
            let said = String::from_utf8_lossy(&refusal[..refusal.len().min(20)]);
            for kind in KINDS {
                let tag = stage.alice_looks(kind).await.header("etag").expect("a tag").to_owned();
                for probe in probes(kind, &tag) {
                    // Hot, if it may be at all.
                    stage.alice_looks(kind).await;
                    let [known, unknown] = [stage.told(&probe, ALICE).await, stage.told(&probe, BOB).await];
                    assert_eq!(known, unknown, "{said}: {probe:?}");
                    let named = ["etag", "age", "cache-status", "server-timing"];
                    let tells = known.headers.iter().find(|(name, _)| named.contains(&&*name.to_ascii_lowercase()));
                    assert_eq!(tells, None, "{said}: {probe:?}");
                }
            }
        }
    }
}

/// Equal tag, equal bytes: whose they are, and since when, is not in it.
#[actix_web::test]
async fn the_tag_of_a_variant_tells_nothing_but_its_bytes() {
    let picture = png(&photo(1));
    let stamp = |seen: &Seen| if seen.target().contains(ALICE) { "1712345678901" } else { "1798765432109" };
    let upstream = Upstream::replying(move |_, seen| picture_answer(stamp(seen), &picture)).await;
    let proxy = Proxy::granting(upstream.address);
    for query in ["size=32", "size=64&format=png", "format=jpeg"] {
        let tags = [ALICE, BOB].map(|user| Request::picture_of(user, query).cookie(ALICES_TOKEN));
        let mut seen = Vec::new();
        for request in &tags {
            let shown = proxy.send(request).await;
            seen.push((shown.header("etag").expect("a tag").to_owned(), shown.body));
        }
        assert_eq!(seen[0], seen[1], "{query}");
        for told in [ALICE, BOB, "1712345678901", "1798765432109"] {
            assert!(!seen[0].0.contains(told), "{query}: {}", seen[0].0);
        }
    }
}

/// What is counted is counted of nobody in particular.
#[actix_web::test]
async fn the_metrics_name_nobody() {
    let stage = Stage::new(Duration::from_secs(3600)).await;
    stage.refusal.replace(answer("403 Forbidden", &[], b"{}"));
    for kind in KINDS {
        stage.alice_looks(kind).await;
        stage.told(&Request::get(&format!("{kind}?size=32")), BOB).await;
    }
    let metrics =
        String::from_utf8(Request::get("/metrics").send(stage.proxy.admin).await.body.to_vec()).expect("text");
    assert!(metrics.contains("avatar_proxy_"));
    for told in [ALICE, BOB, ALICES_TOKEN, &format!("{:026}", 1), "chat.example", "127.0.0.1", "/api/"] {
        assert!(!metrics.contains(told), "{told}");
    }
}
