//! A client that asks for another protocol: its answer is the last on the connection, or a 101 that makes another thing of
//! it.
//!
//! actix takes its hands off such a connection before the request is answered, and its buffers with them: whatever becomes
//! of the connection holds only what it needs itself.

use super::pulse::{Body, LINGER};
use super::stream::{Stream, Then};
use actix_codec::{Encoder, Framed, FramedParts};
use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::h1::{Codec, Message};
use actix_http::{ConnectionType, Request, Response};
use actix_web::HttpResponse;
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::time::timeout;

/// How much is read at once, in bytes.
const READ: usize = 16 << 10;

/// What becomes of a connection after the 101 that carries this among its extensions.
pub struct Switch(Box<dyn FnOnce(Upgraded) -> LocalBoxFuture<'static, ()>>);

impl Switch {
    /// The connection belongs to `becomes`, and ends with it.
    pub fn to<F: Future<Output = ()> + 'static>(becomes: impl FnOnce(Upgraded) -> F + 'static) -> Self {
        Self(Box::new(|upgraded| Box::pin(becomes(upgraded))))
    }
}

/// A client's connection that is HTTP no more.
pub struct Upgraded {
    stream: Stream,
    /// What the client said before the 101.
    early: Bytes,
}

/// What there is to be read, in memory of just that size; nothing is the end. As long as there is nothing, no memory is
/// held.
///
/// # Errors
/// The connection breaks.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    poll_fn(|context| {
        let mut scratch = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// Answers `request`. If the connection becomes something else it is left at that, as its sequel; otherwise it ends here.
pub(super) async fn serve<F>(request: Request, framed: Framed<Stream, Codec>, answer: impl FnOnce(Request) -> F)
where
    F: Future<Output = HttpResponse>,
{
    // All answers before this one have gone out, or actix would not have been given the request.
    let FramedParts { io: mut stream, codec, read_buf, .. } = framed.into_parts();
    stream.leaves_http();
    // Not the buffer itself: that is long, and the request's head lies in it.
    let mut early = BytesMut::from(&read_buf[..]);
    drop(read_buf);
    let mut response = tokio::select! {
        biased;
        response = answer(request) => response,
        // Nobody is there to hear the answer.
        () = hears_out(&mut stream, |said| early.extend_from_slice(said)) => return,
    };
    let switch = response.extensions_mut().remove::<Switch>();
    let Some(Switch(becomes)) = switch else { return part(stream, codec, response).await };
    stream.pulse().body_is(Body::Awaited);
    if say(&mut stream, codec, response.into()).await.is_ok() {
        let sequel = stream.sequel().clone();
        sequel.set(Some(Then::Becomes(becomes(Upgraded { stream, early: early.freeze() }))));
    }
}

/// Tells `heed` what the client says, until it says no more or is gone.
async fn hears_out(from: &mut (impl AsyncRead + Unpin), mut heed: impl FnMut(&[u8])) {
    while let Ok(said) = read(from).await
        && !said.is_empty()
    {
        heed(&said);
    }
}

/// Gives an ordinary answer, and ends the connection.
async fn part(stream: Stream, codec: Codec, mut response: HttpResponse) {
    let pulse = stream.pulse().clone();
    response.head_mut().set_connection_type(ConnectionType::Close);
    // actix writes no chunks to a connection that asked for an upgrade: the body ends with the connection.
    let endless = response.body().size() == BodySize::Stream;
    response.head_mut().no_chunking(endless);
    if endless {
        pulse.ends_answer_with_connection();
    }
    let (mut from_client, mut to_client) = split(stream);
    tokio::select! {
        biased;
        said = say(&mut to_client, codec, response.into()) => if said.is_err() { return },
        () = hears_out(&mut from_client, |_| ()) => return,
    }
    // Whatever it still sends is no request to refuse.
    pulse.refuse();
    if to_client.shutdown().await.is_ok() {
        // What nobody has read resets the connection, and the answer may not have arrived.
        let _ = timeout(LINGER, hears_out(&mut from_client, |_| ())).await;
    }
}

/// Writes an answer, and its body as it comes.
///
/// # Errors
/// The client is gone, or takes nothing, or the body broke off.
async fn say(to: &mut (impl AsyncWrite + Unpin), mut codec: Codec, response: Response<BoxBody>) -> io::Result<()> {
    let (head, body) = response.into_parts();
    let (size, mut body) = (body.size(), pin!(body));
    let mut buffer = BytesMut::new();
    codec.encode(Message::Item((head, size)), &mut buffer)?;
    let mut is_over = matches!(size, BodySize::None | BodySize::Sized(0));
    loop {
        to.write_all(&buffer).await?;
        to.flush().await?;
        if is_over {
            return Ok(());
        }
        buffer.clear();
        let chunk = poll_fn(|context| body.as_mut().poll_next(context)).await.transpose();
        let chunk = chunk.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        is_over = chunk.is_none();
        codec.encode(Message::Chunk(chunk), &mut buffer)?;
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let here = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early.split_to(here));
        if self.early.is_empty() {
            // Even the end of a piece of memory keeps all of it.
            self.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
