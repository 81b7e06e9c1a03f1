//! Ends sockets that hold on to a backend which is of no use to them any more.
//!
//! ```text
//!  maps changed ─► look into every namespace: which sockets were translated? ─► Reconciler: which are stale? ─► destroyed
//! ```
//!
//! It looks at what there is, not at what has changed: an agent that starts finds what it missed.

mod diagnosis;
mod message;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use landbridge_bpf_loader::ConnectedSockets;
use landbridge_bpf_maps::SocketService;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::diagnosis::Diagnosis;
use self::message::{ConnectedSocket, SocketName};
use crate::error_chain::chain;
use crate::reconciler::{Connection, NodeHandle};

/// Shortest time between two looks.
const REST: Duration = Duration::from_millis(500);

/// The network namespaces of this node's pods, by the files that they are mounted on. Sent anew whenever there is reason to
/// look into them.
pub(crate) type Namespaces = Vec<PathBuf>;

/// See the module.
pub(crate) struct SocketEnder {
    connected: Arc<ConnectedSockets>,
    reconciler: NodeHandle,
    looks: watch::Receiver<Namespaces>,
}

/// The translated sockets of one namespace.
struct Found {
    diagnosis: Diagnosis,
    sockets: Vec<TranslatedSocket>,
}

/// A socket that calls a service, and is connected to a backend.
struct TranslatedSocket {
    name: SocketName,
    translation: SocketService,
}

impl SocketEnder {
    pub(crate) fn new(
        connected: ConnectedSockets,
        reconciler: NodeHandle,
        looks: watch::Receiver<Namespaces>,
    ) -> Self {
        Self { connected: Arc::new(connected), reconciler, looks }
    }

    /// Looks whenever it is asked to, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                asked = self.looks.changed() => if asked.is_err() { return },
            }
            self.look().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(REST) => {}
            }
        }
    }

    async fn look(&mut self) {
        let namespaces = self.looks.borrow_and_update().clone();
        let connected = Arc::clone(&self.connected);
        let Ok(found) = spawn_blocking(move || search(&namespaces, &connected)).await else { return };
        let connections: Vec<Connection> =
            found.iter().flat_map(|found| &found.sockets).map(connection).collect();
        if connections.is_empty() {
            return;
        }
        let stale = match self.reconciler.stale(connections).await {
            Ok(stale) => stale,
            Err(error) => {
                debug!(error = chain(&error), "sockets not judged");
                return;
            }
        };
        let ended = spawn_blocking(move || end(&found, &stale)).await.unwrap_or_default();
        if ended > 0 {
            info!(ended, "sockets ended whose backend is gone");
        }
    }
}

fn connection(socket: &TranslatedSocket) -> Connection {
    Connection { protocol: socket.name.protocol, translation: socket.translation }
}

/// The translated sockets of this namespace and of others. One that cannot be entered is of a pod that just went.
fn search(namespaces: &[PathBuf], connected: &ConnectedSockets) -> Vec<Found> {
    let diagnoses = thread::scope(|scope| {
        // A thread of its own: it does not come back from where it goes.
        let thread = scope.spawn(|| {
            let here = Diagnosis::open().inspect_err(|error| {
                warn!(error = chain(error), "the kernel does not tell of sockets");
            });
            let others = namespaces.iter().filter_map(|path| {
                enter(path)
                    .and_then(|()| Diagnosis::open())
                    .inspect_err(|error| debug!(?path, error = chain(error), "namespace not entered"))
                    .ok()
            });
            here.ok().into_iter().chain(others).collect::<Vec<_>>()
        });
        thread.join().unwrap_or_default()
    });
    let found = diagnoses.into_iter().filter_map(|diagnosis| match diagnosis.with_peer() {
        Ok(sockets) => {
            let sockets = sockets.into_iter().filter_map(|socket| translated(socket, connected)).collect();
            Some(Found { diagnosis, sockets })
        }
        Err(error) => {
            warn!(error = chain(&error), "sockets not listed");
            None
        }
    });
    found.collect()
}

/// A socket that was translated, and is connected to what it was translated to.
fn translated(socket: ConnectedSocket, connected: &ConnectedSockets) -> Option<TranslatedSocket> {
    let ConnectedSocket { name, peer, peer_port } = socket;
    let translation = connected
        .translation(name.cookie())
        .inspect_err(|error| warn!(error = chain(error), "socket not judged"))
        .ok()??;
    let is_current = (peer, peer_port) == (translation.backend, translation.backend_port);
    is_current.then_some(TranslatedSocket { name, translation })
}

fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Ends those that are `stale`, in the order in which they were found; returns how many there were still.
fn end(found: &[Found], stale: &[bool]) -> usize {
    let sockets =
        found.iter().flat_map(|found| found.sockets.iter().map(move |socket| (&found.diagnosis, socket)));
    let stale = sockets.zip(stale).filter(|(_, stale)| **stale).map(|(socket, _)| socket);
    let ended = stale.filter(|(diagnosis, socket)| {
        diagnosis.destroy(&socket.name).unwrap_or_else(|error| {
            warn!(backend = ?socket.translation.backend, error = chain(&error), "socket not ended");
            false
        })
    });
    ended.count()
}
