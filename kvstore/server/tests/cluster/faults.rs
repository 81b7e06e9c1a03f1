//! Members that go, come back and are cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use landbridge_kvstore_server::engine::{Command, ProposeError};
use landbridge_kvstore_store::LeaseId;

use crate::harness::{Cluster, block_on, put, snapshots, until, value};

#[test]
fn a_killed_leader_takes_nothing_along_that_was_answered() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let leader = cluster.leader().await;
        let enough = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        for (number, engine) in cluster.running().filter(|(number, _)| *number != leader) {
            let (engine, enough) = (engine.clone(), Arc::clone(&enough));
            writers.spawn(async move {
                let mut answered = BTreeMap::new();
                for count in 0u64.. {
                    if enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{number}/{count}");
                    match engine.propose(put(key.clone(), "x")).await {
                        Ok(applied) => drop(answered.insert(key, applied.revision)),
                        Err(error) => assert!(error.may_be_carried_out(), "{error}"),
                    }
                }
                answered
            });
        }
        let before = cluster.engine(leader).status().applied_index;
        until("writes", || cluster.engine(leader).status().applied_index > before + 50).await;
        cluster.kill(leader);
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        let before = cluster.engine(next).status().applied_index;
        until("writes", || cluster.engine(next).status().applied_index > before + 50).await;
        enough.store(true, Ordering::Relaxed);
        let mut answered = BTreeMap::new();
        while let Some(writer) = writers.join_next().await {
            answered.extend(writer.unwrap());
        }
        cluster.restart(leader).await;
        cluster.agree().await;
        for key in answered.keys() {
            assert!(value(cluster.engine(leader), key).is_some(), "{key} is lost");
        }
        cluster.shutdown().await;
    });
}

#[test]
fn a_member_that_was_cut_off_disturbs_nobody_when_it_comes_back() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let leader = cluster.leader().await;
        let other = cluster.follower().await;
        let term = cluster.engine(leader).term();
        cluster.cut_off(other);
        until("a member without a leader", || !cluster.engine(other).has_leader()).await;
        for count in 0..20 {
            cluster.engine(leader).propose(put("key", count.to_string())).await.unwrap();
        }
        // Long enough for it to have stood for election, if it did such a thing.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(cluster.engine(other).term(), term);
        cluster.mend();
        cluster.agree().await;
        assert_eq!(cluster.engine(leader).term(), term);
        assert!(cluster.engine(leader).status().is_leader);
        cluster.shutdown().await;
    });
}

#[test]
fn a_leader_that_is_cut_off_confirms_no_read_and_no_write() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let old = cluster.leader().await;
        cluster.engine(old).propose(put("key", "old")).await.unwrap();
        cluster.cut_off(old);
        let (stale, lost) =
            tokio::join!(cluster.engine(old).read_barrier(), cluster.engine(old).propose(put("key", "lost")));
        assert!(stale.is_err(), "{stale:?}");
        assert!(lost.as_ref().is_err_and(ProposeError::may_be_carried_out), "{lost:?}");
        // On a busy machine the others may take longer than a request does.
        let mut new = None;
        until("another leader", || {
            new = (0..3).find(|number| *number != old && cluster.engine(*number).status().is_leader);
            new.is_some()
        })
        .await;
        let new = new.unwrap();
        cluster.engine(new).propose(put("key", "new")).await.unwrap();
        cluster.mend();
        cluster.agree().await;
        assert_eq!(value(cluster.engine(old), "key").as_deref(), Some("new"));
        cluster.shutdown().await;
    });
}

#[test]
fn a_leader_that_is_cut_off_lets_no_lease_live_on() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let old = cluster.leader().await;
        let id = LeaseId::new(7).unwrap();
        cluster.engine(old).propose(Command::LeaseGrant { id, ttl_seconds: 600 }).await.unwrap();
        assert_eq!(cluster.engine(old).renew_lease(id).await, Ok(Some(600)));
        cluster.cut_off(old);
        // The others end it by the time of the next leader, which hears nothing of this.
        let renewed = cluster.engine(old).renew_lease(id).await;
        assert!(renewed.is_err(), "{renewed:?}");
        cluster.mend();
        cluster.leader().await;
        assert_eq!(cluster.engine(old).renew_lease(id).await, Ok(Some(600)));
        cluster.shutdown().await;
    });
}

#[test]
fn a_member_that_is_far_behind_gets_a_snapshot() {
    block_on(async {
        let mut cluster = Cluster::new(3);
        cluster.start().await;
        let leader = cluster.leader().await;
        let behind = cluster.follower().await;
        cluster.stop(behind).await;
        for count in 0..400 {
            cluster.engine(leader).propose(put(format!("key/{}", count % 9), vec![b'x'; 500])).await.unwrap();
        }
        let data = cluster.nodes[leader].options.data_dir.clone();
        until("a snapshot", || snapshots(&data) > 0).await;
        cluster.restart(behind).await;
        cluster.agree().await;
        let data = cluster.nodes[behind].options.data_dir.clone();
        assert!(snapshots(&data) > 0);
        // And what comes afterwards, also after a restart.
        cluster.stop(behind).await;
        cluster.restart(behind).await;
        cluster.engine(behind).propose(put("after", "")).await.unwrap();
        cluster.agree().await;
        cluster.shutdown().await;
    });
}
