//! Three members and clients beside them, while members end, stand still, and lose each other: every answer has one
//! explanation, and watchers are told all of it in one order.
//!
//! ```text
//! seed ─► plan ─► faults ─────────────► members ─► the end ───────────────────┐
//!          └────► clients, watchers ───┘    └─► history, events ─► order ─► register
//! ```
//!
//! `LANDBRIDGE_FAULT_SEEDS` says how many seeds are run, `LANDBRIDGE_FAULT_FIRST_SEED` which is the first.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod history;
mod leases;
mod load;
mod machine;
mod members;
mod order;
mod plan;
mod register;
mod run;
mod watchers;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Within this, everything happens that is waited for, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// One run at a time, for a planted bug is in all of them.
static ALONE: Mutex<()> = Mutex::new(());

fn run_one(seed: u64, kinds: &[plan::Kind]) -> Result<load::Summary, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run::run(seed, kinds))
}

#[test]
fn answers_and_events_have_one_explanation_whatever_fails() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kinds = [&plan::MACHINE_KINDS[..], &plan::KINDS].concat();
    let first = number("LANDBRIDGE_FAULT_FIRST_SEED", 1);
    for seed in first..first + number("LANDBRIDGE_FAULT_SEEDS", 3) {
        println!("seed {seed}");
        match run_one(seed, &kinds) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(error) => panic!("seed {seed} (LANDBRIDGE_FAULT_FIRST_SEED={seed}): {error}"),
        }
    }
}

/// The checks notice what they are there for.
#[cfg(feature = "planted-bugs")]
mod planted {
    use landbridge_kvstore_server::planted::{PlantedBug, plant};

    use super::{ALONE, PoisonError, plan, run_one};

    /// A bug is noticed within so many seeds.
    const SEEDS: u64 = 8;

    fn notices(bug: PlantedBug, kinds: &[plan::Kind], text: &str) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        plant(Some(bug));
        let noticed = (1..=SEEDS).find_map(|seed| run_one(seed, kinds).err().map(|error| (seed, error)));
        plant(None);
        let (seed, error) = noticed.unwrap_or_else(|| panic!("{bug:?} was not noticed within {SEEDS} seeds"));
        println!("{bug:?} was noticed with seed {seed}: {error:.300}");
        assert!(error.contains(text), "{error}");
    }

    #[test]
    fn a_stale_read_at_a_deposed_leader_is_noticed() {
        let kinds: [plan::Kind; 2] = [plan::Fault::CutOff, plan::Fault::Deaf];
        notices(PlantedBug::StaleReadOnDeposedLeader, &kinds, "was told before this was asked for");
    }

    #[test]
    fn a_lease_that_ends_early_is_noticed() {
        notices(PlantedBug::LeaseExpiredEarly, &plan::KINDS, "was to live for");
    }
}
