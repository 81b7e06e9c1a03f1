//! When a lease is renewed, and when it is lost.

use std::time::{Duration, Instant};

use crate::backoff::delay;

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Renew it at that time.
    RenewAt(Instant),
    /// It may have expired.
    Lost,
}

/// The clock of one lease.
///
/// Its holder takes it for lost before its store does: the time runs from when a renewal was asked for, which is
/// before the store granted it.
#[derive(Debug)]
pub(crate) struct Renewal {
    ttl: Duration,
    /// When the last renewal that succeeded was asked for.
    renewed: Instant,
    failures: u32,
    next: Instant,
}

impl Renewal {
    /// A lease of `ttl` that was asked for at `asked`.
    pub(crate) fn new(ttl: Duration, asked: Instant) -> Self {
        Self { ttl, renewed: asked, failures: 0, next: asked + ttl / 3 }
    }

    /// What to do, seen from `now`.
    pub(crate) fn next(&self, now: Instant) -> Next {
        let expiry = self.expiry();
        if now >= expiry { Next::Lost } else { Next::RenewAt(self.next.min(expiry)) }
    }

    /// When it is lost if no renewal succeeds.
    pub(crate) fn expiry(&self) -> Instant {
        self.renewed + self.ttl
    }

    /// The renewal that was asked for at `asked` succeeded.
    pub(crate) fn renewed(&mut self, asked: Instant) {
        *self = Self::new(self.ttl, asked);
    }

    /// A renewal failed at `now`. Only a third of the time to live is between two tries at most.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.next = now + delay(self.failures, random).min(self.ttl / 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(9);

    #[test]
    fn a_lease_is_renewed_after_a_third_of_its_time() {
        let start = Instant::now();
        let mut renewal = Renewal::new(TTL, start);
        assert_eq!(renewal.next(start), Next::RenewAt(start + TTL / 3));
        let asked = start + TTL / 3;
        renewal.renewed(asked);
        assert_eq!(renewal.next(asked + Duration::from_secs(1)), Next::RenewAt(asked + TTL / 3));
        assert_eq!(renewal.expiry(), asked + TTL);
    }

    #[test]
    fn failures_are_repeated_until_the_time_since_the_last_success_is_up() {
        let start = Instant::now();
        let mut renewal = Renewal::new(TTL, start);
        let mut now = start;
        let mut tries = 0;
        while let Next::RenewAt(at) = renewal.next(now) {
            assert!(at - now <= TTL / 3);
            now = at.max(now + Duration::from_millis(1));
            renewal.failed(now, 0.5);
            tries += 1;
        }
        assert_eq!(now, start + TTL);
        assert!(tries > 5, "{tries}");
    }
}
