//! The leak that this proxy exists to end, shown: the picture cache that Mattermost's guide for high availability
//! gives nginx (`location ~ /api/v[0-9]+/users/[a-z0-9]+/image$` with a shared `proxy_cache`) hands pictures to callers
//! whom Mattermost refuses. The proxy in the same place does not.
//!
//! Needs nginx: `cargo test --test nginx_recipe -- --ignored`.

use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::demo::{Options, StandIn};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longer than nginx takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The site that is asked for.
const HOST: &str = "chat.example";

/// The guide's `proxy_cache_min_uses 2`: the second request for a picture stores it.
const USES: usize = 2;

/// Who asks for a picture that somebody else has looked at, though Mattermost would not show it to them.
const MATRIX: [(&str, Viewer, u16); 5] = [
    ("a guest who shares no channel", Viewer::Guest, 403),
    ("a member of no team", Viewer::Outsider, 403),
    ("a session that was logged out", Viewer::LoggedOut, 401),
    ("a token that never was", Viewer::Invented, 401),
    ("nobody, without credentials", Viewer::Nobody, 401),
];

#[derive(Clone, Copy)]
enum Viewer {
    Guest,
    Outsider,
    LoggedOut,
    Invented,
    Nobody,
}

impl Viewer {
    fn token(self, town: &StandIn) -> Option<String> {
        match self {
            Self::Guest => Some(town.token("gus")),
            Self::Outsider => Some(town.token("mallory")),
            Self::LoggedOut => {
                let token = town.sign_in("carol").token;
                town.revoke(&token);
                Some(token)
            }
            Self::Invented => Some("8a1xz5ri6bgwmq4m6xo7cnjdhe".to_owned()),
            Self::Nobody => None,
        }
    }
}

#[test]
#[ignore = "needs nginx"]
fn the_recipe_shows_pictures_to_whom_mattermost_refuses_and_the_proxy_does_not() {
    let town = town();
    let (nginx, proxy) = (Nginx::before(&town), Proxy::before(&town));
    let (picture, bob) = (picture_of(&town, "alice"), town.token("bob"));
    for front in [nginx.address, proxy.address] {
        look(front, &picture, &bob);
    }
    let shown = get(town.address(), &picture, Some(&bob), HOST).body;

    for (who, viewer, refusal) in MATRIX {
        let token = viewer.token(&town);
        let [upstream, leaked, kept] =
            [town.address(), nginx.address, proxy.address].map(|front| get(front, &picture, token.as_deref(), HOST));
        assert_eq!(upstream.status, refusal, "Mattermost refuses {who}");
        assert!(leaked.status == 200 && leaked.body == shown, "nginx leaks to {who}: {}", leaked.status);
        assert_eq!(kept.status, refusal, "the proxy relays the refusal to {who}");
    }
}

/// Somebody who was signed in, and has logged out by the same way.
#[test]
#[ignore = "needs nginx"]
fn the_recipe_goes_on_showing_pictures_after_a_logout_and_the_proxy_does_not() {
    let town = town();
    let (nginx, proxy) = (Nginx::before(&town), Proxy::before(&town));
    let picture = picture_of(&town, "bob");
    for (front, after) in [(nginx.address, 200), (proxy.address, 401)] {
        let session = town.sign_in("carol").token;
        look(front, &picture, &session);
        assert_eq!(ask(front, "POST", "/api/v4/users/logout", Some(&session), HOST).status, 200);
        assert_eq!(get(town.address(), &picture, Some(&session), HOST).status, 401);
        assert_eq!(get(front, &picture, Some(&session), HOST).status, after);
    }
}

/// Two sites on one machine: a `Host` does not stand in the recipe's key, which is nginx's own.
#[test]
#[ignore = "needs nginx"]
fn the_recipe_shows_one_sites_picture_under_another_sites_name_and_the_proxy_does_not() {
    let town = town();
    let (nginx, proxy) = (Nginx::before(&town), Proxy::before(&town));
    let (picture, bob) = (picture_of(&town, "alice"), town.token("bob"));
    for front in [nginx.address, proxy.address] {
        look(front, &picture, &bob);
        town.forget_received();
        assert_eq!(get(front, &picture, Some(&bob), "other.example").status, 200);
        let asked_as: Vec<_> = town.received().iter().map(|seen| seen.header("host").map(str::to_owned)).collect();
        let was_asked = asked_as == [Some("other.example".to_owned())];
        assert_eq!(was_asked, front == proxy.address, "{asked_as:?}");
    }
}

/// A picture that was taken away by the same way.
#[test]
#[ignore = "needs nginx"]
fn the_recipe_goes_on_showing_the_old_picture_and_the_proxy_does_not() {
    let town = town();
    let (nginx, proxy) = (Nginx::before(&town), Proxy::before(&town));
    for (front, owner, is_old) in [(nginx.address, "alice", true), (proxy.address, "dave", false)] {
        let (picture, bob) = (picture_of(&town, owner), town.token("bob"));
        let old = look(front, &picture, &bob);
        assert_eq!(ask(front, "DELETE", &picture, Some(&town.token(owner)), HOST).status, 200);
        let new = get(town.address(), &picture, Some(&bob), HOST).body;
        let shown = get(front, &picture, Some(&bob), HOST).body;
        assert!(old != new && (shown == old) == is_old, "{owner}");
    }
}

/// Looks at a picture as often as the recipe wants it before it keeps a copy.
fn look(front: SocketAddr, picture: &str, token: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    for _ in 0..USES {
        let answer = get(front, picture, Some(token), HOST);
        assert_eq!(answer.status, 200);
        seen = answer.body;
    }
    seen
}

fn picture_of(town: &StandIn, user: &str) -> String {
    format!("/api/v4/users/{}/image", town.id(user))
}

fn town() -> StandIn {
    StandIn::start(Options::default()).expect("the stand-in starts")
}

/// An nginx with the guide's recipe; what it needs is in a folder of its own. Dropping it ends it.
struct Nginx {
    address: SocketAddr,
    process: Child,
    folder: PathBuf,
}

impl Nginx {
    fn before(town: &StandIn) -> Self {
        let address = free_address();
        let folder = std::env::temp_dir().join(format!("nginx-recipe-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let configuration = folder.join("nginx.conf");
        std::fs::write(&configuration, recipe(address, town.address())).expect("a file");
        let process = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&configuration)
            .args(["-e", "stderr"])
            .stdout(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let nginx = Self { address, process, folder };
        nginx.wait_until_it_listens();
        nginx
    }

    fn wait_until_it_listens(&self) {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "nginx listens");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // One process, without a master: killed, it leaves nobody behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The guide's `location` and `proxy_cache_path` as they stand there, and what any nginx needs around them.
fn recipe(listen: SocketAddr, mattermost: SocketAddr) -> String {
    format!(
        "daemon off;
        master_process off;
        pid nginx.pid;
        error_log stderr crit;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            proxy_cache_path cache levels=1:2 keys_zone=mattermost_cache:10m max_size=3g inactive=120m use_temp_path=off;
            upstream backend {{ server {mattermost}; keepalive 32; }}
            server {{
                listen {listen};
                location ~ /api/v[0-9]+/users/[a-z0-9]+/image$ {{
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Host $http_host;
                    proxy_cache mattermost_cache;
                    proxy_cache_revalidate on;
                    proxy_cache_min_uses {USES};
                    proxy_cache_use_stale timeout;
                    proxy_cache_lock on;
                    proxy_ignore_headers Cache-Control Expires;
                    proxy_cache_valid 200 24h;
                    proxy_pass http://backend;
                }}
                location / {{
                    proxy_set_header Host $http_host;
                    proxy_pass http://backend;
                }}
            }}
        }}"
    )
}

/// An address on which nobody listens now; another process may be quicker, and then the test fails and says so.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// The proxy where nginx stood. Dropping it ends it.
struct Proxy {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Proxy {
    fn before(town: &StandIn) -> Self {
        let mut config = Config::default();
        config.upstream.url = UpstreamUrl::parse(&town.url()).expect("a URL");
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.admin.listen = None;
        config.log.requests = false;
        let bound = Bound::bind(config, Arc::new(Telemetry::new())).expect("the proxy binds");
        let address = bound.address().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = bound.serve(async { _ = stopped.await }, std::future::ready(()));
        let thread = thread::spawn(|| actix_web::rt::System::new().block_on(serve));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("dropped once").join();
        if !thread::panicking() {
            ended.expect("the proxy does not panic").expect("the proxy ends well");
        }
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn get(to: SocketAddr, path: &str, token: Option<&str>, host: &str) -> Answer {
    ask(to, "GET", path, token, host)
}

/// A request on a connection of its own, whose answer ends with it; in HTTP/1.0, so that no chunks have to be read. A
/// bearer token, so that a write needs no further proof; and no `Accept`, so that everybody sends the same format.
fn ask(to: SocketAddr, method: &str, path: &str, token: Option<&str>, host: &str) -> Answer {
    let credentials = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n{credentials}Content-Length: 0\r\n\r\n");
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let status = std::str::from_utf8(&answer[9..12]).ok().and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status line"), body: answer[end + 4..].to_vec() }
}
