//! When leases run out: the leader's view, in its own monotonic time. Not replicated.
//!
//! A lease lives at least its time to live, and longer after a change of leaders: the new one does not know when it was
//! last renewed, and gives each its full time again (etcd `server/lease/lessor.go`). What has run out ends by a request
//! through the log, like any other change, so that it lives on here until that is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::{LeaseId, StoreError};

/// The longest time to live that etcd grants, in seconds.
const MAX_TTL_SECONDS: i64 = 9_000_000_000;

/// The time to live that a request for `requested` seconds is granted, if leases live for `minimum` seconds at least.
///
/// # Errors
/// [`StoreError::TtlTooLarge`] above 9,000,000,000 s.
pub fn granted_ttl_seconds(requested: i64, minimum: i64) -> Result<i64, StoreError> {
    if requested > MAX_TTL_SECONDS { Err(StoreError::TtlTooLarge) } else { Ok(requested.max(minimum)) }
}

/// The deadlines of all leases, on the member that leads.
#[derive(Clone, Debug, Default)]
pub struct LeaseClock {
    leases: BTreeMap<LeaseId, Timer>,
    by_deadline: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    ttl: Duration,
    deadline: Instant,
}

impl LeaseClock {
    /// The clock of a member that begins to lead at `now`: each of `leases`, with its time to live in seconds, gets its
    /// full time and `extension`, the election timeout. Until that has passed the old leader may not know that it was
    /// replaced, and renew leases.
    pub fn start(
        now: Instant,
        extension: Duration,
        leases: impl IntoIterator<Item = (LeaseId, i64)>,
    ) -> Self {
        let mut clock = Self::default();
        for (id, ttl_seconds) in leases {
            clock.grant(now + extension, id, ttl_seconds);
        }
        clock
    }

    /// A lease was granted.
    pub fn grant(&mut self, now: Instant, id: LeaseId, ttl_seconds: i64) {
        self.revoke(id);
        let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0));
        self.set(now, id, ttl);
    }

    /// A lease has ended.
    pub fn revoke(&mut self, id: LeaseId) {
        if let Some(Timer { deadline, .. }) = self.leases.remove(&id) {
            self.by_deadline.remove(&(deadline, id));
        }
    }

    /// A client wants a lease to live on. Returns its time to live in seconds, or nothing if there is no such lease or it
    /// has run out: then its end is under way, and the client is told once its keys are gone.
    pub fn renew(&mut self, now: Instant, id: LeaseId) -> Option<u64> {
        let timer = *self.leases.get(&id).filter(|timer| timer.deadline > now)?;
        self.revoke(id);
        self.set(now, id, timer.ttl);
        Some(timer.ttl.as_secs())
    }

    /// How long a lease has left, zero if it has run out and is not ended yet.
    pub fn remaining(&self, now: Instant, id: LeaseId) -> Option<Duration> {
        self.leases.get(&id).map(|timer| timer.deadline.saturating_duration_since(now))
    }

    /// Up to `max` leases that have run out, the longest ago first. They are returned until they are revoked.
    pub fn expired(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        let due = self.by_deadline.iter().take_while(|(deadline, _)| *deadline <= now);
        due.take(max).map(|(_, id)| *id).collect()
    }

    /// When the next lease runs out.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    fn set(&mut self, now: Instant, id: LeaseId, ttl: Duration) {
        // A deadline beyond what the clock can tell is never reached; a century is no different.
        const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
        let deadline = now + ttl.min(CENTURY);
        self.leases.insert(id, Timer { ttl, deadline });
        self.by_deadline.insert((deadline, id));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(id: i64) -> LeaseId {
        LeaseId::new(id).unwrap()
    }

    #[test]
    fn a_lease_lives_its_time_and_not_a_moment_less() {
        let start = Instant::now();
        let mut clock = LeaseClock::default();
        clock.grant(start, lease(1), 10);
        let almost = start + Duration::from_millis(9_999);
        assert_eq!(clock.expired(almost, 9), []);
        assert_eq!(clock.renew(almost, lease(1)), Some(10));
        assert_eq!(clock.expired(start + Duration::from_secs(19), 9), []);
        assert_eq!(clock.expired(almost + Duration::from_secs(10), 9), [lease(1)]);
    }

    #[test]
    fn what_has_run_out_cannot_be_renewed_and_stays_until_it_is_revoked() {
        let start = Instant::now();
        let mut clock = LeaseClock::start(start, Duration::ZERO, [(lease(1), 5)]);
        let later = start + Duration::from_secs(5);
        assert_eq!(clock.renew(later, lease(1)), None);
        assert_eq!(clock.remaining(later, lease(1)), Some(Duration::ZERO));
        assert_eq!(clock.expired(later, 9), clock.expired(later, 9));
        clock.revoke(lease(1));
        assert_eq!((clock.remaining(later, lease(1)), clock.next_deadline()), (None, None));
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_full_time_and_the_election_timeout() {
        let start = Instant::now();
        let leases = [(lease(1), 5), (lease(2), 60)];
        let mut old = LeaseClock::start(start, Duration::ZERO, leases);
        let change = start + Duration::from_secs(4);
        let new = LeaseClock::start(change, Duration::from_secs(1), leases);
        // The old leader has not noticed yet.
        let renewed = change + Duration::from_millis(900);
        assert_eq!(old.renew(renewed, lease(1)), Some(5));
        assert_eq!(new.expired(renewed + Duration::from_secs(5), 9), []);
        assert_eq!(new.next_deadline(), Some(change + Duration::from_secs(6)));
    }

    #[test]
    fn ttls_are_raised_to_the_minimum_and_bounded() {
        assert_eq!(granted_ttl_seconds(-1, 2), Ok(2));
        assert_eq!(granted_ttl_seconds(MAX_TTL_SECONDS, 2), Ok(MAX_TTL_SECONDS));
        assert_eq!(granted_ttl_seconds(MAX_TTL_SECONDS + 1, 2), Err(StoreError::TtlTooLarge));
        let mut clock = LeaseClock::default();
        clock.grant(Instant::now(), lease(1), i64::MAX);
        assert_eq!(clock.renew(Instant::now(), lease(1)), Some(i64::MAX.unsigned_abs()));
    }

    proptest! {
        /// However leases come, are renewed and go, exactly those without time are expired, in the order of their
        /// deadlines.
        #[test]
        fn expired_are_those_without_time_left(
            steps in prop::collection::vec((0u8..3, 1i64..6, 0i64..10, 0u64..3), 0..60),
            max in 0usize..5,
        ) {
            let mut now = Instant::now();
            let mut clock = LeaseClock::default();
            for (action, id, ttl, wait) in steps {
                now += Duration::from_secs(wait);
                match action {
                    0 => clock.grant(now, lease(id), ttl),
                    1 => clock.revoke(lease(id)),
                    _ => drop(clock.renew(now, lease(id))),
                }
                let mut without: Vec<LeaseId> =
                    (1..6).map(lease).filter(|id| clock.remaining(now, *id) == Some(Duration::ZERO)).collect();
                let mut expired = clock.expired(now, usize::MAX);
                prop_assert_eq!(clock.expired(now, max), expired[..max.min(expired.len())].to_vec());
                expired.sort_unstable();
                without.sort_unstable();
                prop_assert_eq!(expired, without);
            }
        }
    }
}
