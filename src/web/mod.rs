//! The front door: every request comes in here and is matched once, on its raw path.
//!
//! There is no router behind this: one service takes all, because a picture route counts only in its canonical spelling
//! and everything else has to pass through byte for byte.

mod answer;
mod ask;
mod change;
pub mod error;
mod learning;
mod passthrough;
mod picture;
mod request_id;
pub mod route;
mod session;
mod websocket;
mod wire;

pub use error::WebError;
pub use learning::School;
pub 
use crate::avatar::Avatars;
use crate::caller::{Caller, CallerKey, Credentials};
use crate::identity::{PictureKind, Site};
use crate::overheard::{Ending, ListenBudget};
use crate::telemetry::{Outcome, Route as RouteClass, Telemetry};
use crate::upstream::Upstream;
use crate::upstream::headers::{self, Origin};
use crate::variant::negotiation;
use crate::variant::query::names_parameter;
use crate::variant::transform::Sizes;
use actix_web::dev::Payload;
use actix_web::http::header as actix_header;
use actix_web::{HttpRequest, HttpResponse};
use answer::Ledger;
use ask::Ask;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use ipnet::IpNet;
use route::{Route, Who};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

/// What the front door needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path of Mattermost's `SiteURL` without its closing slash; empty for a site at the root.
    pub base_path: String,
    /// Networks whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which kinds of picture are ours; the others pass through.
    pub pictures: Vec<PictureKind>,
    /// The sizes that are rendered.
    pub sizes: Sizes,
    /// The formats that are negotiated.
    pub negotiation: negotiation::Settings,
    /// Learn grants from what passes through.
    pub learn: bool,
    /// Listen for changes in WebSockets that pass through.
    pub listen: bool,
    /// Send `Cache-Status` (RFC 9211).
    pub cache_status: bool,
    /// Send `Server-Timing`.
    pub server_timing: bool,
    /// One log line a request.
    pub log_requests: bool,
}

/// The site of the requests before: a worker mostly serves one.
type LastSite = RefCell<Option<(Box<[u8]>, Site)>>;

/// Everything that a request is answered with: one for each worker, of parts that all share but for the way to upstream.
pub struct Front {
    /// What the front door needs to know.
    pub settings: Arc<Settings>,
    /// This worker's back door.
    pub upstream: Upstream,
    /// The decisions.
    pub avatars: Arc<Avatars>,
    /// Counters and logs.
    pub telemetry: Arc<Telemetry>,
    /// How this process recognises a request that comes back (RFC 8586): `avatar-proxy;id=<drawn at start>`.
    pub hop: HeaderValue,
    /// What callers are named by.
    pub caller_key: Arc<CallerKey>,
    /// What lessons share.
    pub school: Arc<School>,
    /// What listeners share.
    pub listeners: Arc<ListenBudget>,
    /// The last site that was named.
    pub last_site: LastSite,
}

impl Front {
    /// The `Host` that is sent upstream for a request with these fields.
    fn host<'a>(&'a self, headers: &'a HeaderMap) -> &'a [u8] {
        self.upstream.host_of(headers.get(header::HOST).map(HeaderValue::as_bytes))
    }

    /// Who sends these fields, where that can be told for certain and is of any use.
    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if !self.avatars.remembers() {
            return None;
        }
        let fields = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        Credentials::of(fields).caller(&self.caller_key, self.host(headers))
    }

    /// What the request may end, and whether it says who asks for that.
    fn ending(&self, inbound: &Inbound) -> Option<(Ending, Asker)> {
        if !self.avatars.remembers() || inbound.method == Method::GET {
            return None;
        }
        let agent = inbound.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
        let ending = Ending::of(&inbound.method, &inbound.path, &self.settings.base_path, agent)?;
        let fields = inbound.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let known = Credentials::of(fields).are_present() || names_parameter(&inbound.query, b"access_token");
        Some((ending, if known { Asker::Named } else { Asker::Stranger }))
    }

    /// Upstream answered a request of `caller` with `status`: a 401, whatever it was for, takes all of its grants.
    fn heed(&self, caller: Option<&Caller>, status: StatusCode) {
        if let (StatusCode::UNAUTHORIZED, Some(caller)) = (status, caller) {
            self.avatars.disown(caller);
        }
    }

    /// The site of the `Host` that is sent upstream.
    fn site(&self, host: &[u8]) -> Site {
        if let Some((last, site)) = &*self.last_site.borrow()
            && **last == *host
        {
            return *site;
        }
        let site = Site::of(host);
        *self.last_site.borrow_mut() = Some((host.into(), site));
        site
    }
}

/// Whether a request says who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Named,
    /// Without credentials beside its body, if there: a login.
    Stranger,
}

/// A request, read once: past this nothing is taken from actix's.
struct Inbound {
    method: Method,
    path: String,
    query: String,
    target: PathAndQuery,
    /// The client's fields without those of its connection, with ours for forwarding.
    headers: HeaderMap,
    body: ClientBody,
    /// The client's address; `None` for a proxy on this machine that is not declared as one, whose clients are not known.
    client: Option<IpAddr>,
    ledger: Ledger,
}

/// What follows the head of a request.
enum ClientBody {
    None,
    /// So many bytes, or chunks.
    Some(Option<u64>, Payload),
    /// Whatever the client sends once the connection is a WebSocket's.
    WebSocket(Payload),
}

/// Answers any request.
pub async fn handle(front: Rc<Front>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let method =
        Method::from_bytes(request.method().as_str().as_bytes()).expect("a method in one crate is one in the other");
    let route = Route::of(&method, request.path(), &front.settings.base_path);
    let origin = origin_of(&front, &request);
    let mut ledger =
        Ledger::open(&front.telemetry, front.settings.log_requests, method.clone(), origin.client, class(&route));
    if let Route::Picture(kind, Who::Id(object)) = route
        && let Some(response) = picture::recall(&front, &request, &mut ledger, kind, object).await
    {
        return ledger.close_at_once(response);
    }
    let (headers, body, target) = match read(&front, &request, payload, &method, origin) {
        Ok(read) => read,
        Err(error) => return fail(&front, &error, ledger, &route),
    };
    let (path, query) = (request.path().to_owned(), request.query_string().to_owned());
    let client = (origin.trusted || !origin.peer.is_loopback()).then_some(origin.client);
    let mut inbound = Inbound { method, path, query, target, headers, body, client, ledger };
    match dispatch(&front, &mut inbound, &route).await {
        Ok(response) => inbound.ledger.close_with(response),
        Err(error) => fail(&front, &error, inbound.ledger, &route),
    }
}

async fn dispatch(front: &Rc<Front>, inbound: &mut Inbound, route: &Route) -> Result<HttpResponse, WebError> {
    if let Route::Picture(kind, who) = route {
        let fields = inbound.headers.clone();
        let ask = Ask::read(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        if ask.is_ours(front, *kind, &inbound.query) {
            return picture::serve(front, inbound, &ask, *kind, *who).await;
        }
    }
    match route {
        Route::Change(kind, who) => change::serve(front, inbound, *kind, *who).await,
        Route::Picture(..) | Route::Passthrough => {
            inbound.ledger.route = RouteClass::Passthrough;
            if matches!(inbound.body, ClientBody::WebSocket(_)) {
                return websocket::serve(front, inbound).await;
            }
            match front.ending(inbound) {
                Some((ending, asker)) => session::serve(front, inbound, ending, asker).await,
                None => passthrough::serve(front, inbound).await,
            }
        }
        Route::Refused => Err(WebError::Path),
        Route::Connect => Err(WebError::Method),
    }
}

/// Our own answer to a request that cannot be served: counted, and logged once.
fn fail(front: &Front, error: &WebError, mut ledger: Ledger, route: &Route) -> HttpResponse {
    let (status, id, reason) = error.verdict();
    ledger.outcome = if matches!(error, WebError::Query(_)) { Outcome::RefusedQuery } else { Outcome::Failed };
    ledger.relayed = false;
    let request_id = ledger.request_id.spelt();
    front.telemetry.refused(reason);
    if status.is_server_error() {
        tracing::warn!(error.id = id, request.id = request_id.as_str(), %error, "request failed");
    } else {
        tracing::debug!(error.id = id, request.id = request_id.as_str(), %error, "request refused");
    }
    let mut response = error.answer(request_id.as_str());
    if matches!(route, Route::Picture(..)) {
        response.headers_mut().insert(actix_header::VARY, actix_header::HeaderValue::from_static("Accept"));
    }
    ledger.close_with(response)
}

fn class(route: &Route) -> RouteClass {
    match route {
        Route::Picture(PictureKind::User, _) => RouteClass::UserPicture,
        Route::Picture(PictureKind::Default, _) => RouteClass::DefaultPicture,
        Route::Picture(PictureKind::Team, _) => RouteClass::TeamPicture,
        Route::Picture(PictureKind::Emoji, _) => RouteClass::EmojiPicture,
        Route::Change(..) => RouteClass::Change,
        Route::Passthrough | Route::Refused | Route::Connect => RouteClass::Passthrough,
    }
}

/// What is left of a request's head and body once it has been prepared for upstream.
fn read(
    front: &Front,
    request: &HttpRequest,
    payload: Payload,
    method: &Method,
    origin: Origin,
) -> Result<(HeaderMap, ClientBody, PathAndQuery), WebError> {
    let mut headers = wire::from_client(request.headers());
    let body = body_of(method, &headers, payload)?;
    prepare(front, &mut headers, origin)?;
    Ok((headers, body, target_of(request)?))
}

fn prepare(front: &Front, headers: &mut HeaderMap, origin: Origin) -> Result<(), WebError> {
    headers::strip_request_hop_by_hop(headers)?;
    headers::mark_hop(headers, &front.hop)?;
    // actix has told the client to go on already.
    headers.remove(header::EXPECT);
    let host = headers.get(header::HOST).cloned();
    headers::set_forwarding(headers, origin, host.as_ref());
    Ok(())
}

/// Path and query as they came. The authority of an absolute-form target is not looked at: only the configured upstream
/// is ever dialled, and `Host` says whose site is meant (RFC 9112 section 3.2.2).
fn target_of(request: &HttpRequest) -> Result<PathAndQuery, WebError> {
    let raw = request.uri().path_and_query().map_or("/", actix_web::http::uri::PathAndQuery::as_str);
    let target = PathAndQuery::try_from(raw).map_err(|_| WebError::Target)?;
    if target.path().starts_with('/') || target.as_str() == "*" { Ok(target) } else { Err(WebError::Target) }
}

/// What follows the head. A WebSocket's first bytes come only after the 101, so a handshake with a body is no handshake;
/// any other upgrade is not offered, and its request is an ordinary one (RFC 9110 section 7.8).
fn body_of(method: &Method, headers: &HeaderMap, payload: Payload) -> Result<ClientBody, WebError> {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers::content_length(headers).unwrap_or(0);
    // The very test by which actix decides to hand over whatever follows as it comes.
    let websocket = |line: &HeaderValue| line.to_str().is_ok_and(|line| line.trim().eq_ignore_ascii_case("websocket"));
    if headers.get_all(header::UPGRADE).iter().any(websocket) {
        return if *method == Method::GET && !chunked && length == 0 {
            Ok(ClientBody::WebSocket(payload))
        } else {
            Err(WebError::Handshake)
        };
    }
    Ok(match (chunked, length) {
        (true, _) => ClientBody::Some(None, payload),
        (false, 0) => ClientBody::None,
        (false, length) => ClientBody::Some(Some(length), payload),
    })
}

fn origin_of(front: &Front, request: &HttpRequest) -> Origin {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
    let trusted = front.settings.trusted_proxies.iter().any(|network| network.contains(&peer));
    let named = request.headers().get_all("x-forwarded-for").last().filter(|_| trusted);
    let client = named.and_then(|line| line.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    Origin { peer, trusted, client: client.map_or(peer, |client| client.to_canonical()) }
}
