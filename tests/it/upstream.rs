//! An upstream that answers with just the bytes it is told to, and keeps what it was sent: for every fault that a tidy
//! server would not commit.

use crate::client::PATIENCE;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A request as upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The head as it came.
    pub(crate) raw: Vec<u8>,
}

impl Seen {
    /// A request by its head.
    fn of(head: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(head).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next()?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Some(Self { line, headers, raw: head.to_vec() })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a field, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().expect("a request line")
    }

    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request line")
    }
}

/// What to do with the n-th request (from 0) on any connection; the stream is dropped, so closed, at the end.
type Script = dyn Fn(usize, Seen, TcpStream) -> Pin<Box<dyn Future<Output = ()>>>;

/// A scripted upstream on a port of its own; ends with the test's runtime.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: watch::Receiver<Vec<Seen>>,
    accepts: JoinHandle<()>,
}

impl Upstream {
    /// Answers every request on a connection of its own by `script`, once its head has been read.
    pub(crate) async fn scripted<F>(script: impl Fn(usize, Seen, TcpStream) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (keeps, seen) = watch::channel(Vec::new());
        let keeps = Arc::new(keeps);
        let script: Arc<Script> = Arc::new(move |n, seen, stream| Box::pin(script(n, seen, stream)));
        let accepts = actix_web::rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, keeps) = (script.clone(), keeps.clone());
                actix_web::rt::spawn(async move {
                    let Some(request) = read_head(&mut stream).await else { return };
                    keeps.send_modify(|all| all.push(request.clone()));
                    let n = keeps.borrow().len() - 1;
                    script(n, request, stream).await;
                });
            }
        });
        Self { address, seen, accepts }
    }

    /// Answers every request with the bytes that `reply` makes for it, and closes.
    pub(crate) async fn replying(reply: impl Fn(usize, &Seen) -> Vec<u8> + 'static) -> Self {
        Self::scripted(move |n, seen, mut stream| {
            let answer = reply(n, &seen);
            async move {
                send_and_close(&mut stream, &answer).await;
            }
        })
        .await
    }

    /// Shows one picture under one tag, and knows it again: `Context.HandleEtag` in `server/channels/web/context.go`.
    pub(crate) async fn showing(etag: &'static str, picture: impl Into<Vec<u8>>) -> Self {
        let picture = picture.into();
        Self::replying(move |_, seen| match seen.header("if-none-match") {
            Some(held) if held == etag => not_modified(etag),
            _ => picture_answer(etag, &picture),
        })
        .await
    }

    /// Answers every request with these bytes and closes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::replying(move |_, _| answer.clone()).await
    }

    /// Stops listening: from now on connections are refused.
    pub(crate) async fn refuse(&mut self) {
        self.accepts.abort();
        // The listener is closed when the task has ended.
        let _ = (&mut self.accepts).await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn has_seen(&self, requests: usize) {
        let mut seen = self.seen.clone();
        let arrived = seen.wait_for(|all| all.len() >= requests);
        tokio::time::timeout(PATIENCE, arrived).await.expect("requests in time").expect("upstream listens");
    }
}

/// Sends the last bytes of a connection. The proxy may have hung up on purpose.
pub(crate) async fn send_and_close(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    drain(stream).await;
}

/// Reads until the other side hangs up: closing with unread bytes would reset the connection under our answer.
pub(crate) async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
}

async fn read_head(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Seen::of(&head)
}

/// An upstream that sends `beginning` and then waits, and tells when it is hung up on.
pub(crate) async fn stalling_after(beginning: &'static [u8]) -> (Upstream, mpsc::UnboundedReceiver<()>) {
    let (tells, ended) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            let _ = stream.write_all(beginning).await;
            drain(&mut stream).await;
            let _ = tells.send(());
        }
    })
    .await;
    (upstream, ended)
}

/// An upstream that takes all of a request and tells what it was behind the head.
pub(crate) async fn taking_all() -> (Upstream, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tells, taken) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |_, _, mut stream| {
        let tells = tells.clone();
        async move {
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            let _ = tells.send(body);
        }
    })
    .await;
    (upstream, taken)
}

/// What an upstream tells next.
pub(crate) async fn told<T>(tells: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(PATIENCE, tells.recv()).await.expect("in time").expect("upstream listens")
}

/// A connection that is kept: requests without bodies come over it one after the other.
pub(crate) struct Kept {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Kept {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream, buffer: Vec::new() }
    }

    /// The next request; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect::<Vec<_>>();
                return Seen::of(&head);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends a part of an answer. The proxy may have hung up on purpose.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }
}

/// An upstream that keeps its connections and answers each request by `reply`; it writes nothing down.
pub(crate) async fn keeping(reply: impl Fn(&Seen) -> Vec<u8> + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let reply = Rc::new(reply);
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut connection, reply) = (Kept::new(stream), reply.clone());
            actix_web::rt::spawn(async move {
                while let Some(seen) = connection.next().await {
                    connection.send(&reply(&seen)).await;
                }
            });
        }
    });
    address
}

/// An answer with these fields and this body, after which the connection is kept.
pub(crate) fn kept_answer(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut lines = vec![format!("HTTP/1.1 {status}")];
    lines.extend(fields.iter().map(|(name, value)| format!("{name}: {value}")));
    // A 304 has no body, and its length would be that of the picture.
    if !status.starts_with("304") {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()
}

/// An answer with these fields and this body, and the connection ends with it.
pub(crate) fn answer(status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    kept_answer(status, &[fields, &[("Connection", "close")]].concat(), body)
}

/// A 200 of Mattermost's with a picture.
pub(crate) fn picture_answer(etag: &str, body: &[u8]) -> Vec<u8> {
    let fields = [
        ("Content-Type", "image/png"),
        ("Etag", etag),
        ("Cache-Control", "max-age=86400, private"),
        ("Expires", "0"),
        ("Vary", "Accept-Encoding"),
    ];
    answer("200 OK", &fields, body)
}

/// A 304 of Mattermost's, which says no lifetime (`recordings`: `image-inm-equal-bare`).
pub(crate) fn not_modified(etag: &str) -> Vec<u8> {
    answer("304 Not Modified", &[("Etag", etag), ("Expires", "0"), ("Vary", "Accept-Encoding")], b"")
}
