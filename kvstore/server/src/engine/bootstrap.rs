//! Who a member with an empty data folder is: one that makes a cluster with others, one that joins, or one alone.
//!
//! Invariants:
//! - All members of a new cluster come to the same numbers without asking each other, and to the same first entry of the log.
//! - A member that the cluster knows to have started does not start again with nothing: it would vote a second time in a
//!   term that it has forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::codec::proto::{MemberFacts, MembersResponse};
use super::identity::{Identity, member_id};
use super::peers::ask_members;
use super::types::Member;
use super::{ClusterState, EngineOptions, InitialMember, OpenError};
use crate::platform::Platform;

/// How long the members of a running cluster are asked for it.
const ASK_WITHIN: Duration = Duration::from_secs(30);
const ASK_PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

fn wrong(reason: String) -> OpenError {
    OpenError::Options { reason }
}

/// Who a member with an empty data folder is, by its options.
///
/// # Errors
/// [`OpenError::Options`] if they contradict themselves or the cluster that they name.
pub(super) async fn identify(options: &EngineOptions, platform: &Platform) -> Result<Identity, OpenError> {
    let own_urls = &options.peers.advertise;
    let cluster = &options.cluster;
    match (cluster.initial.is_empty(), cluster.state) {
        (true, ClusterState::Existing) => {
            Err(wrong("a member that joins a cluster has to be told its members".to_owned()))
        }
        (true, ClusterState::New) => Ok(Identity::alone(&cluster.token, own_urls, fastrand::u64(..))),
        (false, ClusterState::New) => {
            check_initial(options)?;
            let identity = Identity::of_cluster(&cluster.token, &cluster.initial, own_urls);
            refuse_second_start(options, platform, identity).await?;
            Ok(identity)
        }
        (false, ClusterState::Existing) => {
            check_initial(options)?;
            join(options, platform).await
        }
    }
}

/// Those who make the cluster of a member that has no log yet; nobody if the cluster is there.
pub(super) fn founders(options: &EngineOptions, identity: Identity) -> BTreeMap<u64, Member> {
    let cluster = &options.cluster;
    let member = |name: &str, peer_urls: &[String]| Member {
        name: name.to_owned(),
        peer_urls: peer_urls.to_vec(),
        is_learner: false,
    };
    match (cluster.initial.is_empty(), cluster.state) {
        (true, _) => [(identity.member_id, member(&options.name, &options.peers.advertise))].into(),
        (false, ClusterState::Existing) => BTreeMap::new(),
        (false, ClusterState::New) => {
            let founder = |InitialMember { name, peer_urls }: &InitialMember| {
                (member_id(&cluster.token, peer_urls, 0), member(name, peer_urls))
            };
            cluster.initial.iter().map(founder).collect()
        }
    }
}

/// Checks that the initial members are distinct, and that this one is among them.
fn check_initial(options: &EngineOptions) -> Result<(), OpenError> {
    let name = &options.name;
    let mut urls = BTreeSet::new();
    for member in &options.cluster.initial {
        if member.peer_urls.is_empty() {
            return Err(wrong(format!("the initial member {} has no URL", member.name)));
        }
        if let Some(url) = member.peer_urls.iter().find(|url| !urls.insert(*url)) {
            return Err(wrong(format!("the initial cluster has {url} twice")));
        }
    }
    let own = options.cluster.initial.iter().find(|member| member.name == *name);
    let own = own.ok_or_else(|| {
        wrong(format!("couldn't find local name {name:?} in the initial cluster configuration"))
    })?;
    if !same(&own.peer_urls, &options.peers.advertise) {
        return Err(wrong(format!(
            "the initial cluster has {:?} for {name}, and it advertises {:?} to other members",
            own.peer_urls, options.peers.advertise
        )));
    }
    Ok(())
}

fn same(one: &[String], other: &[String]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>()
}

/// The other members' answers, as far as they are there.
async fn ask_others(
    options: &EngineOptions,
    platform: &Platform,
    patience: Duration,
) -> Option<MembersResponse> {
    let others = options.cluster.initial.iter().filter(|member| member.name != options.name);
    let asked =
        others.map(|member| ask_members(&member.peer_urls, options.peers.tls.as_ref(), platform, patience));
    let answers = futures_util::future::join_all(asked).await;
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        info!(error, "a member that was asked for its cluster does not answer");
    }
    answers.into_iter().filter_map(Result::ok).find(|answer| !answer.members.is_empty())
}

async fn refuse_second_start(
    options: &EngineOptions,
    platform: &Platform,
    identity: Identity,
) -> Result<(), OpenError> {
    let Some(running) = ask_others(options, platform, ASK_PATIENCE).await else { return Ok(()) };
    if running.cluster_id != identity.cluster_id {
        return Err(wrong(format!(
            "cluster ID mismatch: the members that run are of cluster {:016x}, and this one would be of {:016x}",
            running.cluster_id, identity.cluster_id
        )));
    }
    let started = |member: &MemberFacts| member.id == identity.member_id && !member.client_urls.is_empty();
    let known = running.members.iter().any(|member| member.id == identity.member_id);
    if running.members.iter().any(started) || !known {
        return Err(wrong(format!(
            "member {:016x} has already been bootstrapped: its data is lost, so remove the member and add a new one",
            identity.member_id
        )));
    }
    Ok(())
}

/// Asks the running members who this one is to them.
async fn join(options: &EngineOptions, platform: &Platform) -> Result<Identity, OpenError> {
    let deadline = Instant::now() + ASK_WITHIN;
    loop {
        if let Some(running) = ask_others(options, platform, ASK_PATIENCE).await {
            let own = running.members.iter().find(|member| same(&member.peer_urls, &options.peers.advertise));
            if let Some(own) = own {
                return Ok(Identity { cluster_id: running.cluster_id, member_id: own.id });
            }
            // The one who answered may not have heard of it yet.
            warn!(urls = ?options.peers.advertise, "the cluster does not know this member yet: add it first");
        }
        if Instant::now() >= deadline {
            return Err(wrong(format!(
                "no running member knows a member at {:?}: add it to the cluster first",
                options.peers.advertise
            )));
        }
        sleep(PAUSE).await;
    }
}
