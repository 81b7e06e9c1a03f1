//! A network in memory: connections with delays, which can be held up in one direction, or end.
//!
//! ```text
//! Pipe ── write ─► Lane: bytes, and when each arrives ─► read ── Pipe
//! ```
//!
//! Invariants:
//! - As with TCP, what is on its way while a cable is out arrives later, in order, unless the connection ends before.
//! - A member without power is silent: its connections neither go on nor end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Bytes that may be on their way in one direction of a connection.
const WINDOW: usize = 256 << 10;

/// The name of the member at a URL.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}

/// The network of a simulation. Clones are of the same.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>, Arc<Notify>);

struct State {
    dice: fastrand::Rng,
    /// How long bytes are on their way at least.
    shortest: Duration,
    listeners: BTreeMap<String, mpsc::UnboundedSender<Pipe>>,
    /// Those who are not heard by whom.
    cut: BTreeSet<(String, String)>,
    /// Those without power.
    dark: BTreeSet<String>,
    lanes: Vec<Weak<Mutex<Lane>>>,
}

/// One direction of a connection.
struct Lane {
    from: String,
    to: String,
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    end: End,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// Whoever wrote has ended it.
    Finished,
    /// An error to both.
    Broken,
    /// Nothing goes on any more, and nobody is told.
    Silent,
}

impl Lane {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// Gives what has arrived first.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some((at, mut piece)) = self.pieces.pop_front() else { return };
        let len = piece.len().min(buffer.remaining());
        buffer.put_slice(&piece.split_to(len));
        if !piece.is_empty() {
            self.pieces.push_front((at, piece));
        }
        self.bytes -= len;
        self.wake();
    }

    fn end(&mut self, end: End) {
        self.end = end;
        if end != End::Finished {
            self.pieces.clear();
        }
        self.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            dice: fastrand::Rng::with_seed(seed),
            shortest: Duration::ZERO,
            listeners: BTreeMap::new(),
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            lanes: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)), Arc::new(Notify::new()))
    }

    /// How long bytes are on their way: mostly a moment, sometimes longer.
    fn delay(&self) -> Duration {
        let mut state = lock(&self.0);
        let longest = if state.dice.u8(..100) == 0 { 40_000 } else { 1_500 };
        state.shortest + Duration::from_micros(state.dice.u64(100..longest))
    }

    /// Every way is at least so long from now on.
    pub(super) fn set_shortest(&self, shortest: Duration) {
        lock(&self.0).shortest = shortest;
    }

    pub(super) fn listen(&self, name: &str) -> mpsc::UnboundedReceiver<Pipe> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = lock(&self.0);
        state.dark.remove(name);
        state.listeners.insert(name.to_owned(), sender);
        drop(state);
        self.1.notify_waiters();
        receiver
    }

    pub(super) async fn dial(&self, from: &str, to: &str) -> io::Result<Pipe> {
        loop {
            sleep(self.delay()).await;
            let changed = self.1.notified();
            {
                let mut state = lock(&self.0);
                let pair = (from.to_owned(), to.to_owned());
                let back = (to.to_owned(), from.to_owned());
                let unheard = state.cut.contains(&pair) || state.cut.contains(&back);
                if !unheard && !state.dark.contains(to) && !state.dark.contains(from) {
                    return self.connect(&mut state, pair, back);
                }
            }
            // Whoever asks has a limit.
            changed.await;
        }
    }

    fn connect(
        &self,
        state: &mut State,
        (from, to): (String, String),
        (back_from, back_to): (String, String),
    ) -> io::Result<Pipe> {
        let listener = state.listeners.get(&to).filter(|listener| !listener.is_closed());
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?.clone();
        let lane = |from, to| {
            let (pieces, bytes, wakers) = (VecDeque::new(), 0, Vec::new());
            Arc::new(Mutex::new(Lane { from, to, pieces, bytes, end: End::Open, wakers }))
        };
        let (there, back) = (lane(from, to), lane(back_from, back_to));
        state.lanes.retain(|lane| lane.strong_count() > 0);
        state.lanes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
        let pipe = |read: &Arc<_>, write: &Arc<_>| Pipe {
            net: self.clone(),
            read: Arc::clone(read),
            write: Arc::clone(write),
            arrives: None,
        };
        let answered = listener.send(pipe(&there, &back));
        // It was open a moment ago, and nobody else runs meanwhile.
        answered.expect("whoever listens goes on doing so");
        Ok(pipe(&back, &there))
    }

    fn is_cut(&self, from: &str, to: &str) -> bool {
        let state = lock(&self.0);
        !state.cut.is_empty() && state.cut.contains(&(from.to_owned(), to.to_owned()))
    }

    /// `to` hears nothing of `from` any more.
    pub(super) fn cut(&self, from: &str, to: &str) {
        lock(&self.0).cut.insert((from.to_owned(), to.to_owned()));
    }

    /// All hear each other again.
    pub(super) fn mend(&self) {
        lock(&self.0).cut.clear();
        for lane in self.lanes(None) {
            lock(&lane).wake();
        }
        self.1.notify_waiters();
    }

    /// A member is gone: its process, of which its machine tells the others, or the machine, which tells nobody.
    pub(super) fn remove(&self, name: &str, with_machine: bool) {
        {
            let mut state = lock(&self.0);
            state.listeners.remove(name);
            if with_machine {
                state.dark.insert(name.to_owned());
            }
        }
        for lane in self.lanes(Some(name)) {
            lock(&lane).end(if with_machine { End::Silent } else { End::Broken });
        }
    }

    fn lanes(&self, of: Option<&str>) -> Vec<Arc<Mutex<Lane>>> {
        let lanes: Vec<_> = lock(&self.0).lanes.iter().filter_map(Weak::upgrade).collect();
        let wanted = |lane: &Arc<Mutex<Lane>>| {
            let lane = lock(lane);
            of.is_none_or(|name| lane.from == name || lane.to == name)
        };
        lanes.into_iter().filter(wanted).collect()
    }
}

/// An end of a connection.
pub(in crate::engine) struct Pipe {
    net: Net,
    read: Arc<Mutex<Lane>>,
    write: Arc<Mutex<Lane>>,
    arrives: Option<Pin<Box<Sleep>>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut write = lock(&self.write);
        let is_cut = self.net.is_cut(&write.from, &write.to);
        if write.end == End::Open {
            write.end(End::Finished);
        }
        drop(write);
        let mut read = lock(&self.read);
        if read.end == End::Open {
            // If nobody hears of it, the other end goes on.
            read.end(if is_cut { End::Silent } else { End::Broken });
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut read = lock(&this.read);
            let lane = &mut *read;
            let is_silent = lane.end == End::Silent || this.net.is_cut(&lane.from, &lane.to);
            let arrives = lane.pieces.front().map(|(at, _)| *at).filter(|_| !is_silent);
            match arrives {
                _ if lane.end == End::Broken => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                None if lane.end == End::Finished && !is_silent => return Poll::Ready(Ok(())),
                Some(at) if at <= Instant::now() => {
                    lane.take(buffer);
                    return Poll::Ready(Ok(()));
                }
                _ => lane.wait(context.waker()),
            }
            drop(read);
            let Some(at) = arrives else { return Poll::Pending };
            let arrives = this.arrives.insert(Box::pin(sleep_until(at)));
            if arrives.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let delay = self.net.delay();
        let mut lane = lock(&self.write);
        match lane.end {
            End::Broken | End::Finished => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            End::Open | End::Silent => {}
        }
        let room = WINDOW.saturating_sub(lane.bytes).min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            lane.wait(context.waker());
            return Poll::Pending;
        }
        lane.bytes += room;
        if lane.end == End::Open {
            let earliest = lane.pieces.back().map_or_else(Instant::now, |(at, _)| *at);
            let at = earliest.max(Instant::now() + delay);
            lane.pieces.push_back((at, Bytes::copy_from_slice(&bytes[..room])));
            lane.wake();
        }
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lane = lock(&self.write);
        if lane.end == End::Open {
            lane.end(End::Finished);
        }
        Poll::Ready(Ok(()))
    }
}
