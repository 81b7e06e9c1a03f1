//! Commands of the store.

use landbridge_kvstore_store::auth::Cover;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest,
    SortOrder, SortTarget, TxnRequest,
};
use prost::Message;

use super::auth::{auth_command_from_proto, auth_command_to_proto};
use super::proto::{self, command, compare, key_range, op, sort};
use super::{DecodeError, required};
use crate::engine::{Alarm, AlarmKind, Command};

pub(super) fn command_to_proto(command: &Command) -> proto::Command {
    let command = match command {
        Command::Put(put) => command::Command::Put(put_to_proto(put)),
        Command::DeleteRange(delete) => command::Command::DeleteRange(delete_to_proto(delete)),
        Command::Txn(txn) => command::Command::Txn(txn_to_proto(txn)),
        Command::Compact { revision } => command::Command::Compact(proto::Compact { revision: *revision }),
        Command::LeaseGrant { id, ttl_seconds } => {
            command::Command::LeaseGrant(proto::LeaseGrant { id: id.get(), ttl_seconds: *ttl_seconds })
        }
        Command::LeaseRevoke { id, within } => {
            let ranges = |within: &Cover| within.ranges().map(|range| key_range_to_proto(&range)).collect();
            let within = within.as_ref().map(|within| proto::KeyRanges { ranges: ranges(within) });
            command::Command::LeaseRevoke(proto::LeaseRevoke { id: id.get(), within })
        }
        Command::Auth(auth) => command::Command::Auth(auth_command_to_proto(auth)),
        Command::MemberAttributes { member_id, name, client_urls } => {
            command::Command::MemberAttributes(proto::MemberAttributes {
                member_id: *member_id,
                name: name.clone(),
                client_urls: client_urls.clone(),
            })
        }
        Command::Alarm { alarm, raised } => command::Command::Alarm(proto::AlarmChange {
            alarm: Some(alarm_to_proto(*alarm)),
            raised: *raised,
        }),
    };
    proto::Command { command: Some(command) }
}

pub(super) fn command_from_proto(command: proto::Command) -> Result<Command, DecodeError> {
    Ok(match required(command.command, "the kind of a command")? {
        command::Command::Put(put) => Command::Put(put_from_proto(put)),
        command::Command::DeleteRange(delete) => Command::DeleteRange(delete_from_proto(delete)?),
        command::Command::Txn(txn) => Command::Txn(txn_from_proto(txn)?),
        command::Command::Compact(compact) => Command::Compact { revision: compact.revision },
        command::Command::LeaseGrant(grant) => {
            Command::LeaseGrant { id: lease_id(grant.id)?, ttl_seconds: grant.ttl_seconds }
        }
        command::Command::LeaseRevoke(proto::LeaseRevoke { id, within }) => {
            let ranges = |within: proto::KeyRanges| {
                within.ranges.into_iter().map(|range| key_range_from_proto(Some(range))).collect()
            };
            Command::LeaseRevoke { id: lease_id(id)?, within: within.map(ranges).transpose()? }
        }
        command::Command::Auth(auth) => Command::Auth(auth_command_from_proto(auth)?),
        command::Command::MemberAttributes(proto::MemberAttributes { member_id, name, client_urls }) => {
            Command::MemberAttributes { member_id, name, client_urls }
        }
        command::Command::Alarm(change) => {
            let alarm = alarm_from_proto(required(change.alarm, "the alarm to change")?)?;
            Command::Alarm { alarm, raised: change.raised }
        }
    })
}

pub(super) fn alarm_to_proto(alarm: Alarm) -> proto::Alarm {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => proto::alarm::Kind::NoSpace,
        AlarmKind::Corrupt => proto::alarm::Kind::Corrupt,
    };
    proto::Alarm { kind: kind.into(), member_id: alarm.member_id }
}

pub(super) fn alarm_from_proto(alarm: proto::Alarm) -> Result<Alarm, DecodeError> {
    let kind = match alarm.kind() {
        proto::alarm::Kind::Unspecified => return Err(DecodeError::Unknown { what: "the kind of an alarm" }),
        proto::alarm::Kind::NoSpace => AlarmKind::NoSpace,
        proto::alarm::Kind::Corrupt => AlarmKind::Corrupt,
    };
    Ok(Alarm { kind, member_id: alarm.member_id })
}

/// The lease of a number that has to name one.
pub(super) fn lease_id(id: i64) -> Result<LeaseId, DecodeError> {
    required(LeaseId::new(id).ok(), "the number of a lease")
}

fn put_to_proto(put: &PutRequest) -> proto::Put {
    proto::Put {
        key: put.key.clone(),
        value: put.value.clone(),
        lease: put.lease.map_or(0, LeaseId::get),
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
        prev_kv: put.prev_kv,
    }
}

fn put_from_proto(put: proto::Put) -> PutRequest {
    PutRequest {
        key: put.key,
        value: put.value,
        lease: LeaseId::new(put.lease).ok(),
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
        prev_kv: put.prev_kv,
    }
}

fn delete_to_proto(delete: &DeleteRequest) -> proto::DeleteRange {
    proto::DeleteRange { range: Some(key_range_to_proto(&delete.range)), prev_kv: delete.prev_kv }
}

fn delete_from_proto(delete: proto::DeleteRange) -> Result<DeleteRequest, DecodeError> {
    Ok(DeleteRequest { range: key_range_from_proto(delete.range)?, prev_kv: delete.prev_kv })
}

fn key_range_to_proto(range: &KeyRange) -> proto::KeyRange {
    let range = match range {
        KeyRange::Single(key) => key_range::Range::Single(key.clone()),
        KeyRange::Between(start, end) => {
            key_range::Range::Between(proto::Between { start: start.clone(), end: end.clone() })
        }
        KeyRange::From(start) => key_range::Range::From(start.clone()),
    };
    proto::KeyRange { range: Some(range) }
}

fn key_range_from_proto(range: Option<proto::KeyRange>) -> Result<KeyRange, DecodeError> {
    Ok(match required(range.and_then(|range| range.range), "a range of keys")? {
        key_range::Range::Single(key) => KeyRange::Single(key),
        key_range::Range::Between(proto::Between { start, end }) => KeyRange::Between(start, end),
        key_range::Range::From(start) => KeyRange::From(start),
    })
}

fn txn_to_proto(txn: &TxnRequest) -> proto::Txn {
    proto::Txn {
        compare: txn.compare.iter().map(compare_to_proto).collect(),
        success: txn.success.iter().map(op_to_proto).collect(),
        failure: txn.failure.iter().map(op_to_proto).collect(),
    }
}

fn txn_from_proto(txn: proto::Txn) -> Result<TxnRequest, DecodeError> {
    Ok(TxnRequest {
        compare: txn.compare.into_iter().map(compare_from_proto).collect::<Result<_, _>>()?,
        success: txn.success.into_iter().map(op_from_proto).collect::<Result<_, _>>()?,
        failure: txn.failure.into_iter().map(op_from_proto).collect::<Result<_, _>>()?,
    })
}

fn op_to_proto(op: &Op) -> proto::Op {
    let op = match op {
        Op::Range(range) => op::Op::Range(range_to_proto(range)),
        Op::Put(put) => op::Op::Put(put_to_proto(put)),
        Op::Delete(delete) => op::Op::DeleteRange(delete_to_proto(delete)),
        Op::Txn(txn) => op::Op::Txn(txn_to_proto(txn).encode_to_vec().into()),
    };
    proto::Op { op: Some(op) }
}

fn op_from_proto(op: proto::Op) -> Result<Op, DecodeError> {
    Ok(match required(op.op, "an operation of a transaction")? {
        op::Op::Range(range) => Op::Range(range_from_proto(range)?),
        op::Op::Put(put) => Op::Put(put_from_proto(put)),
        op::Op::DeleteRange(delete) => Op::Delete(delete_from_proto(delete)?),
        op::Op::Txn(txn) => Op::Txn(txn_from_proto(proto::Txn::decode(&txn[..])?)?),
    })
}

fn range_to_proto(range: &RangeRequest) -> proto::Range {
    let sort = range.sort.map(|(target, order)| {
        let target = match target {
            SortTarget::Key => sort::Target::Key,
            SortTarget::Version => sort::Target::Version,
            SortTarget::CreateRevision => sort::Target::CreateRevision,
            SortTarget::ModRevision => sort::Target::ModRevision,
            SortTarget::Value => sort::Target::Value,
        };
        proto::Sort {
            target: target.into(),
            descending: order == SortOrder::Descending,
            after_limit: order == SortOrder::AscendingAfterLimit,
        }
    });
    proto::Range {
        range: Some(key_range_to_proto(&range.range)),
        revision: range.revision,
        limit: range.limit,
        sort,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision,
        max_mod_revision: range.max_mod_revision,
        min_create_revision: range.min_create_revision,
        max_create_revision: range.max_create_revision,
    }
}

fn range_from_proto(range: proto::Range) -> Result<RangeRequest, DecodeError> {
    let sort = range.sort.map(|sort| {
        let target = match sort.target() {
            sort::Target::Unspecified => {
                return Err(DecodeError::Unknown { what: "what keys are sorted by" });
            }
            sort::Target::Key => SortTarget::Key,
            sort::Target::Version => SortTarget::Version,
            sort::Target::CreateRevision => SortTarget::CreateRevision,
            sort::Target::ModRevision => SortTarget::ModRevision,
            sort::Target::Value => SortTarget::Value,
        };
        let order = match (sort.descending, sort.after_limit) {
            (true, _) => SortOrder::Descending,
            (false, true) => SortOrder::AscendingAfterLimit,
            (false, false) => SortOrder::Ascending,
        };
        Ok((target, order))
    });
    Ok(RangeRequest {
        range: key_range_from_proto(range.range)?,
        revision: range.revision,
        limit: range.limit,
        sort: sort.transpose()?,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision,
        max_mod_revision: range.max_mod_revision,
        min_create_revision: range.min_create_revision,
        max_create_revision: range.max_create_revision,
    })
}

fn compare_to_proto(compare: &Compare) -> proto::Compare {
    let operator = match compare.operator {
        CompareOperator::Equal => compare::Operator::Equal,
        CompareOperator::NotEqual => compare::Operator::NotEqual,
        CompareOperator::Greater => compare::Operator::Greater,
        CompareOperator::Less => compare::Operator::Less,
    };
    let target = match &compare.target {
        CompareTarget::Version(version) => compare::Target::Version(*version),
        CompareTarget::CreateRevision(revision) => compare::Target::CreateRevision(*revision),
        CompareTarget::ModRevision(revision) => compare::Target::ModRevision(*revision),
        CompareTarget::Value(value) => compare::Target::Value(value.clone()),
        CompareTarget::Lease(lease) => compare::Target::Lease(*lease),
    };
    let range = Some(key_range_to_proto(&compare.range));
    proto::Compare { range, operator: operator.into(), target: Some(target) }
}

fn compare_from_proto(compare: proto::Compare) -> Result<Compare, DecodeError> {
    let operator = match compare.operator() {
        compare::Operator::Unspecified => {
            return Err(DecodeError::Unknown { what: "the operator of a compare" });
        }
        compare::Operator::Equal => CompareOperator::Equal,
        compare::Operator::NotEqual => CompareOperator::NotEqual,
        compare::Operator::Greater => CompareOperator::Greater,
        compare::Operator::Less => CompareOperator::Less,
    };
    let target = match required(compare.target, "the target of a compare")? {
        compare::Target::Version(version) => CompareTarget::Version(version),
        compare::Target::CreateRevision(revision) => CompareTarget::CreateRevision(revision),
        compare::Target::ModRevision(revision) => CompareTarget::ModRevision(revision),
        compare::Target::Value(value) => CompareTarget::Value(value),
        compare::Target::Lease(lease) => CompareTarget::Lease(lease),
    };
    Ok(Compare { range: key_range_from_proto(compare.range)?, operator, target })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = bytes::Bytes> {
        prop::collection::vec(any::<u8>(), 0..4).prop_map(bytes::Bytes::from)
    }

    fn any_lease() -> impl Strategy<Value = LeaseId> {
        any::<i64>().prop_filter_map("0 is none", |id| LeaseId::new(id).ok())
    }

    fn any_key_range() -> impl Strategy<Value = KeyRange> {
        prop_oneof![
            any_key().prop_map(KeyRange::Single),
            (any_key(), any_key()).prop_map(|(start, end)| KeyRange::Between(start, end)),
            any_key().prop_map(KeyRange::From),
        ]
    }

    fn any_put() -> impl Strategy<Value = PutRequest> {
        (any_key(), any_key(), prop::option::of(any_lease()), any::<[bool; 3]>()).prop_map(
            |(key, value, lease, [ignore_value, ignore_lease, prev_kv])| PutRequest {
                key,
                value,
                lease,
                ignore_value,
                ignore_lease,
                prev_kv,
            },
        )
    }

    fn any_delete() -> impl Strategy<Value = DeleteRequest> {
        (any_key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRequest { range, prev_kv })
    }

    fn any_range() -> impl Strategy<Value = RangeRequest> {
        let target = prop::sample::select(vec![
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::CreateRevision,
            SortTarget::ModRevision,
            SortTarget::Value,
        ]);
        let order = prop::sample::select(vec![
            SortOrder::Ascending,
            SortOrder::AscendingAfterLimit,
            SortOrder::Descending,
        ]);
        (any_key_range(), any::<[i64; 6]>(), prop::option::of((target, order)), any::<[bool; 2]>()).prop_map(
            |(range, numbers, sort, [keys_only, count_only])| RangeRequest {
                range,
                revision: numbers[0],
                limit: numbers[1],
                sort,
                keys_only,
                count_only,
                min_mod_revision: numbers[2],
                max_mod_revision: numbers[3],
                min_create_revision: numbers[4],
                max_create_revision: numbers[5],
            },
        )
    }

    fn any_compare() -> impl Strategy<Value = Compare> {
        let operator = prop::sample::select(vec![
            CompareOperator::Equal,
            CompareOperator::NotEqual,
            CompareOperator::Greater,
            CompareOperator::Less,
        ]);
        let target = prop_oneof![
            any::<i64>().prop_map(CompareTarget::Version),
            any::<i64>().prop_map(CompareTarget::CreateRevision),
            any::<i64>().prop_map(CompareTarget::ModRevision),
            any::<i64>().prop_map(CompareTarget::Lease),
            any_key().prop_map(CompareTarget::Value),
        ];
        (any_key_range(), operator, target).prop_map(|(range, operator, target)| Compare {
            range,
            operator,
            target,
        })
    }

    fn any_txn() -> impl Strategy<Value = TxnRequest> {
        let leaf = prop_oneof![
            any_range().prop_map(Op::Range),
            any_put().prop_map(Op::Put),
            any_delete().prop_map(Op::Delete),
        ];
        let op = leaf.prop_recursive(3, 12, 3, |op| {
            let ops = || prop::collection::vec(op.clone(), 0..3);
            (prop::collection::vec(any_compare(), 0..2), ops(), ops())
                .prop_map(|(compare, success, failure)| Op::Txn(TxnRequest { compare, success, failure }))
        });
        let ops = || prop::collection::vec(op.clone(), 0..4);
        (prop::collection::vec(any_compare(), 0..3), ops(), ops())
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    }

    fn any_command() -> impl Strategy<Value = Command> {
        prop_oneof![
            any_put().prop_map(Command::Put),
            any_delete().prop_map(Command::DeleteRange),
            any_txn().prop_map(Command::Txn),
            any::<i64>().prop_map(|revision| Command::Compact { revision }),
            (any_lease(), any::<i64>()).prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
            (any_lease(), prop::option::of(prop::collection::vec(any_key_range(), 0..3))).prop_map(
                |(id, ranges)| {
                    Command::LeaseRevoke { id, within: ranges.map(|ranges| ranges.into_iter().collect()) }
                }
            ),
            any::<(u64, String, Vec<String>)>().prop_map(|(member_id, name, client_urls)| {
                Command::MemberAttributes { member_id, name, client_urls }
            }),
            (any::<bool>(), any::<u64>(), any::<bool>()).prop_map(|(full, member_id, raised)| {
                let kind = if full { AlarmKind::NoSpace } else { AlarmKind::Corrupt };
                Command::Alarm { alarm: Alarm { kind, member_id }, raised }
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_command_is_read_as_it_was_written(command in any_command()) {
            let bytes = command_to_proto(&command).encode_to_vec();
            let read = command_from_proto(proto::Command::decode(&bytes[..]).unwrap()).unwrap();
            prop_assert_eq!(read, command);
        }
    }

    #[test]
    fn a_transaction_may_be_nested_as_deep_as_it_was_accepted() {
        let inner = |txn| TxnRequest { success: vec![Op::Txn(txn)], ..TxnRequest::default() };
        let txn = (0..128).fold(TxnRequest::default(), |txn, _| inner(txn));
        let bytes = command_to_proto(&Command::Txn(txn.clone())).encode_to_vec();
        let read = command_from_proto(proto::Command::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!(read, Command::Txn(txn));
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused() {
        let unknown = proto::Command { command: None };
        assert!(matches!(command_from_proto(unknown), Err(DecodeError::Unknown { .. })));
    }
}
