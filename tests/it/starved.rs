//! F56: others keep all processors busy, and still the process says that it lives, and what is over ends.

use crate::client::{Request, read_answer};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, drain};
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What each limit of this test is: long enough to wait for a turn on a processor many times.
const LIMIT: Duration = Duration::from_secs(1);
/// How many others each processor has to serve.
const OTHERS: usize = 2;

/// Threads that never rest until this is dropped.
struct Others {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Others {
    fn on_all_processors() -> Self {
        let count = OTHERS * std::thread::available_parallelism().map_or(1, NonZero::get);
        let over = Arc::new(AtomicBool::new(false));
        let busy = |over: Arc<AtomicBool>| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let threads = (0..count).map(|_| over.clone()).map(|over| std::thread::spawn(move || busy(over))).collect();
        Self { over, threads }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only counts time");
        }
    }
}

/// Sends this, and tells the status of the answer and how long it took.
async fn ask(to: SocketAddr, bytes: &[u8]) -> (u16, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(bytes).await.expect("taken");
    (read_answer(&mut stream, "GET").await.status, started.elapsed())
}

#[actix_web::test]
async fn f56_without_a_processor_of_its_own_it_lives_and_ends_what_is_over() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move { drain(&mut stream).await }).await;
    let proxy = Proxy::with(upstream.address, |config| {
        (config.server.head_timeout, config.server.body_idle_timeout) = (LIMIT, LIMIT);
        (config.upstream.head_timeout, config.upstream.passthrough_timeout) = (LIMIT, LIMIT);
    });
    let _others = Others::on_all_processors();

    let upload = b"POST /api/v4/posts HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let (slow_head, slow_body, silent, picture, alive) = tokio::join!(
        ask(proxy.address, b"GET / HTTP/1.1\r\n"),
        ask(proxy.address, upload),
        async { ask(proxy.address, &Request::get("/api/v4/posts").bytes("a")).await },
        async { ask(proxy.address, &Request::picture("size=32").bytes("a")).await },
        async { ask(proxy.admin, &Request::get("/healthz").bytes("a")).await },
    );

    for (status, expected) in [(slow_head, 408), (slow_body, 408), (silent, 504), (picture, 504)] {
        let (status, took) = status;
        assert_eq!(status, expected);
        // The client's clock starts a moment after the proxy's.
        assert!(took + LIMIT / 10 > LIMIT && took < 2 * LIMIT, "{expected}: {took:?}");
    }
    assert_eq!(alive.0, 200);
    assert!(alive.1 < LIMIT / 2, "{alive:?}");
}
