//! The replicated store of this member: commands in, agreed on, durable and applied.
//!
//! ```text
//! propose ─► a batch of all that wait ─► openraft ─► log: memory, and a frame on disk ─► committed ─► applied ─► answer
//!                    │                   of the leader                                                    │
//!                    └─► forward ─► the leader's  ├─► network ─► other members               store ◄──────┤
//! read ─► reads ─► the leader is confirmed        └─► leases that run out ─► LeaseRevoke     snapshots ◄──┘
//! <data_dir>/wal   the log (crate::wal)
//!           /snap  the last snapshot
//! ```
//!
//! Invariants:
//! - A command is answered when it is on the disks of a quorum and applied here. A crash loses none that was answered.
//! - What is on disk is in messages of our own, so that openraft can be replaced or upgraded. None of its types is part
//!   of what this module shows.
//! - A start begins a new term: a member leads, and answers reads, only when all that was committed before is applied.
//!
//! - A command is proposed once: again only where it is certain that it was not proposed before.
//! - A read is as new as its request wherever it is asked for, for the leader proves each time that it is one.
//!
//! A cluster has one member or several. `bootstrap` says who a new one is, `membership` changes who they are, `peers` is
//! the way between them.

mod alarms;
pub mod backup;
mod batch;
mod bootstrap;
mod change_feed;
mod codec;
mod command;
#[cfg(test)]
mod conformance;
pub mod counters;
#[cfg(test)]
mod crash_points;
mod error;
mod forward;
#[cfg(test)]
mod garbage;
mod identity;
mod lease_calls;
mod lease_time;
mod leases;
mod log;
mod members;
mod membership;
mod network;
mod open;
mod options;
mod peers;
mod proposals;
mod reads;
#[cfg(test)]
mod simulation;
mod snapshot;
mod snapshot_policy;
mod standalone;
mod state_machine;
mod sweep;
mod tokens;
mod types;

pub use alarms::{Alarm, AlarmKind};
pub(crate) use change_feed::{ChangeFeed, Fed};
pub use codec::DecodeError;
pub use command::{Applied, Command, Outcome};
pub use error::{OpenError, ProposeError, ReadError, ShutdownError};
pub use members::ClusterMember;
pub use membership::MemberError;
pub use options::{ClusterOptions, ClusterState, EngineOptions, EngineStatus, InitialMember, PeerOptions};
pub use peers::{Direction, Switch};
#[cfg(test)]
pub(crate) use simulation::Simulated;
pub use snapshot::{Damage, SnapshotError};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use landbridge_kvstore_store::auth::AuthStore;
use landbridge_kvstore_store::{LeaseId, Store};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Notify, SetOnce, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use batch::Request;
use counters::Counters;
use identity::Identity;
use log::Failure;
use peers::Peers;
use proposals::Proposals;
use reads::Rounds;
use state_machine::{Shared, Snapshots};
use types::{Raft, ServerMetrics};

use crate::platform::Platform;
use crate::wal::Room;

/// A handle of the replicated store; clones are of the same one.
///
/// [`Engine::shutdown`] ends it in order. Without that, it ends by itself some time after the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

struct Inner {
    raft: Raft,
    /// What openraft last told about its state.
    server_metrics: ServerMetrics,
    proposals: Proposals,
    peers: Peers,
    /// Reads that wait for the leader to be confirmed.
    rounds: Rounds,
    /// Held while the members are changed.
    changes: tokio::sync::Mutex<()>,
    shared: Arc<Shared>,
    snapshots: Snapshots,
    identity: Identity,
    options: EngineOptions,
    failure: Failure,
    needed_log_bytes: Arc<AtomicU64>,
    room: Room,
    /// Wakes the one who raises the alarm.
    short: Arc<Notify>,
    counters: Arc<Counters>,
    /// The cluster knows how this member is called and where clients reach it.
    published: SetOnce<()>,
    stop: CancellationToken,
    tracker: TaskTracker,
    tasks: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inner").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Engine {
    /// Recovers what is in the data folder, or makes a cluster of this one member out of an empty one. Returns when
    /// this member leads and has applied all that was committed before.
    ///
    /// Needs a Tokio runtime with time.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing runs.
    pub async fn open(options: EngineOptions) -> Result<Self, OpenError> {
        Self::open_on(options, Platform::default()).await
    }

    /// As [`Engine::open`], with other files and another clock than the kernel's.
    ///
    /// # Errors
    /// As for [`Engine::open`].
    pub async fn open_on(options: EngineOptions, platform: Platform) -> Result<Self, OpenError> {
        open::open(options, platform).await
    }

    /// Replicates a command, makes it durable and applies it. What the store makes of it, a refusal included, is in the
    /// answer. A call that is dropped may be carried out all the same.
    ///
    /// # Errors
    /// [`ProposeError`]; [`ProposeError::may_be_carried_out`] tells what is known then.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.propose_as(command, 0).await
    }

    /// Like [`Self::propose`], for a command that was allowed by the users and roles of a revision: where others are in
    /// force when it is applied, it is refused. 0 means that it does not depend on them.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn propose_as(&self, command: Command, auth_revision: u64) -> Result<Applied, ProposeError> {
        let Inner { proposals, room, counters, failure, peers, .. } = &*self.0;
        // Whoever raises or clears an alarm needs little, and may be about to make room.
        let refused = alarms::grows(&command) && self.is_short_of_room();
        if refused || room.is_short() {
            return Err(ProposeError::NoSpace);
        }
        let pending = counters.proposals_pending.hold();
        let answer = timeout(self.patience(), proposals.propose(Request { command, auth_revision })).await;
        drop(pending);
        let Ok(answer) = answer else {
            counters.proposals_failed.add(1);
            return Err(ProposeError::TimedOut { has_leader: self.leader().is_some() });
        };
        let answer = answer.unwrap_or_else(|| Err(error::End::new(failure, peers, None).into()));
        answer.inspect_err(|_| counters.proposals_failed.add(1))
    }

    /// Looks at the applied state, which stays as it is meanwhile: `look` has to be short.
    pub fn read<R>(&self, look: impl FnOnce(&Store) -> R) -> R {
        look(&self.0.shared.state().store)
    }

    /// The applied state of this moment, for whoever has to look at much of it: it costs nothing and stays as it is, while
    /// writes go on.
    pub fn snapshot(&self) -> Store {
        self.read(Store::clone)
    }

    /// The current revision, as it changes. What it says can be read.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.0.shared.revisions.subscribe()
    }

    /// New revisions, for the one who tells watchers.
    pub(crate) fn change_feed(&self) -> Arc<ChangeFeed> {
        Arc::clone(&self.0.shared.feed)
    }

    /// Users and roles, as they change. A change is seen here before the one who asked for it is answered.
    pub fn auth(&self) -> watch::Receiver<Arc<AuthStore>> {
        self.0.shared.auth.subscribe()
    }

    /// Looks at the applied state, keys together with the users and roles of the same moment: `look` has to be short.
    pub fn read_state<R>(&self, look: impl FnOnce(&Store, &AuthStore) -> R) -> R {
        let state = self.0.shared.state();
        look(&state.store, &state.auth)
    }

    /// Whom a simple token names, as far as this member knows. The token lives for its whole time again then.
    pub fn token_user(&self, token: &str) -> Option<Arc<str>> {
        self.0.shared.token_user(token)
    }

    /// The member that leads, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.0.server_metrics.borrow_watched().current_leader
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.0.server_metrics.borrow_watched().state.is_leader()
    }

    /// Whether this member has no vote, and is not to have one: it answers little then.
    pub fn is_learner(&self) -> bool {
        let metrics = self.0.server_metrics.borrow_watched();
        let node = metrics.membership_config.get_node(&self.0.identity.member_id);
        !metrics.state.is_leader() && node.is_some_and(|node| node.is_learner)
    }

    /// Notes where a member is reached by the membership of this moment.
    fn locate(&self, member: u64) {
        let metrics = self.0.server_metrics.borrow_watched();
        if let Some(node) = metrics.membership_config.get_node(&member) {
            self.0.peers.locate(member, &node.peer_urls);
        }
    }

    /// How long a request may take.
    fn patience(&self) -> Duration {
        open::patience(&self.0.options)
    }

    /// Cuts the ways to other members, to try out what happens then.
    pub fn switch(&self) -> Switch {
        self.0.peers.switch()
    }

    /// The alarms that are raised, as far as this member has applied.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.0.shared.state().alarms.iter().collect()
    }

    /// Bytes that the store may have; `None` if there is no limit.
    pub fn quota_bytes(&self) -> Option<u64> {
        self.0.options.quota()
    }

    /// Whether the store has as many bytes as it may. Then the alarm is raised, and stays when there is room again.
    fn is_short_of_room(&self) -> bool {
        let Inner { shared, options, short, .. } = &*self.0;
        let is_short = options.quota().is_some_and(|quota| shared.size_bytes() >= quota);
        if is_short {
            short.notify_one();
        }
        is_short
    }

    /// Waits until this member has let go of everything that compactions forgot.
    pub async fn swept(&self) {
        self.0.shared.swept().await;
    }

    /// What this engine has done since its start.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The current term, as far as this member knows.
    pub fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Whether a member leads that this one follows, or is, and they heard of each other within an election timeout. Not if
    /// this one has ended.
    pub fn has_leader(&self) -> bool {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_heard = match metrics.current_leader {
            None => false,
            Some(leader) if leader == self.0.identity.member_id => {
                let alone = metrics.membership_config.voter_ids().eq([leader]);
                let acked = metrics.last_quorum_acked.as_ref();
                alone || acked.is_some_and(|acked| acked.elapsed() <= self.0.options.election_timeout)
            }
            Some(_) => self.0.peers.hears_leader(),
        };
        metrics.running_state.is_ok() && is_heard
    }

    /// How this member is. Looks at the files on disk.
    pub fn status(&self) -> EngineStatus {
        let Inner { identity, options, shared, snapshots, .. } = &*self.0;
        let snapshot_bytes = snapshots.bytes();
        let disk_bytes =
            snapshot_bytes + open::folder_bytes(&*snapshots.platform.disk, &open::wal_dir(&options.data_dir));
        let applied_index = *shared.applied.borrow();
        let has_leader = self.has_leader();
        // openraft waits while this is looked at.
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        EngineStatus {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            name: options.name.clone(),
            peer_urls: options.peers.advertise.clone(),
            leader: metrics.current_leader.filter(|_| has_leader),
            is_leader: metrics.state.is_leader(),
            term: metrics.current_term,
            committed_index: metrics
                .local_committed
                .map_or(0, |committed| committed.index)
                .max(applied_index),
            applied_index,
            disk_bytes,
            used_bytes: snapshot_bytes + self.0.needed_log_bytes.load(Ordering::Relaxed),
        }
    }

    /// How long a lease has left: zero if it has run out and is not ended yet, nothing if there is none or if another
    /// member leads.
    pub fn lease_remaining(&self, id: LeaseId) -> Option<Duration> {
        self.0.shared.with_clock(|clock, now| clock.remaining(now, id)).flatten()
    }

    /// Sorts leases by which ends first, as of one moment: two that were granted in a row keep their order.
    pub fn sort_leases(&self, leases: &mut [LeaseId]) {
        self.0
            .shared
            .with_clock(|clock, now| leases.sort_by_cached_key(|lease| clock.remaining(now, *lease)));
    }

    /// Waits until the cluster knows how this member is called and where clients reach it: until then the list of the members
    /// shows it as one that clients cannot use. For one that has been there before this is known at once.
    pub async fn published(&self) {
        self.0.published.wait().await;
    }

    /// Waits until the store has ended, and returns why if that was a failure: then it takes no more, and what it shows is
    /// no longer kept up to date.
    pub async fn ended(&self) -> Option<String> {
        // These close when openraft ends, and change seldom before: the others change with each entry, and waking whoever
        // waits for them costs more than a put.
        let mut alive = self.0.raft.server_metrics();
        while alive.changed().await.is_ok() {}
        match &self.0.raft.metrics().borrow_watched().running_state {
            Err(fatal) => error::failed(fatal, &self.0.failure),
            Ok(()) => self.0.failure.get().cloned(),
        }
    }

    /// Ends everything: what is under way is refused, what is written is on disk, and the data folder is free. Other
    /// handles answer that the store is stopped. A leader hands leadership over before, if another member can take it.
    ///
    /// # Errors
    /// [`ShutdownError`].
    ///
    /// # Panics
    /// Never: nothing that holds the list of tasks panics.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.step_down().await;
        self.0.stop.cancel();
        self.0.tracker.close();
        let tasks = std::mem::take(&mut *self.0.tasks.lock().expect("nothing that holds it panics"));
        let mut outcome = Ok(());
        for (task, handle) in tasks {
            if let Err(error) = handle.await {
                outcome = outcome.and(Err(ShutdownError::Panicked { task, reason: error.to_string() }));
            }
        }
        // Those that another handle waits for.
        self.0.tracker.wait().await;
        outcome
    }
}
