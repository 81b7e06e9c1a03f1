//! What is asked about the time of leases, which only the leader knows.

use std::time::Duration;

use landbridge_kvstore_store::LeaseId;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, timeout};

use super::codec::proto::{LeaseAnswer, LeaseRequest, leader_response::Answer};
use super::peers::Lane;
use super::{Engine, ReadError};
use crate::planted::{PlantedBug, planted};

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    Renew,
    Remaining,
}

impl Engine {
    /// Lets a lease live on, and returns its time to live in seconds. Nothing if there is no such lease, or no longer;
    /// if it has run out, that is told when its keys are gone.
    ///
    /// # Errors
    /// [`ReadError`]; a lease may live or not then.
    pub async fn renew_lease(&self, id: LeaseId) -> Result<Option<i64>, ReadError> {
        self.ask_lease(id, Question::Renew).await
    }

    /// How long a lease has left, asked of the leader: zero if it has run out and is not ended yet, nothing if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn lease_time_left(&self, id: LeaseId) -> Result<Option<Duration>, ReadError> {
        let left = self.ask_lease(id, Question::Remaining).await?;
        Ok(left.map(|milliseconds| Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))))
    }

    async fn ask_lease(&self, id: LeaseId, question: Question) -> Result<Option<i64>, ReadError> {
        let deadline = Instant::now() + self.patience();
        loop {
            let outcome = match self.leader() {
                _ if self.0.peers.is_removed() => return Err(ReadError::Removed),
                _ if self.0.stop.is_cancelled() => return Err(ReadError::Stopped),
                Some(leader) if leader != self.0.identity.member_id => {
                    self.ask_lease_of(leader, id, question).await
                }
                Some(_) if self.0.shared.has_clock() => match question {
                    Question::Renew => self.renew_lease_here(id).await,
                    Question::Remaining => Ok(self
                        .lease_remaining(id)
                        .map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX))),
                },
                // It is about to start its clock.
                Some(_) | None => match self.0.failure.get() {
                    Some(reason) => return Err(ReadError::Io { reason: reason.clone() }),
                    None => Err(ReadError::NoLeader),
                },
            };
            match outcome {
                Err(ReadError::NoLeader | ReadError::NotLeader { .. }) if Instant::now() < deadline => {
                    self.leader_changes().await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask_lease_of(
        &self,
        leader: u64,
        id: LeaseId,
        question: Question,
    ) -> Result<Option<i64>, ReadError> {
        let peers = &self.0.peers;
        self.locate(leader);
        let mut client = peers.client(leader, Lane::Control);
        let request = peers.request(leader, LeaseRequest { id: id.get() });
        let asked = async {
            match question {
                Question::Renew => client.renew_lease(request).await,
                Question::Remaining => client.lease_remaining(request).await,
            }
        };
        // It may be asked again: a lease that is renewed twice is renewed.
        let Ok(asked) = timeout(self.patience(), asked).await else { return Err(ReadError::TimedOut) };
        match asked.map(tonic::Response::into_inner) {
            Ok(response) => match response.answer {
                Some(Answer::Lease(LeaseAnswer { found, milliseconds })) => Ok(found.then_some(milliseconds)),
                _ => Err(ReadError::NoLeader),
            },
            Err(status) => {
                peers.failed(&status);
                Err(ReadError::NoLeader)
            }
        }
    }

    /// Whether this member leads in a term that it has a clock for, as far as it knows.
    fn leads_in(&self, term: u64) -> bool {
        let metrics = self.0.server_metrics.borrow_watched();
        self.0.shared.leading_term() == term
            && metrics.state.is_leader()
            && metrics.vote.leader_id().term == term
    }

    /// Lets a lease live on, as the leader.
    ///
    /// Whoever led next has given all leases their full time when it began to. So it is enough, and needed, that this member
    /// still leads when the lease is renewed already: what a leader renews that was deposed and does not know is lost.
    pub(super) async fn renew_lease_here(&self, id: LeaseId) -> Result<Option<i64>, ReadError> {
        let shared = &self.0.shared;
        let mut applied = shared.applied.subscribe();
        loop {
            applied.borrow_and_update();
            let term = shared.leading_term();
            let renewed = shared.with_clock(|clock, now| {
                let early = if planted(PlantedBug::LeaseExpiredEarly) {
                    Duration::from_secs(1)
                } else {
                    Duration::ZERO
                };
                clock.renew(now.checked_sub(early).unwrap_or(now), id)
            });
            match renewed {
                Some(Some(ttl_seconds)) => {
                    if !self.leads_alone() {
                        self.read_index().await?;
                        // Another member may have answered that, or this one in a later term.
                        if !self.leads_in(term) {
                            return Err(ReadError::NoLeader);
                        }
                    }
                    return Ok(Some(i64::try_from(ttl_seconds).unwrap_or(i64::MAX)));
                }
                // It has run out, and its end is under way; or there is none, as far as this member knows.
                Some(None) => {
                    self.read_barrier().await?;
                    if !shared.has_lease(id) {
                        return Ok(None);
                    }
                }
                None => return Err(ReadError::NoLeader),
            }
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return Err(ReadError::Stopped),
                // The sender lives as long as this handle.
                _ = applied.changed() => {}
            }
        }
    }
}
