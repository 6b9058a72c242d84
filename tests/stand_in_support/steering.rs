//! What tests steer a stand-in with: faults, rights that come and go, pictures that change elsewhere.

use std::time::Duration;

use avatar_proxy::demo::{Fault, Options, Repeat, Session, StandIn};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Response, Socket, Wire, exchange, recording_body};
use crate::{ALICE, ALPHA, NOOK, Stage, TOWN_SQUARE, town};

/// A GET of Alice's picture as Bob, in a stand-in with the recordings' people.
fn look(stage: &Stage) -> Result<Response, String> {
    let image = format!("/api/v4/users/{ALICE}/image");
    exchange(stage.stand_in.address(), &Wire::act(&stage.stand_in.token("bob"), "GET", &image, None))
}

#[test]
fn faults_reach_the_wire_and_end() {
    let stage = Stage::new(town());
    let whole = recording_body("aff3afc7ac2d3691.png");
    let fail = |fault| stage.stand_in.fail(fault, Repeat::Times(1));
    fail(Fault::CutOff(4096));
    let cut = look(&stage).expect("a clean end");
    assert_eq!((cut.status, cut.body.as_slice()), (200, &whole[..4096]));
    fail(Fault::Empty);
    assert_eq!(look(&stage).expect("a clean end").body.len(), 0);
    fail(Fault::Aborted(4096));
    assert!(look(&stage).is_err(), "a broken body must not end cleanly");
    fail(Fault::Status(429, vec![("Retry-After".to_owned(), "1".to_owned())], Bytes::from_static(b"limit exceeded\n")));
    let refused = look(&stage).expect("an answer");
    assert_eq!((refused.status, refused.values("Retry-After")), (429, vec!["1"]));
    fail(Fault::NotModified);
    assert_eq!(look(&stage).expect("an answer").status, 304);
    fail(Fault::UnaskedGzip);
    assert_eq!(look(&stage).expect("an answer").values("Content-Encoding"), ["gzip"]);
    assert_eq!(look(&stage).expect("an answer").body, whole);
    let counts = stage.stand_in.count();
    assert_eq!((counts.picture_requests, counts.not_modified), (7, 1));
}

#[test]
fn held_answers_wait_and_are_noted() {
    let stage = Stage::new(town());
    stage.stand_in.hold();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| look(&stage));
        while stage.stand_in.received().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(stage.stand_in.count().pictures, 0);
        stage.stand_in.release();
        assert_eq!(waiting.join().expect("no panic").expect("an answer").status, 200);
    });
    let received = stage.stand_in.received();
    assert_eq!(received[0].target, format!("/api/v4/users/{ALICE}/image"));
    assert!(received[0].header("authorization").is_some());
}

#[test]
fn tests_change_what_is_seen_and_by_whom() {
    let stage = Stage::new(town());
    let (stand_in, status) = (&stage.stand_in, |stage: &Stage| look(stage).expect("an answer").status);
    let before = look(&stage).expect("an answer");
    stand_in.show_raw("alice", recording_body("1562e988cf655edd.gif"), "image/gif");
    let after = look(&stage).expect("an answer");
    assert_ne!(before.values("Etag"), after.values("Etag"));
    assert_eq!(after.values("Content-Type"), ["image/gif"]);
    stand_in.set_stamp("alice", -5);
    assert_eq!(look(&stage).expect("an answer").values("Etag"), ["-5"]);
    stand_in.deny("bob", "alice");
    assert_eq!(status(&stage), 403);
    stand_in.allow("bob", "alice");
    assert_eq!(status(&stage), 200);
    let token = stand_in.token("bob");
    stand_in.revoke(&token);
    let image = format!("/api/v4/users/{ALICE}/image");
    let dead = exchange(stand_in.address(), &Wire::act(&token, "GET", &image, None)).expect("an answer");
    assert_eq!(dead.status, 401);
}

#[test]
fn a_dropped_stand_in_is_gone() {
    let stage = Stage::new(town());
    let address = stage.stand_in.address();
    let socket = Socket::open(address, &Wire::websocket(&stage.stand_in.token("bob")));
    let mut socket = socket.expect("an upgrade");
    assert_eq!(socket.hear(Duration::from_secs(5)).expect("hello")["json"]["event"], "hello");
    drop(stage);
    assert!(std::net::TcpStream::connect(address).is_err(), "the port is still open");
    let end = socket.hear(Duration::from_secs(5));
    assert!(end.is_err() || end == Ok(json!({"opcode": "closed"})), "the socket is still open");
}

#[test]
fn the_page_signs_its_visitor_in() {
    let stand_in = StandIn::start(Options::default()).expect("the stand-in starts");
    let page = exchange(stand_in.address(), &Wire::act("", "GET", "/", None)).expect("a page");
    assert_eq!(page.values("Content-Type"), ["text/html; charset=utf-8"]);
    let cookie = page.values("Set-Cookie")[0].to_owned();
    let token = cookie.strip_prefix("MMAUTHTOKEN=").and_then(|rest| rest.split(';').next()).expect("a token");
    let me = exchange(stand_in.address(), &Wire::act(token, "GET", "/api/v4/users/me", None)).expect("a record");
    let record: Value = serde_json::from_slice(&me.body).expect("JSON");
    assert_eq!(record["username"], "alice");
    for asset in ["/demo/page.css", "/demo/page.js"] {
        assert!(String::from_utf8_lossy(&page.body).contains(asset), "{asset}");
        let answer = exchange(stand_in.address(), &Wire::act("", "GET", asset, None)).expect("an asset");
        assert_eq!(answer.status, 200, "{asset}");
    }
}

/// A request of somebody, answered.
fn ask(stand_in: &StandIn, user: &str, method: &str, path: &str, json: &str) -> Response {
    let body = (!json.is_empty()).then(|| ("application/json", json.as_bytes().to_vec()));
    let path = format!("/api/v4{path}");
    exchange(stand_in.address(), &Wire::act(&stand_in.token(user), method, &path, body)).expect("an answer")
}

/// The usernames in a list, or in the named member of an answer.
fn told(answer: &Response, member: &str) -> Vec<String> {
    let parsed: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let list = if member.is_empty() { &parsed } else { &parsed[member] };
    let name = |record: &Value| record["username"].as_str().expect("a record").to_owned();
    list.as_array().map(|list| list.iter().map(name).collect()).unwrap_or_default()
}

fn watch(stand_in: &StandIn, user: &str) -> Socket {
    let mut socket = Socket::open(stand_in.address(), &Wire::websocket(&stand_in.token(user))).expect("an upgrade");
    assert_eq!(socket.hear(Duration::from_secs(5)).expect("hello")["json"]["event"], "hello");
    socket
}

#[test]
fn lists_flip_with_the_permission_and_presence_does_not() {
    let stage = Stage::new(town());
    let stand_in = &stage.stand_in;
    let [alice, bob] = [ALICE.to_owned(), stand_in.id("bob")];
    let (ids, names) = (json!([alice, bob]).to_string(), json!(["alice", "bob"]).to_string());
    let lists = [
        ("POST", "/users/ids", ids.as_str(), ""),
        ("POST", "/users/usernames", &names, ""),
        ("POST", "/users/search", r#"{"term":"ali"}"#, ""),
        ("GET", "/users?per_page=200", "", ""),
        ("GET", "/users/autocomplete?name=ALI&limit=5", "", "users"),
    ];
    for (sees, expected) in [(true, 200), (false, 403), (true, 200)] {
        if sees {
            stand_in.allow("bob", "alice");
        } else {
            stand_in.deny("bob", "alice");
        }
        assert_eq!(look(&stage).expect("an answer").status, expected);
        assert_eq!(ask(stand_in, "bob", "GET", "/users/username/alice", "").status, expected);
        for (method, path, json, member) in lists {
            let names = told(&ask(stand_in, "bob", method, path, json), member);
            assert_eq!(names.contains(&"alice".to_owned()), sees, "{path}");
        }
        let members = format!("/users?in_channel={TOWN_SQUARE}");
        assert!(told(&ask(stand_in, "bob", "GET", &members, ""), "").contains(&"alice".to_owned()));
        let presence: Value =
            serde_json::from_slice(&ask(stand_in, "bob", "POST", "/users/status/ids", &ids).body).expect("JSON");
        assert_eq!(presence[0]["user_id"], ALICE);
    }
}

#[test]
fn lists_come_in_pages_by_time_and_apart_from_the_channel() {
    let stand_in = StandIn::start(town()).expect("the stand-in starts");
    let get = |path: &str| ask(&stand_in, "alice", "GET", path, "");
    assert_eq!(told(&get("/users?per_page=2&page=1"), ""), ["carol", "dave"]);
    assert_eq!(told(&get("/users?page=18446744073709551615"), "").len(), 0);
    let autocomplete = get(&format!("/users/autocomplete?name=&limit=2&in_team={ALPHA}&in_channel={NOOK}"));
    assert_eq!(told(&autocomplete, "users"), ["alice", "gus"]);
    assert_eq!(told(&autocomplete, "out_of_channel"), ["bob", "carol"]);
    let ids = json!([ALICE, stand_in.id("bob")]).to_string();
    stand_in.reset("bob");
    let record: Value = serde_json::from_slice(&get(&format!("/users/{}", stand_in.id("bob"))).body).expect("JSON");
    let since = record["update_at"].as_i64().expect("a time") - 1;
    assert_eq!(told(&ask(&stand_in, "alice", "POST", &format!("/users/ids?since={since}"), &ids), ""), ["bob"]);
    let team = format!("/users?in_team={ALPHA}");
    let etag = get(&team).values("Etag")[0].to_owned();
    let held = Wire::act(&stand_in.token("alice"), "GET", &format!("/api/v4{team}"), None).with("If-None-Match", &etag);
    assert_eq!(exchange(stand_in.address(), &held).expect("an answer").status, 304);
    for (path, json) in [
        ("/users/ids", "[]"),
        ("/users/ids", "{}"),
        ("/users/ids?since=x", &*ids),
        ("/users/usernames", "[]"),
        ("/users/search", "{}"),
        ("/users/search", "["),
    ] {
        assert_eq!(ask(&stand_in, "alice", "POST", path, json).status, 400, "{path} {json}");
    }
    assert_eq!(stand_in.count().list_requests, 12);
}

#[test]
fn held_lists_say_what_was_true_when_they_were_asked_for() {
    let stage = Stage::new(town());
    let stand_in = &stage.stand_in;
    let token = stand_in.token("bob");
    stand_in.hold_lists();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(stand_in, "bob", "GET", "/users", ""));
        while stand_in.received().is_empty() {
            std::thread::yield_now();
        }
        // What does not wait goes through, and by then the list is decided: one worker answers in turn.
        assert_eq!(look(&stage).expect("an answer").status, 200);
        stand_in.deny("bob", "alice");
        stand_in.revoke(&token);
        stand_in.release();
        assert!(told(&waiting.join().expect("no panic"), "").contains(&"alice".to_owned()));
    });
    assert!(!told(&ask(stand_in, "bob", "GET", "/users", ""), "").contains(&"alice".to_owned()));
}

#[test]
fn changes_elsewhere_are_told_and_shown() {
    let stage = Stage::new(town());
    let stand_in = &stage.stand_in;
    // Refused the picture, and told of it all the same.
    let mut sockets = [watch(stand_in, "bob"), watch(stand_in, "mallory")];
    let mut last = look(&stage).expect("an answer").values("Etag")[0].to_owned();
    let steps: [(&str, &dyn Fn()); 4] = [
        ("show", &|| stand_in.show("alice", recording_body("0043c13d71a3b96e.png"))),
        ("reset", &|| stand_in.reset("alice")),
        ("rename", &|| stand_in.rename("alice", "zoe")),
        ("show again", &|| stand_in.show("zoe", recording_body("0043c13d71a3b96e.png"))),
    ];
    for (step, change) in steps {
        change();
        let stamp = look(&stage).expect("an answer").values("Etag")[0].to_owned();
        assert_ne!(stamp, last, "{step}");
        assert_eq!(stamp.starts_with('-'), ["reset", "rename"].contains(&step), "{step}: {stamp}");
        for socket in &mut sockets {
            let heard = socket.hear(Duration::from_secs(5)).expect("an event");
            let user = &heard["json"]["data"]["user"];
            assert_eq!(
                (&user["id"], user["last_picture_update"].to_string()),
                (&json!(ALICE), stamp.clone()),
                "{step}"
            );
        }
        last = stamp;
    }
    stand_in.set_told_stamp("zoe", i64::MIN);
    let record = ask(stand_in, "bob", "GET", &format!("/users/{ALICE}"), "");
    assert!(String::from_utf8_lossy(&record.body).contains("\"last_picture_update\":-9223372036854775808"));
    assert_eq!(look(&stage).expect("an answer").values("Etag"), [last.as_str()]);
    stand_in.show_icon(ALPHA, None);
    stand_in.tell("posted", &json!({"post": "{\"message\":\"user_updated\"}"}));
    for (socket, expected) in sockets.iter_mut().zip([["update_team", "posted"].as_slice(), &["posted"]]) {
        for event in expected {
            assert_eq!(socket.hear(Duration::from_secs(5)).expect("an event")["json"]["event"], **event);
        }
    }
}

#[test]
fn rights_end_with_the_answer_and_whom_it_concerns_is_told() {
    let stage = Stage::new(town());
    let stand_in = &stage.stand_in;
    let (alice, gus, oscar) = (format!("/users/{ALICE}/image"), stand_in.id("gus"), stand_in.id("oscar"));
    let roles = format!("/users/{oscar}/roles");
    let square = format!("/channels/{TOWN_SQUARE}/members/{}", stand_in.id("bob"));
    let (nook, team) = (format!("/channels/{NOOK}/members/{gus}"), format!("/teams/{ALPHA}/members/{oscar}"));
    let mut gus_hears = watch(stand_in, "gus");
    let mut oscar_hears = watch(stand_in, "oscar");
    stand_in.join_team("oscar", ALPHA);
    for (actor, method, path, json, status) in [
        ("bob", "PUT", &roles, r#"{"roles":"system_guest"}"#, 403),
        ("mmadmin", "PUT", &roles, r#"{"roles":"banana"}"#, 400),
        ("bob", "DELETE", &team, "", 403),
        ("bob", "DELETE", &nook, "", 403),
        ("mmadmin", "DELETE", &square, "", 400),
    ] {
        assert_eq!(ask(stand_in, actor, method, path, json).status, status, "{actor} {path} {json}");
    }
    let image = |user: &str| ask(stand_in, user, "GET", &alice, "").status;
    assert_eq!((image("gus"), image("oscar")), (200, 200));
    assert_eq!(ask(stand_in, "alice", "DELETE", &nook, "").status, 200);
    assert_eq!((image("gus"), image("oscar")), (403, 200));
    assert_eq!(ask(stand_in, "mmadmin", "PUT", &roles, r#"{"roles":"system_user_access_token"}"#).status, 200);
    assert_eq!(image("oscar"), 200, "in the town square with her");
    assert_eq!(ask(stand_in, "oscar", "DELETE", &team, "").status, 200);
    assert_eq!(image("oscar"), 403);
    assert_eq!(ask(stand_in, "oscar", "DELETE", &team, "").status, 404);
    // Whoever leaves hears of it; and Oscar was still in the team when Gus left it with his last channel.
    let gus_is_told = ["user_removed", "leave_team"].as_slice();
    let oscar_is_told = ["leave_team", "user_role_updated", "leave_team"].as_slice();
    for (socket, events) in [(&mut gus_hears, gus_is_told), (&mut oscar_hears, oscar_is_told)] {
        for event in events {
            assert_eq!(socket.hear(Duration::from_secs(5)).expect("an event")["json"]["event"], *event);
        }
    }
    let carol = stand_in.token("carol");
    assert_eq!(ask(stand_in, "bob", "DELETE", &format!("/users/{}", stand_in.id("carol")), "").status, 403);
    assert_eq!(ask(stand_in, "carol", "DELETE", "/users/me", "").status, 200);
    let gone = Wire::act(&carol, "GET", "/api/v4/users/me", None);
    assert_eq!(exchange(stand_in.address(), &gone).expect("an answer").status, 401);
    let [kept, ended] = [stand_in.session("bob"), stand_in.sign_in("bob")];
    let path = format!("/users/{}/sessions/revoke", kept.user_id);
    for (id, status) in [("x".to_owned(), 400), (ended.id(), 200), (ended.id(), 400)] {
        let json = json!({ "session_id": id }).to_string();
        assert_eq!(ask(stand_in, "bob", "POST", &path, &json).status, status);
    }
    assert_eq!(ask(stand_in, "bob", "POST", "/users/sessions/revoke/all", "").status, 403);
    assert_eq!(ask(stand_in, "mmadmin", "POST", "/users/sessions/revoke/all", "").status, 200);
    let dead = Wire::act(&kept.token, "GET", "/api/v4/users/me", None);
    assert_eq!(exchange(stand_in.address(), &dead).expect("an answer").status, 401);
}

#[test]
fn a_crowd_signs_in_and_is_counted() {
    let stand_in = StandIn::start(Options::crowd(80)).expect("the stand-in starts");
    let sessions = stand_in.sessions();
    assert_eq!((sessions.len(), &sessions), (80, &stand_in.sessions()));
    stand_in.deny(&sessions[1].user_id, &sessions[0].user_id);
    stand_in.hold();
    std::thread::scope(|scope| {
        let path = format!("/api/v4/users/{}/image", sessions[0].user_id);
        let (address, path) = (stand_in.address(), &path);
        let wait = |session: &Session| {
            let wire = Wire::act(&session.token, "GET", path, None);
            scope.spawn(move || exchange(address, &wire).expect("an answer").status)
        };
        let waiting: Vec<_> = sessions[..5].iter().map(wait).collect();
        while stand_in.count().most_pictures_at_once < 5 {
            std::thread::yield_now();
        }
        stand_in.release();
        let statuses: Vec<u64> = waiting.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        assert_eq!(statuses, [200, 403, 200, 200, 200]);
    });
    let counts = stand_in.count();
    assert_eq!((counts.picture_requests, counts.pictures, counts.picture_refusals), (5, 4, 1));
    stand_in.revoke_all(&sessions[2].user_id);
    assert_ne!(stand_in.sessions()[2], sessions[2]);
}
