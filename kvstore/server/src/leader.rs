//! Whether the cluster has lost its leader, as far as streams that need one are concerned.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Election timeouts without a leader after which streams that need one end, as in etcd.
const PATIENCE: u32 = 3;

/// Looks each `election_timeout` whether there is a leader, and tells when none has led for so long that streams that need
/// one end. Runs until nobody listens.
pub(crate) async fn watch_leader(
    has_leader: impl Fn() -> bool,
    election_timeout: Duration,
    is_lost: watch::Sender<bool>,
) {
    let mut looks = interval(election_timeout);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut patience = Patience::default();
    loop {
        tokio::select! {
            () = is_lost.closed() => return,
            _ = looks.tick() => {}
        }
        let seen = patience.ends(has_leader());
        is_lost.send_if_modified(|known| std::mem::replace(known, seen) != seen);
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
