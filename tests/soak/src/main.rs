//! Runs scenarios over and over for as long as it is told to, and ends at the first that fails or leaks.

mod kvstore_differential;
mod kvstore_faults;
mod lab_churn;
mod resources;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;

use resources::Resources;

/// Repeat every scenario until the time is over.
#[derive(Parser)]
#[command(name = "cargo xtask soak", version)]
struct Args {
    /// How long, in minutes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Where the random choices begin; printed, so that a failure can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

/// A scenario makes its choices with `dice`, and cleans up after itself.
type Scenario = fn(&mut fastrand::Rng) -> Result<()>;

const SCENARIOS: [(&str, Scenario); 6] = [
    ("lab churn", lab_churn::run),
    ("kvstore differential", kvstore_differential::run),
    ("kvstore simulation", kvstore_faults::simulation),
    ("kvstore garbage", kvstore_faults::garbage),
    ("kvstore faults", kvstore_faults::members),
    ("kvstore processes", kvstore_faults::processes),
];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(args.minutes * 60);
    let seed = args.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_nanos()))
    });
    println!("seed {seed}");
    let mut round = 0;
    let mut first = None;
    while Instant::now() < end {
        for (name, scenario) in SCENARIOS {
            let mut dice = fastrand::Rng::with_seed(seed + round);
            scenario(&mut dice).with_context(|| {
                format!("{name} failed in round {round}: repeat with --minutes 1 --seed {}", seed + round)
            })?;
        }
        // The first round opens what a process opens once.
        let now = Resources::of_this_process()?;
        first.get_or_insert(now).check_not_exceeded(now).with_context(|| format!("after round {round}"))?;
        round += 1;
    }
    println!("{round} rounds passed, 0 failed");
    Ok(())
}
