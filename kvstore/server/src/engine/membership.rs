//! Changes of who the members are, with etcd's checks and words.
//!
//! ```text
//! add ─► a member without a vote ─► it has started and caught up ─► a vote        learner ─► promote ─► a vote
//! ```
//!
//! Invariants:
//! - One change at a time, by the leader, and only when the one before is committed.
//! - A member that is added as a voter gets its vote when it has caught up, and not before, unlike in etcd: a cluster of one
//!   is not stopped by a second member that never starts.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::codec::proto::{
    AddMember, ChangeMembersRequest, UpdateMember, change_members_request::Change, leader_response::Answer,
};
use super::identity::member_id;
use super::members::Attributes;
use super::peers::{CallError, Lane};
use super::types::{LogId, Member, TypeConfig};
use super::{ClusterMember, Command, Engine, EngineOptions, Inner};

/// The most learners at a time; etcd's `--max-learners`.
const MAX_LEARNERS: usize = 1;
/// How much of the leader's log a learner has to have before it can be promoted, in percent.
const IN_SYNC_PERCENT: u64 = 90;
/// Entries that a member may be behind when it gets its vote.
const CAUGHT_UP: u64 = 1000;

/// Why the members are not changed. The texts are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// There is no such member.
    #[error("etcdserver: member not found")]
    NotFound,
    /// Another member has one of the URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlsExist,
    /// The URLs are none by which members can be reached.
    #[error("etcdserver: given member URLs are invalid")]
    InvalidUrls,
    /// Too few members that have a vote have started.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// Members cannot be reached, so that the change could stop the cluster.
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// The member has a vote already.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    /// The learner is too far behind.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    NotInSync,
    /// There is a learner already.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// This member does not lead.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// The member cannot lead.
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    /// No member leads.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// It took too long. It may be done or not.
    #[error("etcdserver: request timed out")]
    TimedOut,
    /// The member is stopped.
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// Those that a leader tells another member, by their number on the wire.
const CODES: [(u32, MemberError); 11] = [
    (1, MemberError::NotFound),
    (2, MemberError::PeerUrlsExist),
    (3, MemberError::InvalidUrls),
    (4, MemberError::NotEnoughStarted),
    (5, MemberError::Unhealthy),
    (6, MemberError::NotLearner),
    (7, MemberError::NotInSync),
    (8, MemberError::TooManyLearners),
    (9, MemberError::NotLeader),
    (10, MemberError::BadTransferee),
    (11, MemberError::Stopped),
];

impl MemberError {
    pub(super) fn code(self) -> u32 {
        CODES.iter().find(|(_, error)| *error == self).map_or(0, |(code, _)| *code)
    }

    /// Of one that is not known it is not known either what was done.
    fn of_code(code: u32) -> Self {
        CODES.iter().find(|(known, _)| *known == code).map_or(Self::TimedOut, |(_, error)| *error)
    }
}

impl Engine {
    /// All members, as far as this one has heard.
    pub fn members(&self) -> Vec<ClusterMember> {
        let state = self.0.shared.state();
        if state.membership.nodes().next().is_some() {
            return state.members.list(&state.membership);
        }
        // What is known after a start, before anything is applied.
        state.members.list(&self.0.server_metrics.borrow_watched().membership_config)
    }

    /// The numbers of those who have a vote.
    pub fn voters(&self) -> Vec<u64> {
        self.0.server_metrics.borrow_watched().membership_config.voter_ids().collect()
    }

    /// Whether all who have a vote answered this leader within an election timeout.
    pub fn hears_all(&self) -> bool {
        self.voters().into_iter().all(|voter| self.hears(voter))
    }

    /// Adds a member at `peer_urls`, and returns its number. It is started afterwards, with an empty data folder.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn add_member(&self, peer_urls: Vec<String>, is_learner: bool) -> Result<u64, MemberError> {
        self.change_members(Change::Add(AddMember { peer_urls, is_learner })).await
    }

    /// Removes a member, which stops then.
    ///
    /// # Errors
    /// As for [`Self::add_member`].
    pub async fn remove_member(&self, member: u64) -> Result<(), MemberError> {
        self.change_members(Change::Remove(member)).await.map(drop)
    }

    /// Has a member reached at other URLs.
    ///
    /// # Errors
    /// As for [`Self::add_member`].
    pub async fn update_member(&self, member: u64, peer_urls: Vec<String>) -> Result<(), MemberError> {
        self.change_members(Change::Update(UpdateMember { id: member, peer_urls })).await.map(drop)
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// As for [`Self::add_member`].
    pub async fn promote_member(&self, member: u64) -> Result<(), MemberError> {
        self.change_members(Change::Promote(member)).await.map(drop)
    }

    /// Hands leadership over to another member. Only the leader can.
    ///
    /// # Errors
    /// As for [`Self::add_member`].
    pub async fn move_leader(&self, to: u64) -> Result<(), MemberError> {
        if !self.leads() {
            return Err(MemberError::NotLeader);
        }
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        if !metrics.membership_config.voter_ids().any(|voter| voter == to) {
            return Err(MemberError::BadTransferee);
        }
        if to == self.0.identity.member_id {
            return Ok(());
        }
        // openraft takes no writes from here on until another leads; so the other has to be there.
        let patience = Instant::now() + self.0.options.election_timeout;
        while !self.hears(to) {
            if Instant::now() >= patience {
                return Err(MemberError::TimedOut);
            }
            sleep(self.0.options.heartbeat).await;
        }
        self.0.raft.trigger().transfer_leader(to).await.map_err(|_| MemberError::Stopped)?;
        let mut metrics = self.0.raft.server_metrics();
        let moved = async {
            while metrics.borrow_watched().current_leader != Some(to) {
                if metrics.changed().await.is_err() {
                    return Err(MemberError::Stopped);
                }
            }
            Ok(())
        };
        let deadline = Instant::now() + self.patience();
        timeout_at(deadline, moved).await.unwrap_or(Err(MemberError::TimedOut))
    }

    /// Hands leadership over before this member stops, if it leads and another can. Best effort.
    pub(super) async fn step_down(&self) {
        let own = self.0.identity.member_id;
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        let replication = metrics.replication.unwrap_or_default();
        let others =
            metrics.membership_config.voter_ids().filter(|voter| *voter != own && self.hears(*voter));
        let heir = others.max_by_key(|voter| replication.get(voter).copied().flatten());
        let Some(heir) = heir.filter(|_| self.leads()) else { return };
        let deadline = Instant::now() + self.0.options.election_timeout * 2;
        if let Ok(Ok(())) = timeout_at(deadline, self.move_leader(heir)).await {
            info!(to = format!("{heir:016x}"), "leadership is handed over");
        } else {
            warn!(to = format!("{heir:016x}"), "leadership could not be handed over");
        }
    }

    /// Whether a member answered this leader within an election timeout.
    fn hears(&self, member: u64) -> bool {
        if member == self.0.identity.member_id {
            return true;
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&member).copied().flatten());
        heard.is_some_and(|heard| heard.elapsed() <= self.0.options.election_timeout)
    }

    async fn change_members(&self, change: Change) -> Result<u64, MemberError> {
        let deadline = Instant::now() + self.patience();
        loop {
            let outcome = match self.leader() {
                Some(leader) if leader == self.0.identity.member_id => {
                    self.change_members_here(change.clone()).await
                }
                Some(leader) => self.ask_to_change(leader, change.clone(), deadline).await,
                None => Err(MemberError::NoLeader),
            };
            match outcome {
                Err(MemberError::NoLeader) if self.0.stop.is_cancelled() || self.0.peers.is_removed() => {
                    return Err(MemberError::Stopped);
                }
                Err(MemberError::NoLeader) if Instant::now() < deadline => self.leader_changes().await,
                outcome => return outcome,
            }
        }
    }

    async fn ask_to_change(
        &self,
        leader: u64,
        change: Change,
        deadline: Instant,
    ) -> Result<u64, MemberError> {
        let peers = &self.0.peers;
        self.locate(leader);
        let mut client = peers.client(leader, Lane::Control);
        let request = peers.request(leader, ChangeMembersRequest { change: Some(change) });
        match timeout_at(deadline, client.change_members(request)).await {
            Ok(Ok(response)) => match response.into_inner().answer {
                Some(Answer::MemberId(member)) => Ok(member),
                Some(Answer::Refusal(refusal)) => Err(MemberError::of_code(refusal.code)),
                Some(Answer::NotLeader(_)) => Err(MemberError::NoLeader),
                _ => Err(MemberError::TimedOut),
            },
            Ok(Err(status)) => match peers.failed(&status) {
                CallError::Unreachable(_) | CallError::Removed => Err(MemberError::NoLeader),
                CallError::Unknown(_) => Err(MemberError::TimedOut),
            },
            Err(_) => Err(MemberError::TimedOut),
        }
    }

    /// Changes the members as their leader, and returns the number of the one concerned.
    pub(super) async fn change_members_here(&self, change: Change) -> Result<u64, MemberError> {
        let deadline = Instant::now() + self.patience();
        let turn = timeout_at(deadline, self.0.changes.lock()).await;
        let _turn = turn.map_err(|_| MemberError::TimedOut)?;
        let applied = self.read_barrier().await;
        applied.map_err(|_| MemberError::NoLeader)?;
        let (member, change) = self.decide(change)?;
        self.commit(change, deadline).await?;
        Ok(member)
    }

    /// What becomes of a change, by etcd's rules.
    fn decide(&self, change: Change) -> Result<(u64, ChangeMembers<u64, Member>), MemberError> {
        let state = self.0.shared.state();
        let members = state.members.list(&state.membership);
        drop(state);
        let find = |id: u64| members.iter().find(|member| member.id == id).ok_or(MemberError::NotFound);
        let taken = |urls: &[String], except: u64| {
            let others = members.iter().filter(|member| member.id != except);
            others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url))
        };
        let node = |member: &ClusterMember| Member {
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            is_learner: member.is_learner,
        };
        match change {
            Change::Add(AddMember { peer_urls, is_learner }) => {
                check_urls(&peer_urls)?;
                if !is_learner {
                    enough_started(&members, 1, None)?;
                    if !self.hears_all() {
                        return Err(MemberError::Unhealthy);
                    }
                }
                if taken(&peer_urls, 0) {
                    return Err(MemberError::PeerUrlsExist);
                }
                if is_learner && members.iter().filter(|member| member.is_learner).count() >= MAX_LEARNERS {
                    return Err(MemberError::TooManyLearners);
                }
                let id = member_id(&self.0.options.cluster.token, &peer_urls, fastrand::u64(1..));
                let member = Member { name: String::new(), peer_urls, is_learner };
                Ok((id, ChangeMembers::AddNodes([(id, member)].into())))
            }
            Change::Remove(id) => {
                let member = find(id)?;
                if self.has_vote(id) {
                    enough_started(&members, 0, Some(id))?;
                    if self.hears(id) && !self.quorum_without(&members, id) {
                        return Err(MemberError::Unhealthy);
                    }
                    return Ok((id, ChangeMembers::RemoveVoters([member.id].into())));
                }
                Ok((id, ChangeMembers::RemoveNodes([member.id].into())))
            }
            Change::Update(UpdateMember { id, peer_urls }) => {
                check_urls(&peer_urls)?;
                let mut member = node(find(id)?);
                if taken(&peer_urls, id) {
                    return Err(MemberError::PeerUrlsExist);
                }
                member.peer_urls = peer_urls;
                Ok((id, ChangeMembers::SetNodes([(id, member)].into())))
            }
            Change::Promote(id) => {
                let mut member = node(find(id)?);
                if !member.is_learner {
                    return Err(MemberError::NotLearner);
                }
                let (own, theirs) = self.matching(id);
                if theirs
                    .is_none_or(|theirs| theirs.saturating_mul(100) < own.saturating_mul(IN_SYNC_PERCENT))
                {
                    return Err(MemberError::NotInSync);
                }
                enough_started(&members, 1, None)?;
                member.is_learner = false;
                let nodes: BTreeMap<u64, Member> = [(id, member)].into();
                let changes = vec![ChangeMembers::SetNodes(nodes), ChangeMembers::AddVoterIds([id].into())];
                Ok((id, ChangeMembers::Batch(changes)))
            }
        }
    }

    /// Has a change agreed on.
    async fn commit(&self, change: ChangeMembers<u64, Member>, deadline: Instant) -> Result<(), MemberError> {
        match timeout_at(deadline, self.0.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(_))) => Err(MemberError::Stopped),
            Ok(Err(RaftError::APIError(error))) => Err(refused(&error)),
            Err(_) => Err(MemberError::TimedOut),
        }
    }

    fn has_vote(&self, member: u64) -> bool {
        self.voters().contains(&member)
    }

    /// The last entry of this leader, and the last that a member has of it.
    fn matching(&self, member: u64) -> (u64, Option<u64>) {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let theirs = metrics.replication.as_ref().and_then(|all| all.get(&member).copied().flatten());
        (metrics.last_log_index.unwrap_or(0), theirs.map(|log_id: LogId| log_id.index()))
    }

    /// Whether enough would be there without one who is.
    fn quorum_without(&self, members: &[ClusterMember], without: u64) -> bool {
        let voters: Vec<_> =
            members.iter().filter(|member| member.id != without && self.has_vote(member.id)).collect();
        let there = voters.iter().filter(|member| self.hears(member.id)).count();
        there > voters.len() / 2
    }

    /// Gives votes to members that were added as voters, once they have caught up, if this member leads.
    async fn admit(&self) {
        for member in self.ready_to_vote() {
            let _turn = self.0.changes.lock().await;
            let deadline = Instant::now() + self.patience();
            match self.commit(ChangeMembers::AddVoterIds([member].into()), deadline).await {
                Ok(()) => info!(member = format!("{member:016x}"), "a new member has a vote"),
                Err(error) => {
                    warn!(%error, member = format!("{member:016x}"), "a new member has no vote yet");
                }
            }
        }
    }

    fn ready_to_vote(&self) -> Vec<u64> {
        if !self.leads() {
            return Vec::new();
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref();
        let membership = &metrics.membership_config;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let caught_up = |id: &u64| {
            let log_id = replication.and_then(|all| all.get(id).copied().flatten());
            log_id.is_some_and(|log_id| log_id.index() + CAUGHT_UP >= last)
        };
        let waiting = membership.nodes().filter(|(id, node)| !voters.contains(id) && !node.is_learner);
        waiting.map(|(id, _)| *id).filter(caught_up).collect()
    }

    /// Says how this member is called and where clients reach it, unless that is known.
    async fn publish(&self) {
        let EngineOptions { name, client_urls, .. } = &self.0.options;
        let member_id = self.0.identity.member_id;
        let attributes = Attributes { name: name.clone(), client_urls: client_urls.clone() };
        let known = || self.0.shared.state().members.attributes.get(&member_id) == Some(&attributes);
        if !client_urls.is_empty() && !known() {
            if self.leader().is_none() {
                return;
            }
            let Attributes { name, client_urls } = attributes.clone();
            // If it fails, the next look finds that it is not known.
            let _ = self.propose(Command::MemberAttributes { member_id, name, client_urls }).await;
            if !known() {
                return;
            }
        }
        // It stays known.
        let _ = self.0.published.set(());
    }

    /// Stops this member, for it is none any more.
    async fn leave(&self) {
        let reason = "the member has been permanently removed from the cluster: its data folder is no longer \
                      needed, and it can be added again with an empty one";
        self.0.peers.remove();
        if self.0.failure.set(reason.to_owned()).is_ok() {
            error!(member_id = format!("{:016x}", self.0.identity.member_id), reason, "the store stops");
        }
        let _ = self.0.raft.shutdown().await;
    }
}

/// Cares for the members until `stop`: those that wait for a vote, what this one says about itself, and whether it is one.
pub(super) async fn keep_members(engine: Weak<Inner>, interval: Duration, stop: CancellationToken) {
    loop {
        let Some(peers) = engine.upgrade().map(|engine| engine.peers.clone()) else { return };
        let removed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = peers.removed() => true,
            () = sleep(interval) => false,
        };
        let Some(engine) = engine.upgrade().map(Engine) else { return };
        let own = engine.0.identity.member_id;
        if removed || engine.0.shared.state().members.removed.contains(&own) {
            engine.leave().await;
            return;
        }
        let work = async {
            engine.admit().await;
            engine.publish().await;
        };
        if stop.run_until_cancelled(work).await.is_none() {
            return;
        }
    }
}

/// What openraft's reasons are in etcd's words.
fn refused(error: &ClientWriteError<TypeConfig>) -> MemberError {
    match error {
        ClientWriteError::ForwardToLeader(_) => MemberError::NoLeader,
        // Another change is under way, or is left of a leader before.
        ClientWriteError::ChangeMembershipError(_) => MemberError::Unhealthy,
        _ => MemberError::TimedOut,
    }
}

/// etcd's check before a member comes or goes: a quorum of those that will have a vote has started.
fn enough_started(members: &[ClusterMember], more: usize, without: Option<u64>) -> Result<(), MemberError> {
    let voters = members.iter().filter(|member| !member.is_learner && Some(member.id) != without);
    let (mut all, mut started) = (more, 0);
    for voter in voters {
        all += 1;
        started += usize::from(!voter.name.is_empty());
    }
    // A second member may be added to a single one, whose data it is to save.
    let second = more == 1 && all == 2 && started == 1;
    if second || (all > 0 && started > all / 2) { Ok(()) } else { Err(MemberError::NotEnoughStarted) }
}

fn check_urls(urls: &[String]) -> Result<(), MemberError> {
    let valid = |url: &String| match url.split_once("://") {
        Some(("http" | "https", rest)) => {
            rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        }
        Some(("unix" | "unixs", rest)) => !rest.is_empty(),
        _ => false,
    };
    if !urls.is_empty() && urls.iter().all(valid) { Ok(()) } else { Err(MemberError::InvalidUrls) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> ClusterMember {
        let name = name.to_owned();
        ClusterMember { id, name, peer_urls: Vec::new(), client_urls: Vec::new(), is_learner }
    }

    #[test]
    fn a_change_needs_a_quorum_of_started_members_as_in_etcd() {
        let one = [member(1, "one", false)];
        assert_eq!(enough_started(&one, 1, None), Ok(()));
        assert_eq!(enough_started(&one, 0, Some(1)), Err(MemberError::NotEnoughStarted));
        let half = [member(1, "one", false), member(2, "", false)];
        assert_eq!(enough_started(&half, 1, None), Err(MemberError::NotEnoughStarted));
        assert_eq!(enough_started(&half, 0, Some(2)), Ok(()));
        assert_eq!(enough_started(&half, 0, Some(1)), Err(MemberError::NotEnoughStarted));
        let three = [member(1, "a", false), member(2, "b", false), member(3, "", false), member(4, "", true)];
        assert_eq!(enough_started(&three, 1, None), Err(MemberError::NotEnoughStarted));
        assert_eq!(enough_started(&three, 0, Some(3)), Ok(()));
        assert_eq!(enough_started(&three, 0, Some(2)), Err(MemberError::NotEnoughStarted));
    }

    #[test]
    fn urls_of_members_have_a_port() {
        let check = |url: &str| check_urls(&[url.to_owned()]);
        for valid in ["http://10.0.0.1:2380", "https://name:1", "http://[::1]:2380", "unix:///run/a"] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for invalid in ["", "10.0.0.1:2380", "http://name", "ftp://name:1", "http://:1", "http://name:x"] {
            assert_eq!(check(invalid), Err(MemberError::InvalidUrls), "{invalid}");
        }
        assert_eq!(check_urls(&[]), Err(MemberError::InvalidUrls));
    }

    #[test]
    fn refusals_keep_their_meaning_on_the_way() {
        for (code, error) in CODES {
            assert_eq!((error.code(), MemberError::of_code(code)), (code, error));
        }
    }
}
