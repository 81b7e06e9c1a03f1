//! What etcd 3.5.16 lets through, and later ones do not: checked against ours alone.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::request_op::Request;
use tonic::{Code, Status};

use super::{User, assert_denied, put, quick, range};
use crate::store::{Client, Ours, Responses, Watch};
use crate::suite::assert_refused;

async fn users() -> (Ours, User, User, User) {
    let ours = Ours::start_with_users(tempfile::tempdir().unwrap(), quick(), None).await;
    let nobody = User::nobody(Client::connect(&ours.endpoint("http"), "").await.channel);
    let root = nobody.rule().await;
    root.make("ann", &[(2, "a", "b"), (1, "w", "")]).await;
    let ann = nobody.log_in("ann", "secret").await;
    (ours, nobody, root, ann)
}

fn nameless<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    assert_refused(outcome, Code::InvalidArgument, "etcdserver: user name is empty");
}

/// etcd checks nested transactions since 3.5.28.
#[tokio::test]
async fn a_transaction_inside_of_another_needs_rights_too() {
    let (ours, _, root, ann) = users().await;
    root.put("z").await.unwrap();
    let lease = root.lease().lease_grant(root.ask(pb::LeaseGrantRequest { ttl: 60, id: 7 })).await;
    lease.unwrap();
    let leased = |key| pb::PutRequest { lease: 7, ..put(key) };
    root.kv().put(root.ask(leased("z"))).await.unwrap();
    let op = |request| pb::RequestOp { request: Some(request) };
    for inner in [
        op(Request::RequestRange(range("z", ""))),
        op(Request::RequestPut(put("z"))),
        op(Request::RequestPut(pb::PutRequest { prev_kv: true, ..put("w") })),
        op(Request::RequestPut(leased("a"))),
    ] {
        let nested = |ops| op(Request::RequestTxn(pb::TxnRequest { success: ops, ..Default::default() }));
        let txn = pb::TxnRequest { failure: vec![nested(vec![nested(vec![inner])])], ..Default::default() };
        assert_denied(ann.kv().txn(ann.ask(txn)).await);
    }
    ours.stop().await;
}

/// etcd leaves these to everyone, with or without a name, until 3.5.28.
#[tokio::test]
async fn what_concerns_the_whole_store_is_for_root() {
    let (ours, nobody, root, ann) = users().await;
    root.put("a").await.unwrap();
    let compact = || pb::CompactionRequest { revision: 2, physical: false };
    nameless(nobody.kv().compact(nobody.ask(compact())).await);
    assert_denied(ann.kv().compact(ann.ask(compact())).await);
    root.kv().compact(root.ask(compact())).await.unwrap();
    nameless(nobody.lease().lease_grant(nobody.ask(pb::LeaseGrantRequest { ttl: 60, id: 1 })).await);
    nameless(nobody.lease().lease_leases(nobody.ask(pb::LeaseLeasesRequest {})).await);
    let mut cluster = pb::cluster_client::ClusterClient::new(nobody.channel.clone());
    nameless(cluster.member_list(nobody.ask(pb::MemberListRequest { linearizable: true })).await);
    let remove = pb::MemberRemoveRequest { id: 1 };
    nameless(cluster.member_remove(nobody.ask(remove)).await);
    assert_denied(cluster.member_remove(ann.ask(remove)).await);
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(nobody.channel.clone());
    let activate = pb::AlarmRequest { action: 1, ..Default::default() };
    for (user, check) in [(&nobody, nameless::<()> as fn(_)), (&ann, assert_denied::<()>)] {
        check(maintenance.alarm(user.ask(activate)).await.map(drop));
        check(maintenance.defragment(user.ask(pb::DefragmentRequest {})).await.map(drop));
        check(maintenance.hash(user.ask(pb::HashRequest {})).await.map(drop));
        check(maintenance.hash_kv(user.ask(pb::HashKvRequest { revision: 0 })).await.map(drop));
        check(maintenance.snapshot(user.ask(pb::SnapshotRequest {})).await.map(drop));
        check(maintenance.move_leader(user.ask(pb::MoveLeaderRequest { target_id: 1 })).await.map(drop));
    }
    ours.stop().await;
}

/// As etcd since 3.5.28.
#[tokio::test]
async fn a_lease_is_kept_alive_and_listed_by_those_who_may_write_and_read_its_keys() {
    let (ours, _, root, ann) = users().await;
    root.lease().lease_grant(root.ask(pb::LeaseGrantRequest { ttl: 60, id: 7 })).await.unwrap();
    let keep_alive = |user: &User| {
        let mut lease = user.lease();
        let request = user.ask(tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]));
        Responses::of(async move { lease.lease_keep_alive(request).await })
    };
    assert_eq!(keep_alive(&ann).message().await.unwrap().unwrap().ttl, 60, "there is no key on it");
    ann.lease().lease_leases(ann.ask(pb::LeaseLeasesRequest {})).await.unwrap();
    root.kv().put(root.ask(pb::PutRequest { lease: 7, ..put("z") })).await.unwrap();
    assert_denied(keep_alive(&ann).message().await);
    assert_denied(ann.lease().lease_leases(ann.ask(pb::LeaseLeasesRequest {})).await);
    assert_eq!(keep_alive(&root).message().await.unwrap().unwrap().ttl, 60);
    ours.stop().await;
}

/// In etcd a watch lives on when the right to it ends. Its start is checked as it is carried out since 3.5.33.
#[tokio::test]
async fn a_watch_ends_with_the_right_to_it_and_not_with_the_token() {
    let (ours, nobody, root, ann) = users().await;
    let mut watch = Watch::open_as(ann.channel.clone(), ann.token.as_deref());
    let create = |key: &'static str, end: &'static str| pb::WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    for (key, end) in [("a", "\0"), ("w", ""), ("", "\0"), ("a", "c")] {
        let refused = watch.create(create(key, end)).await;
        assert_eq!((refused.watch_id, refused.canceled, &refused.cancel_reason[..]), (-1, true, DENIED));
    }
    let id = watch.create(create("a", "b")).await.watch_id;
    // Its tokens end, and the watch does not.
    let request = pb::AuthUserChangePasswordRequest {
        name: "ann".into(),
        password: "other".into(),
        ..Default::default()
    };
    root.auth().user_change_password(root.ask(request)).await.unwrap();
    root.put("a").await.unwrap();
    assert_eq!(watch.next_event().await.events.len(), 1);
    const INVALID: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    assert_eq!(watch.create(create("a", "b")).await.cancel_reason, INVALID);
    root.grant("ann", 1, "a", "b").await.unwrap();
    let ended = watch.next_event().await;
    assert_eq!((ended.watch_id, ended.canceled, &ended.cancel_reason[..]), (id, true, DENIED));
    let mut nameless = Watch::open(nobody.channel.clone());
    let refused = nameless.create(create("a", "")).await;
    assert_eq!(
        refused.cancel_reason,
        "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
    );
    ours.stop().await;
}

#[tokio::test]
async fn what_is_no_right_is_seen_on_a_lease_of_many_keys_at_once() {
    let (ours, _, root, ann) = users().await;
    ann.lease().lease_grant(ann.ask(pb::LeaseGrantRequest { ttl: 60, id: 7 })).await.unwrap();
    for number in 0..200 {
        let request = pb::PutRequest { key: format!("a{number}").into(), lease: 7, ..Default::default() };
        ann.kv().put(ann.ask(request)).await.unwrap();
    }
    root.kv().put(root.ask(pb::PutRequest { lease: 7, ..put("m") })).await.unwrap();
    assert_denied(ann.kv().put(ann.ask(pb::PutRequest { lease: 7, ..put("a") })).await);
    root.kv()
        .delete_range(root.ask(pb::DeleteRangeRequest { key: "m".into(), ..Default::default() }))
        .await
        .unwrap();
    ann.kv().put(ann.ask(pb::PutRequest { lease: 7, ..put("a") })).await.unwrap();
    ours.stop().await;
}
