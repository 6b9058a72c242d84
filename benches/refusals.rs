//! Whether the time of a refusal tells if somebody else has looked at a picture: one caller is refused pictures that are
//! in memory and hot, and such as nobody has ever asked for, in turn. Upstream takes as long for both, which is no time at
//! all: whatever else an answer takes is then the proxy's. The medians may differ by no more than 5 %. A plain program;
//! the server has core 0, everybody else the other. Linux only.

#[expect(dead_code, reason = "the bench of memory asks for more")]
mod binary;
#[expect(dead_code, reason = "the bench of requests asks for more")]
mod client;
mod cores;

use binary::Proxy;
use client::{Client, Connection, Head, whole};
use cores::run_on;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Refusals of each kind that are timed, in each round.
const REFUSALS: usize = 2_000;
const ROUNDS: usize = 5;
/// Pictures of each kind.
const PICTURES: usize = 50;
/// How far the medians may lie apart, in parts of a hundred.
const APART: f64 = 5.0;

const PICTURE: &[u8] = include_bytes!("pictures/photo-ski-chelsea.png");
/// As long as Mattermost's.
const REFUSAL: &[u8] =
    br#"{"id":"api.context.permissions.app_error","message":"You do not have the appropriate permissions.",
"detailed_error":"","request_id":"8gk1qj5rztyzdgp4rrqxzmjcfe","status_code":403}"#;
const STAMP: &str = "1712345678901";
const MEMBER: &str = "8a1xz5ri6bgwmq4m6xo7cnjdhe";
const STRANGER: &str = "n9o3ksfsz7ywxpyq1pxfjh5g1r";

fn main() {
    let refusals = if std::env::args().any(|argument| argument == "--bench") { REFUSALS } else { 100 };
    run_on(1);
    let upstream = listen_upstream();
    run_on(0);
    let settings = [("GRANTS__TTL", "1h"), ("RENDER__PERMITS", "1"), ("LIMITS__CALLER_MISSES", "0")];
    let proxy = Proxy::start(&format!("http://{upstream}"), &settings);
    run_on(1);
    let mut member = Client::connect(proxy.address, &fields(MEMBER));
    let mut stranger = Client::connect(proxy.address, &fields(STRANGER));
    println!("| round | refusals | in memory | never asked for | apart |");
    println!("|---|---|---|---|---|");
    let mut apart = Vec::new();
    for round in 1..=ROUNDS {
        let [known, unknown] = times(&mut member, &mut stranger, refusals).map(median);
        apart.push((known / unknown - 1.0) * 100.0);
        println!("| {round} | 2 x {refusals} | {known:.1} us | {unknown:.1} us | {:+.1} % |", apart[round - 1]);
    }
    apart.sort_by(f64::total_cmp);
    let middle = apart[ROUNDS / 2];
    let verdict = if middle.abs() <= APART { "met" } else { "missed" };
    println!("median of the rounds: {middle:+.1} %, at most {APART} % wanted: {verdict}");
}

/// How long each refusal took: of what is in memory, and of what nobody has asked for.
fn times(member: &mut Client, stranger: &mut Client, refusals: usize) -> [Vec<Duration>; 2] {
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..2 * refusals {
        // Which comes first changes, too.
        let kind = (n + n / 2) % 2;
        let picture = n / 2 % PICTURES;
        // Hot, and the proxy awake, before either.
        assert_eq!(member.get(&target(0, picture), "").status, 200);
        let began = Instant::now();
        let refused = stranger.get(&target(kind, picture), "");
        times[kind].push(began.elapsed());
        assert_eq!((refused.status, &*refused.body, refused.head.field("etag")), (403, REFUSAL, None));
    }
    times
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// A picture of the one kind or the other.
fn target(kind: usize, picture: usize) -> String {
    format!("/api/v4/users/{kind}{picture:025}/image?size=32")
}

/// The lines of a client's request.
fn fields(token: &str) -> String {
    format!("Host: bench\r\nAccept: image/webp\r\nCookie: MMAUTHTOKEN={token}\r\n")
}

/// An upstream that shows everything to its member, and nothing to anybody else; it decides before it looks at the tag.
fn listen_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut client = Connection::new(stream.expect("a connection"));
            std::thread::spawn(move || {
                while let Some(head) = client.head() {
                    if client.send(&answer(&head)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn answer(head: &Head) -> Vec<u8> {
    if head.field("cookie").is_some_and(|cookie| cookie.contains(MEMBER)) {
        return whole(
            "200 OK",
            &format!("image/png\r\nEtag: {STAMP}\r\nCache-Control: max-age=86400, private"),
            PICTURE,
        );
    }
    whole("403 Forbidden", "application/json", REFUSAL)
}
