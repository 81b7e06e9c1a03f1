//! From a seed to operations: the same ones each time, whatever the stores answer.
//!
//! ```text
//! seed ─► Generator ─► weights ─► keys: few, overlapping ─► Operation, its revisions symbolic
//! ```
//!
//! Invariants:
//! - Nothing but the seed decides, so that a failure can be repeated, and operations can be left out of it.
//! - What is drawn often is what makes states interesting: keys that are put again, deleted and leased in turn. What is
//!   refused at once is drawn seldom.

mod keys;
mod kv;
mod lease;
mod txn;
mod users;
mod watch;

pub(crate) use users::{PASSWORD, ROOT};

use crate::operation::Operation;

/// The larger side of what [`Generator::value`] draws, in bytes: large enough that a few do not fit into one message.
pub(crate) const LARGE_VALUE: usize = 8 << 10;
/// Larger than a request may be, see [`crate::stores::MAX_REQUEST_BYTES`].
pub(crate) const TOO_LARGE_VALUE: usize = 40 << 10;

/// Draws operations.
#[derive(Debug)]
pub(crate) struct Generator {
    dice: fastrand::Rng,
    has_users: bool,
    /// What was drawn as one thing with the one before.
    planned: std::collections::VecDeque<Operation>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dice: fastrand::Rng::with_seed(seed),
            has_users: false,
            planned: std::collections::VecDeque::new(),
        }
    }

    /// Whether something with this chance happens, in a thousand.
    fn chance(&mut self, in_a_thousand: u32) -> bool {
        self.dice.u32(..1000) < in_a_thousand
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.dice.usize(..of.len())].clone()
    }

    fn draw(&mut self) -> Operation {
        match self.dice.u32(..1000) {
            0..270 => Operation::Put(self.put()),
            270..540 => Operation::Range(self.range()),
            540..620 => Operation::DeleteRange(self.delete_range()),
            620..820 => Operation::Txn(self.txn()),
            820..822 => Operation::Txn(self.too_long_txn()),
            822..830 => self.compact(),
            830..860 => Operation::Grant(self.grant()),
            860..866 => self.grant_and_revoke(),
            866..880 => Operation::Revoke(self.revoke()),
            880..900 => Operation::TimeToLive(self.time_to_live()),
            900..908 => Operation::Leases,
            908..916 => self.keep_alive(),
            916..950 => self.watch(),
            950..972 => self.cancel_watch(),
            972..982 => self.request_progress(),
            982..988 => self.close_stream(),
            988..996 => Operation::Sync,
            996 => Operation::Alarms,
            997..999 => self.hash_kv(),
            _ => self.long_catch_up(),
        }
    }
}

impl Iterator for Generator {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        Some(match self.planned.pop_front() {
            Some(operation) => operation,
            None if self.has_users => self.draw_of_users(),
            None => self.draw(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_operations_each_time() {
        let drawn = |seed| Generator::new(seed).take(500).collect::<Vec<_>>();
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }
}
