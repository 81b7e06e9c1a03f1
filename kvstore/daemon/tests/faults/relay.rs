//! What goes between members as processes goes through here, and can be held up in one direction.
//!
//! ```text
//! process ─► port of the relay for a member ─► whose socket is it? ─► the member's own port
//! ```
//!
//! As with a cable, what is held up is not lost and connections do not end; it goes on when the cable is in again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who is not heard by whom.
pub(crate) type Cuts = BTreeSet<(usize, usize)>;

/// The processes, by which member they are.
pub(crate) type Pids = Arc<Mutex<Vec<Option<u32>>>>;

/// Passes on what comes to a member, as long as it lives.
#[derive(Debug)]
pub(crate) struct Relay {
    to: usize,
    target: SocketAddr,
    pids: Pids,
    cuts: watch::Receiver<Cuts>,
}

impl Relay {
    pub(crate) fn spawn(
        listener: TcpListener,
        to: usize,
        target: SocketAddr,
        pids: Pids,
        cuts: watch::Receiver<Cuts>,
    ) {
        let this = Arc::new(Self { to, target, pids, cuts });
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let this = Arc::clone(&this);
                // A connection that ends is made anew by the members.
                tokio::spawn(async move { drop(this.pass(stream, from).await) });
            }
        });
    }

    async fn pass(&self, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        let from = self.owner(from).ok_or(io::ErrorKind::NotFound)?;
        self.open(from, self.to).await;
        let onward = TcpStream::connect(self.target).await?;
        let ((from_read, from_write), (to_read, to_write)) = (stream.into_split(), onward.into_split());
        tokio::select! {
            ended = self.copy(from_read, to_write, from, self.to) => ended,
            ended = self.copy(to_read, from_write, self.to, from) => ended,
        }
    }

    /// Waits until `to` hears `from`.
    async fn open(&self, from: usize, to: usize) {
        // The sender lives as long as the processes.
        let _ = self.cuts.clone().wait_for(|cuts| !cuts.contains(&(from, to))).await;
    }

    async fn copy(
        &self,
        mut read: OwnedReadHalf,
        mut write: OwnedWriteHalf,
        from: usize,
        to: usize,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = read.read(&mut buffer).await?;
            self.open(from, to).await;
            if len == 0 {
                return Ok(());
            }
            write.write_all(&buffer[..len]).await?;
        }
    }

    /// The member whose socket this is.
    fn owner(&self, socket: SocketAddr) -> Option<usize> {
        let port = format!("{:04X}", socket.port());
        let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
        let inode = sockets.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let own = fields.get(1)?.rsplit_once(':')?.1;
            (own == port).then(|| fields.get(9).copied()).flatten().filter(|inode| *inode != "0")
        })?;
        let link = format!("socket:[{inode}]");
        let pids = self.pids.lock().unwrap().clone();
        pids.into_iter().position(|pid| {
            let descriptors = pid.and_then(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
            descriptors.into_iter().flatten().flatten().any(|descriptor| {
                fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
            })
        })
    }
}
