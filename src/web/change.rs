//! Whatever changes a picture: forward it as a stream, then forget the picture before the client hears of the outcome.

use super::passthrough::{forward, relay};
use super::route::Who;
use super::{Front, Inbound, WebError};
use crate::identity::{ObjectId, PictureId, PictureKind, Site};
use crate::telemetry::ChangeOutcome;
use crate::upstream::{AnswerBody, PictureRequest, headers};
use actix_web::HttpResponse;
use http::{StatusCode, header};

/// The longest user record that is read to learn who `me` is.
const LONGEST_RECORD: u64 = 1 << 20;

/// Which picture a write may change.
enum Changed {
    One(PictureId),
    /// The caller's own, and upstream did not say who that is.
    Unknown,
}

/// Forwards the write. Whatever the outcome, the picture is forgotten: an unknown one may be a change, and a needless
/// forgetting costs one request upstream.
pub(super) async fn serve(front: &Front, inbound: &mut Inbound, kind: PictureKind, who: Who) -> Result<HttpResponse, WebError> {
    let site = Site::of(front.upstream.host_for(inbound.headers.get(header::HOST)).as_bytes());
    let object = match who {
        Who::Id(object) => Some(object),
        Who::Me => who_is_me(front, inbound).await,
    };
    let changed = object.map_or(Changed::Unknown, |object| Changed::One(PictureId { site, kind, object }));
    // Twice: a read that began before the write must not outlive its beginning, nor one that began meanwhile its end.
    if let Changed::One(picture) = changed {
        front.avatars.forget(picture);
    }
    let answer = forward(front, inbound).await;
    let outcome = outcome(answer.as_ref().map(http::Response::status).ok());
    match changed {
        Changed::One(picture) => front.avatars.forget(picture),
        // Refused, so nothing has changed; and a stranger must not be able to make everybody's picture be fetched again.
        Changed::Unknown if outcome == ChangeOutcome::Refused => {}
        Changed::Unknown => front.avatars.forget_all(),
    }
    front.telemetry.picture_changed(kind, outcome);
    Ok(relay(inbound, answer?))
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
async fn who_is_me(front: &Front, inbound: &Inbound) -> Option<ObjectId> {
    if !headers::has_credentials(&inbound.headers) {
        return None;
    }
    let mut fields = headers::picture_request(&inbound.headers);
    fields.insert(header::HOST, front.upstream.host_for(inbound.headers.get(header::HOST)));
    let path = format!("{}/api/v4/users/me", front.settings.base_path);
    let request = PictureRequest { path, query: None, headers: fields };
    let asked = async { front.upstream.picture(&request, None).await?.read_up_to(LONGEST_RECORD).await };
    let answer = tokio::time::timeout(front.upstream.picture_timeout(), asked).await.ok()?.ok()?;
    let AnswerBody::Complete(body) = answer.body else { return None };
    if answer.status != StatusCode::OK {
        return None;
    }
    let record: serde_json::Value = serde_json::from_slice(&body).ok()?;
    ObjectId::parse(record.get("id")?.as_str()?.as_bytes())
}
