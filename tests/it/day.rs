//! A client's day before a real town: everything that the web client and the apps do passes through, and whoever looks
//! next sees what was changed.

use crate::client::{Answer, Request};
use crate::dice::Dice;
use crate::mattermost::{BROWSER, uploads};
use crate::mattermost::{
    both, decoded, form, from_the_site, image_form, looks_at, picture_path, portrait, shows, town,
};
use crate::pictures::{BLUE, RED, letter, photo, png, solid};
use crate::proxy::Proxy;
use avatar_proxy::demo::{PASSWORD, Session, StandIn};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const SIZES: [&str; 5] = ["", "size=24", "size=32&dpr=2", "size=128&format=png", "format=original"];

fn posts_json(path: &str, content: &Value) -> Request {
    Request::new("POST", path).header("Content-Type", "application/json").body(content.to_string())
}

/// Signs in as the web client does, and reads the session off the cookies.
async fn log_in(proxy: &Proxy, user: &str) -> Session {
    let login = posts_json("/api/v4/users/login", &json!({"login_id": user, "password": PASSWORD}));
    let answer = proxy.send(&login.header("X-Requested-With", "XMLHttpRequest")).await;
    assert_eq!(answer.status, 200);
    let cookies = answer.all("set-cookie");
    let value = |name: &str| {
        let cookie = cookies.iter().find_map(|cookie| cookie.strip_prefix(name)?.strip_prefix('='));
        cookie.and_then(|rest| rest.split(';').next()).expect("a cookie of each name").to_owned()
    };
    assert_eq!(cookies.len(), 3, "{cookies:?}");
    assert_eq!(answer.header("token"), Some(&*value("MMAUTHTOKEN")));
    Session { token: value("MMAUTHTOKEN"), csrf: value("MMCSRF"), user_id: value("MMUSERID") }
}

/// Bob looks at a user at every size, with the tags he has; gives what he holds then.
async fn bob_looks(proxy: &Proxy, town: &StandIn, user: &str, held: &[Answer]) -> Vec<Answer> {
    let mut seen = Vec::new();
    for (n, query) in SIZES.iter().enumerate() {
        let request = looks_at(town, "bob", user, query);
        let request = match held.get(n).and_then(|held| held.header("etag")) {
            Some(tag) => request.header("If-None-Match", tag),
            None => request,
        };
        seen.push(proxy.send(&request).await);
    }
    seen
}

fn all_show(seen: &[Answer], picture: &image::RgbImage) -> bool {
    seen.iter().all(|answer| answer.status == 200 && shows(answer, picture))
}

#[actix_web::test]
async fn a_member_changes_their_picture_and_name_and_everybody_sees_it_at_once() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let alice = log_in(&proxy, "alice").await;
    let path = picture_path(&town, "alice");
    let original = decoded(&Request::get(&path).bearer(&town.token("bob")).send(town.address()).await.body);
    let mut held = bob_looks(&proxy, &town, "alice", &[]).await;
    assert!(all_show(&held, &original));
    assert!(bob_looks(&proxy, &town, "alice", &held).await.iter().all(|answer| answer.status == 304));

    let unproven = image_form(&path, &solid(RED)).cookie(&alice.token);
    assert_eq!(proxy.send(&unproven).await.status, 401, "without the proof against cross-site requests");
    assert!(bob_looks(&proxy, &town, "alice", &held).await.iter().all(|answer| answer.status == 304));

    for (write, shown) in [
        (from_the_site(image_form(&path, &solid(RED)), &alice), solid(RED)),
        (image_form(&path, &letter(BLUE)).bearer(&alice.token), letter(BLUE)),
        (from_the_site(image_form("/api/v4/users/me/image", &photo(5)), &alice), photo(5)),
    ] {
        assert_eq!(proxy.send(&write).await.status, 200);
        held = bob_looks(&proxy, &town, "alice", &held).await;
        assert!(all_show(&held, &shown));
    }

    assert_eq!(proxy.send(&from_the_site(Request::new("DELETE", &path), &alice)).await.status, 200);
    held = bob_looks(&proxy, &town, "alice", &held).await;
    let default = proxy.send(&Request::get(&format!("{path}/default")).bearer(&alice.token)).await;
    assert!(all_show(&held, &decoded(&default.body)));

    let rename = posts_json("/api/v4/users/me/patch", &json!({"username": "zoe"})).method("PUT");
    assert_eq!(proxy.send(&from_the_site(rename, &alice)).await.status, 200);
    let renamed = bob_looks(&proxy, &town, "zoe", &held).await;
    let drawn = decoded(&Request::get(&path).bearer(&alice.token).send(town.address()).await.body);
    assert!(all_show(&renamed, &drawn));
    assert!(decoded(&renamed[4].body) == drawn && drawn != decoded(&default.body), "another letter");

    let logout = from_the_site(Request::new("POST", "/api/v4/users/logout"), &alice);
    assert_eq!(proxy.send(&logout).await.status, 200);
    assert_eq!(proxy.send(&Request::get(&path).cookie(&alice.token)).await.status, 401);
}

#[actix_web::test]
async fn a_write_is_seen_by_the_next_reader_however_it_is_spelt() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let id = town.id("carol");
    let escaped = format!("%{:x}{}", id.as_bytes()[0], &id[1..]);
    let token = town.token("carol");
    for (n, path) in [
        format!("/api/v4/users/{id}/image"),
        format!("/api/v4/users/{escaped}/image"),
        format!("/api/v4/users/{id}/imag%65"),
        format!("/api/v4/users/{id}%2Fimage"),
        "/api/v4/users/me/image".to_owned(),
        "/api/v4/users/m%65/image".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let picture = portrait(u32::try_from(n).expect("few"));
        assert_eq!(proxy.send(&image_form(path, &picture).bearer(&token)).await.status, 200, "{path}");
        let held = bob_looks(&proxy, &town, "carol", &[]).await;
        assert!(all_show(&held, &picture), "POST {path}");

        assert_eq!(proxy.send(&Request::new("DELETE", path).bearer(&token)).await.status, 200, "{path}");
        let default = proxy.send(&looks_at(&town, "bob", "carol", "format=original")).await;
        assert!(!shows(&default, &picture));
        assert!(all_show(&bob_looks(&proxy, &town, "carol", &held).await, &decoded(&default.body)), "DELETE {path}");
    }
}

type Socket = WebSocketStream<TcpStream>;

async fn next_event(socket: &mut Socket) -> Value {
    loop {
        let message = socket.next().await.expect("an open socket").expect("a whole message");
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

#[actix_web::test]
async fn a_web_client_hears_of_a_new_picture_and_finds_it_there() {
    let town = town();
    let proxy = Proxy::before(town.address());
    proxy.send(&looks_at(&town, "bob", "alice", "")).await;
    let stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    let url = format!("ws://{}/api/v4/websocket", proxy.address);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("upgraded");
    let challenge = json!({"seq": 1, "action": "authentication_challenge", "data": {"token": town.token("bob")}});
    socket.send(Message::text(challenge.to_string())).await.expect("taken");
    assert_eq!(next_event(&mut socket).await["event"], "hello");
    assert_eq!(next_event(&mut socket).await, json!({"status": "OK", "seq_reply": 1}));

    proxy.send(&uploads(&town, "alice", &photo(7))).await;

    let event = next_event(&mut socket).await;
    assert_eq!(event["event"], "user_updated");
    assert_eq!(event["data"]["user"]["id"], town.id("alice"));
    let stamp = event["data"]["user"]["last_picture_update"].as_i64().expect("a stamp");
    let told = proxy.send(&looks_at(&town, "bob", "alice", &format!("_={stamp}"))).await;
    assert!(shows(&told, &photo(7)));
    assert_eq!(told.header("cache-control"), Some("max-age=86400, private"));
    assert_eq!(town.count().websockets, 1);
}

#[actix_web::test]
async fn a_large_file_goes_up_and_comes_down_as_it_was() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let mut dice = Dice::seeded(20);
    let block = (0..1 << 20).map(|_| u8::try_from(dice.roll(256)).expect("a byte")).collect::<Vec<_>>();
    let file = block.repeat(20);
    let upload = Request::new("POST", "/api/v4/files?channel_id=x&filename=harbour.bin").bearer(&town.token("alice"));

    let stored = proxy.send(&upload.body(file.clone())).await;

    assert_eq!(stored.status, 201);
    let stored = stored.json();
    let id = stored["file_infos"][0]["id"].as_str().expect("an id");
    let download = Request::get(&format!("/api/v4/files/{id}")).bearer(&town.token("alice"));
    let whole = proxy.send(&download).await;
    assert!(whole.status == 200 && whole.complete && whole.body == file);
    let part = proxy.send(&download.header("Range", "bytes=1048570-1048589")).await;
    assert_eq!((part.status, &part.body[..]), (206, &file[1_048_570..1_048_590]));
}

#[actix_web::test]
async fn a_team_icon_changes_for_every_member_at_once() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let teams = Request::get(&format!("/api/v4/users/{}/teams", town.id("bob"))).bearer(&town.token("bob"));
    let id = proxy.send(&teams).await.json()[0]["id"].as_str().expect("a team").to_owned();
    let path = format!("/api/v4/teams/{id}/image");
    let icon = Request::get(&format!("{path}?size=48")).bearer(&town.token("bob")).accept(BROWSER);
    let (old, held) = (proxy.send(&icon).await, icon.clone());
    let held = held.header("If-None-Match", old.header("etag").expect("a tag"));
    assert_eq!((old.dimensions(), proxy.send(&held).await.status), ((48, 48), 304));

    assert_eq!(proxy.send(&image_form(&path, &letter(RED)).bearer(&town.token("bob"))).await.status, 403);
    assert_eq!(proxy.send(&held).await.status, 304);
    assert_eq!(proxy.send(&image_form(&path, &letter(RED)).bearer(&town.token("mmadmin"))).await.status, 200);
    let new = proxy.send(&held).await;
    assert!(new.status == 200 && shows(&new, &letter(RED)));

    // Mattermost leaves the file and only sets the stamp to 0.
    let removed = proxy.send(&Request::new("DELETE", &path).bearer(&town.token("mmadmin"))).await;
    let (after, direct) = both(&proxy, &town, &icon).await;
    assert_eq!((removed.status, after.status), (200, direct.status));
    assert!(shows(&after, &letter(RED)));
}

#[actix_web::test]
async fn an_emoji_is_there_once_it_is_made_and_gone_once_it_is_deleted() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let alice = town.session("alice");
    let record = json!({"name": "anchor", "creator_id": alice.user_id}).to_string();
    let picture = png(&photo(9));
    let parts = [("image", Some("anchor.png"), &*picture), ("emoji", None, record.as_bytes())];

    let made = proxy.send(&from_the_site(form("/api/v4/emoji", &parts), &alice)).await.json();

    let path = format!("/api/v4/emoji/{}", made["id"].as_str().expect("an id"));
    let image = Request::get(&format!("{path}/image?size=20")).bearer(&town.token("bob")).accept(BROWSER);
    let first = proxy.send(&image).await;
    assert_eq!((first.dimensions(), first.header("content-type")), ((20, 20), Some("image/webp")));
    assert!(shows(&first, &photo(9)));
    let held = image.header("If-None-Match", first.header("etag").expect("a tag"));
    assert_eq!(proxy.send(&held).await.status, 304);
    assert_eq!(proxy.send(&from_the_site(Request::new("DELETE", &path), &alice)).await.status, 200);
    let gone = proxy.send(&held).await;
    assert_eq!((gone.status, gone.json()["id"].as_str()), (404, Some("app.emoji.get.no_result")));
}
