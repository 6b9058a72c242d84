//! GET and HEAD of a picture: request in, response or 304 out (RFC 9110 sections 12.5, 13.1.2 and 15.4.5).

use super::answer::{Ledger, no_body, streamed, whole};
use super::ask::{Ask, Wanted};
use super::route::Who;
use super::wire;
use super::{Front, Inbound, WebError};
use crate::avatar::{AvatarRequest, Keep, Picture, PictureBody, Proof, Relayed, Served};
use crate::cache::Lookup;
use crate::identity::{ObjectId, PictureKind};
use crate::source::Validator;
use crate::telemetry::Outcome;
use crate::upstream::{Answer, Fields, PictureRequest, headers};
use crate::variant::hints;
use crate::variant::negotiation::Negotiated;
use crate::variant::query::forwarded_query;
use crate::variant::validators::{names_etag, names_validator};
use actix_http::{HttpMessage, Request};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self as actix_header, HeaderValue as ActixValue};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode as UpstreamStatus};
use std::borrow::Cow;
use std::fmt::Write;
use std::time::Instant;

/// `Cache-Status` of what is shown on a grant while upstream does not answer.
const OUTAGE: &str = "avatar-proxy; hit; detail=outage";

/// Answers from memory, if the caller has a grant and all that is asked for is there. Nothing of the request is copied
/// for that; whatever is not plain goes the long way.
pub(super) async fn recall(
    front: &Front,
    request: &Request,
    ledger: &mut Ledger,
    kind: PictureKind,
    object: ObjectId,
) -> Option<HttpResponse> {
    if !front.avatars.remembers() {
        return None;
    }
    let ask = Ask::read(request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let query = request.uri().query().unwrap_or_default();
    if !ask.may_be_recalled() || !ask.is_ours(front, kind, query) {
        return None;
    }
    let Wanted { wish, negotiated } = ask.wanted(front, kind, Some(object), query).ok()?;
    let picture = front.avatars.recall(&wish, ledger.started()).await?;
    let only_head = ledger.method == Method::HEAD;
    let answer = PictureAnswer { front, ask: &ask, picture: &picture, negotiated, stamp: wish.stamp, only_head };
    ledger.picture = wish.picture;
    Some(answer.entered_in(ledger))
}

/// Answers with the picture, a 304, or what upstream said.
pub(super) async fn serve(
    front: &Front,
    inbound: &mut Inbound,
    fields: &Fields,
    ask: &Ask<'_>,
    kind: PictureKind,
    who: Who,
) -> Result<HttpResponse, WebError> {
    let object = match who {
        Who::Id(object) => Some(object),
        Who::Me => None,
    };
    let Wanted { wish, negotiated } = ask.wanted(front, kind, object, &inbound.query)?;
    let headers = headers::picture_request(fields, front.host(fields));
    inbound.ledger.picture = wish.picture;
    let payer = front.avatars.payer(ask.token(), inbound.client);
    let upstream = PictureRequest { path: inbound.path.clone(), query: forwarded_query(&inbound.query), headers };
    let only_head = inbound.method == Method::HEAD;
    let request = AvatarRequest { wish, payer, upstream };
    let served = if ask.only_if_cached() {
        let kept = front.avatars.serve_kept(&request).await?;
        Served::Picture(kept.ok_or(WebError::OnlyIfCached)?)
    } else {
        front.avatars.serve(&front.upstream, &request).await?
    };
    Ok(match served {
        Served::Picture(picture) => {
            let answer = PictureAnswer { front, ask, picture: &picture, negotiated, stamp: wish.stamp, only_head };
            answer.entered_in(&mut inbound.ledger)
        }
        Served::Relayed(relayed) => {
            let shown = relayed.answer.status == UpstreamStatus::OK;
            inbound.ledger.outcome = if shown { Outcome::Original } else { Outcome::Relayed };
            inbound.ledger.relayed = true;
            let id = || relayed.answer.headers.get("x-request-id").map(HeaderValue::as_bytes);
            inbound.ledger.named_by_upstream(id);
            relay(&inbound.method, ask, relayed)
        }
    })
}

fn outcome(picture: &Picture, status: StatusCode) -> Outcome {
    match (status, picture.outcome.variant) {
        (StatusCode::NOT_MODIFIED, _) => Outcome::NotModified,
        (_, Some(Lookup::Rendered)) => Outcome::Rendered,
        (_, Some(Lookup::Coalesced)) => Outcome::Coalesced,
        (_, Some(Lookup::Hit)) => Outcome::Hit,
        (_, None) => match picture.outcome.proof {
            Proof::Fetched => Outcome::Fetched,
            Proof::Revalidated => Outcome::Revalidated,
            Proof::Granted(_) => Outcome::Hit,
        },
    }
}

/// All that one answer is made of.
struct PictureAnswer<'a, 'head> {
    front: &'a Front,
    ask: &'a Ask<'head>,
    picture: &'a Picture,
    negotiated: Negotiated,
    stamp: Option<i64>,
    only_head: bool,
}

/// How the bytes that are sent are named.
enum Tag<'a> {
    /// A strong entity tag of ours.
    Ours(Bytes),
    /// Upstream's own, compared as it compares it.
    Upstreams(&'a Validator),
}

impl PictureAnswer<'_, '_> {
    /// Writes the answer, and into the ledger what it came to.
    fn entered_in(&self, ledger: &mut Ledger) -> HttpResponse {
        let response = self.response(ledger.started());
        let picture = self.picture;
        ledger.bytes_upstream = picture.upstream_bytes as u64;
        ledger.outcome = outcome(picture, response.status());
        ledger.proof = Some(picture.outcome.proof.into());
        ledger.named_by_upstream(|| picture.headers.get("x-request-id").map(HeaderValue::as_bytes));
        // Mattermost would have sent nothing either to a client that has the picture, or asks for the head alone.
        let sent = ledger.outcome != Outcome::NotModified && !self.only_head;
        ledger.bytes_original = if sent { picture.record.source_len as u64 } else { 0 };
        response
    }

    fn response(&self, started: Instant) -> HttpResponse {
        let (bytes, media_type) = self.content();
        let tag = self.tag();
        let kept_by_client = !matches!(self.picture.body, PictureBody::StopGap(_)) && self.client_has(&tag);
        let status = if kept_by_client { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut response = HttpResponse::new(status);
        let fields = response.headers_mut();
        wire::to_client(&self.picture.headers, fields, passes_with_picture);
        let tag = match tag {
            Tag::Ours(tag) => wire::shared(tag),
            Tag::Upstreams(validator) => {
                ActixValue::from_bytes(validator.as_bytes()).expect("it came as a field value")
            }
        };
        fields.insert(actix_header::ETAG, tag);
        fields.insert(actix_header::CACHE_CONTROL, self.lifetime());
        if let Some(vary) = self.vary() {
            fields.insert(actix_header::VARY, vary);
        }
        if let Proof::Granted(sent) = self.picture.outcome.proof {
            fields.insert(actix_header::AGE, age(started.saturating_duration_since(sent).as_secs()));
        }
        fields.insert(actix_header::X_CONTENT_TYPE_OPTIONS, ActixValue::from_static("nosniff"));
        if self.ask.came_through_another() {
            keep_from_shared_caches(fields);
        }
        fields.insert(actix_header::CONTENT_SECURITY_POLICY, ActixValue::from_static("default-src 'none'"));
        if self.front.settings.cache_status {
            fields.insert(actix_header::HeaderName::from_static("cache-status"), self.cache_status());
        }
        if self.front.settings.server_timing {
            fields.insert(actix_header::HeaderName::from_static("server-timing"), server_timing(started));
        }
        if kept_by_client {
            return response;
        }
        fields.insert(actix_header::CONTENT_TYPE, ActixValue::from_static(media_type));
        let len = bytes.len() as u64;
        let only_head = self.only_head;
        response.map_body(|_, _| if only_head { no_body(len) } else { whole(bytes) })
    }

    fn content(&self) -> (Bytes, &'static str) {
        match &self.picture.body {
            PictureBody::Encoded(encoded) => (encoded.bytes.clone(), encoded.format.media_type()),
            PictureBody::Source(source) | PictureBody::StopGap(source) => {
                (source.bytes.clone(), source.info.format.media_type())
            }
        }
    }

    /// A source that upstream gave no tag gets one of ours: emoji then revalidate without a body.
    fn tag(&self) -> Tag<'_> {
        match (&self.picture.body, &self.picture.record.validator) {
            (PictureBody::Encoded(encoded), _) => Tag::Ours(encoded.etag.clone()),
            (PictureBody::Source(_) | PictureBody::StopGap(_), Some(validator)) => Tag::Upstreams(validator),
            (PictureBody::Source(source) | PictureBody::StopGap(source), None) => {
                Tag::Ours(source.hash.entity_tag().into())
            }
        }
    }

    /// Only now, after upstream's yes: a 304 tells that the picture exists.
    fn client_has(&self, tag: &Tag<'_>) -> bool {
        let lines = || self.ask.if_none_match();
        match tag {
            Tag::Ours(tag) => names_etag(lines(), tag),
            // A tag that was never quoted cannot stand in a list; but `*` means whatever there is.
            Tag::Upstreams(validator) => names_validator(lines(), validator) || names_etag(lines(), b""),
        }
    }

    /// Upstream's lifetime, unless this answer is not worth keeping: when the URL's stamp is newer than the picture, a
    /// lagging cluster node answered, and the old face would stay under the new URL for a day.
    fn lifetime(&self) -> ActixValue {
        let lags = self.stamp.is_some_and(|asked| {
            let held = self.picture.record.validator.as_ref().and_then(Validator::stamp);
            held.is_some_and(|held| asked.unsigned_abs() > held.unsigned_abs())
        });
        if lags || matches!(self.picture.body, PictureBody::StopGap(_)) {
            return ActixValue::from_static(headers::DO_NOT_KEEP);
        }
        wire::shared(self.picture.record.lifetime.clone())
    }

    /// What upstream varies on, and what we looked at.
    fn vary(&self) -> Option<ActixValue> {
        let upstreams = self.picture.vary.as_ref().unwrap_or(&self.picture.record.vary);
        match self.looked_at() {
            Some(Cow::Borrowed(names)) if upstreams.is_empty() => Some(ActixValue::from_static(names)),
            None => (!upstreams.is_empty()).then(|| wire::shared(upstreams.clone())),
            Some(names) => {
                let is_upstreams = |name: &&str| {
                    upstreams
                        .split(|byte| *byte == b',')
                        .any(|each| each.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
                };
                let first = String::from_utf8_lossy(upstreams).into_owned();
                let own = names.split(", ").filter(|name| !is_upstreams(name)).map(str::to_owned);
                let all = Some(first).filter(|first| !first.is_empty()).into_iter().chain(own).collect::<Vec<_>>();
                Some(wire::shared(all.join(", ").into()))
            }
        }
    }

    /// The names of the fields that we looked at.
    fn looked_at(&self) -> Option<Cow<'static, str>> {
        let negotiated = match (self.negotiated.vary_accept, self.negotiated.vary_user_agent) {
            (true, true) => Some("Accept, User-Agent"),
            (true, false) => Some("Accept"),
            (false, true) => Some("User-Agent"),
            (false, false) => None,
        };
        match negotiated {
            Some(names) if self.front.settings.client_hints => Some(format!("{names}, {}", hints::FIELDS).into()),
            None if self.front.settings.client_hints => Some(hints::FIELDS.into()),
            names => names.map(Cow::Borrowed),
        }
    }

    /// RFC 9211: what the cache did, and why upstream was asked.
    fn cache_status(&self) -> ActixValue {
        let handled = match self.picture.outcome.proof {
            Proof::Granted(_) if self.front.avatars.is_outage() => return ActixValue::from_static(OUTAGE),
            Proof::Granted(_) => "hit",
            Proof::Fetched if self.ask.must_ask() => "fwd=request; fwd-status=200",
            Proof::Revalidated if self.ask.must_ask() => "fwd=request; fwd-status=304",
            Proof::Fetched => "fwd=miss; fwd-status=200",
            Proof::Revalidated => "fwd=stale; fwd-status=304",
        };
        let detail = match self.picture.outcome.variant {
            Some(Lookup::Hit) => "hit",
            Some(Lookup::Coalesced) => "coalesced",
            Some(Lookup::Rendered) => "rendered",
            None => "original",
        };
        ActixValue::from_str(&format!("avatar-proxy; {handled}; detail={detail}")).expect("tokens only")
    }
}

/// What was allowed to one caller is for no cache of others. `private` says so to all that heed it; an outer nginx that was
/// told to ignore `Cache-Control`, as the usual recipe for avatars tells it, and a CDN (RFC 9213) have words of their own.
fn keep_from_shared_caches(fields: &mut actix_header::HeaderMap) {
    static ACCEL_EXPIRES: actix_header::HeaderName = actix_header::HeaderName::from_static("x-accel-expires");
    fields.insert(ACCEL_EXPIRES.clone(), ActixValue::from_static("0"));
    fields.insert(actix_header::CDN_CACHE_CONTROL, ActixValue::from_static("no-store"));
}

/// A number of seconds. Grants are mostly young, and a digit or two need no memory of their own.
fn age(seconds: u64) -> ActixValue {
    const DIGITS: &str = "0123456789\
        101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566\
        676869707172737475767778798081828384858687888990919293949596979899";
    let at = match usize::try_from(seconds) {
        Ok(seconds @ 0..10) => seconds..seconds + 1,
        Ok(seconds @ 10..100) => 2 * seconds - 10..2 * seconds - 8,
        _ => return seconds.into(),
    };
    ActixValue::from_static(&DIGITS[at])
}

fn server_timing(started: Instant) -> ActixValue {
    let mut text = String::from("total;dur=");
    write!(text, "{:.3}", started.elapsed().as_secs_f64() * 1000.0).expect("a String takes what is written");
    ActixValue::from_str(&text).expect("digits")
}

/// Which of upstream's fields go with a picture whose content and lifetime we describe ourselves.
fn passes_with_picture(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 9] = [
        header::ACCEPT_RANGES,
        header::AGE,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::VARY,
    ];
    !OURS.contains(name)
}

/// Upstream's answer as it came. A picture that does not decode, or that nobody could look at, loses what would make a
/// browser keep it: its lifetime, and the tag under which the next, whole picture may come.
fn relay(method: &Method, ask: &Ask<'_>, relayed: Relayed) -> HttpResponse {
    let Relayed { answer: Answer { status, mut headers, body, .. }, keep } = relayed;
    if keep != Keep::AsUpstreamSays {
        headers.remove(header::ETAG);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(headers::DO_NOT_KEEP));
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
    }
    let shows_picture = status == UpstreamStatus::OK && is_image(&headers);
    if shows_picture {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    let validator = headers::validator(&headers);
    if shows_picture && validator.is_some_and(|validator| names_validator(ask.if_none_match(), &validator)) {
        let mut response = HttpResponse::NotModified().finish();
        wire::to_client(&headers, response.headers_mut(), |name| {
            ![header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING].contains(name)
        });
        keep_from_shared_caches(response.headers_mut());
        return response;
    }
    let mut response = streamed(method, status, || headers::content_length(&headers), body);
    wire::to_client(&headers, response.headers_mut(), |name| name != header::CONTENT_LENGTH);
    if shows_picture {
        keep_from_shared_caches(response.headers_mut());
    }
    response
}

fn is_image(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.as_bytes().trim_ascii_start().get(..6));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"image/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_its_seconds() {
        for seconds in (0..200).chain([3600, u64::MAX]) {
            assert_eq!(age(seconds).to_str().expect("digits"), seconds.to_string());
        }
    }
}
