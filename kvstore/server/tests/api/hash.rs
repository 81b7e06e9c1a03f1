//! The checksum of keys and history: after the same requests it is the one of etcd, at every revision.

use landbridge_kvstore_server::AccessRules;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_lab::requirement::{Requirement, etcd, met};
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request;
use tonic::Code;

use crate::store::{Client, Etcd, Ours};

/// The only compaction before the last step.
const COMPACTED: i64 = 9;

fn put(client: &Client, name: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: client.key(name), value: value.to_owned().into(), lease, ..Default::default() }
}

fn deletion(client: &Client, name: &str, end: &str) -> pb::DeleteRangeRequest {
    let range_end = if end.is_empty() { bytes::Bytes::new() } else { client.key(end) };
    pb::DeleteRangeRequest { key: client.key(name), range_end, prev_kv: false }
}

/// Changes in all ways: several at a revision, with leases, deletions, keys that come back.
async fn change(client: &Client) {
    let mut kv = client.kv();
    let grant = pb::LeaseGrantRequest { id: 77, ttl: 600 };
    client.lease().lease_grant(grant).await.unwrap();
    for (name, value, lease) in [("a", "1", 0), ("b", "", 77), ("a", "2", 77), ("c", "3", 0)] {
        kv.put(put(client, name, value, lease)).await.unwrap();
    }
    // Revision 6: three changes. 7: two deletions. 8: one that comes back. 9: a deletion, at which it is compacted.
    let op = |request| pb::RequestOp { request: Some(request) };
    let several = vec![
        op(Request::RequestPut(put(client, "d", "4", 0))),
        op(Request::RequestDeleteRange(deletion(client, "b", ""))),
        op(Request::RequestPut(put(client, "e", "5", 0))),
    ];
    kv.txn(pb::TxnRequest { success: several, ..Default::default() }).await.unwrap();
    kv.delete_range(deletion(client, "c", "e")).await.unwrap();
    kv.put(put(client, "c", "6", 0)).await.unwrap();
    kv.delete_range(deletion(client, "e", "")).await.unwrap();
    kv.put(put(client, "e", "7", 77)).await.unwrap();
    kv.put(put(client, "a", "8", 0)).await.unwrap();
}

/// The answers for all revisions: checksum and compacted revision, or the refusal. The revision that it was made at is
/// told by ours, as by etcd 3.6; etcd 3.5 leaves it out.
///
/// Without the revisions `compacted`: there etcd, until it is started again, says what it said before the compaction.
async fn hashes(client: &Client, compacted: &[i64]) -> Vec<Result<(u32, i64), (Code, String)>> {
    let mut maintenance = MaintenanceClient::new(client.channel.clone());
    let mut hashes = Vec::new();
    for revision in (-1..20).filter(|revision| !compacted.contains(revision)) {
        let answer = maintenance.hash_kv(pb::HashKvRequest { revision }).await;
        let answer = answer.map(|answer| {
            let answer = answer.into_inner();
            assert!(answer.hash_revision == 0 || revision == 0 || answer.hash_revision == revision);
            (answer.hash, answer.compact_revision)
        });
        hashes.push(answer.map_err(|status| (status.code(), status.message().to_owned())));
    }
    hashes
}

async fn compact(client: &Client, revision: i64) {
    client.kv().compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checksum_is_that_of_etcd_at_every_revision() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start(&etcd().unwrap());
    let ours = Ours::start(AccessRules::Open, None).await;
    let theirs = Client::connect(&etcd.endpoint, "same").await;
    let mine = Client::connect(&ours.endpoint("http"), "same").await;
    let same = async |compacted: &[i64], what: &str| {
        assert_eq!(hashes(&mine, compacted).await, hashes(&theirs, compacted).await, "{what}");
    };
    same(&[], "of nothing").await;
    change(&mine).await;
    change(&theirs).await;
    same(&[], "of everything").await;
    for client in [&mine, &theirs] {
        compact(client, COMPACTED).await;
    }
    same(&[COMPACTED], "after a compaction").await;
    for client in [&mine, &theirs] {
        client.kv().delete_range(deletion(client, "a", "z")).await.unwrap();
    }
    same(&[COMPACTED], "without a key").await;
    let last = mine.revision().await;
    for client in [&mine, &theirs] {
        compact(client, last).await;
    }
    same(&[COMPACTED, last], "of nothing left").await;
    for client in [&mine, &theirs] {
        client.put("a", "9").await;
    }
    same(&[COMPACTED, last], "of a new beginning").await;
    ours.stop().await;
}
