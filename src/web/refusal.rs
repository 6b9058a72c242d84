//! The answer to what is no request: there is no service for it to come to.

use super::WebError;
use super::request_id::RequestId;
use crate::listen::Refusal;
use crate::telemetry::Telemetry;
use actix_web::HttpResponse;

/// Our own answer: counted, and logged once.
#[must_use]
pub fn refuse(telemetry: &Telemetry, refusal: Refusal) -> HttpResponse {
    let error = WebError::Refused(refusal);
    let (_, id, reason) = error.verdict();
    let request_id = RequestId::next().spelt();
    telemetry.refused(reason);
    tracing::debug!(error.id = id, request.id = request_id.as_str(), %error, "request refused");
    error.answer(request_id.as_str())
}
