//! Proposals: what many ask for at once becomes one entry of the log, and each is answered when it is applied here.
//!
//! ```text
//! propose ─► queue ─► proposer, when a crowd has gathered: a batch ─► Submit ─► leader's log ─► committed
//!    ▲                    └─► table of those who wait                                       │
//!    └───────────────────────── answers ◄───────────── applied on this member ◄─────────────┘
//! ```
//!
//! Invariants:
//! - A few batches are under way at most. What comes meanwhile waits, so that batches grow with the load, and the disk has
//!   something to do while the next one is made.
//! - Whoever is in the table is answered exactly once: by the state machine, or with the reason why it may never be.
//! - The answer is what this member made of the request, whoever leads, so that it can be read here afterwards.

mod gathering;
mod under_way;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Origin, Request, weight};
use super::{Applied, ProposeError};
use gathering::{Crowd, Gathering};
use under_way::UnderWay;

/// Requests that may wait to become part of a batch. When it is full, those who propose wait.
const QUEUE_LEN: usize = 4096;
/// Requests from which on a batch takes no more.
const BATCH_LEN: usize = 1024;
/// Bytes from which on a batch takes no more.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are under way at a time: one is on its way to the disk while the other is applied or made.
const IN_FLIGHT: usize = 2;

/// What whoever proposed is told.
pub(super) type Answer = Result<Applied, ProposeError>;

/// A request on its way into a batch.
#[derive(Debug)]
pub(super) struct Waiting {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

/// The way to the member that leads.
pub(super) trait Submit: Send + Sync + 'static {
    /// Hands a batch to the leader, and completes when that has applied it, or refused it. This member answers those who
    /// wait when it applies the batch itself, which may be sooner or later.
    fn submit(&self, batch: Arc<Batch>) -> impl Future<Output = Result<(), ProposeError>> + Send;
}

/// Those who wait for the batches of this member that are under way.
#[derive(Debug)]
pub(super) struct Attendants {
    member: u64,
    session: u64,
    batches: Mutex<BTreeMap<u64, Vec<oneshot::Sender<Answer>>>>,
}

impl Attendants {
    /// Those of a member since its start, which `session` tells from all others; never 0.
    pub(super) fn new(member: u64, session: u64) -> Self {
        Self { member, session: session.max(1), batches: Mutex::default() }
    }

    fn batches(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<oneshot::Sender<Answer>>>> {
        // A map is whole whatever panicked.
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who wait for a batch, in the order of its requests. They wait no longer: whoever takes them answers.
    pub(super) fn take(&self, origin: Origin) -> Option<Vec<oneshot::Sender<Answer>>> {
        let ours = origin.member == self.member && origin.session == self.session;
        if ours { self.batches().remove(&origin.sequence) } else { None }
    }

    /// Tells all who wait that what they asked for may have been carried out or not: this member has taken over the state
    /// of another, and does not see what became of single requests.
    pub(super) fn abandon(&self) {
        let batches = std::mem::take(&mut *self.batches());
        for answer in batches.into_values().flatten() {
            // Who no longer waits needs no answer.
            drop(answer.send(Err(ProposeError::LeaderChanged)));
        }
    }
}

/// Where proposals go in.
#[derive(Clone, Debug)]
pub(super) struct Proposals {
    queue: mpsc::Sender<Waiting>,
    gathering: Arc<Gathering>,
}

/// What waits to become a batch.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: mpsc::Receiver<Waiting>,
    gathering: Arc<Gathering>,
}

impl Proposals {
    /// The way in, and the queue that [`run`] is to be given.
    pub(super) fn new() -> (Self, Queue) {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN);
        let gathering = Arc::<Gathering>::default();
        (Self { queue, gathering: Arc::clone(&gathering) }, Queue { waiting, gathering })
    }

    /// Waits for what becomes of a request; nothing if no one takes proposals any more.
    pub(super) async fn propose(&self, request: Request) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Waiting { request, answer }).await.ok()?;
        self.gathering.came(QUEUE_LEN - self.queue.capacity());
        answered.await.ok()
    }
}

/// Makes batches of what is proposed, until `stop`.
pub(super) async fn run(
    submit: impl Submit,
    attendants: Arc<Attendants>,
    queue: Queue,
    stop: CancellationToken,
) {
    let Queue { waiting: mut queue, gathering } = queue;
    let mut under_way = UnderWay::new();
    let (mut requests_under_way, mut crowd) = (0, Crowd::default());
    let mut sequence = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            answered = under_way.next() => {
                crowd.seen(requests_under_way + queue.len());
                requests_under_way -= answered;
                continue;
            }
            () = gathering.gather(&queue, &crowd), if under_way.len() < IN_FLIGHT => {}
        }
        sequence += 1;
        let origin = Origin { member: attendants.member, session: attendants.session, sequence };
        let Some(batch) = batch(origin, &mut queue, &attendants) else { continue };
        let (submit, attendants) = (&submit, &attendants);
        let requests = batch.requests.len();
        requests_under_way += requests;
        under_way.push(async move {
            if let Err(error) = submit.submit(batch).await {
                for answer in attendants.take(origin).into_iter().flatten() {
                    drop(answer.send(Err(error.clone())));
                }
            }
            requests
        });
    }
    // Each ends with its answer: openraft is told to stop as well. Who waits in the queue is let go of with it.
    queue.close();
    while !under_way.is_empty() {
        under_way.next().await;
    }
    for answer in std::mem::take(&mut *attendants.batches()).into_values().flatten() {
        drop(answer.send(Err(ProposeError::Stopped)));
    }
}

/// A batch of what waits, whose attendants are in the table; nothing if nobody waits any more.
fn batch(origin: Origin, queue: &mut mpsc::Receiver<Waiting>, attendants: &Attendants) -> Option<Arc<Batch>> {
    let room = queue.len().min(BATCH_LEN);
    let (mut requests, mut answers) = (Vec::with_capacity(room), Vec::with_capacity(room));
    let mut bytes = 0;
    while requests.len() < BATCH_LEN
        && bytes < BATCH_BYTES
        && let Ok(Waiting { request, answer }) = queue.try_recv()
    {
        // Whoever went away before its turn did not get anything done.
        if !answer.is_closed() {
            bytes += weight(&request.command);
            requests.push(request);
            answers.push(answer);
        }
    }
    if requests.is_empty() {
        return None;
    }
    attendants.batches().insert(origin.sequence, answers);
    Some(Arc::new(Batch { origin, requests }))
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::PutRequest;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::engine::{Command, Outcome};

    /// A leader that lets batches go one by one, and answers as if they were applied here.
    struct Gate {
        attendants: Arc<Attendants>,
        open: Arc<Semaphore>,
        seen: mpsc::UnboundedSender<usize>,
        error: Option<ProposeError>,
    }

    impl Submit for Gate {
        async fn submit(&self, batch: Arc<Batch>) -> Result<(), ProposeError> {
            self.seen.send(batch.requests.len()).unwrap();
            self.open.acquire().await.unwrap().forget();
            if let Some(error) = &self.error {
                return Err(error.clone());
            }
            for (revision, answer) in (0..).zip(self.attendants.take(batch.origin).unwrap()) {
                let _ = answer.send(Ok(Applied { outcome: Ok(Outcome::Compacted), revision, term: 1 }));
            }
            Ok(())
        }
    }

    struct Bench {
        proposals: Proposals,
        attendants: Arc<Attendants>,
        open: Arc<Semaphore>,
        seen: mpsc::UnboundedReceiver<usize>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    fn bench(error: Option<ProposeError>) -> Bench {
        let attendants = Arc::new(Attendants::new(1, 2));
        let (open, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let (sender, seen) = mpsc::unbounded_channel();
        let gate = Gate { attendants: Arc::clone(&attendants), open: Arc::clone(&open), seen: sender, error };
        let (proposals, queue) = Proposals::new();
        let task = tokio::spawn(run(gate, Arc::clone(&attendants), queue, stop.clone()));
        Bench { proposals, attendants, open, seen, stop, task }
    }

    fn put(len: usize) -> Request {
        let put = PutRequest { key: "k".into(), value: vec![1; len].into(), ..PutRequest::default() };
        Request { command: Command::Put(put), auth_revision: 0 }
    }

    impl Bench {
        fn propose(&self, len: usize) -> tokio::task::JoinHandle<Option<Answer>> {
            let proposals = self.proposals.clone();
            tokio::spawn(async move { proposals.propose(put(len)).await })
        }
    }

    #[tokio::test]
    async fn what_waits_while_two_batches_are_under_way_becomes_one() {
        let mut bench = bench(None);
        let first = bench.propose(10);
        assert_eq!(bench.seen.recv().await, Some(1));
        let second = bench.propose(10);
        assert_eq!(bench.seen.recv().await, Some(1));
        let waiting: Vec<_> = (0..100).map(|_| bench.propose(10)).collect();
        while bench.proposals.queue.capacity() > QUEUE_LEN - waiting.len() {
            tokio::task::yield_now().await;
        }
        assert!(bench.seen.try_recv().is_err());
        bench.open.add_permits(1);
        assert_eq!(bench.seen.recv().await, Some(100));
        bench.open.add_permits(2);
        for alone in [first, second] {
            assert_eq!(alone.await.unwrap().unwrap().unwrap().revision, 0);
        }
        // Each has the answer of its own request: the gate counts them.
        for (place, answer) in (0..).zip(waiting) {
            assert_eq!(answer.await.unwrap().unwrap().unwrap().revision, place);
        }
        assert!(bench.attendants.batches().is_empty());
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_its_bytes() {
        let mut bench = bench(None);
        let mut waiting = vec![bench.propose(1)];
        assert_eq!(bench.seen.recv().await, Some(1));
        waiting.push(bench.propose(1));
        assert_eq!(bench.seen.recv().await, Some(1));
        waiting.extend((0..3).map(|_| bench.propose(BATCH_BYTES)));
        while bench.proposals.queue.capacity() > QUEUE_LEN - 3 {
            tokio::task::yield_now().await;
        }
        bench.open.add_permits(5);
        for answer in waiting {
            answer.await.unwrap().unwrap().unwrap();
        }
        assert_eq!([bench.seen.recv().await, bench.seen.recv().await, bench.seen.recv().await], [Some(1); 3]);
    }

    #[tokio::test]
    async fn all_who_wait_are_told_why_their_batch_was_not_taken() {
        let bench = bench(Some(ProposeError::NotLeader { leader: 9 }));
        bench.open.add_permits(10);
        let waiting = [bench.propose(1), bench.propose(1)];
        for answer in waiting {
            assert_eq!(answer.await.unwrap(), Some(Err(ProposeError::NotLeader { leader: 9 })));
        }
        assert!(bench.attendants.batches().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_when_the_state_of_another_member_is_taken_over_is_told_that_it_is_unknown() {
        let mut bench = bench(None);
        let answer = bench.propose(1);
        bench.seen.recv().await.unwrap();
        bench.attendants.abandon();
        assert_eq!(answer.await.unwrap(), Some(Err(ProposeError::LeaderChanged)));
    }

    #[tokio::test]
    async fn nobody_waits_behind_the_end() {
        let bench = bench(Some(ProposeError::Stopped));
        bench.stop.cancel();
        bench.open.add_permits(10);
        bench.task.await.unwrap();
        assert_eq!(bench.proposals.propose(put(1)).await, None);
    }
}
