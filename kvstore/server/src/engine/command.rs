//! What can be asked of the replicated store, and what comes of it.

use landbridge_kvstore_store::auth::{AuthCommand, AuthOutcome, AuthStore};
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
            Self::LeaseRevoke { id } => store.revoke_lease(*id).map(|()| Outcome::LeaseRevoked),
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
