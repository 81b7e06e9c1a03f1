//! A connection to or from another member: a port or a socket in the file system, with or without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::switch::{Direction, Switch};
use super::tls;
use crate::platform::Platform;
use crate::tls::TlsFiles;

/// How often a connection that is held up looks whether it still is.
const HELD_UP: Duration = Duration::from_millis(10);

/// Bytes in both directions.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection, which ends when it is told to.
pub(super) struct Link {
    transport: Box<dyn Transport>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    switch: Option<(Switch, u64)>,
    held_up: Option<Pin<Box<Sleep>>>,
}

impl Link {
    pub(super) fn new(transport: impl Transport + 'static, cut: CancellationToken) -> Self {
        Self {
            transport: Box::new(transport),
            cut: Box::pin(cut.cancelled_owned()),
            switch: None,
            held_up: None,
        }
    }

    /// A connection to `member` that `switch` can hold up.
    pub(super) fn switched(mut self, switch: Switch, member: u64) -> Self {
        self.switch = Some((switch, member));
        self
    }

    /// Whether bytes may go on.
    fn poll_open(&mut self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some((switch, member)) = &self.switch else { return Poll::Ready(Ok(())) };
        while switch.is_cut(*member, direction) {
            let pause = self.held_up.get_or_insert_with(|| Box::pin(sleep(HELD_UP)));
            match pause.as_mut().poll(context) {
                Poll::Ready(()) => self.held_up = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Connects to one of a member's URLs.
///
/// # Errors
/// What the last one said.
pub(super) async fn dial(
    urls: &[String],
    tls: Option<&TlsFiles>,
    platform: &Platform,
    cut: &CancellationToken,
) -> io::Result<Link> {
    #[cfg(test)]
    if let Some(simulated) = &platform.simulated {
        return Ok(Link::new(simulated.dial(urls).await?, cut.clone()));
    }
    let _ = platform;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no URL of the member is known");
    for url in urls {
        match dial_url(url, tls, cut).await {
            Ok(link) => return Ok(link),
            Err(error) => last = io::Error::new(error.kind(), format!("{url}: {error}")),
        }
    }
    Err(last)
}

async fn dial_url(url: &str, tls: Option<&TlsFiles>, cut: &CancellationToken) -> io::Result<Link> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("no URL"))?;
    match scheme {
        "unix" => Ok(Link::new(UnixStream::connect(rest).await?, cut.clone())),
        "http" => Ok(Link::new(connect(rest).await?, cut.clone())),
        "https" => {
            let files = tls.ok_or_else(|| invalid("no certificate to show to other members"))?.clone();
            let uri: http::Uri = url.parse().map_err(|_| invalid("no URL"))?;
            let host = uri.host().ok_or_else(|| invalid("no host"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|_| invalid("no name of a host"))?;
            let tcp = connect(rest).await?;
            // Read each time, so that replacing them needs no restart.
            let config = tokio::task::spawn_blocking(move || tls::client_config(&files));
            let config = config.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
            Ok(Link::new(stream, cut.clone()))
        }
        _ => Err(invalid("members are reached by http, https and unix")),
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address.trim_end_matches('/')).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

impl Connected for Link {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.poll_open(Direction::From, context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_read(context, buffer),
            other => other,
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_open(Direction::To, context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_write(context, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.poll_open(Direction::To, context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.transport).poll_write_vectored(context, slices),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
