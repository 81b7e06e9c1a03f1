//! `cargo xtask soak`: a long run that looks for leaks.

use std::{ffi::OsString, process::ExitCode};

use crate::{cargo, process};

/// Runs the lab for a while and says what leaked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Passed on to the soak run.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut command = cargo::cargo();
    command.args(["run", "--release", "--package", "landbridge-soak", "--", "--minutes"]);
    command.arg(args.minutes.to_string()).args(args.rest);
    process::become_command(command)
}
