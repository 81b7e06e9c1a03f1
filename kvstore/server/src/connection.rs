//! One connection of a client, with or without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::accept::Shaken;
use crate::grpc::Peer;
use crate::quota::{Place, Quota};
use crate::tls;

/// Who takes a place among the connections; those without a certificate are one.
pub(crate) type User = Option<Arc<str>>;

/// A connection that knows who is at its other end, and that the server can cut.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Shaken,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place<User>,
}

impl Connection {
    /// A connection after its handshake, which has verified the certificate; that names the user, if it may.
    ///
    /// # Errors
    /// If there is no place left for the user.
    pub(crate) fn admit(transport: Shaken, quota: &Quota<User>, cut: CancellationToken) -> io::Result<Self> {
        let peer = match &transport {
            Shaken::Plain(_) => Peer::default(),
            Shaken::Tls(tls, names_user) => {
                let leaf = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let leaf = leaf.filter(|_| *names_user);
                Peer::certified(leaf.map(|leaf| tls::user(leaf).unwrap_or_default()))
            }
        };
        let Some(place) = quota.take(peer.user.clone()) else {
            warn!(user = peer.user.as_deref(), "too many connections: one more is closed");
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        Ok(Self { transport, peer, cut: Box::pin(cut.cancelled_owned()), _place: place })
    }

    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        match &mut self.transport {
            Shaken::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Shaken::Tls(tls, _) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        match &mut self.transport {
            Shaken::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Shaken::Tls(tls, _) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_cut(context)?;
        match &mut self.transport {
            Shaken::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Shaken::Tls(tls, _) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Shaken::Plain(stream) => stream.is_write_vectored(),
            Shaken::Tls(tls, _) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        match &mut self.transport {
            Shaken::Plain(stream) => Pin::new(stream).poll_flush(context),
            Shaken::Tls(tls, _) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut(context)?;
        match &mut self.transport {
            Shaken::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Shaken::Tls(tls, _) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
