//! The store and a real etcd are asked the same, at length, and have to answer the same.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Seeds of one round.
const SEEDS: u32 = 10;
/// Operations of each: three times those of a usual test run.
const OPERATIONS: u32 = 30_000;

/// Runs the test of the store's crate with other seeds than the usual ones.
pub(crate) fn run(dice: &mut fastrand::Rng) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--package", "landbridge-kvstore-server", "--test", "differential"]);
    command.args(["--", "--nocapture"]);
    command.env("LANDBRIDGE_DIFF_FIRST_SEED", dice.u32(..).to_string());
    command.env("LANDBRIDGE_DIFF_SEEDS", SEEDS.to_string());
    command.env("LANDBRIDGE_DIFF_OPS", OPERATIONS.to_string());
    let status = command.status().context("cargo test cannot be started")?;
    ensure!(status.success(), "ours and etcd answered differently");
    Ok(())
}
