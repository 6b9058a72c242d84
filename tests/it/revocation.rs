//! What ends a session or a right and passes through us ends the grants that it may touch: the very next request is
//! asked upstream. What upstream refuses, and what a stranger tries, ends nothing.

use crate::client::{ALICE, ALICES_TOKEN, BOBS_TOKEN, PATIENCE, Request, read_answer};
use crate::mattermost::{costing, earns_grant, from_the_site, looks_at, picture_path, town};
use crate::pictures::{RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer, drain, not_modified, picture_answer, send_and_close};
use avatar_proxy::demo::{Channel, Options, Session, StandIn};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A request that ends something, and what it leaves its victim with.
struct Blow {
    name: &'static str,
    request: Request,
    victim: &'static str,
    target: &'static str,
    left: u16,
}

fn api(method: &str, path: &str, body: &Value) -> Request {
    let request = Request::new(method, &format!("/api/v4{path}"));
    if body.is_null() { request } else { request.header("Content-Type", "application/json").body(body.to_string()) }
}

/// The town, in which Gus shares a channel with Nova, Bob is a guest who sees her in the town square, and Mallory is seen
/// by those only who see everybody.
fn town_of_guests() -> (StandIn, String) {
    let mut options = Options::default();
    let id = |name: &str| {
        let resident = options.residents.iter().find(|resident| resident.username == name);
        resident.expect("lives here").id.clone()
    };
    let mut nook = Channel::new("nook", &options.teams[0]);
    nook.members = vec![id("gus"), id("nova")];
    let channel = nook.id.clone();
    options.channels.push(nook);
    (StandIn::start(options).expect("a free port"), channel)
}

/// Without the credentials of whoever strikes it.
async fn blows(town: &StandIn, nook: &str, session: &Session) -> Vec<Blow> {
    let (alice, bob, gus) = (town.id("alice"), town.id("bob"), town.id("gus"));
    let team = &Options::default().teams[0].id;
    let role = api("GET", "/roles/name/system_user", &Value::Null).bearer(&town.token("mmadmin"));
    let role = role.send(town.address()).await.json()["id"].as_str().expect("an id").to_owned();
    let of_alice = |name, request, target, left| Blow { name, request, victim: "alice", target, left };
    let null = Value::Null;
    vec![
        of_alice(
            "one session",
            api("POST", &format!("/users/{alice}/sessions/revoke"), &json!({"session_id": session.id()})),
            "nova",
            401,
        ),
        of_alice("all sessions", api("POST", &format!("/users/{alice}/sessions/revoke/all"), &null), "nova", 401),
        of_alice("spelt oddly", api("POST", &format!("/users/{alice}/%73essions%2Frevoke/all"), &null), "nova", 401),
        of_alice("deactivated", api("PUT", &format!("/users/{alice}/active"), &json!({"active": false})), "nova", 401),
        of_alice("deleted", api("DELETE", &format!("/users/{alice}"), &null), "nova", 401),
        of_alice(
            "made a guest",
            api("PUT", &format!("/users/{alice}/roles"), &json!({"roles": "system_guest"})),
            "mallory",
            403,
        ),
        of_alice(
            "everybody's role",
            api("PUT", &format!("/roles/{role}/patch"), &json!({"permissions": ["create_emojis"]})),
            "mallory",
            403,
        ),
        Blow {
            name: "out of the channel",
            request: api("DELETE", &format!("/channels/{nook}/members/{gus}"), &null),
            victim: "gus",
            target: "nova",
            left: 403,
        },
        Blow {
            name: "out of the team",
            request: api("DELETE", &format!("/teams/{team}/members/{bob}"), &null),
            victim: "bob",
            target: "nova",
            left: 403,
        },
    ]
}

#[actix_web::test]
async fn whatever_ends_a_session_or_a_right_is_felt_by_the_next_request() {
    let count = {
        let (town, nook) = town_of_guests();
        blows(&town, &nook, &town.session("alice")).await.len()
    };
    for n in 0..count {
        let (town, nook) = town_of_guests();
        let proxy = Proxy::granting(town.address());
        let guest = api("PUT", &format!("/users/{}/roles", town.id("bob")), &json!({"roles": "system_guest"}));
        assert_eq!(proxy.send(&guest.bearer(&town.token("mmadmin"))).await.status, 200);
        let Blow { name, request, victim, target, left } =
            blows(&town, &nook, &town.session("alice")).await.swap_remove(n);
        let look = looks_at(&town, victim, target, "size=32");
        let other = looks_at(&town, "erin", "nova", "size=32");
        earns_grant(&proxy, &town, &look).await;
        earns_grant(&proxy, &town, &other).await;

        // By somebody who may not, by one whom upstream does not know, and by nobody.
        for (who, refused) in [
            ("carol", request.clone().bearer(&town.token("carol"))),
            ("a stranger", request.clone().bearer(BOBS_TOKEN)),
            ("nobody", request.clone()),
        ] {
            let status = proxy.send(&refused).await.status;
            assert!((400..500).contains(&status), "{name} by {who}: {status}");
            for look in [&look, &other] {
                let (shown, asked) = costing(&proxy, &town, look).await;
                assert_eq!((shown.status, asked), (200, 0), "{name} by {who}");
            }
        }

        assert_eq!(proxy.send(&request.bearer(&town.token("mmadmin"))).await.status, 200, "{name}");
        let (answer, asked) = costing(&proxy, &town, &look).await;
        assert_eq!((answer.status, asked), (left, 1), "{name}");
        let (answer, _) = costing(&proxy, &town, &other).await;
        assert_eq!(answer.status, if name == "everybody's role" { 200 } else { answer.status }, "{name}");
    }
}

#[actix_web::test]
async fn a_logout_ends_every_set_of_credentials_that_holds_the_token_and_no_other() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let path = format!("{}?size=32", picture_path(&town, "nova"));
    let ask = || Request::get(&path);
    for by_cookie in [true, false] {
        let session = town.sign_in("alice");
        let (token, bobs) = (&session.token, town.sign_in("bob").token);
        let ended = [
            ask().cookie(token),
            ask().bearer(token),
            ask().cookie(token).bearer(&bobs),
            ask().cookie(token).header("X-Mattermost-Preauth-Secret", "s"),
        ];
        let spared =
            [ask().cookie(&bobs), ask().bearer(&town.sign_in("alice").token), ask().cookie(&bobs).bearer(token)];
        for request in ended.iter().chain(&spared) {
            earns_grant(&proxy, &town, request).await;
        }
        // Without a session, and without the proof against cross-site requests.
        let logout = || Request::new("POST", "/api/v4/users/logout");
        assert_eq!(proxy.send(&logout()).await.status, 200);
        assert_eq!(proxy.send(&logout().cookie(token)).await.status, 401);
        earns_grant(&proxy, &town, &ended[1].clone().header("X-Mattermost-Preauth-Secret", "t")).await;

        let logout = if by_cookie { from_the_site(logout(), &session) } else { logout().bearer(token) };
        assert_eq!(proxy.send(&logout).await.status, 200);

        for request in &ended {
            let (answer, asked) = costing(&proxy, &town, request).await;
            assert_eq!((answer.status, asked), (401, 1), "{request:?}");
        }
        // Bob's token decides where it comes first; but a set that holds hers is asked about anew.
        for request in &spared {
            assert_eq!(costing(&proxy, &town, request).await.0.status, 200, "{request:?}");
        }
        assert_eq!(costing(&proxy, &town, &spared[0]).await.1, 0);
        assert_eq!(costing(&proxy, &town, &spared[1]).await.1, 0);
    }
}

/// However oddly: upstream reads a token in each of them, and which one is upstream's business.
#[actix_web::test]
async fn a_logout_counts_however_the_token_is_presented() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let path = format!("{}?size=32", picture_path(&town, "nova"));
    let logout = || Request::new("POST", "/api/v4/users/logout").header("X-Requested-With", "XMLHttpRequest");
    let presentations: [&dyn Fn(&str) -> Request; 5] = [
        &|token| logout().header("Authorization", &format!("Bearer:{token}")),
        &|token| logout().header("Authorization", &format!("TOKEN\t{token}")),
        &|token| logout().header("Cookie", &format!("MMAUTHTOKEN={token}; MMAUTHTOKEN={BOBS_TOKEN}")),
        &|token| logout().cookie(token).cookie(BOBS_TOKEN),
        &|token| logout().cookie(&format!("\"{token}\"")),
    ];
    for present in presentations {
        let token = town.sign_in("alice").token;
        let looks = [Request::get(&path).cookie(&token), Request::get(&path).bearer(&token)];
        for look in &looks {
            earns_grant(&proxy, &town, look).await;
        }
        let logout = present(&token);
        assert_eq!(proxy.send(&logout).await.status, 200, "{logout:?}");
        for look in &looks {
            let (answer, asked) = costing(&proxy, &town, look).await;
            assert_eq!((answer.status, asked), (401, 1), "{logout:?}");
        }
    }
}

/// Only the tokens of OAuth are read there, and they are looked at with `Authorization` as others are.
#[actix_web::test]
async fn a_logout_with_a_token_in_the_query_counts() {
    let picture = png(&solid(RED));
    let upstream = Upstream::replying(move |_, seen| match seen.header("if-none-match") {
        _ if seen.line.starts_with("POST") => answer("200 OK", &[], b"{}"),
        Some("1") => not_modified("1"),
        _ => picture_answer("1", &picture),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let look = |token: &str| Request::picture_of(ALICE, "size=32").bearer(token);
    for name in ["access_token", "a=b&access%5Ftoken", "access_token=x&access_token"] {
        for token in [ALICES_TOKEN, BOBS_TOKEN] {
            proxy.send(&look(token)).await;
        }
        let asked = upstream.seen().len();
        let logout = Request::new("POST", &format!("/api/v4/users/logout?{name}={ALICES_TOKEN}"));
        assert_eq!(proxy.send(&logout).await.status, 200);
        for (token, asked) in [(BOBS_TOKEN, asked + 1), (ALICES_TOKEN, asked + 2)] {
            assert_eq!(proxy.send(&look(token)).await.status, 200);
            assert_eq!(upstream.seen().len(), asked, "{name}");
        }
    }
}

#[actix_web::test]
async fn a_logout_without_an_answer_counts() {
    let picture = png(&solid(RED));
    let upstream = Upstream::replying(move |_, seen| match (&*seen.line, seen.header("if-none-match")) {
        (line, _) if line.starts_with("POST") => Vec::new(),
        (_, Some("1")) => not_modified("1"),
        _ => picture_answer("1", &picture),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    for _ in 0..2 {
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
    }
    assert_eq!(upstream.seen().len(), 1);
    let logout = Request::new("POST", "/api/v4/users/logout").cookie(ALICES_TOKEN);
    assert_eq!(proxy.send(&logout).await.status, 502);
    proxy.send(&Request::picture("size=32")).await;
    assert_eq!(upstream.seen().len(), 3);
}

/// Only the app's own logins end sessions elsewhere.
#[actix_web::test]
async fn a_login_of_the_mobile_app_ends_all_grants_and_one_of_a_browser_none() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    let login = |password: &str| api("POST", "/users/login", &json!({"login_id": "bob", "password": password}));
    let app = "Mattermost Mobile/2.43.0+700 (Android; 16; Pixel)";
    for (agent, password, asked) in
        [("Mozilla/5.0", avatar_proxy::demo::PASSWORD, 0), (app, "wrong", 0), (app, avatar_proxy::demo::PASSWORD, 1)]
    {
        proxy.send(&login(password).header("User-Agent", agent)).await;
        assert_eq!(costing(&proxy, &town, &look).await.1, asked, "{agent} {password}");
    }
}

#[actix_web::test]
async fn joining_and_editing_end_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    earns_grant(&proxy, &town, &look).await;
    let admin = town.token("mmadmin");
    for request in [
        api("POST", "/channels/members/me/view", &json!({})),
        api("POST", "/posts", &json!({"message": "users/logout"})),
        api("PUT", "/users/me/patch", &json!({"nickname": "m"})),
        api("POST", "/users/ids", &json!([town.id("bob")])),
        api("POST", "/users/login/type", &json!({})),
        api("GET", "/users/logout", &Value::Null),
    ] {
        proxy.send(&request.bearer(&admin)).await;
    }
    assert_eq!(costing(&proxy, &town, &look).await.1, 0);
}

/// Whatever a request was for, its 401 says that upstream does not know these credentials.
#[actix_web::test]
async fn any_401_takes_the_grants_of_its_credentials() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let nova = picture_path(&town, "nova");
    for (method, path) in [
        ("GET", "/api/v4/users/me"),
        ("GET", "/api/v4/users?per_page=5"),
        ("POST", "/api/v4/users/logout"),
        ("POST", "/api/v4/users/me/sessions/revoke/all"),
        ("PUT", "/api/v4/users/me/patch"),
        ("POST", &*nova),
        ("DELETE", &*nova),
        ("GET", &*format!("{nova}/default")),
    ] {
        let session = town.sign_in("alice");
        let look = Request::get(&format!("{nova}?size=32")).bearer(&session.token);
        earns_grant(&proxy, &town, &look).await;
        // What else there is of the picture is not to matter.
        let others = looks_at(&town, "bob", "nova", "size=32");
        town.revoke(&session.token);
        let refused = Request::new(method, path).bearer(&session.token);
        assert_eq!(proxy.send(&refused).await.status, 401, "{method} {path}");
        proxy.send(&others).await;
        let (answer, asked) = costing(&proxy, &town, &look).await;
        assert_eq!((answer.status, asked), (401, 1), "{method} {path}");
    }
}

/// A picture that is only passed on is refused all the same.
#[actix_web::test]
async fn a_403_or_404_of_a_picture_that_passes_through_takes_the_grant_of_the_pair() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let emoji = format!("/api/v4/emoji/{}", Options::default().emoji[0].id);
    let looks_at_emoji = Request::get(&format!("{emoji}/image?size=20")).bearer(&town.token("alice"));
    let [novas, erins] = ["nova", "erin"].map(|user| looks_at(&town, "alice", user, "size=32"));
    let bobs = looks_at(&town, "bob", "nova", "size=32");
    for directive in ["no-store", "no-transform"] {
        town.allow("alice", "nova");
        for look in [&novas, &erins, &bobs] {
            proxy.send(look).await;
            assert_eq!(costing(&proxy, &town, look).await.1, 0);
        }
        town.deny("alice", "nova");
        assert_eq!(proxy.send(&novas.clone().header("Cache-Control", directive)).await.status, 403);
        for (look, status, asked) in [(&novas, 403, 1), (&erins, 200, 0), (&bobs, 200, 0)] {
            let (answer, cost) = costing(&proxy, &town, look).await;
            assert_eq!((answer.status, cost), (status, asked), "{directive} {look:?}");
        }
    }
    earns_grant(&proxy, &town, &looks_at_emoji).await;
    // Elsewhere, so that nothing else tells of it.
    let deletes = Request::new("DELETE", &emoji).bearer(&town.token("mmadmin"));
    assert_eq!(deletes.send(town.address()).await.status, 200);
    assert_eq!(proxy.send(&looks_at_emoji.clone().header("Cache-Control", "no-store")).await.status, 404);
    let (answer, asked) = costing(&proxy, &town, &looks_at_emoji).await;
    assert_eq!((answer.status, asked), (404, 1));
}

#[actix_web::test]
async fn a_socket_that_is_refused_with_401_takes_the_grants_of_its_credentials() {
    let picture = png(&solid(RED));
    let upstream = Upstream::replying(move |_, seen| match seen.header("upgrade") {
        Some(_) => answer("401 Unauthorized", &[], b"{}"),
        None if seen.header("if-none-match") == Some("1") => not_modified("1"),
        None => picture_answer("1", &picture),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
    let handshake = Request::get("/api/v4/websocket")
        .cookie(ALICES_TOKEN)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(proxy.send(&handshake).await.status, 401);
    proxy.send(&Request::picture("size=32")).await;
    assert_eq!(upstream.seen().len(), 3);
}

/// What was begun is followed to its end, whether or not anybody waits for it.
#[actix_web::test]
async fn a_client_that_leaves_while_its_logout_is_under_way_is_logged_out_all_the_same() {
    let picture = png(&solid(RED));
    let (answers, signed_in) = (Rc::new(Notify::new()), Rc::new(Cell::new(true)));
    let (go_on, state) = (answers.clone(), signed_in.clone());
    let upstream = Upstream::scripted(move |_, seen, mut stream| {
        let (picture, go_on, state) = (picture.clone(), go_on.clone(), state.clone());
        async move {
            if seen.line.starts_with("POST") {
                go_on.notified().await;
                state.set(false);
                send_and_close(&mut stream, &answer("200 OK", &[], b"{}")).await;
            } else {
                let shown =
                    if state.get() { picture_answer("1", &picture) } else { answer("401 Unauthorized", &[], b"{}") };
                send_and_close(&mut stream, &shown).await;
            }
            drain(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let look = Request::picture("size=32");
    assert_eq!(proxy.send(&look).await.status, 200);
    let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let logout = Request::new("POST", "/api/v4/users/logout").cookie(ALICES_TOKEN);
    client.write_all(&logout.bytes("chat.example")).await.expect("taken");
    upstream.has_seen(2).await;
    client.set_zero_linger().expect("a socket");
    drop(client);
    assert_eq!((proxy.send(&look).await.status, upstream.seen().len()), (200, 2), "she has her grant until then");

    answers.notify_one();

    let ended = async { while proxy.send(&look).await.status != 401 {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
}

/// A right that ends between a question and its answer is not granted by that answer.
#[actix_web::test]
async fn an_answer_that_was_on_its_way_when_a_session_ended_grants_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let look = looks_at(&town, "alice", "nova", "size=32");
    proxy.send(&looks_at(&town, "bob", "nova", "size=32")).await;
    town.hold();
    let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    client.write_all(&look.bytes(&proxy.address.to_string())).await.expect("taken");
    while town.count().most_pictures_at_once == 0 || town.received().len() < 2 {
        tokio::task::yield_now().await;
    }
    let logout = Request::new("POST", "/api/v4/users/logout").bearer(&town.token("alice"));
    assert_eq!(proxy.send(&logout).await.status, 200);
    town.release();
    // Upstream had said yes before.
    assert_eq!(read_answer(&mut client, "GET").await.status, 200);
    let (answer, asked) = costing(&proxy, &town, &look).await;
    assert_eq!((answer.status, asked), (401, 1));
}
