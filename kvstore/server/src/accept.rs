//! Takes connections, shakes hands, hands them on.
//!
//! ```text
//! listener ─► accept loop ─► handshakes, each in a task, so many at a time ─► admit ─► queue ─► gRPC
//! ```
//!
//! Invariants:
//! - Who is slow in the handshake holds up no one: there is a place among many and a deadline. One address gets half
//!   of the places, and when all are taken, others wait in the kernel.
//! - Every handshake ends with the loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error_chain::chain;
use crate::quota::Quota;
use crate::tls::TlsSource;
use crate::transport::{Listener, Stream};

/// Connections that have shaken hands and wait to be served. When full, handshakes wait.
pub(crate) const READY_CONNECTIONS: usize = 16;
/// How long to wait after the kernel had no connection to give: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guests {
    /// What they are called in the log.
    pub(crate) name: &'static str,
    /// Handshakes under way at a time.
    pub(crate) handshakes: usize,
    /// How long one may take.
    pub(crate) deadline: Duration,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) enum Shaken {
    /// Without TLS.
    Plain(Stream),
    /// With TLS. Whether the certificate names the user, too.
    Tls(Box<TlsStream<Stream>>, bool),
}

/// Takes connections until `stop`, and has `admit` make of each what is handed on; one that it refuses is closed.
pub(crate) async fn accept_loop<C: Send + 'static>(
    listener: Listener,
    tls: Option<Arc<TlsSource>>,
    guests: Guests,
    admit: impl Fn(Shaken) -> io::Result<C> + Clone + Send + 'static,
    ready: mpsc::Sender<io::Result<C>>,
    stop: CancellationToken,
) {
    let Guests { name: guests, handshakes: most, deadline } = guests;
    let places = Arc::new(Semaphore::new(most));
    let shares = Quota::new(most);
    let mut handshakes = JoinSet::new();
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = handshakes.join_next() => {}
            (accepted, place) = accept => match accepted {
                Ok((stream, from)) => {
                    let Some(share) = shares.take(from) else {
                        debug!(guests, ?from, "too many handshakes with this address: one more is closed");
                        continue;
                    };
                    let (tls, ready, admit) = (tls.clone(), ready.clone(), admit.clone());
                    handshakes.spawn(async move {
                        let shaken = timeout(deadline, handshake(stream, tls)).await;
                        let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                        match shaken.and_then(admit) {
                            // The receiver is gone when the server stops.
                            Ok(connection) => drop(ready.send(Ok(connection)).await),
                            Err(error) => debug!(guests, ?from, %error, "connection refused"),
                        }
                        drop((place, share));
                    });
                }
                Err(error) => {
                    warn!(guests, %error, "no connection can be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    handshakes.shutdown().await;
}

async fn handshake(stream: Stream, tls: Option<Arc<TlsSource>>) -> io::Result<Shaken> {
    stream.prepare()?;
    let Some(tls) = tls else { return Ok(Shaken::Plain(stream)) };
    let names_user = tls.names_user();
    let config = tokio::task::spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
    let config = config.map_err(|error| {
        warn!(error = chain(&error), "the files of TLS cannot be used, so that no one gets in");
        io::Error::other(error)
    })?;
    let tls = TlsAcceptor::from(config).accept(stream).await?;
    Ok(Shaken::Tls(Box::new(tls), names_user))
}
