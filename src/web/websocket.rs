//! Upgraded connections: after upstream's 101, bytes both ways.

use super::answer::Ledger;
use super::passthrough::relay;
use super::{Front, Inbound, WebError};
use crate::avatar::Avatars;
use crate::identity::{PictureId, PictureKind, Site};
use crate::listen::{Stage, Switch, Upgraded, read};
use crate::overheard::{Boundary, Listener, News, is_event_socket};
use crate::telemetry::{Counted, Heard, Outcome, Route, Telemetry};
use crate::upstream::{self, Fields, UpgradeAnswer, UpstreamError, headers};
use actix_web::HttpResponse;
use base64::Engine;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use sha1::{Digest, Sha1};
use std::cell::Cell;
use std::io;
use std::mem::replace;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a client that upstream says no more to, or that the process leaves, may take for its own last words.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// A close frame with the status 1001, unmasked as a server's are (RFC 6455 sections 5.5.1 and 7.4.1).
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];

/// Asks upstream for the upgrade and, if it agrees, becomes a pipe. Not one byte of the client's goes before that.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound) -> Result<HttpResponse, WebError> {
    inbound.ledger.route = Route::Websocket;
    inbound.ledger.outcome = Outcome::Passed;
    inbound.ledger.relayed = true;
    let mut asked = inbound.fields.clone();
    asked.set(header::HOST.as_str(), front.host(&inbound.fields));
    asked.append(header::CONNECTION.as_str(), b"Upgrade");
    asked.append(header::UPGRADE.as_str(), b"websocket");
    let caller = front.caller(&inbound.fields);
    match front.upstream.upgrade(inbound.target.clone(), asked).await? {
        UpgradeAnswer::Switched(mut head, upstream) => {
            if !accepts(&inbound.fields, &head) {
                return Err(UpstreamError::Broken("the accept key of its 101 is wrong".to_owned()).into());
            }
            let ears = Ears::for_tunnel(front, inbound, &head);
            headers::strip_response_hop_by_hop(&mut head);
            let (stage, idle) = (front.stage.clone(), front.upstream.idle_timeout());
            let counted = front.telemetry.websocket();
            inbound.tunnel = Some(Box::new(Tunnel { upstream, ears, stage, idle, counted }));
            Ok(switching(&head))
        }
        UpgradeAnswer::Declined(reply) => {
            front.avatars.heed(caller.as_ref(), None, reply.head.status);
            Ok(relay(inbound, reply))
        }
    }
}

/// RFC 6455 section 4.1: only whoever read the client's key can answer with this.
fn accepts(request: &Fields, answer: &HeaderMap) -> bool {
    let upgraded = answer.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.get(header::SEC_WEBSOCKET_KEY.as_str()).filter(|_| upgraded) else { return false };
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let expected = base64::engine::general_purpose::STANDARD.encode(digest);
    answer.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == expected.as_bytes())
}

fn switching(head: &HeaderMap) -> HttpResponse {
    let mut response = HttpResponse::SwitchingProtocols().upgrade("websocket").finish();
    super::wire::to_client(head, response.headers_mut(), |name| name != header::CONTENT_LENGTH);
    response
}

/// A connection upstream that waits for the client's to become one with it.
pub(super) struct Tunnel {
    upstream: upstream::Tunnel,
    ears: Option<Ears>,
    stage: watch::Receiver<Stage>,
    /// How long upstream may take nothing of what the client says.
    idle: Duration,
    /// As one of those that are open.
    counted: Counted,
}

impl Tunnel {
    /// Follows `response`, a 101, over the same connection.
    pub(super) fn behind(self, mut response: HttpResponse, mut ledger: Ledger) -> HttpResponse {
        ledger.switched();
        response.extensions_mut().insert(Switch::to(|client| self.carry(client, ledger)));
        response
    }

    /// Bytes both ways, in one task. Each side may say its last and still hear the other, but when upstream has, the client
    /// is waited for no longer than it takes to answer that.
    async fn carry(self, client: Upgraded, mut ledger: Ledger) {
        let Self { upstream, ears, stage, idle, counted: _counted } = self;
        let (from_upstream, to_upstream) = split(upstream);
        let (from_client, to_client) = split(client);
        let mut up = pin!(client_to_upstream(from_client, to_upstream, idle));
        let (boundary, ledger, told) = (Boundary::default(), &mut ledger, &Cell::new(0_u32));
        let down = Downstream { from_upstream, to_client, ears, stage, boundary, ledger, told };
        let mut down = pin!(down.carry());
        tokio::select! {
            // Nobody reads the client any more, who may be gone altogether: it is held for as long as upstream has something
            // to say to it.
            said = &mut up => if said.is_ok() {
                let mut before = told.get();
                while timeout(idle, &mut down).await.is_err() && replace(&mut before, told.get()) != told.get() {}
            },
            said = &mut down => if said.is_ok() {
                let _ = timeout(LAST_WORDS, up).await;
            },
        }
    }
}

/// Hands over what the client says, as long as upstream takes some of it within `idle`: a tunnel may be silent, but what is
/// said must be heard.
///
/// # Errors
/// The client is gone, or upstream takes nothing: that is the end of both ways.
async fn client_to_upstream(
    mut from_client: ReadHalf<Upgraded>,
    mut to_upstream: WriteHalf<upstream::Tunnel>,
    idle: Duration,
) -> io::Result<()> {
    let mut is_heard = true;
    loop {
        let chunk = read(&mut from_client).await?;
        if is_heard {
            match hand_over(&chunk, &mut to_upstream, idle).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                // Upstream hangs up, and may have something to say before that. The rest is read for nobody, since what is
                // not read resets a connection.
                handed => is_heard = handed.is_ok(),
            }
        }
        if chunk.is_empty() {
            return Ok(());
        }
    }
}

/// Writes all of a chunk; after an empty one nothing more comes.
async fn hand_over(mut chunk: &[u8], to_upstream: &mut WriteHalf<upstream::Tunnel>, idle: Duration) -> io::Result<()> {
    if chunk.is_empty() {
        return timeout(idle, to_upstream.shutdown()).await?;
    }
    while !chunk.is_empty() {
        match timeout(idle, to_upstream.write(chunk)).await?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => chunk = &chunk[taken..],
        }
    }
    // TLS may have taken it all and have sent a part.
    timeout(idle, to_upstream.flush()).await?
}

/// Upstream's side of a tunnel on its way to the client.
struct Downstream<'a> {
    from_upstream: ReadHalf<upstream::Tunnel>,
    to_client: WriteHalf<Upgraded>,
    ears: Option<Ears>,
    stage: watch::Receiver<Stage>,
    boundary: Boundary,
    /// Open until both ways have ended.
    ledger: &'a mut Ledger,
    /// Changes whenever the client was told something.
    told: &'a Cell<u32>,
}

impl Downstream<'_> {
    /// Hands over what upstream says until it hangs up or the process has to. Whether the client takes anything is watched
    /// by its connection.
    ///
    /// # Errors
    /// The client is gone, or takes nothing.
    async fn carry(mut self) -> io::Result<()> {
        loop {
            // Where there is always something to read, nobody would look.
            let closes = *self.stage.borrow() == Stage::Closing;
            let chunk = tokio::select! {
                biased;
                // Upstream's connection broke off, or it said its last: the client is told the same.
                chunk = read(&mut self.from_upstream), if !closes => chunk.unwrap_or_default(),
                () = Stage::closing(&mut self.stage) => {
                    // In the midst of a frame of upstream's it would be part of that.
                    if self.boundary.is_between_frames() {
                        self.tell(GOING_AWAY).await?;
                    }
                    return self.to_client.shutdown().await;
                }
            };
            if chunk.is_empty() {
                return self.to_client.shutdown().await;
            }
            self.boundary.pass(&chunk);
            if let Some(ears) = &mut self.ears {
                // Before the client hears of it: what it asks for next is to be the new picture.
                ears.hear(&chunk).await;
            }
            self.tell(&chunk).await?;
        }
    }

    async fn tell(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to_client.write_all(bytes).await?;
        self.to_client.flush().await?;
        self.ledger.sent(bytes.len());
        self.told.set(self.told.get().wrapping_add(1));
        Ok(())
    }
}

/// Overhears what upstream tells the client of a tunnel; the bytes are not touched.
struct Ears {
    listener: Listener,
    site: Site,
    avatars: Arc<Avatars>,
    telemetry: Arc<Telemetry>,
}

impl Ears {
    fn for_tunnel(front: &Front, inbound: &Inbound, head: &HeaderMap) -> Option<Self> {
        let wanted = front.settings.listen && front.avatars.remembers();
        let understood = is_event_socket(&inbound.path, &front.settings.base_path)
            // What is compressed is not for us.
            && !head.contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
        (wanted && understood).then(|| Self {
            listener: Listener::new(&front.listeners),
            site: front.site(front.host(&inbound.fields)),
            avatars: front.avatars.clone(),
            telemetry: front.telemetry.clone(),
        })
    }

    async fn hear(&mut self, chunk: &Bytes) {
        let mut news = Vec::new();
        self.listener.hear(chunk, &mut |each| news.push(each));
        for each in news {
            let picture = |kind, object| PictureId { site: self.site, kind, object };
            let subject = match each {
                News::User(seen) => {
                    self.avatars.hear(picture(PictureKind::User, seen.user), seen.stamp).await;
                    // It shows the name, and has no version.
                    self.avatars.forget(picture(PictureKind::Default, seen.user));
                    Heard::User
                }
                News::Team(team) => {
                    self.avatars.forget(picture(PictureKind::Team, team));
                    Heard::Team
                }
                News::Rights => {
                    self.avatars.end_grants_once();
                    Heard::Rights
                }
                News::Unclear => {
                    self.avatars.forget_all_once();
                    Heard::Unclear
                }
            };
            self.telemetry.heard(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_the_answer_to_the_clients_key_is_accepted() {
        // The example of RFC 6455 section 1.3.
        let request = Fields::from_iter([("sec-websocket-key", &b"dGhlIHNhbXBsZSBub25jZQ=="[..])]);
        let answer = |accept| {
            let to = (header::UPGRADE, HeaderValue::from_static("WebSocket"));
            HeaderMap::from_iter([to, (header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(accept))])
        };
        assert!(accepts(&request, &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!accepts(&request, &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo")));
        assert!(!accepts(&request, &HeaderMap::new()));
        assert!(!accepts(&Fields::default(), &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    }
}
