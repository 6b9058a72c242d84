//! Whatever changes a picture: forward it as a stream, then forget the picture before the client hears of the outcome.

use super::influence::{Sender, outcome};
use super::passthrough::{Outbound, followed};
use super::route::Who;
use super::{Front, Inbound, WebError};
use crate::identity::{ObjectId, PictureId, PictureKind, Site};
use crate::telemetry::ChangeOutcome;
use crate::upstream::{AnswerBody, PictureRequest, Reply, UpstreamError, headers};
use crate::variant::query::names_parameter;
use actix_web::HttpResponse;
use http::StatusCode;
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
/// forgetting costs one request upstream. But a stranger's attempts, and more of them than anybody makes, are believed
/// only when upstream says that they came to something.
pub(super) async fn serve(
    front: &Rc<Front>,
    inbound: &mut Inbound,
    kind: PictureKind,
    who: Who,
) -> Result<HttpResponse, WebError> {
    let site = front.site(front.host(&inbound.fields));
    let sender = Sender::of(front, inbound);
    let changed = match who {
        Who::Id(object) => Changed::One(PictureId { site, kind, object }),
        Who::Me if sender.anonymous => Changed::Nobodys,
        Who::Me => whose(front, inbound, &sender, site, kind).await,
    };
    let outbound = Outbound::of(front, inbound, sender.caller);
    followed(inbound, write(front.clone(), outbound, kind, changed, sender)).await
}

/// Forgets twice: a read that began before the write must not outlive its beginning, nor one that began meanwhile its end.
async fn write(
    front: Rc<Front>,
    outbound: Outbound,
    kind: PictureKind,
    changed: Changed,
    sender: Sender,
) -> Result<Reply, UpstreamError> {
    let believed = sender.may_forget(&front);
    if believed {
        forget(&front, changed);
    }
    let answer = outbound.forward(&front).await;
    let outcome = outcome(&answer);
    let unauthorized = answer.as_ref().is_ok_and(|answer| answer.head.status == StatusCode::UNAUTHORIZED);
    match (changed, outcome) {
        // Whose it was is not known, so all are forgotten, but only if something may have happened.
        (Changed::Unknown, ChangeOutcome::Accepted) => front.avatars.forget_all(),
        (Changed::Unknown, ChangeOutcome::Unknown) if sender.is_known(&front) => front.avatars.forget_all_once(),
        (Changed::One(_), ChangeOutcome::Accepted) => forget(&front, changed),
        (Changed::One(_), _) if believed && !unauthorized => forget(&front, changed),
        _ => {}
    }
    front.telemetry.picture_changed(kind, outcome);
    answer
}

fn forget(front: &Front, changed: Changed) {
    if let Changed::One(picture) = changed {
        front.avatars.forget(picture);
        if picture.kind == PictureKind::User {
            // It shows the name, which may be what was changed, and has no version.
            front.avatars.forget(PictureId { kind: PictureKind::Default, ..picture });
        }
    }
}

/// Asks upstream who the caller is, with the caller's own credentials.
async fn whose(front: &Front, inbound: &Inbound, sender: &Sender, site: Site, kind: PictureKind) -> Changed {
    let by_query = names_parameter(&inbound.query, b"access_token");
    if front.avatars.charge(sender.misses).is_err() {
        return Changed::Unknown;
    }
    let headers = headers::picture_request(&inbound.fields, front.host(&inbound.fields));
    let request = PictureRequest {
        path: format!("{}/api/v4/users/me", front.settings.base_path),
        query: by_query.then(|| inbound.query.clone()),
        headers,
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
        (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => Changed::Unknown,
        (status, _) if status.is_client_error() => Changed::Nobodys,
        _ => Changed::Unknown,
    }
}

fn id_in(record: &[u8]) -> Option<ObjectId> {
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    ObjectId::parse(record.get("id")?.as_str()?.as_bytes())
}
