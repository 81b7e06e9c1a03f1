//! Rules of etcd's API that clones of it get wrong, one test each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, Event, Fields, KeyRange, KeyValue, LeaseId, Op,
    OpResult, PutRequest, RangeError, RangeRequest, SortOrder, SortTarget, Store, StoreError, TxnLimits,
    TxnRequest, WatchFilter, WatchStep, Watcher,
};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

fn delete(key: &'static str) -> DeleteRequest {
    DeleteRequest { range: KeyRange::Single(bytes(key)), prev_kv: false }
}

fn everything() -> KeyRange {
    KeyRange::From(bytes("\0"))
}

fn store_with(keys: &[(&'static str, &'static str)]) -> Store {
    let mut store = Store::new();
    for (key, value) in keys {
        store.put(&put(key, value)).unwrap();
    }
    store
}

fn keys_of(store: &Store, request: &RangeRequest) -> Vec<String> {
    let response = store.range(request).unwrap();
    response.kvs.iter().map(|kv| String::from_utf8(kv.key().to_vec()).unwrap()).collect()
}

#[test]
fn the_first_write_is_revision_two_and_a_put_of_the_same_value_is_a_write() {
    let mut store = Store::new();
    assert_eq!(store.revision(), 1);
    store.put(&put("a", "x")).unwrap();
    store.put(&put("a", "x")).unwrap();
    assert_eq!(store.revision(), 3);
}

#[test]
fn deleting_nothing_and_reading_in_a_txn_leave_the_revision() {
    let mut store = store_with(&[("a", "x")]);
    assert_eq!(store.delete(&delete("b")).unwrap().deleted, 0);
    let read =
        TxnRequest { success: vec![Op::Range(RangeRequest::new(everything()))], ..TxnRequest::default() };
    store.txn(&read, TxnLimits::default()).unwrap();
    assert_eq!(store.revision(), 2);
}

#[test]
fn a_key_that_comes_back_starts_again() {
    let mut store = store_with(&[("a", "x"), ("a", "y")]);
    store.delete(&delete("a")).unwrap();
    store.put(&put("a", "z")).unwrap();
    let kv = &store.range(&RangeRequest::new(everything())).unwrap().kvs[0];
    assert_eq!((kv.version(), kv.create_revision(), kv.mod_revision()), (1, 5, 5));
}

#[test]
fn the_count_ignores_limit_and_revision_bounds() {
    let store = store_with(&[("a", "x"), ("b", "x"), ("c", "x")]);
    let limited = store.range(&RangeRequest { limit: 2, ..RangeRequest::new(everything()) }).unwrap();
    assert_eq!((limited.kvs.len(), limited.count, limited.more), (2, 3, true));
    let exact = store.range(&RangeRequest { limit: 3, ..RangeRequest::new(everything()) }).unwrap();
    assert_eq!((exact.kvs.len(), exact.more), (3, false));
    let bounded =
        store.range(&RangeRequest { min_mod_revision: 4, ..RangeRequest::new(everything()) }).unwrap();
    assert_eq!((bounded.kvs.len(), bounded.count, bounded.more), (1, 3, false));
}

/// What etcd's lock recipe asks: the holder is who was created first.
#[test]
fn a_limit_applies_after_the_sort() {
    let store = store_with(&[("lock/b", ""), ("lock/a", ""), ("lock/c", "")]);
    let first = RangeRequest {
        limit: 1,
        sort: Some((SortTarget::CreateRevision, SortOrder::Ascending)),
        ..RangeRequest::new(KeyRange::prefix(b"lock/"))
    };
    assert_eq!(keys_of(&store, &first), ["lock/b"]);
    let before_mine = RangeRequest {
        max_create_revision: 3,
        sort: Some((SortTarget::CreateRevision, SortOrder::Descending)),
        ..first
    };
    assert_eq!(keys_of(&store, &before_mine), ["lock/a"]);
}

#[test]
fn a_value_of_a_missing_key_compares_as_false_and_its_numbers_as_zero() {
    let store = &mut store_with(&[]);
    let mut holds = |operator, target| {
        let compare = vec![Compare { range: KeyRange::Single(bytes("a")), operator, target }];
        store.txn(&TxnRequest { compare, ..TxnRequest::default() }, TxnLimits::default()).unwrap().succeeded
    };
    assert!(!holds(CompareOperator::NotEqual, CompareTarget::Value(bytes("x"))));
    assert!(!holds(CompareOperator::Equal, CompareTarget::Value(bytes(""))));
    assert!(holds(CompareOperator::Equal, CompareTarget::ModRevision(0)));
    assert!(holds(CompareOperator::Equal, CompareTarget::Lease(0)));
    assert!(holds(CompareOperator::Less, CompareTarget::CreateRevision(1)));
}

#[test]
fn a_compare_of_a_range_has_to_hold_for_every_key() {
    let mut store = store_with(&[("p/a", "x"), ("p/b", "y")]);
    let compare = |value| Compare {
        range: KeyRange::prefix(b"p/"),
        operator: CompareOperator::NotEqual,
        target: CompareTarget::Value(bytes(value)),
    };
    let mut holds = |value| {
        let request = TxnRequest { compare: vec![compare(value)], ..TxnRequest::default() };
        store.txn(&request, TxnLimits::default()).unwrap().succeeded
    };
    assert!(holds("z"));
    assert!(!holds("y"));
}

#[test]
fn an_operation_sees_what_those_before_it_did_and_compares_do_not() {
    let mut store = store_with(&[]);
    let missing = Compare {
        range: KeyRange::Single(bytes("a")),
        operator: CompareOperator::Equal,
        target: CompareTarget::Version(0),
    };
    let inner = TxnRequest { compare: vec![missing], ..TxnRequest::default() };
    let request = TxnRequest {
        success: vec![
            Op::Range(RangeRequest::new(everything())),
            Op::Put(put("a", "x")),
            Op::Range(RangeRequest::new(everything())),
            Op::Txn(inner),
        ],
        ..TxnRequest::default()
    };
    let response = store.txn(&request, TxnLimits::default()).unwrap();
    let counts: Vec<Option<i64>> = response
        .responses
        .iter()
        .map(|response| match &response.result {
            OpResult::Range(range) => Some(range.count),
            OpResult::Txn(inner) => Some(i64::from(inner.succeeded)),
            OpResult::Put(_) | OpResult::Delete(_) => None,
        })
        .collect();
    assert_eq!(counts, [Some(0), None, Some(1), Some(1)]);
    let revisions: Vec<i64> = response.responses.iter().map(|response| response.revision).collect();
    assert_eq!(revisions, [1, 2, 2, 2]);
}

#[test]
fn a_failing_operation_fails_the_whole_txn() {
    let mut store = store_with(&[("a", "x")]);
    let lease = Some(LeaseId::new(7).unwrap());
    for (op, error) in [
        (Op::Put(PutRequest { lease, ..put("c", "") }), StoreError::LeaseNotFound),
        (Op::Put(PutRequest { ignore_value: true, ..put("c", "") }), StoreError::KeyNotFound),
        (
            Op::Range(RangeRequest { revision: 9, ..RangeRequest::new(everything()) }),
            StoreError::Range(RangeError::Future),
        ),
    ] {
        let inner = TxnRequest { success: vec![op], ..TxnRequest::default() };
        let request =
            TxnRequest { success: vec![Op::Put(put("b", "y")), Op::Txn(inner)], ..TxnRequest::default() };
        assert_eq!(store.txn(&request, TxnLimits::default()), Err(error));
        assert_eq!(
            (store.revision(), keys_of(&store, &RangeRequest::new(everything()))),
            (2, vec!["a".to_owned()])
        );
    }
}

#[test]
fn a_key_may_be_changed_once_in_each_branch() {
    let txn = |success: Vec<Op>| TxnRequest { success, ..TxnRequest::default() };
    let outcome = |request: &TxnRequest| Store::new().txn(request, TxnLimits::default()).map(drop);
    let all = || Op::Delete(DeleteRequest { range: everything(), prev_kv: false });
    let nested = |success, failure| Op::Txn(TxnRequest { success, failure, ..TxnRequest::default() });
    let a = || Op::Put(put("a", ""));

    assert_eq!(outcome(&txn(vec![a(), a()])), Err(StoreError::DuplicateKey));
    assert_eq!(outcome(&txn(vec![a(), all()])), Err(StoreError::DuplicateKey));
    assert_eq!(outcome(&txn(vec![all(), nested(vec![], vec![a()])])), Err(StoreError::DuplicateKey));
    assert_eq!(outcome(&txn(vec![a(), nested(vec![], vec![a()])])), Err(StoreError::DuplicateKey));
    assert_eq!(outcome(&txn(vec![all(), all()])), Ok(()));
    assert_eq!(outcome(&txn(vec![nested(vec![a()], vec![a()])])), Ok(()));
    // The branch that is not taken is checked too.
    let not_taken = TxnRequest { failure: vec![a(), a()], ..TxnRequest::default() };
    assert_eq!(outcome(&not_taken), Err(StoreError::DuplicateKey));
}

#[test]
fn inner_transactions_share_what_the_limit_leaves() {
    let limits = TxnLimits { max_ops: 2 };
    let reads = |count| vec![Op::Range(RangeRequest::new(everything())); count];
    let outcome = |request: &TxnRequest| Store::new().txn(request, limits).map(drop);
    assert_eq!(
        outcome(&TxnRequest { success: reads(2), failure: reads(2), ..TxnRequest::default() }),
        Ok(())
    );
    assert_eq!(
        outcome(&TxnRequest { success: reads(3), ..TxnRequest::default() }),
        Err(StoreError::TooManyOps)
    );
    let nested = |count| Op::Txn(TxnRequest { success: reads(count), ..TxnRequest::default() });
    assert_eq!(outcome(&TxnRequest { success: vec![nested(1)], ..TxnRequest::default() }), Ok(()));
    assert_eq!(
        outcome(&TxnRequest { success: vec![nested(2)], ..TxnRequest::default() }),
        Err(StoreError::TooManyOps)
    );
}

#[test]
fn a_plain_put_detaches_the_lease_and_ignore_lease_keeps_it() {
    let mut store = Store::new();
    let [one, two] = [1, 2].map(|id| LeaseId::new(id).unwrap());
    store.grant_lease(one, 10).unwrap();
    store.grant_lease(two, 10).unwrap();
    let attached = |store: &Store| [one, two].map(|lease| store.lease_keys(lease).count());
    store.put(&PutRequest { lease: Some(one), ..put("a", "x") }).unwrap();
    store.put(&PutRequest { ignore_lease: true, ..put("a", "y") }).unwrap();
    assert_eq!(attached(&store), [1, 0]);
    store.put(&PutRequest { lease: Some(two), ..put("a", "z") }).unwrap();
    assert_eq!(attached(&store), [0, 1]);
    store.put(&put("a", "z")).unwrap();
    assert_eq!(attached(&store), [0, 0]);
    store.revoke_lease(two).unwrap();
    assert_eq!(keys_of(&store, &RangeRequest::new(everything())), ["a"]);
}

#[test]
fn a_revoked_lease_deletes_its_keys_at_one_revision_in_their_order() {
    let mut store = Store::new();
    let lease = LeaseId::new(1).unwrap();
    store.grant_lease(lease, 10).unwrap();
    for key in ["b", "c", "a"] {
        store.put(&PutRequest { lease: Some(lease), ..put(key, "") }).unwrap();
    }
    let mut watcher = Watcher::new(&store, everything(), 0, WatchFilter::default(), false);
    store.revoke_lease(lease).unwrap();
    let WatchStep::Events(batch) = watcher.step(&store) else { panic!("no events") };
    let deleted: Vec<(&[u8], i64)> =
        batch.events.iter().map(|(event, _)| (event.key(), event.revision())).collect();
    assert_eq!(deleted, [(&b"a"[..], 5), (&b"b"[..], 5), (&bytes("c"), 5)]);
    assert_eq!((store.revision(), batch.revision), (5, 5));
}

#[test]
fn the_compacted_revision_itself_can_be_read_and_watched_from() {
    let mut store = store_with(&[("a", "x"), ("a", "y")]);
    store.delete(&delete("a")).unwrap();
    store.put(&put("b", "z")).unwrap();
    store.compact(4).unwrap();
    let at = |revision| store.range(&RangeRequest { revision, ..RangeRequest::new(everything()) });
    assert_eq!(at(4).unwrap().count, 0);
    assert_eq!(at(3), Err(StoreError::Range(RangeError::Compacted)));
    let watch = |start| Watcher::new(&store, everything(), start, WatchFilter::default(), true);
    assert_eq!(watch(3).step(&store), WatchStep::Compacted(4));
    // The deletion at that revision is still told; what it deleted is forgotten.
    let WatchStep::Events(batch) = watch(4).step(&store) else { panic!("no events") };
    let deletion = Fields { key: b"a", mod_revision: 4, ..Fields::default() };
    assert_eq!(batch.events[0], (Event::of(KeyValue::new(&deletion)), None));
    assert_eq!(batch.events.len(), 2);
}

#[test]
fn a_put_of_an_empty_value_is_a_put() {
    let mut store = store_with(&[]);
    let mut watcher = Watcher::new(&store, everything(), 0, WatchFilter::default(), false);
    store.put(&put("a", "")).unwrap();
    let WatchStep::Events(batch) = watcher.step(&store) else { panic!("no events") };
    assert!(batch.events[0].0.put().is_some_and(|kv| kv.value().is_empty()));
}

#[test]
fn a_watch_of_the_future_says_nothing_before_it() {
    let mut store = store_with(&[]);
    let mut watcher = Watcher::new(&store, everything(), 4, WatchFilter::default(), false);
    for (key, expected) in [("a", None), ("b", None), ("c", Some(4))] {
        store.put(&put(key, "")).unwrap();
        let got = match watcher.step(&store) {
            WatchStep::Events(batch) => Some(batch.events[0].0.revision()),
            WatchStep::Waiting => None,
            // Up to date at the revision before its start: that is progress it may be told.
            WatchStep::UpToDate(revision) => {
                assert_eq!(revision, 3);
                None
            }
            step => panic!("{step:?}"),
        };
        assert_eq!(got, expected, "{key}");
    }
}

#[test]
fn a_watch_from_below_zero_is_compacted_once_something_is() {
    let mut store = store_with(&[("a", "x")]);
    let mut watcher = Watcher::new(&store, everything(), -1, WatchFilter::default(), false);
    store.compact(0).expect("nothing was compacted");
    assert_eq!(watcher.step(&store), WatchStep::Compacted(0));
    assert_eq!(store.compact(0), Err(RangeError::Compacted));
}

#[test]
fn the_previous_version_is_told_while_it_is_known() {
    let mut store = store_with(&[("a", "x"), ("a", "y")]);
    store.delete(&delete("a")).unwrap();
    let mut watcher = Watcher::new(&store, everything(), 2, WatchFilter::default(), true);
    let WatchStep::Events(batch) = watcher.step(&store) else { panic!("no events") };
    let previous: Vec<Option<&[u8]>> =
        batch.events.iter().map(|(_, previous)| previous.as_ref().map(KeyValue::value)).collect();
    assert_eq!(previous, [None, Some(&b"x"[..]), Some(&b"y"[..])]);
}

#[test]
fn a_filtered_revision_counts_as_seen() {
    let mut store = store_with(&[]);
    let mut watcher =
        Watcher::new(&store, everything(), 0, WatchFilter { no_put: true, no_delete: false }, false);
    store.put(&put("a", "")).unwrap();
    assert_eq!(watcher.step(&store), WatchStep::UpToDate(2));
    store.compact(2).unwrap();
    store.put(&put("b", "")).unwrap();
    store.compact(3).unwrap();
    assert_eq!(watcher.step(&store), WatchStep::UpToDate(3));
}

#[test]
fn an_empty_key_is_an_error_and_an_inverted_range_is_empty() {
    let mut store = store_with(&[("a", "x")]);
    assert_eq!(store.put(&put("", "x")), Err(StoreError::EmptyKey));
    assert_eq!(
        store.range(&RangeRequest::new(KeyRange::new(bytes(""), bytes("\0")))),
        Err(StoreError::EmptyKey)
    );
    let inverted = KeyRange::new(bytes("b"), bytes("a"));
    assert_eq!(store.range(&RangeRequest::new(inverted.clone())).unwrap().count, 0);
    assert_eq!(store.delete(&DeleteRequest { range: inverted, prev_kv: false }).unwrap().deleted, 0);
}

/// Whoever reads slowly keeps what one step gave it in memory, even when the history no longer does.
#[test]
fn one_step_of_a_watch_is_bounded_in_bytes_but_never_less_than_a_revision() {
    const MIB: usize = 1 << 20;
    let mut store = Store::new();
    for _ in 0..20 {
        let value = vec![0; MIB].into();
        store.put(&PutRequest { key: bytes("a"), value, ..PutRequest::default() }).unwrap();
    }
    let mut watcher = Watcher::new(&store, everything(), 2, WatchFilter::default(), true);
    let mut revisions = Vec::new();
    while let WatchStep::Events(batch) = watcher.step(&store) {
        let held: usize =
            batch.events.iter().map(|(_, previous)| MIB + previous.as_ref().map_or(0, |_| MIB)).sum();
        assert!(held <= 6 * MIB, "{held}");
        revisions.extend(batch.events.iter().map(|(event, _)| event.revision()));
        assert_eq!(revisions.last(), Some(&batch.revision));
    }
    assert_eq!(revisions, (2..=21).collect::<Vec<_>>());
}
