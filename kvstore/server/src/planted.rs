//! Faults that are put in on purpose, so that the checks of the store show that they would notice them.
//!
//! Without the feature `planted-bugs`, which no program is built with, none of them is there.

/// A fault that a store has had, or could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PlantedBug {
    /// Entries are said to be on disk before they are synced.
    ReplyBeforeFsync = 1,
    /// A leader that was deposed and does not know answers reads without asking the others.
    StaleReadOnDeposedLeader,
    /// A watch is not told of a change.
    EventDropped,
    /// A watch is told of a change twice.
    EventRepeated,
    /// The changes of one revision reach a watch in two responses.
    RevisionSplit,
    /// A lease ends before its time.
    LeaseExpiredEarly,
    /// What a crash left of a frame stays in the log, and what is appended later comes behind it.
    TornTailKept,
    /// Names of files are not made durable.
    RenameNotSynced,
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::{plant, planted};

/// Whether a fault is put in: never.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[inline]
pub const fn planted(_: PlantedBug) -> bool {
    false
}

#[cfg(all(feature = "planted-bugs", not(test)))]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::PlantedBug;

    /// For the whole process: a store has many threads.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Whether a fault is put in.
    pub fn planted(bug: PlantedBug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// Puts one fault in, or none, for the whole process.
    pub fn plant(bug: Option<PlantedBug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::PlantedBug;

    thread_local! {
        /// For one thread, so that the tests beside it are not hit.
        static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
    }

    /// Whether a fault is put in.
    pub fn planted(bug: PlantedBug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Puts one fault in, or none, for this thread.
    pub fn plant(bug: Option<PlantedBug>) {
        PLANTED.set(bug);
    }
}
