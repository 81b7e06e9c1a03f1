//! The requests of one HTTP/2 connection, carried out by the connection's own task.
//!
//! ```text
//! hyper ─ a future for each request ─► Requests ─ drained by ─► drive() ─► FuturesUnordered
//!   ▲                                                             │
//!   └───────────────── polled when any of them is done ───────────┘
//! ```
//!
//! A request is a few microseconds of work and one wait. A task for each would be made, scheduled, stolen by another core and
//! taken down again for that, and would wake the connection's task to send the answer.
//!
//! Invariants:
//! - What is left when the connection ends is dropped: nobody waits for its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

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
        poll_fn(|context| {
            loop {
                if let Poll::Ready(end) = connection.as_mut().poll(context) {
                    return Poll::Ready(end);
                }
                let new = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
                under_way.extend(new);
                let mut is_any_done = false;
                while let Poll::Ready(Some(())) = under_way.poll_next_unpin(context) {
                    is_any_done = true;
                }
                // The connection has something to send, and may have room for more.
                if !is_any_done {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}
