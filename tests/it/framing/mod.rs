//! Messages whose ends two parsers could see in different places. For each: it is refused and the connection ends, or it
//! is framed anew, once, as a strict upstream reads it; and nobody ever gets an answer that is another's.

mod clients;
mod sequences;
mod upstreams;

use crate::client::PATIENCE;
use crate::recorder::{Recorder, Reply};
use crate::wire::{Message, Wire};
use std::net::SocketAddr;

/// An answer that names the request that it is for.
fn named(request: &Message) -> Reply {
    let id = request.second();
    let body = if request.start.starts_with("HEAD ") { "" } else { id };
    Reply::next(format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}", id.len()))
}

/// The next answer on a connection; `None` when it ends instead.
async fn next_answer(wire: &mut Wire, method: &str) -> Option<Message> {
    tokio::time::timeout(PATIENCE, wire.answer(method)).await.expect("an answer in time")
}

/// Asks for `target` and tells the id in the answer, or how that begins if it has none; `None` when the connection ends instead.
async fn asks(wire: &mut Wire, target: &str) -> Option<String> {
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: chat.example\r\n\r\n").as_bytes()).await;
    let answer = next_answer(wire, "GET").await?;
    let id = answer.all("x-id").first().map(|id| (*id).to_owned()).filter(|id| id.as_bytes() == answer.body);
    Some(id.unwrap_or(answer.start))
}

/// Somebody else, who comes right after.
async fn somebody_else(proxy: SocketAddr, upstream: &Recorder, target: &str) -> Vec<Message> {
    assert_eq!(asks(&mut Wire::to(proxy).await, target).await.as_deref(), Some(target), "another's answer");
    let mut seen = upstream.take();
    let last = seen.pop().expect("asked");
    assert_eq!((last.gist(), last.faults), (format!("GET {target}"), Vec::new()));
    seen
}
