//! Who leads, as far as requests are concerned: looked at from time to time, so that no request has to ask.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Election timeouts without a leader after which streams that need one end, as in etcd.
const PATIENCE: u32 = 3;

/// What was seen when it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// Whether a member leads.
    pub(crate) has_leader: bool,
    /// Whether none has led for so long that streams that need one end.
    pub(crate) is_lost: bool,
    /// The term.
    pub(crate) term: u64,
}

impl Leadership {
    /// What there is to know at the first look.
    pub(crate) fn new((has_leader, term): (bool, u64)) -> Self {
        Self { has_leader, is_lost: false, term }
    }
}

/// Looks each `election_timeout` whether there is a leader, and in which term. Runs until nobody listens.
pub(crate) async fn watch_leader(
    look: impl Fn() -> (bool, u64),
    election_timeout: Duration,
    leadership: watch::Sender<Leadership>,
) {
    let mut looks = interval(election_timeout);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut patience = Patience::default();
    loop {
        tokio::select! {
            () = leadership.closed() => return,
            _ = looks.tick() => {}
        }
        let (has_leader, term) = look();
        let seen = Leadership { has_leader, is_lost: patience.ends(has_leader), term };
        leadership.send_if_modified(|known| std::mem::replace(known, seen) != seen);
    }
}

/// Counts looks without a leader.
#[derive(Debug, Default)]
struct Patience {
    without: u32,
}

impl Patience {
    /// Whether there has been no leader for too many looks in a row, this one included.
    fn ends(&mut self, has_leader: bool) -> bool {
        self.without = if has_leader { 0 } else { self.without.saturating_add(1) };
        self.without >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_without_a_leader_is_borne_and_a_long_one_is_told_until_one_leads() {
        let mut patience = Patience::default();
        let looks = [true, false, false, true, false, false, false, false, true, false];
        let ends = looks.map(|has_leader| patience.ends(has_leader));
        assert_eq!(ends, [false, false, false, false, false, false, true, true, false, false]);
    }
}
