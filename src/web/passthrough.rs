//! Every request that is not ours: streamed both ways, nothing added but the forwarding fields and the hop marker.

use super::answer::streamed;
use super::{ClientBody, Front, Inbound, WebError};
use crate::telemetry::{Outcome, UpstreamKind};
use crate::upstream::{AnswerBody, BodySender, BodyStream, RequestBody};
use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header;
use std::time::Instant;

/// Forwards the request and streams the answer.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound) -> Result<HttpResponse, WebError> {
    let answer = forward(front, inbound).await?;
    Ok(relay(inbound, answer))
}

/// Streams upstream's answer to the client.
pub(super) fn relay(inbound: &mut Inbound, answer: http::Response<BodyStream>) -> HttpResponse {
    inbound.ledger.outcome = Outcome::Passed;
    let (head, body) = answer.into_parts();
    streamed(&inbound.method, head.status, &head.headers, AnswerBody::Partial(Bytes::new(), body))
}

/// Forwards the request, its body chunk by chunk as upstream takes it.
pub(super) async fn forward(front: &Front, inbound: &mut Inbound) -> Result<http::Response<BodyStream>, WebError> {
    let mut headers = inbound.headers.clone();
    headers.insert(header::HOST, front.upstream.host_for(inbound.headers.get(header::HOST)));
    let body = match std::mem::replace(&mut inbound.body, ClientBody::None) {
        ClientBody::Some(length, payload) => {
            let (sender, body) = RequestBody::channel(length);
            actix_web::rt::spawn(pump(payload, sender));
            body
        }
        ClientBody::None | ClientBody::WebSocket(_) | ClientBody::OtherUpgrade => RequestBody::empty(),
    };
    let asked = Instant::now();
    let answer = front.upstream.forward(inbound.method.clone(), inbound.target.clone(), headers, body).await?;
    front.telemetry.upstream_answered(UpstreamKind::Passthrough, answer.status(), asked.elapsed());
    Ok(answer)
}

/// Hands the client's body over. One that breaks off is aborted upstream too: a short body must never look whole.
async fn pump(mut payload: Payload, sender: BodySender) {
    while let Some(chunk) = payload.next().await {
        match chunk {
            Ok(chunk) => {
                if !sender.send(chunk).await {
                    return;
                }
            }
            Err(_) => return sender.abort().await,
        }
    }
}
