//! The time that leases live by: the member's clock, without its jumps.
//!
//! Invariants:
//! - It never goes back.
//! - What no running member could have let pass between two looks does not count: after a jump of the clock, or when the
//!   member stood still, clients had no chance to renew what would have run out meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::platform::Clock;

/// How often whoever ends leases looks at least, so that all of the time counts.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What passes at most between two looks of a member that runs; it may be busy for a while.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// The time that leases live by.
#[derive(Debug)]
pub(super) struct LeaseTime {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// What the clock said.
    clock: Instant,
    /// What that was for leases.
    time: Instant,
}

impl LeaseTime {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self { clock, seen: Mutex::new(Seen { clock: now, time: now }) }
    }

    pub(super) fn now(&self) -> Instant {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        // Backwards: it goes on from there.
        let step = now.saturating_duration_since(seen.clock);
        seen.clock = now;
        if step <= LONGEST_STEP {
            seen.time += step;
        }
        seen.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Set(Mutex<Instant>);

    impl Clock for Set {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn steps_count_and_jumps_do_not() {
        let start = Instant::now() + Duration::from_hours(1);
        let clock = Arc::new(Set(Mutex::new(start)));
        let time = LeaseTime::new(Arc::<Set>::clone(&clock));
        let before = start.checked_sub(Duration::from_mins(30)).unwrap();
        let at = |now: Instant| {
            *clock.0.lock().unwrap() = now;
            time.now().duration_since(start)
        };
        assert_eq!(at(start + LOOK_EVERY), LOOK_EVERY);
        assert_eq!(at(start + Duration::from_mins(30)), LOOK_EVERY);
        assert_eq!(at(before), LOOK_EVERY);
        assert_eq!(at(before + LOOK_EVERY), LOOK_EVERY * 2);
        assert_eq!(at(before + LOOK_EVERY), LOOK_EVERY * 2);
    }
}
