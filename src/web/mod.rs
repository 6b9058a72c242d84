//! The front door: every request comes in here and is matched once, on its raw path.
//!
//! There is no router behind this: one service takes all, because a picture route counts only in its canonical spelling
//! and everything else has to pass through byte for byte.

mod answer;
mod ask;
mod change;
pub mod error;
mod influence;
mod intake;
mod learning;
mod max_forwards;
mod passthrough;
mod picture;
mod refusal;
mod request_id;
pub mod route;
mod session;
mod websocket;
mod wire;

pub use crate::avatar::Avatars;
use crate::caller::{Caller, CallerKey, Credentials};
use crate::identity::{PictureKind, Site};
use crate::listen::{AskedUpstream, Exchange, Framing, Pulse, Stage, expects_continue};
use crate::overheard::{Ending, ListenBudget};
use crate::telemetry::{Outcome, Route as RouteClass, Telemetry};
use crate::upstream::headers::{self, Origin};
use crate::upstream::{Fields, Upstream};
use crate::variant::negotiation;
use crate::variant::transform::Sizes;
use actix_http::{HttpMessage, Request};
use actix_web::HttpResponse;
use actix_web::http::{Version, header as actix_header};
use answer::Ledger;
use ask::Ask;
pub use error::WebError;
use futures_util::FutureExt;
use http::Method;
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
pub use influence::Influence;
use intake::{Intake, Unread};
use ipnet::IpNet;
pub use learning::School;
pub use refusal::refuse;
use route::{Route, Who};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use websocket::Tunnel;

/// What the front door needs to know.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the configuration")]
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
    /// Heed what clients say of their screens and their lines.
    pub client_hints: bool,
    /// Learn grants from what passes through.
    pub learn: bool,
    /// Listen for changes in `WebSocket`s that pass through.
    pub listen: bool,
    /// Send `Cache-Status` (RFC 9211).
    pub cache_status: bool,
    /// Send `Server-Timing`.
    pub server_timing: bool,
    /// Tell upstream in `Via` that a request came through us.
    pub via: bool,
    /// One log line a request.
    pub log_requests: bool,
    /// Whether clients speak HTTPS with us.
    pub encrypted: bool,
    /// How long the body of a request may pause.
    pub body_idle_timeout: Duration,
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
    /// What is left to each client of making others pay.
    pub influence: Arc<Influence>,
    /// What lessons share.
    pub school: Arc<School>,
    /// What listeners share.
    pub listeners: Arc<ListenBudget>,
    /// The last site that was named.
    pub last_site: LastSite,
    /// Where the process stands: tunnels have to know.
    pub stage: watch::Receiver<Stage>,
}

impl Front {
    /// The `Host` that is sent upstream for a request with these fields.
    fn host<'a>(&'a self, fields: &'a Fields) -> &'a [u8] {
        self.upstream.host_for(fields.get(header::HOST.as_str()))
    }

    /// Who sends these fields, where that can be told for certain and is of any use.
    fn caller(&self, fields: &Fields) -> Option<Caller> {
        self.stands_for(&Credentials::of(fields.iter()), fields)
    }

    /// [`Front::caller`] of a request with these fields that goes to `host`.
    fn caller_at<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a [u8])>, host: &[u8]) -> Option<Caller> {
        if !self.avatars.remembers() {
            return None;
        }
        Credentials::of(fields).caller(&self.caller_key, host)
    }

    /// [`Front::caller`] by credentials that have been read from `fields`.
    fn stands_for(&self, credentials: &Credentials<'_>, fields: &Fields) -> Option<Caller> {
        if !self.avatars.remembers() {
            return None;
        }
        credentials.caller(&self.caller_key, self.host(fields))
    }

    /// What the request may end.
    fn ending(&self, inbound: &Inbound) -> Option<Ending> {
        if !self.avatars.remembers() || inbound.method == Method::GET {
            return None;
        }
        let agent = inbound.fields.get(header::USER_AGENT.as_str());
        Ending::of(&inbound.method, &inbound.path, &self.settings.base_path, agent)
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

/// The fields of a request as actix read them.
fn actix_fields(request: &Request) -> impl Iterator<Item = (&str, &[u8])> {
    request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// A request, read once: past this nothing is taken from actix's, but what is seldom needed.
struct Inbound {
    method: Method,
    path: String,
    query: String,
    target: PathAndQuery,
    /// The client's fields without those of its connection, with ours for forwarding.
    fields: Fields,
    body: ClientBody,
    /// What the connection becomes once it is answered.
    tunnel: Option<Box<Tunnel>>,
    /// What may be left of the body when the answer goes out.
    unread: Option<Unread>,
    /// What actix read.
    request: Request,
    /// The client's address; `None` where the peer may well be a proxy that is not declared as one.
    client: Option<IpAddr>,
    ledger: Ledger,
}

/// What follows the head of a request.
enum ClientBody {
    None,
    /// So many bytes, or chunks.
    Some(Option<u64>, Intake),
    /// Whatever the client sends once the connection is a WebSocket's.
    WebSocket,
}

/// Answers any request.
pub async fn handle(front: Rc<Front>, mut request: Request) -> HttpResponse {
    let method =
        Method::from_bytes(request.method().as_str().as_bytes()).expect("a method in one crate is one in the other");
    let route = Route::of(&method, request.path(), &front.settings.base_path);
    let origin = origin_of(&front, &request);
    let framing = Framing::of(&mut request);
    let exchange = request.conn_data::<Rc<Pulse>>().map(|pulse| Exchange::begin(pulse, framing));
    let logs = front.settings.log_requests;
    let mut ledger = Ledger::open(&front.telemetry, logs, method, origin.client, class(&route), exchange);
    if let Route::Picture(kind, Who::Id(object)) = route
        // Its host is yet to be held against `Host`.
        && request.uri().scheme().is_none()
        // What would have to wait, were it for a lock, goes the long way. Its state is not to be moved about with each request.
        && let Some(response) = picture::recall(&front, &request, &mut ledger, kind, object).now_or_never().flatten()
    {
        return ledger.close_at_once(response);
    }
    // On the heap: its state is many times that of an answer from memory.
    Box::pin(answer(front, request, ledger, route, origin)).await
}

/// Answers what is not in memory.
async fn answer(
    front: Rc<Front>,
    mut request: Request,
    mut ledger: Ledger,
    route: Route,
    origin: Origin,
) -> HttpResponse {
    let intake = Intake::of(&mut request);
    let (fields, body, target) = match read(&front, &request, intake, &ledger.method, origin) {
        Ok(read) => read,
        Err(error) => return fail(&front, &error, ledger, &route),
    };
    let (path, query) = (request.path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let version = request.version();
    let client = (origin.trusted || !is_near(origin.peer)).then_some(origin.client);
    let method = ledger.method.clone();
    let unread = match &body {
        ClientBody::Some(_, intake) => {
            ledger.is_followed_by(intake.unread());
            Some(intake.unread())
        }
        ClientBody::None | ClientBody::WebSocket => None,
    };
    let mut inbound =
        Inbound { method, path, query, target, fields, body, tunnel: None, unread, request, client, ledger };
    let response = match dispatch(&front, &mut inbound, &route).await {
        Ok(response) => {
            if let Some(tunnel) = inbound.tunnel {
                return tunnel.behind(response, inbound.ledger);
            }
            let asked_upstream = version == Version::HTTP_2 && inbound.ledger.asked_upstream();
            let mut response = inbound.ledger.close_with(answer::framed_for(version, response));
            if asked_upstream {
                response.extensions_mut().insert(AskedUpstream);
            }
            response
        }
        Err(error) => fail(&front, &error, inbound.ledger, &route),
    };
    match inbound.unread {
        Some(unread) if !unread.is_over() => answer::holding(unread, response),
        _ => response,
    }
}

/// Whatever takes more state than a request that passes through has it on the heap: that of all of them is moved as one.
async fn dispatch(front: &Rc<Front>, inbound: &mut Inbound, route: &Route) -> Result<HttpResponse, WebError> {
    if let Route::Picture(kind, who) = route {
        let fields = std::mem::take(&mut inbound.fields);
        let ask = Ask::read(fields.iter());
        if ask.is_ours(front, *kind, &inbound.query) {
            return Box::pin(picture::serve(front, inbound, &fields, &ask, *kind, *who)).await;
        }
        drop(ask);
        inbound.fields = fields;
    }
    match route {
        Route::Change(kind, who) => Box::pin(change::serve(front, inbound, *kind, *who)).await,
        Route::Picture(..) | Route::Passthrough => {
            inbound.ledger.route = RouteClass::Passthrough;
            if let Some(response) = max_forwards::count_down(inbound)? {
                return Ok(response);
            }
            if matches!(inbound.body, ClientBody::WebSocket) {
                return Box::pin(websocket::serve(front, inbound)).await;
            }
            match front.ending(inbound) {
                Some(ending) => Box::pin(session::serve(front, inbound, ending)).await,
                None => passthrough::serve(front, inbound, route).await,
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
    request: &Request,
    intake: Intake,
    method: &Method,
    origin: Origin,
) -> Result<(Fields, ClientBody, PathAndQuery), WebError> {
    let mut fields = wire::from_client(request.headers())?;
    let body = body_of(method, request.version(), &fields, intake)?;
    prepare(front, &mut fields, origin)?;
    if front.settings.via {
        headers::add_via(&mut fields, wire::version(request.version()));
    }
    Ok((fields, body, target_of(request)?))
}

fn prepare(front: &Front, fields: &mut Fields, origin: Origin) -> Result<(), WebError> {
    headers::strip_request_hop_by_hop(fields)?;
    headers::mark_hop(fields, &front.hop)?;
    if expects_continue(fields.all(header::EXPECT.as_str())) {
        // actix has told the client to go on already. Any other expectation is upstream's to fail.
        fields.remove(header::EXPECT.as_str());
    }
    headers::set_forwarding(fields, origin);
    Ok(())
}

/// Path and query as they came. Only the configured upstream is ever dialled; the authority of an absolute-form target says
/// whose site is meant, and so does `Host`: where they differ, somebody would believe the other (RFC 9112 section 3.2.2).
fn target_of(request: &Request) -> Result<PathAndQuery, WebError> {
    if let (Some(authority), Some(host)) = (request.uri().authority(), request.headers().get(actix_header::HOST))
        && request.uri().scheme().is_some()
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(WebError::Authority);
    }
    let raw = match request.uri().path_and_query() {
        Some(raw) => raw.as_str(),
        // The authority form is CONNECT's, which is refused for what it is.
        None if request.method() == actix_web::http::Method::CONNECT => "/",
        None => return Err(WebError::Target),
    };
    let target = PathAndQuery::try_from(raw).map_err(|_| WebError::Target)?;
    if target.path().starts_with('/') || target.as_str() == "*" { Ok(target) } else { Err(WebError::Target) }
}

/// What follows the head. A WebSocket's first bytes come only after the 101, so a handshake with a body is no handshake;
/// nor is one that `Connection` does not name, or of HTTP/1.0: whoever forwarded it may send another client's request next.
/// Any other upgrade is not offered, and its request is an ordinary one (RFC 9110 section 7.8).
fn body_of(method: &Method, version: Version, fields: &Fields, intake: Intake) -> Result<ClientBody, WebError> {
    let chunked = fields.contains(header::TRANSFER_ENCODING.as_str());
    let length = headers::declared_length(fields).unwrap_or(0);
    // The very test by which actix hands over the connection, unless there are chunks.
    let websocket = |line: &[u8]| line.trim_ascii().eq_ignore_ascii_case(b"websocket");
    if fields.all(header::UPGRADE.as_str()).any(websocket) {
        let named = headers::connection_names(fields, &header::UPGRADE) && version == Version::HTTP_11;
        return if *method == Method::GET && named && !chunked && length == 0 {
            Ok(ClientBody::WebSocket)
        } else {
            Err(WebError::Handshake)
        };
    }
    Ok(match (chunked, length) {
        (true, _) => ClientBody::Some(None, intake),
        (false, 0) => ClientBody::None,
        (false, length) => ClientBody::Some(Some(length), intake.announced(Some(length))),
    })
}

/// Whether a peer is on this machine or in its own network: there an outer proxy stands.
#[must_use]
pub const fn is_near(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private() || peer.is_link_local(),
        IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local(),
    }
}

fn origin_of(front: &Front, request: &Request) -> Origin {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
    let trusted = front.settings.trusted_proxies.iter().any(|network| network.contains(&peer));
    let named = || {
        let line = request.headers().get_all(actix_header::X_FORWARDED_FOR).last()?;
        line.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
    };
    let client = trusted.then(named).flatten();
    let client = client.map_or(peer, |client| client.to_canonical());
    Origin { peer, trusted, client, encrypted: front.settings.encrypted }
}
