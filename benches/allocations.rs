//! How often a hit asks the allocator for memory, all of the server and nothing of the client: a plain program that counts
//! while one connection asks for what is in memory, with a client that allocates nothing.

use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::demo::{Options, StandIn};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const HITS: u64 = 20_000;

fn main() {
    let _counting = dhat::Profiler::builder().testing().build();
    let town = StandIn::start(Options::default()).expect("the stand-in starts");
    let mut config = Config::default();
    config.upstream.url = UpstreamUrl::parse(&town.url()).expect("its URL");
    config.server.listen = "127.0.0.1:0".parse().expect("an address");
    config.server.workers = 1;
    config.grants.ttl = Duration::from_secs(3600);
    config.admin.listen = None;
    config.log.requests = false;
    let bound = Bound::bind(config, Arc::new(Telemetry::new())).expect("the proxy binds");
    let address = bound.address().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = bound.serve(async { _ = stopped.await }, async {});
    let proxy = std::thread::spawn(|| actix_web::rt::System::new().block_on(serve));
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    println!("| answer | allocations | bytes |");
    println!("|---|---|---|");
    let head = format!(
        "GET /api/v4/users/{}/image?size=32&_=0 HTTP/1.1\r\nHost: chat.example\r\n\
         Accept: image/avif,image/webp,image/apng,image/*,*/*;q=0.8\r\nCookie: MMAUTHTOKEN={}; MMUSERID=x\r\n",
        town.id("bob"),
        town.token("alice")
    );
    let mut answer = [0; 16 << 10];
    let first = exchange(&mut stream, format!("{head}\r\n").as_bytes(), &mut answer);
    let text = String::from_utf8_lossy(&answer[..first]).to_ascii_lowercase();
    let tag = text.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
    for (name, further) in [("hit", String::new()), ("304", format!("If-None-Match: {tag}\r\n"))] {
        let request = format!("{head}{further}\r\n");
        exchange(&mut stream, request.as_bytes(), &mut answer);
        let before = dhat::HeapStats::get();
        for _ in 0..HITS {
            exchange(&mut stream, request.as_bytes(), &mut answer);
        }
        let after = dhat::HeapStats::get();
        let each = |of: fn(&dhat::HeapStats) -> u64| {
            #[expect(clippy::cast_precision_loss, reason = "few enough")]
            let each = (of(&after) - of(&before)) as f64 / HITS as f64;
            each
        };
        println!("| {name} | {:.2} | {:.0} |", each(|stats| stats.total_blocks), each(|stats| stats.total_bytes));
    }
    drop(stream);
    let _ = stop.send(());
    proxy.join().expect("no panic").expect("the proxy ends well");
}

/// Sends a request and reads its whole answer; how long that was.
fn exchange(stream: &mut TcpStream, request: &[u8], answer: &mut [u8]) -> usize {
    stream.write_all(request).expect("sent");
    let mut len = 0;
    loop {
        len += stream.read(&mut answer[len..]).expect("an answer");
        let Some(end) = answer[..len].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = &answer[..end];
        let digits = head.windows(16).position(|name| name.eq_ignore_ascii_case(b"content-length: "));
        let digits = digits.map_or(&b""[..], |at| &head[at + 16..]);
        let length = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
        if len >= end + 4 + length {
            return len;
        }
    }
}
