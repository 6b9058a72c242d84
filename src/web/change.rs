//! Whatever changes a picture: forward it as a stream, then forget the picture before the client hears of the outcome.

use super::passthrough::{Outbound, relay};
use super::route::Who;
use super::{Front, Inbound, WebError};
use crate::caller::Credentials;
use crate::identity::{ObjectId, PictureId, PictureKind, Site};
use crate::telemetry::ChangeOutcome;
use crate::upstream::{AnswerBody, BodyStream, PictureRequest, UpstreamError, headers};
use crate::variant::query::names_parameter;
use actix_web::HttpResponse;
use http::{HeaderValue, StatusCode, header};
use std::rc::Rc;

/// The longest user record that is read to learn who `me` is.
const LONGEST_RECORD: u64 = 1 << 20;

/// Which picture a write may change.
#[derive(Clone, Copy)]
enum Changed {
    One(PictureId),
    /// The caller's own, but upstream knows no such caller: nothing will change.
    Nobodys,
    /// The caller's own, and upstream did not say who that is.
    Unknown,
}

/// Forwards the write. Whatever the outcome, the picture is forgotten: an unknown one may be a change, and a needless
/// forgetting costs one request upstream.
pub(super) async fn serve(
    front: &Rc<Front>,
    inbound: &mut Inbound,
    kind: PictureKind,
    who: Who,
) -> Result<HttpResponse, WebError> {
    let site = front.site(front.upstream.host_of(inbound.headers.get(header::HOST).map(HeaderValue::as_bytes)));
    let changed = match who {
        Who::Id(object) => Changed::One(PictureId { site, kind, object }),
        Who::Me => whose(front, inbound, site, kind).await,
    };
    // A task of its own: a client that resets its connection takes its handler with it, but not the write, which has to
    // be followed to upstream's answer.
    let write = actix_web::rt::spawn(write(front.clone(), Outbound::of(front, inbound), kind, changed));
    let answer = write.await.map_err(|_| UpstreamError::Broken("the write was dropped".to_owned()))??;
    front.heed(front.caller(&inbound.headers).as_ref(), answer.status());
    Ok(relay(inbound, answer))
}

/// Forgets twice: a read that began before the write must not outlive its beginning, nor one that began meanwhile its end.
async fn write(
    front: Rc<Front>,
    outbound: Outbound,
    kind: PictureKind,
    changed: Changed,
) -> Result<http::Response<BodyStream>, UpstreamError> {
    forget(&front, changed);
    let answer = outbound.forward(&front).await;
    forget(&front, changed);
    let outcome = outcome(answer.as_ref().map(http::Response::status).ok());
    front.telemetry.picture_changed(kind, outcome);
    answer
}

fn forget(front: &Front, changed: Changed) {
    match changed {
        Changed::One(picture) => front.avatars.forget(picture),
        // Otherwise a stranger without a session could make everybody's picture be fetched again and again.
        Changed::Nobodys => {}
        Changed::Unknown => front.avatars.forget_all(),
    }
}

/// What upstream made of a write; `None` when it did not say.
fn outcome(status: Option<StatusCode>) -> ChangeOutcome {
    match status {
        Some(status) if status.is_success() || status.is_redirection() => ChangeOutcome::Accepted,
        Some(status) if status.is_client_error() => ChangeOutcome::Refused,
        Some(_) | None => ChangeOutcome::Unknown,
    }
}

/// Asks upstream who the caller is, with the caller's own credentials.
async fn whose(front: &Front, inbound: &Inbound, site: Site, kind: PictureKind) -> Changed {
    let by_query = names_parameter(&inbound.query, b"access_token");
    let fields = inbound.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    if !by_query && !Credentials::of(fields).are_present() {
        return Changed::Nobodys;
    }
    let mut fields = headers::picture_request(&inbound.headers);
    fields.insert(header::HOST, front.upstream.host_for(inbound.headers.get(header::HOST)));
    let request = PictureRequest {
        path: format!("{}/api/v4/users/me", front.settings.base_path),
        query: by_query.then(|| inbound.query.clone()),
        headers: fields,
    };
    let asked = async { front.upstream.picture(&request, None).await?.read_up_to(LONGEST_RECORD).await };
    let Ok(Ok(answer)) = tokio::time::timeout(front.upstream.picture_timeout(), asked).await else {
        return Changed::Unknown;
    };
    match (answer.status, answer.body) {
        (StatusCode::OK, AnswerBody::Complete(body)) => {
            let object = id_in(&body);
            object.map_or(Changed::Unknown, |object| Changed::One(PictureId { site, kind, object }))
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => Changed::Nobodys,
        _ => Changed::Unknown,
    }
}

fn id_in(record: &[u8]) -> Option<ObjectId> {
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    ObjectId::parse(record.get("id")?.as_str()?.as_bytes())
}
