//! Whatever may end a session or a right: forward it, then end the grants that it may have ended, before the client
//! hears of it. A courtesy: what guarantees an end is the time that a grant lasts.

use super::passthrough::{Outbound, relay};
use super::{Asker, Front, Inbound, WebError};
use crate::caller::Caller;
use crate::overheard::Ending;
use crate::telemetry::Ended;
use crate::upstream::{BodyStream, UpstreamError};
use actix_web::HttpResponse;
use http::Response;
use std::rc::Rc;

/// Forwards the request and follows it to upstream's answer, whether or not the client waits for that.
pub(super) async fn serve(
    front: &Rc<Front>,
    inbound: &mut Inbound,
    ending: Ending,
    asker: Asker,
) -> Result<HttpResponse, WebError> {
    let caller = front.caller(&inbound.headers);
    // A task of its own: a client that resets its connection takes its handler with it, but not what it began.
    let followed = actix_web::rt::spawn(follow(front.clone(), Outbound::of(front, inbound), ending, asker, caller));
    let answer = followed.await.map_err(|_| UpstreamError::Broken("the request was dropped".to_owned()))?;
    Ok(relay(inbound, answer?))
}

async fn follow(
    front: Rc<Front>,
    outbound: Outbound,
    ending: Ending,
    asker: Asker,
    caller: Option<Caller>,
) -> Result<Response<BodyStream>, UpstreamError> {
    let answer = outbound.forward(&front).await;
    let counts = match answer.as_ref().map(Response::status) {
        Ok(status) if status.is_client_error() => {
            front.heed(caller.as_ref(), status);
            false
        }
        Ok(status) if status.is_success() => true,
        // Nobody knows; and a stranger's attempt is worth nothing.
        Ok(_) | Err(_) => asker == Asker::Named,
    };
    if counts {
        let ended = match (ending, caller) {
            (Ending::Session, Some(caller)) => {
                front.avatars.end_session(&caller);
                Ended::Session
            }
            // Whose session it was cannot be told for certain, so that it has no grants.
            (Ending::Session, None) => return answer,
            (Ending::Rights, _) => {
                front.avatars.end_grants();
                Ended::All
            }
        };
        front.telemetry.grants_ended(ended);
    }
    answer
}
