//! Who may read and write what, over mTLS.

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, Grant};
use landbridge_kvstore_store::KeyRange;
use pb::request_op::Request;
use tonic::{Code, Status};

use crate::pki::{Ca, client_tls, connect};
use crate::store::{Client, Ours, Responses};

fn grant(user: &str, read: &[&str], write: &[&str]) -> Grant {
    let prefixes = |of: &[&str]| of.iter().map(|prefix| KeyRange::prefix(prefix.as_bytes())).collect();
    Grant { user: user.to_owned(), root: false, read: prefixes(read), write: prefixes(write) }
}

/// `root` may do everything, `reader` reads `r/`, `writer` reads `r/` and writes `w/`.
fn rules() -> AccessRules {
    let root = Grant { root: true, ..grant("root", &[], &[]) };
    let half = KeyRange::new("r/".into(), "r/m".into());
    let rest = KeyRange::new("r/m".into(), "r0".into());
    let reader = Grant { read: vec![rest, half], ..grant("reader", &[], &[]) };
    AccessRules::ByUser(vec![root, reader, grant("writer", &["r/"], &[]), grant("writer", &[], &["w/"])])
}

struct Setup {
    ours: Ours,
    ca: Ca,
}

impl Setup {
    async fn start() -> Self {
        let ca = Ca::new("ours");
        Self { ours: Ours::start(rules(), Some(ca.server_files())).await, ca }
    }

    async fn user(&self, name: &str, prefix: &str) -> Client {
        let tls = client_tls(&self.ca.pem(), Some(&self.ca.sign(name)));
        let channel = connect(&self.ours.endpoint("https"), tls).await.unwrap();
        Client { channel, prefix: prefix.to_owned() }
    }
}

fn denied<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    super::suite::assert_refused(outcome, Code::PermissionDenied, "etcdserver: permission denied");
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), ..Default::default() }
}

#[tokio::test]
async fn a_user_reads_what_is_granted_and_nothing_around_it() {
    let setup = Setup::start().await;
    let (root, reader) = (setup.user("root", "r").await, setup.user("reader", "r").await);
    for key in ["q", "r", "r/a", "r/z", "r0", "s"] {
        root.kv().put(put(key)).await.unwrap();
    }
    // Two grants side by side are one.
    assert_eq!(reader.range(range("r/", "r0")).await.unwrap().count, 2);
    assert_eq!(reader.range(range("r/a", "")).await.unwrap().count, 1);
    for (key, end) in [
        ("r", ""),
        ("r", "s"),
        ("r/", "\0"),
        ("r/a", "\0"),
        ("\0", "\0"),
        ("r/", "r1"),
        ("q", "r0"),
        ("r0", ""),
    ] {
        denied(reader.range(range(key, end)).await);
        let counted = pb::RangeRequest { count_only: true, serializable: true, ..range(key, end) };
        denied(reader.range(counted).await);
    }
    denied(reader.kv().put(put("r/a")).await);
    denied(
        reader.kv().delete_range(pb::DeleteRangeRequest { key: "r/a".into(), ..Default::default() }).await,
    );
    denied(reader.compact(2).await);
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(reader.channel.clone());
    denied(maintenance.defragment(pb::DefragmentRequest {}).await);
    denied(maintenance.snapshot(pb::SnapshotRequest {}).await);
    maintenance.status(pb::StatusRequest {}).await.unwrap();

    // A certificate of the CA is not enough.
    let stranger = setup.user("stranger", "r").await;
    denied(stranger.range(range("r/a", "")).await);
    denied(stranger.grant(60, 0).await);
    setup.ours.stop().await;
}

#[tokio::test]
async fn a_writer_is_not_told_what_it_may_not_read() {
    let setup = Setup::start().await;
    let writer = setup.user("writer", "w").await;
    writer.kv().put(put("w/a")).await.unwrap();
    denied(writer.range(range("w/a", "")).await);
    denied(writer.kv().put(pb::PutRequest { prev_kv: true, ..put("w/a") }).await);
    let delete = pb::DeleteRangeRequest { key: "w/".into(), range_end: "w0".into(), prev_kv: true };
    denied(writer.kv().delete_range(delete.clone()).await);
    let blind = pb::DeleteRangeRequest { prev_kv: false, ..delete };
    denied(
        writer.kv().delete_range(pb::DeleteRangeRequest { range_end: "\0".into(), ..blind.clone() }).await,
    );
    assert_eq!(writer.kv().delete_range(blind).await.unwrap().into_inner().deleted, 1);
    setup.ours.stop().await;
}

#[tokio::test]
async fn a_transaction_needs_the_rights_of_branches_it_does_not_take() {
    let setup = Setup::start().await;
    let (root, writer) = (setup.user("root", "w").await, setup.user("writer", "w").await);
    let op = |request| pb::RequestOp { request: Some(request) };
    let nested = |ops: Vec<pb::RequestOp>| {
        op(Request::RequestTxn(pb::TxnRequest { failure: ops, ..Default::default() }))
    };
    let allowed = [op(Request::RequestPut(put("w/a"))), op(Request::RequestRange(range("r/", "r0")))];
    let refused = [
        op(Request::RequestPut(put("r/a"))),
        op(Request::RequestPut(pb::PutRequest { prev_kv: true, ..put("w/b") })),
        op(Request::RequestRange(range("w/b", ""))),
        op(Request::RequestRange(range("r/", "\0"))),
        op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: "r/a".into(), ..Default::default() })),
    ];
    let txn =
        |success: Vec<pb::RequestOp>, failure| pb::TxnRequest { success, failure, ..Default::default() };
    writer.txn(txn(allowed.to_vec(), vec![])).await.unwrap();
    for op in refused {
        denied(writer.txn(txn(vec![op.clone()], vec![])).await);
        denied(writer.txn(txn(allowed.to_vec(), vec![op.clone()])).await);
        denied(writer.txn(txn(vec![nested(vec![op.clone()])], vec![])).await);
        root.txn(txn(vec![], vec![op])).await.unwrap();
    }
    let compare = pb::Compare { key: "w/a".into(), ..Default::default() };
    let compared = pb::TxnRequest { compare: vec![compare], ..txn(allowed.to_vec(), vec![]) };
    denied(writer.txn(compared).await);
    setup.ours.stop().await;
}

#[tokio::test]
async fn a_lease_takes_only_keys_of_those_who_may_write_all_that_is_on_it() {
    let setup = Setup::start().await;
    let (root, writer) = (setup.user("root", "x").await, setup.user("writer", "w").await);
    let lease = writer.grant(60, 0).await.unwrap().id;
    let leased = |key| pb::PutRequest { lease, ..put(key) };
    writer.kv().put(leased("w/a")).await.unwrap();
    writer.kv().put(leased("w/b")).await.unwrap();
    root.kv().put(leased("x")).await.unwrap();
    denied(writer.kv().put(leased("w/c")).await);
    let op = pb::RequestOp { request: Some(Request::RequestPut(leased("w/c"))) };
    denied(writer.txn(pb::TxnRequest { success: vec![op], ..Default::default() }).await);
    denied(writer.lease().lease_revoke(pb::LeaseRevokeRequest { id: lease }).await);
    let keys = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    denied(writer.lease().lease_time_to_live(keys).await);
    root.lease().lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    setup.ours.stop().await;
}

/// In etcd every user may grant, renew and end leases, so that one who may only read can fill the store with them, or keep
/// the keys of a dead client alive.
#[tokio::test]
async fn who_may_write_nothing_has_no_leases() {
    let setup = Setup::start().await;
    let (writer, reader) = (setup.user("writer", "w").await, setup.user("reader", "r").await);
    denied(reader.grant(60, 0).await);
    let lease = writer.grant(60, 0).await.unwrap().id;
    denied(reader.lease().lease_revoke(pb::LeaseRevokeRequest { id: lease }).await);
    let asked = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: lease }]);
    let mut client = reader.lease();
    let mut answers = Responses::of(async move { client.lease_keep_alive(asked).await });
    denied(answers.message().await);
    setup.ours.stop().await;
}

#[tokio::test]
async fn a_watch_needs_its_whole_range_and_ends_when_the_right_does() {
    const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    let setup = Setup::start().await;
    let (root, reader) = (setup.user("root", "r").await, setup.user("reader", "r").await);
    let mut watch = reader.watch();
    let create = |key: &'static str, end: &'static str| pb::WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    for (key, end) in [("r", ""), ("r", "s"), ("r/a", "\0"), ("", "\0"), ("", ""), ("w/", "w0")] {
        let refused = watch.create(create(key, end)).await;
        assert_eq!((refused.watch_id, refused.canceled, &refused.cancel_reason[..]), (-1, true, DENIED));
    }
    let kept = watch.create(create("r/a", "")).await.watch_id;
    let lost = watch.create(create("r/", "r0")).await.watch_id;

    let narrower = Grant { read: vec![KeyRange::Single("r/a".into())], ..grant("reader", &[], &[]) };
    let AccessRules::ByUser(mut grants) = rules() else { unreachable!("users have rights") };
    grants[1] = narrower;
    setup.ours.access.send(AccessRules::ByUser(grants)).unwrap();
    let ended = watch.next().await;
    assert_eq!((ended.watch_id, ended.canceled, &ended.cancel_reason[..]), (lost, true, DENIED));
    assert_eq!(ended.compact_revision, 0);
    denied(reader.range(range("r/b", "")).await);

    root.kv().put(put("r/b")).await.unwrap();
    root.kv().put(put("r/a")).await.unwrap();
    assert_eq!(watch.next().await.watch_id, kept);
    setup.ours.stop().await;
}

#[tokio::test]
async fn without_a_certificate_there_is_no_user() {
    let ours = Ours::start(rules(), None).await;
    let client = Client::connect(&ours.endpoint("http"), "r").await;
    let text = "etcdserver: user name is empty";
    super::suite::assert_refused(client.range(range("r/a", "")).await, Code::InvalidArgument, text);
    super::suite::assert_refused(client.grant(60, 0).await, Code::InvalidArgument, text);
    ours.stop().await;
}
