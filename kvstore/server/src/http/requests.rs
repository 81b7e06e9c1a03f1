//! The requests of one HTTP/2 connection, carried out by the connection's own task.
//!
//! ```text
//! hyper ─ a future for each request ─► Requests ─ drained by ─► drive() ─► FuturesUnordered
//!   ▲                                                             │
//!   └──────────── polled again when one has rung the bell ────────┘
//! ```
//!
//! A request is a few microseconds of work and one wait. A task for each would be made, scheduled, stolen by another core and
//! taken down again for that, and would wake the connection's task to send the answer.
//!
//! Invariants:
//! - What is left when the connection ends is dropped: nobody waits for its answer.
//! - Requests and connection are polled only when something has happened to them. They wake each other without the
//!   scheduler: what rings while the task runs is seen before it rests. After some rounds it lets other tasks go first.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often requests and connection take turns before other tasks do.
const ROUNDS: usize = 8;

/// Takes requests from hyper. Clones are of the same one.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Mutex<Vec<Work>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Requests {
    fn execute(&self, work: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
    }
}

impl Requests {
    /// Drives a connection and its requests until the connection ends.
    pub(super) async fn drive<C: Future>(&self, connection: C) -> C::Output {
        let mut connection = std::pin::pin!(connection);
        let mut under_way = FuturesUnordered::new();
        let task = Arc::<Task>::default();
        let (for_requests, for_connection) = (Bell::of(&task), Bell::of(&task));
        let (wakes_requests, wakes_connection) =
            (Waker::from(Arc::clone(&for_requests)), Waker::from(Arc::clone(&for_connection)));
        poll_fn(|context| {
            task.attend(context.waker());
            for _ in 0..ROUNDS {
                if for_requests.take() {
                    let mut context = Context::from_waker(&wakes_requests);
                    while let Poll::Ready(Some(())) = under_way.poll_next_unpin(&mut context) {}
                }
                if for_connection.take() {
                    let mut context = Context::from_waker(&wakes_connection);
                    if let Poll::Ready(end) = connection.as_mut().poll(&mut context) {
                        return Poll::Ready(end);
                    }
                    let new = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
                    if !new.is_empty() {
                        under_way.extend(new);
                        for_requests.ring();
                    }
                }
                if !for_requests.is_rung() && !for_connection.is_rung() {
                    break;
                }
            }
            task.leave();
            if for_requests.is_rung() || for_connection.is_rung() {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }
}

/// The task that drives a connection.
#[derive(Debug, Default)]
struct Task {
    /// Whether it is at work, and will look by itself.
    is_attended: AtomicBool,
    waker: AtomicWaker,
}

impl Task {
    fn attend(&self, waker: &Waker) {
        self.waker.register(waker);
        self.is_attended.store(true, Ordering::SeqCst);
    }

    /// It looks once more after this, so that no ring is missed.
    fn leave(&self) {
        self.is_attended.store(false, Ordering::SeqCst);
    }
}

/// Tells the task that something has to be polled.
#[derive(Debug)]
struct Bell {
    is_rung: AtomicBool,
    task: Arc<Task>,
}

impl Bell {
    /// One that has been rung: nothing was polled yet.
    fn of(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self { is_rung: AtomicBool::new(true), task: Arc::clone(task) })
    }

    fn ring(&self) {
        self.is_rung.store(true, Ordering::SeqCst);
    }

    fn is_rung(&self) -> bool {
        self.is_rung.load(Ordering::SeqCst)
    }

    /// Whether it was rung since this was last called.
    fn take(&self) -> bool {
        self.is_rung.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        if !self.task.is_attended.load(Ordering::SeqCst) {
            self.task.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::rt::Executor as _;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    /// Whatever wakes requests and connection, and wherever from, all of it is done.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_missed() {
        const REQUESTS: usize = 20_000;
        let (done, mut finished) = mpsc::unbounded_channel();
        let (ask, mut asked) = mpsc::unbounded_channel();
        let requests = Requests::default();
        let taken = requests.clone();
        // Takes requests, each of which another task answers, and ends when it was told of all answers.
        let connection = async move {
            let mut answered = 0;
            while answered < REQUESTS {
                tokio::select! {
                    Some(answer) = asked.recv() => {
                        let done = done.clone();
                        let answer: tokio::sync::oneshot::Receiver<()> = answer;
                        taken.execute(async move {
                            answer.await.unwrap();
                            done.send(()).unwrap();
                        });
                    }
                    Some(()) = finished.recv() => answered += 1,
                }
            }
        };
        tokio::spawn(async move {
            for _ in 0..REQUESTS {
                let (answer, answered) = tokio::sync::oneshot::channel();
                ask.send(answered).unwrap();
                answer.send(()).unwrap();
            }
        });
        let driven = tokio::spawn(async move { requests.drive(connection).await });
        timeout(Duration::from_mins(1), driven).await.expect("a ring was missed").unwrap();
    }
}
