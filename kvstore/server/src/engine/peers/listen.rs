//! Where other members come in.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::link::Link;
use super::{CONNECTION_WINDOW, PeerService, STREAM_WINDOW};
use crate::engine::codec::proto::peer_server::PeerServer;
#[cfg(test)]
use crate::engine::simulation::Pipe;
use crate::listen::{ListenAddress, ListenUrl};
use crate::tls::{TlsFiles, TlsSource};
use crate::transport::Stream;

/// Handshakes under way at a time, and how long one may take.
const HANDSHAKES: usize = 64;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait after the kernel had no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that other members connect to.
pub(in crate::engine) struct PeerListener {
    socket: Socket,
    tls: Option<Arc<TlsSource>>,
}

enum Socket {
    #[cfg(test)]
    Simulated(mpsc::UnboundedReceiver<Pipe>),
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Listens on `url`.
///
/// # Errors
/// What the kernel says, or what is wrong with the files of TLS.
pub(in crate::engine) async fn bind(url: &ListenUrl, tls: Option<&TlsFiles>) -> io::Result<PeerListener> {
    let tls = match (url.tls, tls) {
        (false, _) => None,
        (true, Some(files)) => {
            Some(Arc::new(TlsSource::new(files.clone().into()).map_err(io::Error::other)?))
        }
        (true, None) => return Err(io::Error::other("there is no certificate to show to other members")),
    };
    let socket = match &url.address {
        ListenAddress::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?),
        ListenAddress::Unix(path) => {
            // One that is left of a process that is gone; the lock of the data folder keeps two from running.
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => Socket::Unix(UnixListener::bind(path)?),
            }
        }
    };
    Ok(PeerListener { socket, tls })
}

/// Answers other members until `stop`; their connections end then, too.
pub(in crate::engine) async fn serve(
    listeners: Vec<PeerListener>,
    service: PeerService,
    election_timeout: Duration,
    stop: CancellationToken,
) {
    let (ready, connections) = mpsc::channel(16);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept_loop(listener, ready.clone(), stop.clone()));
    }
    drop(ready);
    let server =
        PeerServer::new(service).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(election_timeout))
        .http2_keepalive_timeout(Some(election_timeout))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(server)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.clone().cancelled_owned());
    if let Err(error) = serving.await {
        warn!(%error, "other members are no longer answered");
    }
    stop.cancelled().await;
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
impl PeerListener {
    /// One whose connections come from a simulated network.
    pub(in crate::engine) fn simulated(pipes: mpsc::UnboundedReceiver<Pipe>) -> Self {
        Self { socket: Socket::Simulated(pipes), tls: None }
    }
}

async fn accept_loop(listener: PeerListener, ready: mpsc::Sender<io::Result<Link>>, stop: CancellationToken) {
    #[cfg(test)]
    let listener = match listener.socket {
        Socket::Simulated(mut pipes) => {
            while let Some(Some(pipe)) = stop.run_until_cancelled(pipes.recv()).await {
                drop(ready.send(Ok(Link::new(pipe, stop.clone()))).await);
            }
            return;
        }
        _ => listener,
    };
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
            let accepted = match &listener.socket {
                Socket::Tcp(socket) => socket.accept().await.map(|(tcp, _)| Stream::Tcp(tcp)),
                Socket::Unix(socket) => socket.accept().await.map(|(unix, _)| Stream::Unix(unix)),
                #[cfg(test)]
                Socket::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            (accepted, place)
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = handshakes.join_next() => {}
            (accepted, place) = accept => match accepted {
                Ok(accepted) => {
                    let (tls, ready, cut) = (listener.tls.clone(), ready.clone(), stop.clone());
                    handshakes.spawn(async move {
                        let shaken = timeout(HANDSHAKE_DEADLINE, handshake(accepted, tls, cut)).await;
                        match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                            // The receiver is gone when the member stops.
                            Ok(link) => drop(ready.send(Ok(link)).await),
                            Err(error) => debug!(%error, "a connection of another member was refused"),
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "no connection of another member can be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    handshakes.shutdown().await;
}

async fn handshake(stream: Stream, tls: Option<Arc<TlsSource>>, cut: CancellationToken) -> io::Result<Link> {
    stream.prepare()?;
    let Some(tls) = tls else { return Ok(Link::new(stream, cut)) };
    let config = tokio::task::spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(config.map_err(io::Error::other)?);
    Ok(Link::new(acceptor.accept(stream).await?, cut))
}
