//! Changes heard in passing: with one event socket open, whatever changes at another node is seen by the next request of
//! everybody. What is heard only ever makes upstream be asked.

use crate::client::{ALICE, ALICES_TOKEN, BOBS_TOKEN, PATIENCE, Request, read_answer};
use crate::mattermost::{BROWSER, costing, decoded, earns_grant, looks_at, shows, town};
use crate::pictures::{BLUE, RED, letter, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, not_modified, picture_answer, send_and_close};
use avatar_proxy::demo::{Options, StandIn};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Who has a grant on whatever is changed.
const HOLDERS: [&str; 3] = ["alice", "bob", "erin"];

/// A client's event socket, through the proxy.
struct Tunnel(WebSocketStream<TcpStream>);

impl Tunnel {
    async fn open(proxy: &Proxy, town: &StandIn, user: &str) -> Self {
        Self::open_at(proxy, town, user, &proxy.address.to_string()).await
    }

    async fn open_at(proxy: &Proxy, town: &StandIn, user: &str, host: &str) -> Self {
        let stream = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let mut request = format!("ws://{host}/api/v4/websocket").into_client_request().expect("a URL");
        let bearer = format!("Bearer {}", town.token(user)).parse().expect("a field value");
        request.headers_mut().insert("Authorization", bearer);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("upgraded");
        let mut tunnel = Self(socket);
        tunnel.hears("hello").await;
        tunnel
    }

    /// Waits until the client has been told of an event; by then the proxy has heard of it.
    async fn hears(&mut self, name: &str) -> Value {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an event in time");
            let Message::Text(text) = next.expect("an open socket").expect("a whole message") else { continue };
            let event: Value = serde_json::from_str(&text).expect("JSON");
            if event["event"] == name {
                return event;
            }
        }
    }
}

#[actix_web::test]
async fn whatever_changes_a_picture_elsewhere_is_seen_by_the_next_request_of_everybody() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
    // By id: the name will change.
    let id = town.id("carol");
    let look = |viewer: &str| looks_at(&town, viewer, &id, "size=32");
    for viewer in HOLDERS {
        earns_grant(&proxy, &town, &look(viewer)).await;
    }
    let changes: [(&str, &dyn Fn()); 5] = [
        ("upload", &|| town.show(&id, png(&photo(3)))),
        ("another upload", &|| town.show(&id, png(&letter(BLUE)))),
        ("reset", &|| town.reset(&id)),
        ("rename", &|| town.rename(&id, "zoe")),
        ("upload after all", &|| town.show(&id, png(&photo(5)))),
    ];
    for (name, change) in changes {
        change();
        tunnel.hears("user_updated").await;
        let direct = decoded(&look("alice").send(town.address()).await.body);
        for (viewer, cost) in HOLDERS.iter().zip([1, 0, 0]) {
            let (shown, asked) = costing(&proxy, &town, &look(viewer)).await;
            assert!(shows(&shown, &direct), "{viewer} after {name}");
            assert_eq!(asked, cost, "{viewer} after {name}");
        }
    }
}

/// Mattermost draws it from the name, and it has no version.
#[actix_web::test]
async fn a_default_picture_is_asked_for_anew_after_a_rename_here_or_elsewhere() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let id = town.id("carol");
    let path = format!("/api/v4/users/{id}/image/default?size=32");
    let looks = HOLDERS.map(|viewer| Request::get(&path).bearer(&town.token(viewer)).accept(BROWSER));
    for (name, here) in [("zoe", true), ("quentin", false), ("yves", false)] {
        for look in &looks {
            proxy.send(look).await;
            assert_eq!(costing(&proxy, &town, look).await.1, 0, "before {name}");
        }
        if here {
            let patch = Request::new("PUT", &format!("/api/v4/users/{id}/patch")).bearer(&town.token(&id));
            let patch = patch.header("Content-Type", "application/json").body(json!({"username": name}).to_string());
            assert_eq!(proxy.send(&patch).await.status, 200);
        } else {
            let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
            town.rename(&id, name);
            tunnel.hears("user_updated").await;
        }
        let direct = decoded(&looks[0].send(town.address()).await.body);
        for (look, cost) in looks.iter().zip([1, 0, 0]) {
            let (shown, asked) = costing(&proxy, &town, look).await;
            assert_eq!((shows(&shown, &direct), asked), (true, cost), "{name}");
        }
    }
}

#[actix_web::test]
async fn a_team_icon_that_changes_elsewhere_is_seen_by_the_next_request_of_everybody() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
    let team = &Options::default().teams[0].id;
    let path = format!("/api/v4/teams/{team}/image?size=32");
    let look = |viewer: &str| Request::get(&path).bearer(&town.token(viewer)).accept(BROWSER);
    for viewer in HOLDERS {
        earns_grant(&proxy, &town, &look(viewer)).await;
    }
    for colour in [RED, BLUE] {
        town.show_icon(team, Some(png(&letter(colour)).into()));
        tunnel.hears("update_team").await;
        for (viewer, cost) in HOLDERS.iter().zip([1, 0, 0]) {
            let (shown, asked) = costing(&proxy, &town, &look(viewer)).await;
            assert_eq!((shows(&shown, &letter(colour)), asked), (true, cost), "{viewer}");
        }
    }
}

/// A change nobody hears of: without a tunnel, and where listening is switched off.
#[actix_web::test]
async fn what_is_not_heard_of_is_not_asked_about_before_its_time() {
    for listen in [true, false] {
        let town = town();
        let proxy = Proxy::with(town.address(), |config| {
            config.grants.ttl = Duration::from_secs(3600);
            config.grants.listen = listen;
        });
        let look = looks_at(&town, "alice", "nova", "size=32");
        earns_grant(&proxy, &town, &look).await;
        if listen {
            town.show("nova", png(&photo(3)));
        } else {
            let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
            town.show("nova", png(&photo(3)));
            tunnel.hears("user_updated").await;
            town.tell("role_updated", &json!({}));
            tunnel.hears("role_updated").await;
        }
        let (shown, asked) = costing(&proxy, &town, &look).await;
        assert!(asked == 0 && !shows(&shown, &photo(3)), "listen: {listen}");
    }
}

#[actix_web::test]
async fn an_event_grants_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    earns_grant(&proxy, &town, &looks_at(&town, "alice", "nova", "size=32")).await;
    // A real server tells of users whose picture it refuses.
    for (viewer, status) in [("mallory", 403), ("bob", 200)] {
        let mut tunnel = Tunnel::open(&proxy, &town, viewer).await;
        town.show("nova", png(&photo(3)));
        tunnel.hears("user_updated").await;
        proxy.send(&looks_at(&town, "alice", "nova", "size=32")).await;
        let (answer, asked) = costing(&proxy, &town, &looks_at(&town, viewer, "nova", "size=32")).await;
        assert_eq!((answer.status, asked), (status, 1), "{viewer}");
    }
}

#[actix_web::test]
async fn events_about_rights_end_all_grants() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
    let looks = HOLDERS.map(|viewer| looks_at(&town, viewer, "nova", "size=32"));
    for name in [
        "user_removed",
        "leave_team",
        "delete_team",
        "channel_deleted",
        "user_role_updated",
        "memberrole_updated",
        "role_updated",
        "user_activation_status_change",
        "config_changed",
    ] {
        for look in &looks {
            proxy.send(look).await;
            assert_eq!(costing(&proxy, &town, look).await.1, 0, "before {name}");
        }
        town.tell(name, &json!({"user_id": town.id("gus")}));
        tunnel.hears(name).await;
        // At once, or together with what else is heard within a second.
        for look in &looks {
            while costing(&proxy, &town, look).await.1 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    // And in earnest: whoever leaves is refused though nothing of it passed through us but the event.
    town.allow("alice", "nova");
    proxy.send(&looks[0]).await;
    town.deny("alice", "nova");
    town.leave_team("alice", &Options::default().teams[0].id);
    tunnel.hears("leave_team").await;
    // At the latest together with what else is heard within a second.
    let refused = async { while proxy.send(&looks[0]).await.status != 403 {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("it is felt");
}

/// Every tunnel of a site tells the same event: at once and once more within a second, that is enough.
#[actix_web::test]
async fn what_many_tunnels_tell_of_rights_ends_all_grants_a_few_times_and_not_once_for_each() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnels = Vec::new();
    for viewer in ["bob", "alice", "erin", "carol"] {
        tunnels.push(Tunnel::open(&proxy, &town, viewer).await);
    }
    let look = looks_at(&town, "alice", "nova", "size=32");
    proxy.send(&look).await;
    let (mut asked, started) = (0, Instant::now());
    for _ in 0..20 {
        town.tell("role_updated", &json!({}));
        for tunnel in &mut tunnels {
            tunnel.hears("role_updated").await;
            asked += costing(&proxy, &town, &look).await.1;
        }
    }
    let seconds = started.elapsed().as_secs();
    assert!((1..=2 * seconds + 3).contains(&asked), "{asked} in {seconds} s");
}

/// Whatever a person can write stands in the data of an event, escaped.
#[actix_web::test]
async fn a_chat_message_is_no_event_whatever_it_says() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnel = Tunnel::open(&proxy, &town, "bob").await;
    let looks = HOLDERS.map(|viewer| looks_at(&town, viewer, "nova", "size=32"));
    for look in &looks {
        earns_grant(&proxy, &town, look).await;
    }
    let told =
        json!({"event": "user_updated", "data": {"user": {"id": town.id("nova"), "last_picture_update": i64::MAX}}});
    let text = told.to_string();
    for (name, data) in [
        ("posted", json!({"post": text, "mentions": "[]"})),
        ("posted", json!({"post": json!({"message": text}).to_string()})),
        ("posted", json!({"user": told["data"]["user"], "event": "user_updated"})),
        ("posted", told.clone()),
        ("post_edited", json!({"post": "{\"event\": \"role_updated\"}"})),
        ("ephemeral_message", json!({"post": "\"}, \"event\": \"user_updated\""})),
        ("custom_plugin_user_updated", told["data"].clone()),
        ("status_change", json!({"user_id": town.id("nova"), "status": "role_updated"})),
        ("typing", json!({"user_id": town.id("nova")})),
        ("emoji_added", json!({"emoji": text})),
    ] {
        town.tell(name, &data);
        tunnel.hears(name).await;
        for look in &looks {
            assert_eq!(costing(&proxy, &town, look).await.1, 0, "{name} {data}");
        }
    }
}

#[actix_web::test]
async fn what_is_heard_at_one_site_is_nothing_to_another() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let mut tunnel = Tunnel::open_at(&proxy, &town, "bob", "one.example").await;
    let at = |host: &str| looks_at(&town, "alice", "nova", "size=32").header("Host", host);
    for host in ["one.example", "other.example"] {
        earns_grant(&proxy, &town, &at(host)).await;
    }
    town.show("nova", png(&photo(3)));
    tunnel.hears("user_updated").await;
    assert_eq!(costing(&proxy, &town, &at("other.example")).await.1, 0);
    assert!(shows(&proxy.send(&at("one.example")).await, &photo(3)));
}

/// Upstream's end of a tunnel, with the bytes that are to go through it, and Alice's picture.
struct Feed {
    upstream: Upstream,
    proxy: Proxy,
    stamp: Rc<Cell<i64>>,
    bytes: mpsc::UnboundedSender<Vec<u8>>,
    client: TcpStream,
    received: Vec<u8>,
}

impl Feed {
    /// Opens a tunnel at `target`; `extensions` is what upstream says of compression.
    async fn open(target: &str, extensions: &str) -> Self {
        let stamp = Rc::new(Cell::new(100));
        let (bytes, to_send) = mpsc::unbounded_channel::<Vec<u8>>();
        let (now, to_send) = (stamp.clone(), Rc::new(RefCell::new(Some(to_send))));
        let extensions = extensions.to_owned();
        let upstream = Upstream::scripted(move |_, seen, mut stream| {
            let (now, to_send, extensions) = (now.clone(), to_send.clone(), extensions.clone());
            async move {
                let etag = now.get().to_string();
                if seen.header("upgrade").is_none() {
                    let colour = if etag == "100" { RED } else { BLUE };
                    let known = seen.header("if-none-match") == Some(&etag);
                    let answer = if known { not_modified(&etag) } else { picture_answer(&etag, &png(&solid(colour))) };
                    return send_and_close(&mut stream, &answer).await;
                }
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
                let _ = stream.write_all(format!("{head}{extensions}\r\n").as_bytes()).await;
                let mut to_send = to_send.borrow_mut().take().expect("one tunnel");
                let _ = stream.set_nodelay(true);
                while let Some(bytes) = to_send.recv().await {
                    let _ = stream.write_all(&bytes).await;
                }
            }
        })
        .await;
        let proxy = Proxy::granting(upstream.address);
        for token in [ALICES_TOKEN, BOBS_TOKEN] {
            assert!(proxy.send(&at_chat(token)).await.looks(RED));
        }
        let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let handshake = Request::get(target)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        client.write_all(&handshake.bytes("chat.example")).await.expect("taken");
        let switched = read_answer(&mut client, "GET").await;
        assert_eq!(switched.status, 101);
        Self { upstream, proxy, stamp, bytes, client, received: switched.body.to_vec() }
    }

    /// Sends these bytes through the tunnel in pieces, and waits until they have arrived as they are.
    async fn sends(&mut self, pieces: impl IntoIterator<Item = Vec<u8>>) {
        for piece in pieces {
            self.bytes.send(piece.clone()).expect("upstream listens");
            while self.received.len() < piece.len() {
                let read = self.client.read_buf(&mut self.received);
                let read = tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("open");
                assert_ne!(read, 0);
            }
            assert!(self.received == piece, "it passes as it is");
            self.received.clear();
        }
    }

    /// How often upstream is asked when both look.
    async fn looks_cost(&self) -> usize {
        let seen = self.upstream.seen().len();
        for token in [ALICES_TOKEN, BOBS_TOKEN] {
            assert_eq!(self.proxy.send(&at_chat(token)).await.status, 200);
        }
        self.upstream.seen().len() - seen
    }
}

fn at_chat(token: &str) -> Request {
    Request::picture_of(ALICE, "size=32").cookie(token).header("Host", "chat.example")
}

const SOCKET: &str = "/api/v4/websocket?connection_id=&sequence_number=0";

/// A frame as a server sends it: not masked (RFC 6455 section 5.2).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        short @ 0..=125 => vec![u8::try_from(short).expect("below 126")],
        medium @ 126..=0xffff => [&[126][..], &u16::try_from(medium).expect("fits").to_be_bytes()].concat(),
        long => [&[127][..], &(long as u64).to_be_bytes()].concat(),
    };
    [&[first][..], &length, payload].concat()
}

fn updated(stamp: i64) -> String {
    let user = format!(
        "{{\"id\": \"{ALICE}\", \"username\": \"alice\", \"roles\": \"system_user\", \"update_at\": 1, \"delete_at\": 0, \
         \"last_picture_update\": {stamp}}}"
    );
    format!("{{\"event\": \"user_updated\", \"data\": {{\"user\": {user}}}, \"broadcast\": {{}}, \"seq\": 1}}")
}

#[actix_web::test]
async fn an_event_is_heard_however_its_bytes_are_cut() {
    let (text, ping) = (updated(200), frame(0x89, b"ping"));
    let whole = frame(0x81, text.as_bytes());
    let (one, other) = text.as_bytes().split_at(100);
    let parts = [frame(0x01, one), ping.clone(), frame(0x80, other)].concat();
    let padded = frame(0x81, text.replacen("{}", &format!("{{\"x\": \"{}\"}}", " ".repeat(70_000)), 1).as_bytes());
    let by_byte = |bytes: &[u8]| bytes.iter().map(|byte| vec![*byte]).collect::<Vec<_>>();
    for (name, pieces) in [
        ("whole", vec![whole.clone()]),
        (
            "behind others",
            vec![[&frame(0x81, b"{\"event\": \"typing\"}")[..], &frame(0x82, &[7; 300]), &whole].concat()],
        ),
        ("byte by byte", by_byte(&whole)),
        ("in two frames with a ping between", vec![parts.clone()]),
        ("those byte by byte", by_byte(&parts)),
        ("with a length of 64 bits", vec![padded]),
    ] {
        let mut feed = Feed::open(SOCKET, "").await;
        assert_eq!(feed.looks_cost().await, 0, "{name}");
        feed.stamp.set(200);
        feed.sends(pieces).await;
        assert_eq!(feed.looks_cost().await, 1, "{name}");
        assert!(feed.proxy.send(&at_chat(BOBS_TOKEN)).await.looks(BLUE), "{name}");
    }
}

#[actix_web::test]
async fn an_older_stamp_is_no_news_and_an_absurd_one_costs_one_question() {
    let mut feed = Feed::open(SOCKET, "").await;
    for (stamp, cost) in [(100, 0), (99, 0), (-100, 0), (0, 0), (101, 1), (i64::MAX, 1), (i64::MAX, 0), (i64::MIN, 1)] {
        feed.sends([frame(0x81, updated(stamp).as_bytes())]).await;
        assert_eq!(feed.looks_cost().await, cost, "{stamp}");
    }
    feed.stamp.set(200);
    feed.sends([frame(0x81, updated(200).as_bytes())]).await;
    assert_eq!(feed.looks_cost().await, 1, "what is absurd drowns nothing");
}

/// Each of them would be news if it were heard, or heard wrongly.
#[actix_web::test]
async fn tunnels_that_cannot_be_followed_are_left_alone() {
    let event = frame(0x81, updated(200).as_bytes());
    let rights = frame(0x81, b"{\"event\": \"role_updated\", \"data\": {}}");
    for (target, extensions) in [
        (SOCKET, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"),
        (SOCKET, "Sec-WebSocket-Extensions: x-unknown\r\n"),
        ("/plugins/chat/websocket", ""),
        ("/api/v4/users/websocket", ""),
        ("/api/v4/%77ebsocket", ""),
    ] {
        let mut feed = Feed::open(target, extensions).await;
        feed.sends([event.clone(), rights.clone()]).await;
        assert_eq!(feed.looks_cost().await, 0, "{target} {extensions}");
    }
    for (name, bytes) in [
        ("compressed without a word", frame(0xc1, updated(200).as_bytes())),
        ("binary", frame(0x82, updated(200).as_bytes())),
        ("a ping", frame(0x89, &updated(200).as_bytes()[..125])),
        ("no frames", updated(200).into_bytes()),
        ("never whole", frame(0x81, updated(200).as_bytes())[..200].to_vec()),
        ("masked", [&[0x81, 0xfe, 0, 200][..], &[0; 4], updated(200).as_bytes()].concat()),
    ] {
        let mut feed = Feed::open(SOCKET, "").await;
        feed.sends([bytes]).await;
        assert_eq!(feed.looks_cost().await, 0, "{name}");
    }
}

/// Something changed, and what cannot be told: every picture is fetched once more, and no right is lost or won.
#[actix_web::test]
async fn an_event_that_cannot_be_read_makes_us_forget_and_nothing_else() {
    for text in [
        "{\"event\": \"user_updated\", \"data\": {}}",
        "{\"event\": \"user_updated\", \"data\": ",
        &updated(200)[..150],
    ] {
        let mut feed = Feed::open(SOCKET, "").await;
        feed.sends([frame(0x81, text.as_bytes())]).await;
        assert_eq!(feed.looks_cost().await, 1, "{text}");
        assert_eq!(feed.looks_cost().await, 0, "{text}");
    }
}

#[actix_web::test]
async fn an_event_of_ten_megabytes_passes_and_is_not_collected() {
    let mut feed = Feed::open(SOCKET, "").await;
    let long = updated(200).replacen("{}", &format!("\"{}\"", "x".repeat(10 << 20)), 1);
    feed.sends([frame(0x81, long.as_bytes())]).await;
    assert_eq!(feed.looks_cost().await, 1, "something changed, and nobody knows what");
    feed.stamp.set(300);
    feed.sends([frame(0x81, updated(300).as_bytes())]).await;
    assert_eq!(feed.looks_cost().await, 1, "and what comes behind it is heard");
}

/// What is heard through one worker is known to all.
#[actix_web::test]
async fn one_tunnel_is_enough_whichever_worker_it_is_on() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.server.workers = 4;
    });
    let look = looks_at(&town, "alice", "nova", "size=32");
    let mut tunnel = Tunnel::open(&proxy, &town, "gus").await;
    proxy.send(&look).await;
    // Guests are told of those whom they see.
    town.allow("gus", "nova");
    for n in 3..8 {
        town.show("nova", png(&photo(n)));
        tunnel.hears("user_updated").await;
        for _ in 0..8 {
            assert!(shows(&proxy.send(&look).await, &photo(n)));
        }
    }
    assert_eq!(town.count().pictures, 6);
}
