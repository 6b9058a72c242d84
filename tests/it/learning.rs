//! Learning in passing: a list of users that upstream sends somebody spares the questions that would follow it, and
//! nothing else does.

use crate::client::{ALICE, Request};
use crate::mattermost::{BROWSER, both, costing, earns_grant, looks_at, shows, town};
use crate::pictures::{RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, drain, not_modified, picture_answer, send_and_close};
use avatar_proxy::demo::{Options, StandIn};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::future::join;
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;

pub(crate) const LEARNED: &str = "avatar_proxy_lessons_total{outcome=\"learned\"}";
pub(crate) const UNREADABLE: &str = "avatar_proxy_lessons_total{outcome=\"unreadable\"}";

fn api(method: &str, path: &str, body: &Value) -> Request {
    let request = Request::new(method, &format!("/api/v4{path}"));
    if body.is_null() { request } else { request.header("Content-Type", "application/json").body(body.to_string()) }
}

/// Waits until so many answers have been learned from.
pub(crate) async fn has_learned(proxy: &Proxy, lessons: u64) {
    while proxy.metric(LEARNED).await < lessons {
        tokio::task::yield_now().await;
    }
}

/// Sends a request whose answer teaches.
async fn teaches(proxy: &Proxy, request: &Request) {
    let before = proxy.metric(LEARNED).await;
    assert_eq!(proxy.send(request).await.status, 200, "{request:?}");
    has_learned(proxy, before + 1).await;
}

/// Waits until whatever may have been learned has been: answers are read one after the other.
async fn has_read_all(proxy: &Proxy, town: &StandIn) {
    teaches(proxy, &api("GET", "/users/me", &Value::Null).bearer(&town.sign_in("mmadmin").token)).await;
}

fn look(town: &StandIn, token: &str, user: &str) -> Request {
    Request::picture_of(&town.id(user), "size=32").bearer(token).accept(BROWSER)
}

/// The requests of the table, asked by `viewer`, whose answers tell of Nova and Erin.
fn lessons(town: &StandIn) -> Vec<Request> {
    let team = &Options::default().teams[0];
    let ids = json!([town.id("nova"), town.id("erin")]);
    let (square, null) = (&team.town_square, Value::Null);
    vec![
        api("GET", "/users?per_page=200", &null),
        api("GET", &format!("/users?page=0&per_page=100&in_team={}&sort=last_activity_at", team.id), &null),
        api("POST", "/users/ids", &ids),
        api("POST", "/users/ids?since=0", &ids),
        api("POST", "/users/usernames", &json!(["nova", "erin"])),
        api("POST", "/users/search", &json!({"term": "e", "limit": 1000})),
        api("GET", "/users/autocomplete?name=&limit=100", &null),
        api("GET", &format!("/users/autocomplete?in_team={}&in_channel={square}&name=&limit=100", team.id), &null),
    ]
}

#[actix_web::test]
async fn every_row_of_the_table_spares_the_questions_that_follow() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    for user in ["nova", "erin", "bob"] {
        proxy.send(&looks_at(&town, "mmadmin", user, "size=32")).await;
    }
    for encoding in ["identity", "gzip"] {
        for lesson in lessons(&town) {
            let token = town.sign_in("bob").token;
            teaches(&proxy, &lesson.clone().bearer(&token).header("Accept-Encoding", encoding)).await;
            for user in ["nova", "erin"] {
                let (shown, asked) = costing(&proxy, &town, &look(&town, &token, user)).await;
                assert_eq!((shown.status, asked), (200, 0), "{user} after {lesson:?}, {encoding}");
            }
        }
        for (path, user) in [("/users/me".to_owned(), "bob"), (format!("/users/{}", town.id("nova")), "nova")] {
            let token = town.sign_in("bob").token;
            teaches(&proxy, &api("GET", &path, &Value::Null).bearer(&token).header("Accept-Encoding", encoding)).await;
            assert_eq!(costing(&proxy, &town, &look(&town, &token, user)).await.1, 0, "{path}, {encoding}");
            assert_eq!(costing(&proxy, &town, &look(&town, &token, "erin")).await.1, 1, "{path}, {encoding}");
        }
    }
}

#[actix_web::test]
async fn what_was_learned_of_a_picture_that_nobody_has_is_worth_one_body() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let token = town.token("bob");
    teaches(&proxy, &api("GET", "/users?per_page=200", &Value::Null).bearer(&token)).await;
    for user in ["nova", "erin", "carol"] {
        earns_grant(&proxy, &town, &look(&town, &token, user)).await;
    }
    let count = town.count();
    assert_eq!((count.pictures, count.not_modified), (3, 0));
}

#[actix_web::test]
async fn what_one_was_told_grants_nothing_to_another() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    earns_grant(&proxy, &town, &looks_at(&town, "mmadmin", "nova", "size=32")).await;
    let list = api("GET", "/users?per_page=200", &Value::Null);
    teaches(&proxy, &list.clone().bearer(&town.token("alice"))).await;
    for request in [
        look(&town, &town.sign_in("alice").token, "nova"),
        look(&town, &town.token("alice"), "nova").header("Host", "chat.example"),
        look(&town, &town.token("bob"), "nova"),
    ] {
        earns_grant(&proxy, &town, &request).await;
    }
    // Who may see only some is told only of these, and asked about all others.
    for viewer in ["gus", "mallory"] {
        teaches(&proxy, &list.clone().bearer(&town.token(viewer))).await;
        for _ in 0..2 {
            let (answer, asked) = costing(&proxy, &town, &looks_at(&town, viewer, "nova", "size=32")).await;
            assert_eq!((answer.status, asked), (403, 1), "{viewer}");
        }
    }
    town.allow("gus", "nova");
    teaches(&proxy, &list.bearer(&town.token("gus"))).await;
    let (answer, asked) = costing(&proxy, &town, &looks_at(&town, "gus", "nova", "size=32")).await;
    assert_eq!((answer.status, asked), (200, 0));
}

#[actix_web::test]
async fn answers_that_are_not_in_the_table_teach_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let team = &Options::default().teams[0];
    let (bob, null) = (town.id("bob"), Value::Null);
    let ids = json!([bob]);
    for (method, path, body) in [
        ("GET", format!("/users?in_channel={}", team.town_square), &null),
        ("GET", format!("/users?per_page=200&in_channel={}", team.town_square), &null),
        ("GET", "/users?page=0&page=0".to_owned(), &null),
        ("GET", "/users?p%61ge=0".to_owned(), &null),
        ("GET", "/users?page=0&".to_owned(), &null),
        ("GET", "/users?page=0;sort=".to_owned(), &null),
        ("GET", "/users?whatever=1".to_owned(), &null),
        ("GET", "/users/username/bob".to_owned(), &null),
        ("GET", "/users/email/bob@example.test".to_owned(), &null),
        ("GET", format!("/%75sers/{bob}"), &null),
        ("GET", format!("/users/{bob}?x=1"), &null),
        ("POST", "/users/status/ids".to_owned(), &ids),
        ("POST", "/users/ids?since=0&since=0".to_owned(), &ids),
        ("PUT", "/users/me/patch".to_owned(), &json!({"nickname": "b"})),
        ("PUT", format!("/users/{bob}"), &json!({"nickname": "c"})),
        ("POST", "/users/login".to_owned(), &json!({"login_id": "bob", "password": avatar_proxy::demo::PASSWORD})),
    ] {
        let token = town.sign_in("bob").token;
        let answer = proxy.send(&api(method, &path, body).bearer(&token)).await;
        assert!(answer.status == 200 && !answer.body.is_empty(), "{method} {path}: {}", answer.status);
        has_read_all(&proxy, &town).await;
        // The picture is there, whatever was forgotten.
        proxy.send(&looks_at(&town, "mmadmin", "bob", "size=32").header("Cache-Control", "no-cache")).await;
        assert_eq!(costing(&proxy, &town, &look(&town, &token, "bob")).await.1, 1, "{method} {path}");
    }
}

#[actix_web::test]
async fn nothing_is_learned_where_that_is_switched_off_or_nothing_is_remembered() {
    for (learn, hours) in [(false, 1), (true, 0)] {
        let town = town();
        let proxy = Proxy::with(town.address(), |config| {
            config.grants.ttl = std::time::Duration::from_secs(3600 * hours);
            config.grants.learn = learn;
        });
        proxy.send(&looks_at(&town, "mmadmin", "nova", "size=32")).await;
        for lesson in lessons(&town) {
            assert_eq!(proxy.send(&lesson.bearer(&town.token("bob"))).await.status, 200);
        }
        assert_eq!(costing(&proxy, &town, &look(&town, &town.token("bob"), "nova")).await.1, 1);
        assert_eq!(proxy.metrics(&[LEARNED, UNREADABLE]).await, [0, 0]);
    }
}

#[actix_web::test]
async fn lists_pass_through_as_they_are() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    for encoding in ["identity", "gzip"] {
        for lesson in lessons(&town) {
            let request = lesson.bearer(&town.token("bob")).header("Accept-Encoding", encoding);
            let (through, direct) = both(&proxy, &town, &request).await;
            assert!(through.status == 200 && through.body == direct.body, "{request:?}");
            assert_eq!(through.header("content-encoding"), direct.header("content-encoding"), "{request:?}");
        }
    }
}

/// The list was decided before its reader logged out, and comes after it.
#[actix_web::test]
async fn a_list_whose_reader_has_logged_out_meanwhile_grants_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    earns_grant(&proxy, &town, &looks_at(&town, "mmadmin", "nova", "size=32")).await;
    let logout = |token: &str| Request::new("POST", "/api/v4/users/logout").bearer(token);
    for (n, ends_by) in ["header", "cookie"].iter().enumerate() {
        let token = town.sign_in("bob").token;
        let ask = if *ends_by == "header" {
            Request::get("/api/v4/users?per_page=200").bearer(&token)
        } else {
            Request::get("/api/v4/users?per_page=200").cookie(&token)
        };
        town.hold_lists();
        let lists = town.received().len();
        let end = async {
            while town.received().len() == lists {
                tokio::task::yield_now().await;
            }
            // One worker answers in turn: when this is answered, the list has been decided.
            assert_eq!(proxy.send(&logout(&token)).await.status, 200);
            town.release();
        };
        let learned = proxy.metric(LEARNED).await;
        let (list, ()) = join(proxy.send(&ask), end).await;
        assert_eq!(list.status, 200, "round {n}");
        has_learned(&proxy, learned + 1).await;
        let request = Request::picture_of(&town.id("nova"), "size=32");
        for look in [request.clone().bearer(&token), request.cookie(&token)] {
            let (answer, asked) = costing(&proxy, &town, &look).await;
            assert_eq!((answer.status, asked), (401, 1), "{ends_by}");
        }
    }
}

/// Which of the two upstream said later cannot be told.
#[actix_web::test]
async fn a_list_that_was_asked_for_before_a_refusal_grants_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    earns_grant(&proxy, &town, &looks_at(&town, "mmadmin", "nova", "size=32")).await;
    let token = town.token("bob");
    let list = api("GET", "/users?per_page=200", &Value::Null).bearer(&token);
    town.hold_lists();
    let learned = proxy.metric(LEARNED).await;
    let lists = town.received().len();
    let refusal = async {
        while town.received().len() == lists {
            tokio::task::yield_now().await;
        }
        // One worker answers in turn: when this is answered, the list has been decided.
        assert_eq!(look(&town, &token, "nova").send(town.address()).await.status, 200);
        town.deny("bob", "nova");
        assert_eq!(proxy.send(&look(&town, &token, "nova")).await.status, 403);
        town.release();
    };
    let (list, ()) = join(proxy.send(&list), refusal).await;
    assert!(String::from_utf8_lossy(&list.body).contains(&town.id("nova")), "it was decided before");
    has_learned(&proxy, learned + 1).await;
    for _ in 0..2 {
        let (answer, asked) = costing(&proxy, &town, &look(&town, &token, "nova")).await;
        assert_eq!((answer.status, asked), (403, 1));
    }
}

#[actix_web::test]
async fn a_newer_stamp_in_a_list_is_asked_about_once_for_everybody() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let list = api("GET", "/users?per_page=200", &Value::Null).bearer(&town.token("carol"));
    let nova = |viewer: &str| looks_at(&town, viewer, "nova", "size=32");
    for viewer in ["alice", "bob"] {
        earns_grant(&proxy, &town, &nova(viewer)).await;
    }
    teaches(&proxy, &list).await;
    assert_eq!(costing(&proxy, &town, &nova("alice")).await.1, 0, "nothing new");

    town.show("nova", png(&photo(3)));
    assert!(!shows(&proxy.send(&nova("alice")).await, &photo(3)), "nobody has said so yet");
    teaches(&proxy, &list).await;
    for (viewer, cost) in [("alice", 1), ("bob", 0), ("carol", 0), ("alice", 0)] {
        let (shown, asked) = costing(&proxy, &town, &nova(viewer)).await;
        assert_eq!((shows(&shown, &photo(3)), asked), (true, cost), "{viewer}");
    }
    let stamp = nova("alice").send(town.address()).await.header("etag").expect("a tag").parse::<i64>().expect("one");
    for (told, cost) in [(stamp - 1, 0), (1, 0), (0, 0), (-stamp, 0), (stamp + 1, 1), (i64::MAX, 1), (i64::MIN, 1)] {
        town.set_told_stamp("nova", told);
        teaches(&proxy, &list).await;
        for (viewer, cost) in [("alice", cost), ("bob", 0), ("carol", 0)] {
            let (shown, asked) = costing(&proxy, &town, &nova(viewer)).await;
            assert_eq!((shows(&shown, &photo(3)), asked), (true, cost), "{viewer} after {told}");
        }
        teaches(&proxy, &list).await;
        assert_eq!(costing(&proxy, &town, &nova("bob")).await.1, 0, "{told}, told again");
    }
    // Freshness ended, and the right to see it did not: refused now, she is refused.
    town.show("nova", png(&photo(4)));
    town.deny("alice", "nova");
    teaches(&proxy, &list).await;
    assert_eq!(proxy.send(&nova("alice")).await.status, 403);
    assert!(shows(&proxy.send(&nova("bob")).await, &photo(4)));
}

/// A full record as upstream spells it.
pub(crate) fn record(id: &str) -> Value {
    json!({
        "id": id, "create_at": 1, "update_at": 1, "delete_at": 0, "username": "a", "auth_service": "",
        "email": "a@example.test", "nickname": "", "first_name": "", "last_name": "", "position": "",
        "roles": "system_user", "last_picture_update": 7, "locale": "en", "timezone": {}, "disable_welcome_email": false,
    })
}

pub(crate) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}

/// Upstream shows everybody's picture, and answers `GET /users` with the bytes that are laid out for it.
struct Blackboard {
    upstream: Upstream,
    proxy: Proxy,
    answer: Rc<std::cell::RefCell<Vec<u8>>>,
    session: Cell<usize>,
}

impl Blackboard {
    async fn new() -> Self {
        let picture = png(&solid(RED));
        let laid_out = Rc::new(std::cell::RefCell::new(Vec::new()));
        let answers = laid_out.clone();
        let upstream = Upstream::replying(move |_, seen| match seen.target() {
            "/api/v4/users/me" => answer(
                "200 OK",
                &[("Content-Type", "application/json")],
                record("mmmmmmmmmmmmmmmmmmmmmmmmmm").to_string().as_bytes(),
            ),
            target if target.ends_with("/image") && seen.header("if-none-match") == Some("7") => not_modified("7"),
            target if target.ends_with("/image") => picture_answer("7", &picture),
            _ => answers.borrow().clone(),
        })
        .await;
        let proxy = Proxy::granting(upstream.address);
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
        Self { upstream, proxy, answer: laid_out, session: Cell::new(0) }
    }

    /// How many questions a new caller's look at Alice costs after this answer to their `GET target`.
    async fn after(&self, target: &str, answer: Vec<u8>) -> usize {
        self.answer.borrow_mut().clone_from(&answer);
        self.session.set(self.session.get() + 1);
        let token = format!("{:026}", self.session.get());
        let passed = self.proxy.send(&Request::get(target).bearer(&token)).await;
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        assert!(passed.body == answer[head + 4..], "it passes as it is");
        let me = Request::get("/api/v4/users/me").bearer(&format!("{:026}", self.session.get() + 500));
        teaches(&self.proxy, &me).await;
        let seen = self.upstream.seen().len();
        let shown = self.proxy.send(&Request::picture_of(ALICE, "size=32").bearer(&token)).await;
        assert!(shown.looks(RED));
        self.upstream.seen().len() - seen
    }

    async fn after_list(&self, body: &[u8]) -> usize {
        self.after("/api/v4/users", answer("200 OK", &[("Content-Type", "application/json")], body)).await
    }
}

#[actix_web::test]
async fn only_a_whole_answer_that_says_that_it_is_json_teaches() {
    let board = Blackboard::new().await;
    let list = json!([record(ALICE)]).to_string();
    let (json_type, gzip) = (("Content-Type", "application/json"), ("Content-Encoding", "gzip"));
    let zipped = gzipped(list.as_bytes());
    for (status, fields, body, cost) in [
        ("200 OK", &[json_type][..], list.as_bytes(), 0),
        ("200 OK", &[("Content-Type", "application/json; charset=utf-8")], list.as_bytes(), 0),
        ("200 OK", &[json_type, gzip], &*zipped, 0),
        ("201 Created", &[json_type], list.as_bytes(), 1),
        ("203 Non-Authoritative Information", &[json_type], list.as_bytes(), 1),
        ("206 Partial Content", &[json_type, ("Content-Range", "bytes 0-9/10")], list.as_bytes(), 1),
        ("400 Bad Request", &[json_type], list.as_bytes(), 1),
        ("403 Forbidden", &[json_type], list.as_bytes(), 1),
        ("500 Internal Server Error", &[json_type], list.as_bytes(), 1),
        ("200 OK", &[], list.as_bytes(), 1),
        ("200 OK", &[("Content-Type", "text/html")], list.as_bytes(), 1),
        ("200 OK", &[json_type, json_type], list.as_bytes(), 1),
        ("200 OK", &[json_type, ("Content-Encoding", "br")], list.as_bytes(), 1),
        ("200 OK", &[json_type, gzip, gzip], &*zipped, 1),
        ("200 OK", &[json_type, gzip], list.as_bytes(), 1),
        ("200 OK", &[json_type], &*zipped, 1),
        ("200 OK", &[json_type, gzip], &zipped[..zipped.len() - 1], 1),
        ("200 OK", &[json_type, gzip], &[&*zipped, b"x"].concat(), 1),
    ] {
        let asked = board.after("/api/v4/users", answer(status, fields, body)).await;
        assert_eq!(asked, cost, "{status} {fields:?}");
    }
}

#[actix_web::test]
async fn only_full_records_directly_in_the_answer_teach() {
    let board = Blackboard::new().await;
    let alice = record(ALICE);
    let with = |member: &str, value: Value| {
        let mut other = record("bbbbbbbbbbbbbbbbbbbbbbbbbb");
        other[member] = value;
        json!([other]).to_string()
    };
    let without = |member: &str| {
        let mut alice = record(ALICE);
        alice.as_object_mut().expect("an object").remove(member);
        json!([alice]).to_string()
    };
    let text = alice.to_string();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let props_of_depth = |depth: usize| format!("[{},\"props\":{}}}]", &text[..text.len() - 1], deep(depth));
    assert_eq!(board.after_list(json!([alice]).to_string().as_bytes()).await, 0);
    assert_eq!(board.after_list(without("last_picture_update").as_bytes()).await, 0, "absent means 0");
    assert_eq!(board.after_list(props_of_depth(10_000).as_bytes()).await, 0, "what does not count is skipped");
    for body in [
        with("props", alice.clone()),
        with("props", json!({ "customStatus": text })),
        with("props", json!([alice])),
        with("first_name", json!(text)),
        with("nickname", json!(format!("\",\"id\":\"{ALICE}\",\"x\":\""))),
        with("agents", json!([alice])),
        with("users", json!([alice])),
        json!({ "users": [alice], "agents": [alice] }).to_string(),
        json!({ "list": [alice] }).to_string(),
        json!([[alice]]).to_string(),
        json!([{ "user": alice }]).to_string(),
        json!([text]).to_string(),
        text.clone(),
        without("username"),
        without("roles"),
        without("update_at"),
        without("delete_at"),
        without("id"),
        text.replacen(ALICE, &ALICE.to_uppercase(), 1),
        format!("[{}]", text.replacen("\"locale\"", "\"id\"", 1)),
        format!("[{text},{}]", text.replacen("\"locale\"", "\"username\"", 1)),
        format!("[{text},{{\"id\":1}}]"),
        format!("[{text}"),
        format!("[{text}]]"),
        format!("[{text}]x"),
        format!("[{text}]\n[{text}]"),
        deep(10_000),
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("\u{feff}[{text}]"),
    ] {
        let start = &body[..body.len().min(120)];
        assert_eq!(board.after_list(body.as_bytes()).await, 1, "{start}");
    }
}

/// `users` and `out_of_channel` are upstream's; a plugin may add others.
#[actix_web::test]
async fn other_members_of_an_autocomplete_teach_nothing() {
    let board = Blackboard::new().await;
    for (member, cost) in [("users", 0), ("out_of_channel", 0), ("agents", 1), ("Users", 1), ("in_channel", 1)] {
        let body = json!({ member: [record(ALICE)] }).to_string();
        let answer = answer("200 OK", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(board.after("/api/v4/users/autocomplete?name=a", answer).await, cost, "{member}");
    }
}

/// A message is whatever its writer wants it to be.
#[actix_web::test]
async fn a_chat_message_that_looks_like_a_list_teaches_nothing() {
    let board = Blackboard::new().await;
    let body = json!([record(ALICE)]).to_string();
    for target in [
        "/api/v4/posts/pppppppppppppppppppppppppp",
        "/api/v4/channels/cccccccccccccccccccccccccc/posts",
        "/api/v4/users/pppppppppppppppppppppppppp/posts/flagged",
        "/api/v4/files/ffffffffffffffffffffffffff",
        "/plugins/users",
        "/api/v4/users/?",
        "/api/v4/users/known",
    ] {
        let answer = answer("200 OK", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(board.after(target, answer).await, 1, "{target}");
    }
}

#[actix_web::test]
async fn an_answer_that_is_too_long_passes_and_teaches_nothing() {
    let board = Blackboard::new().await;
    let padded = |blanks: usize| format!("[{}{}]", record(ALICE), " ".repeat(blanks));
    let gzip = |body: &str| {
        let fields = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
        answer("200 OK", &fields, &gzipped(body.as_bytes()))
    };
    assert_eq!(board.after_list(padded(3 << 20).as_bytes()).await, 0);
    assert_eq!(board.after("/api/v4/users", gzip(&padded(3 << 20))).await, 0);
    assert_eq!(board.after_list(padded(4 << 20).as_bytes()).await, 1);
    assert_eq!(board.after("/api/v4/users", gzip(&padded(4 << 20))).await, 1);
    assert_eq!(board.after("/api/v4/users", gzip(&padded(64 << 20))).await, 1, "a bomb");
}

#[actix_web::test]
async fn an_answer_that_breaks_off_teaches_nothing() {
    let list = format!("[{}]", record(ALICE));
    let picture = png(&solid(RED));
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let (list, picture) = (list.clone(), picture.clone());
        async move {
            if seen.target().ends_with("/image") {
                let known = seen.header("if-none-match") == Some("7");
                let answer = if known { not_modified("7") } else { picture_answer("7", &picture) };
                return send_and_close(&mut stream, &answer).await;
            }
            let framing = match seen.header("x-framing") {
                Some("chunked") => "Transfer-Encoding: chunked".to_owned(),
                Some("longer") => format!("Content-Length: {}", list.len() + 1),
                _ => format!("Content-Length: {}", list.len()),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            if seen.header("x-framing") == Some("chunked") {
                let _ = stream.write_all(format!("{:x}\r\n{list}\r\n", list.len()).as_bytes()).await;
            } else {
                let _ = stream.write_all(list.as_bytes()).await;
            }
            if seen.header("x-framing").is_none() {
                drain(&mut stream).await;
            }
        }
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
    let costs = async |token: &str| {
        let seen = upstream.seen().len();
        assert_eq!(proxy.send(&Request::picture_of(ALICE, "size=32").bearer(token)).await.status, 200);
        upstream.seen().len() - seen
    };
    for framing in ["longer", "chunked"] {
        let token = format!("{framing:0>26}");
        let list = proxy.send(&Request::get("/api/v4/users").bearer(&token).header("X-Framing", framing)).await;
        assert!(list.status == 200 && !list.complete, "{framing}");
        assert_eq!(costs(&token).await, 1, "{framing}");
    }

    assert_eq!(proxy.metrics(&[LEARNED, UNREADABLE]).await, [0, 0]);

    // And whole, to be sure of the stage.
    let token = format!("{:0>26}", "whole");
    assert!(proxy.send(&Request::get("/api/v4/users").bearer(&token)).await.complete);
    has_learned(&proxy, 1).await;
    assert_eq!(costs(&token).await, 0);
}
