//! What the server holds for clients that do not keep up: answers that they have not read, requests that they have not ended.
//!
//! ```text
//! request ─► Unfinished: refused if too much is held ─► room(): waits while too much is unread ─► answer ─► unread() ─► kernel
//! ```
//!
//! Invariants:
//! - An answer counts from when it was built until its last byte went to the kernel or its stream has ended. While its
//!   connection has its share unread, or all together have the most, nothing more that is read of the store is built.
//! - A large request counts while it comes in and until it is answered. One that would be too much is refused: to leave it
//!   unread would hold up the others of its connection.
//! - Where something waits or is refused because of all connections together, those are cut off that have neither taken nor
//!   sent anything for [`STALLED`], so that the others go on.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::warn;

use crate::grpc::too_many_requests;

/// What is smaller costs hardly more than the stream that it is of, and does not count: of answers, and of requests.
const SMALL_ANSWER: usize = 1 << 10;
pub(crate) const SMALL_REQUEST: usize = 64 << 10;
/// How long a connection may stand still while others wait for what it holds.
const STALLED: Duration = Duration::from_secs(10);
/// How often those who wait look for connections that stand still.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many connections have the most unread together, if each has its share.
const SHARES: usize = 8;

/// What is held for all connections. Clones are of the same one.
#[derive(Clone, Debug)]
pub(crate) struct HeldForAll(Arc<All>);

#[derive(Debug)]
struct All {
    /// Bytes, of answers and of requests each.
    most: usize,
    unread: AtomicUsize,
    unfinished: AtomicUsize,
    since: Instant,
    connections: Mutex<Vec<Weak<One>>>,
    read: Notify,
}

/// What is held for one connection. Clones are of the same one.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<One>);

#[derive(Debug)]
struct One {
    all: Arc<All>,
    unread: AtomicUsize,
    unfinished: AtomicUsize,
    /// When something moved last, in milliseconds since the server's start.
    moved: AtomicU64,
    read: Arc<Notify>,
    cut: CancellationToken,
}

impl HeldForAll {
    /// At most about so many bytes of answers, and as many of requests.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(All {
            most,
            unread: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            since: Instant::now(),
            connections: Mutex::default(),
            read: Notify::new(),
        }))
    }

    /// For one more connection, which ends when `cut` is cancelled.
    pub(crate) fn connection(&self, cut: CancellationToken) -> Held {
        let one = Arc::new(One {
            all: Arc::clone(&self.0),
            unread: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            moved: AtomicU64::new(self.0.now()),
            read: Arc::default(),
            cut,
        });
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(&one));
        Held(one)
    }
}

impl All {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_full(&self) -> bool {
        self.unread.load(Relaxed) >= self.most
    }

    /// Cuts off the connections that hold something and stand still.
    fn cut_stalled(&self) {
        let stalled = u64::try_from(STALLED.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.iter().filter_map(Weak::upgrade) {
            let (unread, unfinished) = (connection.unread.load(Relaxed), connection.unfinished.load(Relaxed));
            let stands = now.saturating_sub(connection.moved.load(Relaxed)) >= stalled;
            if stands && unread + unfinished > 0 && !connection.cut.is_cancelled() {
                warn!(unread, unfinished, "a client that takes and sends nothing is cut off: others wait");
                connection.cut.cancel();
            }
        }
    }
}

impl Held {
    /// Waits until something may be built for the client to read. What is built has to be counted before the task waits
    /// for anything else, or many who waited here build at once.
    pub(crate) async fn room(&self) {
        let One { all, .. } = &*self.0;
        while self.is_full() || all.is_full() {
            // From here on no end of anything is missed, so that it is looked at once more.
            let (own, any) = (self.0.read.notified(), all.read.notified());
            let read = match (self.is_full(), all.is_full()) {
                (true, _) => own,
                (false, true) => any,
                (false, false) => return,
            };
            if timeout(LOOK_INTERVAL, read).await.is_err() && all.is_full() {
                all.cut_stalled();
            }
        }
    }

    /// Whether the connection has its share unread.
    pub(crate) fn is_full(&self) -> bool {
        self.0.unread.load(Relaxed) >= self.0.all.most / SHARES
    }

    /// Completes when something was read that was not when this was called, or soon after.
    pub(crate) fn has_read(&self) -> OwnedNotified {
        Arc::clone(&self.0.read).notified_owned()
    }

    /// Counts an answer, or a part of one, until it is dropped.
    pub(crate) fn unread(&self, bytes: Bytes) -> Bytes {
        let len = bytes.len();
        if len < SMALL_ANSWER {
            return bytes;
        }
        if self.0.unread.fetch_add(len, Relaxed) == 0 {
            // Nobody stands still who had nothing to take before.
            self.note_moved();
        }
        self.0.all.unread.fetch_add(len, Relaxed);
        Bytes::from_owner(Unread { bytes, held: self.clone() })
    }

    /// Takes note that the client takes or sends something.
    pub(crate) fn note_moved(&self) {
        self.0.moved.store(self.0.all.now(), Relaxed);
    }
}

/// Bytes that a client has not read.
struct Unread {
    bytes: Bytes,
    held: Held,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let One { all, unread, read, .. } = &*self.held.0;
        unread.fetch_sub(self.bytes.len(), Relaxed);
        all.unread.fetch_sub(self.bytes.len(), Relaxed);
        self.held.note_moved();
        read.notify_waiters();
        all.read.notify_waiters();
    }
}

/// A request that comes in, or waits for its answer.
#[derive(Debug)]
pub(crate) struct Unfinished {
    held: Held,
    counted: usize,
}

impl Unfinished {
    pub(crate) fn new(held: Held) -> Self {
        Self { held, counted: 0 }
    }

    /// So many bytes of it are held now.
    ///
    /// # Errors
    /// If that is too much: as etcd says it where it has too much to do.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let bytes = if bytes < SMALL_REQUEST { 0 } else { bytes };
        if bytes == 0 && self.counted == 0 {
            return Ok(());
        }
        let One { all, unfinished, .. } = &*self.held.0;
        self.held.note_moved();
        // First what there is more of: what others see is never too little.
        let own = unfinished.fetch_add(bytes, Relaxed) + bytes - self.counted;
        let together = all.unfinished.fetch_add(bytes, Relaxed) + bytes - self.counted;
        unfinished.fetch_sub(self.counted, Relaxed);
        all.unfinished.fetch_sub(self.counted, Relaxed);
        let is_more = bytes > self.counted;
        self.counted = bytes;
        if together > all.most {
            all.cut_stalled();
        }
        // As with connections: one has half of what there is.
        if is_more && (own > all.most.div_ceil(2) || together > all.most) {
            return Err(too_many_requests());
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let One { all, unfinished, .. } = &*self.held.0;
        unfinished.fetch_sub(self.counted, Relaxed);
        all.unfinished.fetch_sub(self.counted, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_their_share_unread_waits_until_they_read() {
        let all = HeldForAll::new(80_000);
        let (greedy, other) =
            (all.connection(CancellationToken::new()), all.connection(CancellationToken::new()));
        let unread = greedy.unread(answer(10_000));
        assert_eq!(unread, answer(10_000));
        other.room().await;
        let mut room = std::pin::pin!(greedy.room());
        assert!(timeout(STALLED * 2, room.as_mut()).await.is_err());
        // A part of it that is still on its way is as much as all of it.
        let part = unread.slice(..10);
        drop(unread);
        assert!(timeout(STALLED * 2, room.as_mut()).await.is_err());
        drop(part);
        room.await;
        assert!(!greedy.0.cut.is_cancelled(), "nobody waited for it");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_stand_still_are_cut_off_when_others_wait() {
        let all = HeldForAll::new(80_000);
        let connect = || all.connection(CancellationToken::new());
        let (stands, idle, moves, begins, waits) = (connect(), connect(), connect(), connect(), connect());
        let (stood, moved) = (stands.unread(answer(40_000)), moves.unread(answer(9_000)));
        tokio::time::sleep(STALLED).await;
        moves.note_moved();
        let begun = begins.unread(answer(40_000));
        let mut room = std::pin::pin!(waits.room());
        assert!(timeout(LOOK_INTERVAL * 2, room.as_mut()).await.is_err());
        let is_cut = [&stands, &idle, &moves, &begins, &waits].map(|held| held.0.cut.is_cancelled());
        assert_eq!(is_cut, [true, false, false, false, false]);
        // Its connection drops what was on its way.
        drop(stood);
        room.await;
        drop((moved, begun));
        assert_eq!((all.0.unread.load(Relaxed), all.0.unfinished.load(Relaxed)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_count_once_they_are_large_and_until_they_are_gone() {
        let all = HeldForAll::new(400_000);
        let (one, other) =
            (all.connection(CancellationToken::new()), all.connection(CancellationToken::new()));
        let mut requests: Vec<Unfinished> = (0..3).map(|_| Unfinished::new(one.clone())).collect();
        requests[0].set(SMALL_REQUEST - 1).unwrap();
        assert_eq!(all.0.unfinished.load(Relaxed), 0);
        requests[0].set(100_000).unwrap();
        requests[1].set(100_000).unwrap();
        requests[2].set(100_000).unwrap_err();
        assert_eq!(all.0.unfinished.load(Relaxed), 300_000);
        requests[2].set(0).unwrap();
        Unfinished::new(other.clone()).set(200_000).unwrap();
        assert_eq!(all.0.unfinished.load(Relaxed), 200_000);
        let mut third = Unfinished::new(other);
        third.set(200_000).unwrap();
        requests[1].set(150_000).unwrap_err();
        drop((requests, third));
        assert_eq!(all.0.unfinished.load(Relaxed), 0);
    }
}
