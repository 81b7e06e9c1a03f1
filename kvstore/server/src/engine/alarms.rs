//! Alarms: what is wrong with a member, known to all of them, and what the store refuses until someone clears it.
//!
//! Raised and cleared by commands, so that every member refuses the same. As in etcd 3.5: without room, nothing that takes
//! more is carried out; once data is damaged, nothing that changes any. Reads always are.

use std::collections::BTreeSet;

use landbridge_kvstore_store::{Op, StoreError, TxnRequest};

use super::Command;

/// What can be wrong. In the order of etcd's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The store has reached its quota.
    NoSpace,
    /// The data of members differ.
    Corrupt,
}

impl AlarmKind {
    /// As etcd calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::Corrupt => "CORRUPT",
        }
    }
}

/// Something wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// Whose number it was raised for; whether there is such a member is not checked, as in etcd.
    pub member_id: u64,
}

/// The alarms that are raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alarms(BTreeSet<Alarm>);

impl Alarms {
    pub(super) fn iter(&self) -> impl Iterator<Item = Alarm> {
        self.0.iter().copied()
    }

    /// Raises or clears one. Returns whether it is one that is raised, or was.
    pub(super) fn set(&mut self, alarm: Alarm, raised: bool) -> bool {
        if raised {
            self.0.insert(alarm);
            true
        } else {
            self.0.remove(&alarm)
        }
    }

    pub(super) fn has(&self, kind: AlarmKind) -> bool {
        self.0.iter().any(|alarm| alarm.kind == kind)
    }

    /// Why a command is not carried out now.
    pub(super) fn refuse(&self, command: &Command) -> Option<StoreError> {
        let changes = match command {
            Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. } => true,
            Command::Alarm { .. } | Command::Auth(_) | Command::MemberAttributes { .. } => false,
        };
        if changes && self.has(AlarmKind::Corrupt) {
            return Some(StoreError::Corrupt);
        }
        (self.has(AlarmKind::NoSpace) && grows(command)).then_some(StoreError::NoSpace)
    }
}

impl FromIterator<Alarm> for Alarms {
    fn from_iter<Iter: IntoIterator<Item = Alarm>>(alarms: Iter) -> Self {
        Self(alarms.into_iter().collect())
    }
}

/// Whether a command may take more room than before, in either branch.
pub(super) fn grows(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant { .. } => true,
        Command::Txn(txn) => puts(txn),
        Command::DeleteRange(_)
        | Command::Compact { .. }
        | Command::LeaseRevoke { .. }
        | Command::Alarm { .. }
        | Command::Auth(_)
        | Command::MemberAttributes { .. } => false,
    }
}

fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(txn) => puts(txn),
        Op::Range(_) | Op::Delete(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::{DeleteRequest, KeyRange, PutRequest};

    use super::*;

    fn put() -> PutRequest {
        PutRequest { key: "k".into(), ..PutRequest::default() }
    }

    #[test]
    fn without_room_only_what_takes_more_is_refused_and_once_damaged_every_change() {
        let nested = TxnRequest { failure: vec![Op::Put(put())], ..TxnRequest::default() };
        let growing = [
            Command::Put(put()),
            Command::Txn(TxnRequest { success: vec![Op::Txn(nested)], ..TxnRequest::default() }),
        ];
        let delete = DeleteRequest { range: KeyRange::Single("k".into()), prev_kv: false };
        let others = [Command::DeleteRange(delete), Command::Compact { revision: 2 }];
        let mut alarms = Alarms::default();
        assert!(growing.iter().chain(&others).all(|command| alarms.refuse(command).is_none()));
        let full = Alarm { kind: AlarmKind::NoSpace, member_id: 7 };
        assert!(alarms.set(full, true));
        assert!(growing.iter().all(|command| alarms.refuse(command) == Some(StoreError::NoSpace)));
        assert!(others.iter().all(|command| alarms.refuse(command).is_none()));
        alarms.set(Alarm { kind: AlarmKind::Corrupt, member_id: 7 }, true);
        assert!(
            growing.iter().chain(&others).all(|command| alarms.refuse(command) == Some(StoreError::Corrupt))
        );
        // What clears it is always carried out.
        let clear = Command::Alarm { alarm: full, raised: false };
        assert_eq!(alarms.refuse(&clear), None);
        assert!(alarms.set(full, false) && !alarms.set(full, false));
    }
}
