//! Reads that are as new as their request: the index that has to be applied first.
//!
//! ```text
//! read ─┬─► leads alone: at once
//!       └─► waits for the next round ─► leader: a quorum still follows it · another: asks the leader ─► index ─► applied
//! ```
//!
//! Invariants:
//! - A round counts for those who waited when it began, never for those who came later: what was committed in between might
//!   be behind its index.
//! - One round is under way at a time. All who came meanwhile share the next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::codec::proto::{ReadIndexRequest, leader_response::Answer};
use super::error::End;
use super::peers::Lane;
use super::{Engine, ReadError};
use crate::planted::{PlantedBug, planted};

type Index = Result<u64, ReadError>;

/// Those who wait for a round.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    under_way: bool,
    next: Vec<oneshot::Sender<Index>>,
}

impl Rounds {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next round. The second says whether whoever asks has to have rounds run.
    fn wait(&self) -> (oneshot::Receiver<Index>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.next.push(sender);
        (receiver, !std::mem::replace(&mut waiting.under_way, true))
    }

    /// Those whom the next round is for; nobody if rounds may end.
    fn take(&self) -> Vec<oneshot::Sender<Index>> {
        let mut waiting = self.lock();
        waiting.under_way = !waiting.next.is_empty();
        std::mem::take(&mut waiting.next)
    }
}

impl Engine {
    /// Waits until this member has applied all that was committed when this was called. What is read then is not older
    /// than any answer that anyone had before.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        if self.leads_alone() || planted(PlantedBug::StaleReadOnDeposedLeader) && self.leads() {
            return Ok(());
        }
        let deadline = Instant::now() + self.patience();
        let index = self.read_index().await?;
        self.wait_applied(index, deadline).await
    }

    /// The index that has to be applied before a read that begins now.
    pub(super) async fn read_index(&self) -> Index {
        let (index, has_to_run) = self.0.rounds.wait();
        if has_to_run {
            let engine = self.clone();
            self.0.tracker.spawn(async move {
                loop {
                    let waiting = engine.0.rounds.take();
                    if waiting.is_empty() {
                        return;
                    }
                    let index = engine.round().await;
                    for answer in waiting {
                        drop(answer.send(index.clone()));
                    }
                }
            });
        }
        index.await.unwrap_or(Err(ReadError::Stopped))
    }

    pub(super) async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), ReadError> {
        let mut applied = self.0.shared.applied.subscribe();
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => Err(ReadError::Stopped),
            waited = timeout_at(deadline, applied.wait_for(|applied| *applied >= index)) => match waited {
                Ok(_) => Ok(()),
                Err(_) => Err(ReadError::TimedOut),
            },
        }
    }

    /// Whether this member leads, and nobody else could.
    ///
    /// That is right without asking anyone: as long as the last membership that openraft has appended has this member as its
    /// only voter, no other can be elected without its vote; and to become one of several, it takes more than one entry of
    /// this leader's log, each of which is told here before the next. Writes are answered when they are applied here, and
    /// the term is noted when all that earlier ones left is, too.
    pub(super) fn leads_alone(&self) -> bool {
        let term = self.0.shared.leading_term();
        if term == 0 || self.0.stop.is_cancelled() || self.0.failure.get().is_some() {
            return false;
        }
        let metrics = self.0.server_metrics.borrow_watched();
        let voters = metrics.membership_config.get_joint_config();
        metrics.state.is_leader()
            && metrics.vote.leader_id().term == term
            && voters.len() == 1
            && voters.iter().all(|voters| voters.len() == 1 && voters.contains(&self.0.identity.member_id))
    }

    async fn round(&self) -> Index {
        let deadline = Instant::now() + self.patience();
        loop {
            let outcome = tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Err(ReadError::Stopped),
                outcome = timeout_at(deadline, self.ask_leader()) => outcome,
            };
            match outcome {
                Ok(Ok(index)) => return Ok(index),
                Ok(Err(ReadError::NoLeader | ReadError::NotLeader { .. })) => {
                    if Instant::now() >= deadline {
                        return Err(ReadError::TimedOut);
                    }
                    self.leader_changes().await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ReadError::TimedOut),
            }
        }
    }

    /// Has the leader confirm that it is one.
    async fn ask_leader(&self) -> Index {
        // openraft may still know the leader of the cluster that this member was in.
        if self.0.peers.is_removed() {
            return Err(ReadError::Removed);
        }
        let leader = self.leader().ok_or(ReadError::NoLeader)?;
        if leader == self.0.identity.member_id {
            return self.confirm().await;
        }
        let peers = &self.0.peers;
        self.locate(leader);
        let mut client = peers.client(leader, Lane::Control);
        let patience = self.0.options.election_timeout * 2;
        let asked = timeout(patience, client.read_index(peers.request(leader, ReadIndexRequest {}))).await;
        match asked {
            Ok(Ok(response)) => match response.into_inner().answer {
                Some(Answer::Index(index)) => Ok(index),
                _ => Err(ReadError::NoLeader),
            },
            // A read may be asked for again.
            Ok(Err(status)) => {
                peers.failed(&status);
                Err(ReadError::NoLeader)
            }
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    /// Asks a quorum whether this member still leads.
    async fn confirm(&self) -> Index {
        match self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(confirmed) => Ok(confirmed.read_log_id().index()),
            Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )) => Err(ReadError::NoLeader),
            Err(RaftError::Fatal(fatal)) => {
                Err(End::new(&self.0.failure, &self.0.peers, Some(&fatal)).into())
            }
        }
    }

    /// Waits until there is another leader, or a moment.
    pub(super) async fn leader_changes(&self) {
        let before = self.leader();
        let mut metrics = self.0.raft.server_metrics();
        let changed = async {
            while metrics.borrow_watched().current_leader == before {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(self.0.options.heartbeat, changed).await;
    }
}
