//! Members that come and go, and who leads.

use std::time::{Duration, Instant};

use landbridge_kvstore_server::engine::{Engine, MemberError, OpenError, ProposeError, ReadError};
use landbridge_kvstore_store::LeaseId;

use crate::harness::{Cluster, PATIENCE, block_on, put, until, value};

/// Whoever asks a member that was removed is told so, and nothing about its disk, which is well.
async fn is_out(engine: &Engine) {
    let error = engine.propose(put("key", "late")).await.unwrap_err();
    assert_eq!(error, ProposeError::Removed);
    let text = error.to_string();
    assert!(text.contains("removed from its cluster") && !text.contains("disk"), "{text}");
    assert_eq!(engine.read_barrier().await, Err(ReadError::Removed));
    assert_eq!(engine.renew_lease(LeaseId::new(1).unwrap()).await, Err(ReadError::Removed));
    assert_eq!(
        engine.add_member(vec!["http://127.0.0.1:1".to_owned()], true).await,
        Err(MemberError::Stopped)
    );
}

#[test]
fn a_cluster_of_one_grows_to_five_and_shrinks_again() {
    block_on(async {
        let mut cluster = Cluster::new(1);
        cluster.start().await;
        cluster.engine(0).propose(put("key", "first")).await.unwrap();
        for size in 2..=5 {
            let number = cluster.grow(0, false).await;
            until("a vote for the new member", || {
                cluster.engine(0).voters().len() == size && cluster.engine(number).members().len() == size
            })
            .await;
            let engine = cluster.engine(number);
            assert!(!engine.is_learner());
            engine.propose(put(format!("by/{number}"), "x")).await.unwrap();
            until("the new member to have said who it is", || {
                cluster.engine(0).members().iter().all(|member| !member.client_urls.is_empty())
            })
            .await;
        }
        cluster.agree().await;
        assert_eq!(value(cluster.engine(4), "key").as_deref(), Some("first"));
        let gone = cluster.engine(4).status().member_id;
        cluster.engine(1).remove_member(gone).await.unwrap();
        let reason = cluster.engine(4).ended().await.unwrap();
        assert!(reason.contains("permanently removed"), "{reason}");
        is_out(cluster.engine(4)).await;
        // Nor does it come back.
        cluster.stop(4).await;
        cluster.restart(4).await;
        let reason = cluster.engine(4).ended().await.unwrap();
        assert!(reason.contains("permanently removed"), "{reason}");
        is_out(cluster.engine(4)).await;
        cluster.stop(4).await;
        assert_eq!(cluster.engine(0).remove_member(gone).await, Err(MemberError::NotFound));
        cluster.agree().await;
        cluster.shutdown().await;
    });
}

#[test]
fn a_learner_has_a_copy_and_no_vote_until_it_is_promoted() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        for count in 0..120 {
            cluster.engine(0).propose(put(format!("key/{count}"), "x")).await.unwrap();
        }
        let leader = cluster.leader().await;
        let learner = cluster.grow(leader, true).await;
        until("the learner to know what it is", || cluster.engine(learner).is_learner()).await;
        let id = cluster.engine(learner).status().member_id;
        assert_eq!(
            cluster.engine(0).add_member(vec!["http://127.0.0.1:1".to_owned()], true).await,
            Err(MemberError::TooManyLearners)
        );
        assert_eq!(cluster.engine(leader).move_leader(id).await, Err(MemberError::BadTransferee));
        cluster.agree().await;
        assert_eq!(cluster.engine(leader).voters().len(), 3);
        let follower = cluster.follower().await;
        cluster.engine(follower).promote_member(id).await.unwrap();
        until("its vote", || !cluster.engine(learner).is_learner()).await;
        assert_eq!(cluster.engine(leader).voters().len(), 4);
        assert_eq!(cluster.engine(leader).promote_member(id).await, Err(MemberError::NotLearner));
        cluster.shutdown().await;
    });
}

#[test]
fn leadership_moves_when_it_is_told_to_and_when_its_holder_stops() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        let id = cluster.engine(follower).status().member_id;
        assert_eq!(cluster.engine(follower).move_leader(id).await, Err(MemberError::NotLeader));
        assert_eq!(cluster.engine(leader).move_leader(7).await, Err(MemberError::BadTransferee));
        let term = cluster.engine(leader).term();
        cluster.engine(leader).move_leader(id).await.unwrap();
        assert_eq!(cluster.leader().await, follower);
        assert_eq!(cluster.engine(follower).term(), term + 1);
        cluster.engine(leader).propose(put("key", "x")).await.unwrap();
        cluster.stop(follower).await;
        // No election timeout had to pass: another was asked to lead.
        let heir = cluster.leader().await;
        assert_eq!(cluster.engine(heir).term(), term + 2);
        cluster.engine(heir).propose(put("key", "y")).await.unwrap();
        cluster.shutdown().await;
    });
}

/// The answer once the leader hears all members: on a slow machine it may not for a moment, and says that first.
async fn while_all_are_heard<T>(ask: impl AsyncFn() -> Result<T, MemberError>) -> Result<T, MemberError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(MemberError::Unhealthy) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answer => return answer,
        }
    }
}

#[test]
fn changes_that_would_stop_the_cluster_are_refused() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let (leader, follower) = (cluster.leader().await, cluster.follower().await);
        let engine = cluster.engine(follower);
        assert_eq!(
            engine.add_member(vec!["nonsense".to_owned()], false).await,
            Err(MemberError::InvalidUrls)
        );
        let taken = engine.status().peer_urls;
        let added = while_all_are_heard(|| engine.add_member(taken.clone(), false)).await;
        assert_eq!(added, Err(MemberError::PeerUrlsExist));
        assert_eq!(engine.update_member(9, taken.clone()).await, Err(MemberError::NotFound));
        let leader_id = cluster.engine(leader).status().member_id;
        assert_eq!(engine.update_member(leader_id, taken).await, Err(MemberError::PeerUrlsExist));
        assert_eq!(engine.promote_member(leader_id).await, Err(MemberError::NotLearner));
        // One is down: no further one may come, and none of the others may go.
        cluster.stop(follower).await;
        let leader = cluster.leader().await;
        let engine = cluster.engine(leader);
        let url = vec!["http://127.0.0.1:1".to_owned()];
        until("silence", || !engine.hears_all()).await;
        assert_eq!(engine.add_member(url, false).await, Err(MemberError::Unhealthy));
        let own = engine.status().member_id;
        assert_eq!(engine.remove_member(own).await, Err(MemberError::Unhealthy));
        cluster.shutdown().await;
    });
}

#[test]
fn a_member_of_another_cluster_is_refused() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let engine = cluster.engine(0);
        until("all members to have said who they are", || {
            let members = engine.members();
            members.len() == 3 && members.iter().all(|member| !member.client_urls.is_empty())
        })
        .await;
        cluster.stop(2).await;
        let data = cluster.nodes[2].options.data_dir.clone();
        std::fs::remove_dir_all(&data).unwrap();
        // Its data is lost, so that it might vote twice.
        let error = cluster.nodes[2].start().await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, OpenError::Options { .. }) && text.contains("already been bootstrapped"),
            "{text}"
        );
        cluster.nodes[2].options.cluster.token = "other".to_owned();
        let error = cluster.nodes[2].start().await.unwrap_err();
        assert!(error.to_string().contains("cluster ID mismatch"), "{error}");
        cluster.shutdown().await;
    });
}

/// etcd's `--force-new-cluster`. What was acknowledged is kept, though the one that is left was never told that it was.
#[test]
fn what_is_left_of_a_cluster_goes_on_alone_if_it_is_told_to() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let leader = cluster.leader().await;
        let [left, lost] = [1, 2].map(|step| (leader + step) % 3);
        for count in 0..120 {
            cluster.engine(leader).propose(put(format!("key/{count}"), "x")).await.unwrap();
        }
        let (identity, url) = {
            let status = cluster.engine(left).status();
            ((status.cluster_id, status.member_id), status.peer_urls)
        };
        cluster.stop(lost).await;
        // Two make the majority: it is on the disk of the one that will be left.
        cluster.engine(leader).propose(put("last", "x")).await.unwrap();
        cluster.kill(leader);
        cluster.stop(left).await;

        cluster.restart(left).await;
        let silent = cluster.engine(left).propose(put("alone", "no"));
        let answer = tokio::time::timeout(Duration::from_secs(2), silent).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
        assert_eq!(cluster.engine(left).members().len(), 3);
        cluster.stop(left).await;

        cluster.nodes[left].options.cluster.force_new = true;
        // Again at the next start, where there is nothing left to do.
        for round in 0..2 {
            cluster.restart(left).await;
            let engine = cluster.engine(left);
            let status = engine.status();
            assert!(status.is_leader, "{status:?}");
            assert_eq!(((status.cluster_id, status.member_id), &status.peer_urls), (identity, &url));
            let members: Vec<u64> = engine.members().iter().map(|member| member.id).collect();
            assert_eq!((members, engine.voters().len()), (vec![identity.1], 1));
            engine.read_barrier().await.unwrap();
            assert_eq!(value(engine, "last").as_deref(), Some("x"));
            assert_eq!(value(engine, "key/119").as_deref(), Some("x"));
            engine.propose(put(format!("alone/{round}"), "yes")).await.unwrap();
            cluster.stop(left).await;
        }
        cluster.nodes[left].options.cluster.force_new = false;
        cluster.restart(left).await;
        assert_eq!(value(cluster.engine(left), "alone/1").as_deref(), Some("yes"));
        // Others may come, which get all of it.
        let new = cluster.grow(left, false).await;
        cluster.agree().await;
        assert_eq!(value(cluster.engine(new), "last").as_deref(), Some("x"));
        cluster.shutdown().await;
    });
}
