//! Whatever may end a session or a right: forward it, then end the grants that it may have ended, before the client
//! hears of it. A courtesy: what guarantees an end is the time that a grant lasts.

use super::influence::{Sender, outcome};
use super::passthrough::{Outbound, followed};
use super::{Front, Inbound, WebError};
use crate::caller::places_of_tokens;
use crate::overheard::Ending;
use crate::telemetry::{ChangeOutcome, Ended};
use crate::upstream::{Reply, UpstreamError};
use crate::variant::query::values_of;
use actix_web::HttpResponse;
use std::rc::Rc;

/// Forwards the request and follows it to upstream's answer, whether or not the client waits for that.
pub(super) async fn serve(front: &Rc<Front>, inbound: &mut Inbound, ending: Ending) -> Result<HttpResponse, WebError> {
    let sender = Sender::of(front, inbound);
    // However oddly they are presented: upstream may have read one of them.
    let by_query = values_of(&inbound.query, b"access_token");
    let tokens = places_of_tokens(&front.caller_key, inbound.fields.iter(), &by_query);
    let outbound = Outbound::of(front, inbound, sender.caller);
    followed(inbound, follow(front.clone(), outbound, ending, sender, tokens)).await
}

async fn follow(
    front: Rc<Front>,
    outbound: Outbound,
    ending: Ending,
    sender: Sender,
    tokens: Vec<u32>,
) -> Result<Reply, UpstreamError> {
    let answer = outbound.forward(&front).await;
    let came_to = outcome(&answer);
    // Who logs out is done with the session, even if upstream could not be told.
    let own = ending == Ending::Session && answer.is_err();
    if came_to == ChangeOutcome::Refused && !own {
        return answer;
    }
    // What nobody knows the outcome of ends everything only if it comes from somebody whom upstream knows.
    let ends_all = ending == Ending::Rights && (came_to == ChangeOutcome::Accepted || sender.is_known(&front));
    front.telemetry.grants_ended(if ends_all && sender.may_end_all(&front) {
        front.avatars.end_grants();
        Ended::All
    } else {
        front.avatars.end_tokens(&tokens);
        Ended::Session
    });
    answer
}
