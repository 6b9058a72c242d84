//! A connection to upstream that speaks HTTP no more.

use super::connect::Link;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An upgraded connection to upstream.
pub struct Tunnel {
    /// What came right behind the 101.
    first: Bytes,
    link: Link,
}

impl Tunnel {
    pub(super) fn new(link: Link, first: Bytes) -> Self {
        Self { first, link }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.link).poll_read(context, buffer);
        }
        let read = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..read]);
        self.first.advance(read);
        if self.first.is_empty() {
            // What is left of it would hold its buffer for as long as the tunnel is open.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(context)
    }
}
