use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use tonic::Code;

use super::assert_refused;
use crate::store::Client;

/// The keys of a response without the prefix of the check.
fn names(client: &Client, response: &pb::RangeResponse) -> Vec<String> {
    let name = |kv: &crate::store::pb_kv::KeyValue| {
        let key = String::from_utf8(kv.key().to_vec()).unwrap();
        key.strip_prefix(&format!("{}/", client.prefix)).unwrap_or(&key).to_owned()
    };
    response.kvs.iter().map(name).collect()
}

pub(crate) async fn a_write_that_changes_something_is_the_next_revision(client: Client) {
    let first = client.put("a", "1").await;
    assert_eq!(client.put("a", "1").await, first + 1);
    assert_eq!(client.delete("b").await, first + 1);
    assert_eq!(client.delete("a").await, first + 2);
    assert_eq!(client.revision().await, first + 2);
}

pub(crate) async fn a_key_counts_its_versions_from_its_creation(client: Client) {
    let first = client.put("a", "1").await;
    client.put("b", "").await;
    client.put("a", "2").await;
    let kv = client.get("a").await.unwrap();
    assert_eq!((kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()), (first, first + 2, 2, 0));
    assert_eq!(kv.value(), b"2");
    client.delete("a").await;
    assert!(client.get("a").await.is_none());
    client.put("a", "3").await;
    let kv = client.get("a").await.unwrap();
    assert_eq!((kv.create_revision(), kv.mod_revision(), kv.version()), (first + 4, first + 4, 1));
}

pub(crate) async fn ranges_are_as_etcd_describes_them(client: Client) {
    for name in ["a", "ab", "b", "c"] {
        client.put(name, name).await;
    }
    let range =
        async |key: &str, end: &str| names(&client, &client.range(client.range_of(key, end)).await.unwrap());
    assert_eq!(range("a", "b").await, ["a", "ab"]);
    assert_eq!(range("b", "a").await, [""; 0]);
    assert_eq!(range("b", "b").await, [""; 0]);
    let single = pb::RangeRequest { key: client.key("a"), ..Default::default() };
    assert_eq!(names(&client, &client.range(single).await.unwrap()), ["a"]);
    let from = pb::RangeRequest { key: client.key("b"), range_end: "\0".into(), ..Default::default() };
    assert_eq!(names(&client, &client.range(from).await.unwrap())[..2], ["b", "c"]);
    let everything = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    assert!(client.range(everything).await.unwrap().count >= 4);
    let nothing = client.range(pb::RangeRequest::default()).await;
    assert_refused(nothing, Code::InvalidArgument, "etcdserver: key is not provided");
}

pub(crate) async fn the_limit_keeps_keys_back_and_the_count_does_not_care(client: Client) {
    for name in ["a", "b", "c"] {
        client.put(name, "value").await;
    }
    let all = client.range_of("a", "z");
    let limited = async |limit| client.range(pb::RangeRequest { limit, ..all.clone() }).await.unwrap();
    let response = limited(2).await;
    assert_eq!(
        (names(&client, &response), response.count, response.more),
        (vec!["a".into(), "b".into()], 3, true)
    );
    let response = limited(3).await;
    assert_eq!((response.kvs.len(), response.count, response.more), (3, 3, false));
    let response = limited(0).await;
    assert_eq!((response.kvs.len(), response.more), (3, false));

    let counted = client.range(pb::RangeRequest { count_only: true, limit: 1, ..all.clone() }).await.unwrap();
    assert_eq!((counted.kvs.len(), counted.count, counted.more), (0, 3, false));
    let keys = client.range(pb::RangeRequest { keys_only: true, ..all }).await.unwrap();
    assert_eq!(names(&client, &keys), ["a", "b", "c"]);
    assert!(keys.kvs.iter().all(|kv| kv.value().is_empty() && kv.version() == 1 && kv.mod_revision() > 0));
}

pub(crate) async fn keys_are_sorted_by_what_is_asked_for(client: Client) {
    client.put("b", "1").await;
    client.put("a", "2").await;
    client.put("c", "0").await;
    client.put("b", "3").await;
    let sorted = async |target: SortTarget, order: SortOrder, limit| {
        let request = pb::RangeRequest {
            sort_target: target.into(),
            sort_order: order.into(),
            limit,
            ..client.range_of("a", "z")
        };
        names(&client, &client.range(request).await.unwrap())
    };
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    for (target, order, expected) in [
        (Key, None, ["a", "b", "c"]),
        (Key, Descend, ["c", "b", "a"]),
        (Create, Ascend, ["b", "a", "c"]),
        (Create, None, ["b", "a", "c"]),
        (Create, Descend, ["c", "a", "b"]),
        (Mod, Ascend, ["a", "c", "b"]),
        (Value, Ascend, ["c", "a", "b"]),
    ] {
        assert_eq!(sorted(target, order, 0).await, expected, "{target:?} {order:?}");
    }
    assert_eq!(sorted(Version, Descend, 1).await, ["b"]);
    assert_eq!(sorted(Create, Ascend, 1).await, ["b"]);
    // Without an order, only what the limit leaves, and one more, is sorted.
    assert_eq!(sorted(Value, Ascend, 1).await, ["c"]);
    assert_eq!(sorted(Value, None, 1).await, ["a"]);
}

pub(crate) async fn revision_bounds_leave_keys_out_but_not_out_of_the_count(client: Client) {
    let first = client.put("a", "").await;
    client.put("b", "").await;
    client.put("c", "").await;
    client.put("a", "").await;
    let all = client.range_of("a", "z");
    let found = async |request: pb::RangeRequest| {
        let response = client.range(request).await.unwrap();
        assert_eq!(response.count, 3);
        names(&client, &response)
    };
    assert_eq!(found(pb::RangeRequest { min_mod_revision: first + 2, ..all.clone() }).await, ["a", "c"]);
    assert_eq!(found(pb::RangeRequest { max_mod_revision: first + 2, ..all.clone() }).await, ["b", "c"]);
    assert_eq!(found(pb::RangeRequest { min_create_revision: first + 1, ..all.clone() }).await, ["b", "c"]);
    assert_eq!(found(pb::RangeRequest { max_create_revision: first, ..all.clone() }).await, ["a"]);
    // The way a lock finds who was before it.
    let before = pb::RangeRequest {
        max_create_revision: first + 1,
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 1,
        ..all
    };
    assert_eq!(found(before).await, ["b"]);
}

pub(crate) async fn the_past_can_be_read_until_it_is_compacted(client: Client) {
    let first = client.put("a", "1").await;
    client.put("a", "2").await;
    client.put("b", "").await;
    let at = async |revision| client.range(pb::RangeRequest { revision, ..client.range_of("a", "z") }).await;
    let value = |response: pb::RangeResponse| response.kvs[0].value().to_vec();
    assert_eq!(value(at(first).await.unwrap()), b"1");
    let response = at(first + 1).await.unwrap();
    assert_eq!((response.count, response.header.unwrap().revision), (1, first + 2));

    client.compact(first + 1).await.unwrap();
    assert_eq!(value(at(first + 1).await.unwrap()), b"2");
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    assert_refused(at(first).await, Code::OutOfRange, compacted);
    assert_refused(at(first + 3).await, Code::OutOfRange, future);
    assert_refused(client.compact(first + 1).await, Code::OutOfRange, compacted);
    assert_refused(client.compact(first + 3).await, Code::OutOfRange, future);
}

pub(crate) async fn a_put_keeps_what_it_is_told_to_keep(client: Client) {
    let lease = client.grant(60, 0).await.unwrap().id;
    client.put_leased("a", "1", lease).await.unwrap();
    let put = async |request: pb::PutRequest| {
        let request = pb::PutRequest { key: client.key("a"), ..request };
        client.kv().put(request).await.map(|response| response.into_inner().prev_kv)
    };
    let previous =
        put(pb::PutRequest { value: "2".into(), ignore_lease: true, prev_kv: true, ..Default::default() })
            .await
            .unwrap()
            .unwrap();
    assert_eq!((previous.value(), previous.lease()), (&b"1"[..], lease));
    assert_eq!(client.get("a").await.unwrap().lease(), lease);
    assert!(put(pb::PutRequest { ignore_value: true, ..Default::default() }).await.unwrap().is_none());
    let kv = client.get("a").await.unwrap();
    assert_eq!((kv.value(), kv.lease()), (&b"2"[..], 0));

    let refused = put(pb::PutRequest { ignore_value: true, value: "3".into(), ..Default::default() }).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: value is provided");
    let refused = put(pb::PutRequest { ignore_lease: true, lease, ..Default::default() }).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: lease is provided");
    let missing = pb::PutRequest { key: client.key("b"), ignore_value: true, ..Default::default() };
    assert_refused(client.kv().put(missing).await, Code::InvalidArgument, "etcdserver: key not found");
    let unknown = client.put_leased("b", "", 4_711).await;
    assert_refused(unknown, Code::NotFound, "etcdserver: requested lease not found");
    let nameless = client.kv().put(pb::PutRequest::default()).await;
    assert_refused(nameless, Code::InvalidArgument, "etcdserver: key is not provided");
    assert!(client.get("b").await.is_none());
}

pub(crate) async fn a_deletion_tells_what_was_there(client: Client) {
    client.put("a", "1").await;
    client.put("b", "2").await;
    let request = pb::DeleteRangeRequest { key: client.key("a"), range_end: client.key("z"), prev_kv: true };
    let response = client.kv().delete_range(request.clone()).await.unwrap().into_inner();
    assert_eq!(response.deleted, 2);
    assert_eq!(
        response.prev_kvs.iter().map(crate::store::pb_kv::KeyValue::value).collect::<Vec<_>>(),
        [b"1", b"2"]
    );
    let response = client.kv().delete_range(request).await.unwrap().into_inner();
    assert_eq!((response.deleted, response.prev_kvs.len()), (0, 0));
    let nameless = client.kv().delete_range(pb::DeleteRangeRequest::default()).await;
    assert_refused(nameless, Code::InvalidArgument, "etcdserver: key is not provided");
}

pub(crate) async fn a_large_reply_arrives_and_a_large_request_is_refused(client: Client) {
    let value = bytes::Bytes::from(vec![7; 1_400_000]);
    for name in ["a", "b", "c", "d"] {
        let request = pb::PutRequest { key: client.key(name), value: value.clone(), ..Default::default() };
        client.kv().put(request).await.unwrap();
    }
    let response = client.range(client.range_of("a", "z")).await.unwrap();
    assert!(response.kvs.len() == 4 && response.kvs.iter().all(|kv| kv.value() == value));

    let request =
        pb::PutRequest { key: client.key("a"), value: vec![7; 1_600_000].into(), ..Default::default() };
    let refused = client.kv().put(request).await;
    assert_refused(refused, Code::InvalidArgument, "etcdserver: request is too large");
    let request =
        pb::PutRequest { key: client.key("a"), value: vec![7; 3_000_000].into(), ..Default::default() };
    assert_eq!(client.kv().put(request).await.unwrap_err().code(), Code::ResourceExhausted);
}

pub(crate) async fn headers_name_the_member_and_its_leader(client: Client) {
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(client.channel.clone());
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let revision = client.put("a", "").await;
    let header = client.range(client.range_of("a", "b")).await.unwrap().header.unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0);
    assert_eq!((header.member_id, header.revision), (status.leader, revision));
    assert_eq!(header.raft_term, status.raft_term);
    assert_eq!(status.header.unwrap().cluster_id, header.cluster_id);
}
