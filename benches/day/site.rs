//! A town, a proxy before it, and connections to both.

use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::demo::{Options, Role, StandIn};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::StreamExt;
use http::header::{self, HeaderMap};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// What Chrome asks for when it asks for a picture.
const BROWSER: &str = "image/avif,image/webp,image/apng,image/*,*/*;q=0.8";
/// One in so many is a guest, who sees only those of one channel.
const GUESTS: usize = 25;
/// How many people of a crowd share a channel.
pub(crate) const ROOM: usize = 40;

/// Everything that a day takes place on.
pub(crate) struct Site {
    pub(crate) town: StandIn,
    pub(crate) people: Vec<Resident>,
    pub(crate) team: String,
    /// Ids of the channels, each of up to [`ROOM`] people in their order.
    pub(crate) rooms: Vec<String>,
    proxy: Proxy,
    connections: Client<HttpConnector, Full<Bytes>>,
}

/// Somebody who lives there.
pub(crate) struct Resident {
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) token: String,
    pub(crate) is_guest: bool,
}

/// Credentials as a request carries them.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    /// Part of the credentials, and of no interest to the stand-in: another secret makes a caller of whom nothing is
    /// remembered.
    pub(crate) secret: usize,
    /// Where the client seems to be: each has a budget of its own.
    pub(crate) address: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Site {
    /// So many people before whom a proxy stands with the default configuration, but for a few words that do not
    /// change what it does, and what `configure` says.
    pub(crate) fn of(people: usize, configure: impl FnOnce(&mut Config)) -> Self {
        let mut options = Options::crowd(people);
        for guest in options.residents.iter_mut().skip(GUESTS - 1).step_by(GUESTS) {
            guest.role = Role::Guest;
        }
        let team = options.teams[0].id.clone();
        let rooms = options.channels.iter().map(|room| room.id.clone()).collect();
        let residents = options.residents.clone();
        let town = StandIn::start(options).expect("the stand-in starts");
        let people = residents.into_iter().map(|resident| Resident {
            token: town.sign_in(&resident.id).token,
            is_guest: resident.role == Role::Guest,
            id: resident.id,
            username: resident.username,
        });
        let people = people.collect();
        let proxy = Proxy::before(&town, configure);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let connections = Client::builder(TokioExecutor::new()).build(connector);
        Self { town, people, team, rooms, proxy, connections }
    }

    /// What a person's requests carry.
    pub(crate) fn credentials(&self, person: usize, secret: usize) -> Credentials {
        let address = format!("10.0.{}.{}", person / 250, person % 250 + 1);
        Credentials { token: self.people[person].token.clone(), secret, address }
    }

    /// A picture as a browser asks for it.
    pub(crate) async fn picture(&self, caller: &Credentials, person: usize, query: &str) -> Answer {
        let path = format!("/api/v4/users/{}/image{query}", self.people[person].id);
        self.ask(caller, Method::GET, &path, ("", Bytes::new())).await
    }

    /// An answer in JSON; `null` for one that is not 200.
    pub(crate) async fn json(&self, caller: &Credentials, method: Method, path: &str, body: &str) -> Value {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = self.ask(caller, method, path, ("application/json", body)).await;
        if answer.status != StatusCode::OK {
            return Value::Null;
        }
        if !answer.headers.contains_key(header::CONTENT_ENCODING) {
            return serde_json::from_slice(&answer.body).expect("JSON");
        }
        let mut text = Vec::new();
        GzDecoder::new(&*answer.body).read_to_end(&mut text).expect("gzip");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// One request through the proxy, on any kept connection. `body` comes after its type.
    pub(crate) async fn ask(
        &self,
        caller: &Credentials,
        method: Method,
        path: &str,
        (content_type, body): (&str, Bytes),
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.proxy.address))
            .header(header::ACCEPT, BROWSER)
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::COOKIE, format!("MMAUTHTOKEN={}", caller.token))
            .header("X-Requested-With", "XMLHttpRequest")
            .header("X-Mattermost-Preauth-Secret", caller.secret)
            .header("X-Forwarded-For", &caller.address);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let (head, body) = self.connections.request(request).await.expect("the proxy answers").into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Opens a WebSocket through the proxy and tells `hear` of every user that an event is about, with the stamp of the
    /// picture, as long as the site is there.
    pub(crate) async fn listen(&self, person: usize, hear: impl Fn(&str, i64) + 'static) {
        let url = format!("ws://{}/api/v4/websocket", self.proxy.address);
        let mut request = url.into_client_request().expect("a request");
        let token = format!("Bearer {}", self.people[person].token);
        request.headers_mut().insert(header::AUTHORIZATION, token.parse().expect("a field"));
        let stream = TcpStream::connect(self.proxy.address).await.expect("the proxy listens");
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("upgraded");
        let hello = socket.next().await.expect("a message").expect("whole");
        assert!(hello.to_text().is_ok_and(|text| text.contains("\"hello\"")), "{hello}");
        actix_web::rt::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                let event: Value = serde_json::from_str(&text).expect("JSON");
                if let Some(user) = event["data"]["user"]["id"].as_str() {
                    hear(user, event["data"]["user"]["last_picture_update"].as_i64().unwrap_or(0));
                }
            }
        });
    }

    /// A counter of the proxy, by its full name with labels.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.proxy.admin).parse().expect("a URL");
        let answer = self.connections.get(url).await.expect("the back office answers");
        let text = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        let text = std::str::from_utf8(&text).expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }
}

/// A running proxy; dropping it stops it.
struct Proxy {
    address: SocketAddr,
    admin: SocketAddr,
    at_once: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Proxy {
    fn before(town: &StandIn, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.upstream.url = UpstreamUrl::parse(&town.url()).expect("a URL");
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.admin.listen = Some(config.server.listen);
        config.headers.cache_status = true;
        config.log.requests = false;
        configure(&mut config);
        let bound = Bound::bind(config, Arc::new(Telemetry::new())).expect("the proxy binds");
        let address = bound.address().expect("bound");
        let admin = bound.admin_address().expect("bound").expect("configured");
        let (at_once, asked) = oneshot::channel::<()>();
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = async move {
            _ = asked.await;
            drop(stop);
        };
        // Nobody waits for a drain here: the order to stop and the order to stop at once are one.
        let serve = bound.serve(asked, async { _ = stopped.await });
        let thread = thread::spawn(|| actix_web::rt::System::new().block_on(serve));
        Self { address, admin, at_once: Some(at_once), thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.at_once.take());
        let ended = self.thread.take().expect("dropped once").join();
        ended.expect("the proxy does not panic").expect("the proxy ends well");
    }
}
