//! An upstream that answers with just the bytes it is told to, and keeps what it was sent: for every fault that a tidy
//! server would not commit.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).expect("a request line")
    }
}

/// What to do with the n-th request (from 0) on any connection; the stream is dropped, so closed, at the end.
type Script = dyn Fn(usize, Seen, TcpStream) -> Pin<Box<dyn Future<Output = ()>>>;

/// A scripted upstream on a port of its own; ends with the test's runtime.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Answers every request on a connection of its own by `script`, once its head has been read.
    pub async fn scripted<F>(script: impl Fn(usize, Seen, TcpStream) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keeps = seen.clone();
        let script: Arc<Script> = Arc::new(move |n, seen, stream| Box::pin(script(n, seen, stream)));
        actix_web::rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (script, keeps) = (script.clone(), keeps.clone());
                actix_web::rt::spawn(async move {
                    let Some(request) = read_head(&mut stream).await else { return };
                    let n = {
                        let mut all = keeps.lock().expect("no panic while held");
                        all.push(request.clone());
                        all.len() - 1
                    };
                    script(n, request, stream).await;
                });
            }
        });
        Self { address, seen }
    }

    /// Answers every request with these bytes and closes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |_, _, mut stream| {
            let answer = answer.clone();
            async move {
                // The proxy may have hung up on purpose.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                drain(&mut stream).await;
            }
        })
        .await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic while held").clone()
    }
}

/// Reads until the other side hangs up: closing with unread bytes would reset the connection under our answer.
pub async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
}

async fn read_head(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let line = lines.next()?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some(Seen { line, headers })
}

/// A 200 of Mattermost's with a picture.
pub fn picture_answer(etag: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nEtag: {etag}\r\nCache-Control: max-age=86400, private\r\n\
         Expires: 0\r\nVary: Accept-Encoding\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}
