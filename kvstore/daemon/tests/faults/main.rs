//! Three members as processes, ended by `kill -9`, one or all of them, held up by `SIGSTOP`, and cut off from each other, in
//! one direction or both, while clients use them: the same clients and checks as in the tests of the library.
//!
//! `LANDBRIDGE_FAULT_SEEDS` says how many seeds are run, `LANDBRIDGE_FAULT_FIRST_SEED` which is the first.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../server/tests/faults/clients.rs"]
mod clients;
#[path = "../../../server/tests/faults/history.rs"]
mod history;
#[path = "../../../server/tests/faults/leases.rs"]
mod leases;
#[path = "../../../server/tests/faults/load.rs"]
mod load;
#[path = "../../../server/tests/faults/order.rs"]
mod order;
#[expect(dead_code, reason = "what machines suffer is tried out on those of the library")]
#[path = "../../../server/tests/faults/plan.rs"]
mod plan;
mod processes;
#[path = "../../../server/tests/faults/register.rs"]
mod register;
mod relay;
#[path = "../../../server/tests/faults/watchers.rs"]
mod watchers;

use std::collections::BTreeMap;
use std::time::Duration;

use load::{Load, Summary};
use processes::Processes;

/// Within this, everything happens that is waited for, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

async fn run(seed: u64) -> Result<Summary, String> {
    let mut processes = Processes::start();
    let load = Load::start(seed, &processes.addresses);
    for phase in plan::phases(seed, &plan::KINDS) {
        load.goes_on(phase.after).await?;
        processes.strike(phase.fault).await;
        tokio::time::sleep(phase.lasts).await;
        processes.mend();
    }
    let (log, summary) = load.finish().await?.check()?;
    let (revision, _) = log.last_key_value().ok_or("nothing was ever written")?;
    let expected: BTreeMap<String, order::Event> = order::replay(&log);
    for member in 0..plan::MEMBERS {
        let found = processes.keys(member, *revision).await?;
        if found != expected {
            return Err(format!("member {member} has {found:?}, and the events leave {expected:?}"));
        }
    }
    Ok(summary)
}

#[test]
fn answers_and_events_of_processes_have_one_explanation() {
    let first = number("LANDBRIDGE_FAULT_FIRST_SEED", 1);
    for seed in first..first + number("LANDBRIDGE_FAULT_SEEDS", 2) {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        match runtime.block_on(run(seed)) {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(error) => panic!("seed {seed} (LANDBRIDGE_FAULT_FIRST_SEED={seed}): {error}"),
        }
    }
}
