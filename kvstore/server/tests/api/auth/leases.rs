//! Leases take keys of those alone who may write all that is on them.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::request_op::Request;

use super::{Transcript, User, compare, put};

async fn revoke(user: &User, id: i64) -> Result<tonic::Response<pb::LeaseRevokeResponse>, tonic::Status> {
    user.lease().lease_revoke(user.ask(pb::LeaseRevokeRequest { id })).await
}

async fn time_to_live(lines: &mut Transcript, user: &User, id: i64) {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let answer = user.lease().lease_time_to_live(user.ask(request)).await;
    lines.note("time to live", answer, |mut lease| {
        lease.keys.sort();
        (lease.granted_ttl, lease.keys)
    });
}

#[tokio::test]
async fn leases_are_for_those_who_may_write_their_keys_as_in_etcd() {
    compare(include_str!("leases.txt"), async |nobody| {
        let mut lines = Transcript::default();
        let root = nobody.rule().await;
        root.make("ann", &[(2, "a", "b"), (1, "w", "")]).await;
        root.make("bob", &[(0, "a", "b")]).await;
        let (ann, bob) = (nobody.log_in("ann", "secret").await, nobody.log_in("bob", "secret").await);
        let granted = ann.lease().lease_grant(ann.ask(pb::LeaseGrantRequest { ttl: 60, id: 7 })).await;
        lines.note("ann makes a lease", granted, |lease| (lease.id, lease.ttl));
        let granted = bob.lease().lease_grant(bob.ask(pb::LeaseGrantRequest { ttl: 60, id: 8 })).await;
        lines.note("bob makes a lease", granted, |lease| (lease.id, lease.ttl));
        let leased = |key| pb::PutRequest { lease: 7, ..put(key) };
        for key in ["a1", "a2", "w", "z"] {
            lines.done(&format!("ann puts {key}"), ann.kv().put(ann.ask(leased(key))).await);
        }
        time_to_live(&mut lines, &ann, 7).await;
        time_to_live(&mut lines, &nobody, 7).await;
        lines.done("bob revokes it", revoke(&bob, 7).await);
        lines.done("root puts z", root.kv().put(root.ask(leased("z"))).await);
        lines.done("ann puts a3", ann.kv().put(ann.ask(leased("a3"))).await);
        let op = pb::RequestOp { request: Some(Request::RequestPut(put("a3"))) };
        let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
        lines.done("ann puts a3 in a txn", ann.kv().txn(ann.ask(txn)).await);
        lines.done("ann revokes it", revoke(&ann, 7).await);
        time_to_live(&mut lines, &ann, 7).await;
        time_to_live(&mut lines, &root, 7).await;
        lines.done("root revokes it", revoke(&root, 7).await);
        lines.done("ann revokes it", revoke(&ann, 7).await);
        lines.done("ann puts a3 on what is no lease", ann.kv().put(ann.ask(leased("a3"))).await);
        lines.done("ann revokes bob's, which is empty", revoke(&ann, 8).await);
        time_to_live(&mut lines, &ann, 8).await;
        lines
    })
    .await;
}
