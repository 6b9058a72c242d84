//! A client's connection as actix reads and writes it: bytes pass, the pulse is told, and what is over ends.

use super::pulse::{Over, Pulse, Silence};
use super::sweep::Member;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The socket, beneath whatever encrypts it: here it shows whether the client takes anything.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    member: Member,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, member: Member) -> Self {
        Self { tcp, member }
    }

    /// Who is at the other end, where the system still knows.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.tcp.peer_addr().ok()
    }

    fn pulse(&self) -> &Rc<Pulse> {
        self.member.pulse()
    }

    /// Tells the pulse how a write went.
    fn felt<T>(&self, write: Poll<io::Result<T>>, context: &Context<'_>) -> Poll<io::Result<T>> {
        let pulse = self.pulse();
        match write {
            Poll::Pending if pulse.over() == Some(Over::Write) => return Poll::Ready(Err(timed_out())),
            Poll::Pending => {
                pulse.blocked();
                pulse.park(context);
            }
            Poll::Ready(_) => pulse.wrote(),
        }
        write
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if read.is_pending() {
            self.pulse().park(context);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.felt(write, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.felt(write, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// What actix sees of a connection.
#[derive(Debug)]
pub(super) struct Stream(Socket);

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        Self(socket)
    }

    /// What is known of the connection.
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        self.0.pulse()
    }

    /// What actix is told when the client has said its last.
    fn at_end(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        match self.pulse().silence() {
            Silence::Early => {
                self.pulse().park(context);
                Poll::Pending
            }
            // actix would let the request go on.
            Silence::Gone => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Silence::Heard => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining() > 0);
        let over = self.pulse().over();
        match (Pin::new(&mut self.0).poll_read(context, buffer), over) {
            (_, Some(Over::Write)) => Poll::Ready(Err(timed_out())),
            // To actix this is the client that hangs up.
            (_, Some(Over::Head)) | (Poll::Pending, Some(Over::Idle)) => {
                buffer.set_filled(before);
                Poll::Ready(Ok(()))
            }
            (read, over) => {
                ready!(read)?;
                if buffer.filled().len() > before {
                    if over.is_some() {
                        // Just in time.
                        self.pulse().lives_on();
                    }
                    self.pulse().heard();
                } else if room {
                    return self.at_end(context);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
