//! The way of batches to the leader, whoever that is.
//!
//! ```text
//! batch ─┬─► this member leads: openraft ──────────────┬─► committed ─► applied here ─► answers
//!        └─► another leads: forwarded ─► its openraft ─┘
//! ```
//!
//! Invariants:
//! - A batch is proposed again only if it is certain that it was not proposed before: the one asked said that it does not
//!   lead, or was not even reached.
//! - Where that is not certain, those who wait go on doing so, until their time is over: it may still be applied.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::ProposeError;
use super::batch::Batch;
use super::codec::batch_to_proto;
use super::codec::proto::{ForwardRequest, leader_response::Answer};
use super::error::End;
use super::identity::Identity;
use super::log::Failure;
use super::peers::{CallError, Lane, Peers};
use super::proposals::{Attendants, Submit};
use super::types::{Proposal, Raft};

/// The way to the leader.
#[derive(Clone)]
pub(super) struct ToLeader {
    pub(super) raft: Raft,
    pub(super) identity: Identity,
    pub(super) failure: Failure,
    pub(super) peers: Peers,
    pub(super) attendants: Arc<Attendants>,
    /// How long a batch may take.
    pub(super) patience: Duration,
    /// How long to wait for another leader before it is looked again.
    pub(super) heartbeat: Duration,
    pub(super) stop: CancellationToken,
}

/// What became of a batch.
enum Submitted {
    Applied,
    /// It was not proposed.
    Refused,
    Unknown,
}

impl Submit for ToLeader {
    async fn submit(&self, batch: Arc<Batch>) -> Result<(), ProposeError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.try_submit(&batch, deadline).await? {
                Submitted::Applied => return Ok(()),
                Submitted::Unknown => {
                    self.give_up_later(&batch);
                    return Ok(());
                }
                Submitted::Refused if Instant::now() >= deadline => return Err(self.timed_out()),
                Submitted::Refused => self.leader_changes().await,
            }
        }
    }
}

impl ToLeader {
    async fn try_submit(&self, batch: &Arc<Batch>, deadline: Instant) -> Result<Submitted, ProposeError> {
        // openraft may still know the leader of the cluster that this member was in.
        if self.peers.is_removed() {
            return Err(ProposeError::Removed);
        }
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        match leader {
            None => {
                if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
                    return Err(End::new(&self.failure, &self.peers, Some(fatal)).into());
                }
                Ok(Submitted::Refused)
            }
            Some(leader) if leader == self.identity.member_id => self.propose(batch, deadline).await,
            Some(leader) => self.forward(leader, batch, deadline).await,
        }
    }

    async fn propose(&self, batch: &Arc<Batch>, deadline: Instant) -> Result<Submitted, ProposeError> {
        let Ok(written) = timeout_at(deadline, self.raft.client_write(Proposal(Arc::clone(batch)))).await
        else {
            return Ok(Submitted::Unknown);
        };
        match written.map_err(|error| ProposeError::new(error, self.identity, &self.failure, &self.peers)) {
            Ok(_) => Ok(Submitted::Applied),
            Err(ProposeError::NoLeader | ProposeError::NotLeader { .. }) => Ok(Submitted::Refused),
            Err(ProposeError::LeaderChanged) => Ok(Submitted::Unknown),
            Err(error) => Err(error),
        }
    }

    async fn forward(
        &self,
        leader: u64,
        batch: &Batch,
        deadline: Instant,
    ) -> Result<Submitted, ProposeError> {
        {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            if let Some(member) = metrics.membership_config.get_node(&leader) {
                self.peers.locate(leader, &member.peer_urls);
            }
        }
        let mut client = self.peers.client(leader, Lane::Log);
        let request = self.peers.request(leader, ForwardRequest { batch: Some(batch_to_proto(batch)) });
        Ok(match timeout_at(deadline, client.forward(request)).await {
            Ok(Ok(response)) => match response.into_inner().answer {
                Some(Answer::Index(_)) => Submitted::Applied,
                Some(Answer::NotLeader(_)) => Submitted::Refused,
                Some(Answer::NoRoom(_)) => return Err(ProposeError::NoSpace),
                _ => Submitted::Unknown,
            },
            Ok(Err(status)) => match self.peers.failed(&status) {
                CallError::Unreachable(_) | CallError::Removed => Submitted::Refused,
                CallError::Unknown(_) => Submitted::Unknown,
            },
            Err(_) => Submitted::Unknown,
        })
    }

    /// Answers those who still wait when their time is over.
    fn give_up_later(&self, batch: &Batch) {
        let (this, origin) = (self.clone(), batch.origin);
        tokio::spawn(async move {
            let over = this.stop.run_until_cancelled(sleep(this.patience)).await.is_some();
            for answer in this.attendants.take(origin).into_iter().flatten() {
                let error = if over { this.timed_out() } else { ProposeError::Stopped };
                drop(answer.send(Err(error)));
            }
        });
    }

    fn timed_out(&self) -> ProposeError {
        let has_leader = self.raft.server_metrics().borrow_watched().current_leader.is_some();
        ProposeError::TimedOut { has_leader }
    }

    /// Waits until there is another leader, or a moment.
    async fn leader_changes(&self) {
        let mut metrics = self.raft.server_metrics();
        let before = metrics.borrow_watched().current_leader;
        let changed = async {
            while metrics.borrow_watched().current_leader == before {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(self.heartbeat, changed).await;
    }
}
