//! When a lease is renewed, and when it is lost.

use std::time::{Duration, Instant};

use crate::backoff::delay;

/// How long a try may take however short the lease is: a new connection over some distance takes a few round trips.
const SHORTEST_TRY: Duration = Duration::from_secs(1);

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

    /// Until when a renewal that is asked for at `asked` may take: early enough to try another connection or endpoint if
    /// this one is silent, and never beyond the lease.
    pub(crate) fn deadline(&self, asked: Instant) -> Instant {
        self.expiry().min(asked + (self.ttl / 3).max(SHORTEST_TRY))
    }

    /// When it is lost if no renewal succeeds.
    fn expiry(&self) -> Instant {
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
        assert_eq!(renewal.next(asked + TTL), Next::Lost);
    }

    #[test]
    fn a_renewal_without_an_answer_leaves_time_for_another() {
        let start = Instant::now();
        let mut renewal = Renewal::new(TTL, start);
        let mut tries = 0;
        let mut now = start;
        while let Next::RenewAt(at) = renewal.next(now) {
            now = renewal.deadline(at);
            renewal.failed(now, 1.0);
            tries += 1;
        }
        assert_eq!((now, tries), (start + TTL, 2));
        let short = Renewal::new(Duration::from_secs(2), start);
        assert_eq!(short.deadline(start), start + Duration::from_secs(1));
        assert_eq!(short.deadline(start + Duration::from_millis(1500)), start + Duration::from_secs(2));
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
