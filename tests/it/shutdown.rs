//! Being told to stop: what is in flight is finished, nothing new is taken.

use crate::client::Request;
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, drain, picture_answer, send_and_close};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[actix_web::test]
async fn f50_what_is_in_flight_is_finished() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let released = released.clone();
        async move {
            released.notified().await;
            send_and_close(&mut stream, &picture_answer("1", &png(&photo(1)))).await;
        }
    })
    .await;
    let mut proxy = Proxy::before(upstream.address);
    let address = proxy.address;

    let in_flight = async { Request::picture("size=32").send(address).await };
    let stopping = async {
        upstream.has_seen(1).await;
        proxy.begin_stop();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        release.notify_one();
    };
    let (answer, ()) = futures_util::future::join(in_flight, stopping).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.dimensions(), (32, 32));
    assert_eq!(answer.header("connection"), Some("close"));
    proxy.wait().expect("it ends well");
}

#[actix_web::test]
async fn f50_a_second_signal_ends_the_drain() {
    let upstream = Upstream::scripted(|_, _, mut stream| async move { drain(&mut stream).await }).await;
    let mut proxy = Proxy::with(upstream.address, |config| config.server.shutdown_timeout = Duration::from_secs(600));
    let mut in_flight = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    in_flight.write_all(&Request::get("/events").bytes("chat.example")).await.expect("taken");
    upstream.has_seen(1).await;
    let started = Instant::now();

    proxy.begin_stop();
    proxy.stop_at_once();
    proxy.wait().expect("it ends well");

    assert!(started.elapsed() < Duration::from_secs(60));
}
