//! Holds up what goes between members, so that a partition can be tried out.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

/// A direction of the way between this member and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From this member to the other.
    To,
    /// From the other to this one.
    From,
}

/// Cuts the connections that this member makes to others, without closing them: as if a cable were out.
///
/// What members ask each other goes over a connection of the one who asks. So a cable between two is cut in both directions
/// by cutting it at both of them, and in one direction by cutting `To` at one end and `From` at the other.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<RwLock<BTreeSet<(u64, Direction)>>>);

impl Switch {
    /// Lets nothing through any more, until [`Switch::mend`].
    pub fn cut(&self, member: u64, direction: Direction) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert((member, direction));
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn is_cut(&self, member: u64, direction: Direction) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&(member, direction))
    }
}
