//! HTTP/2 (RFC 9113) with clients whose TLS chose it: the requests of one connection, each answered in a task of its own by
//! the very service that answers HTTP/1.1.
//!
//! It stands on `h2` and not on actix's own HTTP/2, which has no limit to the streams of a connection. The connection is
//! looked after like any other: while no stream is open it is idle, whatever else its client says, and what stands still
//! in the socket ends. What stands still in one stream ends that stream.

mod body;
mod linger;
mod message;

pub use message::expects_continue;

use super::certificate::HTTP2;
use super::crowd::Crowd;
use super::pipeline::Framing;
use super::pulse::{Exchange, LINGER, Over, Pulse};
use super::stream::Socket;
use super::{Refusal, Stage};
use actix_http::Request;
use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use body::Ended;
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{self, HeaderValue};
use linger::Lingering;
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::server::TlsStream;

/// How many requests of a connection may be answered at once.
const STREAMS: u32 = 100;
/// How many bytes may be in flight on a connection in each direction: announced to the client, or waiting for it.
const IN_FLIGHT: u32 = 1 << 20;
/// How many of the client's may be those of one stream: so many that a sender at some distance keeps sending, so few that
/// one upload that upstream does not take leaves room for others.
const IN_FLIGHT_OF_ONE: u32 = 256 << 10;
/// How many bytes of an answer's body are to be had at a time. Of each stream three such parts may be held: one that waits
/// for room, one that `h2` has, and one of which the client has taken some.
pub const PART_OF_AN_ANSWER: usize = (IN_FLIGHT / STREAMS / 3) as usize;
/// How many bytes the heads of all requests in progress may have: a field that the client names by its index costs it
/// one byte, and us all that it stands for.
const HEADS: usize = 1 << 20;
/// How many requests more a client may take back than it waits for upstream's answer to.
const TAKEN_BACK: u32 = 2 * STREAMS;

/// Among the extensions of an answer: upstream was asked for it. What we know by ourselves costs a client too little to make
/// up for a request that it takes back.
pub struct AskedUpstream;

/// Whether this is what both sides have agreed upon.
pub(super) fn is_chosen(tls: &TlsStream<Socket>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// What the connections of a thread have in common.
pub(super) struct Http2<A, R> {
    /// Answers a request.
    pub(super) answer: A,
    /// Answers what is none.
    pub(super) refuse: Rc<R>,
    /// How many requests each address has under way.
    pub(super) streams: Arc<Crowd>,
    /// How long a client may take nothing of an answer.
    pub(super) write_idle: Duration,
    /// Where the process stands.
    pub(super) stage: watch::Receiver<Stage>,
}

fn limits() -> h2::server::Builder {
    let mut limits = h2::server::Builder::new();
    limits
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(IN_FLIGHT)
        .initial_window_size(IN_FLIGHT_OF_ONE)
        .max_send_buffer_size(PART_OF_AN_ANSWER)
        // Beyond this h2 refuses by itself, and nobody hears of it.
        .max_header_list_size(message::BYTES_AT_MOST / 2 * 3);
    limits
}

/// Waits until the connection has been idle for as long as it may.
async fn idle(pulse: &Pulse) {
    // Its socket wakes whoever waits for it, which is the same task.
    let look = |_: &mut Context<'_>| if pulse.over() == Some(Over::Idle) { Poll::Ready(()) } else { Poll::Pending };
    poll_fn(look).await;
}

/// Tells the client that no further request is wanted. Until when it may take to hear of it.
fn let_finish(connection: &mut Connection<Lingering, Bytes>) -> Instant {
    connection.graceful_shutdown();
    Instant::now() + LINGER
}

/// A connection as its streams know it.
struct Shared {
    pulse: Rc<Pulse>,
    peer: Option<SocketAddr>,
    /// What is left of [`HEADS`].
    room: Cell<usize>,
    /// What is left of [`TAKEN_BACK`].
    patience: Cell<u32>,
}

impl Shared {
    /// Room for a head of this size, in bytes, as long as the result lives; `None` when there is none.
    fn hold(&self, size: usize) -> Option<Held<'_>> {
        self.room.set(self.room.get().checked_sub(size)?);
        Some(Held { size, of: &self.room })
    }

    /// A request was taken back, or its answer was not taken.
    fn left(&self) {
        self.patience.set(self.patience.get().saturating_sub(1));
    }

    /// An answer of upstream's was taken to its end.
    fn waited(&self) {
        self.patience.set(TAKEN_BACK.min(self.patience.get() + 1));
    }
}

/// A part of the room for heads.
struct Held<'a> {
    size: usize,
    of: &'a Cell<usize>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.set(self.of.get() + self.size);
    }
}

impl<A, F, R> Http2<A, R>
where
    A: Fn(Request) -> F + 'static,
    F: Future<Output = HttpResponse> + 'static,
    R: Fn(Refusal) -> HttpResponse + 'static,
{
    /// Serves a connection to its end.
    pub(super) async fn serve(self: Rc<Self>, tls: TlsStream<Socket>, peer: Option<SocketAddr>) {
        let pulse = tls.get_ref().0.pulse().clone();
        let mut preface = pin!(limits().handshake(Lingering::new(tls)));
        let greeted = poll_fn(|context| match pulse.over() {
            Some(_) => Poll::Ready(None),
            None => preface.as_mut().poll(context).map(Result::ok),
        });
        let Some(connection) = greeted.await else { return };
        let (room, patience) = (Cell::new(HEADS), Cell::new(TAKEN_BACK));
        let shared = Rc::new(Shared { pulse, peer, room, patience });
        self.take_requests(connection, &shared).await;
    }

    async fn take_requests(self: Rc<Self>, mut connection: Connection<Lingering, Bytes>, shared: &Rc<Shared>) {
        let mut stage = self.stage.clone();
        let mut drains = pin!(stage.wait_for(|stage| stage.drains()));
        // From when on no further request is wanted, its client may take so long to hear of it.
        let mut heard_by = None;
        loop {
            let over = async {
                idle(&shared.pulse).await;
                if let Some(heard_by) = heard_by {
                    sleep_until(heard_by).await;
                }
            };
            tokio::select! {
                biased;
                _ = &mut drains, if heard_by.is_none() => heard_by = Some(let_finish(&mut connection)),
                accepted = connection.accept() => {
                    // An error has been told to the client.
                    let Some(Ok((request, respond))) = accepted else { return };
                    let exchange = Exchange::begin(&shared.pulse, Framing::None);
                    if shared.pulse.over() == Some(Over::Idle) {
                        shared.pulse.lives_on();
                    }
                    actix_web::rt::spawn(self.clone().answer(request, respond, shared.clone(), exchange));
                }
                () = over => match heard_by {
                    None => heard_by = Some(let_finish(&mut connection)),
                    Some(_) => return,
                }
            }
            if shared.patience.get() == 0 {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
        }
    }

    /// Answers one request. When its client takes it back, all that was begun for it is dropped.
    async fn answer(
        self: Rc<Self>,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        shared: Rc<Shared>,
        _exchange: Exchange,
    ) {
        // What came with a request has been read before it is looked at: it may have been taken back already.
        let taken_back = poll_fn(|context| Poll::Ready(respond.poll_reset(context).is_ready()));
        if taken_back.await {
            return shared.left();
        }
        let method = request.method().clone();
        let expected = request.headers().get_all(header::EXPECT).iter().map(HeaderValue::as_bytes);
        if message::expects_continue(expected) && !request.body().is_end_stream() {
            // Whom this does not reach waits for nothing.
            let _ = respond.send_informational(message::go_on());
        }
        let response = tokio::select! {
            biased;
            response = self.ask(request, &shared) => response,
            _ = poll_fn(|context| respond.poll_reset(context)) => return shared.left(),
        };
        let asked_upstream = response.extensions().get::<AskedUpstream>().is_some();
        let (head, body) = response.into_parts();
        let answer = message::answer(&method, head.head(), body.size());
        let body = answer.has_body.then_some(body);
        match body::send(respond, answer.head, body, self.write_idle).await {
            Ended::Whole if asked_upstream => shared.waited(),
            Ended::Whole | Ended::Broken => {}
            Ended::Left => shared.left(),
        }
    }

    /// Asks the service, if this is a request that it can be asked.
    async fn ask(&self, request: http::Request<RecvStream>, shared: &Shared) -> HttpResponse {
        let (head, body) = request.into_parts();
        let refuse = |refusal| {
            // Whoever asks so again and again is told to calm down.
            shared.left();
            (self.refuse)(refusal)
        };
        let Some(_held) = shared.hold(message::size(&head)) else { return refuse(Refusal::LongHead) };
        let Some(_place) = self.streams.admit(shared.peer) else { return (self.refuse)(Refusal::Crowd) };
        match message::request(&head) {
            Ok(mut request) => {
                request.head_mut().peer_addr = shared.peer;
                body::attach(&mut request, body);
                (self.answer)(request).await
            }
            Err(refusal) => refuse(refusal),
        }
    }
}
