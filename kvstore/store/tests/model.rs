//! The store against a model that keeps the whole state of every revision.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, Event, Fields, KeyRange, KeyValue, LeaseId, Op,
    PutRequest, RangeError, RangeRequest, Store, StoreBuilder, StoreError, TxnLimits, TxnRequest,
    WatchFilter, WatchStep, Watcher,
};
use proptest::prelude::*;

type Keys = BTreeMap<Bytes, KeyValue>;

fn own(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

/// All keys of every revision, the first being revision 1.
#[derive(Debug)]
struct Model {
    revisions: Vec<Keys>,
    leases: BTreeMap<LeaseId, i64>,
}

impl Model {
    fn current(&self) -> &Keys {
        self.revisions.last().unwrap()
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.revisions.len()).unwrap()
    }

    fn put(keys: &mut Keys, revision: i64, key: &Bytes, value: &Bytes, lease: Option<LeaseId>) {
        let before = keys.get(key).cloned();
        let fields = Fields {
            key,
            value,
            create_revision: before.as_ref().map_or(revision, KeyValue::create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, KeyValue::version) + 1,
            lease,
        };
        keys.insert(key.clone(), KeyValue::new(&fields));
    }

    /// Carries out an operation on keys that will be the next revision; whether it changed any.
    fn apply(&self, keys: &mut Keys, op: &Op) -> bool {
        match op {
            Op::Put(put) => {
                Self::put(keys, self.revision() + 1, &put.key, &put.value, put.lease);
                true
            }
            Op::Delete(delete) => {
                let before = keys.len();
                keys.retain(|key, _| !delete.range.contains(key));
                keys.len() < before
            }
            Op::Range(_) | Op::Txn(_) => false,
        }
    }

    fn commit(&mut self, keys: Keys, changed: bool) {
        if changed {
            self.revisions.push(keys);
        }
    }

    /// The changes from one revision to the next: each key that was put or deleted.
    fn changes(&self, revision: i64) -> BTreeMap<Bytes, Option<KeyValue>> {
        let index = usize::try_from(revision).unwrap() - 1;
        let (before, after) = (&self.revisions[index - 1], &self.revisions[index]);
        let put = after
            .values()
            .filter(|kv| kv.mod_revision() == revision)
            .map(|kv| (own(kv.key()), Some(kv.clone())));
        let deleted = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
        put.chain(deleted).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Op(Op),
    Txn(TxnRequest),
    Grant(LeaseId),
    Revoke(LeaseId),
    /// Of what there is, in hundredths.
    Compact(u8),
    /// Lets go of what was forgotten, at so many keys.
    Sweep(usize),
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/b", "a/c", "b", "b\0", "c", "\u{10ffff}"]).prop_map(Bytes::from)
}

fn any_lease() -> impl Strategy<Value = LeaseId> {
    (1i64..4).prop_map(|id| LeaseId::new(id).unwrap())
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    let end = prop::sample::select(vec!["", "\0", "a", "b", "c"]);
    prop_oneof![
        (any_key(), end).prop_map(|(key, end)| KeyRange::new(key, end.into())),
        any_key().prop_map(|key| KeyRange::prefix(&key)),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let value = prop::sample::select(vec!["", "x", "y"]);
    prop_oneof![
        4 => (any_key(), value, prop::option::of(any_lease())).prop_map(|(key, value, lease)| {
            Op::Put(PutRequest { key, value: value.into(), lease, ..PutRequest::default() })
        }),
        1 => any_range().prop_map(|range| Op::Delete(DeleteRequest { range, prev_kv: true })),
    ]
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let operator = prop::sample::select(vec![
        CompareOperator::Equal,
        CompareOperator::NotEqual,
        CompareOperator::Greater,
        CompareOperator::Less,
    ]);
    (any_range(), operator, 0i64..3).prop_map(|(range, operator, version)| Compare {
        range,
        operator,
        target: CompareTarget::Version(version),
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let ops = || prop::collection::vec(any_op(), 0..4);
    let txn = (prop::collection::vec(any_compare(), 0..2), ops(), ops());
    prop_oneof![
        6 => any_op().prop_map(Step::Op),
        3 => txn.prop_map(|(compare, success, failure)| Step::Txn(TxnRequest { compare, success, failure })),
        1 => any_lease().prop_map(Step::Grant),
        1 => any_lease().prop_map(Step::Revoke),
        1 => (0u8..=100).prop_map(Step::Compact),
        1 => (1usize..6).prop_map(Step::Sweep),
    ]
}

/// Carries out a step on both; panics where they differ.
fn take(store: &mut Store, model: &mut Model, step: &Step) {
    let lease_missing = |model: &Model, ops: &[Op]| {
        ops.iter().any(|op| match op {
            Op::Put(put) => put.lease.is_some_and(|lease| !model.leases.contains_key(&lease)),
            _ => false,
        })
    };
    match step {
        Step::Op(op) => {
            let missing = lease_missing(model, std::slice::from_ref(op));
            let outcome = match op {
                Op::Put(put) => store.put(put).map(drop),
                Op::Delete(delete) => store.delete(delete).map(|response| {
                    let there: Vec<&KeyValue> =
                        model.current().values().filter(|kv| delete.range.contains(kv.key())).collect();
                    assert_eq!(response.deleted, i64::try_from(there.len()).unwrap());
                    assert!(response.prev_kvs.iter().eq(there));
                }),
                Op::Range(_) | Op::Txn(_) => unreachable!("not generated"),
            };
            assert_eq!(outcome, if missing { Err(StoreError::LeaseNotFound) } else { Ok(()) });
            if !missing {
                let mut keys = model.current().clone();
                let changed = model.apply(&mut keys, op);
                model.commit(keys, changed);
            }
        }
        Step::Txn(txn) => {
            let holds = |compare: &Compare| {
                let CompareTarget::Version(given) = compare.target else { unreachable!("not generated") };
                let mut versions: Vec<i64> = model
                    .current()
                    .values()
                    .filter(|kv| compare.range.contains(kv.key()))
                    .map(KeyValue::version)
                    .collect();
                if versions.is_empty() {
                    versions.push(0);
                }
                versions.iter().all(|version| match compare.operator {
                    CompareOperator::Equal => *version == given,
                    CompareOperator::NotEqual => *version != given,
                    CompareOperator::Greater => *version > given,
                    CompareOperator::Less => *version < given,
                })
            };
            let succeeded = txn.compare.iter().all(holds);
            let ops = if succeeded { &txn.success } else { &txn.failure };
            let missing = lease_missing(model, ops);
            match store.txn(txn, TxnLimits::default()) {
                Ok(response) => {
                    assert!(!missing);
                    assert_eq!((response.succeeded, response.responses.len()), (succeeded, ops.len()));
                    let mut keys = model.current().clone();
                    let mut changed = false;
                    for op in ops {
                        changed |= model.apply(&mut keys, op);
                    }
                    model.commit(keys, changed);
                }
                Err(StoreError::DuplicateKey) => {}
                Err(error) => assert!(missing && error == StoreError::LeaseNotFound, "{error}"),
            }
        }
        Step::Grant(lease) => {
            let exists = model.leases.contains_key(lease);
            assert_eq!(
                store.grant_lease(*lease, 60),
                if exists { Err(StoreError::LeaseExists) } else { Ok(()) }
            );
            model.leases.insert(*lease, 60);
        }
        Step::Revoke(lease) => {
            let exists = model.leases.remove(lease).is_some();
            assert_eq!(
                store.revoke_lease(*lease),
                if exists { Ok(()) } else { Err(StoreError::LeaseNotFound) }
            );
            let mut keys = model.current().clone();
            keys.retain(|_, kv| kv.lease() != Some(*lease));
            let changed = keys.len() < model.current().len();
            model.commit(keys, changed);
        }
        Step::Compact(hundredths) => {
            let revision = model.revision() * i64::from(*hundredths) / 100;
            let compacted = store.compacted_revision();
            let expected = if revision <= compacted { Err(RangeError::Compacted) } else { Ok(()) };
            assert_eq!(store.compact(revision), expected);
        }
        Step::Sweep(max_keys) => {
            let before = store.size_bytes();
            store.compact_step(*max_keys);
            assert!(store.size_bytes() <= before);
        }
    }
    assert_eq!(store.revision(), model.revision());
}

fn read(store: &Store, revision: i64) -> Result<Vec<KeyValue>, StoreError> {
    let range = KeyRange::From(Bytes::from_static(b"\0"));
    store.range(&RangeRequest { revision, ..RangeRequest::new(range) }).map(|response| response.kvs)
}

/// Every revision that is not compacted reads as it was; every other one is refused.
fn check_reads(store: &Store, model: &Model) {
    for (revision, keys) in (1..).zip(&model.revisions) {
        match read(store, revision) {
            Ok(kvs) => assert!(kvs.iter().eq(keys.values()), "at {revision}"),
            Err(error) => {
                assert_eq!(error, StoreError::Range(RangeError::Compacted));
                assert!(revision < store.compacted_revision());
            }
        }
    }
    assert_eq!(read(store, model.revision() + 1), Err(StoreError::Range(RangeError::Future)));
    for lease in store.leases() {
        let keys = model.current().values().filter(|kv| kv.lease() == Some(lease)).map(KeyValue::key);
        assert!(store.lease_keys(lease).eq(keys));
    }
}

/// What a watcher was given, revision by revision, is what changed; nothing is missing, repeated or out of order.
fn check_watch(batches: &[(Event, Option<KeyValue>)], range: &KeyRange, model: &Model, from: i64, to: i64) {
    let mut given: BTreeMap<i64, BTreeMap<Bytes, Option<KeyValue>>> = BTreeMap::new();
    let mut last = 0;
    for (event, previous) in batches {
        assert!(event.revision() >= last, "in order");
        last = event.revision();
        let kv = event.put().cloned();
        let before = &model.revisions[usize::try_from(event.revision()).unwrap() - 2];
        if let Some(previous) = previous {
            assert_eq!(Some(previous), before.get(event.key()));
        }
        let repeated = given.entry(event.revision()).or_default().insert(own(event.key()), kv);
        // A transaction may delete a key twice, but only what is there.
        assert!(repeated.is_none(), "{event:?}");
    }
    for revision in from..=to {
        let mut changes = model.changes(revision);
        changes.retain(|key, _| range.contains(key));
        assert_eq!(given.remove(&revision).unwrap_or_default(), changes, "at {revision}");
    }
    assert!(given.is_empty(), "{given:?}");
}

/// Pages and counts of a range at any revision are those of the model, whichever way they are found.
fn check_pages(store: &Store, model: &Model, range: &KeyRange) {
    for (revision, keys) in (1..).zip(&model.revisions).filter(|(at, _)| *at >= store.compacted_revision()) {
        let there: Vec<&KeyValue> = keys.values().filter(|kv| range.contains(kv.key())).collect();
        let request = RangeRequest { revision, ..RangeRequest::new(range.clone()) };
        let count = store.range(&RangeRequest { count_only: true, ..request.clone() }).unwrap().count;
        assert_eq!(count, i64::try_from(there.len()).unwrap(), "at {revision}");
        for limit in 1..4 {
            let page = store.range(&RangeRequest { limit, ..request.clone() }).unwrap();
            let kept = usize::try_from(limit).unwrap().min(there.len());
            assert!(page.kvs.iter().eq(there[..kept].iter().copied()), "at {revision}");
            assert_eq!((page.count, page.more), (count, kept < there.len()), "at {revision}");
        }
    }
}

/// However much of what was forgotten is still in memory, it is not seen.
fn rebuilt(store: &Store) -> Store {
    let mut builder = StoreBuilder::new();
    for part in store.parts() {
        builder.add(part).unwrap();
    }
    let copy = builder.finish().unwrap();
    assert!(copy.parts().eq(store.parts()));
    let mut swept = store.clone();
    while swept.compact_step(3) {}
    assert!(copy.parts().eq(swept.parts()));
    assert_eq!(copy.size_bytes(), swept.size_bytes());
    for revision in store.compacted_revision()..=store.revision() {
        let hash = store.hash_kv(revision).unwrap();
        assert_eq!((copy.hash_kv(revision), swept.hash_kv(revision)), (Ok(hash), Ok(hash)));
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_store_does_what_the_model_does(
        steps in prop::collection::vec(any_step(), 0..60),
        range in any_range(),
        steps_between_polls in 1usize..20,
    ) {
        let mut store = Store::new();
        let mut model = Model { revisions: vec![Keys::new()], leases: BTreeMap::new() };
        let mut watcher = Watcher::new(&store, range.clone(), 2, WatchFilter::default(), true);
        let (mut given, mut from, mut to) = (Vec::new(), 2, 1);
        for (index, step) in steps.iter().enumerate() {
            take(&mut store, &mut model, step);
            check_reads(&store, &model);
            if index % steps_between_polls != 0 {
                continue;
            }
            check_pages(&store, &model, &range);
            // A member that begins with a snapshot here is no different from one that was there all the time.
            let copy = rebuilt(&store);
            if index % 2 == 0 {
                store = copy;
            }
            check_reads(&store, &model);
            loop {
                match watcher.step(&store) {
                    WatchStep::Events(batch) => {
                        to = batch.revision;
                        given.extend(batch.events);
                    }
                    WatchStep::UpToDate(revision) => {
                        prop_assert_eq!(revision, model.revision());
                        to = revision;
                        break;
                    }
                    WatchStep::Behind | WatchStep::Waiting => prop_assert!(false, "no step is that long here"),
                    WatchStep::Compacted(revision) => {
                        // It relists and goes on from there, as a client does.
                        prop_assert!(to + 1 < revision);
                        check_watch(&given, &range, &model, from, to);
                        given.clear();
                        from = revision;
                        to = revision - 1;
                        watcher = Watcher::new(&store, range.clone(), revision, WatchFilter::default(), true);
                    }
                }
            }
        }
        check_watch(&given, &range, &model, from, to);
    }

    /// Two members that carry out the same requests agree in everything.
    #[test]
    fn the_same_requests_make_the_same_store(steps in prop::collection::vec(any_step(), 0..60)) {
        let run = || {
            let mut store = Store::new();
            let mut model = Model { revisions: vec![Keys::new()], leases: BTreeMap::new() };
            for step in &steps {
                take(&mut store, &mut model, step);
            }
            format!("{store:?}")
        };
        prop_assert_eq!(run(), run());
    }
}
