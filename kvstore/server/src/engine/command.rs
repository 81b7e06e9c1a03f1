//! What can be asked of the replicated store, and what comes of it.

use landbridge_kvstore_store::auth::{AuthCommand, AuthError, AuthOutcome, AuthStore, Cover};
use landbridge_kvstore_store::{
    DeleteRequest, DeleteResponse, LeaseId, PutRequest, PutResponse, StoreError, TxnLimits, TxnRequest,
    TxnResponse,
};

use super::Alarm;
use super::members::Attributes;
use super::state_machine::State;

/// A change of the store. It is carried out in the same order on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Puts a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRequest),
    /// Compares, and does one thing or another.
    Txn(TxnRequest),
    /// Forgets the history before a revision.
    Compact {
        /// The oldest revision that can still be read afterwards.
        revision: i64,
    },
    /// Makes a lease.
    LeaseGrant {
        /// Its number, which whoever asks has picked.
        id: LeaseId,
        /// How long it lives without renewal, in seconds.
        ttl_seconds: i64,
    },
    /// Ends a lease, and deletes its keys.
    LeaseRevoke {
        /// Its number.
        id: LeaseId,
        /// Where all its keys have to be for that: a key that comes to it while this is under way may be one that whoever
        /// asks has no right to delete. `None` is anywhere.
        within: Option<Cover>,
    },
    /// Changes users and roles.
    Auth(AuthCommand),
    /// Says how a member is called and where clients reach it; each member says that when it starts.
    MemberAttributes {
        /// The member.
        member_id: u64,
        /// Its name.
        name: String,
        /// The URLs.
        client_urls: Vec<String>,
    },
    /// Raises or clears an alarm.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Whether it is raised.
        raised: bool,
    },
}

impl Command {
    /// Carries the command out. The outcome depends on nothing but command and state: limits that a member may set for
    /// itself are checked before a command is proposed.
    pub(super) fn apply(&self, state: &mut State, index: u64) -> Result<Outcome, StoreError> {
        if let Some(refusal) = state.alarms.refuse(self) {
            return Err(refusal);
        }
        let store = &mut state.store;
        match self {
            Self::Put(put) => store.put(put).map(Outcome::Put),
            Self::DeleteRange(delete) => store.delete(delete).map(Outcome::DeleteRange),
            Self::Txn(txn) => store.txn(txn, TxnLimits { max_ops: usize::MAX }).map(Outcome::Txn),
            Self::Compact { revision } => {
                // What that forgets is let go of later, step by step.
                store.compact(*revision)?;
                Ok(Outcome::Compacted)
            }
            Self::LeaseGrant { id, ttl_seconds } => {
                store.grant_lease(*id, *ttl_seconds).map(|()| Outcome::LeaseGranted)
            }
            Self::LeaseRevoke { id, within } => {
                if within.as_ref().is_some_and(|within| !within.holds_lease(store, *id)) {
                    return Err(AuthError::PermissionDenied.into());
                }
                store.revoke_lease(*id).map(|()| Outcome::LeaseRevoked)
            }
            Self::Auth(command) => Ok(AuthStore::apply(&mut state.auth, command, index).map(Outcome::Auth)?),
            Self::MemberAttributes { member_id, name, client_urls } => {
                let (name, client_urls) = (name.clone(), client_urls.clone());
                state.members.publish(*member_id, Attributes { name, client_urls });
                Ok(Outcome::MemberPublished)
            }
            Self::Alarm { alarm, raised } => Ok(Outcome::Alarm(state.alarms.set(*alarm, *raised))),
        }
    }
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What it did, or why it did nothing.
    pub outcome: Result<Outcome, StoreError>,
    /// The store's revision right after it.
    pub revision: i64,
    /// The term of the leader that took the command.
    pub term: u64,
}

/// What a command did, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What a put did.
    Put(PutResponse),
    /// What a deletion did.
    DeleteRange(DeleteResponse),
    /// What a transaction did.
    Txn(TxnResponse),
    /// The history is forgotten.
    Compacted,
    /// The lease lives.
    LeaseGranted,
    /// The lease has ended, and its keys with it.
    LeaseRevoked,
    /// What a change of users and roles did.
    Auth(AuthOutcome),
    /// What a member says about itself is known.
    MemberPublished,
    /// The alarm is raised or cleared; whether it is one that is raised, or was.
    Alarm(bool),
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::KeyRange;

    use super::*;

    /// Between the look at a lease and its end, another one may have put a key on it.
    #[test]
    fn a_lease_with_a_key_out_of_bounds_does_not_end() {
        let id = LeaseId::new(7).unwrap();
        let mut state = State::default();
        let mut apply = |command: Command| command.apply(&mut state, 1);
        let put = |key: &'static str| {
            Command::Put(PutRequest { key: key.into(), lease: Some(id), ..PutRequest::default() })
        };
        let revoke = |within: Option<KeyRange>| Command::LeaseRevoke {
            id,
            within: within.map(|range| [range].into_iter().collect()),
        };
        let mine = || Some(KeyRange::Between("a".into(), "b".into()));
        apply(Command::LeaseGrant { id, ttl_seconds: 60 }).unwrap();
        apply(put("a/1")).unwrap();
        apply(put("b")).unwrap();
        assert_eq!(apply(revoke(mine())), Err(StoreError::Auth(AuthError::PermissionDenied)));
        apply(Command::DeleteRange(DeleteRequest { range: KeyRange::Single("b".into()), prev_kv: false }))
            .unwrap();
        assert_eq!(apply(revoke(mine())), Ok(Outcome::LeaseRevoked));
        assert_eq!(apply(revoke(mine())), Err(StoreError::LeaseNotFound));
        apply(Command::LeaseGrant { id, ttl_seconds: 60 }).unwrap();
        apply(put("b")).unwrap();
        assert_eq!(apply(revoke(None)), Ok(Outcome::LeaseRevoked));
    }
}
