//! Closing a listener so that nobody notices: whoever the kernel has promised a connection gets it.
//!
//! A listener that is closed resets the connections in its queue. So the queue is emptied first, and kept empty: the kernel
//! is told to drop requests for connections, which their clients repeat a second later, when somebody else listens here
//! or nobody does.

use actix_web::dev::{Service, ServiceFactory};
use socket2::{SockFilter, SockRef};
use std::convert::Infallible;
use std::net::TcpListener;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long connections may take to get from the thread that accepts them to those that serve them.
pub const HANDOVER: Duration = Duration::from_millis(200);
/// How long a connection that was asked for before takes to come about.
const HANDSHAKES: Duration = Duration::from_millis(50);

/// A second handle to a listener, for its end.
#[derive(Debug)]
pub struct Gate(TcpListener);

impl Gate {
    /// The gate of this listener.
    ///
    /// # Errors
    /// The system has no handle left.
    pub fn of(listener: &TcpListener) -> std::io::Result<Self> {
        listener.try_clone().map(Self)
    }

    /// Serves on this thread, with what `serve` makes, whoever still comes, and closes in the end. Nobody else takes
    /// connections any more, but what was taken may still be on its way; `let_go` ends that and closes the other handles.
    pub async fn close<S>(self, serve: impl Fn() -> S, let_go: impl FnOnce())
    where
        S: ServiceFactory<TcpStream, Config = (), Response = (), Error = Infallible, InitError = ()>,
        <S::Service as Service<TcpStream>>::Future: 'static,
    {
        let Self(listener) = self;
        let (Ok(service), Ok(())) = (serve().new_service(()).await, listener.set_nonblocking(true)) else {
            return let_go();
        };
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return let_go() };
        let take_in = async || {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(actix_web::rt::spawn(service.call(stream))),
                    // Perhaps there is a file to be had in a moment.
                    Err(_) => tokio::time::sleep(HANDSHAKES / 10).await,
                }
            }
        };
        let _ = tokio::time::timeout(HANDOVER, take_in()).await;
        // Where that is not allowed, the queue is at least empty.
        let _ = SockRef::from(&listener).attach_filter(&drop_syn());
        let_go();
        let _ = tokio::time::timeout(HANDSHAKES, take_in()).await;
    }
}

/// In the language of the classic packet filter (`linux/filter.h`), which sees a segment from its TCP header on: what asks
/// for a connection is dropped, everything else passes.
fn drop_syn() -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = 0x30;
    const IF_ANY_BIT: u16 = 0x45;
    const PASS: u16 = 0x06;
    // Where the flags are, and which is SYN (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(IF_ANY_BIT, 0, 1, SYN),
        SockFilter::new(PASS, 0, 0, 0),
        SockFilter::new(PASS, 0, 0, u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_kept_empty_loses_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let _queued = std::net::TcpStream::connect(address).expect("it listens");
        SockRef::from(&listener).attach_filter(&drop_syn()).expect("anybody may");

        let refused = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));

        assert_eq!(refused.expect_err("not asked").kind(), std::io::ErrorKind::TimedOut);
        listener.accept().expect("who came before is there");
        listener.set_nonblocking(true).expect("a socket");
        assert_eq!(listener.accept().expect_err("nobody").kind(), std::io::ErrorKind::WouldBlock);
    }
}
