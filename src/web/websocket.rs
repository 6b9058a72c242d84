//! Upgraded connections: after upstream's 101, bytes both ways.

use super::answer::streamed;
use super::intake::Intake;
use super::{ClientBody, Front, Inbound, WebError};
use crate::avatar::Avatars;
use crate::identity::{PictureId, PictureKind, Site};
use crate::listen::{Pulse, Stage};
use crate::overheard::{Boundary, Listener, News, is_event_socket};
use crate::telemetry::{Counted, Heard, Outcome, Route, Telemetry};
use crate::upstream::{AnswerBody, Tunnel, UpgradeAnswer, UpstreamError, headers};
use actix_web::HttpResponse;
use base64::Engine;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::header::{self, HeaderMap, HeaderValue};
use sha1::{Digest, Sha1};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// How much of upstream's is read at once: at least, since most tunnels are silent while they hold a buffer, and at most.
const READS: RangeInclusive<usize> = 2 << 10..=16 << 10;
/// How long what upstream said last, its close frame above all, may take to reach the client.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A close frame with the status 1001, unmasked as a server's are (RFC 6455 sections 5.5.1 and 7.4.1).
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xe9];

/// Asks upstream for the upgrade and, if it agrees, becomes a pipe. Not one byte of the client's goes before that.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound) -> Result<HttpResponse, WebError> {
    let ClientBody::WebSocket(intake) = std::mem::replace(&mut inbound.body, ClientBody::None) else {
        unreachable!("only a WebSocket request is sent here");
    };
    inbound.ledger.route = Route::Websocket;
    inbound.ledger.outcome = Outcome::Passed;
    inbound.ledger.relayed = true;
    let mut asked = inbound.headers.clone();
    asked.insert(header::HOST, front.upstream.host_for(inbound.headers.get(header::HOST)));
    asked.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    asked.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let caller = front.caller(&inbound.headers);
    match front.upstream.upgrade(inbound.target.clone(), asked).await? {
        UpgradeAnswer::Switched(mut head, tunnel) => {
            if !accepts(&inbound.headers, &head) {
                return Err(UpstreamError::Broken("the accept key of its 101 is wrong".to_owned()).into());
            }
            let ears = Ears::for_tunnel(front, inbound, &head);
            headers::strip_response_hop_by_hop(&mut head);
            let counted = front.telemetry.websocket();
            Ok(switched(&head, intake, tunnel, ears, counted, front.stage.clone(), front.upstream.idle_timeout()))
        }
        UpgradeAnswer::Declined(answer) => {
            front.avatars.heed(caller.as_ref(), None, answer.status());
            let (head, body) = answer.into_parts();
            let mut response =
                streamed(&inbound.method, head.status, &head.headers, AnswerBody::Partial(Bytes::new(), body));
            response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
            // actix writes no chunks to a connection that asked for an upgrade: the body ends with the connection.
            response.head_mut().no_chunking(true);
            Ok(response)
        }
    }
}

/// RFC 6455 section 4.1: only whoever read the client's key can answer with this.
fn accepts(request: &HeaderMap, answer: &HeaderMap) -> bool {
    let upgraded = answer.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.get(header::SEC_WEBSOCKET_KEY).filter(|_| upgraded) else { return false };
    let digest =
        Sha1::new().chain_update(key.as_bytes()).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let expected = base64::engine::general_purpose::STANDARD.encode(digest);
    answer.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == expected.as_bytes())
}

fn switched(
    head: &HeaderMap,
    intake: Intake,
    tunnel: Tunnel,
    ears: Option<Ears>,
    counted: Counted,
    stage: watch::Receiver<Stage>,
    idle: Duration,
) -> HttpResponse {
    let (from_upstream, to_upstream) = tokio::io::split(tunnel);
    let pulse = intake.pulse();
    let (stall, stalled) = oneshot::channel();
    actix_web::rt::spawn(async move {
        let ended = client_to_upstream(intake, to_upstream, idle).await;
        // Of every other end upstream tells by itself, and may have something to say before it.
        if ended.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            let _ = stall.send(());
        }
    });
    let mut response = HttpResponse::SwitchingProtocols();
    response.upgrade("websocket");
    let downstream = Downstream {
        from_upstream,
        room: *READS.start(),
        ears,
        stage,
        boundary: Boundary::default(),
        is_over: false,
        stalled,
        pulse,
        _counted: counted,
    };
    let mut response = response.streaming(downstream.into_stream());
    // actix takes what follows for content.
    response.headers_mut().remove(actix_web::http::header::CONTENT_TYPE);
    super::wire::to_client(head, response.headers_mut(), |name| name != header::CONTENT_LENGTH);
    response
}

/// Hands over what the client says, as long as upstream takes some of it within `idle`: a tunnel may be silent, but what is
/// said must be heard.
async fn client_to_upstream(
    mut intake: Intake,
    mut to_upstream: WriteHalf<Tunnel>,
    idle: Duration,
) -> std::io::Result<()> {
    while let Some(Ok(mut chunk)) = intake.next().await {
        while !chunk.is_empty() {
            match timeout(idle, to_upstream.write(&chunk)).await?? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                taken => chunk.advance(taken),
            }
        }
        // TLS may have taken it all and have sent a part.
        timeout(idle, to_upstream.flush()).await??;
    }
    // The client is gone or has said its last: upstream hears of it either way, and if not it is gone itself.
    timeout(idle, to_upstream.shutdown()).await?
}

/// Upstream's side of a tunnel on its way to the client.
struct Downstream {
    from_upstream: ReadHalf<Tunnel>,
    /// How much of it is read at once.
    room: usize,
    ears: Option<Ears>,
    stage: watch::Receiver<Stage>,
    boundary: Boundary,
    /// Nothing more is to be said.
    is_over: bool,
    /// Upstream takes no more of what the client says.
    stalled: oneshot::Receiver<()>,
    /// The client's connection.
    pulse: Option<Rc<Pulse>>,
    _counted: Counted,
}

impl Downstream {
    /// Upstream's bytes until it hangs up or the process has to. Then the stream fails instead of ending: at an end actix
    /// would wait seconds for the client to hang up first, while the client waits to be told.
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        stream::try_unfold(self, |mut this| async move {
            let Some(chunk) = this.next().await? else {
                this.last_words().await;
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            };
            Ok(Some((chunk, this)))
        })
    }

    /// A client that takes its time may do so, unless the process has none: whether it stands still is watched elsewhere.
    async fn last_words(&self) {
        loop {
            tokio::time::sleep(LAST_WORDS).await;
            let is_blocked = self.pulse.as_ref().is_some_and(|pulse| pulse.is_blocked());
            if !is_blocked || *self.stage.borrow() == Stage::Closing {
                return;
            }
        }
    }

    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        let Self { from_upstream, room, ears, stage, boundary, is_over, stalled, .. } = self;
        if *is_over {
            return Ok(None);
        }
        // Its own for each: a silent tunnel holds the least.
        let mut buffer = BytesMut::with_capacity(*room);
        let read = tokio::select! {
            biased;
            read = from_upstream.read_buf(&mut buffer) => read?,
            Ok(()) = &mut *stalled, if !stalled.is_terminated() => return Ok(None),
            () = Stage::closing(stage) => {
                *is_over = true;
                // In the midst of a frame of upstream's it would be part of that.
                return Ok(boundary.is_between_frames().then_some(Bytes::from_static(GOING_AWAY)));
            }
        };
        if read == 0 {
            return Ok(None);
        }
        // What fills the buffer goes on; what does not is over for now.
        *room = if read == *room { (2 * read).min(*READS.end()) } else { *READS.start() };
        let chunk = buffer.freeze();
        boundary.pass(&chunk);
        if let Some(ears) = ears {
            // Before the client hears of it: what it asks for next is to be the new picture.
            ears.hear(&chunk).await;
        }
        Ok(Some(chunk))
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
            site: front.site(front.host(&inbound.headers)),
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

    #[test]
    fn only_the_answer_to_the_clients_key_is_accepted() {
        // The example of RFC 6455 section 1.3.
        let request =
            HeaderMap::from_iter([(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="))]);
        let answer = |accept| {
            let to = (header::UPGRADE, HeaderValue::from_static("WebSocket"));
            HeaderMap::from_iter([to, (header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(accept))])
        };
        assert!(accepts(&request, &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        assert!(!accepts(&request, &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo")));
        assert!(!accepts(&request, &HeaderMap::new()));
        assert!(!accepts(&HeaderMap::new(), &answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    }
}
