//! An upstream that reads one request after the other from each of its connections, by the letter, and keeps them all.

use crate::wire::{Message, Wire};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::TcpListener;

/// What follows the bytes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The next request.
    Next,
    /// The end of the connection.
    Close,
    /// Whatever comes is sent back.
    Echo,
}

/// An answer, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

impl Reply {
    pub(crate) fn next(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Next }
    }
}

/// A recording upstream on a port of its own; ends with the test's runtime.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Rc<RefCell<Vec<Message>>>,
}

impl Recorder {
    /// Answers every request by `reply`, once it has been read to its end.
    pub(crate) async fn answering(reply: impl Fn(&Message) -> Reply + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Rc::<RefCell<Vec<Message>>>::default();
        let (keeps, reply) = (seen.clone(), Rc::new(reply));
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keeps, reply) = (keeps.clone(), reply.clone());
                actix_web::rt::spawn(async move { converse(Wire::over(stream), &keeps, &*reply).await });
            }
        });
        Self { address, seen }
    }

    /// What was seen since it was asked last.
    pub(crate) fn take(&self) -> Vec<Message> {
        self.seen.take()
    }
}

async fn converse(mut wire: Wire, keeps: &RefCell<Vec<Message>>, reply: &dyn Fn(&Message) -> Reply) {
    while let Some(request) = wire.request().await {
        let Reply { bytes, then } = reply(&request);
        // After a fault nobody can tell where the next request begins.
        let lost = !request.faults.is_empty();
        keeps.borrow_mut().push(request);
        wire.send(&bytes).await;
        match then {
            Then::Next if !lost => {}
            Then::Next | Then::Close => return,
            Then::Echo => loop {
                let byte = wire.bytes(1).await;
                if byte.is_empty() {
                    return;
                }
                wire.send(&byte).await;
            },
        }
    }
}
