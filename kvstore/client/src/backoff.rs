//! How long to wait after failures, and which endpoint is next.

use std::time::{Duration, Instant};

/// After the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// However many failures there were: a store that is back is found within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// How long to wait after `failures` of them in a row: doubling, and spread over half of it by `random` in 0..1, so that
/// the many clients of a store that comes back do not come back together.
pub(crate) fn delay(failures: u32, random: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let whole =
        2_u32.checked_pow(doublings).map_or(LONGEST, |factor| FIRST.saturating_mul(factor).min(LONGEST));
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// Which endpoint is used, and from when on. The endpoints of one round are tried without a pause.
#[derive(Debug)]
pub(crate) struct Rotation {
    endpoints: usize,
    chosen: usize,
    failures: u32,
    not_before: Option<Instant>,
}

impl Rotation {
    /// Of at least one endpoint.
    pub(crate) fn new(endpoints: usize) -> Self {
        Self { endpoints, chosen: 0, failures: 0, not_before: None }
    }

    /// The endpoint to use.
    pub(crate) fn chosen(&self) -> usize {
        self.chosen
    }

    /// When to connect to it, if not at once.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// The chosen endpoint answered.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// The chosen endpoint did not answer: the next one is chosen.
    pub(crate) fn failed(&mut self, now: Instant, random: f64) {
        self.chosen = (self.chosen + 1) % self.endpoints;
        self.failures = self.failures.saturating_add(1);
        let round = u32::try_from(self.endpoints).unwrap_or(u32::MAX);
        let ends_round = self.failures.is_multiple_of(round);
        self.not_before = ends_round.then(|| now + delay(self.failures / round, random));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_seconds_and_are_spread_over_half_of_it() {
        assert_eq!(delay(0, 0.7), Duration::ZERO);
        assert_eq!(delay(1, 0.0), Duration::from_millis(50));
        assert_eq!(delay(1, 1.0), Duration::from_millis(100));
        assert_eq!(delay(3, 1.0), Duration::from_millis(400));
        assert_eq!(delay(u32::MAX, 0.0), Duration::from_millis(2500));
        assert_eq!(delay(u32::MAX, 1.0), Duration::from_secs(5));
    }

    #[test]
    fn every_endpoint_is_tried_before_a_pause() {
        let now = Instant::now();
        let mut rotation = Rotation::new(3);
        let mut tried = Vec::new();
        for _ in 0..3 {
            assert_eq!(rotation.not_before(), None);
            tried.push(rotation.chosen());
            rotation.failed(now, 1.0);
        }
        assert_eq!((tried, rotation.chosen()), (vec![0, 1, 2], 0));
        assert_eq!(rotation.not_before(), Some(now + Duration::from_millis(100)));
        rotation.failed(now, 1.0);
        assert_eq!((rotation.chosen(), rotation.not_before()), (1, None));
        rotation.succeeded();
        rotation.failed(now, 1.0);
        assert_eq!((rotation.chosen(), rotation.not_before()), (2, None));
    }
}
