//! What a request costs from a client's socket to an upstream's and back: one worker, one keep-alive connection, no log.
//!
//! `round_trip` is the same client at the same upstream without the proxy: what the sockets themselves cost.

#[expect(dead_code, reason = "the benches of pixels share more of it")]
mod corpus;

use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use criterion::{Criterion, criterion_group, criterion_main};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
    let mut client = Client::connect(proxy.address);

    let first = client.get(&format!("{PICTURE}?size=32"), "");
    assert_eq!(first.status, 200, "the variant is rendered");
    let tag = first.field("etag").expect("a variant has a tag").to_owned();
    let (target, condition) = (format!("{PICTURE}?size=32"), format!("If-None-Match: {tag}\r\n"));
    let mut direct = Client::connect(upstream);
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

/// One keep-alive connection, one request at a time.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_nodelay(true).expect("a fresh socket");
        Self { stream, buffer: Vec::new() }
    }

    fn get(&mut self, target: &str, further: &str) -> Answer {
        let request = format!("GET {target} HTTP/1.1\r\n{FIELDS}{further}\r\n");
        self.stream.write_all(request.as_bytes()).expect("the server listens");
        let head = read_head(&mut self.stream, &mut self.buffer).expect("an answer");
        let mut answer = Answer { status: head[9..12].parse().expect("a status line"), head, body: Vec::new() };
        let length = answer.field("content-length").map_or(0, |length| length.parse().expect("a number"));
        while self.buffer.len() < length {
            assert!(read_more(&mut self.stream, &mut self.buffer), "a whole body");
        }
        answer.body = self.buffer.drain(..length).collect();
        answer
    }
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// An upstream that does as little as one can: one picture of a class for each id, a record for everything else.
fn listen_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let pictures = Arc::new(corpus::CLASSES.map(corpus::files));
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, pictures) = (stream.expect("a connection"), pictures.clone());
            thread::spawn(move || answer_all(stream, &pictures));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, pictures: &[Vec<Vec<u8>>; 3]) {
    let mut buffer = Vec::new();
    stream.set_nodelay(true).expect("a fresh socket");
    let mut answered = 0;
    while let Some(head) = read_head(&mut stream, &mut buffer) {
        let target = head.split(' ').nth(1).expect("a request line");
        let answer = if !target.contains("/image") {
            let record = format!("{{\"id\":\"ge45wmpse3g8umtziei4q749th\",\"notify_props\":\"{:700}\"}}", "");
            whole("application/json", record.as_bytes())
        } else if field(&head, "if-none-match") == Some(STAMP) {
            format!("HTTP/1.1 304 Not Modified\r\nEtag: {STAMP}\r\nExpires: 0\r\n\r\n").into_bytes()
        } else {
            answered += 1;
            let class = corpus::CLASSES.iter().position(|class| target.contains(class)).unwrap_or_default();
            let of_class = &pictures[class];
            // Bytes past the end of a picture change nothing but its hash.
            let picture = [&of_class[answered % of_class.len()], target.as_bytes()].concat();
            whole(&format!("image/png\r\nEtag: {STAMP}\r\nCache-Control: max-age=86400, private"), &picture)
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn whole(content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The next head, its empty line included; what follows it stays in `buffer`. `None` at the end of the connection.
fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8(head).expect("an ASCII head"));
        }
        if !read_more(stream, buffer) {
            return None;
        }
    }
}

/// `false` at the end of the connection, a reset included.
fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 16_384];
    let read = stream.read(&mut chunk).unwrap_or(0);
    buffer.extend_from_slice(&chunk[..read]);
    read > 0
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
