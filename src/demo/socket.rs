//! The WebSocket that clients hear of changes on (`server/channels/api4/websocket.go`, `app/platform/web_conn.go`).

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::{HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::answers::{Answer, VERSION};
use super::credentials;
use super::events::{Audience, Event};
use super::frames::{self, Frame};
use super::ids::new_id;
use super::query::Query;
use super::server::Shared;
use super::sessions::Session;
use super::town::now;

/// How long a socket may stay open without a session.
const TIME_TO_SIGN_IN: Duration = Duration::from_secs(5);

/// How often the server pings, and how long it waits for a sign of life.
const PING_PERIOD: Duration = Duration::from_secs(60);
const PONG_WAIT: Duration = Duration::from_secs(100);

/// Frames that may wait for a slow client.
const WAITING: usize = 32;

/// Upgrades the connection, or refuses as the upgrader does.
pub(super) fn open(
    headers: &HeaderMap,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Answer> {
    let upgrade = credentials::text(headers, "upgrade").eq_ignore_ascii_case("websocket");
    let key = headers.get("sec-websocket-key");
    let (true, Some(key)) = (upgrade, key) else {
        return Err(Answer::upgrade_refused(StatusCode::BAD_REQUEST, "Bad Request", ""));
    };
    if let Some(origin) = foreign_origin(headers, shared.options.site_url.as_deref()) {
        return Err(Answer::upgrade_refused(StatusCode::FORBIDDEN, "Forbidden", &origin));
    }
    // An unknown token does not refuse the upgrade: the socket just stays signed out.
    let session = credentials::presented(headers, &Query::default())
        .and_then(|presented| shared.town().sessions.get(&presented.token).cloned());
    let (sender, receiver) = mpsc::channel(WAITING);
    actix_web::rt::spawn(async move {
        let mut conversation = Conversation { shared, sender, sequence: 0, events: None };
        conversation.hold(payload, session).await;
    });
    let outgoing = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
        receiver.recv().await.map(|frame| (Ok::<_, std::io::Error>(frame), receiver))
    });
    let mut response = HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS)
        .upgrade("websocket")
        .insert_header(("Sec-WebSocket-Accept", frames::accept_key(key.as_bytes())))
        .streaming(outgoing);
    response.headers_mut().remove(CONTENT_TYPE);
    response.head_mut().set_camel_case_headers(true);
    Ok(response)
}

/// An `Origin` that is not the site's; none at all passes (`OriginChecker` in `app/server.go`).
fn foreign_origin(headers: &HeaderMap, site_url: Option<&str>) -> Option<String> {
    let origin = headers.get("origin").and_then(|origin| origin.to_str().ok()).filter(|origin| !origin.is_empty())?;
    let same = match site_url {
        Some(site) => origin == site,
        None => origin.split_once("://").is_some_and(|(_, host)| host == credentials::text(headers, "host")),
    };
    (!same).then(|| origin.to_owned())
}

/// One open socket.
struct Conversation {
    shared: web::Data<Shared>,
    sender: mpsc::Sender<Bytes>,
    sequence: u64,
    events: Option<mpsc::Receiver<Event>>,
}

/// The client is gone, or has to go.
struct Over;

impl Conversation {
    /// Until either side ends it. Dropping the sender then ends the answer, and with it the connection.
    async fn hold(&mut self, mut payload: web::Payload, session: Option<Session>) {
        let mut buffer = BytesMut::new();
        let mut heard = Instant::now();
        let mut pings = interval(PING_PERIOD);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let deadline = Instant::now() + TIME_TO_SIGN_IN;
        if let Some(session) = session
            && self.greet(&session).await.is_err()
        {
            return;
        }
        loop {
            let step = tokio::select! {
                chunk = payload.next() => match chunk {
                    Some(Ok(bytes)) => {
                        heard = Instant::now();
                        buffer.extend_from_slice(&bytes);
                        self.read(&mut buffer).await
                    }
                    Some(Err(_)) | None => Err(Over),
                },
                event = next_event(&mut self.events) => match event {
                    Some(event) => self.tell(&event).await,
                    None => Err(Over),
                },
                () = sleep_until(deadline), if self.events.is_none() => Err(Over),
                _ = pings.tick() => if heard.elapsed() > PONG_WAIT { Err(Over) } else { self.send(frames::ping()).await },
            };
            if step.is_err() {
                return;
            }
        }
    }

    /// `hello`, and from now on events.
    async fn greet(&mut self, session: &Session) -> Result<(), Over> {
        self.events = Some(self.shared.town().listen(&session.user_id, &session.token));
        let data = json!({"connection_id": new_id(), "server_hostname": "stand-in", "server_version": VERSION});
        self.tell(&Event::new("hello", &data, &Audience::Owner(session.user_id.clone()))).await
    }

    async fn tell(&mut self, event: &Event) -> Result<(), Over> {
        let text = event.text(self.sequence);
        self.sequence += 1;
        self.send(frames::text(&text)).await
    }

    async fn send(&self, frame: Bytes) -> Result<(), Over> {
        self.sender.send(frame).await.map_err(|_| Over)
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> Result<(), Over> {
        loop {
            match frames::take(buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Text(message))) => self.act(&message).await?,
                Ok(Some(Frame::Ping(payload))) => self.send(frames::pong(&payload)).await?,
                Ok(Some(Frame::Pong)) => {}
                Ok(Some(Frame::Close)) => {
                    self.send(frames::close(1000)).await?;
                    return Err(Over);
                }
                Err(error) => {
                    self.send(frames::close(error.code())).await?;
                    return Err(Over);
                }
            }
        }
    }

    /// A client's action. What is not understood is ignored; a wrong token ends the socket at once.
    async fn act(&mut self, message: &[u8]) -> Result<(), Over> {
        let Ok(message) = serde_json::from_slice::<Value>(message) else {
            return Ok(());
        };
        let reply_to = &message["seq"];
        let reply = match message["action"].as_str() {
            Some("authentication_challenge") => {
                let token = message["data"]["token"].as_str().unwrap_or_default();
                let session = self.shared.town().sessions.get(token).cloned().ok_or(Over)?;
                if self.events.is_none() {
                    self.greet(&session).await?;
                }
                json!({"status": "OK", "seq_reply": reply_to})
            }
            Some("ping") => {
                let data = json!({"node_id": "", "server_time": now(), "text": "pong", "version": "11.6.0"});
                json!({"status": "OK", "seq_reply": reply_to, "data": data})
            }
            _ => return Ok(()),
        };
        self.send(frames::text(&reply.to_string())).await
    }
}

/// Never, while nobody is signed in.
async fn next_event(events: &mut Option<mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
