//! Whatever may end a session or a right: forward it, then end the grants that it may have ended, before the client
//! hears of it. A courtesy: what guarantees an end is the time that a grant lasts.

use super::passthrough::{Outbound, relay};
use super::{Front, Inbound, WebError};
use crate::caller::{Caller, Credentials};
use crate::overheard::Ending;
use crate::telemetry::Ended;
use crate::upstream::{BodyStream, UpstreamError};
use crate::variant::query::names_parameter;
use actix_web::HttpResponse;
use std::rc::Rc;

/// Forwards the request and follows it to upstream's answer, whether or not the client waits for that.
pub(super) async fn serve(front: &Rc<Front>, inbound: &mut Inbound, ending: Ending) -> Result<HttpResponse, WebError> {
    let fields = inbound.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let anonymous = !Credentials::of(fields).are_present() && !names_parameter(&inbound.query, b"access_token");
    let caller = front.caller(&inbound.headers);
    // A task of its own: a client that resets its connection takes its handler with it, but not what it began.
    let followed = actix_web::rt::spawn(follow(front.clone(), Outbound::of(front, inbound), ending, caller, anonymous));
    let answer = followed.await.map_err(|_| UpstreamError::Broken("the request was dropped".to_owned()))?;
    Ok(relay(inbound, answer?))
}

async fn follow(
    front: Rc<Front>,
    outbound: Outbound,
    ending: Ending,
    caller: Option<Caller>,
    anonymous: bool,
) -> Result<http::Response<BodyStream>, UpstreamError> {
    let answer = outbound.forward(&front).await;
    let changed = match answer.as_ref().map(http::Response::status) {
        Ok(status) if status.is_success() || status.is_redirection() => true,
        // Refused, it has changed nothing.
        Ok(status) if status.is_client_error() => false,
        // Nobody knows; but a stranger ends nothing that upstream has not said to be ended.
        Ok(_) | Err(_) => !anonymous,
    };
    if changed {
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
