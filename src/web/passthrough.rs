//! Every request that is not ours: streamed both ways, nothing added but the forwarding fields and the hop marker.

use super::answer::streamed;
use super::learning::Attending;
use super::route::{Route, Who};
use super::wire;
use super::{ClientBody, Front, Inbound, WebError, actix_fields};
use crate::caller::Caller;
use crate::identity::PictureId;
use crate::listen::PART_OF_AN_ANSWER;
use crate::telemetry::{Outcome, UpstreamKind};
use crate::upstream::{Aborted, Fields, Reply, RequestBody, UpstreamError};
use actix_http::HttpMessage;
use actix_web::HttpResponse;
use actix_web::http::{Version, header as actix_header};
use futures_util::StreamExt;
use http::header;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use std::time::Instant;

/// Forwards the request and streams the answer, which may teach something.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound, route: &Route) -> Result<HttpResponse, WebError> {
    let attending = Attending::of(front, inbound);
    let outbound = Outbound::of(front, inbound, None);
    let mut reply = outbound.send(front, true).await?;
    let picture = match route {
        Route::Picture(kind, Who::Id(object)) => Some((*kind, *object)),
        _ => None,
    };
    // Only these say something about the caller, and to know who that is costs more than the rest.
    if matches!(reply.head.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
        let host = inbound.request.headers().get(actix_header::HOST).map(actix_header::HeaderValue::as_bytes);
        let host = front.upstream.host_for(host);
        let picture = picture.map(|(kind, object)| PictureId { site: front.site(host), kind, object });
        front.avatars.heed(front.caller_at(actix_fields(&inbound.request), host).as_ref(), picture, reply.head.status);
    }
    if let Some(attending) = attending {
        reply = attending.listen_to(front, reply);
    }
    Ok(relay(inbound, reply))
}

/// Follows what was begun to upstream's answer, and streams that to the client. In a task of its own: a client that resets
/// its connection takes its handler with it, but not what it began.
pub(super) async fn followed(
    inbound: &mut Inbound,
    begun: impl Future<Output = Result<Reply, UpstreamError>> + 'static,
) -> Result<HttpResponse, WebError> {
    let reply = actix_web::rt::spawn(begun).await;
    let reply = reply.map_err(|_| UpstreamError::Broken("what was begun was dropped".to_owned()))?;
    Ok(relay(inbound, reply?))
}

/// Streams upstream's answer to the client.
pub(super) fn relay(inbound: &mut Inbound, reply: Reply) -> HttpResponse {
    let Reply { head, body } = reply;
    inbound.ledger.outcome = Outcome::Passed;
    inbound.ledger.relayed = true;
    inbound.ledger.named_by_upstream(|| head.get("x-request-id"));
    let mut response = streamed(&inbound.method, head.status, || head.content_length(), body);
    wire::head_to_client(&head, response.headers_mut());
    response
}

/// A request as it goes upstream, holding nothing of the client's connection but the body that comes over it.
pub(super) struct Outbound {
    method: Method,
    target: PathAndQuery,
    fields: Fields,
    body: ClientBody,
    caller: Option<Caller>,
    /// How much of the answer's body is to be had at a time, in bytes, if that is limited.
    part_at_most: Option<usize>,
}

impl Outbound {
    /// Takes the fields and the body out of `inbound`, a request of `caller`.
    pub(super) fn of(front: &Front, inbound: &mut Inbound, caller: Option<Caller>) -> Self {
        let mut fields = std::mem::take(&mut inbound.fields);
        if let Some(host) = front.upstream.other_host(fields.get(header::HOST.as_str())) {
            fields.set(header::HOST.as_str(), host);
        }
        let body = std::mem::replace(&mut inbound.body, ClientBody::None);
        let part_at_most = (inbound.request.version() == Version::HTTP_2).then_some(PART_OF_AN_ANSWER);
        Self { method: inbound.method.clone(), target: inbound.target.clone(), fields, body, caller, part_at_most }
    }

    /// Forwards the request and heeds what its answer says about the caller.
    pub(super) async fn forward(self, front: &Front) -> Result<Reply, UpstreamError> {
        let caller = self.caller;
        let reply = self.send(front, false).await?;
        front.avatars.heed(caller.as_ref(), None, reply.head.status);
        Ok(reply)
    }

    /// Forwards the request; the body goes chunk by chunk as upstream takes it, and one that breaks off or stalls is aborted
    /// upstream too: a short body must never look whole. `answers` tells whether it is the client's connection that polls, and for
    /// the first time.
    async fn send(self, front: &Front, answers: bool) -> Result<Reply, UpstreamError> {
        let body = match self.body {
            ClientBody::Some(length, intake) => {
                let is_at_hand = answers && intake.is_at_hand();
                let chunks = intake.map(|chunk| chunk.map_err(|_| Aborted::BrokeOff));
                RequestBody::of(Box::pin(chunks), length, front.settings.body_idle_timeout).at_hand(is_at_hand)
            }
            ClientBody::None | ClientBody::WebSocket => RequestBody::empty(),
        };
        let asked = Instant::now();
        let reply = front.upstream.forward(self.method, self.target, self.fields, body, self.part_at_most).await;
        if matches!(reply, Err(UpstreamError::ClientAborted)) {
            // A body that makes no sense is the end of its connection, and actix lets go of whoever reads it when it is given
            // the time to: an answer would only come before another one.
            tokio::task::yield_now().await;
        }
        let reply = reply?;
        front.telemetry.upstream_answered(UpstreamKind::Passthrough, reply.head.status, asked.elapsed());
        Ok(reply)
    }
}
