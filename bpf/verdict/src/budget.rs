//! How many events a CPU may tell: a bucket of nanoseconds, filled by time and emptied by events.

use landbridge_bpf_maps::EventBudget;

/// The most that is saved: a burst of a second's events.
pub const LARGEST_SAVING: u64 = 1_000_000_000;

/// Whether there is budget for an event that costs `cost` nanoseconds at the time `now`; if so it is spent, otherwise the
/// event is counted as limited.
#[inline(always)]
pub fn spend(budget: &mut EventBudget, now: u64, cost: u32) -> bool {
    let earned = now.saturating_sub(budget.looked);
    let saved = budget.saved.saturating_add(earned).min(LARGEST_SAVING);
    budget.looked = now;
    let left = saved.checked_sub(u64::from(cost));
    budget.saved = left.unwrap_or(saved);
    if left.is_none() {
        budget.limited = budget.limited.wrapping_add(1);
    }
    left.is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever time, no more is told than was earned in it and saved before, nothing is lost that was earned, and
        /// everything is told or counted.
        #[test]
        fn no_more_is_told_than_was_earned(
            cost in 1u32..100_000_000, gaps in proptest::collection::vec(0u64..50_000_000, 1..400), begin: u32,
        ) {
            let mut now = u64::from(begin);
            let mut budget = EventBudget { looked: now, ..EventBudget::default() };
            let (start, mut told) = (now, 0);
            for gap in &gaps {
                now += gap;
                told += u64::from(spend(&mut budget, now, cost));
            }
            let earned = now - start;
            prop_assert!(told * u64::from(cost) <= earned);
            prop_assert_eq!(told + budget.limited, gaps.len() as u64);
            if earned <= LARGEST_SAVING {
                prop_assert_eq!(told * u64::from(cost) + budget.saved, earned);
            }
        }
    }

    #[test]
    fn after_a_long_silence_a_seconds_worth_may_be_told() {
        let mut budget = EventBudget::default();
        let now = 3_600_000_000_000;
        let told = (0..200).filter(|_| spend(&mut budget, now, 10_000_000)).count();
        assert_eq!((told, budget.limited), (100, 100));
    }
}
