//! Where other members come in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::link::Link;
use super::{CONNECTION_WINDOW, PeerService, STREAM_WINDOW};
use crate::accept::{Guests, READY_CONNECTIONS, Shaken, accept_loop};
use crate::engine::codec::proto::peer_server::PeerServer;
#[cfg(test)]
use crate::engine::simulation::Pipe;
use crate::listen::ListenUrl;
use crate::tls::{TlsFiles, TlsSource};
use crate::transport::Listener;

/// The other members.
const MEMBERS: Guests = Guests { name: "members", handshakes: 64, deadline: Duration::from_secs(5) };

/// A socket that other members connect to.
pub(in crate::engine) struct PeerListener {
    socket: Socket,
    tls: Option<Arc<TlsSource>>,
}

enum Socket {
    #[cfg(test)]
    Simulated(mpsc::UnboundedReceiver<Pipe>),
    Real(Listener),
}

/// Listens on `url`.
///
/// # Errors
/// What the kernel says, or what is wrong with the files of TLS.
pub(in crate::engine) fn bind(url: &ListenUrl, tls: Option<&TlsFiles>) -> io::Result<PeerListener> {
    let tls = match (url.tls, tls) {
        (false, _) => None,
        (true, Some(files)) => {
            Some(Arc::new(TlsSource::new(files.clone().into()).map_err(io::Error::other)?))
        }
        (true, None) => return Err(io::Error::other("there is no certificate to show to other members")),
    };
    let socket = Socket::Real(Listener::bind(&url.address)?);
    Ok(PeerListener { socket, tls })
}

/// Answers other members until `stop`; their connections end then, too.
pub(in crate::engine) async fn serve(
    listeners: Vec<PeerListener>,
    service: PeerService,
    election_timeout: Duration,
    stop: CancellationToken,
) {
    let (ready, connections) = mpsc::channel(READY_CONNECTIONS);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(listener, ready.clone(), stop.clone()));
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

/// Takes connections until `stop`, and cuts them then.
async fn accept(listener: PeerListener, ready: mpsc::Sender<io::Result<Link>>, stop: CancellationToken) {
    let PeerListener { socket, tls } = listener;
    let cut = stop.clone();
    match socket {
        #[cfg(test)]
        Socket::Simulated(mut pipes) => {
            while let Some(Some(pipe)) = stop.run_until_cancelled(pipes.recv()).await {
                drop(ready.send(Ok(Link::new(pipe, cut.clone()))).await);
            }
        }
        Socket::Real(listener) => {
            let admit = move |shaken| {
                Ok(match shaken {
                    Shaken::Plain(stream) => Link::new(stream, cut.clone()),
                    Shaken::Tls(stream, _) => Link::new(stream, cut.clone()),
                })
            };
            accept_loop(listener, tls, MEMBERS, admit, ready, stop).await;
        }
    }
}
