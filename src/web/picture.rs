//! GET and HEAD of a picture: request in, response or 304 out (RFC 9110 sections 12.5, 13.1.2 and 15.4.5).

use super::answer::{no_body, streamed};
use super::route::Who;
use super::wire;
use super::{Front, Inbound, WebError};
use crate::avatar::{AvatarRequest, Keep, Picture, PictureBody, Relayed, Served};
use crate::cache::Lookup;
use crate::identity::{PictureId, PictureKind, Site};
use crate::source::{ContentHash, Validator};
use crate::telemetry::Outcome;
use crate::upstream::{Answer, PictureRequest, headers};
use crate::variant::negotiation::{Negotiated, negotiate};
use crate::variant::query::forwarded_query;
use crate::variant::transform::Transform;
use crate::variant::validators::{names_etag, names_validator};
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self as actix_header, HeaderValue as ActixValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode as UpstreamStatus};
use std::fmt::Write;
use std::time::Instant;

/// What must not be kept because it is a stop-gap, broken, or perhaps older than its URL says.
const DO_NOT_KEEP: &str = "private, no-cache";

/// Whether the request is one that we answer ourselves; all others pass through untouched.
pub(super) fn is_ours(front: &Front, inbound: &Inbound, kind: PictureKind) -> bool {
    let headers = &inbound.headers;
    let server_to_server =
        headers.keys().any(|name| name.as_str().starts_with("x-remotecluster-") || name == "x-cloud-token");
    front.settings.pictures.contains(&kind)
        && !server_to_server
        && headers::has_credentials(headers)
        && !crate::variant::query::names_parameter(&inbound.query, b"access_token")
        && !says(headers, "no-transform")
        && !says(headers, "no-store")
}

/// Whether the request's `Cache-Control` holds a directive (RFC 9111 section 5.2.1).
fn says(headers: &HeaderMap, directive: &str) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|each| each.trim().eq_ignore_ascii_case(directive))
}

/// Answers with the picture, a 304, or what upstream said.
pub(super) async fn serve(
    front: &Front,
    inbound: &mut Inbound,
    kind: PictureKind,
    who: Who,
) -> Result<HttpResponse, WebError> {
    let started = Instant::now();
    let parsed = Transform::parse(&inbound.query, &front.settings.sizes)?;
    if says(&inbound.headers, "only-if-cached") {
        return Err(WebError::OnlyIfCached);
    }
    let accept = inbound.headers.get_all(header::ACCEPT);
    let user_agent = inbound.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    let accept = accept.iter().map(HeaderValue::as_bytes);
    let negotiated = negotiate(parsed.transform.format(), accept, user_agent, &front.settings.negotiation);
    let host = front.upstream.host_for(inbound.headers.get(header::HOST));
    let picture = match who {
        Who::Id(object) => Some(PictureId { site: Site::of(host.as_bytes()), kind, object }),
        Who::Me => None,
    };
    let mut headers = headers::picture_request(&inbound.headers);
    headers.insert(header::HOST, host);
    inbound.ledger.picture = picture;
    let request = AvatarRequest {
        picture,
        upstream: PictureRequest { path: inbound.path.clone(), query: forwarded_query(&inbound.query), headers },
        transform: parsed.transform,
        offer: negotiated.offer,
    };
    Ok(match front.avatars.serve(&front.upstream, &request).await? {
        Served::Picture(picture) => {
            let answer = PictureAnswer { front, inbound, picture: &picture, negotiated, stamp: parsed.stamp };
            let response = answer.response(started);
            let ledger = &mut inbound.ledger;
            ledger.bytes_upstream = picture.upstream_bytes as u64;
            ledger.outcome = outcome(&picture, response.status());
            ledger.named_by_upstream(&picture.headers);
            // Mattermost would have sent nothing either to a client that has the picture, or asks for the head alone.
            let sent = ledger.outcome != Outcome::NotModified && inbound.method != Method::HEAD;
            ledger.bytes_original = if sent { picture.source_len as u64 } else { 0 };
            response
        }
        Served::Relayed(relayed) => {
            let shown = relayed.answer.status == UpstreamStatus::OK;
            inbound.ledger.outcome = if shown { Outcome::Original } else { Outcome::Relayed };
            inbound.ledger.relayed = true;
            inbound.ledger.named_by_upstream(&relayed.answer.headers);
            relay(inbound, relayed)
        }
    })
}

fn outcome(picture: &Picture, status: StatusCode) -> Outcome {
    match (status, picture.outcome.variant) {
        (StatusCode::NOT_MODIFIED, _) => Outcome::NotModified,
        (_, Some(Lookup::Rendered)) => Outcome::Rendered,
        (_, Some(Lookup::Coalesced)) => Outcome::Coalesced,
        (_, Some(Lookup::Hit)) => Outcome::Hit,
        (_, None) if picture.outcome.fetched => Outcome::Fetched,
        (_, None) => Outcome::Revalidated,
    }
}

/// All that one answer is made of.
struct PictureAnswer<'a> {
    front: &'a Front,
    inbound: &'a Inbound,
    picture: &'a Picture,
    negotiated: Negotiated,
    stamp: Option<i64>,
}

/// How the bytes that are sent are named.
enum Tag<'a> {
    /// A strong entity tag of ours.
    Ours(std::borrow::Cow<'a, str>),
    /// Upstream's own, compared as it compares it.
    Upstreams(&'a Validator),
}

impl PictureAnswer<'_> {
    fn response(&self, started: Instant) -> HttpResponse {
        let (bytes, media_type) = self.content();
        let tag = self.tag();
        let kept_by_client = !matches!(self.picture.body, PictureBody::StopGap(_)) && self.client_has(&tag);
        let status = if kept_by_client { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let mut response = HttpResponseBuilder::new(status).finish();
        let fields = response.headers_mut();
        wire::to_client(&self.picture.headers, fields, passes_with_picture);
        let tag = match &tag {
            Tag::Ours(tag) => ActixValue::from_str(tag).expect("hex digits in quotes"),
            Tag::Upstreams(validator) => {
                ActixValue::from_bytes(validator.as_bytes()).expect("it came as a field value")
            }
        };
        fields.insert(actix_header::ETAG, tag);
        fields.insert(actix_header::CACHE_CONTROL, self.lifetime());
        if let Some(vary) = self.vary() {
            fields.insert(actix_header::VARY, vary);
        }
        fields.insert(actix_header::X_CONTENT_TYPE_OPTIONS, ActixValue::from_static("nosniff"));
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
        let head = self.inbound.method == Method::HEAD;
        response.map_body(|_, _| if head { no_body(len) } else { BoxBody::new(bytes) })
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
        match (&self.picture.body, &self.picture.validator) {
            (PictureBody::Encoded(encoded), _) => Tag::Ours(encoded.etag.as_str().into()),
            (PictureBody::Source(_) | PictureBody::StopGap(_), Some(validator)) => Tag::Upstreams(validator),
            (PictureBody::Source(source) | PictureBody::StopGap(source), None) => {
                Tag::Ours(entity_tag(source.hash).into())
            }
        }
    }

    /// Only now, after upstream's yes: a 304 tells that the picture exists.
    fn client_has(&self, tag: &Tag<'_>) -> bool {
        let lines = || self.inbound.headers.get_all(header::IF_NONE_MATCH).into_iter().map(HeaderValue::as_bytes);
        match tag {
            Tag::Ours(tag) => names_etag(lines(), tag),
            // A tag that was never quoted cannot stand in a list; but `*` means whatever there is.
            Tag::Upstreams(validator) => names_validator(lines(), validator) || names_etag(lines(), ""),
        }
    }

    /// Upstream's lifetime, unless this answer is not worth keeping: when the URL's stamp is newer than the picture, a
    /// lagging cluster node answered, and the old face would stay under the new URL for a day.
    fn lifetime(&self) -> ActixValue {
        let held = self.picture.validator.as_ref().and_then(Validator::stamp);
        let lags = self.stamp.zip(held).is_some_and(|(asked, held)| asked.unsigned_abs() > held.unsigned_abs());
        if lags || matches!(self.picture.body, PictureBody::StopGap(_)) {
            return ActixValue::from_static(DO_NOT_KEEP);
        }
        let said = self.picture.cache_control.as_ref().and_then(|value| value.to_str().ok());
        ActixValue::from_str(&private_lifetime(said)).expect("parts of a field value are a field value")
    }

    /// Upstream's `Vary` without `Accept-Encoding`, since we always answer identity, and with what we looked at.
    fn vary(&self) -> Option<ActixValue> {
        let lines = self.picture.headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
        let mut names = lines
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("accept-encoding"))
            .collect::<Vec<_>>();
        for (name, looked_at) in
            [("Accept", self.negotiated.vary_accept), ("User-Agent", self.negotiated.vary_user_agent)]
        {
            if looked_at && !names.iter().any(|each| each.eq_ignore_ascii_case(name)) {
                names.push(name);
            }
        }
        (!names.is_empty())
            .then(|| ActixValue::from_str(&names.join(", ")).expect("parts of field values are a field value"))
    }

    /// RFC 9211: what the cache did. Upstream is asked each time, so nothing is ever a plain hit.
    fn cache_status(&self) -> ActixValue {
        let forwarded =
            if self.picture.outcome.fetched { "fwd=miss; fwd-status=200" } else { "fwd=stale; fwd-status=304" };
        let detail = match self.picture.outcome.variant {
            Some(Lookup::Hit) => "hit",
            Some(Lookup::Coalesced) => "coalesced",
            Some(Lookup::Rendered) => "rendered",
            None => "original",
        };
        ActixValue::from_str(&format!("avatar-proxy; {forwarded}; detail={detail}")).expect("tokens only")
    }
}

fn entity_tag(hash: ContentHash) -> String {
    format!("\"{}\"", hash.short_hex())
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

/// `Cache-Control` as upstream said it, but always private and never for good: what one caller may see is no business
/// of a shared cache, and a picture changes under its URL.
fn private_lifetime(said: Option<&str>) -> String {
    let Some(said) = said else { return DO_NOT_KEEP.to_owned() };
    let kept = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or(directive).trim();
        !["public", "immutable", "s-maxage"].iter().any(|shared| name.eq_ignore_ascii_case(shared))
    };
    let mut directives =
        said.split(',').map(str::trim).filter(|each| !each.is_empty()).filter(kept).collect::<Vec<_>>();
    if !directives.iter().any(|each| each.eq_ignore_ascii_case("private")) {
        directives.push("private");
    }
    directives.join(", ")
}

/// Upstream's answer as it came. A picture that does not decode, or that nobody could look at, loses what would make a
/// browser keep it: its lifetime, and the tag under which the next, whole picture may come.
fn relay(inbound: &Inbound, relayed: Relayed) -> HttpResponse {
    let Relayed { answer: Answer { status, mut headers, body, .. }, keep } = relayed;
    if keep != Keep::AsUpstreamSays {
        headers.remove(header::ETAG);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(DO_NOT_KEEP));
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
    }
    let shows_picture = status == UpstreamStatus::OK && is_image(&headers);
    if shows_picture {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    let validator = headers.get(header::ETAG).and_then(|tag| Validator::new(tag.as_bytes()));
    let lines = inbound.headers.get_all(header::IF_NONE_MATCH).into_iter().map(HeaderValue::as_bytes);
    if shows_picture && validator.is_some_and(|validator| names_validator(lines, &validator)) {
        let mut response = HttpResponse::NotModified().finish();
        wire::to_client(&headers, response.headers_mut(), |name| {
            ![header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING].contains(name)
        });
        return response;
    }
    streamed(&inbound.method, status, &headers, body)
}

fn is_image(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.as_bytes().trim_ascii_start().get(..6));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"image/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_always_private_and_never_for_good() {
        for (said, sent) in [
            (Some("max-age=86400, private"), "max-age=86400, private"),
            (Some("max-age=2592000, private"), "max-age=2592000, private"),
            (Some("public, max-age=60, immutable"), "max-age=60, private"),
            (Some("Public, S-MaxAge=9, max-age=5"), "max-age=5, private"),
            (Some(""), "private"),
            (None, "private, no-cache"),
        ] {
            assert_eq!(private_lifetime(said), sent, "{said:?}");
        }
    }
}
