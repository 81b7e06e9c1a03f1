//! What one member answered, all know.

use std::collections::BTreeSet;

use landbridge_kvstore_server::engine::Command;
use landbridge_kvstore_store::LeaseId;

use crate::harness::{Cluster, block_on, put, until, value};

#[test]
fn members_of_a_cluster_agree_on_its_number_and_each_has_its_own() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let statuses: Vec<_> = cluster.running().map(|(_, engine)| engine.status()).collect();
        let clusters: BTreeSet<u64> = statuses.iter().map(|status| status.cluster_id).collect();
        let members: BTreeSet<u64> = statuses.iter().map(|status| status.member_id).collect();
        assert_eq!((clusters.len(), members.len()), (1, 3));
        for number in 0..3 {
            cluster.stop(number).await;
        }
        cluster.start().await;
        let after: Vec<_> = cluster.running().map(|(_, engine)| engine.status()).collect();
        for (before, after) in statuses.iter().zip(&after) {
            assert_eq!((before.cluster_id, before.member_id), (after.cluster_id, after.member_id));
        }
        // They say how they are called, and where clients reach them.
        let engine = cluster.engine(1);
        until("all members to have said who they are", || {
            let members = engine.members();
            members.len() == 3 && members.iter().all(|member| !member.client_urls.is_empty())
        })
        .await;
        let names: BTreeSet<String> = engine.members().into_iter().map(|member| member.name).collect();
        assert_eq!(names, (0..3).map(|number| format!("member-{number}")).collect());
        cluster.shutdown().await;
    });
}

#[test]
fn writes_at_each_member_are_seen_at_all_in_one_order() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let mut writers = tokio::task::JoinSet::new();
        for (number, engine) in cluster.running() {
            let engine = engine.clone();
            writers.spawn(async move {
                let mut revisions = Vec::new();
                for count in 0..60 {
                    let applied = engine.propose(put(format!("{number}/{count}"), "x")).await.unwrap();
                    // Who was answered by a member reads it there.
                    assert!(value(&engine, &format!("{number}/{count}")).is_some());
                    revisions.push(applied.revision);
                }
                revisions
            });
        }
        let mut all = BTreeSet::new();
        while let Some(revisions) = writers.join_next().await {
            let revisions = revisions.unwrap();
            assert!(revisions.is_sorted());
            all.extend(revisions);
        }
        assert_eq!(all, (2..182).collect());
        cluster.agree().await;
        cluster.shutdown().await;
    });
}

#[test]
fn a_read_at_any_member_sees_what_was_answered_before() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        for count in 0..40 {
            let (writer, reader) = (count % 3, (count + 1) % 3);
            cluster.engine(writer).propose(put("key", count.to_string())).await.unwrap();
            cluster.engine(reader).read_barrier().await.unwrap();
            assert_eq!(value(cluster.engine(reader), "key"), Some(count.to_string()));
        }
        cluster.shutdown().await;
    });
}

#[test]
fn leases_live_and_end_by_the_leaders_clock_wherever_they_are_asked_for() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let follower = cluster.follower().await;
        let engine = cluster.engine(follower);
        let (long, short) = (LeaseId::new(1).unwrap(), LeaseId::new(2).unwrap());
        engine.propose(Command::LeaseGrant { id: long, ttl_seconds: 600 }).await.unwrap();
        engine.propose(Command::LeaseGrant { id: short, ttl_seconds: 1 }).await.unwrap();
        assert_eq!(engine.renew_lease(long).await.unwrap(), Some(600));
        let left = engine.lease_time_left(long).await.unwrap().unwrap();
        assert!(left.as_secs() >= 500, "{left:?}");
        assert_eq!(engine.lease_time_left(LeaseId::new(9).unwrap()).await.unwrap(), None);
        until("the end of a lease", || engine.read(|store| store.leases().eq([long]))).await;
        assert_eq!(engine.renew_lease(short).await.unwrap(), None);
        // Another leader gives it its full time.
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        cluster.leader().await;
        assert_eq!(cluster.engine(follower).renew_lease(long).await.unwrap(), Some(600));
        cluster.shutdown().await;
    });
}
