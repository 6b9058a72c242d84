//! A client's connection as actix reads and writes it: bytes pass, the pulse is told, and what is over ends.

use super::Refusal;
use super::pipeline::Pipeline;
use super::pulse::{Over, Pulse, Silence};
use super::sweep::Member;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use socket2::SockRef;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How much is read at once of a client that has said nothing for a while, in bytes.
const AT_ONCE: usize = 4 << 10;

/// The socket, beneath whatever encrypts it: here it shows whether the client takes anything.
pub(super) struct Socket {
    tcp: TcpStream,
    member: Member,
    /// Whatever ends the connection resets it.
    is_armed: bool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, member: Member) -> Self {
        Self { tcp, member, is_armed: false }
    }

    /// What is known of the connection.
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        self.member.pulse()
    }

    /// The connection once keys are agreed upon; `None` when that fails or takes too long.
    pub(super) async fn encrypted(self, acceptor: &TlsAcceptor) -> Option<TlsStream<Self>> {
        let pulse = self.pulse().clone();
        let mut handshake = std::pin::pin!(acceptor.accept(self));
        let agreed = poll_fn(|context| match pulse.over() {
            Some(_) => Poll::Ready(None),
            None => handshake.as_mut().poll(context).map(Result::ok),
        });
        agreed.await
    }

    /// As long as an answer is not whole that ends with the connection, its end is a reset, whoever causes it and were it the
    /// end of this process: an orderly one would make a part look like the whole.
    fn arms(&mut self, is_armed: bool) {
        if self.is_armed != is_armed {
            self.is_armed = is_armed;
            // A connection that cannot be set so is broken already.
            let _ = SockRef::from(&self.tcp).set_linger(is_armed.then_some(Duration::ZERO));
        }
    }

    /// What is to be seen to before a write.
    fn begins_write(&mut self) {
        if self.member.pulse().ends_answer() {
            self.arms(true);
        }
    }

    /// Tells the pulse how a write went.
    fn felt<T>(&self, write: Poll<io::Result<T>>, context: &Context<'_>) -> Poll<io::Result<T>> {
        let pulse = self.member.pulse();
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
            self.member.pulse().park(context);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.begins_write();
        let write = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.felt(write, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begins_write();
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
        // Nobody says so in the midst of an answer.
        self.arms(false);
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// A connection and what encrypts it, if anything does.
pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// What actix sees of a connection. When that lets go of it, the connection itself is given back.
pub(super) struct Stream {
    /// Until then.
    transport: Option<Transport>,
    /// What we say in actix's place, as far as it has not gone out.
    farewell: Option<Bytes>,
    pipeline: Pipeline,
    sequel: Sequel,
}

/// What there is of a connection that actix has nothing to do with any more.
pub(super) enum Then {
    /// It is HTTP no more, and ends with this.
    Becomes(LocalBoxFuture<'static, ()>),
    /// Nothing else. What its client has said and actix was not given waits.
    Remains(Transport, BytesMut),
}

/// What comes behind actix; shared with whoever waits for that.
pub(super) type Sequel = Rc<Cell<Option<Then>>>;

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        Self::over(Transport::Plain(socket))
    }

    pub(super) fn encrypted(tls: TlsStream<Socket>) -> Self {
        Self::over(Transport::Tls(Box::new(tls)))
    }

    fn over(transport: Transport) -> Self {
        Self { transport: Some(transport), farewell: None, pipeline: Pipeline::default(), sequel: Sequel::default() }
    }

    /// What comes from now on is no request.
    pub(super) fn leaves_http(&mut self) {
        self.pipeline.opens();
    }

    fn parts(&mut self) -> (&mut Transport, &mut Pipeline) {
        (self.transport.as_mut().expect("it is held until it is given back"), &mut self.pipeline)
    }

    fn member(&self) -> &Member {
        self.transport.as_ref().expect("it is held until it is given back").member()
    }

    /// What is known of the connection.
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        self.member().pulse()
    }

    /// What it goes on as.
    pub(super) fn sequel(&self) -> &Sequel {
        &self.sequel
    }

    /// What actix says to what is no request has an empty body, and nobody has counted it: ours has neither fault.
    fn replaced(&self, bytes: &[u8]) -> Option<Bytes> {
        if self.pulse().owes() {
            return None;
        }
        let refusal = match bytes.strip_prefix(b"HTTP/1.")?.get(1..5)? {
            b" 400" => Refusal::Malformed,
            b" 431" => Refusal::LongHead,
            _ => return None,
        };
        self.pulse().refuse().then(|| self.member().refuse(refusal))
    }

    /// Sends the rest of what we say in actix's place.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { transport: Some(transport), farewell, .. } = self else { return Poll::Ready(Ok(())) };
        while let Some(rest) = farewell {
            let written = ready!(transport.poll_write(context, rest))?;
            rest.advance(written);
            if written == 0 || rest.is_empty() {
                *farewell = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the connection with what we say in actix's place. To actix this is the client that hangs up.
    fn hangs_up(&mut self, why: Refusal, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pulse().refuse() {
            self.farewell = Some(self.member().refuse(why));
            // A client that does not even take this is not waited for.
            let _ = self.poll_farewell(context);
            self.farewell = None;
        }
        Poll::Ready(Ok(()))
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
            // It said more before, which waits.
            Silence::Heard if self.pipeline.holds() => Poll::Pending,
            Silence::Heard => Poll::Ready(Ok(())),
        }
    }

    /// Passes on of what is held what is awaited now, if anything is.
    fn passes_held(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let (transport, pipeline) = self.parts();
        let pulse = transport.member().pulse();
        pipeline.catch_up(pulse);
        let next = if pipeline.holds() { pipeline.next(buffer.remaining(), pulse) } else { None };
        if let Some(next) = &next {
            buffer.put_slice(next);
            pulse.heard(next.len());
        }
        next.is_some()
    }

    /// Sees to it that what waits is asked for when it is awaited; whether no more is to be read before that.
    fn has_enough(&mut self, context: &Context<'_>) -> bool {
        let (transport, pipeline) = self.parts();
        let pulse = transport.member().pulse();
        if pipeline.holds() {
            if pipeline.waits_for_beginning() {
                context.waker().wake_by_ref();
                return true;
            }
            pulse.has_next();
        }
        let has_enough = pulse.is_far_ahead() || pipeline.is_full();
        if has_enough || pipeline.holds() {
            pulse.park(context);
        }
        has_enough
    }

    /// Takes note of what has come behind what was filled `before`, and leaves in the buffer what actix is to have of it.
    fn takes_in(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> usize {
        let (transport, pipeline) = self.parts();
        let (pulse, came) = (transport.member().pulse(), &buffer.filled()[before..]);
        pulse.heard(came.len());
        let passed = pipeline.take(came, pulse);
        buffer.set_filled(before + passed);
        passed
    }
}

impl Transport {
    fn member(&self) -> &Member {
        match self {
            Self::Plain(socket) => &socket.member,
            Self::Tls(tls) => &tls.get_ref().0.member,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }

    /// Waits, with nothing in hand but the connection, until its client says something, unless it has (`held`), and goes on as
    /// if that were the first; `None` when it is over.
    pub(super) async fn wakes(mut self, held: BytesMut) -> Option<Stream> {
        let pulse = self.member().pulse().clone();
        let says = poll_fn(|context| {
            let mut scratch = [MaybeUninit::uninit(); AT_ONCE];
            let mut buffer = ReadBuf::uninit(&mut scratch);
            match self.poll_read(context, &mut buffer) {
                Poll::Pending if pulse.over().is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
                Poll::Ready(read) => Poll::Ready(read.is_ok().then(|| BytesMut::from(buffer.filled()))),
            }
        });
        let said = if held.is_empty() { says.await } else { Some(held) };
        let Some(said) = said.filter(|said| !said.is_empty()) else {
            // Whoever is gone does not hear it.
            let _ = poll_fn(|context| self.poll_shutdown(context)).await;
            return None;
        };
        pulse.wakes_up();
        pulse.lives_on();
        let mut stream = Stream::over(self);
        stream.pipeline = Pipeline::holding(said);
        Some(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (before, room) = (buffer.filled().len(), buffer.remaining() > 0);
        let over = this.pulse().over();
        if over.is_none() {
            if this.passes_held(buffer) {
                return Poll::Ready(Ok(()));
            }
            if this.pipeline.has_long_name() {
                return this.hangs_up(Refusal::LongHead, context);
            }
            if this.has_enough(context) {
                return Poll::Pending;
            }
        }
        loop {
            match (this.parts().0.poll_read(context, buffer), over) {
                (_, Some(Over::Write)) => return Poll::Ready(Err(timed_out())),
                (_, Some(Over::Head)) => {
                    buffer.set_filled(before);
                    return this.hangs_up(Refusal::SlowHead, context);
                }
                (_, Some(Over::Left)) => {
                    buffer.set_filled(before);
                    return Poll::Ready(Ok(()));
                }
                (Poll::Pending, Some(Over::Idle)) => return Poll::Ready(Ok(())),
                (read, over) => {
                    let read = ready!(read);
                    if read.is_err() || (room && buffer.filled().len() == before) {
                        this.pulse().hangs_up();
                    }
                    read?;
                    if buffer.filled().len() == before {
                        return if room { this.at_end(context) } else { Poll::Ready(Ok(())) };
                    }
                    if over.is_some() {
                        // Just in time.
                        this.pulse().lives_on();
                    }
                    if this.takes_in(buffer, before) > 0 {
                        return Poll::Ready(Ok(()));
                    }
                    if this.pipeline.has_long_name() {
                        return this.hangs_up(Refusal::LongHead, context);
                    }
                    if this.has_enough(context) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.farewell.is_none() {
            self.farewell = self.replaced(bytes);
        }
        if self.farewell.is_some() {
            ready!(self.poll_farewell(context))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        self.parts().0.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match self.parts().0 {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(context),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(context),
        };
        if let Poll::Ready(Ok(())) = flushed {
            self.pulse().flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.parts().0.poll_shutdown(context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(transport) = self.transport.take() {
            self.sequel.set(Some(Then::Remains(transport, self.pipeline.leaves())));
        }
    }
}
