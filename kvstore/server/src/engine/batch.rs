//! What one entry of the log asks for: the requests that waited while the entry before it was under way.

use std::fmt;

use landbridge_kvstore_store::{Op, TxnRequest};

use super::Command;

/// Requests that are carried out one after the other. One entry of the log holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) origin: Origin,
    pub(super) requests: Vec<Request>,
}

/// Where a batch was made. The member that made it answers those who wait for it when it applies it, whoever led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) member: u64,
    /// A random number of each start, so that nobody is answered what another process asked for. 0: nobody waits.
    pub(super) session: u64,
    /// Counts the batches of a session.
    pub(super) sequence: u64,
}

/// A command, and what it presumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    /// The revision of users and roles by which it was allowed; 0 if it does not depend on them.
    pub(super) auth_revision: u64,
}

impl Batch {
    /// Commands that nobody waits for, and that nobody may be refused.
    pub(super) fn unattended(commands: impl IntoIterator<Item = Command>) -> Self {
        let requests = commands.into_iter().map(|command| Request { command, auth_revision: 0 });
        Self { origin: Origin::default(), requests: requests.collect() }
    }
}

impl fmt::Display for Batch {
    /// The number alone: keys and values are not for logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} requests", self.requests.len())
    }
}

/// About how many bytes a command takes in memory and in the log, so that a batch can be bounded by them.
pub(super) fn weight(command: &Command) -> usize {
    /// Of a command without its keys and values.
    const BASE: usize = 64;
    BASE + match command {
        Command::Put(put) => put.key.len() + put.value.len(),
        Command::Txn(txn) => txn_weight(txn),
        Command::DeleteRange(_)
        | Command::Compact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::Alarm { .. }
        // As large as the names in it, which are short and rare.
        | Command::Auth(_)
        | Command::MemberAttributes { .. } => 0,
    }
}

fn txn_weight(txn: &TxnRequest) -> usize {
    const BASE: usize = 64;
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Put(put) => BASE + put.key.len() + put.value.len(),
        Op::Txn(txn) => BASE + txn_weight(txn),
        Op::Range(_) | Op::Delete(_) => BASE,
    });
    ops.sum::<usize>() + txn.compare.len() * BASE
}
