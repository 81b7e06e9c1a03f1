//! How many requests a batch waits for, and for how long.
//!
//! A batch costs some wakes and a sync, whatever is in it. Clients that ask again as soon as they are answered come in a
//! crowd after each batch; one that left with the first of them would leave the others to the next, and there would be
//! many small batches. So where there is a crowd, a batch waits until most of it is there.
//!
//! ```text
//! batch of n answered, w others wait by then ─► crowd = n + w ─► the next one leaves with 7/8 of that, or after LINGER
//! ```
//!
//! Invariants:
//! - Few are never waited for: a lone client's requests leave at once.
//! - Nobody waits longer than [`LINGER`] for others, and if they do not come, the next batch expects no more than came.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// How long a batch waits for others at most.
const LINGER: Duration = Duration::from_millis(1);
/// So many are no crowd.
const FEW: usize = 8;

/// How many are expected.
#[derive(Debug, Default)]
pub(super) struct Crowd(usize);

impl Crowd {
    /// A batch was answered: so many were in it or under way with it, or wait now.
    pub(super) fn seen(&mut self, requests: usize) {
        self.0 = requests;
    }

    /// With how many a batch leaves at once.
    pub(super) fn wanted(&self) -> usize {
        if self.0 <= FEW { 1 } else { self.0 - self.0 / 8 }
    }
}

/// Where those who propose tell that they are there.
#[derive(Debug)]
pub(super) struct Gathering {
    /// How many whoever waits in [`Self::gather`] wants; more than any queue has if nobody does.
    wanted: AtomicUsize,
    reached: Notify,
}

impl Default for Gathering {
    fn default() -> Self {
        Self { wanted: AtomicUsize::new(usize::MAX), reached: Notify::new() }
    }
}

impl Gathering {
    /// One more is in the queue, which has so many now.
    pub(super) fn came(&self, waiting: usize) {
        if waiting >= self.wanted.load(Ordering::SeqCst) {
            self.wanted.store(usize::MAX, Ordering::SeqCst);
            self.reached.notify_one();
        }
    }

    /// Waits until there is something in the queue, and then until there is a batch for the crowd, or the time is over.
    pub(super) async fn gather<T>(&self, queue: &mpsc::Receiver<T>, crowd: &Crowd) {
        self.reach(queue, 1).await;
        if crowd.wanted() > 1 {
            // What did not come in time was not there: the crowd is counted anew after the batch.
            let _ = timeout(LINGER, self.reach(queue, crowd.wanted())).await;
        }
    }

    async fn reach<T>(&self, queue: &mpsc::Receiver<T>, wanted: usize) {
        loop {
            // Before the look: whoever comes after it sees what is wanted.
            self.wanted.store(wanted, Ordering::SeqCst);
            if queue.len() >= wanted {
                self.wanted.store(usize::MAX, Ordering::SeqCst);
                return;
            }
            self.reached.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn few_are_not_waited_for_and_most_of_a_crowd_is() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.wanted(), 1);
        crowd.seen(FEW);
        assert_eq!(crowd.wanted(), 1);
        crowd.seen(100);
        assert_eq!(crowd.wanted(), 88);
        // They did not come again.
        crowd.seen(1);
        assert_eq!(crowd.wanted(), 1);
    }

    #[tokio::test]
    async fn whoever_gathers_is_woken_by_the_one_who_completes_the_crowd() {
        let (sender, mut queue) = mpsc::channel(8);
        let gathering = Arc::<Gathering>::default();
        let came = |number: usize| {
            sender.try_send(number).unwrap();
            gathering.came(number);
        };
        came(1);
        came(2);
        assert_eq!(gathering.reach(&queue, 3).now_or_never(), None);
        came(3);
        assert_eq!(gathering.reach(&queue, 3).now_or_never(), Some(()));

        let gatherer = Arc::clone(&gathering);
        let waiting = tokio::spawn(async move {
            gatherer.reach(&queue, 5).await;
            queue.close();
            queue.len()
        });
        // It waits by now, or sees them when it comes.
        while gathering.wanted.load(Ordering::SeqCst) != 5 {
            tokio::task::yield_now().await;
        }
        came(4);
        came(5);
        assert_eq!(waiting.await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_crowd_that_does_not_come_is_not_waited_for_long() {
        let (sender, queue) = mpsc::channel(8);
        let (gathering, mut crowd) = (Gathering::default(), Crowd::default());
        crowd.seen(100);
        sender.try_send(()).unwrap();
        gathering.came(1);
        // Ends at all.
        gathering.gather(&queue, &crowd).await;
        assert_eq!(queue.len(), 1);
    }
}
