//! Whether renders disturb hits: the tail of hits at a fixed rate, half of what saturates one worker, alone and while 32
//! clients cause misses on the same core. The server has core 0, the load and the stand-in the other. Rounds are paired;
//! latency counts from the moment a request was due, so a server that falls behind cannot hide it. Linux only.

#[expect(dead_code, reason = "the benches of memory and pass-through ask for more")]
mod binary;
mod cores;

use avatar_proxy::demo::{Options, StandIn};
use binary::Proxy;
use cores::run_on;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections that ask for what is in memory.
const HITTERS: u32 = 32;
/// Connections that ask for what is not.
const MISSERS: usize = 32;
/// Users whose pictures are in memory.
const WARM: usize = 100;
const PEOPLE: usize = 1_500;
const WARM_SIZES: [u32; 3] = [24, 32, 64];
const WARM_TARGETS: usize = WARM * WARM_SIZES.len();
const COLD_SIZES: [u32; 8] = [16, 20, 24, 32, 40, 48, 64, 72];
const ROUNDS: usize = 5;

fn main() {
    let round = if std::env::args().any(|argument| argument == "--test") { 200 } else { 4_000 };
    run_on(1);
    let town = StandIn::start(Options::crowd(PEOPLE)).expect("the stand-in starts");
    let url = town.url();
    run_on(0);
    let settings = [("GRANTS__TTL", "1h"), ("RENDER__PERMITS", "1"), ("LIMITS__CALLER_MISSES", "0")];
    let proxy = Proxy::start(&url, &settings);
    run_on(1);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().event_interval(8).build().expect("a runtime");
    let round = Duration::from_millis(round);
    tokio::task::LocalSet::new().block_on(&runtime, measure(&town, proxy.address, round));
}

async fn measure(town: &StandIn, proxy: SocketAddr, round: Duration) {
    let sessions = town.sessions();
    let stage = Rc::new(Stage {
        proxy,
        token: sessions[0].token.clone(),
        people: sessions.into_iter().map(|session| session.user_id).collect(),
        next_cold: Cell::new(0),
    });
    let mut client = Client::connect(&stage).await;
    for n in 0..WARM_TARGETS {
        client.get(&stage.warm(n)).await;
    }
    let capacity = stage.saturated(round / 2).await;
    let rate = capacity / 2.0;
    println!("saturated at {capacity:.0} hits/s; measured at {rate:.0}/s for {round:?} a round");
    println!("| round | p50 alone | p99 alone | p50 beside misses | p99 beside misses | misses/s | ratio of p99 |");
    println!("|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for n in 1..=ROUNDS {
        let alone = stage.hits(rate, round).await;
        let missing = Rc::new(Cell::new(true));
        let missed = Rc::new(Cell::new(0_u32));
        let missers =
            (0..MISSERS).map(|_| tokio::task::spawn_local(miss(stage.clone(), missing.clone(), missed.clone())));
        let missers = missers.collect::<Vec<_>>();
        tokio::time::sleep(round / 10).await;
        let before = missed.get();
        let beside = stage.hits(rate, round).await;
        let pace = f64::from(missed.get() - before) / round.as_secs_f64();
        missing.set(false);
        for misser in missers {
            misser.await.expect("no panic");
        }
        let ratio = beside.at(0.99) / alone.at(0.99);
        ratios.push(ratio);
        println!(
            "| {n} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {pace:.0} | {ratio:.2} |",
            alone.at(0.5),
            alone.at(0.99),
            beside.at(0.5),
            beside.at(0.99)
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of p99: {:.2}", ratios[ROUNDS / 2]);
}

struct Stage {
    proxy: SocketAddr,
    token: String,
    people: Vec<String>,
    next_cold: Cell<usize>,
}

impl Stage {
    fn warm(&self, n: usize) -> String {
        let n = n % WARM_TARGETS;
        target(&self.people[n % WARM], WARM_SIZES[n / WARM])
    }

    /// A picture and size that nobody has asked for yet.
    fn cold(&self) -> String {
        let n = self.next_cold.replace(self.next_cold.get() + 1);
        let strangers = &self.people[WARM..];
        let (user, round) = (n % strangers.len(), n / strangers.len());
        let (size, quality) = (COLD_SIZES[round % COLD_SIZES.len()], 5 * (1 + round / COLD_SIZES.len() % 20));
        format!("{}&q={quality}", target(&strangers[user], size))
    }

    /// Hits a second when every connection asks as fast as it is answered.
    async fn saturated(self: &Rc<Self>, time: Duration) -> f64 {
        let (end, answered) = (Instant::now() + time, Rc::new(Cell::new(0_u32)));
        let tasks = (0..2 * HITTERS).map(|n| {
            let (stage, answered) = (self.clone(), answered.clone());
            tokio::task::spawn_local(async move {
                let mut client = Client::connect(&stage).await;
                let mut next = n as usize * 7;
                while Instant::now() < end {
                    client.get(&stage.warm(next)).await;
                    next += 1;
                    answered.set(answered.get() + 1);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        f64::from(answered.get()) / time.as_secs_f64()
    }

    /// Hits that are due at `rate` a second in all.
    async fn hits(self: &Rc<Self>, rate: f64, time: Duration) -> Latencies {
        let (start, all) = (Instant::now() + Duration::from_millis(20), Rc::new(RefCell::new(Vec::new())));
        let gap = Duration::from_secs_f64(f64::from(HITTERS) / rate);
        let tasks = (0..HITTERS).map(|n| {
            let (stage, all) = (self.clone(), all.clone());
            tokio::task::spawn_local(async move {
                let mut client = Client::connect(&stage).await;
                let mut due = start + gap * n / HITTERS;
                let mut next = n as usize * 7;
                while due < start + time {
                    // The timer of the runtime counts milliseconds: what is nearer is waited for by looking again.
                    while let Some(left) = due.checked_duration_since(Instant::now()) {
                        match left.checked_sub(Duration::from_millis(2)) {
                            Some(long) => tokio::time::sleep(long).await,
                            None => tokio::task::yield_now().await,
                        }
                    }
                    client.get(&stage.warm(next)).await;
                    all.borrow_mut().push(due.elapsed());
                    (due, next) = (due + gap, next + 1);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        let mut all = all.take();
        all.sort_unstable();
        Latencies(all)
    }
}

async fn miss(stage: Rc<Stage>, goes_on: Rc<Cell<bool>>, missed: Rc<Cell<u32>>) {
    let mut client = Client::connect(&stage).await;
    while goes_on.get() {
        client.get(&stage.cold()).await;
        missed.set(missed.get() + 1);
    }
}

fn target(user: &str, size: u32) -> String {
    format!("/api/v4/users/{user}/image?size={size}")
}

/// In order.
struct Latencies(Vec<Duration>);

impl Latencies {
    /// A quantile in milliseconds.
    fn at(&self, quantile: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((self.0.len() - 1) as f64 * quantile) as usize;
        self.0[index].as_secs_f64() * 1000.0
    }
}

/// One kept connection.
struct Client {
    stream: TcpStream,
    token: String,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.proxy).await.expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, token: stage.token.clone(), buffer: Vec::with_capacity(16 << 10) }
    }

    /// Asks and reads the answer, which has to be a picture.
    async fn get(&mut self, target: &str) {
        let token = &self.token;
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: bench\r\nAccept: image/webp\r\nCookie: MMAUTHTOKEN={token}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await.expect("sent");
        self.buffer.clear();
        let (body, length) = loop {
            assert!(self.stream.read_buf(&mut self.buffer).await.expect("an answer") > 0, "a whole answer");
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end]).expect("an ASCII head").to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 200"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                break (end + 4, length.parse::<usize>().expect("a number"));
            }
        };
        while self.buffer.len() < body + length {
            assert!(self.stream.read_buf(&mut self.buffer).await.expect("an answer") > 0, "a whole answer");
        }
    }
}
