//! A relay in front of a store, which can break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Every connection is closed.
    Cut,
    /// Connections stay open, and nothing passes.
    Silent,
}

/// Ends with the test.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    passed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// In front of `target`, `host:port`.
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Forward);
        let mut tasks = JoinSet::new();
        let passed = Arc::<AtomicUsize>::default();
        tasks.spawn(accept(listener, target.to_owned(), modes, Arc::clone(&passed)));
        Self { address, mode, passed, _tasks: tasks }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that went to clients.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    pub(crate) fn restore(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

async fn accept(
    listener: TcpListener,
    target: String,
    modes: watch::Receiver<Mode>,
    passed: Arc<AtomicUsize>,
) {
    let mut relays = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while relays.try_join_next().is_some() {}
        if *modes.borrow() == Mode::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&target).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        relays.spawn(relay(from_client, to_server, modes.clone(), Arc::default()));
        relays.spawn(relay(from_server, to_client, modes.clone(), Arc::clone(&passed)));
    }
}

/// Returns when either side is closed or the relay is cut.
async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    passed: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mode = *modes.borrow_and_update();
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if mode == Mode::Forward => match read {
                Ok(len @ 1..) if to.write_all(&buffer[..len]).await.is_ok() => {
                    passed.fetch_add(len, Ordering::Relaxed);
                }
                _ => return,
            },
        }
        if *modes.borrow() == Mode::Cut {
            return;
        }
    }
}
