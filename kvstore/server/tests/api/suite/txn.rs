use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use super::assert_refused;
use crate::store::Client;

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(client: &Client, name: &str, value: &str) -> pb::RequestOp {
    let value = value.to_owned().into();
    op(Request::RequestPut(pb::PutRequest { key: client.key(name), value, ..Default::default() }))
}

fn delete(client: &Client, name: &str, end: &str) -> pb::RequestOp {
    let (key, range_end) = (client.key(name), client.key(end));
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false }))
}

fn range(client: &Client, name: &str, end: &str) -> pb::RequestOp {
    op(Request::RequestRange(client.range_of(name, end)))
}

fn nested(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

fn compare(client: &Client, name: &str, result: CompareResult, union: TargetUnion) -> pb::Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        key: client.key(name),
        result: result.into(),
        target: target.into(),
        target_union: Some(union),
        ..Default::default()
    }
}

fn if_holds(compare: pb::Compare) -> pb::TxnRequest {
    pb::TxnRequest { compare: vec![compare], ..Default::default() }
}

fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

fn kinds(response: &pb::TxnResponse) -> Vec<&'static str> {
    let kind = |op: &pb::ResponseOp| match op.response.as_ref().unwrap() {
        Response::ResponseRange(_) => "range",
        Response::ResponsePut(_) => "put",
        Response::ResponseDeleteRange(_) => "delete",
        Response::ResponseTxn(_) => "txn",
    };
    response.responses.iter().map(kind).collect()
}

pub(crate) async fn one_of_two_branches_is_carried_out_at_one_revision(client: Client) {
    let before = client.revision().await;
    let create = pb::TxnRequest {
        compare: vec![compare(&client, "a", CompareResult::Equal, TargetUnion::Version(0))],
        success: vec![put(&client, "a", "1"), put(&client, "b", "2"), range(&client, "a", "z")],
        failure: vec![range(&client, "a", "b")],
    };
    let response = client.txn(create.clone()).await.unwrap();
    assert!(response.succeeded);
    assert_eq!(kinds(&response), ["put", "put", "range"]);
    let header = response.header.unwrap();
    assert!(header.revision == before + 1 && header.member_id != 0);
    let Some(Response::ResponseRange(read)) = &response.responses[2].response else { panic!("{response:?}") };
    assert_eq!((read.count, read.kvs[1].mod_revision()), (2, before + 1));
    let inner = read.header.unwrap();
    assert_eq!((inner.revision, inner.cluster_id, inner.member_id, inner.raft_term), (before + 1, 0, 0, 0));

    let response = client.txn(create).await.unwrap();
    assert!(!response.succeeded);
    assert_eq!((kinds(&response), response.header.unwrap().revision), (vec!["range"], before + 1));

    // A transaction inside of it does not say its revision; what is in that does.
    let inner = then(vec![put(&client, "c", "3")]);
    let response = client.txn(then(vec![op(Request::RequestTxn(inner))])).await.unwrap();
    let Some(Response::ResponseTxn(inner)) = &response.responses[0].response else { panic!("{response:?}") };
    let Some(Response::ResponsePut(put)) = &inner.responses[0].response else { panic!("{response:?}") };
    assert_eq!(
        (inner.header.as_ref().unwrap().revision, put.header.as_ref().unwrap().revision),
        (0, before + 2)
    );
}

pub(crate) async fn a_missing_key_is_zero_to_compares_and_its_value_compares_with_nothing(client: Client) {
    let holds = async |result, union| {
        client.txn(if_holds(compare(&client, "none", result, union))).await.unwrap().succeeded
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    assert!(holds(Equal, TargetUnion::Version(0)).await);
    assert!(holds(Equal, TargetUnion::CreateRevision(0)).await);
    assert!(holds(Less, TargetUnion::ModRevision(1)).await);
    assert!(holds(Equal, TargetUnion::Lease(0)).await);
    assert!(!holds(NotEqual, TargetUnion::Version(0)).await);
    for result in [Equal, NotEqual, Greater, Less] {
        assert!(!holds(result, TargetUnion::Value("x".into())).await, "{result:?}");
    }
    // What is not given is 0.
    let unset =
        pb::Compare { key: client.key("none"), target: CompareTarget::Create.into(), ..Default::default() };
    assert!(client.txn(if_holds(unset)).await.unwrap().succeeded);
}

pub(crate) async fn a_compare_of_a_range_holds_for_every_key(client: Client) {
    client.put("a", "1").await;
    client.put("b", "1").await;
    client.put("b", "1").await;
    let holds = async |name: &str, end: &str, union| {
        let range_end = client.key(end);
        let compare = pb::Compare { range_end, ..compare(&client, name, CompareResult::Equal, union) };
        client.txn(if_holds(compare)).await.unwrap().succeeded
    };
    assert!(holds("a", "z", TargetUnion::Value("1".into())).await);
    assert!(!holds("a", "z", TargetUnion::Version(1)).await);
    assert!(holds("a", "b", TargetUnion::Version(1)).await);
    assert!(holds("c", "z", TargetUnion::Version(0)).await);
}

pub(crate) async fn an_operation_sees_those_before_it_and_a_compare_does_not(client: Client) {
    client.put("a", "1").await;
    let inner = pb::TxnRequest {
        compare: vec![compare(&client, "a", CompareResult::Equal, TargetUnion::Value("1".into()))],
        success: vec![range(&client, "a", "b")],
        failure: vec![],
    };
    let response = client.txn(then(vec![put(&client, "a", "2"), nested(inner)])).await.unwrap();
    let Some(Response::ResponseTxn(inner)) = &response.responses[1].response else { panic!("{response:?}") };
    assert!(inner.succeeded);
    let Some(Response::ResponseRange(read)) = &inner.responses[0].response else { panic!("{response:?}") };
    assert_eq!(read.kvs[0].value(), b"2");
}

pub(crate) async fn a_transaction_that_cannot_be_carried_out_changes_nothing(client: Client) {
    let revision = client.put("a", "1").await;
    let leased = pb::PutRequest { key: client.key("b"), lease: 4_711, ..Default::default() };
    let refused =
        client.txn(then(vec![put(&client, "a", "2"), op(Request::RequestPut(leased.clone()))])).await;
    assert_refused(refused, Code::NotFound, "etcdserver: requested lease not found");
    let future = pb::RangeRequest { revision: revision + 100, ..client.range_of("a", "b") };
    let refused =
        client.txn(then(vec![put(&client, "a", "2"), op(Request::RequestRange(future.clone()))])).await;
    let in_future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(refused, Code::OutOfRange, in_future);
    // What is wrong with a put is told before what is wrong with a range in front of it.
    let both = vec![op(Request::RequestRange(future.clone())), op(Request::RequestPut(leased.clone()))];
    assert_refused(client.txn(then(both)).await, Code::NotFound, "etcdserver: requested lease not found");
    // A key that is not there is told before a lease that is not; a put by itself is looked at the other way round.
    let kept = pb::PutRequest { ignore_value: true, ..leased };
    let refused = client.txn(then(vec![op(Request::RequestPut(kept.clone()))])).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: key not found");
    assert_refused(client.kv().put(kept).await, Code::NotFound, "etcdserver: requested lease not found");
    // No revision is below 0 here, though it would be the current one of a range by itself.
    let negative = pb::RangeRequest { revision: -2, ..client.range_of("a", "b") };
    let refused = client.txn(then(vec![op(Request::RequestRange(negative))])).await;
    assert_refused(refused, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let refused = client.txn(then(vec![pb::RequestOp { request: None }])).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: key not found");
    let nameless = op(Request::RequestPut(pb::PutRequest::default()));
    let refused = client.txn(then(vec![nameless])).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: key is not provided");
    assert_eq!(client.revision().await, revision);
}

pub(crate) async fn a_branch_changes_each_key_once(client: Client) {
    let text = "etcdserver: duplicate key given in txn request";
    let inner = |op| nested(then(vec![op]));
    for ops in [
        vec![put(&client, "a", ""), put(&client, "a", "")],
        vec![put(&client, "a", ""), delete(&client, "a", "b")],
        vec![delete(&client, "a", "b"), inner(put(&client, "a", ""))],
        vec![inner(put(&client, "a", "")), inner(put(&client, "a", ""))],
    ] {
        assert_refused(client.txn(then(ops.clone())).await, Code::InvalidArgument, text);
        // The branch that is not taken counts too.
        let other = pb::TxnRequest { failure: ops, ..Default::default() };
        assert_refused(client.txn(other).await, Code::InvalidArgument, text);
    }
    let either = pb::TxnRequest {
        success: vec![put(&client, "a", "")],
        failure: vec![put(&client, "a", "")],
        ..Default::default()
    };
    client.txn(then(vec![nested(either)])).await.unwrap();
    client.txn(then(vec![delete(&client, "a", "b"), delete(&client, "a", "c")])).await.unwrap();
}

pub(crate) async fn a_transaction_has_128_operations_at_most(client: Client) {
    let text = "etcdserver: too many operations in txn request";
    let puts = |count| (0..count).map(|number| put(&client, &format!("{number:03}"), "")).collect::<Vec<_>>();
    let response = client.txn(then(puts(128))).await.unwrap();
    assert_eq!(response.responses.len(), 128);
    assert_refused(client.txn(then(puts(129))).await, Code::InvalidArgument, text);
    let other = pb::TxnRequest { failure: puts(129), ..Default::default() };
    assert_refused(client.txn(other).await, Code::InvalidArgument, text);
    assert_refused(client.txn(then(vec![nested(then(puts(128)))])).await, Code::InvalidArgument, text);
    client.txn(then(vec![nested(then(puts(127)))])).await.unwrap();
}

pub(crate) async fn what_only_reads_is_answered_too(client: Client) {
    let revision = client.put("a", "1").await;
    let keys_only = pb::RangeRequest { keys_only: true, ..client.range_of("a", "b") };
    let serializable = pb::RangeRequest { serializable: true, ..client.range_of("a", "b") };
    let reads = then(vec![op(Request::RequestRange(keys_only)), op(Request::RequestRange(serializable))]);
    let response = client.txn(reads.clone()).await.unwrap();
    assert_eq!(response.header.unwrap().revision, revision);
    let value = |op: &pb::ResponseOp| match op.response.as_ref().unwrap() {
        Response::ResponseRange(read) => read.kvs[0].value().to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(response.responses.iter().map(value).collect::<Vec<_>>(), [&b""[..], b"1"]);
    let response = client.txn(then(vec![nested(reads)])).await.unwrap();
    let Some(Response::ResponseTxn(inner)) = &response.responses[0].response else { panic!("{response:?}") };
    assert_eq!(inner.responses.iter().map(value).collect::<Vec<_>>(), [&b""[..], b"1"]);
    assert_eq!(client.revision().await, revision);
}
