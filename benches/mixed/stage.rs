//! The load: a set of pictures in memory, others that nobody has asked for, and requests for either at a fixed rate.

use avatar_proxy::demo::StandIn;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Connections that ask at a fixed rate.
const CONNECTIONS: u32 = 32;
/// Users whose pictures are in memory.
const WARM: usize = 100;
const WARM_SIZES: [u32; 3] = [24, 32, 64];
const WARM_TARGETS: usize = WARM * WARM_SIZES.len();
const COLD_SIZES: [u32; 8] = [16, 20, 24, 32, 40, 48, 64, 72];

/// Which requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// For what is in memory.
    Hits,
    /// For what is not.
    Misses,
}

/// A proxy and what it is asked for.
pub(crate) struct Stage {
    proxy: SocketAddr,
    token: String,
    people: Vec<String>,
    next_cold: Cell<usize>,
}

impl Stage {
    /// Of `proxy`, of which everything that counts as warm is in memory, and was asked for `times` times.
    pub(crate) async fn warmed(town: &StandIn, proxy: SocketAddr, times: usize) -> Rc<Self> {
        let sessions = town.sessions();
        let stage = Rc::new(Self {
            proxy,
            token: sessions[0].token.clone(),
            people: sessions.into_iter().map(|session| session.user_id).collect(),
            next_cold: Cell::new(0),
        });
        let mut client = Client::connect(&stage).await;
        for n in 0..times * WARM_TARGETS {
            client.get(&stage.warm(n)).await;
        }
        stage
    }

    fn target(&self, asked: Asked, n: usize) -> String {
        match asked {
            Asked::Hits => self.warm(n),
            Asked::Misses => self.cold(),
        }
    }

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

    /// Answers a second when every connection asks as fast as it is answered.
    pub(crate) async fn saturated(self: &Rc<Self>, asked: Asked, time: Duration) -> f64 {
        let (goes_on, answered) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let tasks = self.pressed(asked, 2 * CONNECTIONS, &goes_on, &answered);
        tokio::time::sleep(time).await;
        let (count, since) = (answered.get(), Instant::now());
        tokio::time::sleep(time).await;
        let pace = f64::from(answered.get() - count) / since.elapsed().as_secs_f64();
        goes_on.set(false);
        for task in tasks {
            task.await.expect("no panic");
        }
        pace
    }

    /// Connections that ask as fast as they are answered, as long as it `goes_on`.
    pub(crate) fn pressed(
        self: &Rc<Self>,
        asked: Asked,
        connections: u32,
        goes_on: &Rc<Cell<bool>>,
        answered: &Rc<Cell<u32>>,
    ) -> Vec<JoinHandle<()>> {
        let press = |n| {
            let (stage, goes_on, answered) = (self.clone(), goes_on.clone(), answered.clone());
            tokio::task::spawn_local(async move {
                let mut client = Client::connect(&stage).await;
                let mut next = n as usize * 7;
                while goes_on.get() {
                    client.get(&stage.target(asked, next)).await;
                    next += 1;
                    answered.set(answered.get() + 1);
                }
            })
        };
        (0..connections).map(press).collect()
    }

    /// Requests that are due at `rate` a second in all. Those of the first fifth of the time are not measured: they find
    /// caches that another process has left.
    pub(crate) async fn paced(self: &Rc<Self>, asked: Asked, rate: f64, time: Duration) -> Latencies {
        let (start, all) = (Instant::now() + Duration::from_millis(20), Rc::new(RefCell::new(Vec::new())));
        let gap = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
        let tasks = (0..CONNECTIONS).map(|n| {
            let (stage, all) = (self.clone(), all.clone());
            tokio::task::spawn_local(async move {
                let mut client = Client::connect(&stage).await;
                let mut due = start + gap * n / CONNECTIONS;
                let mut next = n as usize * 7;
                while due < start + time {
                    // The timer of the runtime counts milliseconds: what is nearer is waited for by looking again.
                    while let Some(left) = due.checked_duration_since(Instant::now()) {
                        match left.checked_sub(Duration::from_millis(2)) {
                            Some(long) => tokio::time::sleep(long).await,
                            None => tokio::task::yield_now().await,
                        }
                    }
                    client.get(&stage.target(asked, next)).await;
                    if due >= start + time / 5 {
                        all.borrow_mut().push(due.elapsed());
                    }
                    (due, next) = (due + gap, next + 1);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        let mut latencies = Latencies::default();
        latencies.add(Latencies(all.take()));
        latencies
    }
}

fn target(user: &str, size: u32) -> String {
    format!("/api/v4/users/{user}/image?size={size}")
}

/// In order.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn add(&mut self, more: Self) {
        self.0.extend(more.0);
        self.0.sort();
    }

    /// A quantile in milliseconds.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
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
