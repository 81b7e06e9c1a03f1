//! Tells HTTP/2 from HTTP/1 by the first bytes, and gives them back; has what old clients say mended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::authority::Mender;

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at a time before a connection is handed on as it is.
const CHUNK: usize = 4 << 10;

/// A connection whose first bytes were looked at.
#[derive(Debug)]
pub(super) struct Opened<T> {
    connection: T,
    seen: [u8; HTTP2.len()],
    /// Of `seen`: how many were read, and how many of these were given back.
    read: usize,
    given: usize,
    mender: Mender,
    /// What was read and not handed on yet, as long as there may be something to mend.
    held: BytesMut,
    /// How much of `held` may be.
    ready: usize,
}

impl<T: AsyncRead + Unpin> Opened<T> {
    /// Reads until it is clear what the connection speaks, and tells whether that is HTTP/2.
    ///
    /// # Errors
    /// The connection's, and its end.
    pub(super) async fn look(mut connection: T) -> io::Result<(Self, bool)> {
        let (mut seen, mut read) = ([0; HTTP2.len()], 0);
        while read < seen.len() && seen[..read] == HTTP2[..read] {
            match connection.read(&mut seen[read..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        let is_http2 = seen[..read] == HTTP2[..];
        let (mender, held) = (Mender::default(), BytesMut::new());
        Ok((Self { connection, seen, read, given: 0, mender, held, ready: 0 }, is_http2))
    }

    /// Reads until there is something to hand on, which may be the end.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ready == 0 {
            let held = self.held.len();
            self.held.resize(held + CHUNK, 0);
            let mut chunk = ReadBuf::new(&mut self.held[held..]);
            let polled = Pin::new(&mut self.connection).poll_read(context, &mut chunk);
            let more = chunk.filled().len();
            self.held.truncate(held + more);
            ready!(polled)?;
            if more == 0 {
                // The rest of what was cut off, if there is any.
                self.ready = held;
                break;
            }
            self.ready = self.mender.mend(&mut self.held);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Opened<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.given == self.read {
            let is_http2 = self.seen == *HTTP2;
            if !is_http2 || self.mender.is_done() && self.held.is_empty() {
                return Pin::new(&mut self.connection).poll_read(context, buffer);
            }
            ready!(self.poll_held(context))?;
            let ready = self.ready.min(buffer.remaining());
            buffer.put_slice(&self.held[..ready]);
            self.held.advance(ready);
            self.ready -= ready;
            return Poll::Ready(Ok(()));
        }
        let end = self.read.min(self.given + buffer.remaining());
        buffer.put_slice(&self.seen[self.given..end]);
        self.given = end;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Opened<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.connection).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_looked_at_is_read_all_the_same(is_http2: bool, mut bytes: Vec<u8>, chunk in 1_usize..40) {
            if is_http2 {
                bytes.splice(..0, *HTTP2);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let looked = runtime.block_on(async {
                let (client, server) = tokio::io::duplex(chunk);
                let sent = bytes.clone();
                let write = async move {
                    let mut client = client;
                    tokio::io::AsyncWriteExt::write_all(&mut client, &sent).await.unwrap();
                };
                let read = async {
                    let (mut opened, is_http2) = Opened::look(server).await.ok()?;
                    let mut all = Vec::new();
                    opened.read_to_end(&mut all).await.unwrap();
                    Some((all, is_http2))
                };
                tokio::join!(write, read).1
            });
            match looked {
                Some((all, looks_like_http2)) => {
                    prop_assert_eq!(&all, &bytes);
                    prop_assert_eq!(looks_like_http2, bytes.starts_with(HTTP2));
                }
                None => prop_assert!(HTTP2.starts_with(&bytes) && bytes.len() < HTTP2.len()),
            }
        }
    }
}
