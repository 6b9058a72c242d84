//! What a request costs from a client's socket to an upstream's and back: one worker, one keep-alive connection, no log.
//!
//! `round_trip` is the same client at the same upstream without the proxy: what the sockets themselves cost.

mod client;
#[expect(dead_code, reason = "the benches of pixels share more of it")]
mod corpus;

use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use client::{Client, Connection, whole};
use criterion::{Criterion, criterion_group, criterion_main};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use tokio::sync::oneshot;

criterion_main!(benches);
criterion_group!(benches, requests);

/// The lines of a web client's request for a picture.
const FIELDS: &str = "Host: chat.example\r\nCookie: MMAUTHTOKEN=8a1xz5ri6bgwmq4m6xo7cnjdhe; MMUSERID=x\r\n\
                      Accept: image/avif,image/webp,image/apng,image/*,*/*;q=0.8\r\n";
const PICTURE: &str = "/api/v4/users/ge45wmpse3g8umtziei4q749th/image";
const RECORD: &str = "/api/v4/users/ge45wmpse3g8umtziei4q749th";
const STAMP: &str = "1712345678901";

fn requests(criterion: &mut Criterion) {
    let upstream = listen_upstream();
    let proxy = Proxy::before(upstream);
    let mut client = Client::connect(proxy.address, FIELDS);

    let first = client.get(&format!("{PICTURE}?size=32"), "");
    assert_eq!(first.status, 200, "the variant is rendered");
    let tag = first.head.field("etag").expect("a variant has a tag").to_owned();
    let (target, condition) = (format!("{PICTURE}?size=32"), format!("If-None-Match: {tag}\r\n"));
    let mut direct = Client::connect(upstream, FIELDS);
    criterion.bench_function("round_trip", |bencher| {
        let condition = format!("If-None-Match: {STAMP}\r\n");
        bencher.iter(|| assert_eq!(direct.get(PICTURE, &condition).status, 304));
    });
    criterion.bench_function("304", |bencher| {
        bencher.iter(|| assert_eq!(client.get(&target, &condition).status, 304));
    });
    criterion.bench_function("hit", |bencher| {
        bencher.iter(|| assert_eq!(client.get(&target, "").status, 200));
    });
    criterion.bench_function("passthrough", |bencher| {
        bencher.iter(|| assert_eq!(client.get(RECORD, "").status, 200));
    });
    // No two requests of a run are for the same picture, and no two pictures have the same bytes.
    let mut next: u64 = 0;
    for class in corpus::CLASSES {
        criterion.bench_function(&format!("miss/{class}/32"), |bencher| {
            bencher.iter(|| {
                next += 1;
                let answer = client.get(&format!("/api/v4/users/{class:x<6}{next:020}/image?size=32"), "");
                assert_eq!(answer.status, 200);
                answer.body
            });
        });
    }
}

/// A proxy as the comparison with others runs it: see `peers.toml`.
struct Proxy {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Proxy {
    fn before(upstream: SocketAddr) -> Self {
        let mut config = Config::default();
        config.upstream.url = UpstreamUrl::parse(&format!("http://{upstream}")).expect("an address makes a URL");
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.server.workers = 1;
        config.render.permits = 1;
        config.admin.listen = None;
        config.limits.caller_misses = None;
        config.log.requests = false;
        let bound = Bound::bind(config, Arc::new(Telemetry::new())).expect("the proxy binds");
        let address = bound.address().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = bound.serve(async { _ = stopped.await }, async {});
        let thread = thread::spawn(|| actix_web::rt::System::new().block_on(serve));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("dropped once").join();
        ended.expect("the proxy does not panic").expect("the proxy ends well");
    }
}

/// An upstream that does as little as one can: one picture of a class for each id, a record for everything else.
fn listen_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let pictures = Arc::new(corpus::CLASSES.map(|class| corpus::files(class).into_values().collect()));
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, pictures) = (stream.expect("a connection"), pictures.clone());
            thread::spawn(move || answer_all(Connection::new(stream), &pictures));
        }
    });
    address
}

fn answer_all(mut client: Connection, pictures: &[Vec<Vec<u8>>; 3]) {
    let mut answered = 0;
    while let Some(head) = client.head() {
        let target = head.target();
        let answer = if !target.contains("/image") {
            let record = format!("{{\"id\":\"ge45wmpse3g8umtziei4q749th\",\"notify_props\":\"{:700}\"}}", "");
            whole("200 OK", "application/json", record.as_bytes())
        } else if head.field("if-none-match") == Some(STAMP) {
            format!("HTTP/1.1 304 Not Modified\r\nEtag: {STAMP}\r\nExpires: 0\r\n\r\n").into_bytes()
        } else {
            answered += 1;
            let class = corpus::CLASSES.iter().position(|class| target.contains(class)).unwrap_or_default();
            let of_class = &pictures[class];
            // Bytes past the end of a picture change nothing but its hash.
            let picture = [&of_class[answered % of_class.len()], target.as_bytes()].concat();
            whole("200 OK", &format!("image/png\r\nEtag: {STAMP}\r\nCache-Control: max-age=86400, private"), &picture)
        };
        if client.send(&answer).is_err() {
            return;
        }
    }
}
