//! The back door: ask upstream for a picture, forward a request, open a tunnel. The only room that names the HTTP clients.
//!
//! Two clients, because they are good at different things: `reqwest` for our own fetches of pictures, whose paths are
//! canonical, and HTTP/1.1 of our own, parsed by `httparse`, for everything that passes through: there path bytes arrive as
//! they came (`url::Url` folds dot segments and backslashes), connections can be upgraded, a head is written and read
//! without a map in between, and whoever waits for an answer moves its connection by itself, which together is the cheapest
//! way to have a small one.

mod body;
mod chunked;
mod clock;
mod connect;
mod download;
mod error;
mod exchange;
mod fields;
mod head;
pub mod headers;
mod line;
mod picture;
mod pool;
mod roots;
mod slots;
mod tunnel;

pub use body::{Aborted, BodyStream, Chunks, RequestBody, with_idle_timeout};
pub use error::UpstreamError;
pub use fields::Fields;
pub use head::AnswerHead;
pub use picture::{Answer, AnswerBody, Extent, PictureRequest, Room};
pub use roots::{Roots, RootsError};
pub use tunnel::Tunnel;

use crate::source::Validator;
use bytes::Bytes;
use connect::{Connector, Leading};
use error::{causes, lost_connection};
use exchange::{Exchange, Head, Times};
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode};
use line::Line;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Below the 60 s after which Mattermost closes an idle connection (`ServiceSettings.IdleTimeout`), so that it does not close
/// one under a request.
const POOL_IDLE: Duration = Duration::from_secs(45);
/// Idle connections that each worker keeps for what passes through.
const POOL_SIZE: usize = 64;

/// Where upstream is and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port: the only address that is ever dialled.
    pub authority: Authority,
    /// The `Host` sent upstream instead of the client's.
    pub host: Option<HeaderValue>,
    /// What upstream is called in TLS, where that is not the host of `authority`.
    pub tls_name: Option<String>,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until the head of the answer to a picture request is there.
    pub head_timeout: Duration,
    /// Between two chunks of any body, and between two parts that upstream takes of a request that it answers already.
    pub idle_timeout: Duration,
    /// For a picture as a whole.
    pub picture_timeout: Duration,
    /// Until the head of an answer that passes through is there, counted from the last byte of the request.
    pub passthrough_timeout: Duration,
    /// Picture requests at once, each on a connection of its own.
    pub max_picture_requests: usize,
    /// Idle connections that each worker keeps for pictures.
    pub picture_connections_kept: usize,
    /// Connections at once for what passes through, tunnels and idle ones included.
    pub max_connections: usize,
    /// Root certificates beside those of the platform.
    pub roots: Option<Roots>,
}

/// Upstream's answer to a request that passes through.
pub struct Reply {
    /// Its head, without what belongs to the connection.
    pub head: AnswerHead,
    /// Its body.
    pub body: AnswerBody,
}

/// Upstream's answer to a request for an upgrade.
pub enum UpgradeAnswer {
    /// 101: the header, and the connection.
    Switched(HeaderMap, Tunnel),
    /// Anything else is an ordinary answer.
    Declined(Reply),
}

/// What all workers share of the way to upstream.
#[derive(Clone)]
pub struct Gateway {
    settings: Arc<Settings>,
    tls: rustls::ClientConfig,
    picture_slots: Arc<Semaphore>,
    connector: Connector,
}

impl Gateway {
    /// Prepares the way to upstream.
    ///
    /// # Errors
    /// Upstream is `https`, and its host or the certificates at hand cannot be used.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        // A second call in one process finds the provider installed; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = connect::tls(&settings)?;
        let picture_slots = Arc::new(Semaphore::new(settings.max_picture_requests));
        let connector = Connector::new(&settings, tls.clone())?;
        Ok(Self { settings: Arc::new(settings), tls, picture_slots, connector })
    }

    /// Whether upstream answers its health route (`getSystemPing` in `server/channels/api4/system.go`). It is asked on a
    /// connection made for it, which counts for no limit: that all are in use is not for this question to suffer from.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn ping(&self, base_path: &str) -> Result<(), PingError> {
        let path = format!("{base_path}/api/v4/system/ping");
        let target = PathAndQuery::try_from(path).map_err(|error| UpstreamError::Broken(error.to_string()))?;
        let fields = Fields::from_iter([(header::HOST.as_str(), self.settings.host_for(None))]);
        let head = Head { method: Method::GET, target, fields };
        let patience = self.settings.head_timeout;
        let mut line = Line::over(self.connector.connect_uncounted().await.map_err(UpstreamError::from)?);
        let answer = line.send(head.written(), &head.method, RequestBody::empty(), patience).await;
        let status = answer.map_err(|failure| failure.error)?.status;
        if status.is_success() { Ok(()) } else { Err(PingError::Status(status)) }
    }
}

impl Settings {
    fn host_for<'a>(&'a self, client_host: Option<&'a [u8]>) -> &'a [u8] {
        let fixed = self.host.as_ref().map(HeaderValue::as_bytes);
        fixed.or(client_host).unwrap_or(self.authority.as_str().as_bytes())
    }
}

/// One worker's way to upstream. Its connections live and end with the worker: those of a shared pool would end with
/// whichever worker happened to open them, under the requests of the others.
pub struct Upstream {
    settings: Arc<Settings>,
    pictures: reqwest::Client,
    /// What the URLs name for which it is asked.
    picture_authority: Authority,
    /// Keeps no connection, so each of its requests goes out on a new one.
    pictures_afresh: reqwest::Client,
    passthrough: Exchange,
    picture_slots: Arc<Semaphore>,
}

impl Upstream {
    /// Builds both clients on one TLS configuration.
    ///
    /// # Errors
    /// The clients refuse their settings.
    pub fn new(gateway: &Gateway) -> Result<Self, BuildError> {
        let Gateway { settings, tls, picture_slots, connector } = gateway.clone();
        let pictures = |idle| {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .http1_only()
                .tcp_nodelay(true)
                .connect_timeout(settings.connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(idle);
            // Its requests are for that name, which leads to the host.
            let client = match settings.tls_name {
                Some(_) => client.dns_resolver(Leading::to(&settings.authority)),
                None => client,
            };
            client.build().map_err(|error| BuildError(causes(&error)))
        };
        let times = Times { patience: settings.passthrough_timeout, idle: settings.idle_timeout };
        Ok(Self {
            picture_authority: connect::named(&settings)?,
            pictures: pictures(settings.picture_connections_kept)?,
            pictures_afresh: pictures(0)?,
            passthrough: Exchange::new(connector, POOL_SIZE, POOL_IDLE, times),
            picture_slots,
            settings,
        })
    }

    /// The `Host` that is sent upstream for a request that came with `client_host`.
    #[must_use]
    pub fn host_for<'a>(&'a self, client_host: Option<&'a [u8]>) -> &'a [u8] {
        self.settings.host_for(client_host)
    }

    /// [`Upstream::host_for`], where it is another than the client's.
    #[must_use]
    pub fn other_host(&self, client_host: Option<&[u8]>) -> Option<&[u8]> {
        match (&self.settings.host, client_host) {
            (None, Some(_)) => None,
            _ => Some(self.settings.host_for(None)),
        }
    }

    /// The time that any body may pause.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// The time that a whole picture may take.
    #[must_use]
    pub fn picture_timeout(&self) -> Duration {
        self.settings.picture_timeout
    }

    /// Asks for a picture, if `validator` is given only on the condition that it no longer holds.
    ///
    /// # Errors
    /// No answer, or not in time.
    pub async fn picture(
        &self,
        request: &PictureRequest,
        validator: Option<&Validator>,
    ) -> Result<Answer, UpstreamError> {
        let slot = timeout(self.settings.head_timeout, self.picture_slots.clone().acquire_owned()).await;
        let slot = slot.map_err(|_| UpstreamError::Overloaded)?.expect("the slots are never closed");
        let uri = self.uri(&request.path, request.query.as_deref())?.to_string();
        let mut headers = request.headers.clone();
        if let Some(validator) = validator {
            let raw = HeaderValue::from_bytes(validator.as_bytes()).expect("it came as a field value");
            headers.insert(header::IF_NONE_MATCH, raw);
        }
        let asked = async {
            match self.pictures.get(&uri).headers(headers.clone()).send().await {
                // The rule of `exchange`, but that reqwest does not tell a kept connection from a new one.
                Err(error) if lost_connection(&error) && !error.is_connect() => {
                    self.pictures_afresh.get(&uri).headers(headers).send().await
                }
                response => response,
            }
        };
        let response = timeout(self.settings.head_timeout, asked).await.map_err(|_| UpstreamError::TimedOut)??;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(unasked_switch());
        }
        if status == StatusCode::NOT_MODIFIED && validator.is_none() {
            return Err(UpstreamError::Broken("a 304 to an unconditional request".to_owned()));
        }
        let mut headers = response.headers().clone();
        headers::check_answer_framing(&headers)?;
        headers::strip_response_hop_by_hop(&mut headers);
        // The slot is free when the body has ended, or nobody wants it.
        let chunks = stream::unfold((response, slot), |(mut response, slot)| async move {
            match response.chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), (response, slot))),
                Ok(None) => None,
                Err(error) => Some((Err(UpstreamError::from(error)), (response, slot))),
            }
        });
        let rest = with_idle_timeout(Box::pin(chunks), self.settings.idle_timeout);
        Ok(Answer { status, headers, body: AnswerBody::Partial(Bytes::new(), rest) })
    }

    /// Forwards a request whose path and query are sent byte for byte; the body of its answer comes in parts of at most
    /// `part_at_most` bytes, where that is given. To be called, as [`Upstream::upgrade`], on a thread
    /// that runs a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// No answer, or not in time; [`UpstreamError::ClientAborted`] when the client's body broke off, and
    /// [`UpstreamError::ClientStalled`] when it paused for too long.
    pub async fn forward(
        &self,
        method: Method,
        target: PathAndQuery,
        fields: Fields,
        body: RequestBody,
        part_at_most: Option<usize>,
    ) -> Result<Reply, UpstreamError> {
        let (head, line) = self.send(Head { method, target, fields }, body).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(unasked_switch());
        }
        Ok(self.reply(head, line, part_at_most))
    }

    /// Asks for an upgrade of the connection. Not one byte of the client's is sent before upstream's 101.
    ///
    /// # Errors
    /// No answer, or not in time.
    pub async fn upgrade(&self, target: PathAndQuery, fields: Fields) -> Result<UpgradeAnswer, UpstreamError> {
        let head = Head { method: Method::GET, target, fields };
        let (head, line) = self.send(head, RequestBody::empty()).await?;
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(UpgradeAnswer::Declined(self.reply(head, line, None)));
        }
        let (connection, first) = line.into_link();
        Ok(UpgradeAnswer::Switched(head.to_map(), Tunnel::new(connection, first)))
    }

    async fn send(&self, mut head: Head, body: RequestBody) -> Result<(AnswerHead, Box<Line>), UpstreamError> {
        frame(&head.method, &mut head.fields, body.length());
        self.passthrough.send(&head, body).await
    }

    fn reply(&self, mut head: AnswerHead, line: Box<Line>, part_at_most: Option<usize>) -> Reply {
        head.strip_hop_by_hop();
        let mut body = self.passthrough.receive(line);
        if let Some(bytes) = part_at_most {
            body.in_parts_of(bytes);
        }
        let body = match body.all_at_once() {
            Some(whole) => AnswerBody::Complete(whole),
            None => AnswerBody::Partial(Bytes::new(), Box::pin(body.beside_its_request())),
        };
        Reply { head, body }
    }

    fn uri(&self, path: &str, query: Option<&str>) -> Result<Uri, UpstreamError> {
        let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let target = PathAndQuery::try_from(target).map_err(|error| UpstreamError::Broken(error.to_string()))?;
        self.uri_of(target)
    }

    /// Scheme and authority come from the configuration only, path and query from the request: never joined as text.
    fn uri_of(&self, target: PathAndQuery) -> Result<Uri, UpstreamError> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.settings.scheme.clone());
        parts.authority = Some(self.picture_authority.clone());
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).map_err(|error| UpstreamError::Broken(error.to_string()))
    }
}

fn unasked_switch() -> UpstreamError {
    UpstreamError::Broken("a 101 that nobody asked for".to_owned())
}

/// Frames a request anew by what really follows its head. The client's own `Content-Length` is not believed: beside a
/// body of another length, the next request on that connection would be read as part of this one.
fn frame(method: &Method, fields: &mut Fields, length: Option<u64>) {
    fields.remove(header::CONTENT_LENGTH.as_str());
    let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    match length {
        Some(0) if !expects_body => {}
        Some(length) => {
            fields.append(header::CONTENT_LENGTH.as_str(), itoa::Buffer::new().format(length).as_bytes());
        }
        None => fields.append(header::TRANSFER_ENCODING.as_str(), b"chunked"),
    }
}

/// Why upstream is not ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PingError {
    /// It did not answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// It answered its health route, and not with a success.
    #[error("the health route answers {0}")]
    Status(StatusCode),
}

/// The clients could not be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP clients cannot be built: {0}")]
pub struct BuildError(String);
