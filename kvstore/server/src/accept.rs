//! Takes connections, shakes hands, hands them on.
//!
//! ```text
//! listener ─► accept loop ─► handshakes, each in a task, so many at a time ─► queue ─► gRPC
//! ```
//!
//! Invariants:
//! - A client that is slow in its handshake holds up no one: it has a place among many and a deadline. One address gets
//!   half of the places, and when all are taken, others wait in the kernel.
//! - A connection of a user who has too many is closed, whatever others have.
//! - Every handshake ends with the loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::connection::{Connection, User};
use crate::error_chain::chain;
use crate::quota::Quota;
use crate::tls::TlsSource;
use crate::transport::{Listener, Stream};

/// Handshakes under way at a time.
const HANDSHAKES: usize = 256;
/// How long one may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections that have shaken hands and wait to be served. When full, handshakes wait.
pub(crate) const READY_CONNECTIONS: usize = 16;
/// How long to wait after the kernel had no connection to give: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until `stop`. Those taken end when `cut` is cancelled.
pub(crate) async fn accept_loop(
    listener: Listener,
    tls: Option<Arc<TlsSource>>,
    quota: Quota<User>,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    let shares = Quota::new(HANDSHAKES);
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
                        debug!(?from, "too many handshakes with this address: one more is closed");
                        continue;
                    };
                    let (tls, quota) = (tls.clone(), quota.clone());
                    let (ready, cut) = (ready.clone(), cut.clone());
                    handshakes.spawn(async move {
                        let shaken = timeout(HANDSHAKE_DEADLINE, handshake(stream, tls, quota, cut));
                        match shaken.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                            // The receiver is gone when the server stops.
                            Ok(connection) => drop(ready.send(Ok(connection)).await),
                            Err(error) => debug!(?from, %error, "connection refused"),
                        }
                        drop((place, share));
                    });
                }
                Err(error) => {
                    warn!(%error, "no connection can be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    handshakes.shutdown().await;
}

async fn handshake(
    stream: Stream,
    tls: Option<Arc<TlsSource>>,
    quota: Quota<User>,
    cut: CancellationToken,
) -> io::Result<Connection> {
    stream.prepare()?;
    let Some(tls) = tls else { return Connection::plain(stream, &quota, cut) };
    let names_user = tls.names_user();
    let config = tokio::task::spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
    let config = config.map_err(|error| {
        warn!(error = chain(&error), "the files of TLS cannot be used, so that no one gets in");
        io::Error::other(error)
    })?;
    Connection::tls(TlsAcceptor::from(config).accept(stream).await?, names_user, &quota, cut)
}
