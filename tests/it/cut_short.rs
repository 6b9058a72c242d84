//! An answer that ends with its connection, because its client knows no chunks or asked for an upgrade: where it breaks off,
//! the connection is reset, since an orderly end would make a part look like the whole (RFC 9112 section 8).

use crate::client::PATIENCE;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, drain};
use crate::websocket::handshake;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How the request comes for whose client an answer of unknown length ends with the connection.
fn requests() -> [(&'static str, Vec<u8>); 2] {
    [
        ("HTTP/1.0", b"GET /file HTTP/1.0\r\nHost: chat.example\r\n\r\n".to_vec()),
        ("a declined upgrade", handshake().bytes("chat.example")),
    ]
}

const BEGINNING: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";

/// Reads what the proxy says behind `until`, and how the connection ends.
async fn ending(client: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut heard)).await.expect("it ends");
    let heard = String::from_utf8(heard).expect("text");
    (
        heard.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()),
        ended.err().map(|error| error.kind()),
    )
}

#[actix_web::test]
async fn a_part_of_an_answer_does_not_look_whole() {
    for (name, request) in requests() {
        for (rest, ended) in [(&b"0\r\n\r\n"[..], None), (b"", Some(ErrorKind::ConnectionReset))] {
            let upstream = Upstream::scripted(move |_, _, mut stream| async move {
                let _ = stream.write_all(&[BEGINNING, rest].concat()).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            })
            .await;
            let proxy = Proxy::before(upstream.address);
            let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
            client.write_all(&request).await.expect("taken");

            assert_eq!(ending(&mut client).await, ("first".to_owned(), ended), "{name} {rest:?}");
        }
    }
}

#[actix_web::test]
async fn f50_a_part_of_an_answer_does_not_look_whole_when_the_time_to_drain_is_over() {
    for (name, request) in requests() {
        let release = Arc::new(Notify::new());
        let released = release.clone();
        let upstream = Upstream::scripted(move |_, _, mut stream| {
            let released = released.clone();
            async move {
                let _ = stream.write_all(BEGINNING).await;
                released.notified().await;
            }
        })
        .await;
        let mut proxy =
            Proxy::with(upstream.address, |config| config.server.shutdown_timeout = Duration::from_millis(300));
        let mut client = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        client.write_all(&request).await.expect("taken");
        proxy.has_in_flight(1).await;
        proxy.begin_stop();

        assert_eq!(ending(&mut client).await, ("first".to_owned(), Some(ErrorKind::ConnectionReset)), "{name}");
        release.notify_one();
    }
}
