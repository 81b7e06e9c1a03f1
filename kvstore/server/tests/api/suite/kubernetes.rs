//! How kube-apiserver uses its store (Kubernetes 1.34, `staging/src/k8s.io/apiserver/pkg/storage/etcd3`): the requests that
//! it sends, in the forms in which it sends them, and what it makes of the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use super::assert_refused;
use crate::store::{Client, pb_kv};

/// The compare of every write: the object is as it was seen, 0 for not there.
fn is_at(key: &Bytes, mod_revision: i64) -> pb::Compare {
    pb::Compare {
        key: key.clone(),
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    }
}

fn get(key: &Bytes) -> pb::RequestOp {
    let request = pb::RangeRequest { key: key.clone(), ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestRange(request)) }
}

/// What a write found where the object was not as it was seen.
#[derive(Debug)]
struct Conflict(Option<pb_kv::KeyValue>);

/// Puts an object that was seen at `seen`, or says what is there.
async fn put(client: &Client, name: &str, value: &str, seen: i64, lease: i64) -> Result<i64, Conflict> {
    let key = client.key(name);
    let put =
        pb::PutRequest { key: key.clone(), value: value.to_owned().into(), lease, ..Default::default() };
    // A create has nothing to read in the other branch.
    let failure = if seen == 0 { Vec::new() } else { vec![get(&key)] };
    let request = pb::TxnRequest {
        compare: vec![is_at(&key, seen)],
        success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
        failure,
    };
    outcome(client.txn(request).await.unwrap())
}

async fn delete(client: &Client, name: &str, seen: i64) -> Result<i64, Conflict> {
    let key = client.key(name);
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let request = pb::TxnRequest {
        compare: vec![is_at(&key, seen)],
        success: vec![pb::RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
        failure: vec![get(&key)],
    };
    outcome(client.txn(request).await.unwrap())
}

fn outcome(response: pb::TxnResponse) -> Result<i64, Conflict> {
    if response.succeeded {
        return Ok(response.header.unwrap().revision);
    }
    let first = response.responses.into_iter().next().and_then(|op| op.response);
    match first {
        Some(Response::ResponseRange(mut range)) => Err(Conflict(range.kvs.pop())),
        None => Err(Conflict(None)),
        other => panic!("{other:?}"),
    }
}

/// The next page of a list: the first one pins the revision, each further one begins behind the last key. Returns whether
/// there are more.
async fn page(client: &Client, request: &mut pb::RangeRequest, found: &mut Vec<pb_kv::KeyValue>) -> bool {
    let page = client.range(request.clone()).await.unwrap();
    if request.revision == 0 {
        request.revision = page.header.unwrap().revision;
    }
    // What `remainingItemCount` and `continue` are made of.
    assert_eq!(page.more, page.count > i64::try_from(page.kvs.len()).unwrap(), "{page:?}");
    found.extend(page.kvs);
    let last = found.last().map_or(&[][..], pb_kv::KeyValue::key);
    request.key = [last, b"\0"].concat().into();
    page.more
}

fn watch_of_pods(client: &Client, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: client.key("pods/"),
        range_end: client.key("pods0"),
        start_revision,
        prev_kv: true,
        progress_notify: true,
        ..Default::default()
    }
}

pub(crate) async fn objects_are_created_updated_and_deleted_as_they_were_seen(client: Client) {
    let created = put(&client, "pods/a", "1", 0, 0).await.unwrap();
    let Conflict(nothing_read) = put(&client, "pods/a", "again", 0, 0).await.unwrap_err();
    assert!(nothing_read.is_none());
    let updated = put(&client, "pods/a", "2", created, 0).await.unwrap();
    assert_eq!(updated, created + 1);
    let Conflict(found) = put(&client, "pods/a", "stale", created, 0).await.unwrap_err();
    let found = found.unwrap();
    assert_eq!((found.value(), found.mod_revision(), found.version()), (&b"2"[..], updated, 2));
    let Conflict(found) = delete(&client, "pods/a", created).await.unwrap_err();
    assert_eq!(found.unwrap().mod_revision(), updated);
    assert_eq!(delete(&client, "pods/a", updated).await.unwrap(), updated + 1);
    let Conflict(found) = delete(&client, "pods/a", updated).await.unwrap_err();
    assert!(found.is_none());
    assert_eq!(put(&client, "pods/a", "new", 0, 0).await.unwrap(), updated + 2);
}

pub(crate) async fn a_list_in_pages_is_of_one_revision_and_a_watch_goes_on_from_it(client: Client) {
    let mut seen = BTreeMap::new();
    for number in 0..25 {
        let name = format!("pods/{number:02}");
        seen.insert(name.clone(), put(&client, &name, "old", 0, 0).await.unwrap());
    }
    put(&client, "pods0-is-another-kind", "", 0, 0).await.unwrap();
    let (mut rounds, mut listed) = (0, Vec::new());
    let mut request = pb::RangeRequest { limit: 10, ..client.range_of("pods/", "pods0") };
    while page(&client, &mut request, &mut listed).await {
        rounds += 1;
        // Behind what was read, and before it.
        for name in ["pods/00", "pods/24"] {
            let revision = put(&client, name, &format!("new {rounds}"), seen[name], 0).await.unwrap();
            seen.insert(name.to_owned(), revision);
        }
    }
    let revision = request.revision;
    assert_eq!((rounds, listed.len()), (2, 25));
    assert!(listed.iter().all(|kv| kv.value() == b"old" && kv.mod_revision() <= revision));
    // It asks how many there are by the smallest page.
    let count = pb::RangeRequest { count_only: true, ..client.range_of("pods/", "pods0") };
    assert_eq!(client.range(count).await.unwrap().count, 25);

    let mut watch = client.watch();
    watch.create(watch_of_pods(&client, revision + 1)).await;
    let mut told = Vec::new();
    while told.len() < 4 {
        told.extend(watch.next_event().await.events);
    }
    for (event, value) in told.iter().zip(["new 1", "new 1", "new 2", "new 2"]) {
        let (kv, prev) = (event.kv.as_ref().unwrap(), event.prev_kv.as_ref().unwrap());
        assert_eq!(kv.value(), value.as_bytes());
        // How it tells an update from a creation, and what it takes the object before for.
        assert!(kv.create_revision() < kv.mod_revision() && prev.mod_revision() < kv.mod_revision());
    }
    let deleted = delete(&client, "pods/07", seen["pods/07"]).await.unwrap();
    let event = watch.next_event().await.events.remove(0);
    assert_eq!(event.kv.as_ref().unwrap().mod_revision(), deleted);
    assert_eq!(event.prev_kv.unwrap().value(), b"old");
}

/// `ConsistentListFromCache`: it reads the current revision, and waits until its watch has got there.
pub(crate) async fn a_cache_is_told_when_it_is_as_new_as_the_store(client: Client) {
    let mut watch = client.watch();
    watch.create(watch_of_pods(&client, 0)).await;
    for round in 0..20 {
        let written = put(&client, &format!("pods/{round}"), "", 0, 0).await.unwrap();
        // Of another kind: the watch hears nothing of it.
        let current = put(&client, &format!("nodes/{round}"), "", 0, 0).await.unwrap();
        let first = pb::RangeRequest { limit: 1, ..client.range_of("pods/", "pods0") };
        assert!(client.range(first).await.unwrap().header.unwrap().revision >= current);
        watch.request_progress().await;
        let (mut heard, mut progress) = (0, 0);
        while progress < current {
            let response = watch.next().await;
            assert!(!response.canceled && !response.created, "{response:?}");
            let revision = response.header.unwrap().revision;
            match response.events.last() {
                Some(event) => heard = event.kv.as_ref().unwrap().mod_revision(),
                None => progress = revision,
            }
            if progress >= written {
                assert_eq!(heard, written, "progress {progress} came before the event");
            }
        }
    }
}

/// Events have a lease that many of them share and nobody renews.
pub(crate) async fn events_share_a_lease_and_go_with_it(client: Client) {
    let lease = client.grant(3600, 0).await.unwrap();
    assert_eq!(lease.ttl, 3600);
    for number in 0..50 {
        let created = put(&client, &format!("pods/{number}"), "event", 0, lease.id).await.unwrap();
        if number == 0 {
            // An update brings the lease again.
            put(&client, "pods/0", "event, twice", created, lease.id).await.unwrap();
        }
    }
    let mut watch = client.watch();
    watch.create(watch_of_pods(&client, 0)).await;
    client.lease().lease_revoke(pb::LeaseRevokeRequest { id: lease.id }).await.unwrap();
    let gone = watch.next_event().await;
    assert_eq!(gone.events.len(), 50);
    assert!(gone.events.iter().all(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.lease() == lease.id)));
}

/// Of several apiservers one compacts: who replaces the key `compact_rev_key`, at the version that it saw, by the revision of
/// now, and then compacts to that of the time before.
pub(crate) async fn one_of_several_compacts_each_time(client: Client) {
    let key = client.key("compact_rev_key");
    let attempt = async |version: i64, revision: i64| {
        let put =
            pb::PutRequest { key: key.clone(), value: revision.to_string().into(), ..Default::default() };
        let compare = pb::Compare {
            key: key.clone(),
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![get(&key)],
        };
        client.txn(request).await.unwrap()
    };
    let created = put(&client, "pods/a", "1", 0, 0).await.unwrap();
    let first = attempt(0, created).await;
    assert!(first.succeeded);
    let other = attempt(0, created).await;
    let Some(Response::ResponseRange(range)) = &other.responses[0].response else { panic!("{other:?}") };
    assert!(!other.succeeded);
    assert_eq!((range.kvs[0].version(), range.kvs[0].value()), (1, created.to_string().as_bytes()));

    let updated = put(&client, "pods/a", "2", created, 0).await.unwrap();
    let now = put(&client, "pods/a", "3", updated, 0).await.unwrap();
    assert!(attempt(1, now).await.succeeded);
    client.compact(updated).await.unwrap();
    let again = client.compact(updated).await;
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(again, Code::OutOfRange, text);
    // A list of before goes on no more, which is "410 Gone", and so does a watch.
    let past = pb::RangeRequest { revision: created, ..client.range_of("pods/", "pods0") };
    assert_refused(client.range(past).await, Code::OutOfRange, text);
    let mut watch = client.watch();
    watch.create(watch_of_pods(&client, created)).await;
    let end = watch.next_event().await;
    assert_eq!((end.canceled, end.compact_revision), (true, updated));
    // From what is left on nothing is missing.
    watch.create(watch_of_pods(&client, updated)).await;
    let events = watch.next_event().await.events;
    assert_eq!(
        events.iter().map(|event| event.kv.as_ref().unwrap().value()).collect::<Vec<_>>(),
        [b"2", b"3"]
    );
}
