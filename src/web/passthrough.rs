//! Every request that is not ours: streamed both ways, nothing added but the forwarding fields and the hop marker.

use super::answer::streamed;
use super::learning::Attending;
use super::route::{Route, Who};
use super::{ClientBody, Front, Inbound, WebError, actix_fields};
use crate::caller::Caller;
use crate::identity::PictureId;
use crate::telemetry::{Outcome, UpstreamKind};
use crate::upstream::{Aborted, AnswerBody, RequestBody, UpstreamError};
use actix_web::HttpResponse;
use futures_util::StreamExt;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use std::time::Instant;

/// Forwards the request and streams the answer, which may teach something.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound, route: &Route) -> Result<HttpResponse, WebError> {
    let attending = Attending::of(front, inbound);
    let host = inbound.headers.get(header::HOST).cloned();
    let outbound = Outbound::of(front, inbound, None);
    let again = || Outbound::headers_of(front, inbound.headers_again(front));
    let mut answer = outbound.send(front, Some(&again)).await?;
    let picture = match route {
        Route::Picture(kind, Who::Id(object)) => Some((*kind, *object)),
        _ => None,
    };
    // Only these say something about the caller, and to know who that is costs more than the rest.
    if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
        let host = front.upstream.host_of(host.as_ref().map(HeaderValue::as_bytes));
        let picture = picture.map(|(kind, object)| PictureId { site: front.site(host), kind, object });
        front.avatars.heed(front.caller_at(actix_fields(&inbound.request), host).as_ref(), picture, answer.status());
    }
    if let Some(attending) = attending {
        answer = attending.listen_to(front, answer);
    }
    Ok(relay(inbound, answer))
}

/// Follows what was begun to upstream's answer, and streams that to the client. In a task of its own: a client that resets
/// its connection takes its handler with it, but not what it began.
pub(super) async fn followed(
    inbound: &mut Inbound,
    begun: impl Future<Output = Result<http::Response<AnswerBody>, UpstreamError>> + 'static,
) -> Result<HttpResponse, WebError> {
    let answer = actix_web::rt::spawn(begun).await;
    let answer = answer.map_err(|_| UpstreamError::Broken("what was begun was dropped".to_owned()))?;
    Ok(relay(inbound, answer?))
}

/// Streams upstream's answer to the client.
fn relay(inbound: &mut Inbound, answer: http::Response<AnswerBody>) -> HttpResponse {
    inbound.ledger.outcome = Outcome::Passed;
    inbound.ledger.relayed = true;
    inbound.ledger.named_by_upstream(answer.headers());
    let (head, body) = answer.into_parts();
    streamed(&inbound.method, head.status, &head.headers, body)
}

/// A request as it goes upstream, holding nothing of the client's connection but the body that comes over it.
pub(super) struct Outbound {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: ClientBody,
    caller: Option<Caller>,
}

impl Outbound {
    /// Takes the header and the body out of `inbound`, a request of `caller`.
    pub(super) fn of(front: &Front, inbound: &mut Inbound, caller: Option<Caller>) -> Self {
        let headers = Self::headers_of(front, std::mem::take(&mut inbound.headers));
        let body = std::mem::replace(&mut inbound.body, ClientBody::None);
        Self { method: inbound.method.clone(), target: inbound.target.clone(), headers, body, caller }
    }

    fn headers_of(front: &Front, mut headers: HeaderMap) -> HeaderMap {
        if let Some(host) = front.upstream.other_host(headers.get(header::HOST)) {
            headers.insert(header::HOST, host);
        }
        headers
    }

    /// Forwards the request and heeds what its answer says about the caller.
    pub(super) async fn forward(self, front: &Front) -> Result<http::Response<AnswerBody>, UpstreamError> {
        let caller = self.caller;
        let answer = self.send(front, None).await?;
        front.avatars.heed(caller.as_ref(), None, answer.status());
        Ok(answer)
    }

    /// Forwards the request; the body goes chunk by chunk as upstream takes it, and one that breaks off or stalls is aborted
    /// upstream too: a short body must never look whole. `again` makes the header once more, should it be needed.
    async fn send(
        self,
        front: &Front,
        again: Option<&dyn Fn() -> HeaderMap>,
    ) -> Result<http::Response<AnswerBody>, UpstreamError> {
        let body = match self.body {
            ClientBody::Some(length, intake) => {
                let chunks = intake.map(|chunk| chunk.map_err(|_| Aborted::BrokeOff));
                RequestBody::of(Box::pin(chunks), length, front.settings.body_idle_timeout)
            }
            ClientBody::None | ClientBody::WebSocket => RequestBody::empty(),
        };
        let asked = Instant::now();
        let answer = front.upstream.forward(self.method, self.target, self.headers, body, again).await;
        if matches!(answer, Err(UpstreamError::ClientAborted)) {
            // A body that makes no sense is the end of its connection, and actix lets go of whoever reads it when it is given
            // the time to: an answer would only come before another one.
            tokio::task::yield_now().await;
        }
        let answer = answer?;
        front.telemetry.upstream_answered(UpstreamKind::Passthrough, answer.status(), asked.elapsed());
        Ok(answer)
    }
}
