//! Batches that are on their way to the leader.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// A few futures, each polled whenever one of them may have something.
///
/// `FuturesUnordered` is for many: after each that is not done at once it has its task polled again, to let others go first,
/// and that wakes a thread for every batch.
#[derive(Debug)]
pub(super) struct UnderWay<F>(Vec<Pin<Box<F>>>);

impl<F: Future> UnderWay<F> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, future: F) {
        self.0.push(Box::pin(future));
    }

    /// Waits until one is done, and forgets it. Never ends if there are none.
    pub(super) async fn next(&mut self) -> F::Output {
        poll_fn(|context| {
            for (place, future) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    drop(self.0.swap_remove(place));
                    return Poll::Ready(output);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use futures_util::FutureExt;
    use futures_util::task::noop_waker;
    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_is_told_once_whichever_is_done_first() {
        let mut under_way = UnderWay::new();
        assert!(under_way.next().now_or_never().is_none());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        for receiver in receivers {
            under_way.push(receiver);
        }
        let mut senders = senders.into_iter().rev();
        for number in [2, 1, 0] {
            assert!(under_way.next().now_or_never().is_none());
            senders.next().unwrap().send(number).unwrap();
            assert_eq!(under_way.next().now_or_never(), Some(Ok(number)));
        }
        assert!(under_way.is_empty());
    }

    #[test]
    fn nobody_is_woken_for_what_has_not_happened() {
        let woken = Arc::<Counted>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut under_way = UnderWay::new();
        let (sender, receiver) = oneshot::channel();
        under_way.push(receiver);
        let mut next = Box::pin(under_way.next());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        sender.send(()).unwrap();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(next.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_ready());
    }
}
