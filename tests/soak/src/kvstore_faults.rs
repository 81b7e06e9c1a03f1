//! The store's own tests of faults, with many more seeds than a usual test run, and others.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Seeds of the simulation in one round.
const SIMULATED: u32 = 10_000;
/// Seeds of spoiled files and messages, of each test.
const SPOILED: u32 = 50_000;
/// Seeds with members in threads, and with members as processes: each takes about half a minute.
const REAL: u32 = 5;

/// Simulated clusters, whatever fails.
pub(crate) fn simulation(dice: &mut fastrand::Rng) -> Result<()> {
    test(&["--package", "landbridge-kvstore-server", "--lib"], "simulation", "SIMULATION", SIMULATED, dice)
}

/// Spoiled files and messages, on disk and on real sockets.
pub(crate) fn garbage(dice: &mut fastrand::Rng) -> Result<()> {
    test(&["--package", "landbridge-kvstore-server", "--test", "api"], "garbage", "GARBAGE", SPOILED, dice)?;
    test(&["--package", "landbridge-kvstore-server", "--lib"], "garbage", "GARBAGE", SPOILED, dice)
}

/// Members on files of the kernel, that lose each other, their disks and their place.
pub(crate) fn members(dice: &mut fastrand::Rng) -> Result<()> {
    test(
        &["--package", "landbridge-kvstore-server", "--test", "faults"],
        "whatever_fails",
        "FAULT",
        REAL,
        dice,
    )
}

/// Members as processes.
pub(crate) fn processes(dice: &mut fastrand::Rng) -> Result<()> {
    test(&["--package", "landbridge-kvstore", "--test", "faults"], "of_processes", "FAULT", REAL, dice)
}

/// Runs tests whose name contains `filter`, with other seeds than the usual ones.
fn test(which: &[&str], filter: &str, seeds: &str, count: u32, dice: &mut fastrand::Rng) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--release"]).args(which).args([filter, "--", "--nocapture"]);
    command.env(format!("LANDBRIDGE_{seeds}_FIRST_SEED"), dice.u32(..).to_string());
    command.env(format!("LANDBRIDGE_{seeds}_SEEDS"), count.to_string());
    let status = command.status().context("cargo test cannot be started")?;
    ensure!(status.success(), "the store did not bear what happened to it");
    Ok(())
}
